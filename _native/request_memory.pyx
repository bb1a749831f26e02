"""The memory that large requests are received into, which the gateway's workers read them from.

First and third stage of a large request's line: HTTP/2 → a block here → dispatcher → its place in a frame ‖ worker. One
for all threads and workers of a gateway. Workers map it for reading; only the gateway knows which of it is in use.

Source: shared_memory, memory_blocks.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy
from posix.unistd cimport close

from tensorgate._native.memory_blocks cimport blocks_free, blocks_give_back, blocks_init, blocks_take
from tensorgate._native.posix cimport (
    O_CLOEXEC,
    O_RDONLY,
    atomic_add,
    atomic_load,
    atomic_store,
    open_path,
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_unlock,
)
from tensorgate._native.shared_memory cimport (
    address_of,
    find_place,
    generation_at,
    shared_memory_map,
    shared_memory_new,
    shared_memory_unmap,
    trim_if_unused,
)
from tensorgate._native.zmq_api cimport zmq


cdef void _drop_arena(RequestArena* arena) noexcept nogil:
    if atomic_add(&arena.references, -1) == 0:
        blocks_free(&arena.blocks)
        shared_memory_unmap(&arena.memory)
        pthread_mutex_destroy(&arena.mutex)
        free(arena)


cdef RequestBlock* request_block_take(RequestArena* arena, size_t size) noexcept nogil:
    cdef RequestBlock* made
    if arena is NULL or size < arena.threshold or size == 0:
        return NULL
    made = <RequestBlock*>malloc(sizeof(RequestBlock))
    if made is NULL:
        return NULL
    pthread_mutex_lock(&arena.mutex)
    made.block = blocks_take(&arena.blocks, size)
    if made.block is NULL:
        pthread_mutex_unlock(&arena.mutex)
        atomic_add(&arena.memory.header.num_full, 1)
        free(made)
        return NULL
    arena.last_generation += 1
    made.generation = arena.last_generation
    pthread_mutex_unlock(&arena.mutex)
    made.arena = arena
    made.data = address_of(&arena.memory, made.block.offset)
    made.size = size
    atomic_store(generation_at(&arena.memory, made.block.offset), made.generation)
    atomic_add(&arena.references, 1)
    return made


cdef void request_block_give_back(RequestBlock* block) noexcept nogil:
    cdef RequestArena* arena = block.arena
    # Before another block can begin there.
    atomic_store(generation_at(&arena.memory, block.block.offset), 0)
    pthread_mutex_lock(&arena.mutex)
    blocks_give_back(&arena.blocks, block.block)
    trim_if_unused(&arena.memory, &arena.blocks)
    pthread_mutex_unlock(&arena.mutex)
    free(block)
    _drop_arena(arena)


cdef void _release(void* data, void* hint) noexcept nogil:
    request_block_give_back(<RequestBlock*>hint)


cdef bint message_of_block(zmq_msg_t* message, RequestBlock* block) noexcept nogil:
    return zmq.msg_init_data(message, block.data, block.size, _release, block) == 0


# --- for Python -------------------------------------------------------------------------------------------------------


cdef class RequestMemory:
    def __cinit__(self, size_t size, size_t threshold):
        self.fd = -1
        self.arena = <RequestArena*>calloc(1, sizeof(RequestArena))
        if self.arena is NULL:
            raise MemoryError
        self.arena.references = 1
        self.arena.threshold = threshold
        pthread_mutex_init(&self.arena.mutex, NULL)
        self.fd = shared_memory_new(&self.arena.memory, size)
        if not blocks_init(&self.arena.blocks, self.arena.memory.begin, self.arena.memory.size):
            raise MemoryError

    def __dealloc__(self):
        if self.fd >= 0:
            close(self.fd)
        if self.arena is not NULL:
            _drop_arena(self.arena)

    def open_for_reading(self):
        cdef char[64] path
        cdef int fd
        snprintf(path, sizeof(path), "/proc/self/fd/%d", self.fd)
        fd = open_path(path, O_RDONLY | O_CLOEXEC)
        if fd < 0:
            raise OSError(f"{path.decode()} cannot be opened: is /proc there?")
        return fd

    def put(self, const uint8_t[::1] content not None):
        cdef RequestBlock* block = request_block_take(self.arena, <size_t>content.shape[0])
        if block is NULL:
            return None
        memcpy(block.data, &content[0], block.size)
        place = place_of_block(block)
        return <size_t>block, (place.offset, place.size, place.generation)

    def give_back(self, size_t block):
        request_block_give_back(<RequestBlock*>block)

    @property
    def size(self):
        return self.arena.memory.size

    @property
    def used(self):
        pthread_mutex_lock(&self.arena.mutex)
        used = self.arena.blocks.used
        pthread_mutex_unlock(&self.arena.mutex)
        return used

    @property
    def num_full(self):
        return atomic_load(&self.arena.memory.header.num_full)


cdef class SharedRequests:
    def __cinit__(self, int fd):
        if not shared_memory_map(&self.memory, fd, False):
            raise OSError(f"descriptor {fd} is no memory that a gateway shares")

    def __dealloc__(self):
        shared_memory_unmap(&self.memory)

    def get(self, place):
        cdef Place read
        cdef const uint8_t* data
        read.offset, read.size, read.generation = place
        data = find_place(&self.memory, &read)
        return None if data is NULL else PyBytes_FromStringAndSize(<const char*>data, <Py_ssize_t>read.size)
