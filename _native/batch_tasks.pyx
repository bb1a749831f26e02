"""A Predict as a task that can be merged with others: read and checked as if it ran alone, but nothing decoded yet.

First step of a batched request in the worker (read → bind → queue → pack → run → split → encode), and its last one. On
the thread that reads requests, or on an execution thread when they are large; without the GIL.

Source: upstream's predict_util and batching_session (the checks, their order and texts).
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp

from tensorgate._native.batch_packing cimport OutputRows, free_unpacked, output_rows_free, take_rows
from tensorgate._native.batch_state cimport MAX_BATCH_RANK, Batcher, BatchInput, BatchTask
from tensorgate._native.byte_writer cimport ByteWriter, put_decimal
from tensorgate._native.execution_pool cimport Job
from tensorgate._native.predict cimport RunResult, end_response, predict_signature
from tensorgate._native.predict_binding cimport (
    bind_inputs,
    check_in_graph,
    choose_outputs,
    measure_input,
    refuse_scan,
    say,
    say_bytes,
)
from tensorgate._native.predict_request cimport (
    SCAN_NO_MEMORY,
    SCANNED,
    RequestView,
    ScanOutcome,
    Slice,
    request_free,
    scan_request,
)
from tensorgate._native.proto_wire cimport ProtoReader, reader_of
from tensorgate._native.response_encode cimport put_model_spec, put_output_parts
from tensorgate._native.session cimport Endpoint, Signature
from tensorgate._native.status_codes cimport INVALID_ARGUMENT, OK, UNIMPLEMENTED
from tensorgate._native.tensor_scan cimport TensorScan
from tensorgate._native.tf_c_api cimport TF_Output


cdef struct PredictTask:
    # One block of memory with the arrays that it points to.
    BatchTask task              # first
    RequestView request
    const Signature* signature
    Endpoint** chosen           # in the client's order
    int num_chosen
    bint has_high_rank


# --- checks -----------------------------------------------------------------------------------------------------------

cdef int check_task(const Batcher* batcher, BatchTask* task, ByteWriter* message) noexcept nogil:
    cdef int i
    if task.num_inputs == 0:
        say(message, "Batching Run() must have at least one input tensor")
        return INVALID_ARGUMENT
    for i in range(task.num_inputs):
        if task.inputs[i].num_dims == 0:
            say(message, "Batching Run() input tensors must have at least one dimension")
            return INVALID_ARGUMENT
        if i and task.inputs[i].dims[0] != task.inputs[0].dims[0]:
            say(message, "Batching Run() input tensors must have equal 0th-dimension size")
            return INVALID_ARGUMENT
    task.num_rows = task.inputs[0].dims[0]
    if task.num_rows > batcher.parameters.max_batch_size:
        say(message, "Task size ")
        put_decimal(message, task.num_rows)
        say(message, " is larger than maximum input batch size ")
        put_decimal(message, batcher.parameters.max_batch_size)
        return INVALID_ARGUMENT
    return OK


cdef int order_of_tensors(const Endpoint* a, const Endpoint* b) noexcept nogil:
    cdef int order = memcmp(a.tensor_name.data, b.tensor_name.data, min(a.tensor_name.size, b.tensor_name.size))
    if order:
        return order
    return (a.tensor_name.size > b.tensor_name.size) - (a.tensor_name.size < b.tensor_name.size)


cdef bint is_mergeable(BatchTask* task) noexcept nogil:
    cdef BatchInput moving
    cdef int i, j
    # Of no rows there is nothing to merge.
    if task.num_rows == 0:
        return False
    for i in range(1, task.num_inputs):
        j = i
        while j and order_of_tensors(task.inputs[j - 1].endpoint, task.inputs[i].endpoint) > 0:
            j -= 1
        if j < i:
            moving = task.inputs[i]
            while i > j:
                task.inputs[i] = task.inputs[i - 1]
                i -= 1
            task.inputs[j] = moving
    task.num_bytes = 0
    for i in range(task.num_inputs):
        # A tensor that is fed twice is TensorFlow's to refuse.
        if i and _is_same(&task.inputs[i].feed, &task.inputs[i - 1].feed):
            return False
        task.num_bytes += task.inputs[i].values.num_elements * task.inputs[i].values.element_size
    return True


cdef inline bint _is_same(const TF_Output* a, const TF_Output* b) noexcept nogil:
    return a.oper == b.oper and a.index == b.index


# --- Predict ----------------------------------------------------------------------------------------------------------

cdef PredictTask* _new_task(const Signature* signature, const RequestView* request) noexcept nogil:
    """Takes the request over; NULL: out of memory."""
    cdef size_t num_inputs = <size_t>signature.num_inputs
    cdef size_t num_outputs = <size_t>signature.num_outputs
    cdef size_t size = sizeof(PredictTask) + num_inputs * sizeof(BatchInput) + num_outputs * (
        sizeof(Endpoint*) + sizeof(TF_Output) + sizeof(int))
    cdef PredictTask* made = <PredictTask*>calloc(1, size)
    cdef uint8_t* rest = <uint8_t*>made + sizeof(PredictTask)
    if made is NULL:
        return NULL
    made.request = request[0]
    made.signature = signature
    made.task.inputs = <BatchInput*>rest
    rest += num_inputs * sizeof(BatchInput)
    made.chosen = <Endpoint**>rest
    rest += num_outputs * sizeof(Endpoint*)
    made.task.fetches = <TF_Output*>rest
    rest += num_outputs * sizeof(TF_Output)
    made.task.places = <int*>rest
    made.task.num_inputs = signature.num_inputs
    made.task.signature_name = &signature.name
    made.task.may_merge = signature.is_batchable
    made.task.respond = _respond
    made.task.release = _release
    return made


cdef int _measure(void* owner, int index, ProtoReader body, Slice name, ByteWriter* message) noexcept nogil:
    """A TakeInput of a PredictTask."""
    cdef PredictTask* made = <PredictTask*>owner
    cdef BatchInput* input = &made.task.inputs[index]
    cdef TensorScan scan
    cdef int i, code = measure_input(body, name, &scan, &input.values, message)
    if code != OK:
        return code
    input.endpoint = &made.signature.inputs[index]
    input.feed = input.endpoint.output
    input.num_dims = scan.num_dims
    made.has_high_rank |= scan.num_dims > MAX_BATCH_RANK
    for i in range(min(scan.num_dims, MAX_BATCH_RANK)):
        input.dims[i] = scan.dims[i]
    return OK


cdef int _check_in_graph(const PredictTask* made, ByteWriter* message) noexcept nogil:
    cdef int code = OK, i
    for i in range(made.task.num_inputs):
        if code == OK:
            code = check_in_graph(&made.signature.inputs[i], message)
    for i in range(made.num_chosen):
        if code == OK:
            code = check_in_graph(made.chosen[i], message)
    return code


cdef void _order_fetches(PredictTask* made) noexcept nogil:
    """By name, and where each of the chosen outputs then is."""
    cdef BatchTask* task = &made.task
    cdef int i, j, place
    for i in range(made.num_chosen):
        place = made.chosen[i].rank
        if made.num_chosen < made.signature.num_outputs:
            place = 0
            for j in range(made.num_chosen):
                place += made.chosen[j].rank < made.chosen[i].rank
        task.places[i] = place
        task.fetches[place] = made.chosen[i].output
    task.num_fetches = made.num_chosen


cdef bint _has_distinct_fetches(const BatchTask* task) noexcept nogil:
    """Of two outputs that are one tensor the second leaves a gap."""
    cdef int i
    for i in range(task.num_fetches):
        if task.fetches[i].oper is NULL:
            return False
    return task.num_fetches > 0


cdef int _bind(PredictTask* made, ByteWriter* message) noexcept nogil:
    cdef int code = bind_inputs(&made.request, made.signature, _measure, made, message)
    if code == OK:
        code = choose_outputs(&made.request, made.signature, made.chosen, &made.num_chosen, message)
    if code == OK:
        code = _check_in_graph(made, message)
    return code


cdef Preparation prepare_predict(const Batcher* batcher, Job* job, BatchTask** task) noexcept nogil:
    cdef RequestView request
    cdef RunResult* result = &job.result
    cdef ScanOutcome outcome = scan_request(reader_of(job.payload, job.size), &request)
    cdef Signature* signature
    cdef PredictTask* made
    if outcome != SCANNED:
        result.code = refuse_scan(outcome, &result.message)
        request_free(&request)
        return REFUSED
    signature = predict_signature(job.state, &request, result)
    made = NULL if signature is NULL else _new_task(signature, &request)
    if made is NULL:
        if signature is not NULL:
            result.code = refuse_scan(SCAN_NO_MEMORY, &result.message)
        request_free(&request)
        return REFUSED
    made.task.job = job
    made.task.state = job.state
    made.task.enqueued_us = job.enqueued_us
    result.code = _bind(made, &result.message)
    if result.code == OK:
        result.code = check_task(batcher, &made.task, &result.message)
        if result.code != OK and batcher.parameters.is_auto:
            # Who asked for no batches is not to hear of them.
            result.code = OK
            result.message.size = 0
            _release(&made.task)
            return RUNS_ALONE
    if result.code == OK:
        _order_fetches(made)
    if result.code == OK and not made.has_high_rank and _has_distinct_fetches(&made.task) and is_mergeable(&made.task):
        task[0] = &made.task
        return PREPARED
    _release(&made.task)
    return RUNS_ALONE if result.code == OK else REFUSED


cdef int _respond(BatchTask* task) noexcept nogil:
    cdef const PredictTask* made = <PredictTask*>task
    cdef RunResult* result = &task.job.result
    cdef OutputRows rows
    cdef const Endpoint* endpoint
    cdef bint has_field = True
    cdef int code, i
    for i in range(made.num_chosen):
        endpoint = made.chosen[i]
        code = take_rows(task, task.places[i], &rows, &result.message)
        if code == OK:
            has_field = put_output_parts(
                &result.response, endpoint.alias.data, endpoint.alias.size, rows.dtype, rows.dims, rows.num_dims,
                rows.parts, rows.num_parts, task.state.outputs_as_content)
        output_rows_free(&rows)
        if code != OK:
            return code
        if not has_field:
            say(&result.message, "output has a dtype that cannot be sent to a client: ")
            say_bytes(&result.message, endpoint.alias.data, endpoint.alias.size)
            return UNIMPLEMENTED
    put_model_spec(
        &result.response, 2, made.request.spec.name, made.request.spec.name_size, task.state.version,
        made.signature.name.data, made.signature.name.size)
    return end_response(result)


cdef void _release(BatchTask* task) noexcept nogil:
    cdef PredictTask* made = <PredictTask*>task
    free_unpacked(task)
    if task.slices is not NULL and task.slices != &task.whole:
        free(task.slices)
    request_free(&made.request)
    free(made)
