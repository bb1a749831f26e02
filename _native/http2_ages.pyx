"""What time does to HTTP/2 connections: prefaces that never come, keepalive, idleness, age, and the drain.

Beside a request's line. One timer a connection, set for whatever is due first.

Source: RFC 9113 (GOAWAY); the grpc.* channel arguments for ages, idleness and keepalive.
"""

from libc.stdint cimport int64_t

from tensorgate._native.event_loop cimport Timer, timer_cancel, timer_set
from tensorgate._native.http2_state cimport (
    DRAIN_CLOSED,
    DRAIN_NONE,
    DRAIN_NOTICED,
    Http2Connection,
    Http2Limits,
    Http2Server,
    doom,
    mark_to_flush,
)
from tensorgate._native.nghttp2_api cimport NGHTTP2_FLAG_NONE, NGHTTP2_NO_ERROR, nghttp2

cdef enum:
    # Between the two GOAWAYs: what was sent before the client saw the first has arrived by then.
    NOTICE_US = 100000
    PREFACE_TIMEOUT_US = 20000000


cdef inline int64_t _sooner(int64_t due_us, int64_t other_us) noexcept nogil:
    """The earlier of two times of which -1 means never."""
    if other_us < 0:
        return due_us
    return other_us if due_us < 0 or other_us < due_us else due_us


cdef void schedule_ages(Http2Connection* connection) noexcept nogil:
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
        doom(connection)


cdef void on_age_due(Timer* timer) noexcept nogil:
    cdef Http2Connection* connection = <Http2Connection*>timer.owner
    cdef Http2Server* server = connection.server
    cdef int64_t now_us = server.loop.now_us
    if 0 <= connection.kill_us <= now_us or (
        not connection.has_preface and now_us >= connection.opened_us + PREFACE_TIMEOUT_US
    ):
        doom(connection)
        return
    if connection.drain_stage == DRAIN_NONE and (
        0 <= connection.age_us <= now_us
        or (
            server.limits.max_connection_idle_us >= 0
            and connection.num_streams == 0
            and now_us >= connection.idle_since_us + server.limits.max_connection_idle_us
        )
    ):
        begin_drain(connection)
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
            doom(connection)
            return
    elif server.limits.keepalive_time_us >= 0 and now_us >= connection.received_us + server.limits.keepalive_time_us:
        connection.ping_us = now_us
        nghttp2.submit_ping(connection.session, NGHTTP2_FLAG_NONE, NULL)
    mark_to_flush(connection)
    schedule_ages(connection)


cdef void begin_drain(Http2Connection* connection) noexcept nogil:
    if connection.drain_stage != DRAIN_NONE:
        return
    connection.drain_stage = DRAIN_NOTICED
    connection.goaway_us = connection.server.loop.now_us + NOTICE_US
    nghttp2.submit_shutdown_notice(connection.session)
    mark_to_flush(connection)


cdef void http2_server_drain(Http2Server* server) noexcept nogil:
    cdef Http2Connection* connection = server.connections
    server.drain_stage = DRAIN_NOTICED
    while connection is not NULL:
        begin_drain(connection)
        schedule_ages(connection)
        connection = connection.next
