"""Reads of HTTP/2 sockets: into one buffer of the thread's, or, of large messages, where they are to be.

First stage of a request's line: socket → http2_input → nghttp2 → gRPC. nghttp2 passes DATA on from where it was read,
so a message's bytes that are read into the message's own memory are copied by nobody but the kernel. For that it has to
be known where a frame ends before it is read: while large messages come, a read ends with the header of a frame.

Source: RFC 9113, section 4.1; readv(2); nghttp2's API documentation (nghttp2_session_mem_recv).
"""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.string cimport memcpy

from tensorgate._native.http2_socket cimport SOCKET_CLOSED, socket_read, socket_read_parts
from tensorgate._native.http2_state cimport FrameCursor, Http2Connection, Http2Server, Http2Stream, doom
from tensorgate._native.nghttp2_api cimport NGHTTP2_DATA, nghttp2
from tensorgate._native.posix cimport iovec

cdef enum:
    # A client with much to say takes turns with the others.
    MAX_READ_PER_TURN = 4 * READ_SIZE
    HEADER_SIZE = 9
    FLAG_PADDED = 8
    # Frames between two parts of large messages before reads are as large as can be again.
    MAX_EXACT_READS = 32


# --- framing ----------------------------------------------------------------------------------------------------------


cdef void _follow(FrameCursor* cursor, const uint8_t* data, size_t size) noexcept nogil:
    """What is no HTTP/2 takes it anywhere; nghttp2 then ends the connection."""
    cdef size_t step
    while size:
        if cursor.preface_left:
            step = min(size, cursor.preface_left)
            cursor.preface_left -= step
        elif cursor.header_size < HEADER_SIZE:
            step = min(size, HEADER_SIZE - cursor.header_size)
            memcpy(cursor.header + cursor.header_size, data, step)
            cursor.header_size += step
            if cursor.header_size == HEADER_SIZE:
                cursor.left = <size_t>cursor.header[0] << 16 | <size_t>cursor.header[1] << 8 | cursor.header[2]
        else:
            step = min(size, cursor.left)
            cursor.left -= step
        if cursor.header_size == HEADER_SIZE and cursor.left == 0:
            cursor.header_size = 0
        data += step
        size -= step


cdef inline bint _is_in_data(const FrameCursor* cursor) noexcept nogil:
    return (
        cursor.header_size == HEADER_SIZE
        and cursor.header[3] == NGHTTP2_DATA
        and not cursor.header[4] & FLAG_PADDED
    )


cdef inline int32_t _stream_id(const FrameCursor* cursor) noexcept nogil:
    return <int32_t>(
        (<uint32_t>cursor.header[5] & 0x7F) << 24 | <uint32_t>cursor.header[6] << 16
        | <uint32_t>cursor.header[7] << 8 | cursor.header[8]
    )


# --- reading ----------------------------------------------------------------------------------------------------------


cdef bint _feed(Http2Connection* connection, const uint8_t* data, size_t size) noexcept nogil:
    """False: this was no HTTP/2, or is beyond repair; what nghttp2 has to say about it is still written."""
    if nghttp2.mem_recv(connection.session, data, size) != <Py_ssize_t>size:
        connection.server.counters.protocol_errors += 1
        connection.is_ending = True
        return False
    _follow(&connection.cursor, data, size)
    return True


cdef size_t _place_of_data(Http2Connection* connection, uint8_t** place) noexcept nogil:
    """Where the rest of the frame that is coming may be read to, and how much of it; 0: nowhere."""
    cdef Http2Stream* stream
    if connection.ssl is not NULL or not _is_in_data(&connection.cursor):
        return 0
    stream = <Http2Stream*>nghttp2.get_stream_user_data(connection.session, _stream_id(&connection.cursor))
    if stream is NULL:
        return 0
    return min(connection.server.handler.place_for(stream, place), connection.cursor.left)


cdef Py_ssize_t _read_in_place(
    Http2Connection* connection, uint8_t* place, size_t size, bint* is_drained
) noexcept nogil:
    """Also the next frame's header, if this one ends there."""
    cdef uint8_t[HEADER_SIZE] header
    cdef iovec[2] parts
    cdef int num_parts = 1
    cdef size_t wanted = size
    cdef Py_ssize_t count
    parts[0].iov_base = place
    parts[0].iov_len = size
    if size == connection.cursor.left:
        parts[1].iov_base = header
        parts[1].iov_len = HEADER_SIZE
        num_parts = 2
        wanted += HEADER_SIZE
    connection.num_exact_reads = MAX_EXACT_READS
    count = socket_read_parts(connection, parts, num_parts, wanted, is_drained)
    if count <= 0:
        return count
    if _feed(connection, place, min(<size_t>count, size)) and <size_t>count > size:
        _feed(connection, header, <size_t>count - size)
    return count


cdef Py_ssize_t _read(Http2Connection* connection, bint* is_drained) noexcept nogil:
    cdef FrameCursor* cursor = &connection.cursor
    cdef uint8_t* received = connection.server.received
    cdef size_t size = READ_SIZE
    cdef Py_ssize_t count
    if connection.num_exact_reads and connection.ssl is NULL and cursor.preface_left == 0:
        connection.num_exact_reads -= 1
        size = HEADER_SIZE - cursor.header_size
        if size == 0:
            size = min(cursor.left + HEADER_SIZE, <size_t>READ_SIZE)
    count = socket_read(connection, received, size, is_drained)
    if count > 0:
        _feed(connection, received, <size_t>count)
    return count


cdef void receive_bytes(Http2Connection* connection) noexcept nogil:
    cdef Http2Server* server = connection.server
    cdef uint8_t* place
    cdef Py_ssize_t count
    cdef size_t room, total = 0
    cdef bint is_drained = False
    while total < MAX_READ_PER_TURN and not is_drained:
        if connection.is_doomed or connection.is_ending:
            return
        room = _place_of_data(connection, &place)
        if room:
            count = _read_in_place(connection, place, room, &is_drained)
        else:
            count = _read(connection, &is_drained)
        if count < 0:
            if count == SOCKET_CLOSED:
                doom(connection)
            return
        connection.received_us = server.loop.now_us
        total += <size_t>count
