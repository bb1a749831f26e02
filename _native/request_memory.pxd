"""Shared memory for large requests: the gateway hands blocks of it out, workers of its host read them.

Any thread of the gateway's, unless it says otherwise. A block belongs to one request from its first bytes until nobody
can read it any more: the worker has replied, or died, or never got it.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t

from tensorgate._native.memory_blocks cimport Block, BlockMap
from tensorgate._native.posix cimport pthread_mutex_t
from tensorgate._native.shared_memory cimport Place, SharedMemory
from tensorgate._native.zmq_api cimport zmq_msg_t


cdef struct RequestArena:
    int64_t references         # atomic: its owner's, and one for each block that is taken
    SharedMemory memory
    size_t threshold           # smaller requests are not worth a block
    pthread_mutex_t mutex      # guards what follows
    BlockMap blocks
    int64_t last_generation


cdef struct RequestBlock:
    RequestArena* arena
    Block* block
    uint8_t* data
    size_t size                # as it was asked for
    int64_t generation


# A block for a request of so many bytes. NULL: the request is below the threshold, or there is no room; arena may be
# NULL, which has none. Its content is undefined.
cdef RequestBlock* request_block_take(RequestArena* arena, size_t size) noexcept nogil
cdef void request_block_give_back(RequestBlock* block) noexcept nogil
# A message whose content is the block, which is given back with it; False leaves it the caller's.
cdef bint message_of_block(zmq_msg_t* message, RequestBlock* block) noexcept nogil
cdef inline Place place_of_block(const RequestBlock* block) noexcept nogil:
    cdef Place place
    place.offset = block.block.offset
    place.size = block.size
    place.generation = <uint64_t>block.generation
    return place


cdef class RequestMemory:
    cdef RequestArena* arena
    cdef readonly int fd


cdef class SharedRequests:
    # A worker's.
    cdef SharedMemory memory
