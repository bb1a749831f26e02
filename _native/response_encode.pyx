"""Encodes output tensors as TensorProtos, straight from TensorFlow's memory into the response.

Last step of Predict in the worker (read → bind → run → encode); runs on execution threads without the GIL. Fixed-width
values are one memcpy behind a tag and a length; every element is written out, as Tensor::AsProtoField does it, or as
tensor_content, as Tensor::AsProtoTensorContent.

Source: tensorflow/core/framework/tensor.proto, tensor.cc; tensorflow_serving/apis/predict.proto.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from tensorgate._native.byte_writer cimport (
    ByteWriter,
    put_byte,
    put_bytes,
    put_varint,
    varint_size,
    writer_reserve,
)
from tensorgate._native.proto_wire cimport WIRE_BYTES, WIRE_VARINT
from tensorgate._native.tensor_scan cimport MAX_DIMS
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


# --- values -----------------------------------------------------------------------------------------------------------

cdef uint32_t _fixed_field(int dtype) noexcept nogil:
    """The field of dtypes whose packed values are the tensor's own bytes (little-endian machines); else 0."""
    if dtype == DT_FLOAT:
        return 5
    if dtype == DT_DOUBLE:
        return 6
    if dtype == DT_COMPLEX64:
        return 9
    if dtype == DT_COMPLEX128:
        return 12
    if dtype == DT_BOOL:
        return 11  # a bool is one byte, 0 or 1, and so is its varint
    if DT_FLOAT8_E5M2 <= dtype <= DT_FLOAT8_E5M2FNUZ:
        return 18
    return 0


cdef uint32_t _varint_field(int dtype) noexcept nogil:
    if dtype in (
        DT_INT32, DT_INT16, DT_INT8, DT_UINT8, DT_UINT16, DT_QINT8, DT_QUINT8, DT_QINT32, DT_QINT16, DT_QUINT16,
        DT_INT4, DT_UINT4, DT_INT2, DT_UINT2,
    ):
        return 7
    if dtype == DT_INT64:
        return 10
    if dtype == DT_HALF or dtype == DT_BFLOAT16:
        return 13
    if dtype == DT_UINT32:
        return 16
    if dtype == DT_UINT64:
        return 17
    return 0


cdef inline uint64_t _load_varint(int dtype, const uint8_t* data, size_t i) noexcept nogil:
    """Element i as the number its varint carries: signed values extend to 64 bits."""
    if dtype == DT_INT64 or dtype == DT_UINT64:
        return (<const uint64_t*>data)[i]
    if dtype == DT_INT32 or dtype == DT_QINT32:
        return <uint64_t><int64_t>(<const int32_t*>data)[i]
    if dtype == DT_UINT32:
        return (<const uint32_t*>data)[i]
    if dtype in (DT_INT8, DT_QINT8, DT_INT4, DT_INT2):
        return <uint64_t><int64_t>(<const int8_t*>data)[i]
    if dtype in (DT_UINT8, DT_QUINT8, DT_UINT4, DT_UINT2):
        return data[i]
    if dtype == DT_INT16 or dtype == DT_QINT16:
        return <uint64_t><int64_t>(<const int16_t*>data)[i]
    return (<const uint16_t*>data)[i]  # uint16, quint16, half, bfloat16


cdef size_t _varints_size(int dtype, const uint8_t* data, size_t num_elements) noexcept nogil:
    cdef size_t size = 0
    cdef size_t i
    for i in range(num_elements):
        size += varint_size(_load_varint(dtype, data, i))
    return size


cdef void _normalise_bools(uint8_t* bools, size_t count) noexcept nogil:
    cdef size_t i
    for i in range(count):
        bools[i] = bools[i] != 0


cdef size_t _strings_size(const TF_TString* strings, size_t num_elements) noexcept nogil:
    cdef size_t size = 0
    cdef size_t i
    for i in range(num_elements):
        size += field_size(8, tf.StringGetSize(&strings[i]))
    return size


