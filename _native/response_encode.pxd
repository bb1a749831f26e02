"""TensorFlow tensors to TensorProto bytes, and what stands around them in responses."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t

from tensorgate._native.byte_writer cimport ByteWriter, put_varint, varint_size
from tensorgate._native.tf_c_api cimport TF_Tensor


cdef inline void put_tag(ByteWriter* out, uint32_t field, uint32_t wire_type) noexcept nogil:
    put_varint(out, (field << 3) | wire_type)


cdef inline size_t field_size(uint32_t field, size_t body_size) noexcept nogil:
    """Bytes of a length-delimited field: tag, length, body."""
    return varint_size(field << 3) + varint_size(body_size) + body_size


cdef struct OutputPart:
    # Some of a tensor's elements, as they lie in memory.
    const uint8_t* data
    size_t byte_size


# Appends one entry of PredictResponse.outputs, which is also one of SessionRunResponse.tensor. as_content: the values
# go into tensor_content. False for a dtype that has no value field (resource, variant).
cdef bint put_output(
    ByteWriter* out, const uint8_t* alias, size_t alias_size, TF_Tensor* tensor, bint as_content) noexcept nogil
# The same of elements that lie in several places, one part after the other.
cdef bint put_output_parts(
    ByteWriter* out, const uint8_t* alias, size_t alias_size, int dtype, const int64_t* dims, int num_dims,
    const OutputPart* parts, int num_parts, bint as_content) noexcept nogil
# Appends a response's model_spec as that field; it echoes what was used.
cdef void put_model_spec(
    ByteWriter* out, uint32_t field, const uint8_t* name, size_t name_size, int64_t version,
    const uint8_t* signature_name, size_t signature_name_size) noexcept nogil
