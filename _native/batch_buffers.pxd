"""Memory for merged inputs, reused."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t

from tensorgate._native.batch_state cimport Buffer, BufferPool
from tensorgate._native.tf_c_api cimport TF_Tensor

# NULL: out of memory.
cdef BufferPool* buffers_new() noexcept nogil
# The owner is done; the pool goes with the last buffer that TensorFlow still has.
cdef void buffers_release(BufferPool* pool) noexcept nogil
# Aligned to 64 bytes, num_bytes at least; of strings (num_strings of them) each is empty. NULL: out of memory.
cdef Buffer* buffer_take(BufferPool* pool, size_t num_bytes, size_t num_strings) noexcept nogil
cdef void buffer_give_back(Buffer* buffer) noexcept nogil
cdef uint8_t* buffer_data(Buffer* buffer) noexcept nogil
# Makes a tensor of it, which gives it back once TensorFlow needs it no more. NULL: it was given back, and there is no
# tensor.
cdef TF_Tensor* buffer_to_tensor(
    Buffer* buffer, int dtype, const int64_t* dims, int num_dims, size_t num_bytes) noexcept nogil
