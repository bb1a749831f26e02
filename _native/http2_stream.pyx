"""Answers on HTTP/2 streams, for those behind Http2Handler.

Between gRPC and HTTP/2; what is submitted here goes out at the turn's end.

Source: nghttp2's API documentation.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t

from tensorgate._native.http2_state cimport Http2Stream, mark_to_flush
from tensorgate._native.nghttp2_api cimport (
    NGHTTP2_FLAG_NONE,
    NGHTTP2_INTERNAL_ERROR,
    nghttp2,
    nghttp2_data_provider,
    nghttp2_nv,
)

cdef bint stream_respond(
    Http2Stream* stream, const nghttp2_nv* headers, size_t count, const nghttp2_data_provider* body,
) noexcept nogil:
    mark_to_flush(stream.connection)
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
    mark_to_flush(stream.connection)


cdef void stream_reset(Http2Stream* stream, uint32_t error_code) noexcept nogil:
    nghttp2.submit_rst_stream(stream.connection.session, NGHTTP2_FLAG_NONE, stream.stream_id, error_code)
    mark_to_flush(stream.connection)


cdef void stream_give_back(Http2Stream* stream, size_t size) noexcept nogil:
    nghttp2.consume_stream(stream.connection.session, stream.stream_id, size)
    mark_to_flush(stream.connection)