cdef size_t _shape_size(const int64_t* dims, int num_dims) noexcept nogil:
    cdef size_t size = 0
    cdef int i
    for i in range(num_dims):
        size += field_size(2, 1 + varint_size(<uint64_t>dims[i]) if dims[i] else 0)
    return size


cdef void _put_shape(ByteWriter* out, const int64_t* dims, int num_dims) noexcept nogil:
    cdef int i
    put_tag(out, 2, WIRE_BYTES)
    put_varint(out, _shape_size(dims, num_dims))
    for i in range(num_dims):
        put_tag(out, 2, WIRE_BYTES)
        if dims[i]:
            put_varint(out, 1 + varint_size(<uint64_t>dims[i]))
            put_tag(out, 1, WIRE_VARINT)
            put_varint(out, <uint64_t>dims[i])
        else:
            put_varint(out, 0)


cdef size_t _content_size(int dtype, const uint8_t* data, size_t byte_size) noexcept nogil:
    """Bytes of tensor_content: the elements as they lie in memory; of strings all lengths, then all bytes."""
    cdef const TF_TString* strings = <const TF_TString*>data
    cdef size_t size = 0, string_size, i
    if dtype != DT_STRING:
        return byte_size
    for i in range(byte_size // sizeof(TF_TString)):
        string_size = tf.StringGetSize(&strings[i])
        size += varint_size(string_size) + string_size
    return size


cdef void _put_elements(ByteWriter* out, int dtype, const uint8_t* data, size_t byte_size) noexcept nogil:
    """As they lie in memory."""
    put_bytes(out, data, byte_size)
    if dtype == DT_BOOL and byte_size and not out.failed:
        # Ops that reinterpret bytes (DecodeRaw) make bools of any byte; one above 127 is no whole varint.
        _normalise_bools(out.data + out.size - byte_size, byte_size)


cdef void _put_content(ByteWriter* out, int dtype, const OutputPart* parts, int num_parts) noexcept nogil:
    cdef const TF_TString* strings
    cdef size_t i
    cdef int part
    if dtype != DT_STRING:
        for part in range(num_parts):
            _put_elements(out, dtype, parts[part].data, parts[part].byte_size)
        return
    for part in range(num_parts):
        strings = <const TF_TString*>parts[part].data
        for i in range(parts[part].byte_size // sizeof(TF_TString)):
            put_varint(out, tf.StringGetSize(&strings[i]))
    for part in range(num_parts):
        strings = <const TF_TString*>parts[part].data
        for i in range(parts[part].byte_size // sizeof(TF_TString)):
            put_bytes(out, tf.StringGetDataPointer(&strings[i]), tf.StringGetSize(&strings[i]))


cdef bint put_output(
    ByteWriter* out, const uint8_t* alias, size_t alias_size, TF_Tensor* tensor, bint as_content,
) noexcept nogil:
    cdef int64_t dims[MAX_DIMS]
    cdef int num_dims = tf.NumDims(tensor)
    cdef OutputPart part
    cdef int i
    if num_dims > MAX_DIMS:
        return False  # TensorFlow has none
    for i in range(num_dims):
        dims[i] = tf.Dim(tensor, i)
    part.data = <const uint8_t*>tf.TensorData(tensor)
    part.byte_size = tf.TensorByteSize(tensor)
    return put_output_parts(out, alias, alias_size, tf.TensorType(tensor), dims, num_dims, &part, 1, as_content)


cdef bint put_output_parts(
    ByteWriter* out, const uint8_t* alias, size_t alias_size, int dtype, const int64_t* dims, int num_dims,
    const OutputPart* parts, int num_parts, bint as_content,
) noexcept nogil:
    cdef const TF_TString* strings
    cdef size_t num_bytes = 0, values_size = 0, size = 0, element_size, tensor_size, entry_size, i
    cdef uint32_t fixed_field = _fixed_field(dtype)
    cdef uint32_t varint_field = _varint_field(dtype)
    cdef int part

    if dtype != DT_STRING and not fixed_field and not varint_field:
        return False
    element_size = tf.DataTypeSize(dtype) if varint_field else 1
    for part in range(num_parts):
        num_bytes += parts[part].byte_size
        if as_content:
            size += _content_size(dtype, parts[part].data, parts[part].byte_size)
        elif dtype == DT_STRING:
            values_size += _strings_size(
                <const TF_TString*>parts[part].data, parts[part].byte_size // sizeof(TF_TString))
        elif fixed_field:
            size += parts[part].byte_size
        else:
            size += _varints_size(dtype, parts[part].data, parts[part].byte_size // element_size)
    if as_content:
        values_size = field_size(4, size) if size else 0
    elif dtype != DT_STRING:
        values_size = field_size(fixed_field if fixed_field else varint_field, size) if num_bytes else 0

    tensor_size = 1 + varint_size(<uint64_t>dtype) + field_size(2, _shape_size(dims, num_dims)) + values_size
    entry_size = field_size(1, alias_size) + field_size(2, tensor_size)
    # One allocation for the whole entry; the puts below then only copy.
    if not writer_reserve(out, field_size(1, entry_size) + 16):
        return True
    put_tag(out, 1, WIRE_BYTES)
    put_varint(out, entry_size)
    put_tag(out, 1, WIRE_BYTES)
    put_varint(out, alias_size)
    put_bytes(out, alias, alias_size)
    put_tag(out, 2, WIRE_BYTES)
    put_varint(out, tensor_size)
    put_tag(out, 1, WIRE_VARINT)
    put_varint(out, <uint64_t>dtype)
    _put_shape(out, dims, num_dims)
    if as_content:
        if size:
            put_tag(out, 4, WIRE_BYTES)
            put_varint(out, size)
            _put_content(out, dtype, parts, num_parts)
    elif dtype == DT_STRING:
        for part in range(num_parts):
            strings = <const TF_TString*>parts[part].data
            for i in range(parts[part].byte_size // sizeof(TF_TString)):
                size = tf.StringGetSize(&strings[i])
                put_tag(out, 8, WIRE_BYTES)
                put_varint(out, size)
                put_bytes(out, tf.StringGetDataPointer(&strings[i]), size)
    elif num_bytes:
        put_tag(out, fixed_field if fixed_field else varint_field, WIRE_BYTES)
        put_varint(out, size)
        for part in range(num_parts):
            if fixed_field:
                _put_elements(out, dtype, parts[part].data, parts[part].byte_size)
            else:
                for i in range(parts[part].byte_size // element_size):
                    put_varint(out, _load_varint(dtype, parts[part].data, i))
    return True


cdef void put_model_spec(
    ByteWriter* out, uint32_t field, const uint8_t* name, size_t name_size, int64_t version,
    const uint8_t* signature_name, size_t signature_name_size,
) noexcept nogil:
    cdef size_t version_size = 1 + varint_size(<uint64_t>version) if version else 0
    cdef size_t size = field_size(2, version_size)
    if name_size:
        size += field_size(1, name_size)
    if signature_name_size:
        size += field_size(3, signature_name_size)
    put_tag(out, field, WIRE_BYTES)
    put_varint(out, size)
    if name_size:
        put_tag(out, 1, WIRE_BYTES)
        put_varint(out, name_size)
        put_bytes(out, name, name_size)
    put_tag(out, 2, WIRE_BYTES)
    put_varint(out, version_size)
    if version:
        put_byte(out, (1 << 3) | WIRE_VARINT)
        put_varint(out, <uint64_t>version)
    if signature_name_size:
        put_tag(out, 3, WIRE_BYTES)
        put_varint(out, signature_name_size)
        put_bytes(out, signature_name, signature_name_size)
