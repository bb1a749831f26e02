"""Writes to HTTP/2 sockets: what nghttp2 has to say is gathered and sent once a turn for each connection.

Last stage of an answer's line in the gateway: gRPC → HTTP/2 → socket. Reading stops for a client that does not take its
replies.

Source: RFC 9113; nghttp2's API documentation (nghttp2_session_mem_send).
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from tensorgate._native.event_loop cimport loop_rewatch
from tensorgate._native.http2_socket cimport socket_events, socket_write
from tensorgate._native.http2_state cimport GATHER_SIZE, Http2Connection, Http2Server, doom
from tensorgate._native.nghttp2_api cimport nghttp2
from tensorgate._native.posix cimport EPOLLIN, EPOLLOUT

cdef enum:
    # A frame of this size or more is written from where nghttp2 has it.
    DIRECT_SIZE = 8 * 1024
    MAX_WRITTEN_PER_TURN = 2 * 1024 * 1024
    # Frames that a client may have waiting for it, but for DATA, before it is not read from: resets and headers of
    # answers are not in held_bytes, and it can ask for them faster than it takes them.
    MAX_QUEUED_FRAMES = 10000


cdef void _watch_for(Http2Connection* connection, bint is_blocked) noexcept nogil:
    cdef uint32_t events = EPOLLOUT if is_blocked else 0
    if not is_blocked or (
        connection.held_bytes <= connection.server.limits.max_unsent_bytes
        and nghttp2.outbound_queue_size(connection.session) <= MAX_QUEUED_FRAMES
    ):
        events |= EPOLLIN
    events = socket_events(connection, events)
    if events != connection.watched:
        connection.watched = events
        if not loop_rewatch(connection.server.loop, &connection.watch, events):
            doom(connection)


cdef bint _write_or_keep(Http2Connection* connection, const uint8_t* data, size_t size) noexcept nogil:
    """False: the socket took not all of it (the rest is kept) or is broken (the connection is doomed)."""
    cdef Py_ssize_t count = socket_write(connection, data, size)
    if count == <Py_ssize_t>size:
        return True
    if count < 0:
        doom(connection)
        return False
    connection.unsent_size = size - <size_t>count
    connection.unsent_offset = 0
    connection.unsent = <uint8_t*>malloc(connection.unsent_size)
    if connection.unsent is NULL:
        connection.unsent_size = 0
        doom(connection)
        return False
    memcpy(connection.unsent, data + count, connection.unsent_size)
    return False


cdef bint _write_unsent(Http2Connection* connection) noexcept nogil:
    cdef Py_ssize_t count
    if connection.unsent is NULL:
        return True
    count = socket_write(
        connection, connection.unsent + connection.unsent_offset, connection.unsent_size - connection.unsent_offset)
    if count < 0:
        doom(connection)
        return False
    connection.unsent_offset += <size_t>count
    if connection.unsent_offset < connection.unsent_size:
        return False
    free(connection.unsent)
    connection.unsent = NULL
    connection.unsent_size = 0
    return True


cdef bint write_all(Http2Connection* connection) noexcept nogil:
    cdef Http2Server* server = connection.server
    cdef const uint8_t* data
    cdef Py_ssize_t count
    cdef size_t gathered = 0, written = 0
    if not _write_unsent(connection):
        return False
    while written < MAX_WRITTEN_PER_TURN:
        count = nghttp2.mem_send(connection.session, &data)
        if count < 0:
            doom(connection)
            return False
        if count == 0:
            return gathered == 0 or _write_or_keep(connection, server.gathered, gathered)
        written += <size_t>count
        if gathered and (count >= DIRECT_SIZE or gathered + <size_t>count > GATHER_SIZE):
            if not _write_or_keep(connection, server.gathered, gathered):
                # What nghttp2 has just given is not in it yet.
                return _keep_also(connection, data, <size_t>count)
            gathered = 0
        if count >= DIRECT_SIZE:
            if not _write_or_keep(connection, data, <size_t>count):
                return False
        else:
            memcpy(server.gathered + gathered, data, <size_t>count)
            gathered += <size_t>count
    if gathered:
        _write_or_keep(connection, server.gathered, gathered)
    return False


cdef bint _keep_also(Http2Connection* connection, const uint8_t* data, size_t size) noexcept nogil:
    cdef uint8_t* joined
    if connection.is_doomed:
        return False
    joined = <uint8_t*>malloc(connection.unsent_size + size)
    if joined is NULL:
        doom(connection)
        return False
    memcpy(joined, connection.unsent, connection.unsent_size)
    memcpy(joined + connection.unsent_size, data, size)
    free(connection.unsent)
    connection.unsent = joined
    connection.unsent_size += size
    return False


cdef void flush_connection(Http2Connection* connection) noexcept nogil:
    cdef bint is_done = write_all(connection)
    if connection.is_doomed:
        return
    if is_done and (
        connection.is_ending
        or (not nghttp2.want_read(connection.session) and not nghttp2.want_write(connection.session))
    ):
        doom(connection)
        return
    _watch_for(connection, not is_done)
