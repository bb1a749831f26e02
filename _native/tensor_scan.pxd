"""A serialized TensorProto, validated and noted in place: dtype, shape and where its values lie."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t

from tensorgate._native.proto_wire cimport ProtoReader

cdef enum:
    MAX_DIMS = 254           # TensorShape::MaxDimensions

# TensorProto's fields.
cdef enum:
    FIELD_DTYPE = 1
    FIELD_TENSOR_SHAPE = 2
    FIELD_TENSOR_CONTENT = 4
    FIELD_FLOAT_VAL = 5
    FIELD_DOUBLE_VAL = 6
    FIELD_INT_VAL = 7
    FIELD_STRING_VAL = 8
    FIELD_SCOMPLEX_VAL = 9
    FIELD_INT64_VAL = 10
    FIELD_BOOL_VAL = 11
    FIELD_DCOMPLEX_VAL = 12
    FIELD_HALF_VAL = 13
    FIELD_UINT32_VAL = 16
    FIELD_UINT64_VAL = 17
    FIELD_FLOAT8_VAL = 18


cdef struct TensorScan:
    ProtoReader body         # the serialized TensorProto; the request's bytes
    int dtype
    int num_dims             # MAX_DIMS + 1: more than are allowed
    int64_t dims[MAX_DIMS]
    const uint8_t* content   # tensor_content, NULL when absent
    size_t content_size


cdef inline size_t fixed_width(uint32_t field) noexcept nogil:
    """Bytes of one value of a packed list of fixed width; 0 for other fields."""
    if field == FIELD_FLOAT_VAL or field == FIELD_SCOMPLEX_VAL:
        return 4
    if field == FIELD_DOUBLE_VAL or field == FIELD_DCOMPLEX_VAL:
        return 8
    return 0


# Walks the whole TensorProto; False when its bytes are malformed. The scan points into body, which must stay.
cdef bint scan_tensor(ProtoReader body, TensorScan* scan) noexcept nogil
