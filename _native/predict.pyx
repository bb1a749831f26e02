"""Predict in the worker: PredictRequest bytes in, PredictResponse bytes or a status out, without the GIL.

The middle of the request's line (decode → run → encode): checks in TensorFlow Serving's order and with its texts.
Runs on execution threads.

Source: tensorflow_serving/apis/predict.proto; the order of the checks is that of upstream's predict_util.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memset, strlen

from tensorgate._native.byte_writer cimport put_bytes, writer_free, writer_init
from tensorgate._native.proto_scan cimport ModelSpecView, merge_model_spec, scan_model_spec_view
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
from tensorgate._native.response_encode cimport put_model_spec, put_output
from tensorgate._native.session cimport (
    Endpoint,
    SessionState,
    Signature,
    expected_in_caller_us,
    find_signature,
    run_signature,
)
from tensorgate._native.tensor_decode cimport (
    DECODE_INVALID,
    DECODE_NO_MEMORY,
    DecodeOutcome,
    TensorScan,
    decode_tensor,
    scan_tensor,
)
from tensorgate._native.tf_c_api cimport TF_Output, TF_Status, TF_Tensor, tf

cdef enum:
    # Canonical status codes.
    OK = 0
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    # More entries than any signature has; bounds the work that a request of many tiny entries can ask for.
    MAX_ENTRIES = 4096

cdef const char* DEFAULT_SIGNATURE = "serving_default"


cdef struct Slice:
    const uint8_t* data
    size_t size


cdef struct RequestInput:
    Slice alias
    ProtoReader tensor  # a serialized TensorProto, scanned well-formed
    bint used


cdef struct Entries:
    # A growing array of RequestInput or Slice; all memory of the request's own book-keeping.
    RequestInput* inputs
    size_t num_inputs
    size_t inputs_capacity
    Slice* filter
    size_t num_filter
    size_t filter_capacity


cdef enum ScanOutcome:
    SCANNED = 0
    SCAN_MALFORMED = 1
    SCAN_TOO_MANY = 2
    SCAN_NO_MEMORY = 3


cdef void run_result_init(RunResult* result) noexcept nogil:
    result.code = OK
    result.run_us = 0
    writer_init(&result.message)
    writer_init(&result.response)


cdef void run_result_free(RunResult* result) noexcept nogil:
    writer_free(&result.message)
    writer_free(&result.response)


# --- error texts ------------------------------------------------------------------------------------------------------

cdef inline void _say(RunResult* result, const char* text) noexcept nogil:
    put_bytes(&result.message, text, strlen(text))


cdef inline void _say_slice(RunResult* result, const uint8_t* data, size_t size) noexcept nogil:
    put_bytes(&result.message, data, size)


cdef void _say_number(RunResult* result, size_t number) noexcept nogil:
    cdef uint8_t digits[24]
    cdef int first = 24
    while True:
        first -= 1
        digits[first] = <uint8_t>(48 + number % 10)
        number //= 10
        if number == 0:
            break
    put_bytes(&result.message, digits + first, 24 - first)


cdef inline int _compare(const uint8_t* a, size_t a_size, const uint8_t* b, size_t b_size) noexcept nogil:
    cdef int order = memcmp(a, b, min(a_size, b_size)) if a_size and b_size else 0
    if order == 0:
        return (a_size > b_size) - (a_size < b_size)
    return order


cdef inline bint _is(Slice slice, const Endpoint* endpoint) noexcept nogil:
    return _compare(slice.data, slice.size, endpoint.alias.data, endpoint.alias.size) == 0


cdef RequestInput* _find_input(Entries* entries, const uint8_t* alias, size_t size) noexcept nogil:
    cdef size_t i
    for i in range(entries.num_inputs):
        if _compare(entries.inputs[i].alias.data, entries.inputs[i].alias.size, alias, size) == 0:
            return &entries.inputs[i]
    return NULL


cdef Endpoint* _find_endpoint(Endpoint* endpoints, int count, Slice alias) noexcept nogil:
    cdef int i
    for i in range(count):
        if _is(alias, &endpoints[i]):
            return &endpoints[i]
    return NULL


cdef void _sort_inputs(Entries* entries) noexcept nogil:
    """By alias; an insertion sort, for error texts only."""
    cdef size_t i, j
    cdef RequestInput moving
    for i in range(1, entries.num_inputs):
        moving = entries.inputs[i]
        j = i
        while j > 0 and _compare(
            entries.inputs[j - 1].alias.data, entries.inputs[j - 1].alias.size, moving.alias.data, moving.alias.size,
        ) > 0:
            entries.inputs[j] = entries.inputs[j - 1]
            j -= 1
        entries.inputs[j] = moving


cdef enum NameSet:
    ALL_NAMES = 0
    EXTRA_NAMES = 1     # of request inputs: not in the signature
    USED_NAMES = 2      # of request inputs: in the signature
    REQUIRED_NAMES = 3  # of signature inputs: without default and not in the request
    DEFAULT_NAMES = 4   # of signature inputs: with a default


cdef void _say_inputs(RunResult* result, Entries* entries, Signature* signature, NameSet which) noexcept nogil:
    cdef size_t i
    cdef bint first = True, known
    for i in range(entries.num_inputs):
        known = _find_endpoint(signature.inputs, signature.num_inputs, entries.inputs[i].alias) is not NULL
        if (which == EXTRA_NAMES and known) or (which == USED_NAMES and not known):
            continue
        if not first:
            _say(result, ",")
        first = False
        _say_slice(result, entries.inputs[i].alias.data, entries.inputs[i].alias.size)


cdef void _say_endpoints(
    RunResult* result, Endpoint* endpoints, int count, Entries* entries, NameSet which,
) noexcept nogil:
    cdef Endpoint* endpoint
    cdef bint first = True
    cdef int i
    for i in range(count):
        endpoint = &endpoints[i]
        if which == DEFAULT_NAMES and endpoint.default_value is NULL:
            continue
        if which == REQUIRED_NAMES and (
            endpoint.default_value is not NULL
            or _find_input(entries, endpoint.alias.data, endpoint.alias.size) is not NULL
        ):
            continue
        if not first:
            _say(result, ",")
        first = False
        _say_slice(result, endpoint.alias.data, endpoint.alias.size)


# --- reading the request ----------------------------------------------------------------------------------------------

cdef ScanOutcome _scan_input(ProtoReader entry, Entries* entries) noexcept nogil:
    """One entry of the inputs map; of two with the same key the later one stays."""
    cdef uint32_t field, wire_type
    cdef ProtoReader inner
    cdef TensorScan scan
    cdef RequestInput* place
    cdef RequestInput found
    cdef void* grown
    memset(&found, 0, sizeof(RequestInput))
    while bytes_left(&entry):
        if not read_tag(&entry, &field, &wire_type):
            return SCAN_MALFORMED
        if wire_type != WIRE_BYTES or field > 2:
            if not skip_field(&entry, field, wire_type):
                return SCAN_MALFORMED
            continue
        if not read_bytes(&entry, &inner):
            return SCAN_MALFORMED
        if field == 1:
            if not is_utf8(inner.pos, bytes_left(&inner)):
                return SCAN_MALFORMED
            found.alias.data = inner.pos
            found.alias.size = bytes_left(&inner)
        else:
            if not scan_tensor(inner, &scan):
                return SCAN_MALFORMED
            found.tensor = inner
    place = _find_input(entries, found.alias.data, found.alias.size)
    if place is NULL:
        if entries.num_inputs == entries.inputs_capacity:
            if entries.num_inputs >= MAX_ENTRIES:
                return SCAN_TOO_MANY
            entries.inputs_capacity = 2 * entries.inputs_capacity + 4
            grown = realloc(entries.inputs, entries.inputs_capacity * sizeof(RequestInput))
            if grown is NULL:
                return SCAN_NO_MEMORY
            entries.inputs = <RequestInput*>grown
        place = &entries.inputs[entries.num_inputs]
        entries.num_inputs += 1
    place[0] = found
    return SCANNED


cdef ScanOutcome _scan_filter(ProtoReader name, Entries* entries) noexcept nogil:
    cdef void* grown
    if not is_utf8(name.pos, bytes_left(&name)):
        return SCAN_MALFORMED
    if entries.num_filter == entries.filter_capacity:
        if entries.num_filter >= MAX_ENTRIES:
            return SCAN_TOO_MANY
        entries.filter_capacity = 2 * entries.filter_capacity + 4
        grown = realloc(entries.filter, entries.filter_capacity * sizeof(Slice))
        if grown is NULL:
            return SCAN_NO_MEMORY
        entries.filter = <Slice*>grown
    entries.filter[entries.num_filter].data = name.pos
    entries.filter[entries.num_filter].size = bytes_left(&name)
    entries.num_filter += 1
    return SCANNED


cdef ScanOutcome _scan_request(ProtoReader request, ModelSpecView* spec, Entries* entries) noexcept nogil:
    cdef uint32_t field, wire_type
    cdef ProtoReader inner
    cdef ScanOutcome outcome
    while bytes_left(&request):
        if not read_tag(&request, &field, &wire_type):
            return SCAN_MALFORMED
        if wire_type != WIRE_BYTES or field > 3:
            if not skip_field(&request, field, wire_type):
                return SCAN_MALFORMED
            continue
        if not read_bytes(&request, &inner):
            return SCAN_MALFORMED
        if field == 1:
            if not merge_model_spec(inner, spec):
                return SCAN_MALFORMED
            continue
        outcome = _scan_input(inner, entries) if field == 2 else _scan_filter(inner, entries)
        if outcome != SCANNED:
            return outcome
    return SCANNED


# --- the checks, in upstream's order ----------------------------------------------------------------------------------

cdef int _check_input_count(Entries* entries, Signature* signature, RunResult* result) noexcept nogil:
    cdef size_t expected = <size_t>signature.num_inputs
    if entries.num_inputs == expected or (entries.num_inputs < expected and signature.num_defaults):
        return OK
    _sort_inputs(entries)
    _say(result, "input size does not match signature: ")
    _say_number(result, entries.num_inputs)
    _say(result, "!=")
    _say_number(result, expected)
    _say(result, " len({")
    _say_inputs(result, entries, signature, ALL_NAMES)
    _say(result, "}) != len({")
    _say_endpoints(result, signature.inputs, signature.num_inputs, entries, ALL_NAMES)
    _say(result, "}). Sent extra: {")
    _say_inputs(result, entries, signature, EXTRA_NAMES)
    _say(result, "}. Missing but required: {")
    _say_endpoints(result, signature.inputs, signature.num_inputs, entries, REQUIRED_NAMES)
    _say(result, "}.")
    return INVALID_ARGUMENT


cdef int _decode_inputs(
    Entries* entries, Signature* signature, TF_Tensor** tensors, TF_Output* feeds, RunResult* result,
) noexcept nogil:
    cdef TensorScan scan
    cdef RequestInput* found
    cdef Endpoint* endpoint
    cdef ProtoReader body
    cdef DecodeOutcome outcome
    cdef size_t used = 0
    cdef int i
    for i in range(signature.num_inputs):
        endpoint = &signature.inputs[i]
        found = _find_input(entries, endpoint.alias.data, endpoint.alias.size)
        if found is not NULL:
            body = found.tensor
            used += 1
        elif endpoint.default_value is not NULL:
            body = reader_of(endpoint.default_value, endpoint.default_size)
        else:
            _sort_inputs(entries)
            _say(result, "Signature input alias: ")
            _say_slice(result, endpoint.alias.data, endpoint.alias.size)
            _say(result, "(feed name: ")
            _say_slice(result, endpoint.tensor_name.data, endpoint.tensor_name.size)
            _say(result, ") not found in request and no default value provided. Inputs expected to be in the request {")
            _say_inputs(result, entries, signature, ALL_NAMES)
            _say(result, "}, or default input alias set: ")
            _say_endpoints(result, signature.inputs, signature.num_inputs, entries, DEFAULT_NAMES)
            return INVALID_ARGUMENT
        outcome = DECODE_INVALID
        if scan_tensor(body, &scan):
            outcome = decode_tensor(&scan, &tensors[i])
        if outcome == DECODE_NO_MEMORY:
            _say(result, "not enough memory for the tensor of input: ")
            _say_slice(result, endpoint.alias.data, endpoint.alias.size)
            return RESOURCE_EXHAUSTED
        if outcome == DECODE_INVALID:
            _say(result, "tensor parsing error: ")
            _say_slice(result, endpoint.alias.data, endpoint.alias.size)
            return INVALID_ARGUMENT
        feeds[i] = endpoint.output
    if used != entries.num_inputs:
        _sort_inputs(entries)
        _say(result, "Inputs contains invalid name. Used request inputs: ")
        _say_inputs(result, entries, signature, USED_NAMES)
        _say(result, ", request input: ")
        _say_inputs(result, entries, signature, ALL_NAMES)
        return INVALID_ARGUMENT
    return OK


cdef int _choose_outputs(
    Entries* entries, Signature* signature, Endpoint** chosen, int* num_chosen, RunResult* result,
) noexcept nogil:
    cdef Endpoint* endpoint
    cdef size_t i
    cdef int j
    num_chosen[0] = 0
    if entries.num_filter == 0:
        for j in range(signature.num_outputs):
            chosen[j] = &signature.outputs[j]
        num_chosen[0] = signature.num_outputs
        return OK
    for i in range(entries.num_filter):
        endpoint = _find_endpoint(signature.outputs, signature.num_outputs, entries.filter[i])
        if endpoint is NULL:
            _say(result, "output tensor alias not found in signature: ")
            _say_slice(result, entries.filter[i].data, entries.filter[i].size)
            _say(result, " Outputs expected to be in the set {")
            _say_endpoints(result, signature.outputs, signature.num_outputs, entries, ALL_NAMES)
            _say(result, "}.")
            return INVALID_ARGUMENT
        for j in range(num_chosen[0]):
            if chosen[j] == endpoint:
                _say(result, "duplicate output tensor alias: ")
                _say_slice(result, endpoint.alias.data, endpoint.alias.size)
                return INVALID_ARGUMENT
        # Distinct and known, so never more than the signature has.
        chosen[num_chosen[0]] = endpoint
        num_chosen[0] += 1
    return OK


cdef int _check_in_graph(const Endpoint* endpoint, RunResult* result) noexcept nogil:
    if endpoint.in_graph:
        return OK
    _say(result, "Tensor ")
    _say_slice(result, endpoint.tensor_name.data, endpoint.tensor_name.size)
    _say(result, ", specified in either feed_devices or fetch_devices was not found in the Graph")
    return INVALID_ARGUMENT


# --- the whole --------------------------------------------------------------------------------------------------------

cdef struct Work:
    # Arrays sized by the signature, in one allocation each.
    TF_Tensor** inputs
    TF_Output* feeds
    Endpoint** chosen
    TF_Output* fetches
    TF_Tensor** outputs
    int num_outputs


cdef bint _work_init(Work* work, const Signature* signature) noexcept nogil:
    cdef size_t num_inputs = <size_t>signature.num_inputs + 1
    cdef size_t num_outputs = <size_t>signature.num_outputs + 1
    work.num_outputs = 0
    work.inputs = <TF_Tensor**>calloc(num_inputs, sizeof(TF_Tensor*))
    work.feeds = <TF_Output*>calloc(num_inputs, sizeof(TF_Output))
    work.chosen = <Endpoint**>calloc(num_outputs, sizeof(Endpoint*))
    work.fetches = <TF_Output*>calloc(num_outputs, sizeof(TF_Output))
    work.outputs = <TF_Tensor**>calloc(num_outputs, sizeof(TF_Tensor*))
    return not (
        work.inputs is NULL or work.feeds is NULL or work.chosen is NULL or work.fetches is NULL
        or work.outputs is NULL)


cdef void _work_free(Work* work, const Signature* signature) noexcept nogil:
    cdef int i
    if work.inputs is not NULL:
        for i in range(signature.num_inputs):
            if work.inputs[i] is not NULL:
                tf.DeleteTensor(work.inputs[i])
    if work.outputs is not NULL:
        for i in range(signature.num_outputs):
            if work.outputs[i] is not NULL:
                tf.DeleteTensor(work.outputs[i])
    free(work.inputs)
    free(work.feeds)
    free(work.chosen)
    free(work.fetches)
    free(work.outputs)


cdef int _run(
    SessionState* state, Signature* signature, size_t request_size, Work* work, int64_t deadline_us, RunResult* result,
) noexcept nogil:
    cdef TF_Status* status
    cdef int code, i
    for i in range(signature.num_inputs):
        code = _check_in_graph(&signature.inputs[i], result)
        if code != OK:
            return code
    for i in range(work.num_outputs):
        code = _check_in_graph(work.chosen[i], result)
        if code != OK:
            return code
        work.fetches[i] = work.chosen[i].output
    status = tf.NewStatus()
    run_signature(
        state, signature, request_size, work.inputs, work.feeds, work.fetches, work.outputs, work.num_outputs,
        deadline_us, &result.run_us, status)
    code = tf.GetCode(status)
    if code != OK:
        _say(result, tf.Message(status))
    tf.DeleteStatus(status)
    return code


cdef int _encode(
    SessionState* state, Signature* signature, Work* work, const ModelSpecView* spec, RunResult* result,
) noexcept nogil:
    cdef int i
    for i in range(work.num_outputs):
        if work.outputs[i] is NULL:
            _say(result, "Predict internal error")
            return UNKNOWN
        if not put_output(
            &result.response, work.chosen[i].alias.data, work.chosen[i].alias.size, work.outputs[i],
        ):
            _say(result, "output has a dtype that cannot be sent to a client: ")
            _say_slice(result, work.chosen[i].alias.data, work.chosen[i].alias.size)
            return UNIMPLEMENTED
    put_model_spec(
        &result.response, spec.name, spec.name_size, state.version, signature.name.data, signature.name.size)
    if result.response.failed:
        _say(result, "not enough memory for the response")
        return RESOURCE_EXHAUSTED
    return OK


cdef Slice _signature_name(const ModelSpecView* spec) noexcept nogil:
    cdef Slice name
    name.data = spec.signature_name
    name.size = spec.signature_name_size
    if name.size == 0:
        name.data = <const uint8_t*>DEFAULT_SIGNATURE
        name.size = strlen(DEFAULT_SIGNATURE)
    return name


cdef int64_t expected_predict_us(SessionState* state, const uint8_t* payload, size_t size) noexcept nogil:
    cdef ModelSpecView spec
    cdef Slice name
    cdef Signature* signature
    if state.may_run_long or not scan_model_spec_view(payload, size, 1, &spec):
        return 0
    name = _signature_name(&spec)
    signature = find_signature(state, name.data, name.size)
    return 0 if signature is NULL else expected_in_caller_us(state, signature, size)


cdef int _predict_scanned(
    SessionState* state, ModelSpecView* spec, Entries* entries, size_t request_size, int64_t deadline_us,
    RunResult* result,
) noexcept nogil:
    cdef Slice name = _signature_name(spec)
    cdef Signature* signature = find_signature(state, name.data, name.size)
    cdef Work work
    cdef int code
    if signature is NULL:
        _say(result, 'Serving signature key "')
        _say_slice(result, name.data, name.size)
        _say(result, '" not found.')
        return FAILED_PRECONDITION
    code = _check_input_count(entries, signature, result)
    if code != OK:
        return code
    if not _work_init(&work, signature):
        _say(result, "not enough memory for the request")
        code = RESOURCE_EXHAUSTED
    if code == OK:
        code = _decode_inputs(entries, signature, work.inputs, work.feeds, result)
    if code == OK:
        code = _choose_outputs(entries, signature, work.chosen, &work.num_outputs, result)
    if code == OK:
        code = _run(state, signature, request_size, &work, deadline_us, result)
    if code == OK:
        code = _encode(state, signature, &work, spec, result)
    _work_free(&work, signature)
    return code


cdef void predict(
    SessionState* state, const uint8_t* payload, size_t size, int64_t deadline_us, RunResult* result,
) noexcept nogil:
    cdef ModelSpecView spec
    cdef Entries entries
    cdef ScanOutcome outcome
    memset(&spec, 0, sizeof(ModelSpecView))
    memset(&entries, 0, sizeof(Entries))
    outcome = _scan_request(reader_of(payload, size), &spec, &entries)
    if outcome == SCANNED:
        result.code = _predict_scanned(state, &spec, &entries, size, deadline_us, result)
    elif outcome == SCAN_MALFORMED:
        result.code = INTERNAL  # with an empty message, as gRPC's own parser answers
    else:
        result.code = RESOURCE_EXHAUSTED if outcome == SCAN_NO_MEMORY else INVALID_ARGUMENT
        _say(result, "not enough memory for the request" if outcome == SCAN_NO_MEMORY
             else "the request has more inputs or output_filter entries than any model takes (4096)")
    free(entries.inputs)
    free(entries.filter)
