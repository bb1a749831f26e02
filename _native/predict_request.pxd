"""What a PredictRequest says, noted in place: model_spec, inputs and output filter, not yet held against a model."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t
from libc.string cimport memcmp

from tensorgate._native.proto_scan cimport ModelSpecView
from tensorgate._native.proto_wire cimport ProtoReader

cdef enum:
    # More entries than any signature has, repeats included: bounds the work that many tiny entries can ask for.
    MAX_ENTRIES = 4096

cdef enum ScanOutcome:
    SCANNED = 0
    SCAN_MALFORMED = 1
    SCAN_TOO_MANY = 2
    SCAN_NO_MEMORY = 3


cdef struct Slice:
    const uint8_t* data
    size_t size


cdef struct RequestInput:
    Slice alias
    ProtoReader tensor  # a serialized TensorProto, scanned well-formed


cdef struct RequestView:
    # Points into the request's bytes, which must stay; the two arrays are its own, released by request_free.
    ModelSpecView spec
    RequestInput* inputs     # of several with one alias only the last
    size_t num_inputs
    size_t inputs_capacity
    size_t inputs_seen       # repeats included
    Slice* filter
    size_t num_filter
    size_t filter_capacity


cdef inline Slice slice_of(const uint8_t* data, size_t size) noexcept nogil:
    cdef Slice slice
    slice.data = data
    slice.size = size
    return slice


cdef inline int compare(Slice a, Slice b) noexcept nogil:
    """Bytewise, as std::string orders: negative, 0 or positive."""
    cdef int order = memcmp(a.data, b.data, min(a.size, b.size)) if a.size and b.size else 0
    if order == 0:
        return (a.size > b.size) - (a.size < b.size)
    return order


cdef inline bint same(Slice a, Slice b) noexcept nogil:
    return a.size == b.size and (a.size == 0 or memcmp(a.data, b.data, a.size) == 0)


# Fills request; whatever the outcome, request_free comes after.
cdef ScanOutcome scan_request(ProtoReader payload, RequestView* request) noexcept nogil
cdef void request_free(RequestView* request) noexcept nogil
# The signature asked for, or the default one's name.
cdef Slice signature_name(const ModelSpecView* spec) noexcept nogil
# The input of that alias, or NULL.
cdef RequestInput* find_input(const RequestView* request, Slice alias) noexcept nogil
# By alias; slow, for error texts only.
cdef void sort_inputs(RequestView* request) noexcept nogil
