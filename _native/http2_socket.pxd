"""A connection's socket: bytes in and out, in the clear or through TLS."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t

from tensorgate._native.http2_state cimport Http2Connection
from tensorgate._native.posix cimport iovec

cdef enum:
    # Instead of a number of bytes.
    SOCKET_AGAIN = -1   # none now; the socket is ready when there are, or room
    SOCKET_CLOSED = -2  # or broken

# Prepares the connection's descriptor, with TLS where its server has a context. False: out of memory; the descriptor
# is still the caller's then.
cdef bint socket_open(Http2Connection* connection) noexcept nogil
# Closes the descriptor. A client that speaks TLS is told, if the socket takes that at once.
cdef void socket_close(Http2Connection* connection) noexcept nogil

# The number of bytes read, more than 0, or SOCKET_AGAIN, SOCKET_CLOSED. Sets `is_drained` where there are no more now.
cdef Py_ssize_t socket_read(
    Http2Connection* connection, uint8_t* buffer, size_t size, bint* is_drained) noexcept nogil
# The same into several parts, one after the other; only of a connection in the clear.
cdef Py_ssize_t socket_read_parts(
    Http2Connection* connection, const iovec* parts, int num_parts, size_t size, bint* is_drained) noexcept nogil
# The number of bytes that the socket took, 0 when it takes none now, SOCKET_CLOSED. After a 0 the same bytes come
# first next time.
cdef Py_ssize_t socket_write(Http2Connection* connection, const uint8_t* data, size_t size) noexcept nogil

# What to watch for: `events` are those of a connection without TLS, which may need others for the same end.
cdef uint32_t socket_events(const Http2Connection* connection, uint32_t events) noexcept nogil
