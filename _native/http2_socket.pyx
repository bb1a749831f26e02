"""Reads and writes the sockets of HTTP/2 connections, in the clear or through TLS.

First and last stage of a request's line: socket → http2_socket → nghttp2 → gRPC, and back. On the thread of the
server's loop.

A TLS record is read when the socket has it, one at a time: nothing that could be read is ever left inside OpenSSL, so
that the socket's readiness tells all there is to know. The handshake happens inside the first reads and writes.

Source: recv(2), send(2); SSL_read(3), SSL_write(3), SSL_get_error(3).
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.limits cimport INT_MAX
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t
from posix.unistd cimport close

from tensorgate._native.http2_state cimport Http2Connection
from tensorgate._native.openssl_api cimport SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE, openssl
from tensorgate._native.posix cimport EPOLLIN, EPOLLOUT, MSG_NOSIGNAL, iovec, readv, recv, send

cdef enum:
    # The content of one TLS record is at most this.
    MAX_RECORD_SIZE = 16384


cdef bint socket_open(Http2Connection* connection) noexcept nogil:
    if connection.server.tls is NULL:
        return True
    connection.ssl = openssl.ssl_new(connection.server.tls)
    if connection.ssl is NULL:
        openssl.err_clear()
        return False
    openssl.set_accept_state(connection.ssl)
    if openssl.set_fd(connection.ssl, connection.watch.fd) != 1:
        openssl.ssl_free(connection.ssl)
        connection.ssl = NULL
        return False
    return True


cdef void socket_close(Http2Connection* connection) noexcept nogil:
    if connection.ssl is not NULL:
        if connection.is_tls_up and not connection.is_tls_broken:
            openssl.shutdown(connection.ssl)
        openssl.err_clear()
        openssl.ssl_free(connection.ssl)
        connection.ssl = NULL
    close(connection.watch.fd)


cdef Py_ssize_t socket_read(
    Http2Connection* connection, uint8_t* buffer, size_t size, bint* is_drained
) noexcept nogil:
    cdef Py_ssize_t count
    if connection.ssl is not NULL:
        return _read_record(connection, buffer, size, is_drained)
    while True:
        count = recv(connection.watch.fd, buffer, size, 0)
        if count > 0:
            is_drained[0] = <size_t>count < size
            return count
        if count == 0:
            return SOCKET_CLOSED
        if errno == EAGAIN:
            return SOCKET_AGAIN
        if errno != EINTR:
            return SOCKET_CLOSED


cdef Py_ssize_t socket_read_parts(
    Http2Connection* connection, const iovec* parts, int num_parts, size_t size, bint* is_drained
) noexcept nogil:
    cdef Py_ssize_t count
    while True:
        count = readv(connection.watch.fd, parts, num_parts)
        if count > 0:
            is_drained[0] = <size_t>count < size
            return count
        if count == 0:
            return SOCKET_CLOSED
        if errno == EAGAIN:
            return SOCKET_AGAIN
        if errno != EINTR:
            return SOCKET_CLOSED


cdef Py_ssize_t _read_record(
    Http2Connection* connection, uint8_t* buffer, size_t size, bint* is_drained
) noexcept nogil:
    cdef int count
    openssl.err_clear()
    count = openssl.read(connection.ssl, buffer, INT_MAX if size > INT_MAX else <int>size)
    connection.tls_reads_by_writing = False
    if count > 0:
        _note_handshake(connection)
        # More may be there behind a record that is full; behind another, the socket will tell.
        is_drained[0] = count < MAX_RECORD_SIZE
        return count
    return _judge(connection, count, &connection.tls_reads_by_writing, SSL_ERROR_WANT_READ)


cdef Py_ssize_t _judge(Http2Connection* connection, int result, bint* needs_other, int own) noexcept nogil:
    """What a read or write that did nothing comes to; `own` is the readiness that it waits for by its nature."""
    cdef int error = openssl.get_error(connection.ssl, result)
    _note_handshake(connection)
    if error == SSL_ERROR_WANT_READ or error == SSL_ERROR_WANT_WRITE:
        needs_other[0] = error != own
        return SOCKET_AGAIN
    if not connection.is_tls_up:
        connection.server.counters.tls_failures += 1
    # Nothing more may be said on it, not even good-bye.
    connection.is_tls_broken = True
    openssl.err_clear()
    return SOCKET_CLOSED


cdef inline void _note_handshake(Http2Connection* connection) noexcept nogil:
    if not connection.is_tls_up:
        connection.is_tls_up = openssl.is_init_finished(connection.ssl) == 1


cdef Py_ssize_t socket_write(Http2Connection* connection, const uint8_t* data, size_t size) noexcept nogil:
    cdef Py_ssize_t count
    if connection.ssl is not NULL:
        return _write_records(connection, data, size)
    while True:
        count = send(connection.watch.fd, data, size, MSG_NOSIGNAL)
        if count >= 0:
            return count
        if errno == EAGAIN:
            return 0
        if errno != EINTR:
            return SOCKET_CLOSED


cdef Py_ssize_t _write_records(Http2Connection* connection, const uint8_t* data, size_t size) noexcept nogil:
    cdef size_t written = 0
    cdef int count
    connection.tls_writes_by_reading = False
    while written < size:
        openssl.err_clear()
        count = openssl.write(
            connection.ssl, data + written, INT_MAX if size - written > INT_MAX else <int>(size - written))
        if count <= 0:
            if _judge(connection, count, &connection.tls_writes_by_reading, SSL_ERROR_WANT_WRITE) == SOCKET_CLOSED:
                return SOCKET_CLOSED
            break
        _note_handshake(connection)
        written += <size_t>count
    return <Py_ssize_t>written


cdef uint32_t socket_events(const Http2Connection* connection, uint32_t events) noexcept nogil:
    if connection.tls_writes_by_reading and events & EPOLLOUT:
        events = (events & ~<uint32_t>EPOLLOUT) | EPOLLIN
    if connection.tls_reads_by_writing and events & EPOLLIN:
        events |= EPOLLOUT
    return events
