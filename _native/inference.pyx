"""Classify, Regress and MultiInference in the worker: request bytes in, response bytes or a status out.

The whole of such a request's line there (read → plan → run → encode), or, where runs are merged, its two ends. A
MultiInference is a Classify or Regress for each of its tasks, with one run for them all. Runs on execution threads,
without the GIL.

Source: tensorflow_serving/apis/classification.proto, regression.proto, inference.proto; upstream's classifier.cc,
regressor.cc and multi_inference.cc (order of the checks, texts).
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memset, strlen

from tensorgate._native.byte_writer cimport ByteWriter, put_bytes, put_varint, writer_free, writer_init
from tensorgate._native.example_input cimport ExampleInput, example_input_free, merge_example_input
from tensorgate._native.example_run cimport (
    example_run_free,
    example_run_init,
    feed_examples_to,
    fetch_from,
    run_examples,
)
from tensorgate._native.execution_pool cimport METHOD_CLASSIFY, METHOD_MULTI_INFERENCE
from tensorgate._native.inference_plan cimport InferencePlan, plan_classification, plan_regression
from tensorgate._native.inference_result cimport put_classification, put_regression
from tensorgate._native.predict cimport RunResult, end_response
from tensorgate._native.predict_binding cimport refuse_scan, say, say_bytes
from tensorgate._native.predict_request cimport (
    SCAN_MALFORMED,
    SCAN_NO_MEMORY,
    SCANNED,
    ScanOutcome,
    Slice,
    same,
    signature_name,
    slice_of,
)
from tensorgate._native.proto_scan cimport ModelSpecView, merge_model_spec
from tensorgate._native.proto_wire cimport WIRE_BYTES, ProtoReader, bytes_left, is_utf8, next_bytes_field, reader_of
from tensorgate._native.response_encode cimport put_model_spec, put_tag
from tensorgate._native.session cimport (
    CLASSIFY_METHOD,
    REGRESS_METHOD,
    RunHistory,
    SessionState,
    find_signature,
)
from tensorgate._native.status_codes cimport INVALID_ARGUMENT, OK, UNIMPLEMENTED

# Fields of the messages.
cdef enum:
    RESULT = 1                  # of ClassificationResponse, RegressionResponse
    RESPONSE_MODEL_SPEC = 2     # of these
    RESULTS = 1                 # of MultiInferenceResponse
    RESULT_MODEL_SPEC = 1       # of InferenceResult
    CLASSIFICATION_RESULT = 2   # of InferenceResult
    REGRESSION_RESULT = 3       # of InferenceResult


# --- Classify and Regress ---------------------------------------------------------------------------------------------

cdef ScanOutcome _scan_request(ProtoReader payload, ModelSpecView* spec, ExampleInput* input) noexcept nogil:
    """A ClassificationRequest or RegressionRequest: they have the same fields."""
    cdef uint32_t field
    cdef ProtoReader inner
    cdef ScanOutcome outcome
    while next_bytes_field(&payload, &field, &inner):
        if field == 1:
            if not merge_model_spec(inner, spec):
                return SCAN_MALFORMED
        elif field == 2:
            outcome = merge_example_input(inner, input)
            if outcome != SCANNED:
                return outcome
    return SCAN_MALFORMED if bytes_left(&payload) else SCANNED


cdef int _begin_one(
    SessionState* state, bint is_classify, ProtoReader payload, Inference* inference, ByteWriter* message,
) noexcept nogil:
    cdef InferenceTask* task
    cdef ScanOutcome outcome = SCAN_NO_MEMORY
    cdef Slice name
    inference.tasks = <InferenceTask*>calloc(1, sizeof(InferenceTask))
    task = inference.tasks
    if task is not NULL:
        outcome = _scan_request(payload, &task.spec, &inference.input)
    if outcome != SCANNED:
        return refuse_scan(outcome, message)
    inference.num_tasks = 1
    name = signature_name(&task.spec)
    task.signature = find_signature(state, name.data, name.size)
    if task.signature is NULL:
        say(message, "No signature was found with the name: ")
        say_bytes(message, name.data, name.size)
        return INVALID_ARGUMENT
    if is_classify:
        return plan_classification(state, task.signature, &task.plan, message)
    return plan_regression(state, task.signature, &task.plan, message)


cdef int _put_one(
    ByteWriter* out, uint32_t classification_field, uint32_t regression_field, const Inference* inference,
    const InferenceTask* task, ByteWriter* message,
) noexcept nogil:
    if task.plan.value is NULL:
        return put_classification(out, classification_field, &inference.run, &task.plan, message)
    return put_regression(out, regression_field, &inference.run, &task.plan, message)


# --- MultiInference ---------------------------------------------------------------------------------------------------

cdef struct TaskView:
    # An InferenceTask of the request's.
    ModelSpecView spec
    Slice method_name


cdef bint _scan_task(ProtoReader body, TaskView* task) noexcept nogil:
    cdef uint32_t field
    cdef ProtoReader inner
    memset(task, 0, sizeof(TaskView))
    while next_bytes_field(&body, &field, &inner):
        if field == 1:
            if not merge_model_spec(inner, &task.spec):
                return False
        elif field == 2:
            if not is_utf8(inner.pos, bytes_left(&inner)):
                return False
            task.method_name = slice_of(inner.pos, bytes_left(&inner))
    return bytes_left(&body) == 0


cdef ScanOutcome _scan_multi(ProtoReader payload, ExampleInput* input) noexcept nogil:
    """Walks all of a MultiInferenceRequest; its tasks are only looked at, since there may be any number of them."""
    cdef uint32_t field
    cdef ProtoReader inner
    cdef TaskView task
    cdef ScanOutcome outcome
    memset(input, 0, sizeof(ExampleInput))
    while next_bytes_field(&payload, &field, &inner):
        if field == 1:
            if not _scan_task(inner, &task):
                return SCAN_MALFORMED
        elif field == 2:
            outcome = merge_example_input(inner, input)
            if outcome != SCANNED:
                return outcome
    return SCAN_MALFORMED if bytes_left(&payload) else SCANNED


cdef bint _next_task(ProtoReader* payload, TaskView* task) noexcept nogil:
    """The next task of a request that has been scanned; False when there is none left."""
    cdef uint32_t field
    cdef ProtoReader inner
    while next_bytes_field(payload, &field, &inner):
        if field == 1:
            return _scan_task(inner, task)
    return False


cdef bint _is_method(Slice name, const char* method) noexcept nogil:
    return name.size == strlen(method) and memcmp(name.data, method, name.size) == 0


cdef int _refuse_name(ByteWriter* message, const char* reason, Slice name) noexcept nogil:
    say(message, reason)
    say_bytes(message, name.data, name.size)
    return INVALID_ARGUMENT


cdef int _add_task(SessionState* state, Inference* inference, const TaskView* view, ByteWriter* message) noexcept nogil:
    cdef InferenceTask* tasks = inference.tasks
    cdef InferenceTask* task = &tasks[inference.num_tasks]
    cdef Slice model = slice_of(view.spec.name, view.spec.name_size)
    cdef Slice name = signature_name(&view.spec)
    cdef int code, i
    if model.size == 0:
        say(message, "Found ModelSpec with an empty model name.")
        return INVALID_ARGUMENT
    if inference.num_tasks and not same(model, slice_of(tasks[0].spec.name, tasks[0].spec.name_size)):
        say(message, "All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        return INVALID_ARGUMENT
    for i in range(inference.num_tasks):
        if same(name, slice_of(tasks[i].signature.name.data, tasks[i].signature.name.size)):
            return _refuse_name(message, "Duplicate evaluation of signature: ", name)
    task.spec = view.spec
    task.signature = find_signature(state, name.data, name.size)
    if task.signature is NULL:
        return _refuse_name(message, "Requested signature not found in model graph: ", name)
    if _is_method(view.method_name, CLASSIFY_METHOD):
        code = plan_classification(state, task.signature, &task.plan, message)
    elif _is_method(view.method_name, REGRESS_METHOD):
        code = plan_regression(state, task.signature, &task.plan, message)
    else:
        _refuse_name(message, "Unsupported signature method_name: ", view.method_name)
        return UNIMPLEMENTED
    inference.num_tasks += code == OK
    return code


cdef int _begin_multi(
    SessionState* state, ProtoReader payload, Inference* inference, ByteWriter* message,
) noexcept nogil:
    cdef ScanOutcome outcome = _scan_multi(payload, &inference.input)
    cdef TaskView view
    cdef int code = OK
    if outcome != SCANNED:
        return refuse_scan(outcome, message)
    inference.is_multi = True
    # One more, which is looked up and refused.
    inference.tasks = <InferenceTask*>calloc(<size_t>state.num_signatures + 1, sizeof(InferenceTask))
    if inference.tasks is NULL:
        return refuse_scan(SCAN_NO_MEMORY, message)
    while code == OK and _next_task(&payload, &view):
        code = _add_task(state, inference, &view, message)
    return code


cdef int _put_results(const SessionState* state, const Inference* inference, RunResult* result) noexcept nogil:
    cdef ByteWriter one  # an InferenceResult, whose length comes before it
    cdef const InferenceTask* task
    cdef int code = OK, i
    writer_init(&one)
    for i in range(inference.num_tasks):
        task = &inference.tasks[i]
        one.size = 0
        put_model_spec(
            &one, RESULT_MODEL_SPEC, task.spec.name, task.spec.name_size, state.version, task.signature.name.data,
            task.signature.name.size)
        code = _put_one(&one, CLASSIFICATION_RESULT, REGRESSION_RESULT, inference, task, &result.message)
        if code != OK:
            break
        put_tag(&result.response, RESULTS, WIRE_BYTES)
        put_varint(&result.response, one.size)
        put_bytes(&result.response, one.data, one.size)
        result.response.failed |= one.failed
    writer_free(&one)
    return code


# --- all of them ------------------------------------------------------------------------------------------------------

cdef int begin_inference(
    SessionState* state, uint64_t method, const uint8_t* payload, size_t size, Inference* inference, RunResult* result,
) noexcept nogil:
    cdef ProtoReader reader = reader_of(payload, size)
    cdef InferencePlan* plan
    cdef int code, i
    memset(inference, 0, sizeof(Inference))
    if method == METHOD_MULTI_INFERENCE:
        code = _begin_multi(state, reader, inference, &result.message)
    else:
        code = _begin_one(state, method == METHOD_CLASSIFY, reader, inference, &result.message)
    if code != OK:
        return code
    if not example_run_init(&inference.run, inference.num_tasks, 2 * inference.num_tasks):
        return refuse_scan(SCAN_NO_MEMORY, &result.message)
    for i in range(inference.num_tasks):
        plan = &inference.tasks[i].plan
        feed_examples_to(&inference.run, plan.input)
        fetch_from(&inference.run, plan.classes)
        fetch_from(&inference.run, plan.scores)
        fetch_from(&inference.run, plan.value)
    return OK


cdef int end_inference(SessionState* state, const Inference* inference, RunResult* result) noexcept nogil:
    cdef const InferenceTask* task = &inference.tasks[0]
    cdef int code
    if inference.is_multi:
        code = _put_results(state, inference, result)
    else:
        code = _put_one(&result.response, RESULT, RESULT, inference, task, &result.message)
        if code == OK:
            put_model_spec(
                &result.response, RESPONSE_MODEL_SPEC, task.spec.name, task.spec.name_size, state.version,
                task.signature.name.data, task.signature.name.size)
    return code if code != OK else end_response(result)


cdef void inference_free(Inference* inference) noexcept nogil:
    example_run_free(&inference.run)
    example_input_free(&inference.input)
    free(inference.tasks)
    inference.tasks = NULL


cdef void infer(
    SessionState* state, uint64_t method, const uint8_t* payload, size_t size, int64_t deadline_us, RunResult* result,
) noexcept nogil:
    cdef Inference inference
    cdef RunHistory* history = NULL
    result.code = begin_inference(state, method, payload, size, &inference, result)
    if result.code == OK:
        # Of any mixture of signatures nothing is known beforehand.
        if not inference.is_multi:
            history = &inference.tasks[0].signature.history
        result.code = run_examples(
            state, history, size, &inference.input, &inference.run, deadline_us, result)
    if result.code == OK:
        result.code = end_inference(state, &inference, result)
    inference_free(&inference)
