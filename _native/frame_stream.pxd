"""Frames between two processes of one host over a connected unix socket: the other way beside ZeroMQ, same frames.

A message is a header and a payload. One thread of the event loop's at a time, as with a ZeroMQ socket; the struct must
stay where it is while it is open.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from tensorgate._native.event_loop cimport EventLoop, Watch
from tensorgate._native.zmq_api cimport zmq_msg_t

cdef enum:
    STREAM_PREFIX_BYTES = 16      # sizes of header and payload, 8 bytes each in the host's order
    MAX_STREAM_HEADER_BYTES = 1048576

ctypedef enum StreamResult:
    STREAM_EMPTY       # no whole message now
    STREAM_MESSAGE
    STREAM_BROKEN      # the peer has gone, or does not speak this; nothing more will come


cdef struct OutFrame:
    OutFrame* next
    size_t head_size   # prefix and header, which follow the struct in memory
    zmq_msg_t payload


cdef struct FrameStream:
    EventLoop* loop
    Watch watch
    bint may_have      # stream_receive has not said that there is nothing since the descriptor was ready
    bint is_broken
    bint is_blocked    # the socket takes no more: the loop tells when it does
    uint8_t* buffer    # what has come and is not taken
    size_t begin
    size_t end
    bint has_prefix    # a payload too large for the buffer is coming straight into its message
    size_t header_size
    zmq_msg_t payload
    size_t payload_size
    size_t payload_got
    OutFrame* first_out
    OutFrame* last_out
    size_t num_out
    size_t out_offset  # of the first one, what has gone


# Takes a connected, non-blocking socket over. False: out of memory or descriptors; the socket is closed.
cdef bint stream_open(FrameStream* stream, EventLoop* loop, int fd) noexcept nogil
# Drops what has not gone. Idempotent on a zeroed or closed one.
cdef void stream_close(FrameStream* stream) noexcept nogil
# Queues a message; stream_flush sends it. On True the payload is the stream's, and empty here. False: broken, or out of
# memory.
cdef bint stream_send(
    FrameStream* stream, const uint8_t* header, size_t header_size, zmq_msg_t* payload) noexcept nogil
# Sends what is queued, as far as the socket takes it; the rest goes by itself once it does.
cdef void stream_flush(FrameStream* stream) noexcept nogil
# Takes the next message in: *header is valid until the next call, payload, an empty message before, is the caller's.
cdef StreamResult stream_receive(
    FrameStream* stream, const uint8_t** header, size_t* header_size, zmq_msg_t* payload) noexcept nogil
# A listening socket at the path, or -1; and one connected to it, or -1. Both non-blocking, see errno.
cdef int listen_on_path(const char* path) noexcept nogil
cdef int connect_to_path(const char* path) noexcept nogil
