"""A growing byte buffer for code without the GIL: running out of memory sets a flag instead of raising.

Shared by the writers of frame headers and of responses. The owner calls writer_free, or takes the memory over
(writer.data, to be released with free(), or writer.block of a writer with a home) and forgets the writer.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, strlen

cdef struct WriterHome:
    # Where large contents go instead of into malloc's memory, as long as there is room.
    size_t threshold
    # A block with room for at least *size bytes, which it sets to all of it; NULL: none.
    void* (*take)(WriterHome* home, size_t* size, uint8_t** data) noexcept nogil
    void (*give_back)(void* block) noexcept nogil


cdef struct ByteWriter:
    uint8_t* data
    size_t size
    size_t capacity
    bint failed  # out of memory: what was written since is incomplete
    WriterHome* home  # set by an owner that knows it, after writer_init
    void* block  # of the home's, which data is in; NULL: data is malloc'd


cdef inline void writer_init(ByteWriter* writer) noexcept nogil:
    writer.data = NULL
    writer.size = 0
    writer.capacity = 0
    writer.failed = False
    writer.home = NULL
    writer.block = NULL


cdef inline void writer_free(ByteWriter* writer) noexcept nogil:
    if writer.block is not NULL:
        writer.home.give_back(writer.block)
    else:
        free(writer.data)
    writer_init(writer)


cdef inline bint _writer_move(ByteWriter* writer, size_t wanted) noexcept nogil:
    """Into a block of its home's; or out of one, if there is no other."""
    cdef uint8_t* moved = NULL
    # So that a little more does not move it again.
    cdef size_t capacity = wanted + 512
    cdef void* block = writer.home.take(writer.home, &capacity, &moved)
    if block is NULL:
        if writer.block is NULL:
            return False
        capacity = wanted
        moved = <uint8_t*>malloc(capacity)
        if moved is NULL:
            return False
    if writer.size:
        memcpy(moved, writer.data, writer.size)
    if writer.block is not NULL:
        writer.home.give_back(writer.block)
    else:
        free(writer.data)
    writer.block = block
    writer.data = moved
    writer.capacity = capacity
    return True


cdef inline bint writer_reserve(ByteWriter* writer, size_t extra) noexcept nogil:
    """Makes room for ``extra`` more bytes; False (and the flag set) when there is none."""
    cdef size_t wanted
    cdef uint8_t* moved
    if writer.capacity - writer.size >= extra:
        return not writer.failed
    if writer.failed or extra > (<size_t>-1) // 4 or writer.size > (<size_t>-1) // 4:
        writer.failed = True
        return False
    wanted = writer.size + extra
    if wanted < 2 * writer.capacity:
        wanted = 2 * writer.capacity
    if wanted < 64:
        wanted = 64
    if writer.block is not NULL or (writer.home is not NULL and wanted >= writer.home.threshold):
        if _writer_move(writer, wanted):
            return True
        if writer.block is not NULL:
            writer.failed = True
            return False
    moved = <uint8_t*>realloc(writer.data, wanted)
    if moved is NULL:
        writer.failed = True
        return False
    writer.data = moved
    writer.capacity = wanted
    return True


cdef inline void put_byte(ByteWriter* writer, uint8_t byte) noexcept nogil:
    if writer_reserve(writer, 1):
        writer.data[writer.size] = byte
        writer.size += 1


cdef inline void put_bytes(ByteWriter* writer, const void* data, size_t size) noexcept nogil:
    if size and writer_reserve(writer, size):
        memcpy(writer.data + writer.size, data, size)
        writer.size += size


cdef inline void put_text(ByteWriter* writer, const char* text) noexcept nogil:
    """A terminated string, without its end."""
    put_bytes(writer, text, strlen(text))


cdef inline void put_decimal(ByteWriter* writer, int64_t number) noexcept nogil:
    """An integer as people read it."""
    cdef char digits[24]
    snprintf(digits, sizeof(digits), "%lld", <long long>number)
    put_text(writer, digits)


cdef inline void put_varint(ByteWriter* writer, uint64_t value) noexcept nogil:
    """A protobuf varint."""
    if not writer_reserve(writer, 10):
        return
    while value >= 0x80:
        writer.data[writer.size] = <uint8_t>(value | 0x80)
        writer.size += 1
        value >>= 7
    writer.data[writer.size] = <uint8_t>value
    writer.size += 1


cdef inline size_t varint_size(uint64_t value) noexcept nogil:
    cdef size_t size = 1
    while value >= 0x80:
        value >>= 7
        size += 1
    return size
