"""Compressed gRPC messages, in memory whose size the caller bounds.

Any thread; each call is whole in itself. Large messages take milliseconds a megabyte: not for an edge thread.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

ctypedef enum InflateResult:
    INFLATE_DONE
    INFLATE_TOO_LARGE      # the message is longer than max_size, or is broken only beyond that
    INFLATE_MALFORMED      # another format, truncated, a wrong checksum, or bytes after its end (a second member too)
    INFLATE_NO_MEMORY
    INFLATE_UNAVAILABLE    # zlib is not loaded

ctypedef enum DeflateResult:
    DEFLATE_DONE
    DEFLATE_NOT_SMALLER    # send the message as it is, its flag 0
    DEFLATE_NO_MEMORY
    DEFLATE_UNAVAILABLE


# Whether zlib is loaded: without it, compressed messages are to be refused with UNIMPLEMENTED.
cdef bint gzip_is_available() noexcept nogil
# window_bits: which format, see zlib_api. *out: the message, to be freed with free(), NULL when it is empty or the
# result is not INFLATE_DONE. Never holds more than max_size bytes of it. No bytes at all inflate to an empty message,
# as in gRPC's C core.
cdef InflateResult inflate_message(
    const uint8_t* data, size_t size, int window_bits, size_t max_size, uint8_t** out, size_t* out_size) noexcept nogil
# *out: gzip of less than size bytes, to be freed with free(); NULL when the result is not DEFLATE_DONE.
cdef DeflateResult deflate_message(const uint8_t* data, size_t size, uint8_t** out, size_t* out_size) noexcept nogil
