"""SessionRun in the worker: tensors of the graph by name, or by a signature's aliases, in and out, without the GIL.

The whole of such a request's line there (read → bind → run → encode). Runs on execution threads. The first three fields
of a SessionRunRequest, model_spec, feed and fetch, are on the wire those of a PredictRequest, and are read as such: of
two feeds with one name the last counts. Of its RunOptions only timeout_in_ms counts; the others reach into the process,
to thread pools, tracers and debuggers, which are not the client's.

Source: tensorflow_serving/apis/session_service.proto (upstream has no server for it); tensorflow/core/public/session.h.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from tensorgate._native.clocks cimport deadline_after, monotonic_us
from tensorgate._native.predict cimport RunResult, end_response
from tensorgate._native.predict_binding cimport decode_input, refuse_scan, run_or_say, say, say_bytes
from tensorgate._native.predict_request cimport (
    MAX_ENTRIES,
    SCAN_MALFORMED,
    SCAN_NO_MEMORY,
    SCAN_TOO_MANY,
    SCANNED,
    RequestView,
    ScanOutcome,
    Slice,
    request_free,
    same,
    scan_request,
    signature_name,
    slice_of,
)
from tensorgate._native.proto_wire cimport (
    WIRE_BYTES,
    WIRE_VARINT,
    ProtoReader,
    bytes_left,
    is_utf8,
    read_bytes,
    read_tag,
    read_varint,
    reader_of,
    skip_field,
)
from tensorgate._native.response_encode cimport put_model_spec, put_output
from tensorgate._native.session cimport (
    Endpoint,
    SessionState,
    Signature,
    find_operation,
    find_signature,
    find_tensor,
)
from tensorgate._native.status_codes cimport (
    FAILED_PRECONDITION,
    INVALID_ARGUMENT,
    NOT_FOUND,
    OK,
    UNIMPLEMENTED,
    UNKNOWN,
)
from tensorgate._native.tf_c_api cimport TF_Operation, TF_Output, TF_Tensor, tf

cdef enum:
    # Fields of SessionRunRequest and SessionRunResponse.
    TARGET = 4
    OPTIONS = 5
    TENSOR_NAME_IS_ALIAS = 6
    RESPONSE_MODEL_SPEC = 3
    # Longer ones mean none.
    MAX_TIMEOUT_MS = 0x7FFFFFFF


cdef struct RunView:
    # Names point into the request's bytes, which must stay; the array is its own, and the request's.
    RequestView request
    Slice* targets
    size_t num_targets
    int64_t timeout_ms       # 0: none
    bint is_alias


# --- reading ----------------------------------------------------------------------------------------------------------

cdef bint _merge_options(ProtoReader body, RunView* view) noexcept nogil:
    """RunOptions, of which timeout_in_ms (field 2) counts."""
    cdef uint32_t field, wire_type
    cdef uint64_t number
    while bytes_left(&body):
        if not read_tag(&body, &field, &wire_type):
            return False
        if field == 2 and wire_type == WIRE_VARINT:
            if not read_varint(&body, &number):
                return False
            view.timeout_ms = <int64_t>number
        elif not skip_field(&body, field, wire_type):
            return False
    return True


cdef ScanOutcome _add_target(ProtoReader name, RunView* view) noexcept nogil:
    if not is_utf8(name.pos, bytes_left(&name)):
        return SCAN_MALFORMED
    if view.num_targets == MAX_ENTRIES:
        return SCAN_TOO_MANY
    if view.targets is NULL:
        view.targets = <Slice*>calloc(MAX_ENTRIES, sizeof(Slice))
        if view.targets is NULL:
            return SCAN_NO_MEMORY
    view.targets[view.num_targets] = slice_of(name.pos, bytes_left(&name))
    view.num_targets += 1
    return SCANNED


cdef ScanOutcome _scan(ProtoReader payload, RunView* view) noexcept nogil:
    """Fills view; whatever the outcome, _free comes after."""
    cdef uint32_t field, wire_type
    cdef uint64_t number
    cdef ProtoReader inner
    cdef ScanOutcome outcome
    memset(view, 0, sizeof(RunView))
    outcome = scan_request(payload, &view.request)
    while outcome == SCANNED and bytes_left(&payload):
        if not read_tag(&payload, &field, &wire_type):
            return SCAN_MALFORMED
        if field == TENSOR_NAME_IS_ALIAS and wire_type == WIRE_VARINT:
            if not read_varint(&payload, &number):
                return SCAN_MALFORMED
            view.is_alias = number != 0
        elif wire_type == WIRE_BYTES and (field == TARGET or field == OPTIONS):
            if not read_bytes(&payload, &inner):
                return SCAN_MALFORMED
            if field == TARGET:
                outcome = _add_target(inner, view)
            elif not _merge_options(inner, view):
                return SCAN_MALFORMED
        elif not skip_field(&payload, field, wire_type):
            return SCAN_MALFORMED
    return outcome


cdef void _free(RunView* view) noexcept nogil:
    request_free(&view.request)
    free(view.targets)
    view.targets = NULL


# --- one call ---------------------------------------------------------------------------------------------------------

cdef struct Work:
    # Arrays sized by the request. The tensors are owned; NULL where there is none (yet).
    TF_Output* feeds
    TF_Tensor** inputs
    TF_Output* fetches
    TF_Tensor** outputs
    TF_Operation** targets


cdef bint _work_init(Work* work, const RunView* view) noexcept nogil:
    """False when memory runs out; _work_free comes after, all the same."""
    cdef size_t num_feeds = view.request.num_inputs + 1
    cdef size_t num_fetches = view.request.num_filter + 1
    work.feeds = <TF_Output*>calloc(num_feeds, sizeof(TF_Output))
    work.inputs = <TF_Tensor**>calloc(num_feeds, sizeof(TF_Tensor*))
    work.fetches = <TF_Output*>calloc(num_fetches, sizeof(TF_Output))
    work.outputs = <TF_Tensor**>calloc(num_fetches, sizeof(TF_Tensor*))
    work.targets = <TF_Operation**>calloc(view.num_targets + 1, sizeof(TF_Operation*))
    return not (
        work.feeds is NULL or work.inputs is NULL or work.fetches is NULL or work.outputs is NULL
        or work.targets is NULL)


cdef void _delete_tensors(TF_Tensor** tensors, size_t count) noexcept nogil:
    cdef size_t i
    if tensors is not NULL:
        for i in range(count):
            if tensors[i] is not NULL:
                tf.DeleteTensor(tensors[i])
    free(tensors)


cdef void _work_free(Work* work, const RunView* view) noexcept nogil:
    _delete_tensors(work.inputs, view.request.num_inputs)
    _delete_tensors(work.outputs, view.request.num_filter)
    free(work.feeds)
    free(work.fetches)
    free(work.targets)


cdef int _refuse(RunResult* result, int code, const char* before, Slice name, const char* after) noexcept nogil:
    say(&result.message, before)
    say_bytes(&result.message, name.data, name.size)
    say(&result.message, after)
    return code


cdef int _resolve(
    SessionState* state, Slice name, const Endpoint* endpoints, int count, bint is_alias, TF_Output* output,
    RunResult* result,
) noexcept nogil:
    """The tensor that the client means: one of the graph, or one of the endpoints by its alias."""
    cdef int i
    if is_alias:
        for i in range(count):
            if same(name, slice_of(endpoints[i].alias.data, endpoints[i].alias.size)):
                output[0] = endpoints[i].output
                if endpoints[i].in_graph:
                    return OK
                name = slice_of(endpoints[i].tensor_name.data, endpoints[i].tensor_name.size)
                is_alias = False
                break
    elif find_tensor(state.graph, name.data, name.size, output):
        return OK
    if is_alias:
        return _refuse(result, INVALID_ARGUMENT, "tensor alias not found in signature: ", name, "")
    return _refuse(
        result, INVALID_ARGUMENT, "Tensor ", name,
        ", specified in either feed_devices or fetch_devices was not found in the Graph")


cdef int _bind(
    SessionState* state, const RunView* view, const Signature* signature, Work* work, RunResult* result,
) noexcept nogil:
    """signature is the one whose aliases are meant, or NULL."""
    cdef bint is_alias = signature is not NULL
    cdef const Endpoint* inputs = signature.inputs if is_alias else NULL
    cdef const Endpoint* outputs = signature.outputs if is_alias else NULL
    cdef int num_inputs = signature.num_inputs if is_alias else 0
    cdef int num_outputs = signature.num_outputs if is_alias else 0
    cdef Slice name
    cdef size_t i
    cdef int code
    for i in range(view.request.num_inputs):
        name = view.request.inputs[i].alias
        code = _resolve(state, name, inputs, num_inputs, is_alias, &work.feeds[i], result)
        if code == OK:
            code = decode_input(view.request.inputs[i].tensor, name, &work.inputs[i], &result.message)
        if code != OK:
            return code
    for i in range(view.request.num_filter):
        code = _resolve(
            state, view.request.filter[i], outputs, num_outputs, is_alias, &work.fetches[i], result)
        if code != OK:
            return code
    for i in range(view.num_targets):
        name = view.targets[i]
        work.targets[i] = find_operation(state.graph, name.data, name.size)
        if work.targets[i] is NULL:
            return _refuse(result, NOT_FOUND, "PruneForTargets: Some target nodes not found: ", name, "")
    return OK


cdef int _run(
    SessionState* state, const RunView* view, size_t request_size, Work* work, int64_t deadline_us, RunResult* result,
) noexcept nogil:
    cdef int64_t timeout_us
    if 0 < view.timeout_ms <= MAX_TIMEOUT_MS:
        timeout_us = deadline_after(monotonic_us(), 1000 * view.timeout_ms)
        if deadline_us < 0 or timeout_us < deadline_us:
            deadline_us = timeout_us
    # Any mixture of tensors may be asked for: of its run nothing is known beforehand.
    return run_or_say(
        state, NULL, request_size, work.feeds, work.inputs, <int>view.request.num_inputs, work.fetches, work.outputs,
        <int>view.request.num_filter, work.targets, <int>view.num_targets, deadline_us, &result.run_us, &result.message)


cdef int _encode(
    SessionState* state, const RunView* view, const Signature* signature, const Work* work, RunResult* result,
) noexcept nogil:
    cdef Slice name
    cdef size_t i
    for i in range(view.request.num_filter):
        name = view.request.filter[i]
        if work.outputs[i] is NULL:
            return _refuse(result, UNKNOWN, "the run did not put out the tensor: ", name, "")
        if not put_output(&result.response, name.data, name.size, work.outputs[i], False):
            return _refuse(result, UNIMPLEMENTED, "tensor has a dtype that cannot be sent to a client: ", name, "")
    put_model_spec(
        &result.response, RESPONSE_MODEL_SPEC, view.request.spec.name, view.request.spec.name_size, state.version,
        NULL if signature is NULL else signature.name.data, 0 if signature is NULL else signature.name.size)
    return end_response(result)


cdef int _run_scanned(
    SessionState* state, const RunView* view, size_t request_size, int64_t deadline_us, RunResult* result,
) noexcept nogil:
    cdef Slice name = signature_name(&view.request.spec)
    cdef Signature* signature = NULL
    cdef Work work
    cdef int code
    if view.is_alias:
        signature = find_signature(state, name.data, name.size)
        if signature is NULL:
            return _refuse(result, FAILED_PRECONDITION, 'Serving signature key "', name, '" not found.')
    if _work_init(&work, view):
        code = _bind(state, view, signature, &work, result)
    else:
        code = refuse_scan(SCAN_NO_MEMORY, &result.message)
    if code == OK:
        code = _run(state, view, request_size, &work, deadline_us, result)
    if code == OK:
        code = _encode(state, view, signature, &work, result)
    _work_free(&work, view)
    return code


cdef void run_for_client(
    SessionState* state, const uint8_t* payload, size_t size, int64_t deadline_us, RunResult* result,
) noexcept nogil:
    cdef RunView view
    cdef ScanOutcome outcome = _scan(reader_of(payload, size), &view)
    if outcome == SCANNED:
        result.code = _run_scanned(state, &view, size, deadline_us, result)
    else:
        result.code = refuse_scan(outcome, &result.message)
    _free(&view)
