"""Which parts of a piece of memory are taken: blocks of whole pages, the lowest that fits first.

Nothing here touches the memory itself. For one thread at a time.
"""

from libc.stddef cimport size_t

cdef enum:
    # Blocks begin at multiples of it, and are as long as multiples of it.
    BLOCK_UNIT = 4096


cdef struct Block:
    Block* previous    # by address; they cover all of the memory
    Block* next
    size_t offset
    size_t size
    bint is_free       # no two neighbours are


cdef struct BlockMap:
    Block* first
    size_t used        # bytes of the blocks that are taken
    size_t reached     # where the highest block ended that was taken so far; its owner may set it back


# The bytes from begin up to end, both multiples of BLOCK_UNIT, all free. False: out of memory.
cdef bint blocks_init(BlockMap* blocks, size_t begin, size_t end) noexcept nogil
# Idempotent, also on a zeroed map; no block may be used afterwards.
cdef void blocks_free(BlockMap* blocks) noexcept nogil
# A block of at least size bytes, taken; NULL: there is none, or no memory to write it down.
cdef Block* blocks_take(BlockMap* blocks, size_t size) noexcept nogil
# The block may be gone afterwards.
cdef void blocks_give_back(BlockMap* blocks, Block* block) noexcept nogil
