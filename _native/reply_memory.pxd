"""Shared memory for large replies: a worker hands blocks of it out to itself, its gateway reads them.

Each incarnation of a worker has one, which the gateway makes for it. A block that has been told to the gateway is given
back by it through the table in the memory, so that neither side waits for the other: the gateway puts the generation
there with a minus sign once nobody needs the reply any more, and the worker looks when it wants a block.
"""

from libc.stdint cimport int64_t

from tensorgate._native.byte_writer cimport ByteWriter, WriterHome
from tensorgate._native.memory_blocks cimport Block, BlockMap
from tensorgate._native.posix cimport pthread_mutex_t
from tensorgate._native.shared_memory cimport Place, SharedMemory
from tensorgate._native.zmq_api cimport zmq_msg_t


# --- the gateway's end, any thread ------------------------------------------------------------------------------------

cdef struct ReplyArena:
    int64_t references     # atomic: whoever holds it, and one for each reply that is not given back
    SharedMemory memory
    int64_t held_bytes     # atomic; of replies that are not given back


cdef void reply_arena_hold(ReplyArena* arena) noexcept nogil
cdef void reply_arena_drop(ReplyArena* arena) noexcept nogil
# Whether the worker has mapped this memory, and that of requests.
cdef bint is_shared_with_worker(const ReplyArena* arena) noexcept nogil
# A message of the reply there, which is given back with it; arena may be NULL. False: there is none, and the message is
# not touched.
cdef bint message_of_reply(zmq_msg_t* message, ReplyArena* arena, const Place* place) noexcept nogil


# --- the worker's end -------------------------------------------------------------------------------------------------

cdef struct ReplyBlock:
    ReplyPool* pool
    ReplyBlock* next       # among those that were told to the gateway
    Block* block
    int64_t generation


cdef struct ReplyPool:
    WriterHome home        # of the writers of responses; first
    SharedMemory memory
    pthread_mutex_t mutex  # guards what follows
    BlockMap blocks
    ReplyBlock* told
    int64_t last_generation


# Where the content of a writer whose home is a pool is; it has a block.
cdef Place place_of_reply(const ByteWriter* writer) noexcept nogil
# The gateway has been told of the content, which is its to give back from here on; the writer is as after writer_init.
cdef void reply_told(ByteWriter* writer) noexcept nogil


cdef class ReplyMemory:
    cdef ReplyArena* arena
    cdef readonly int fd


cdef class SharedReplies:
    cdef ReplyPool pool
