"""A piece of memory that gateway and worker both have mapped, and how each is told of a block in it.

It begins with a page about itself; then comes a table with one number for every BLOCK_UNIT of the memory; then the
blocks. A block's number in the table is its generation while it may be read by the other side, and anything else when
it may not; it is in one place only, at the block's beginning. Whoever hands blocks out keeps the map of them to itself.
"""

from libc.stddef cimport size_t
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint64_t

from tensorgate._native.memory_blocks cimport BLOCK_UNIT, BlockMap
from tensorgate._native.posix cimport atomic_load

cdef enum:
    # Of one piece; smaller ones are not worth their table, larger ones no machine has.
    MIN_SHARED_BYTES = 65536
    MAX_SHARED_BYTES = 70368744177664
    # Of the memory that was in use, so much stays with the process once nothing is.
    KEPT_BYTES = 67108864


cdef struct SharedHeader:
    uint64_t magic
    uint64_t size
    int64_t is_attached   # atomic: the other side has mapped it, and all else that belongs to it
    int64_t num_full      # atomic: how often the side that hands blocks out had none


cdef struct Place:
    # What a frame says of a payload that is not in it.
    uint64_t offset
    uint64_t size
    uint64_t generation   # never reused


cdef struct SharedMemory:
    SharedHeader* header    # where it is mapped; NULL: nowhere
    size_t size             # of all of it
    size_t begin            # of the blocks
    int64_t* generations    # the table


# Makes one of so many bytes (rounded to whole units) that nobody can make smaller or larger, and maps it: a descriptor
# of it, closed on exec. Raises ValueError for a size out of range, OSError where the kernel has none.
cdef int shared_memory_new(SharedMemory* memory, size_t size) except -1
# Maps what shared_memory_new made; the descriptor may be closed afterwards. False: it is no such thing, or there is
# no address space.
cdef bint shared_memory_map(SharedMemory* memory, int fd, bint is_writable) noexcept nogil
# Idempotent, also on a zeroed one.
cdef void shared_memory_unmap(SharedMemory* memory) noexcept nogil
# Gives what is above the first KEPT_BYTES of the blocks back to the kernel, if none of them is in use and it was.
cdef void trim_if_unused(SharedMemory* memory, BlockMap* blocks) noexcept nogil


cdef inline uint8_t* address_of(const SharedMemory* memory, size_t offset) noexcept nogil:
    return <uint8_t*>memory.header + offset


cdef inline int64_t* generation_at(const SharedMemory* memory, size_t offset) noexcept nogil:
    """The block's place in the table."""
    return &memory.generations[offset // BLOCK_UNIT]


cdef inline uint8_t* find_place(const SharedMemory* memory, const Place* place) noexcept nogil:
    """Where the block is that the other side speaks of; NULL: that is no block, or not any more."""
    if memory.header is NULL or place.offset < memory.begin or place.offset % BLOCK_UNIT:
        return NULL
    if place.offset > memory.size or place.size > memory.size - place.offset:
        return NULL
    if place.size == 0 or place.generation == 0 or place.generation > <uint64_t>INT64_MAX:
        return NULL
    if atomic_load(generation_at(memory, place.offset)) != <int64_t>place.generation:
        return NULL
    return address_of(memory, place.offset)
