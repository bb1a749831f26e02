"""Decodes TensorProtos straight into TensorFlow's own tensor memory, for every dtype that has a value field.

Part of binding a request's inputs in the worker (read → bind → run → encode); runs on execution threads, without the
GIL. First it is measured: whether TensorFlow would parse it, and how much memory it takes.

Rules, as TensorFlow's Tensor::FromProto has them: a non-empty tensor_content wins and must have exactly the right
length; else the value field of the dtype counts, see value_fields; no shape means a scalar; unknown_rank is ignored.

Source: tensorflow/core/framework/tensor.proto (field numbers), tensor.cc (rules).
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t
from libc.string cimport memcpy

from tensorgate._native.proto_wire cimport (
    WIRE_BYTES,
    ProtoReader,
    bytes_left,
    read_bytes,
    read_tag,
    reader_of,
    skip_field,
)
from tensorgate._native.string_tensors cimport decode_string_content, is_string_content, new_string_tensor
from tensorgate._native.tensor_scan cimport FIELD_STRING_VAL, MAX_DIMS, TensorScan, scan_tensor
from tensorgate._native.tf_c_api cimport DT_BOOL, DT_STRING, TF_Tensor, TF_TString, tf
from tensorgate._native.value_fields cimport copy_values, value_field


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
    if value_field(scan.dtype) == 0 or not _count_elements(scan, &num_elements):
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
    if num_elements == 0:
        return
    if not values.content_size:
        copy_values(values.body, values.dtype, values.element_size, target, num_elements)
    elif values.dtype == DT_STRING:
        decode_string_content(
            reader_of(values.content, values.content_size), <TF_TString*>target, num_elements)
    else:
        memcpy(target, values.content, num_elements * values.element_size)


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
