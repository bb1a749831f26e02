"""Memory for merged inputs: aligned so that TensorFlow takes it over as it is, and reused once TensorFlow is done.

Part of packing a batch in the worker (queue → pack → run → split). An output may be the memory of an input, a variable
may keep it: so a buffer is free when TensorFlow's deallocator has run, on whichever thread that is, never earlier.

Source: tensorflow/c/tf_tensor.h (TF_NewTensor copies what is not aligned to EIGEN_MAX_ALIGN_BYTES).
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport calloc, free

from tensorgate._native.batch_state cimport NUM_BUFFER_CLASSES, Buffer, BufferPool
from tensorgate._native.posix cimport (
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_unlock,
)
from tensorgate._native.tf_c_api cimport TF_Tensor, TF_TString, tf


cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void** memory, size_t alignment, size_t size)


cdef enum:
    ALIGNMENT = 64           # also what stands before the memory
    SMALLEST_BYTES = 4096    # class 0; each class is twice the one before, and the last one 2 GiB
    # What is kept: of each class so many buffers, all of them no more than this.
    MAX_FREE = 4
    MAX_FREE_BYTES = 64 << 20


cdef BufferPool* buffers_new() noexcept nogil:
    cdef BufferPool* pool = <BufferPool*>calloc(1, sizeof(BufferPool))
    if pool is not NULL:
        pthread_mutex_init(&pool.mutex, NULL)
        pool.num_users = 1
    return pool


cdef void _leave(BufferPool* pool) noexcept nogil:
    """Under the mutex, which it releases; the last one out frees the pool."""
    cdef Buffer* buffer
    cdef bint is_last
    cdef int i
    pool.num_users -= 1
    is_last = pool.num_users == 0
    pthread_mutex_unlock(&pool.mutex)
    if not is_last:
        return
    for i in range(NUM_BUFFER_CLASSES):
        while pool.free_buffers[i] is not NULL:
            buffer = pool.free_buffers[i]
            pool.free_buffers[i] = buffer.next
            free(buffer)
    pthread_mutex_destroy(&pool.mutex)
    free(pool)


cdef void buffers_release(BufferPool* pool) noexcept nogil:
    if pool is not NULL:
        pthread_mutex_lock(&pool.mutex)
        _leave(pool)


cdef uint8_t* buffer_data(Buffer* buffer) noexcept nogil:
    return <uint8_t*>buffer + ALIGNMENT


cdef Buffer* buffer_take(BufferPool* pool, size_t num_bytes, size_t num_strings) noexcept nogil:
    cdef Buffer* buffer = NULL
    cdef void* memory = NULL
    cdef TF_TString* strings
    cdef size_t capacity = SMALLEST_BYTES
    cdef size_t i
    cdef int size_class = 0
    while capacity < num_bytes and size_class < NUM_BUFFER_CLASSES - 1:
        capacity *= 2
        size_class += 1
    if capacity < num_bytes:
        return NULL
    pthread_mutex_lock(&pool.mutex)
    buffer = pool.free_buffers[size_class]
    if buffer is not NULL:
        pool.free_buffers[size_class] = buffer.next
        pool.num_free[size_class] -= 1
        pool.free_bytes -= buffer.capacity
        pool.num_reused += 1
    else:
        pool.num_made += 1
    pool.num_users += 1
    pthread_mutex_unlock(&pool.mutex)
    if buffer is NULL:
        # What is not kept is no larger than it has to be.
        if capacity > MAX_FREE_BYTES:
            capacity = num_bytes
        if posix_memalign(&memory, ALIGNMENT, ALIGNMENT + capacity) != 0:
            pthread_mutex_lock(&pool.mutex)
            _leave(pool)
            return NULL
        buffer = <Buffer*>memory
        buffer.pool = pool
        buffer.capacity = capacity
        buffer.size_class = size_class
    buffer.num_strings = num_strings
    if num_strings:
        strings = <TF_TString*>buffer_data(buffer)
        for i in range(num_strings):
            tf.StringInit(&strings[i])
    return buffer


cdef void buffer_give_back(Buffer* buffer) noexcept nogil:
    cdef BufferPool* pool = buffer.pool
    cdef TF_TString* strings = <TF_TString*>buffer_data(buffer)
    cdef size_t i
    cdef bint is_kept
    for i in range(buffer.num_strings):
        tf.StringDealloc(&strings[i])
    pthread_mutex_lock(&pool.mutex)
    is_kept = (
        pool.num_free[buffer.size_class] < MAX_FREE and buffer.capacity <= MAX_FREE_BYTES - pool.free_bytes)
    if is_kept:
        buffer.next = pool.free_buffers[buffer.size_class]
        pool.free_buffers[buffer.size_class] = buffer
        pool.num_free[buffer.size_class] += 1
        pool.free_bytes += buffer.capacity
    _leave(pool)
    if not is_kept:
        free(buffer)


cdef void _deallocate(void* data, size_t size, void* argument) noexcept nogil:
    """On whichever thread drops the last reference."""
    buffer_give_back(<Buffer*>argument)


cdef TF_Tensor* buffer_to_tensor(
    Buffer* buffer, int dtype, const int64_t* dims, int num_dims, size_t num_bytes,
) noexcept nogil:
    # The memory is TensorFlow's from here, even if it makes no tensor of it: then the deallocator has run already.
    return tf.NewTensor(dtype, dims, num_dims, buffer_data(buffer), num_bytes, _deallocate, buffer)
