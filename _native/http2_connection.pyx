"""HTTP/2 on sockets: what nghttp2 reads of frames goes to the handler; the life of connections and of their server.

First stage of a request's line: socket → HTTP/2 → gRPC → dispatcher. Everything happens on the server's loop. What ends
a connection is noted and done at the turn's end, since nghttp2's callbacks must not delete their session.

Source: RFC 9113; nghttp2's API documentation.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset
from posix.unistd cimport close

from tensorgate._native.event_loop cimport (
    EventLoop,
    Hook,
    Watch,
    loop_add_hook,
    loop_remove_hook,
    loop_unwatch,
    loop_watch,
    timer_cancel,
    timer_init,
)
from tensorgate._native.http2_ages cimport begin_drain, on_age_due, schedule_ages
from tensorgate._native.http2_input cimport PREFACE_SIZE, READ_SIZE, receive_bytes
from tensorgate._native.http2_offences cimport (
    RESET_BURST,
    RESETS_PER_S,
    count_reset,
    judge_own_reset,
    judge_stream_id,
)
from tensorgate._native.http2_output cimport flush_connection, write_all
from tensorgate._native.http2_socket cimport socket_close, socket_open
from tensorgate._native.http2_state cimport (
    DRAIN_NONE,
    GATHER_SIZE,
    Http2Connection,
    Http2Handler,
    Http2Limits,
    Http2Server,
    Http2Stream,
    mark_to_flush,
)
from tensorgate._native.nghttp2_api cimport (
    NGHTTP2_DATA,
    NGHTTP2_FLAG_ACK,
    NGHTTP2_FLAG_END_STREAM,
    NGHTTP2_FLAG_NONE,
    NGHTTP2_HEADERS,
    NGHTTP2_NO_ERROR,
    NGHTTP2_PING,
    NGHTTP2_REFUSED_STREAM,
    NGHTTP2_RST_STREAM,
    NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE,
    NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS,
    NGHTTP2_SETTINGS_MAX_FRAME_SIZE,
    NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE,
    nghttp2,
    nghttp2_frame,
    nghttp2_rst_stream,
    nghttp2_session,
    nghttp2_settings_entry,
)
from tensorgate._native.posix cimport EPOLLERR, EPOLLHUP, EPOLLIN, atomic_add


cdef enum:
    MAX_FRAME_SIZE = 1024 * 1024


# --- the turn's end ---------------------------------------------------------------------------------------------------


cdef void _flush_all(Hook* hook) noexcept nogil:
    cdef Http2Server* server = <Http2Server*>hook.owner
    cdef Http2Connection* connection
    while server.to_flush is not NULL:
        connection = server.to_flush
        server.to_flush = connection.next_to_flush
        connection.is_marked = False
        if not connection.is_doomed:
            flush_connection(connection)
        if connection.is_doomed and not connection.is_marked:
            _destroy(connection)


# --- from the socket --------------------------------------------------------------------------------------------------


cdef void _on_ready(Watch* watch, uint32_t events) noexcept nogil:
    cdef Http2Connection* connection = <Http2Connection*>watch.owner
    if events & (EPOLLIN | EPOLLHUP | EPOLLERR) or connection.tls_reads_by_writing:
        receive_bytes(connection)
    mark_to_flush(connection)


cdef inline Http2Stream* _stream_of(nghttp2_session* session, int32_t stream_id) noexcept nogil:
    return <Http2Stream*>nghttp2.get_stream_user_data(session, stream_id)


cdef int _on_begin_frame(nghttp2_session* session, const nghttp2_frame* header, void* user) noexcept nogil:
    if header.type == NGHTTP2_HEADERS:
        judge_stream_id(<Http2Connection*>user, header.stream_id)
    return 0


cdef int _on_begin_headers(nghttp2_session* session, const nghttp2_frame* frame, void* user) noexcept nogil:
    cdef Http2Connection* connection = <Http2Connection*>user
    cdef Http2Server* server = connection.server
    cdef Http2Stream* stream
    if frame.type != NGHTTP2_HEADERS or _stream_of(session, frame.stream_id) is not NULL:
        return 0  # trailers of a client, which gRPC does not know
    stream = server.handler.on_request(&server.handler, connection)
    if stream is NULL:
        nghttp2.submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame.stream_id, NGHTTP2_REFUSED_STREAM)
        return 0
    stream.connection = connection
    stream.stream_id = frame.stream_id
    stream.previous = NULL
    stream.next = connection.streams
    if stream.next is not NULL:
        stream.next.previous = stream
    connection.streams = stream
    connection.num_streams += 1
    atomic_add(&server.num_streams, 1)
    server.counters.streams += 1
    nghttp2.set_stream_user_data(session, frame.stream_id, stream)
    return 0


cdef int _on_header(
    nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name, size_t name_size, const uint8_t* value,
    size_t value_size, uint8_t flags, void* user,
) noexcept nogil:
    cdef Http2Stream* stream = _stream_of(session, frame.stream_id)
    if stream is not NULL:
        (<Http2Connection*>user).server.handler.on_header(stream, name, name_size, value, value_size)
    return 0


cdef int _on_frame_received(nghttp2_session* session, const nghttp2_frame* frame, void* user) noexcept nogil:
    cdef Http2Connection* connection = <Http2Connection*>user
    cdef Http2Handler* handler = &connection.server.handler
    cdef Http2Stream* stream
    connection.has_preface = True
    if frame.type == NGHTTP2_PING and frame.flags & NGHTTP2_FLAG_ACK:
        connection.ping_us = -1
        return 0
    if frame.type == NGHTTP2_RST_STREAM:
        count_reset(connection)
        return 0
    if frame.type != NGHTTP2_HEADERS and frame.type != NGHTTP2_DATA:
        return 0
    stream = _stream_of(session, frame.stream_id)
    if stream is NULL:
        return 0
    if frame.type == NGHTTP2_HEADERS:
        handler.on_headers_end(stream)
    if frame.flags & NGHTTP2_FLAG_END_STREAM:
        handler.on_end(stream)
    return 0


cdef int _on_data_chunk(
    nghttp2_session* session, uint8_t flags, int32_t stream_id, const uint8_t* data, size_t size, void* user,
) noexcept nogil:
    cdef Http2Connection* connection = <Http2Connection*>user
    cdef Http2Stream* stream = _stream_of(session, stream_id)
    if stream is NULL or connection.server.handler.on_data(stream, data, size):
        nghttp2.consume(session, stream_id, size)
    else:
        nghttp2.consume_connection(session, size)
    return 0


cdef int _on_frame_sent(nghttp2_session* session, const nghttp2_frame* frame, void* user) noexcept nogil:
    if frame.type == NGHTTP2_RST_STREAM:
        judge_own_reset(<Http2Connection*>user, (<const nghttp2_rst_stream*>frame).error_code)
        return 0
    # The answer is complete. A client that is still sending is told that nobody listens any more.
    if (
        frame.flags & NGHTTP2_FLAG_END_STREAM
        and (frame.type == NGHTTP2_HEADERS or frame.type == NGHTTP2_DATA)
        and nghttp2.stream_remote_close(session, frame.stream_id) == 0
    ):
        nghttp2.submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame.stream_id, NGHTTP2_NO_ERROR)
    return 0


cdef int _on_stream_close(nghttp2_session* session, int32_t stream_id, uint32_t error_code, void* user) noexcept nogil:
    cdef Http2Stream* stream = _stream_of(session, stream_id)
    if stream is not NULL:
        nghttp2.set_stream_user_data(session, stream_id, NULL)
        _end_stream(stream)
    return 0


cdef void _end_stream(Http2Stream* stream) noexcept nogil:
    cdef Http2Connection* connection = stream.connection
    if stream.previous is NULL:
        connection.streams = stream.next
    else:
        stream.previous.next = stream.next
    if stream.next is not NULL:
        stream.next.previous = stream.previous
    connection.num_streams -= 1
    atomic_add(&connection.server.num_streams, -1)
    if connection.num_streams == 0:
        connection.idle_since_us = connection.server.loop.now_us
    connection.server.handler.on_close(stream)


# --- a connection's life ----------------------------------------------------------------------------------------------


cdef void http2_server_adopt(Http2Server* server, int fd) noexcept nogil:
    cdef Http2Connection* connection = <Http2Connection*>calloc(1, sizeof(Http2Connection))
    cdef int64_t now_us = server.loop.now_us
    cdef int64_t age_us
    if connection is NULL:
        close(fd)
        return
    connection.server = server
    connection.watch.fd = fd
    connection.watch.on_ready = _on_ready
    connection.watch.owner = connection
    connection.watched = EPOLLIN
    connection.opened_us = connection.received_us = connection.idle_since_us = connection.reset_tokens_us = now_us
    connection.ping_us = connection.kill_us = connection.age_us = -1
    connection.reset_tokens = RESET_BURST
    connection.last_stream_id = -1
    connection.cursor.preface_left = PREFACE_SIZE
    timer_init(&connection.timer, on_age_due, connection)
    age_us = server.limits.max_connection_age_us
    if age_us >= 0:
        # A tenth to and fro, so that connections that came together do not all go together; gRPC does so too.
        connection.age_us = now_us + age_us - age_us // 10 + (now_us * 7919) % (age_us // 5 + 1)
    if not socket_open(connection):
        close(fd)
        free(connection)
        return
    if nghttp2.server_new(&connection.session, server.callbacks, connection, server.option) != 0:
        socket_close(connection)
        free(connection)
        return
    if not _greet(connection) or not loop_watch(server.loop, &connection.watch, EPOLLIN):
        nghttp2.session_del(connection.session)
        socket_close(connection)
        free(connection)
        return
    connection.next = server.connections
    if connection.next is not NULL:
        connection.next.previous = connection
    server.connections = connection
    atomic_add(&server.num_connections, 1)
    server.counters.accepted += 1
    if server.drain_stage != DRAIN_NONE:
        begin_drain(connection)
    schedule_ages(connection)
    mark_to_flush(connection)


cdef bint _greet(Http2Connection* connection) noexcept nogil:
    cdef Http2Limits* limits = &connection.server.limits
    cdef nghttp2_settings_entry[4] settings
    settings[0].settings_id = NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS
    settings[0].value = limits.max_concurrent_streams
    settings[1].settings_id = NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE
    settings[1].value = <uint32_t>limits.stream_window
    settings[2].settings_id = NGHTTP2_SETTINGS_MAX_FRAME_SIZE
    settings[2].value = MAX_FRAME_SIZE
    settings[3].settings_id = NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE
    settings[3].value = limits.max_header_list_size
    return (
        nghttp2.submit_settings(connection.session, NGHTTP2_FLAG_NONE, settings, 4) == 0
        and nghttp2.set_local_window_size(
            connection.session, NGHTTP2_FLAG_NONE, 0, limits.connection_window) == 0
    )


cdef void _destroy(Http2Connection* connection) noexcept nogil:
    cdef Http2Server* server = connection.server
    # nghttp2 does not report the streams of a session that is deleted.
    while connection.streams is not NULL:
        nghttp2.set_stream_user_data(connection.session, connection.streams.stream_id, NULL)
        _end_stream(connection.streams)
    timer_cancel(server.loop, &connection.timer)
    loop_unwatch(server.loop, &connection.watch)
    socket_close(connection)
    nghttp2.session_del(connection.session)
    free(connection.unsent)
    if connection.previous is NULL:
        server.connections = connection.next
    else:
        connection.previous.next = connection.next
    if connection.next is not NULL:
        connection.next.previous = connection.previous
    atomic_add(&server.num_connections, -1)
    server.counters.closed += 1
    free(connection)


# --- the server -------------------------------------------------------------------------------------------------------


cdef bint http2_server_init(Http2Server* server, EventLoop* loop, const Http2Limits* limits) noexcept nogil:
    memset(server, 0, sizeof(Http2Server))
    server.loop = loop
    server.limits = limits[0]
    server.received = <uint8_t*>malloc(READ_SIZE)
    server.gathered = <uint8_t*>malloc(GATHER_SIZE)
    if (
        server.received is NULL
        or server.gathered is NULL
        or nghttp2.callbacks_new(&server.callbacks) != 0
        or nghttp2.option_new(&server.option) != 0
    ):
        http2_server_free(server)
        return False
    nghttp2.set_on_begin_frame(server.callbacks, _on_begin_frame)
    nghttp2.set_on_begin_headers(server.callbacks, _on_begin_headers)
    nghttp2.set_on_header(server.callbacks, _on_header)
    nghttp2.set_on_frame_recv(server.callbacks, _on_frame_received)
    nghttp2.set_on_data_chunk(server.callbacks, _on_data_chunk)
    nghttp2.set_on_frame_send(server.callbacks, _on_frame_sent)
    nghttp2.set_on_stream_close(server.callbacks, _on_stream_close)
    nghttp2.option_no_auto_window_update(server.option, 1)
    nghttp2.option_no_closed_streams(server.option, 1)
    if nghttp2.option_stream_reset_rate_limit is not NULL:
        # Its default is tighter than ours, which is to answer first.
        nghttp2.option_stream_reset_rate_limit(server.option, 2 * RESET_BURST, 2 * RESETS_PER_S)
    server.flush_hook.run = _flush_all
    server.flush_hook.owner = server
    return True


cdef void http2_server_open(Http2Server* server) noexcept nogil:
    loop_add_hook(server.loop, &server.flush_hook)


cdef void http2_server_close(Http2Server* server) noexcept nogil:
    cdef Http2Connection* connection
    server.to_flush = NULL
    while server.connections is not NULL:
        connection = server.connections
        # A last word, if the socket takes it at once.
        nghttp2.terminate_session(connection.session, NGHTTP2_NO_ERROR)
        write_all(connection)
        _destroy(connection)
    server.to_flush = NULL
    loop_remove_hook(server.loop, &server.flush_hook)


cdef void http2_server_free(Http2Server* server) noexcept nogil:
    free(server.received)
    free(server.gathered)
    if server.callbacks is not NULL:
        nghttp2.callbacks_del(server.callbacks)
    if server.option is not NULL:
        nghttp2.option_del(server.option)
    server.received = server.gathered = NULL
    server.callbacks = NULL
    server.option = NULL
