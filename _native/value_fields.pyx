"""Copies the value fields of a TensorProto into a tensor's memory, for every dtype that has one.

Under tensor_decode, which has measured the tensor; on execution threads, without the GIL.

Rules, as TensorFlow's Tensor::FromProto has them: the value field of the dtype counts, its last value repeated when the
list is short, surplus ignored, zero when empty; values in another dtype's field are ignored.

Source: tensorflow/core/framework/tensor.proto (field numbers), tensor.cc (rules).
"""

from libc.stddef cimport size_t
from libc.stdint cimport int8_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from tensorgate._native.proto_wire cimport (
    WIRE_BYTES,
    WIRE_FIXED32,
    WIRE_FIXED64,
    WIRE_VARINT,
    ProtoReader,
    bytes_left,
    read_bytes,
    read_tag,
    read_varint,
    reader_of,
    skip_field,
)
from tensorgate._native.tensor_decode cimport MAX_TENSOR_BYTES
from tensorgate._native.tensor_scan cimport (
    FIELD_BOOL_VAL,
    FIELD_DCOMPLEX_VAL,
    FIELD_DOUBLE_VAL,
    FIELD_FLOAT8_VAL,
    FIELD_FLOAT_VAL,
    FIELD_HALF_VAL,
    FIELD_INT64_VAL,
    FIELD_INT_VAL,
    FIELD_SCOMPLEX_VAL,
    FIELD_STRING_VAL,
    FIELD_UINT32_VAL,
    FIELD_UINT64_VAL,
    fixed_width,
)
from tensorgate._native.tf_c_api cimport (
    DT_BFLOAT16,
    DT_BOOL,
    DT_COMPLEX64,
    DT_COMPLEX128,
    DT_DOUBLE,
    DT_FLOAT,
    DT_FLOAT8_E5M2,
    DT_FLOAT8_E5M2FNUZ,
    DT_HALF,
    DT_INT2,
    DT_INT4,
    DT_INT8,
    DT_INT16,
    DT_INT32,
    DT_INT64,
    DT_QINT8,
    DT_QINT16,
    DT_QINT32,
    DT_QUINT8,
    DT_QUINT16,
    DT_STRING,
    DT_UINT2,
    DT_UINT4,
    DT_UINT8,
    DT_UINT16,
    DT_UINT32,
    DT_UINT64,
    TF_TString,
    tf,
)


cdef uint32_t value_field(int dtype) noexcept nogil:
    if dtype == DT_FLOAT:
        return FIELD_FLOAT_VAL
    if dtype == DT_DOUBLE:
        return FIELD_DOUBLE_VAL
    if dtype in (
        DT_INT32, DT_INT16, DT_INT8, DT_UINT8, DT_UINT16, DT_QINT8, DT_QUINT8, DT_QINT32, DT_QINT16, DT_QUINT16,
        DT_INT4, DT_UINT4, DT_INT2, DT_UINT2,
    ):
        return FIELD_INT_VAL
    if dtype == DT_STRING:
        return FIELD_STRING_VAL
    if dtype == DT_COMPLEX64:
        return FIELD_SCOMPLEX_VAL
    if dtype == DT_INT64:
        return FIELD_INT64_VAL
    if dtype == DT_BOOL:
        return FIELD_BOOL_VAL
    if dtype == DT_COMPLEX128:
        return FIELD_DCOMPLEX_VAL
    if dtype == DT_HALF or dtype == DT_BFLOAT16:
        return FIELD_HALF_VAL
    if dtype == DT_UINT32:
        return FIELD_UINT32_VAL
    if dtype == DT_UINT64:
        return FIELD_UINT64_VAL
    if DT_FLOAT8_E5M2 <= dtype <= DT_FLOAT8_E5M2FNUZ:
        return FIELD_FLOAT8_VAL
    return 0


cdef inline void _store_varint(int dtype, uint8_t* target, size_t i, uint64_t value) noexcept nogil:
    """Writes element i; what does not fit wraps, as TensorFlow's narrowing does."""
    if dtype in (DT_INT32, DT_QINT32, DT_UINT32):
        (<uint32_t*>target)[i] = <uint32_t>value
    elif dtype in (DT_INT64, DT_UINT64):
        (<uint64_t*>target)[i] = value
    elif dtype == DT_BOOL:
        target[i] = value != 0
    elif dtype in (DT_INT8, DT_UINT8, DT_QINT8, DT_QUINT8):
        target[i] = <uint8_t>value
    elif dtype == DT_INT4:
        target[i] = <uint8_t>(<int8_t>(<uint8_t>value << 4) >> 4)
    elif dtype == DT_UINT4:
        target[i] = <uint8_t>(value & 0x0F)
    elif dtype == DT_INT2:
        target[i] = <uint8_t>(<int8_t>(<uint8_t>value << 6) >> 6)
    elif dtype == DT_UINT2:
        target[i] = <uint8_t>(value & 0x03)
    else:  # int16, uint16, half, bfloat16 and the 16-bit quantised ones
        (<uint16_t*>target)[i] = <uint16_t>value


