"""Assembles the length-prefixed messages of a gRPC stream; between HTTP/2's DATA and what a method is given.

An assembler belongs to the edge thread that owns its stream. A message that lies whole in one chunk of DATA costs one
malloc and one memcpy; one that comes in pieces is grown by doubling up to the length it announced, unless it is large
and there is room for it in shared memory, where it then has all of its place.

Source: gRPC's PROTOCOL-HTTP2.md, Length-Prefixed-Message.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove, memset

from tensorgate._native.request_memory cimport (
    RequestArena,
    RequestBlock,
    RequestMemory,
    request_block_give_back,
    request_block_take,
)

cdef enum:
    # A message has a place in shared memory once one byte of so many has come: nobody can fill it with announcements.
    ARENA_SHARE = 64
    # Smaller messages are read with others at one go.
    MIN_PLACED = 65536


cdef void assembler_init(MessageAssembler* assembler, size_t max_message_size) noexcept nogil:
    memset(assembler, 0, sizeof(MessageAssembler))
    assembler.max_message_size = max_message_size


cdef void _free_content(uint8_t* data, RequestBlock* block) noexcept nogil:
    if block is not NULL:
        request_block_give_back(block)
    else:
        free(data)


cdef void _begin(MessageAssembler* assembler) noexcept nogil:
    cdef RequestArena* arena = assembler.arena
    assembler_init(assembler, assembler.max_message_size)
    assembler.arena = arena


cdef void assembler_free(MessageAssembler* assembler) noexcept nogil:
    _free_content(assembler.data, assembler.block)
    _begin(assembler)


cdef void message_free(Message* message) noexcept nogil:
    _free_content(message.data, message.block)
    memset(message, 0, sizeof(Message))


cdef bint _move_to_arena(MessageAssembler* assembler) noexcept nogil:
    cdef RequestBlock* block = request_block_take(assembler.arena, assembler.announced)
    if block is NULL:
        assembler.has_no_room = True
        return False
    if assembler.size:
        memcpy(block.data, assembler.data, assembler.size)
    free(assembler.data)
    assembler.data = block.data
    assembler.block = block
    assembler.capacity = assembler.announced
    return True


cdef bint _reserve(MessageAssembler* assembler, size_t wanted) noexcept nogil:
    """Room for ``wanted`` bytes in all, which is at most what is announced."""
    cdef size_t capacity
    cdef uint8_t* moved
    if wanted <= assembler.capacity:
        return True
    if (
        assembler.arena is not NULL
        and not assembler.compressed
        and not assembler.has_no_room
        and assembler.announced >= assembler.arena.threshold
        and wanted >= assembler.announced // ARENA_SHARE
        and _move_to_arena(assembler)
    ):
        return True
    # No overflow: capacity is at most announced, a number of 32 bits.
    capacity = 2 * assembler.capacity
    if capacity < MESSAGE_FIRST_CAPACITY:
        capacity = MESSAGE_FIRST_CAPACITY
    if capacity < wanted:
        capacity = wanted
    if capacity > assembler.announced:
        capacity = assembler.announced
    moved = <uint8_t*>realloc(assembler.data, capacity)
    if moved is NULL:
        return False
    assembler.data = moved
    assembler.capacity = capacity
    return True


cdef AssemblerResult assembler_push(MessageAssembler* assembler, const uint8_t** data, size_t* size) noexcept nogil:
    cdef size_t step
    while assembler.prefix_size < MESSAGE_PREFIX_BYTES:
        if size[0] == 0 or (assembler.prefix_size and assembler.prefix[0] > 1):
            break
        assembler.prefix[assembler.prefix_size] = data[0][0]
        assembler.prefix_size += 1
        data[0] += 1
        size[0] -= 1
        if assembler.prefix_size == MESSAGE_PREFIX_BYTES:
            assembler.compressed = assembler.prefix[0] == 1
            assembler.announced = (
                <size_t>assembler.prefix[1] << 24 | <size_t>assembler.prefix[2] << 16
                | <size_t>assembler.prefix[3] << 8 | assembler.prefix[4]
            )
    if assembler.prefix_size and assembler.prefix[0] > 1:
        return MESSAGE_BAD_FLAG
    if assembler.prefix_size < MESSAGE_PREFIX_BYTES:
        return MESSAGE_INCOMPLETE
    if assembler.announced > assembler.max_message_size:
        return MESSAGE_TOO_LARGE
    step = assembler.announced - assembler.size
    if step > size[0]:
        step = size[0]
    if step:
        if not _reserve(assembler, assembler.size + step):
            return MESSAGE_NO_MEMORY
        # They may be there already, see assembler_place.
        if data[0] != assembler.data + assembler.size:
            memmove(assembler.data + assembler.size, data[0], step)
        assembler.size += step
        data[0] += step
        size[0] -= step
    return MESSAGE_COMPLETE if assembler.size == assembler.announced else MESSAGE_INCOMPLETE


cdef size_t assembler_place(const MessageAssembler* assembler, uint8_t** place) noexcept nogil:
    if assembler.announced < MIN_PLACED or assembler.size == 0:
        return 0
    place[0] = assembler.data + assembler.size
    return assembler.capacity - assembler.size


cdef void assembler_take(MessageAssembler* assembler, Message* message) noexcept nogil:
    message.data = assembler.data
    message.size = assembler.size
    message.block = assembler.block
    message.compressed = assembler.compressed
    _begin(assembler)


cdef bint assembler_is_between_messages(const MessageAssembler* assembler) noexcept nogil:
    return assembler.prefix_size == 0


# --- for Python -------------------------------------------------------------------------------------------------------


class MessageError(ValueError):
    """The bytes are no sequence of length-prefixed messages of the size allowed."""


cdef class Assembler:
    cdef MessageAssembler _assembler

    cdef RequestMemory _memory  # outlives the assembler's part of it

    def __cinit__(self, size_t max_message_size, RequestMemory memory=None):
        assembler_init(&self._assembler, max_message_size)
        self._memory = memory
        if memory is not None:
            self._assembler.arena = memory.arena

    def __dealloc__(self):
        assembler_free(&self._assembler)

    def push(self, chunk):
        cdef Py_buffer buffer
        cdef const uint8_t* data
        cdef size_t size
        cdef AssemblerResult result
        messages = []
        PyObject_GetBuffer(chunk, &buffer, PyBUF_SIMPLE)
        try:
            data = <const uint8_t*>buffer.buf
            size = <size_t>buffer.len
            while True:
                result = assembler_push(&self._assembler, &data, &size)
                if result == MESSAGE_COMPLETE:
                    messages.append(self._take())
                elif result == MESSAGE_INCOMPLETE:
                    return messages
                elif result == MESSAGE_TOO_LARGE:
                    raise MessageError(
                        f"a message of {self._assembler.announced} bytes is announced;"
                        f" at most {self._assembler.max_message_size} are allowed"
                    )
                elif result == MESSAGE_BAD_FLAG:
                    raise MessageError(f"a message's prefix begins with {self._assembler.prefix[0]}, not with 0 or 1")
                else:
                    raise MemoryError
        finally:
            PyBuffer_Release(&buffer)

    cdef tuple _take(self):
        cdef Message message
        assembler_take(&self._assembler, &message)
        try:
            return bool(message.compressed), PyBytes_FromStringAndSize(
                <const char*>message.data, <Py_ssize_t>message.size)
        finally:
            message_free(&message)

    @property
    def held_bytes(self):
        return assembler_held(&self._assembler)

    @property
    def is_between_messages(self):
        return bool(assembler_is_between_messages(&self._assembler))
