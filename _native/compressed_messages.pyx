"""Inflates gRPC messages whose grpc-encoding is gzip or deflate, and makes gzip of others.

Between a message's frame and its method, on any thread: nothing is shared, and no context outlives a message. What a
peer sends can inflate to a thousand times its size, so memory grows by doubling with what has come out, up to the
limit, and one byte too many ends it.

Source: gRPC's PROTOCOL-HTTP2.md, Compressed-Flag; gRPC's C core, message_compress.cc (a single gzip member with nothing
after it; a message that deflating does not make smaller is sent as it is); zlib.h.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memset

from tensorgate._native.zlib_api cimport (
    GZIP_WINDOW_BITS,
    Z_DEFAULT_STRATEGY,
    Z_DEFLATED,
    Z_FINISH,
    Z_MEM_ERROR,
    Z_NO_FLUSH,
    Z_OK,
    Z_STREAM_END,
    ZLIB_WINDOW_BITS,
    z_stream,
    zlib,
)

from tensorgate._native.zlib_api import load_library


cdef enum:
    # zlib counts in unsigned ints: longer messages are handed to it in pieces.
    PIECE_BYTES = 0x40000000
    FIRST_CAPACITY = 1024
    # Of tensors level 6 makes 1 % less than level 1, in up to twice the time; of text 14 %.
    LEVEL = 1
    MEMORY_LEVEL = 8


cdef bint gzip_is_available() noexcept nogil:
    return zlib.is_loaded


cdef inline unsigned int _piece(size_t size) noexcept nogil:
    return <unsigned int>(size if size < PIECE_BYTES else PIECE_BYTES)


# --- inflating --------------------------------------------------------------------------------------------------------


cdef struct Inflation:
    uint8_t* data
    size_t size
    size_t capacity


cdef bint _grow(Inflation* inflation, size_t wanted, size_t max_size) noexcept nogil:
    """To ``wanted`` bytes, within max_size."""
    cdef uint8_t* moved
    if wanted < FIRST_CAPACITY:
        wanted = FIRST_CAPACITY
    if wanted > max_size:
        wanted = max_size
    moved = <uint8_t*>realloc(inflation.data, wanted)
    if moved is NULL:
        return False
    inflation.data = moved
    inflation.capacity = wanted
    return True


cdef InflateResult _inflate(
    z_stream* stream, const uint8_t* data, size_t size, size_t max_size, Inflation* inflation
) noexcept nogil:
    cdef size_t given = 0
    cdef size_t room
    cdef unsigned int offered
    cdef uint8_t surplus
    cdef int status
    while True:
        if stream.avail_in == 0:
            stream.next_in = data + given
            stream.avail_in = _piece(size - given)
            given += stream.avail_in
        if inflation.size == inflation.capacity and inflation.capacity < max_size:
            # The first time twice the compressed size, which is less than 2 ** 63.
            if not _grow(inflation, 2 * (inflation.capacity if inflation.capacity else size), max_size):
                return INFLATE_NO_MEMORY
        room = inflation.capacity - inflation.size
        # At the limit the trailer may still be to come: a byte that comes instead is one too many.
        stream.next_out = inflation.data + inflation.size if room else &surplus
        stream.avail_out = _piece(room) if room else 1
        offered = stream.avail_out
        status = zlib.inflate(stream, Z_NO_FLUSH)
        if room:
            inflation.size += offered - stream.avail_out
        elif stream.avail_out == 0:
            return INFLATE_TOO_LARGE
        if status == Z_STREAM_END:
            return INFLATE_DONE if stream.avail_in == 0 and given == size else INFLATE_MALFORMED
        if status == Z_MEM_ERROR:
            return INFLATE_NO_MEMORY
        if status != Z_OK:
            return INFLATE_MALFORMED  # Z_BUF_ERROR among them: it wants more than there is


cdef InflateResult inflate_message(
    const uint8_t* data, size_t size, int window_bits, size_t max_size, uint8_t** out, size_t* out_size
) noexcept nogil:
    cdef z_stream stream
    cdef Inflation inflation
    cdef InflateResult result
    cdef uint8_t* shrunk
    out[0] = NULL
    out_size[0] = 0
    if not zlib.is_loaded:
        return INFLATE_UNAVAILABLE
    if size == 0:
        return INFLATE_DONE
    memset(&stream, 0, sizeof(z_stream))
    memset(&inflation, 0, sizeof(Inflation))
    if zlib.inflate_init(&stream, window_bits, zlib.version(), <int>sizeof(z_stream)) != Z_OK:
        return INFLATE_NO_MEMORY
    result = _inflate(&stream, data, size, max_size, &inflation)
    zlib.inflate_end(&stream)
    if result != INFLATE_DONE or inflation.size == 0:
        free(inflation.data)
        return result
    # The message may live long, and is accounted by its size.
    shrunk = <uint8_t*>realloc(inflation.data, inflation.size)
    out[0] = inflation.data if shrunk is NULL else shrunk
    out_size[0] = inflation.size
    return INFLATE_DONE


# --- deflating --------------------------------------------------------------------------------------------------------


cdef DeflateResult _deflate(
    z_stream* stream, const uint8_t* data, size_t size, uint8_t* buffer, size_t* deflated
) noexcept nogil:
    """Into a buffer of size - 1 bytes: when they do not suffice, deflating was not worth it."""
    cdef size_t given = 0
    cdef unsigned int offered
    cdef int status
    deflated[0] = 0
    while True:
        if stream.avail_in == 0:
            stream.next_in = data + given
            stream.avail_in = _piece(size - given)
            given += stream.avail_in
        stream.next_out = buffer + deflated[0]
        stream.avail_out = _piece(size - 1 - deflated[0])
        offered = stream.avail_out
        if offered == 0:
            return DEFLATE_NOT_SMALLER
        status = zlib.deflate(stream, Z_FINISH if given == size else Z_NO_FLUSH)
        deflated[0] += offered - stream.avail_out
        if status == Z_STREAM_END:
            return DEFLATE_DONE
        if status != Z_OK:
            return DEFLATE_NOT_SMALLER  # no error is left that it could be


cdef DeflateResult deflate_message(const uint8_t* data, size_t size, uint8_t** out, size_t* out_size) noexcept nogil:
    cdef z_stream stream
    cdef DeflateResult result
    cdef uint8_t* buffer
    cdef uint8_t* shrunk
    cdef size_t deflated
    out[0] = NULL
    out_size[0] = 0
    if not zlib.is_loaded:
        return DEFLATE_UNAVAILABLE
    if size < 2:
        return DEFLATE_NOT_SMALLER
    buffer = <uint8_t*>malloc(size - 1)
    if buffer is NULL:
        return DEFLATE_NO_MEMORY
    memset(&stream, 0, sizeof(z_stream))
    if zlib.deflate_init(
        &stream, LEVEL, Z_DEFLATED, GZIP_WINDOW_BITS, MEMORY_LEVEL, Z_DEFAULT_STRATEGY, zlib.version(),
        <int>sizeof(z_stream)
    ) != Z_OK:
        free(buffer)
        return DEFLATE_NO_MEMORY
    result = _deflate(&stream, data, size, buffer, &deflated)
    zlib.deflate_end(&stream)
    if result != DEFLATE_DONE:
        free(buffer)
        return result
    shrunk = <uint8_t*>realloc(buffer, deflated)
    out[0] = buffer if shrunk is NULL else shrunk
    out_size[0] = deflated
    return DEFLATE_DONE


# --- for Python -------------------------------------------------------------------------------------------------------


class GzipError(ValueError):
    """The bytes are not one whole gzip member, or zlib stream."""


class InflatedTooLargeError(GzipError):
    """What is inflated is longer than it may be."""


def is_available():
    return bool(gzip_is_available())


def inflate(message, size_t max_size, bint is_gzip=True):
    cdef Py_buffer buffer
    cdef InflateResult result
    cdef uint8_t* out
    cdef size_t out_size
    cdef int window_bits = GZIP_WINDOW_BITS if is_gzip else ZLIB_WINDOW_BITS
    load_library()
    PyObject_GetBuffer(message, &buffer, PyBUF_SIMPLE)
    with nogil:
        result = inflate_message(
            <const uint8_t*>buffer.buf, <size_t>buffer.len, window_bits, max_size, &out, &out_size)
    PyBuffer_Release(&buffer)
    if result == INFLATE_TOO_LARGE:
        raise InflatedTooLargeError(f"the message inflates to more than {max_size} bytes")
    if result == INFLATE_MALFORMED:
        raise GzipError(f"the message is not one whole {'gzip member' if is_gzip else 'zlib stream'}")
    if result != INFLATE_DONE:
        raise MemoryError
    try:
        return PyBytes_FromStringAndSize(<const char*>out, <Py_ssize_t>out_size)
    finally:
        free(out)


def deflate(message):
    cdef Py_buffer buffer
    cdef DeflateResult result
    cdef uint8_t* out
    cdef size_t out_size
    load_library()
    PyObject_GetBuffer(message, &buffer, PyBUF_SIMPLE)
    with nogil:
        result = deflate_message(<const uint8_t*>buffer.buf, <size_t>buffer.len, &out, &out_size)
    PyBuffer_Release(&buffer)
    if result == DEFLATE_NOT_SMALLER:
        return None
    if result != DEFLATE_DONE:
        raise MemoryError
    try:
        return PyBytes_FromStringAndSize(<const char*>out, <Py_ssize_t>out_size)
    finally:
        free(out)
