"""HTTP/2 connections of one native thread: sockets, nghttp2 sessions, windows, limits; nothing of gRPC.

Everything here is for the thread of the server's loop.
"""

from tensorgate._native.event_loop cimport EventLoop
from tensorgate._native.http2_state cimport Http2Limits, Http2Server

# Needs nghttp2_api.load_library. False: out of memory; nothing is to be freed then. The handler is set by the caller.
cdef bint http2_server_init(Http2Server* server, EventLoop* loop, const Http2Limits* limits) noexcept nogil
# On the loop's thread, before anything is adopted.
cdef void http2_server_open(Http2Server* server) noexcept nogil
# Closes all connections: every stream gets its on_close. On the loop's thread, which forgets the server.
cdef void http2_server_close(Http2Server* server) noexcept nogil
cdef void http2_server_free(Http2Server* server) noexcept nogil
# Takes a connected, non-blocking socket over; closes it when there is no memory for it.
cdef void http2_server_adopt(Http2Server* server, int fd) noexcept nogil
