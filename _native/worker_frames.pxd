"""The sockets of a dispatcher's line, and the frames that go over them; for the thread of its loop."""

from libc.stdint cimport int64_t, uint64_t

from tensorgate._native.dispatcher_state cimport Line, LineOptions, Request
from tensorgate._native.frame_header cimport ReplyHeader
from tensorgate._native.zmq_api cimport zmq_msg_t


cdef enum Found:
    FOUND_NOTHING = 0
    FOUND_REPLY = 1
    FOUND_FOREIGN = 2  # a message that is no reply, or one of another epoch


# Connects: to the stream where there is one, else to the data endpoint, which does not wait for the worker. False: out
# of memory or descriptors, or no such endpoint.
cdef bint open_sockets(Line* line, const LineOptions* options) noexcept nogil
cdef inline bint has_stream(const Line* line) noexcept nogil:
    return line.data is NULL
# Also of a line that has not got all of them. What has not been sent is dropped.
cdef void close_sockets(Line* line) noexcept nogil
# Sends ``[request header][payload]``; the payload's memory goes with the frame, uncopied, or stays with the request,
# where the worker reads it from shared memory. On a stream it waits for flush_requests. False: the worker cannot be
# reached.
cdef bint send_request(Line* line, Request* request, uint64_t servable_handle, int64_t remaining_us) noexcept nogil
cdef void flush_requests(Line* line) noexcept nogil
# Sends ``[cancel header]`` on a socket of its own, so that it overtakes queued requests. Cancelling only saves work:
# where it fails the worker replies in any case, or dies.
cdef void send_cancel(Line* line, uint64_t request_id) noexcept nogil
# Takes one message ``[reply header][payload]``, or what is none, off the data socket. Whatever was found, both frames
# are the caller's to close; header points into the first.
cdef Found receive_reply(
    Line* line, zmq_msg_t* header_frame, ReplyHeader* header, zmq_msg_t* payload) noexcept nogil
