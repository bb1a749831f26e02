"""TensorFlow tensors to TensorProto bytes, and the PredictResponse around them."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t

from tensorgate._native.byte_writer cimport ByteWriter
from tensorgate._native.tf_c_api cimport TF_Tensor

# Appends one entry of PredictResponse.outputs; False for a dtype that has no value field (resource, variant).
cdef bint put_output(ByteWriter* out, const uint8_t* alias, size_t alias_size, TF_Tensor* tensor) noexcept nogil
# Appends PredictResponse.model_spec (field 2), which echoes what was used.
cdef void put_model_spec(
    ByteWriter* out, const uint8_t* name, size_t name_size, int64_t version, const uint8_t* signature_name,
    size_t signature_name_size) noexcept nogil
