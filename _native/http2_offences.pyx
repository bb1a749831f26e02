"""What clients do wrong that nghttp2 passes over, or answers too mildly: resets without end, streams out of order.

Beside a request's line: http2_connection's callbacks tell it what they see. Everything happens on the server's loop.

Source: RFC 9113, sections 5.1.1, 5.4 and 6.9.2; CVE-2023-44487 (rapid reset), CVE-2025-8671 (a server made to reset).
"""

from libc.stdint cimport int32_t, int64_t, uint32_t

from tensorgate._native.http2_state cimport Http2Connection
from tensorgate._native.nghttp2_api cimport (
    NGHTTP2_ENHANCE_YOUR_CALM,
    NGHTTP2_FLOW_CONTROL_ERROR,
    NGHTTP2_PROTOCOL_ERROR,
    NGHTTP2_STREAM_CLOSED,
    nghttp2,
)


cdef void _end(Http2Connection* connection, uint32_t error_code) noexcept nogil:
    if not connection.is_ending:
        connection.is_ending = True
        nghttp2.terminate_session(connection.session, error_code)


cdef void count_reset(Http2Connection* connection) noexcept nogil:
    cdef int64_t now_us = connection.server.loop.now_us
    connection.reset_tokens += (now_us - connection.reset_tokens_us) * (RESETS_PER_S / 1e6)
    connection.reset_tokens_us = now_us
    if connection.reset_tokens > RESET_BURST:
        connection.reset_tokens = RESET_BURST
    connection.reset_tokens -= 1
    if connection.reset_tokens < 0 and not connection.is_ending:
        connection.server.counters.rapid_resets += 1
        _end(connection, NGHTTP2_ENHANCE_YOUR_CALM)


cdef void judge_own_reset(Http2Connection* connection, uint32_t error_code) noexcept nogil:
    if error_code == NGHTTP2_FLOW_CONTROL_ERROR:
        # nghttp2 resets the streams whose windows SETTINGS have made too large; it is to be the connection's error. Who
        # overruns windows otherwise is no better.
        _end(connection, error_code)
    elif error_code == NGHTTP2_PROTOCOL_ERROR or error_code == NGHTTP2_STREAM_CLOSED:
        # The client's doing: a frame that is wrong on its stream has the same effect as RST_STREAM, work begun in vain.
        count_reset(connection)


cdef void judge_stream_id(Http2Connection* connection, int32_t stream_id) noexcept nogil:
    if stream_id % 2 == 0:
        return  # nghttp2's affair
    if stream_id > connection.last_stream_id:
        if stream_id > connection.last_stream_id + 2:
            connection.skipped_from = connection.last_stream_id + 2
            connection.skipped_to = stream_id - 2
        connection.last_stream_id = stream_id
    elif connection.skipped_from <= stream_id <= connection.skipped_to:
        # nghttp2, which keeps no closed streams, takes it for one of those and drops the frame: the client would wait
        # for ever. The last gap is remembered, which is one more than clients leave.
        _end(connection, NGHTTP2_PROTOCOL_ERROR)
