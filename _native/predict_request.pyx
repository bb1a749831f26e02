"""Reads a PredictRequest in place: where its model_spec, its inputs' tensors and its output filter lie.

First step of Predict in the worker (read → bind → run → encode); runs on execution threads without the GIL. Every
byte is walked, so that a malformed request is refused before anything is allocated for its tensors.

Source: tensorflow_serving/apis/predict.proto; protobuf's rules for maps.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset, strlen

from tensorgate._native.proto_scan cimport ModelSpecView, merge_model_spec
from tensorgate._native.proto_wire cimport ProtoReader, bytes_left, is_utf8, next_bytes_field
from tensorgate._native.tensor_scan cimport TensorScan, scan_tensor

cdef const char* DEFAULT_SIGNATURE = "serving_default"


cdef RequestInput* find_input(const RequestView* request, Slice alias) noexcept nogil:
    cdef size_t i
    for i in range(request.num_inputs):
        if same(request.inputs[i].alias, alias):
            return &request.inputs[i]
    return NULL


cdef void sort_inputs(RequestView* request) noexcept nogil:
    cdef size_t i, j
    cdef RequestInput moving
    for i in range(1, request.num_inputs):
        moving = request.inputs[i]
        j = i
        while j > 0 and compare(request.inputs[j - 1].alias, moving.alias) > 0:
            request.inputs[j] = request.inputs[j - 1]
            j -= 1
        request.inputs[j] = moving


cdef ScanOutcome _add_input(RequestView* request, const RequestInput* found) noexcept nogil:
    cdef RequestInput* place
    cdef void* grown
    cdef size_t capacity
    if request.inputs_seen >= MAX_ENTRIES:
        return SCAN_TOO_MANY
    request.inputs_seen += 1
    place = find_input(request, found.alias)
    if place is NULL:
        if request.num_inputs == request.inputs_capacity:
            capacity = 2 * request.inputs_capacity + 4
            grown = realloc(request.inputs, capacity * sizeof(RequestInput))
            if grown is NULL:
                return SCAN_NO_MEMORY
            request.inputs = <RequestInput*>grown
            request.inputs_capacity = capacity
        place = &request.inputs[request.num_inputs]
        request.num_inputs += 1
    place[0] = found[0]
    return SCANNED


cdef ScanOutcome _scan_input(ProtoReader entry, RequestView* request) noexcept nogil:
    """One entry of the inputs map; of two with the same key the later one stays."""
    cdef uint32_t field
    cdef ProtoReader inner
    cdef TensorScan scan
    cdef RequestInput found
    memset(&found, 0, sizeof(RequestInput))
    while next_bytes_field(&entry, &field, &inner):
        if field == 1:
            if not is_utf8(inner.pos, bytes_left(&inner)):
                return SCAN_MALFORMED
            found.alias = slice_of(inner.pos, bytes_left(&inner))
        elif field == 2:
            if not scan_tensor(inner, &scan):
                return SCAN_MALFORMED
            found.tensor = inner
    return SCAN_MALFORMED if bytes_left(&entry) else _add_input(request, &found)


cdef ScanOutcome _scan_filter(ProtoReader name, RequestView* request) noexcept nogil:
    cdef void* grown
    cdef size_t capacity
    if not is_utf8(name.pos, bytes_left(&name)):
        return SCAN_MALFORMED
    if request.num_filter >= MAX_ENTRIES:
        return SCAN_TOO_MANY
    if request.num_filter == request.filter_capacity:
        capacity = 2 * request.filter_capacity + 4
        grown = realloc(request.filter, capacity * sizeof(Slice))
        if grown is NULL:
            return SCAN_NO_MEMORY
        request.filter = <Slice*>grown
        request.filter_capacity = capacity
    request.filter[request.num_filter] = slice_of(name.pos, bytes_left(&name))
    request.num_filter += 1
    return SCANNED


cdef ScanOutcome scan_request(ProtoReader payload, RequestView* request) noexcept nogil:
    cdef uint32_t field
    cdef ProtoReader inner
    cdef ScanOutcome outcome
    memset(request, 0, sizeof(RequestView))
    while next_bytes_field(&payload, &field, &inner):
        outcome = SCANNED
        if field == 1:
            if not merge_model_spec(inner, &request.spec):
                return SCAN_MALFORMED
        elif field == 2:
            outcome = _scan_input(inner, request)
        elif field == 3:
            outcome = _scan_filter(inner, request)
        if outcome != SCANNED:
            return outcome
    return SCAN_MALFORMED if bytes_left(&payload) else SCANNED


cdef void request_free(RequestView* request) noexcept nogil:
    free(request.inputs)
    free(request.filter)
    request.inputs = NULL
    request.filter = NULL


cdef Slice signature_name(const ModelSpecView* spec) noexcept nogil:
    if spec.signature_name_size:
        return slice_of(spec.signature_name, spec.signature_name_size)
    return slice_of(<const uint8_t*>DEFAULT_SIGNATURE, strlen(DEFAULT_SIGNATURE))
