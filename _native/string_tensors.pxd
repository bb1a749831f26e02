"""String tensors: arrays of TensorFlow's 24-byte tstrings, made and released through the C API."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t

from tensorgate._native.proto_wire cimport ProtoReader
from tensorgate._native.tf_c_api cimport TF_Tensor, TF_TString

# A string tensor of num_elements empty strings, or NULL when memory runs out. Its memory is released by TensorFlow,
# through our deallocator, when the last tensor that shares it is gone (outputs may share an input's memory).
cdef TF_Tensor* new_string_tensor(const int64_t* dims, int num_dims, size_t num_elements) noexcept nogil
# Whether it is the string form of tensor_content, with so many strings: all lengths as varints, then all bytes.
cdef bint is_string_content(ProtoReader content, size_t num_elements) noexcept nogil
# Fills strings[0:num_elements] from it. False when lengths and bytes do not add up.
cdef bint decode_string_content(ProtoReader content, TF_TString* strings, size_t num_elements) noexcept nogil
