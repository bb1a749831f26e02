"""Reads a connection's socket into nghttp2; for the thread of the server's loop."""

from tensorgate._native.http2_state cimport Http2Connection

cdef enum:
    READ_SIZE = 256 * 1024
    # What every connection begins with.
    PREFACE_SIZE = 24

# Reads what has come, or a turn's share of it; dooms a connection that has ended or is broken.
cdef void receive_bytes(Http2Connection* connection) noexcept nogil
