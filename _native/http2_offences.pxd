"""What clients do wrong that nghttp2 passes over, or answers too mildly; for the thread of the server's loop.

Called from inside nghttp2: a connection that is ended here is closed at the turn's end, after its GOAWAY.
"""

from libc.stdint cimport int32_t, uint32_t

from tensorgate._native.http2_state cimport Http2Connection

cdef enum:
    # Streams that a client may reset, or make us reset: at once, and a second. Each costs us little, but not nothing.
    RESET_BURST = 2000
    RESETS_PER_S = 500

# The client has reset a stream.
cdef void count_reset(Http2Connection* connection) noexcept nogil
# A stream has been reset towards the client.
cdef void judge_own_reset(Http2Connection* connection, uint32_t error_code) noexcept nogil
# HEADERS have begun, of a new stream or of one that was there.
cdef void judge_stream_id(Http2Connection* connection, int32_t stream_id) noexcept nogil
