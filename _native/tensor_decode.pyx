"""Decodes TensorProtos straight into TensorFlow's own tensor memory, for every dtype that has a value field.

Part of binding a request's inputs in the worker (read → bind → run → encode); runs on execution threads, without the
GIL.

Rules, as TensorFlow's Tensor::FromProto has them: a non-empty tensor_content wins and must have exactly the right
length; else the value field of the dtype counts, its last value repeated when the list is short, surplus ignored, zero
when empty; values in another dtype's field are ignored; no shape means a scalar; unknown_rank is ignored.

Source: tensorflow/core/framework/tensor.proto (field numbers), tensor.cc (rules).
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport (
    INT64_MAX,
    int8_t,
    int64_t,
    uint8_t,
    uint16_t,
    uint32_t,
    uint64_t,
)
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
from tensorgate._native.string_tensors cimport decode_string_content, is_string_content, new_string_tensor
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
    MAX_DIMS,
    TensorScan,
    fixed_width,
    scan_tensor,
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
    TF_Tensor,
    TF_TString,
    tf,
)


cdef uint32_t _value_field(int dtype) noexcept nogil:
    """The repeated field that holds values of a dtype; 0 for dtypes that cannot be decoded."""
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


cdef bint _count_elements(const TensorScan* scan, size_t* num_elements) noexcept nogil:
    """Product of the dims; False for a negative one or a product beyond int64, as TensorShape::IsValid has it."""
    cdef int64_t product = 1
    cdef int i
    if scan.num_dims > MAX_DIMS:
        return False
    for i in range(scan.num_dims):
        if scan.dims[i] < 0:
            return False
        if scan.dims[i] > 0 and product > INT64_MAX // scan.dims[i]:
            return False
        product *= scan.dims[i]
    num_elements[0] = <size_t>product
    return True


cdef bint _are_strings_good(const TensorScan* scan, size_t num_elements) noexcept nogil:
    """Whether decoding them succeeds, and asks for no more memory than a tensor may have."""
    cdef ProtoReader body = scan.body
    cdef ProtoReader inner
    cdef uint32_t field, wire_type
    cdef size_t have = 0, size = 0
    if num_elements > MAX_TENSOR_BYTES // sizeof(TF_TString):
        return False
    if num_elements == 0:
        return True
    if scan.content_size:
        # Each string's length takes a byte of the content: seen before the lengths are walked.
        return num_elements <= scan.content_size and is_string_content(
            reader_of(scan.content, scan.content_size), num_elements)
    # However long the last string is, so many of them are not too much.
    if num_elements <= MAX_TENSOR_BYTES // (bytes_left(&body) + 1):
        return True
    while have < num_elements and read_tag(&body, &field, &wire_type):
        if field == FIELD_STRING_VAL and wire_type == WIRE_BYTES:
            if not read_bytes(&body, &inner):
                return False
            size = bytes_left(&inner)
            have += 1
        elif not skip_field(&body, field, wire_type):
            return False
    # TF_StringCopy does not survive running out of memory, and each repetition is an allocation of its own.
    return size == 0 or num_elements - have <= MAX_TENSOR_BYTES // size


cdef DecodeOutcome measure_tensor(const TensorScan* scan, TensorValues* values) noexcept nogil:
    cdef size_t num_elements = 0, element_size, size, i
    if _value_field(scan.dtype) == 0 or not _count_elements(scan, &num_elements):
        return DECODE_INVALID
    if scan.dtype == DT_STRING:
        element_size = sizeof(TF_TString)
        if not _are_strings_good(scan, num_elements):
            return DECODE_INVALID
    else:
        element_size = tf.DataTypeSize(scan.dtype)
        if element_size == 0 or num_elements > MAX_TENSOR_BYTES // element_size:
            return DECODE_INVALID
        size = num_elements * element_size
        if size and scan.content_size:
            if scan.content_size != size:
                return DECODE_INVALID
            if scan.dtype == DT_BOOL:
                for i in range(size):
                    if scan.content[i] > 1:
                        return DECODE_INVALID
    values.body = scan.body
    values.content = scan.content
    values.content_size = scan.content_size
    values.dtype = scan.dtype
    values.num_elements = num_elements
    values.element_size = element_size
    return DECODED


cdef void decode_values(const TensorValues* values, uint8_t* target) noexcept nogil:
    cdef size_t num_elements = values.num_elements
    cdef size_t element_size = values.element_size
    cdef size_t have
    cdef uint32_t value_field = _value_field(values.dtype)
    if num_elements == 0:
        return
    if values.dtype == DT_STRING:
        if values.content_size:
            decode_string_content(
                reader_of(values.content, values.content_size), <TF_TString*>target, num_elements)
        else:
            _copy_strings(values.body, <TF_TString*>target, num_elements)
        return
    if values.content_size:
        memcpy(target, values.content, num_elements * element_size)
        return
    if values.dtype == DT_COMPLEX64 or values.dtype == DT_COMPLEX128:
        # Two values an element; an incomplete last pair is dropped.
        have = _copy_fixed(values.body, value_field, element_size // 2, target, 2 * num_elements) // 2
    elif fixed_width(value_field):
        have = _copy_fixed(values.body, value_field, element_size, target, num_elements)
    elif value_field == FIELD_FLOAT8_VAL:
        have = _copy_bytes(values.body, target, num_elements)
    else:
        have = _copy_varints(values.body, value_field, values.dtype, target, num_elements)
    _repeat_last(target, element_size, have, num_elements)


cdef DecodeOutcome decode_tensor(const TensorScan* scan, TF_Tensor** tensor) noexcept nogil:
    cdef TensorValues values
    cdef uint8_t* target
    tensor[0] = NULL
    if measure_tensor(scan, &values) != DECODED:
        return DECODE_INVALID
    if scan.dtype == DT_STRING:
        tensor[0] = new_string_tensor(scan.dims, scan.num_dims, values.num_elements)
    else:
        tensor[0] = tf.AllocateTensor(
            scan.dtype, scan.dims, scan.num_dims, values.num_elements * values.element_size)
    if tensor[0] is NULL:
        return DECODE_NO_MEMORY
    if values.num_elements == 0:
        return DECODED
    target = <uint8_t*>tf.TensorData(tensor[0])
    if target is NULL:
        tf.DeleteTensor(tensor[0])
        tensor[0] = NULL
        return DECODE_NO_MEMORY
    decode_values(&values, target)
    return DECODED


# --- for tests --------------------------------------------------------------------------------------------------------

def decode_tensor_proto(message):
    cdef Py_buffer buffer
    cdef TensorScan scan
    cdef TF_Tensor* tensor = NULL
    cdef TF_TString* strings
    cdef DecodeOutcome outcome
    cdef size_t i
    if tf.TensorData is NULL:
        raise RuntimeError("tf_c_api.load_library() comes first")
    PyObject_GetBuffer(message, &buffer, PyBUF_SIMPLE)
    try:
        if not scan_tensor(reader_of(<const uint8_t*>buffer.buf, <size_t>buffer.len), &scan):
            raise ValueError("malformed")
        with nogil:
            outcome = decode_tensor(&scan, &tensor)
        if outcome == DECODE_NO_MEMORY:
            raise MemoryError
        if outcome == DECODE_INVALID:
            raise ValueError("invalid")
        shape = tuple([tf.Dim(tensor, d) for d in range(tf.NumDims(tensor))])
        if scan.dtype == DT_STRING:
            strings = <TF_TString*>tf.TensorData(tensor)
            values = [
                PyBytes_FromStringAndSize(
                    tf.StringGetDataPointer(&strings[i]), <Py_ssize_t>tf.StringGetSize(&strings[i]))
                for i in range(tf.TensorByteSize(tensor) // sizeof(TF_TString))
            ]
        else:
            values = PyBytes_FromStringAndSize(
                <const char*>tf.TensorData(tensor), <Py_ssize_t>tf.TensorByteSize(tensor))
        return scan.dtype, shape, values
    finally:
        if tensor is not NULL:
            tf.DeleteTensor(tensor)
        PyBuffer_Release(&buffer)
