"""HTTP/2 on sockets: reads into nghttp2, writes what nghttp2 has to say, once a turn for each connection.

First stage of a request's line: socket → HTTP/2 → gRPC → dispatcher. Everything happens on the server's loop. Reading
stops for a client that does not take its replies; what ends a connection is noted and done at the turn's end, since
nghttp2's callbacks must not delete their session.

Source: RFC 9113; nghttp2's API documentation; the grpc.* channel arguments for ages, idleness and keepalive.
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset
from posix.unistd cimport close

from tensorgate._native.event_loop cimport (
    EventLoop,
    Hook,
    Timer,
    Watch,
    loop_add_hook,
    loop_remove_hook,
    loop_rewatch,
    loop_unwatch,
    loop_watch,
    timer_cancel,
    timer_init,
    timer_set,
)
from tensorgate._native.nghttp2_api cimport (
    NGHTTP2_DATA,
    NGHTTP2_ENHANCE_YOUR_CALM,
    NGHTTP2_FLAG_ACK,
    NGHTTP2_FLAG_END_STREAM,
    NGHTTP2_FLAG_NONE,
    NGHTTP2_HEADERS,
    NGHTTP2_INTERNAL_ERROR,
    NGHTTP2_NO_ERROR,
    NGHTTP2_PING,
    NGHTTP2_REFUSED_STREAM,
    NGHTTP2_RST_STREAM,
    NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE,
    NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS,
    NGHTTP2_SETTINGS_MAX_FRAME_SIZE,
    NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE,
    nghttp2,
    nghttp2_data_provider,
    nghttp2_frame,
    nghttp2_nv,
    nghttp2_session,
    nghttp2_settings_entry,
)
from tensorgate._native.posix cimport (
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    MSG_NOSIGNAL,
    atomic_add,
    recv,
    send,
)


cdef enum:
    READ_SIZE = 256 * 1024
    # A client with much to say takes turns with the others.
    MAX_READS_PER_TURN = 4
    GATHER_SIZE = 128 * 1024
    # A frame of this size or more is written from where nghttp2 has it.
    DIRECT_SIZE = 8 * 1024
    MAX_WRITTEN_PER_TURN = 2 * 1024 * 1024
    MAX_FRAME_SIZE = 1024 * 1024
    # Between the two GOAWAYs: what was sent before the client saw the first has arrived by then.
    NOTICE_US = 100000
    PREFACE_TIMEOUT_US = 20000000
    # Streams that a client may reset: at once, and a second. Each costs us little, but not nothing.
    RESET_BURST = 2000
    RESETS_PER_S = 500


# --- the turn's end ---------------------------------------------------------------------------------------------------


cdef inline void _mark(Http2Connection* connection) noexcept nogil:
    if not connection.is_marked:
        connection.is_marked = True
        connection.next_to_flush = connection.server.to_flush
        connection.server.to_flush = connection


cdef inline void _doom(Http2Connection* connection) noexcept nogil:
    connection.is_doomed = True
    _mark(connection)


cdef void _watch_for(Http2Connection* connection, bint is_blocked) noexcept nogil:
    cdef uint32_t events = EPOLLOUT if is_blocked else 0
    if not is_blocked or connection.held_bytes <= connection.server.limits.max_unsent_bytes:
        events |= EPOLLIN
    if events != connection.watched:
        connection.watched = events
        if not loop_rewatch(connection.server.loop, &connection.watch, events):
            _doom(connection)


cdef Py_ssize_t _write(Http2Connection* connection, const uint8_t* data, size_t size) noexcept nogil:
    """The number of bytes that the socket took, 0 when it takes none now; -1 when it is broken."""
    cdef Py_ssize_t count
    while True:
        count = send(connection.watch.fd, data, size, MSG_NOSIGNAL)
        if count >= 0:
            return count
        if errno == EAGAIN:
            return 0
        if errno != EINTR:
            return -1


cdef bint _write_or_keep(Http2Connection* connection, const uint8_t* data, size_t size) noexcept nogil:
    """False: the socket took not all of it (the rest is kept) or is broken (the connection is doomed)."""
    cdef Py_ssize_t count = _write(connection, data, size)
    if count == <Py_ssize_t>size:
        return True
    if count < 0:
        _doom(connection)
        return False
    connection.unsent_size = size - <size_t>count
    connection.unsent_offset = 0
    connection.unsent = <uint8_t*>malloc(connection.unsent_size)
    if connection.unsent is NULL:
        connection.unsent_size = 0
        _doom(connection)
        return False
    memcpy(connection.unsent, data + count, connection.unsent_size)
    return False


cdef bint _write_unsent(Http2Connection* connection) noexcept nogil:
    cdef Py_ssize_t count
    if connection.unsent is NULL:
        return True
    count = _write(
        connection, connection.unsent + connection.unsent_offset, connection.unsent_size - connection.unsent_offset)
    if count < 0:
        _doom(connection)
        return False
    connection.unsent_offset += <size_t>count
    if connection.unsent_offset < connection.unsent_size:
        return False
    free(connection.unsent)
    connection.unsent = NULL
    connection.unsent_size = 0
    return True


cdef bint _write_all(Http2Connection* connection) noexcept nogil:
    """True when nghttp2 has no more to say and the socket has it all; else it goes on once the socket is ready."""
    cdef Http2Server* server = connection.server
    cdef const uint8_t* data
    cdef Py_ssize_t count
    cdef size_t gathered = 0, written = 0
    if not _write_unsent(connection):
        return False
    while written < MAX_WRITTEN_PER_TURN:
        count = nghttp2.mem_send(connection.session, &data)
        if count < 0:
            _doom(connection)
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
        _doom(connection)
        return False
    memcpy(joined, connection.unsent, connection.unsent_size)
    memcpy(joined + connection.unsent_size, data, size)
    free(connection.unsent)
    connection.unsent = joined
    connection.unsent_size += size
    return False


cdef void _flush(Http2Connection* connection) noexcept nogil:
    cdef bint is_done = _write_all(connection)
    if connection.is_doomed:
        return
    if is_done and (
        connection.is_ending
        or (not nghttp2.want_read(connection.session) and not nghttp2.want_write(connection.session))
    ):
        _doom(connection)
        return
    _watch_for(connection, not is_done)


cdef void _flush_all(Hook* hook) noexcept nogil:
    cdef Http2Server* server = <Http2Server*>hook.owner
    cdef Http2Connection* connection
    while server.to_flush is not NULL:
        connection = server.to_flush
        server.to_flush = connection.next_to_flush
        connection.is_marked = False
        if not connection.is_doomed:
            _flush(connection)
        if connection.is_doomed and not connection.is_marked:
            _destroy(connection)


# --- from the socket --------------------------------------------------------------------------------------------------


cdef void _on_ready(Watch* watch, uint32_t events) noexcept nogil:
    cdef Http2Connection* connection = <Http2Connection*>watch.owner
    if events & (EPOLLIN | EPOLLHUP | EPOLLERR):
        _receive(connection)
    _mark(connection)


cdef void _receive(Http2Connection* connection) noexcept nogil:
    cdef Http2Server* server = connection.server
    cdef Py_ssize_t count
    cdef int _i
    for _i in range(MAX_READS_PER_TURN):
        if connection.is_doomed or connection.is_ending:
            return
        count = recv(connection.watch.fd, server.received, READ_SIZE, 0)
        if count == 0:
            _doom(connection)
            return
        if count < 0:
            if errno == EINTR:
                continue
            if errno != EAGAIN:
                _doom(connection)
            return
        connection.received_us = server.loop.now_us
        if nghttp2.mem_recv(connection.session, server.received, <size_t>count) != count:
            # Not HTTP/2, or beyond repair; what nghttp2 has to say about it is still written.
            server.counters.protocol_errors += 1
            connection.is_ending = True
            return
        if count < READ_SIZE:
            return


cdef inline Http2Stream* _stream_of(nghttp2_session* session, int32_t stream_id) noexcept nogil:
    return <Http2Stream*>nghttp2.get_stream_user_data(session, stream_id)


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
        _count_reset(connection)
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


cdef void _count_reset(Http2Connection* connection) noexcept nogil:
    cdef int64_t now_us = connection.server.loop.now_us
    connection.reset_tokens += (now_us - connection.reset_tokens_us) * (RESETS_PER_S / 1e6)
    connection.reset_tokens_us = now_us
    if connection.reset_tokens > RESET_BURST:
        connection.reset_tokens = RESET_BURST
    connection.reset_tokens -= 1
    if connection.reset_tokens < 0 and not connection.is_ending:
        connection.server.counters.rapid_resets += 1
        connection.is_ending = True
        nghttp2.terminate_session(connection.session, NGHTTP2_ENHANCE_YOUR_CALM)


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


# --- ages -------------------------------------------------------------------------------------------------------------


cdef inline int64_t _sooner(int64_t due_us, int64_t other_us) noexcept nogil:
    """The earlier of two times of which -1 means never."""
    if other_us < 0:
        return due_us
    return other_us if due_us < 0 or other_us < due_us else due_us


cdef void _schedule(Http2Connection* connection) noexcept nogil:
    """Sets the timer for whatever is due first. Times that move with the traffic are looked at again when it fires."""
    cdef Http2Limits* limits = &connection.server.limits
    cdef int64_t due_us = connection.kill_us
    if not connection.has_preface:
        due_us = _sooner(due_us, connection.opened_us + PREFACE_TIMEOUT_US)
    if connection.drain_stage == DRAIN_NONE:
        due_us = _sooner(due_us, connection.age_us)
        if limits.max_connection_idle_us >= 0:
            due_us = _sooner(due_us, connection.idle_since_us + limits.max_connection_idle_us)
    elif connection.drain_stage == DRAIN_NOTICED:
        due_us = _sooner(due_us, connection.goaway_us)
    if connection.ping_us >= 0:
        due_us = _sooner(due_us, connection.ping_us + limits.keepalive_timeout_us)
    elif limits.keepalive_time_us >= 0:
        due_us = _sooner(due_us, connection.received_us + limits.keepalive_time_us)
    if due_us < 0:
        timer_cancel(connection.server.loop, &connection.timer)
        return
    # An idle time that a running stream has put off must not make the timer spin.
    if due_us <= connection.server.loop.now_us:
        due_us = connection.server.loop.now_us + 1000000
    if not timer_set(connection.server.loop, &connection.timer, due_us):
        _doom(connection)


cdef void _on_due(Timer* timer) noexcept nogil:
    cdef Http2Connection* connection = <Http2Connection*>timer.owner
    cdef Http2Server* server = connection.server
    cdef int64_t now_us = server.loop.now_us
    if 0 <= connection.kill_us <= now_us or (
        not connection.has_preface and now_us >= connection.opened_us + PREFACE_TIMEOUT_US
    ):
        _doom(connection)
        return
    if connection.drain_stage == DRAIN_NONE and (
        0 <= connection.age_us <= now_us
        or (
            server.limits.max_connection_idle_us >= 0
            and connection.num_streams == 0
            and now_us >= connection.idle_since_us + server.limits.max_connection_idle_us
        )
    ):
        _begin_drain(connection)
        if server.limits.max_connection_age_grace_us >= 0:
            connection.kill_us = now_us + server.limits.max_connection_age_grace_us
    elif connection.drain_stage == DRAIN_NOTICED and now_us >= connection.goaway_us:
        connection.drain_stage = DRAIN_CLOSED
        nghttp2.submit_goaway(
            connection.session, NGHTTP2_FLAG_NONE, nghttp2.last_proc_stream_id(connection.session), NGHTTP2_NO_ERROR,
            NULL, 0)
    if connection.ping_us >= 0:
        if connection.received_us > connection.ping_us:
            connection.ping_us = -1
        elif now_us >= connection.ping_us + server.limits.keepalive_timeout_us:
            server.counters.keepalive_deaths += 1
            _doom(connection)
            return
    elif server.limits.keepalive_time_us >= 0 and now_us >= connection.received_us + server.limits.keepalive_time_us:
        connection.ping_us = now_us
        nghttp2.submit_ping(connection.session, NGHTTP2_FLAG_NONE, NULL)
    _mark(connection)
    _schedule(connection)


cdef void _begin_drain(Http2Connection* connection) noexcept nogil:
    if connection.drain_stage != DRAIN_NONE:
        return
    connection.drain_stage = DRAIN_NOTICED
    connection.goaway_us = connection.server.loop.now_us + NOTICE_US
    nghttp2.submit_shutdown_notice(connection.session)
    _mark(connection)


cdef void http2_server_drain(Http2Server* server) noexcept nogil:
    cdef Http2Connection* connection = server.connections
    server.drain_stage = DRAIN_NOTICED
    while connection is not NULL:
        _begin_drain(connection)
        _schedule(connection)
        connection = connection.next


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
    timer_init(&connection.timer, _on_due, connection)
    age_us = server.limits.max_connection_age_us
    if age_us >= 0:
        # A tenth to and fro, so that connections that came together do not all go together; gRPC does so too.
        connection.age_us = now_us + age_us - age_us // 10 + (now_us * 7919) % (age_us // 5 + 1)
    if nghttp2.server_new(&connection.session, server.callbacks, connection, server.option) != 0:
        close(fd)
        free(connection)
        return
    if not _greet(connection) or not loop_watch(server.loop, &connection.watch, EPOLLIN):
        nghttp2.session_del(connection.session)
        close(fd)
        free(connection)
        return
    connection.next = server.connections
    if connection.next is not NULL:
        connection.next.previous = connection
    server.connections = connection
    atomic_add(&server.num_connections, 1)
    server.counters.accepted += 1
    if server.drain_stage != DRAIN_NONE:
        _begin_drain(connection)
    _schedule(connection)
    _mark(connection)


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
    close(connection.watch.fd)
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
        _write_all(connection)
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


# --- for handlers -----------------------------------------------------------------------------------------------------


cdef bint stream_respond(
    Http2Stream* stream, const nghttp2_nv* headers, size_t count, const nghttp2_data_provider* body,
) noexcept nogil:
    _mark(stream.connection)
    if nghttp2.submit_response(stream.connection.session, stream.stream_id, headers, count, body) == 0:
        return True
    stream_reset(stream, NGHTTP2_INTERNAL_ERROR)
    return False


cdef bint stream_trailer(Http2Stream* stream, const nghttp2_nv* headers, size_t count) noexcept nogil:
    if nghttp2.submit_trailer(stream.connection.session, stream.stream_id, headers, count) == 0:
        return True
    stream_reset(stream, NGHTTP2_INTERNAL_ERROR)
    return False


cdef void stream_resume(Http2Stream* stream) noexcept nogil:
    nghttp2.resume_data(stream.connection.session, stream.stream_id)
    _mark(stream.connection)


cdef void stream_reset(Http2Stream* stream, uint32_t error_code) noexcept nogil:
    nghttp2.submit_rst_stream(stream.connection.session, NGHTTP2_FLAG_NONE, stream.stream_id, error_code)
    _mark(stream.connection)


cdef void stream_give_back(Http2Stream* stream, size_t size) noexcept nogil:
    nghttp2.consume_stream(stream.connection.session, stream.stream_id, size)
    _mark(stream.connection)
