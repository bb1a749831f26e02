"""Runs a session once over serialized examples, fed to every input and fetched from every output that is asked for.

Third step of Classify, Regress and MultiInference in the worker (read → plan → run → encode), and who owns the tensors
of such a call: one ExampleRun, released once, on whichever way the call ends. On execution threads, without the GIL.

Source: upstream's PerformOneShotTensorComputation, and multi_inference.cc.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memset

from tensorgate._native.byte_writer cimport put_decimal
from tensorgate._native.example_input cimport ExampleInput, make_example_tensor
from tensorgate._native.predict cimport RunResult
from tensorgate._native.predict_binding cimport check_in_graph, run_or_say, say
from tensorgate._native.session cimport Endpoint, Name, RunHistory, SessionState
from tensorgate._native.status_codes cimport INVALID_ARGUMENT, OK
from tensorgate._native.tf_c_api cimport TF_Output, TF_Tensor, tf


cdef bint example_run_init(ExampleRun* run, int max_fed, int max_fetched) noexcept nogil:
    memset(run, 0, sizeof(ExampleRun))
    run.fed = <const Endpoint**>calloc(<size_t>max_fed + 1, sizeof(Endpoint*))
    run.feeds = <TF_Output*>calloc(<size_t>max_fed + 1, sizeof(TF_Output))
    run.inputs = <TF_Tensor**>calloc(<size_t>max_fed + 1, sizeof(TF_Tensor*))
    run.fetched = <const Endpoint**>calloc(<size_t>max_fetched + 1, sizeof(Endpoint*))
    run.fetches = <TF_Output*>calloc(<size_t>max_fetched + 1, sizeof(TF_Output))
    run.outputs = <TF_Tensor**>calloc(<size_t>max_fetched + 1, sizeof(TF_Tensor*))
    return not (
        run.fed is NULL or run.feeds is NULL or run.inputs is NULL or run.fetched is NULL or run.fetches is NULL
        or run.outputs is NULL)


cdef void example_run_free(ExampleRun* run) noexcept nogil:
    cdef int i
    if run.examples is not NULL:
        tf.DeleteTensor(run.examples)
    if run.outputs is not NULL:
        for i in range(run.num_fetched):
            if run.outputs[i] is not NULL:
                tf.DeleteTensor(run.outputs[i])
    free(run.fed)
    free(run.feeds)
    free(run.inputs)
    free(run.fetched)
    free(run.fetches)
    free(run.outputs)


cdef int _order(const Name* a, const Name* b) noexcept nogil:
    cdef int order = memcmp(a.data, b.data, min(a.size, b.size))
    return order if order else (a.size > b.size) - (a.size < b.size)


cdef bint _same_tensor(const Endpoint* a, const Endpoint* b) noexcept nogil:
    if a.in_graph and b.in_graph:
        return a.output.oper == b.output.oper and a.output.index == b.output.index
    return _order(&a.tensor_name, &b.tensor_name) == 0


cdef int _insert(const Endpoint** endpoints, int count, const Endpoint* endpoint) noexcept nogil:
    """How many there are then."""
    cdef int place
    for place in range(count):
        if _same_tensor(endpoints[place], endpoint):
            return count
    place = count
    while place > 0 and _order(&endpoints[place - 1].tensor_name, &endpoint.tensor_name) > 0:
        endpoints[place] = endpoints[place - 1]
        place -= 1
    endpoints[place] = endpoint
    return count + 1


cdef void feed_examples_to(ExampleRun* run, const Endpoint* endpoint) noexcept nogil:
    if endpoint is not NULL:
        run.num_fed = _insert(run.fed, run.num_fed, endpoint)


cdef void fetch_from(ExampleRun* run, const Endpoint* endpoint) noexcept nogil:
    if endpoint is not NULL:
        run.num_fetched = _insert(run.fetched, run.num_fetched, endpoint)


cdef int _check_outputs(const ExampleRun* run, RunResult* result) noexcept nogil:
    cdef int num_there = 0, i
    for i in range(run.num_fetched):
        num_there += run.outputs[i] is not NULL
    if num_there == run.num_fetched:
        return OK
    say(&result.message, "Expected ")
    put_decimal(&result.message, run.num_fetched)
    say(&result.message, " output tensor(s).  Got: ")
    put_decimal(&result.message, num_there)
    return INVALID_ARGUMENT


cdef int run_examples(
    SessionState* state, RunHistory* history, size_t request_size, const ExampleInput* input, ExampleRun* run,
    int64_t deadline_us, RunResult* result,
) noexcept nogil:
    cdef int i
    cdef int code = make_example_tensor(input, &run.examples, &result.message)
    if code != OK:
        return code
    run.num_examples = <int64_t>input.num_examples
    for i in range(run.num_fed):
        code = check_in_graph(run.fed[i], &result.message)
        if code != OK:
            return code
        run.feeds[i] = run.fed[i].output
        run.inputs[i] = run.examples
    for i in range(run.num_fetched):
        code = check_in_graph(run.fetched[i], &result.message)
        if code != OK:
            return code
        run.fetches[i] = run.fetched[i].output
    code = run_or_say(
        state, history, request_size, run.feeds, run.inputs, run.num_fed, run.fetches, run.outputs, run.num_fetched,
        NULL, 0, deadline_us, &result.run_us, &result.message)
    return code if code != OK else _check_outputs(run, result)


cdef TF_Tensor* output_of(const ExampleRun* run, const Endpoint* endpoint) noexcept nogil:
    cdef int i
    for i in range(run.num_fetched):
        if _same_tensor(run.fetched[i], endpoint):
            return run.outputs[i]
    return NULL