# scan_tensor has found these bytes well-formed, yet every read is checked again: they may be lent by somebody who
# changes them meanwhile, and then wrong values are the worst that may come of it.

cdef size_t _copy_fixed(
    ProtoReader body, uint32_t value_field, size_t width, uint8_t* target, size_t wanted,
) noexcept nogil:
    """Copies the values of a fixed-width list (width bytes each); the number copied, at most wanted."""
    cdef uint32_t field, wire_type
    cdef ProtoReader inner
    cdef size_t have = 0, count
    while have < wanted and read_tag(&body, &field, &wire_type):
        if field == value_field and wire_type == WIRE_BYTES:
            if not read_bytes(&body, &inner):
                return have
            count = bytes_left(&inner) // width
            if count > wanted - have:
                count = wanted - have
            memcpy(target + have * width, inner.pos, count * width)
            have += count
        elif field == value_field and wire_type == (WIRE_FIXED32 if width == 4 else WIRE_FIXED64):
            if bytes_left(&body) < width:
                return have
            memcpy(target + have * width, body.pos, width)
            body.pos += width
            have += 1
        elif not skip_field(&body, field, wire_type):
            return have
    return have


cdef size_t _copy_varints(
    ProtoReader body, uint32_t value_field, int dtype, uint8_t* target, size_t wanted,
) noexcept nogil:
    cdef uint32_t field, wire_type
    cdef uint64_t value
    cdef ProtoReader inner
    cdef size_t have = 0
    while have < wanted and read_tag(&body, &field, &wire_type):
        if field == value_field and wire_type == WIRE_BYTES:
            if not read_bytes(&body, &inner):
                return have
            while have < wanted and bytes_left(&inner):
                if not read_varint(&inner, &value):
                    return have
                _store_varint(dtype, target, have, value)
                have += 1
        elif field == value_field and wire_type == WIRE_VARINT:
            if not read_varint(&body, &value):
                return have
            _store_varint(dtype, target, have, value)
            have += 1
        elif not skip_field(&body, field, wire_type):
            return have
    return have


cdef size_t _copy_bytes(ProtoReader body, uint8_t* target, size_t wanted) noexcept nogil:
    """float8_val: one bytes field, the last occurrence counts."""
    cdef uint32_t field, wire_type
    cdef ProtoReader inner
    cdef size_t have = 0
    while read_tag(&body, &field, &wire_type):
        if field == FIELD_FLOAT8_VAL and wire_type == WIRE_BYTES:
            if not read_bytes(&body, &inner):
                return have
            have = min(bytes_left(&inner), wanted)
            memcpy(target, inner.pos, have)
        elif not skip_field(&body, field, wire_type):
            return have
    return have


cdef void _copy_strings(ProtoReader body, TF_TString* strings, size_t wanted) noexcept nogil:
    cdef uint32_t field, wire_type
    cdef ProtoReader inner, last
    cdef size_t have = 0, size
    last = reader_of(NULL, 0)
    while have < wanted and read_tag(&body, &field, &wire_type):
        if field == FIELD_STRING_VAL and wire_type == WIRE_BYTES:
            if not read_bytes(&body, &inner):
                break
            last = inner
            tf.StringCopy(&strings[have], <const char*>inner.pos, bytes_left(&inner))
            have += 1
        elif not skip_field(&body, field, wire_type):
            break
    size = bytes_left(&last)
    # Checked again, as all else: of an empty one there is nothing to copy.
    if size == 0 or wanted - have > MAX_TENSOR_BYTES // size:
        return
    while have < wanted:
        tf.StringCopy(&strings[have], <const char*>last.pos, size)
        have += 1


cdef void _repeat_last(uint8_t* target, size_t element_size, size_t have, size_t wanted) noexcept nogil:
    """Fills target[have:wanted] with its last element, or with zeros when there is none."""
    cdef size_t done
    if have == 0:
        memset(target, 0, wanted * element_size)
        return
    # Doubling copies: a splat of a million elements is twenty memcpys.
    cdef uint8_t* rest = target + have * element_size
    cdef size_t left = (wanted - have) * element_size
    if left == 0:
        return
    memcpy(rest, rest - element_size, element_size)
    done = element_size
    while done < left:
        memcpy(rest + done, rest, min(done, left - done))
        done += min(done, left - done)


cdef void copy_values(
    ProtoReader body, int dtype, size_t element_size, uint8_t* target, size_t num_elements,
) noexcept nogil:
    cdef uint32_t field = value_field(dtype)
    cdef size_t have
    if dtype == DT_STRING:
        _copy_strings(body, <TF_TString*>target, num_elements)
        return
    if dtype == DT_COMPLEX64 or dtype == DT_COMPLEX128:
        # Two values an element; an incomplete last pair is dropped.
        have = _copy_fixed(body, field, element_size // 2, target, 2 * num_elements) // 2
    elif fixed_width(field):
        have = _copy_fixed(body, field, element_size, target, num_elements)
    elif field == FIELD_FLOAT8_VAL:
        have = _copy_bytes(body, target, num_elements)
    else:
        have = _copy_varints(body, field, dtype, target, num_elements)
    _repeat_last(target, element_size, have, num_elements)
