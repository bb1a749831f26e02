"""The fields of a TensorProto that hold its values one by one."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t

from tensorgate._native.proto_wire cimport ProtoReader

# The repeated field that holds values of a dtype; 0 for dtypes that cannot be decoded.
cdef uint32_t value_field(int dtype) noexcept nogil
# Writes num_elements, at least one, to target, which has room for them; strings there are initialised. body is that of
# a tensor that measure_tensor has passed.
cdef void copy_values(
    ProtoReader body, int dtype, size_t element_size, uint8_t* target, size_t num_elements) noexcept nogil
