"""The memory that a worker writes large replies into, which its gateway sends them to clients from.

Last stage of a large request's line in the worker, first one of its answer's in the gateway: response_encode → a block
here → its place in a frame ‖ gateway → HTTP/2. The gateway takes a place for what it is, a claim: it reads nothing
outside the memory, whatever the worker says. What the worker writes there after it has told is its own loss, so the
gateway copies a reply before it looks into it.

Source: shared_memory, memory_blocks.
"""

from tensorgate._native.zmq_api import load_library

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset
from posix.unistd cimport close

from tensorgate._native.byte_writer cimport put_bytes, writer_free, writer_init
from tensorgate._native.memory_blocks cimport blocks_free, blocks_give_back, blocks_init, blocks_take
from tensorgate._native.posix cimport (
    atomic_add,
    atomic_load,
    atomic_store,
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
from tensorgate._native.zmq_api cimport zmq, zmq_msg_t

# --- the gateway's end ------------------------------------------------------------------------------------------------


cdef void reply_arena_hold(ReplyArena* arena) noexcept nogil:
    atomic_add(&arena.references, 1)


cdef void reply_arena_drop(ReplyArena* arena) noexcept nogil:
    if atomic_add(&arena.references, -1) == 0:
        shared_memory_unmap(&arena.memory)
        free(arena)


cdef bint is_shared_with_worker(const ReplyArena* arena) noexcept nogil:
    return atomic_load(&arena.memory.header.is_attached) != 0


cdef struct HeldReply:
    ReplyArena* arena
    Place place


cdef void _release(void* data, void* hint) noexcept nogil:
    cdef HeldReply* held = <HeldReply*>hint
    cdef ReplyArena* arena = held.arena
    atomic_store(generation_at(&arena.memory, held.place.offset), -<int64_t>held.place.generation)
    atomic_add(&arena.held_bytes, -<int64_t>held.place.size)
    free(held)
    reply_arena_drop(arena)


cdef bint message_of_reply(zmq_msg_t* message, ReplyArena* arena, const Place* place) noexcept nogil:
    cdef uint8_t* data = NULL if arena is NULL else find_place(&arena.memory, place)
    cdef HeldReply* held
    if data is NULL:
        return False
    held = <HeldReply*>malloc(sizeof(HeldReply))
    if held is NULL:
        return False
    held.arena = arena
    held.place = place[0]
    if zmq.msg_init_data(message, data, place.size, _release, held) != 0:
        free(held)
        return False
    reply_arena_hold(arena)
    atomic_add(&arena.held_bytes, <int64_t>place.size)
    return True


# --- the worker's end -------------------------------------------------------------------------------------------------


cdef void _collect(ReplyPool* pool) noexcept nogil:
    """Takes back what the gateway has given back; with the mutex."""
    cdef ReplyBlock** at = &pool.told
    cdef ReplyBlock* block
    while at[0] is not NULL:
        block = at[0]
        if atomic_load(generation_at(&pool.memory, block.block.offset)) != -block.generation:
            at = &block.next
            continue
        at[0] = block.next
        blocks_give_back(&pool.blocks, block.block)
        free(block)
    trim_if_unused(&pool.memory, &pool.blocks)


cdef void* _take(WriterHome* home, size_t* size, uint8_t** data) noexcept nogil:
    cdef ReplyPool* pool = <ReplyPool*>home
    cdef ReplyBlock* made = <ReplyBlock*>malloc(sizeof(ReplyBlock))
    if made is NULL:
        return NULL
    pthread_mutex_lock(&pool.mutex)
    _collect(pool)
    made.block = blocks_take(&pool.blocks, size[0])
    if made.block is NULL:
        pthread_mutex_unlock(&pool.mutex)
        atomic_add(&pool.memory.header.num_full, 1)
        free(made)
        return NULL
    pool.last_generation += 1
    made.generation = pool.last_generation
    pthread_mutex_unlock(&pool.mutex)
    made.pool = pool
    made.next = NULL
    size[0] = made.block.size
    data[0] = address_of(&pool.memory, made.block.offset)
    return made


cdef void _give_back(void* taken) noexcept nogil:
    """A block that the gateway has not been told of."""
    cdef ReplyBlock* block = <ReplyBlock*>taken
    cdef ReplyPool* pool = block.pool
    pthread_mutex_lock(&pool.mutex)
    blocks_give_back(&pool.blocks, block.block)
    pthread_mutex_unlock(&pool.mutex)
    free(block)


cdef Place place_of_reply(const ByteWriter* writer) noexcept nogil:
    cdef ReplyBlock* block = <ReplyBlock*>writer.block
    cdef Place place
    # From here on the gateway can find it; it is told soon, or the number is overwritten by the next one.
    atomic_store(generation_at(&block.pool.memory, block.block.offset), block.generation)
    place.offset = block.block.offset
    place.size = writer.size
    place.generation = <uint64_t>block.generation
    return place


cdef void reply_told(ByteWriter* writer) noexcept nogil:
    cdef ReplyBlock* block = <ReplyBlock*>writer.block
    cdef ReplyPool* pool = block.pool
    pthread_mutex_lock(&pool.mutex)
    block.next = pool.told
    pool.told = block
    pthread_mutex_unlock(&pool.mutex)
    writer_init(writer)


# --- for Python -------------------------------------------------------------------------------------------------------


cdef class ReplyMemory:
    def __cinit__(self, size_t size):
        self.fd = -1
        load_library()
        self.arena = <ReplyArena*>calloc(1, sizeof(ReplyArena))
        if self.arena is NULL:
            raise MemoryError
        self.arena.references = 1
        self.fd = shared_memory_new(&self.arena.memory, size)

    def __dealloc__(self):
        self.close()

    def close(self):
        self.close_fd()
        if self.arena is not NULL:
            reply_arena_drop(self.arena)
            self.arena = NULL

    def close_fd(self):
        if self.fd >= 0:
            close(self.fd)
            self.fd = -1

    @property
    def size(self):
        return 0 if self.arena is NULL else self.arena.memory.size

    @property
    def held_bytes(self):
        return 0 if self.arena is NULL else atomic_load(&self.arena.held_bytes)

    @property
    def num_full(self):
        return 0 if self.arena is NULL else max(0, atomic_load(&self.arena.memory.header.num_full))

    @property
    def is_attached(self):
        return self.arena is not NULL and is_shared_with_worker(self.arena)

    def get(self, place):
        cdef zmq_msg_t message
        cdef Place read
        read.offset, read.size, read.generation = place
        if not message_of_reply(&message, self.arena, &read):
            return None
        content = PyBytes_FromStringAndSize(<const char*>zmq.msg_data(&message), <Py_ssize_t>zmq.msg_size(&message))
        zmq.msg_close(&message)
        return content


cdef class SharedReplies:
    def __cinit__(self, int fd, size_t threshold):
        memset(&self.pool, 0, sizeof(ReplyPool))
        pthread_mutex_init(&self.pool.mutex, NULL)
        if not shared_memory_map(&self.pool.memory, fd, True):
            raise OSError(f"descriptor {fd} is no memory that a gateway shares")
        if not blocks_init(&self.pool.blocks, self.pool.memory.begin, self.pool.memory.size):
            raise MemoryError
        self.pool.home.threshold = threshold
        self.pool.home.take = _take
        self.pool.home.give_back = _give_back

    def __dealloc__(self):
        cdef ReplyBlock* block = self.pool.told
        cdef ReplyBlock* following
        while block is not NULL:
            following = block.next
            free(block)
            block = following
        blocks_free(&self.pool.blocks)
        shared_memory_unmap(&self.pool.memory)
        pthread_mutex_destroy(&self.pool.mutex)

    def attach(self):
        atomic_store(&self.pool.memory.header.is_attached, 1)

    def put(self, content, bint tell=True):
        cdef const uint8_t[::1] view = content
        cdef ByteWriter writer
        cdef Place place
        writer_init(&writer)
        writer.home = &self.pool.home
        put_bytes(&writer, &view[0], <size_t>view.shape[0])
        if writer.block is NULL or not tell:
            writer_free(&writer)
            return None
        place = place_of_reply(&writer)
        reply_told(&writer)
        return place.offset, place.size, place.generation

    @property
    def used(self):
        pthread_mutex_lock(&self.pool.mutex)
        _collect(&self.pool)
        used = self.pool.blocks.used
        pthread_mutex_unlock(&self.pool.mutex)
        return used
