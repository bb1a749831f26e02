"""Classify, Regress and MultiInference in the worker: request bytes in, response bytes or a status out.

The whole of such a request's line there (read → plan → run → encode). A MultiInference is a Classify or Regress for
each of its tasks, with one run for them all. Runs on execution threads, without the GIL.

Source: tensorflow_serving/apis/classification.proto, regression.proto, inference.proto; upstream's classifier.cc,
regressor.cc and multi_inference.cc (order of the checks, texts).
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memset, strlen

from tensorgate._native.byte_writer cimport ByteWriter, put_bytes, put_varint, writer_free, writer_init
from tensorgate._native.example_input cimport ExampleInput, example_input_free, merge_example_input
from tensorgate._native.example_run cimport (
    ExampleRun,
    example_run_free,
    example_run_init,
    feed_examples_to,
    fetch_from,
    run_examples,
)
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
from tensorgate._native.proto_wire cimport (
    WIRE_BYTES,
    ProtoReader,
    bytes_left,
    is_utf8,
    read_bytes,
    read_tag,
    reader_of,
    skip_field,
)
from tensorgate._native.response_encode cimport put_model_spec, put_tag
from tensorgate._native.session cimport (
    CLASSIFY_METHOD,
    REGRESS_METHOD,
    SessionState,
    Signature,
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

cdef struct InferenceView:
    # A ClassificationRequest or RegressionRequest: they have the same fields.
    ModelSpecView spec
    ExampleInput input


cdef ScanOutcome _scan_request(ProtoReader payload, InferenceView* request) noexcept nogil:
    cdef uint32_t field, wire_type
    cdef ProtoReader inner
    cdef ScanOutcome outcome
    memset(request, 0, sizeof(InferenceView))
    while bytes_left(&payload):
        if not read_tag(&payload, &field, &wire_type):
            return SCAN_MALFORMED
        if wire_type != WIRE_BYTES or field > 2:
            if not skip_field(&payload, field, wire_type):
                return SCAN_MALFORMED
            continue
        if not read_bytes(&payload, &inner):
            return SCAN_MALFORMED
        if field == 1:
            if not merge_model_spec(inner, &request.spec):
                return SCAN_MALFORMED
            continue
        outcome = merge_example_input(inner, &request.input)
        if outcome != SCANNED:
            return outcome
    return SCANNED


cdef int _infer_planned(
    SessionState* state, Signature* signature, const InferencePlan* plan, const InferenceView* request,
    size_t request_size, int64_t deadline_us, RunResult* result,
) noexcept nogil:
    cdef ExampleRun run
    cdef int code
    if example_run_init(&run, 1, 2):
        feed_examples_to(&run, plan.input)
        fetch_from(&run, plan.classes)
        fetch_from(&run, plan.scores)
        fetch_from(&run, plan.value)
        code = run_examples(
            state, &signature.history, request_size, &request.input, &run, deadline_us, result)
    else:
        code = refuse_scan(SCAN_NO_MEMORY, &result.message)
    if code == OK:
        if plan.value is NULL:
            code = put_classification(&result.response, RESULT, &run, plan, &result.message)
        else:
            code = put_regression(&result.response, RESULT, &run, plan, &result.message)
    example_run_free(&run)
    if code != OK:
        return code
    put_model_spec(
        &result.response, RESPONSE_MODEL_SPEC, request.spec.name, request.spec.name_size, state.version,
        signature.name.data, signature.name.size)
    return end_response(result)


cdef int _infer(
    SessionState* state, const InferenceView* request, bint is_classify, size_t request_size, int64_t deadline_us,
    RunResult* result,
) noexcept nogil:
    cdef Slice name = signature_name(&request.spec)
    cdef Signature* signature = find_signature(state, name.data, name.size)
    cdef InferencePlan plan
    cdef int code
    if signature is NULL:
        say(&result.message, "No signature was found with the name: ")
        say_bytes(&result.message, name.data, name.size)
        return INVALID_ARGUMENT
    if is_classify:
        code = plan_classification(state, signature, &plan, &result.message)
    else:
        code = plan_regression(state, signature, &plan, &result.message)
    if code != OK:
        return code
    return _infer_planned(state, signature, &plan, request, request_size, deadline_us, result)


cdef void _scan_and_infer(
    SessionState* state, const uint8_t* payload, size_t size, bint is_classify, int64_t deadline_us, RunResult* result,
) noexcept nogil:
    cdef InferenceView request
    cdef ScanOutcome outcome = _scan_request(reader_of(payload, size), &request)
    if outcome == SCANNED:
        result.code = _infer(state, &request, is_classify, size, deadline_us, result)
    else:
        result.code = refuse_scan(outcome, &result.message)
    example_input_free(&request.input)


cdef void classify(
    SessionState* state, const uint8_t* payload, size_t size, int64_t deadline_us, RunResult* result,
) noexcept nogil:
    _scan_and_infer(state, payload, size, True, deadline_us, result)


cdef void regress(
    SessionState* state, const uint8_t* payload, size_t size, int64_t deadline_us, RunResult* result,
) noexcept nogil:
    _scan_and_infer(state, payload, size, False, deadline_us, result)


# --- MultiInference ---------------------------------------------------------------------------------------------------

cdef struct TaskView:
    # An InferenceTask.
    ModelSpecView spec
    Slice method_name


cdef struct Task:
    # One that has been found fit to run.
    ModelSpecView spec
    Signature* signature
    InferencePlan plan


cdef struct TaskList:
    Task* tasks          # owned; as many as the model has signatures, since no signature may come twice
    int num_tasks


cdef bint _scan_task(ProtoReader body, TaskView* task) noexcept nogil:
    cdef uint32_t field, wire_type
    cdef ProtoReader inner
    memset(task, 0, sizeof(TaskView))
    while bytes_left(&body):
        if not read_tag(&body, &field, &wire_type):
            return False
        if wire_type != WIRE_BYTES or field > 2:
            if not skip_field(&body, field, wire_type):
                return False
            continue
        if not read_bytes(&body, &inner):
            return False
        if field == 1:
            if not merge_model_spec(inner, &task.spec):
                return False
        elif is_utf8(inner.pos, bytes_left(&inner)):
            task.method_name = slice_of(inner.pos, bytes_left(&inner))
        else:
            return False
    return True


cdef ScanOutcome _scan_multi(ProtoReader payload, ExampleInput* input) noexcept nogil:
    """Walks all of a MultiInferenceRequest; its tasks are only looked at, since there may be any number of them."""
    cdef uint32_t field, wire_type
    cdef ProtoReader inner
    cdef TaskView task
    cdef ScanOutcome outcome
    memset(input, 0, sizeof(ExampleInput))
    while bytes_left(&payload):
        if not read_tag(&payload, &field, &wire_type):
            return SCAN_MALFORMED
        if wire_type != WIRE_BYTES or field > 2:
            if not skip_field(&payload, field, wire_type):
                return SCAN_MALFORMED
            continue
        if not read_bytes(&payload, &inner):
            return SCAN_MALFORMED
        if field == 1:
            if not _scan_task(inner, &task):
                return SCAN_MALFORMED
            continue
        outcome = merge_example_input(inner, input)
        if outcome != SCANNED:
            return outcome
    return SCANNED


cdef bint _next_task(ProtoReader* payload, TaskView* task) noexcept nogil:
    """The next task of a request that has been scanned; False when there is none left."""
    cdef uint32_t field, wire_type
    cdef ProtoReader inner
    while bytes_left(payload) and read_tag(payload, &field, &wire_type):
        if field == 1 and wire_type == WIRE_BYTES:
            return read_bytes(payload, &inner) and _scan_task(inner, task)
        if not skip_field(payload, field, wire_type):
            return False
    return False


cdef bint _is_method(Slice name, const char* method) noexcept nogil:
    return name.size == strlen(method) and memcmp(name.data, method, name.size) == 0


cdef int _refuse_name(ByteWriter* message, const char* reason, Slice name) noexcept nogil:
    say(message, reason)
    say_bytes(message, name.data, name.size)
    return INVALID_ARGUMENT


cdef int _add_task(SessionState* state, TaskList* list, const TaskView* view, ByteWriter* message) noexcept nogil:
    cdef Slice model = slice_of(view.spec.name, view.spec.name_size)
    cdef Slice name = signature_name(&view.spec)
    cdef Task* task
    cdef int code, i
    if model.size == 0:
        say(message, "Found ModelSpec with an empty model name.")
        return INVALID_ARGUMENT
    if list.num_tasks and not same(model, slice_of(list.tasks[0].spec.name, list.tasks[0].spec.name_size)):
        say(message, "All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        return INVALID_ARGUMENT
    for i in range(list.num_tasks):
        if same(name, slice_of(list.tasks[i].signature.name.data, list.tasks[i].signature.name.size)):
            return _refuse_name(message, "Duplicate evaluation of signature: ", name)
    task = &list.tasks[list.num_tasks]
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
    list.num_tasks += code == OK
    return code


cdef int _put_results(
    const SessionState* state, const TaskList* list, const ExampleRun* run, RunResult* result,
) noexcept nogil:
    cdef ByteWriter one  # an InferenceResult, whose length comes before it
    cdef const Task* task
    cdef int code = OK, i
    writer_init(&one)
    for i in range(list.num_tasks):
        task = &list.tasks[i]
        one.size = 0
        put_model_spec(
            &one, RESULT_MODEL_SPEC, task.spec.name, task.spec.name_size, state.version, task.signature.name.data,
            task.signature.name.size)
        if task.plan.value is NULL:
            code = put_classification(&one, CLASSIFICATION_RESULT, run, &task.plan, &result.message)
        else:
            code = put_regression(&one, REGRESSION_RESULT, run, &task.plan, &result.message)
        if code != OK:
            break
        put_tag(&result.response, RESULTS, WIRE_BYTES)
        put_varint(&result.response, one.size)
        put_bytes(&result.response, one.data, one.size)
        result.response.failed |= one.failed
    writer_free(&one)
    return code if code != OK else end_response(result)


cdef int _run_tasks(
    SessionState* state, const TaskList* list, const ExampleInput* input, size_t request_size, int64_t deadline_us,
    RunResult* result,
) noexcept nogil:
    cdef ExampleRun run
    cdef int code, i
    if example_run_init(&run, list.num_tasks, 2 * list.num_tasks):
        for i in range(list.num_tasks):
            feed_examples_to(&run, list.tasks[i].plan.input)
            fetch_from(&run, list.tasks[i].plan.classes)
            fetch_from(&run, list.tasks[i].plan.scores)
            fetch_from(&run, list.tasks[i].plan.value)
        # Of any mixture of signatures nothing is known beforehand.
        code = run_examples(state, NULL, request_size, input, &run, deadline_us, result)
    else:
        code = refuse_scan(SCAN_NO_MEMORY, &result.message)
    if code == OK:
        code = _put_results(state, list, &run, result)
    example_run_free(&run)
    return code


cdef int _infer_tasks(
    SessionState* state, ProtoReader payload, const ExampleInput* input, int64_t deadline_us, RunResult* result,
) noexcept nogil:
    cdef size_t request_size = bytes_left(&payload)
    cdef TaskList list
    cdef TaskView view
    cdef int code = OK
    list.num_tasks = 0
    # One more, which is looked up and refused.
    list.tasks = <Task*>calloc(<size_t>state.num_signatures + 1, sizeof(Task))
    if list.tasks is NULL:
        return refuse_scan(SCAN_NO_MEMORY, &result.message)
    while code == OK and _next_task(&payload, &view):
        code = _add_task(state, &list, &view, &result.message)
    if code == OK:
        code = _run_tasks(state, &list, input, request_size, deadline_us, result)
    free(list.tasks)
    return code


cdef void multi_inference(
    SessionState* state, const uint8_t* payload, size_t size, int64_t deadline_us, RunResult* result,
) noexcept nogil:
    cdef ExampleInput input
    cdef ScanOutcome outcome = _scan_multi(reader_of(payload, size), &input)
    if outcome == SCANNED:
        result.code = _infer_tasks(state, reader_of(payload, size), &input, deadline_us, result)
    else:
        result.code = refuse_scan(outcome, &result.message)
    example_input_free(&input)
