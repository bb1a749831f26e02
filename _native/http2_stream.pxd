"""What a handler may do with an HTTP/2 stream that has not had its on_close; for the thread of the server's loop.

False: nghttp2 refused, the stream is being reset.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t

from tensorgate._native.http2_state cimport Http2Stream
from tensorgate._native.nghttp2_api cimport nghttp2_data_provider, nghttp2_nv

cdef bint stream_respond(
    Http2Stream* stream, const nghttp2_nv* headers, size_t count, const nghttp2_data_provider* body) noexcept nogil
cdef bint stream_trailer(Http2Stream* stream, const nghttp2_nv* headers, size_t count) noexcept nogil
cdef void stream_resume(Http2Stream* stream) noexcept nogil
cdef void stream_reset(Http2Stream* stream, uint32_t error_code) noexcept nogil
# The client may send so many bytes more, which on_data had withheld.
cdef void stream_give_back(Http2Stream* stream, size_t size) noexcept nogil
