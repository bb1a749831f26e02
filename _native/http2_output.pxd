"""Writes what nghttp2 has to say to a connection's socket; for the thread of the server's loop, at a turn's end."""

from tensorgate._native.http2_state cimport Http2Connection

# Writes what the socket takes, keeps the rest and watches for room; dooms a connection that is broken, or has ended.
cdef void flush_connection(Http2Connection* connection) noexcept nogil
# True when nghttp2 has no more to say and the socket has it all; else it goes on once the socket is ready.
cdef bint write_all(Http2Connection* connection) noexcept nogil
