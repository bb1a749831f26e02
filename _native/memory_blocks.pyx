"""Hands out the parts of a piece of shared memory, and takes them back.

Under both sides of a large message's line: the gateway's requests (request_memory) and a worker's replies
(reply_memory) each have a map of their memory, in memory of their own: what the other side can write decides nothing
here. Lowest first, so that few pages are touched; there are as many blocks as messages under way, so they are searched
one by one.

Source: first fit with immediate coalescing, Knuth's The Art of Computer Programming, section 2.5.
"""

from libc.stddef cimport size_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset


cdef bint blocks_init(BlockMap* blocks, size_t begin, size_t end) noexcept nogil:
    memset(blocks, 0, sizeof(BlockMap))
    blocks.first = <Block*>calloc(1, sizeof(Block))
    if blocks.first is NULL:
        return False
    blocks.first.offset = begin
    blocks.first.size = end - begin
    blocks.first.is_free = True
    return True


cdef void blocks_free(BlockMap* blocks) noexcept nogil:
    cdef Block* block = blocks.first
    cdef Block* following
    blocks.first = NULL
    while block is not NULL:
        following = block.next
        free(block)
        block = following


cdef Block* blocks_take(BlockMap* blocks, size_t size) noexcept nogil:
    cdef Block* block = blocks.first
    cdef Block* rest
    if size == 0 or size > <size_t>-1 - BLOCK_UNIT:
        return NULL
    size = (size + BLOCK_UNIT - 1) // BLOCK_UNIT * BLOCK_UNIT
    while block is not NULL and not (block.is_free and block.size >= size):
        block = block.next
    if block is NULL:
        return NULL
    if block.size > size:
        rest = <Block*>calloc(1, sizeof(Block))
        if rest is NULL:
            return NULL
        rest.offset = block.offset + size
        rest.size = block.size - size
        rest.is_free = True
        rest.previous = block
        rest.next = block.next
        if rest.next is not NULL:
            rest.next.previous = rest
        block.next = rest
        block.size = size
    block.is_free = False
    blocks.used += size
    if blocks.reached < block.offset + size:
        blocks.reached = block.offset + size
    return block


cdef void _join_next(Block* block) noexcept nogil:
    cdef Block* joined = block.next
    block.size += joined.size
    block.next = joined.next
    if block.next is not NULL:
        block.next.previous = block
    free(joined)


cdef void blocks_give_back(BlockMap* blocks, Block* block) noexcept nogil:
    blocks.used -= block.size
    block.is_free = True
    if block.next is not NULL and block.next.is_free:
        _join_next(block)
    if block.previous is not NULL and block.previous.is_free:
        _join_next(block.previous)


# --- for tests --------------------------------------------------------------------------------------------------------


cdef class Blocks:
    cdef BlockMap _map
    cdef dict _taken

    def __cinit__(self, size_t begin, size_t end):
        self._taken = {}
        if not begin < end or begin % BLOCK_UNIT or end % BLOCK_UNIT:
            raise ValueError("begin and end must be multiples of the unit, with memory between them")
        if not blocks_init(&self._map, begin, end):
            raise MemoryError

    def __dealloc__(self):
        blocks_free(&self._map)

    def take(self, size_t size):
        cdef Block* block = blocks_take(&self._map, size)
        if block is NULL:
            return None
        self._taken[block.offset] = <size_t>block
        return block.offset

    def give_back(self, size_t offset):
        blocks_give_back(&self._map, <Block*><size_t>self._taken.pop(offset))

    def cover(self):
        cdef Block* block = self._map.first
        found = []
        while block is not NULL:
            found.append((block.offset, block.size, bool(block.is_free)))
            block = block.next
        return found

    @property
    def used(self):
        return self._map.used

    @property
    def reached(self):
        return self._map.reached


UNIT = BLOCK_UNIT
