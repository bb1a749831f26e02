"""Walks a serialized TensorProto once: refuses what is malformed, notes dtype, shape and content; allocates nothing.

Runs twice on a request in the worker, when the request is read and when an input is bound (the notes on all inputs
would be larger than walking again is slow); on execution threads, without the GIL.

Source: tensorflow/core/framework/tensor.proto, tensor_shape.proto (field numbers); protobuf's rules for packed lists.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from tensorgate._native.proto_wire cimport (
    WIRE_BYTES,
    WIRE_VARINT,
    ProtoReader,
    bytes_left,
    is_utf8,
    read_bytes,
    read_tag,
    read_varint,
    skip_field,
)
from tensorgate._native.tf_c_api cimport DT_INVALID


cdef bint _scan_dim(ProtoReader body, int64_t* size) noexcept nogil:
    cdef uint32_t field, wire_type
    cdef uint64_t number
    cdef ProtoReader name
    size[0] = 0
    while bytes_left(&body):
        if not read_tag(&body, &field, &wire_type):
            return False
        if field == 1 and wire_type == WIRE_VARINT:
            if not read_varint(&body, &number):
                return False
            size[0] = <int64_t>number
        elif field == 2 and wire_type == WIRE_BYTES:
            if not read_bytes(&body, &name) or not is_utf8(name.pos, bytes_left(&name)):
                return False
        elif not skip_field(&body, field, wire_type):
            return False
    return True


cdef bint _scan_shape(ProtoReader body, TensorScan* scan) noexcept nogil:
    cdef uint32_t field, wire_type
    cdef int64_t size
    cdef ProtoReader dim
    while bytes_left(&body):
        if not read_tag(&body, &field, &wire_type):
            return False
        if field == 2 and wire_type == WIRE_BYTES:
            if not read_bytes(&body, &dim) or not _scan_dim(dim, &size):
                return False
            if scan.num_dims < MAX_DIMS:
                scan.dims[scan.num_dims] = size
            if scan.num_dims <= MAX_DIMS:
                scan.num_dims += 1
        elif not skip_field(&body, field, wire_type):
            return False
    return True


cdef inline bint _is_varint_list(uint32_t field) noexcept nogil:
    return field in (
        FIELD_INT_VAL, FIELD_INT64_VAL, FIELD_BOOL_VAL, FIELD_HALF_VAL, FIELD_UINT32_VAL, FIELD_UINT64_VAL)


cdef bint _skip_varints(ProtoReader body) noexcept nogil:
    cdef uint64_t ignored
    while bytes_left(&body):
        if not read_varint(&body, &ignored):
            return False
    return True


cdef bint scan_tensor(ProtoReader body, TensorScan* scan) noexcept nogil:
    cdef uint32_t field, wire_type
    cdef uint64_t number
    cdef ProtoReader inner
    cdef size_t width
    scan.body = body
    scan.dtype = DT_INVALID
    scan.num_dims = 0
    scan.content = NULL
    scan.content_size = 0
    while bytes_left(&body):
        if not read_tag(&body, &field, &wire_type):
            return False
        if wire_type == WIRE_BYTES:
            if not read_bytes(&body, &inner):
                return False
            if field == FIELD_TENSOR_SHAPE:
                if not _scan_shape(inner, scan):
                    return False
            elif field == FIELD_TENSOR_CONTENT:
                scan.content = inner.pos
                scan.content_size = bytes_left(&inner)
            elif _is_varint_list(field):
                if not _skip_varints(inner):
                    return False
            else:
                width = fixed_width(field)
                if width and bytes_left(&inner) % width:
                    return False
        elif field == FIELD_DTYPE and wire_type == WIRE_VARINT:
            if not read_varint(&body, &number):
                return False
            scan.dtype = <int32_t>number
        elif not skip_field(&body, field, wire_type):
            return False
    return True
