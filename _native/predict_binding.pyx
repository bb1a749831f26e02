"""Holds a PredictRequest against a signature: checks in TensorFlow Serving's order and with its texts.

Second step of Predict in the worker (read → bind → run → encode); runs on execution threads without the GIL.

Source: the order of the checks and the texts are those of upstream's predict_util.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport strlen

from tensorgate._native.byte_writer cimport ByteWriter, put_bytes, put_decimal
from tensorgate._native.graph_run cimport run_session
from tensorgate._native.predict_request cimport (
    SCAN_MALFORMED,
    SCAN_NO_MEMORY,
    RequestInput,
    RequestView,
    ScanOutcome,
    Slice,
    find_input,
    same,
    slice_of,
    sort_inputs,
)
from tensorgate._native.proto_wire cimport ProtoReader, reader_of
from tensorgate._native.session cimport Endpoint, Name, RunHistory, SessionState, Signature
from tensorgate._native.status_codes cimport INTERNAL, INVALID_ARGUMENT, OK, RESOURCE_EXHAUSTED
from tensorgate._native.tensor_decode cimport (
    DECODE_INVALID,
    DECODE_NO_MEMORY,
    DECODED,
    DecodeOutcome,
    TensorValues,
    decode_tensor,
    measure_tensor,
)
from tensorgate._native.tensor_scan cimport TensorScan, scan_tensor
from tensorgate._native.tf_c_api cimport DT_RESOURCE, TF_Operation, TF_Output, TF_Status, TF_Tensor, tf


cdef inline Slice _slice(const Name* name) noexcept nogil:
    return slice_of(name.data, name.size)


cdef Endpoint* _find_endpoint(Endpoint* endpoints, int count, Slice alias) noexcept nogil:
    cdef int i
    for i in range(count):
        if same(alias, _slice(&endpoints[i].alias)):
            return &endpoints[i]
    return NULL


# --- error texts ------------------------------------------------------------------------------------------------------

cdef void say_bytes(ByteWriter* message, const uint8_t* text, size_t size) noexcept nogil:
    if size > MAX_MESSAGE_BYTES - message.size:
        size = MAX_MESSAGE_BYTES - message.size
        while size and (text[size] & 0xC0) == 0x80:  # between two characters, never within one
            size -= 1
    put_bytes(message, text, size)


cdef void say(ByteWriter* message, const char* text) noexcept nogil:
    say_bytes(message, <const uint8_t*>text, strlen(text))


cdef void say_name(ByteWriter* message, const Name* name) noexcept nogil:
    say_bytes(message, name.data, name.size)


cdef int run_or_say(
    SessionState* state, RunHistory* history, size_t request_size, const TF_Output* feeds, TF_Tensor** inputs,
    int num_inputs, const TF_Output* fetches, TF_Tensor** outputs, int num_outputs, TF_Operation** targets,
    int num_targets, int64_t deadline_us, uint64_t* run_us, ByteWriter* message,
) noexcept nogil:
    cdef TF_Status* status = tf.NewStatus()
    cdef int code
    run_session(
        state, history, request_size, feeds, inputs, num_inputs, fetches, outputs, num_outputs, targets, num_targets,
        deadline_us, run_us, status)
    code = tf.GetCode(status)
    if code != OK:
        say(message, tf.Message(status))
    tf.DeleteStatus(status)
    return code


cdef enum NameSet:
    ALL_NAMES = 0
    EXTRA_NAMES = 1     # of request inputs: not in the signature
    USED_NAMES = 2      # of request inputs: in the signature
    REQUIRED_NAMES = 3  # of signature inputs: without default and not in the request
    DEFAULT_NAMES = 4   # of signature inputs: with a default


cdef void _say_inputs(
    ByteWriter* message, const RequestView* request, const Signature* signature, NameSet which,
) noexcept nogil:
    cdef size_t i
    cdef bint first = True, known
    for i in range(request.num_inputs):
        known = _find_endpoint(signature.inputs, signature.num_inputs, request.inputs[i].alias) is not NULL
        if (which == EXTRA_NAMES and known) or (which == USED_NAMES and not known):
            continue
        if not first:
            say(message, ",")
        first = False
        say_bytes(message, request.inputs[i].alias.data, request.inputs[i].alias.size)


cdef void _say_endpoints(
    ByteWriter* message, const Endpoint* endpoints, int count, const RequestView* request, NameSet which,
) noexcept nogil:
    cdef const Endpoint* endpoint
    cdef bint first = True
    cdef int i
    for i in range(count):
        endpoint = &endpoints[i]
        if which == DEFAULT_NAMES and endpoint.default_value is NULL:
            continue
        if which == REQUIRED_NAMES and (
            endpoint.default_value is not NULL or find_input(request, _slice(&endpoint.alias)) is not NULL
        ):
            continue
        if not first:
            say(message, ",")
        first = False
        say_name(message, &endpoint.alias)


cdef int refuse_scan(ScanOutcome outcome, ByteWriter* message) noexcept nogil:
    if outcome == SCAN_MALFORMED:
        return INTERNAL  # with an empty message, as gRPC's own parser answers
    if outcome == SCAN_NO_MEMORY:
        say(message, "not enough memory for the request")
        return RESOURCE_EXHAUSTED
    say(message, "the request has more inputs or output_filter entries than any model takes (4096)")
    return INVALID_ARGUMENT


# --- inputs -----------------------------------------------------------------------------------------------------------

cdef int _check_input_count(RequestView* request, const Signature* signature, ByteWriter* message) noexcept nogil:
    cdef size_t expected = <size_t>signature.num_inputs
    if request.num_inputs == expected or (request.num_inputs < expected and signature.num_defaults):
        return OK
    sort_inputs(request)
    say(message, "input size does not match signature: ")
    put_decimal(message, <int64_t>request.num_inputs)
    say(message, "!=")
    put_decimal(message, <int64_t>expected)
    say(message, " len({")
    _say_inputs(message, request, signature, ALL_NAMES)
    say(message, "}) != len({")
    _say_endpoints(message, signature.inputs, signature.num_inputs, request, ALL_NAMES)
    say(message, "}). Sent extra: {")
    _say_inputs(message, request, signature, EXTRA_NAMES)
    say(message, "}. Missing but required: {")
    _say_endpoints(message, signature.inputs, signature.num_inputs, request, REQUIRED_NAMES)
    say(message, "}.")
    return INVALID_ARGUMENT


cdef int _say_missing(
    RequestView* request, const Signature* signature, const Endpoint* endpoint, ByteWriter* message,
) noexcept nogil:
    sort_inputs(request)
    say(message, "Signature input alias: ")
    say_name(message, &endpoint.alias)
    say(message, "(feed name: ")
    say_name(message, &endpoint.tensor_name)
    say(message, ") not found in request and no default value provided. Inputs expected to be in the request {")
    _say_inputs(message, request, signature, ALL_NAMES)
    say(message, "}, or default input alias set: ")
    _say_endpoints(message, signature.inputs, signature.num_inputs, request, DEFAULT_NAMES)
    return INVALID_ARGUMENT


cdef bint _scan_input(ProtoReader body, TensorScan* scan, ByteWriter* message) noexcept nogil:
    """False: it can be no input, and unless it is malformed message says why."""
    if not scan_tensor(body, scan):
        return False
    if scan.dtype == DT_RESOURCE:
        # TensorFlow's own text for a handle that says nothing; what a client's handle says cannot matter.
        say(
            message, "Invalid resource type hash code: 0(name:  type: ). Perhaps a resource tensor was being"
            " provided as a feed? That is not currently allowed. Please file an issue at"
            " https://github.com/tensorflow/tensorflow/issues/new, ideally with a short code snippet that leads to"
            " this error message.")
        return False
    return True


cdef int _refuse_input(DecodeOutcome outcome, Slice name, ByteWriter* message) noexcept nogil:
    if outcome == DECODE_NO_MEMORY:
        say(message, "not enough memory for the tensor of input: ")
        say_bytes(message, name.data, name.size)
        return RESOURCE_EXHAUSTED
    if message.size == 0:
        say(message, "tensor parsing error: ")
        say_bytes(message, name.data, name.size)
    return INVALID_ARGUMENT


cdef int decode_input(ProtoReader body, Slice name, TF_Tensor** tensor, ByteWriter* message) noexcept nogil:
    cdef TensorScan scan
    cdef DecodeOutcome outcome = DECODE_INVALID
    if _scan_input(body, &scan, message):
        outcome = decode_tensor(&scan, tensor)
    return OK if outcome == DECODED else _refuse_input(outcome, name, message)


cdef int measure_input(
    ProtoReader body, Slice name, TensorScan* scan, TensorValues* values, ByteWriter* message,
) noexcept nogil:
    cdef DecodeOutcome outcome = DECODE_INVALID
    if _scan_input(body, scan, message):
        outcome = measure_tensor(scan, values)
    return OK if outcome == DECODED else _refuse_input(outcome, name, message)


cdef int bind_inputs(
    RequestView* request, const Signature* signature, TakeInput take, void* owner, ByteWriter* message,
) noexcept nogil:
    cdef const RequestInput* found
    cdef const Endpoint* endpoint
    cdef ProtoReader body
    cdef size_t used = 0
    cdef int i, code = _check_input_count(request, signature, message)
    if code != OK:
        return code
    for i in range(signature.num_inputs):
        endpoint = &signature.inputs[i]
        found = find_input(request, _slice(&endpoint.alias))
        if found is not NULL:
            body = found.tensor
            used += 1
        elif endpoint.default_value is not NULL:
            body = reader_of(endpoint.default_value, endpoint.default_size)
        else:
            return _say_missing(request, signature, endpoint, message)
        code = take(owner, i, body, _slice(&endpoint.alias), message)
        if code != OK:
            return code
    if used != request.num_inputs:
        sort_inputs(request)
        say(message, "Inputs contains invalid name. Used request inputs: ")
        _say_inputs(message, request, signature, USED_NAMES)
        say(message, ", request input: ")
        _say_inputs(message, request, signature, ALL_NAMES)
        return INVALID_ARGUMENT
    return OK


# --- outputs ----------------------------------------------------------------------------------------------------------

cdef int choose_outputs(
    const RequestView* request, const Signature* signature, Endpoint** chosen, int* num_chosen, ByteWriter* message,
) noexcept nogil:
    cdef Endpoint* endpoint
    cdef size_t i
    cdef int j
    num_chosen[0] = 0
    if request.num_filter == 0:
        for j in range(signature.num_outputs):
            chosen[j] = &signature.outputs[j]
        num_chosen[0] = signature.num_outputs
        return OK
    for i in range(request.num_filter):
        endpoint = _find_endpoint(signature.outputs, signature.num_outputs, request.filter[i])
        if endpoint is NULL:
            say(message, "output tensor alias not found in signature: ")
            say_bytes(message, request.filter[i].data, request.filter[i].size)
            say(message, " Outputs expected to be in the set {")
            _say_endpoints(message, signature.outputs, signature.num_outputs, request, ALL_NAMES)
            say(message, "}.")
            return INVALID_ARGUMENT
        for j in range(num_chosen[0]):
            if chosen[j] == endpoint:
                say(message, "duplicate output tensor alias: ")
                say_name(message, &endpoint.alias)
                return INVALID_ARGUMENT
        # Distinct and known, so never more than the signature has.
        chosen[num_chosen[0]] = endpoint
        num_chosen[0] += 1
    return OK


cdef int check_in_graph(const Endpoint* endpoint, ByteWriter* message) noexcept nogil:
    if endpoint.in_graph:
        return OK
    say(message, "Tensor ")
    say_name(message, &endpoint.tensor_name)
    say(message, ", specified in either feed_devices or fetch_devices was not found in the Graph")
    return INVALID_ARGUMENT
