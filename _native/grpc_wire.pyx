"""Reads and writes the text forms of gRPC over HTTP/2, which the edge meets in header fields and trailers.

Beside the gRPC edge's connections, before a request's route and after its answer; any thread. Where the protocol leaves
it open, what gRPC's own C core does is done, since that is what upstream answers with.

Source: gRPC's PROTOCOL-HTTP2.md; RFC 4648, section 4 (base64); tensorflow_serving/model_servers/grpc_status_util.cc
(where a status message is cut).
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcmp

from tensorgate._native.byte_writer cimport (
    ByteWriter,
    put_byte,
    put_bytes,
    writer_free,
    writer_init,
    writer_reserve,
)


# --- timeouts ---------------------------------------------------------------------------------------------------------


cdef bint parse_timeout(const uint8_t* data, size_t size, int64_t* timeout_us) noexcept nogil:
    cdef int64_t number = 0
    cdef uint8_t unit
    cdef size_t i
    if size < 2 or size > 9:
        return False
    for i in range(size - 1):
        if not c"0" <= data[i] <= c"9":
            return False
        number = 10 * number + (data[i] - c"0")
    unit = data[size - 1]
    if unit == c"H":
        timeout_us[0] = number * 3600 * 1000000
    elif unit == c"M":
        timeout_us[0] = number * 60000000
    elif unit == c"S":
        timeout_us[0] = number * 1000000
    elif unit == c"m":
        timeout_us[0] = number * 1000
    elif unit == c"u":
        timeout_us[0] = number
    elif unit == c"n":
        timeout_us[0] = (number + 999) // 1000
    else:
        return False
    return True


# --- status messages --------------------------------------------------------------------------------------------------

cdef const char* TRUNCATION_MARK = "...TRUNCATED"
cdef size_t TRUNCATION_MARK_SIZE = 12
cdef const uint8_t* HEX_DIGITS = <const uint8_t*>"0123456789ABCDEF"


cdef size_t cut_message(const uint8_t* message, size_t size) noexcept nogil:
    cdef size_t cut = MAX_MESSAGE_BYTES
    if size <= MAX_MESSAGE_BYTES:
        return size
    # Of a character that goes on beyond the cut there are at most three bytes before it.
    while cut > MAX_MESSAGE_BYTES - 3 and (message[cut] & 0xC0) == 0x80:
        cut -= 1
    return cut if (message[cut] & 0xC0) != 0x80 else MAX_MESSAGE_BYTES


cdef void put_percent_encoded(ByteWriter* out, const uint8_t* message, size_t size) noexcept nogil:
    cdef size_t begin = 0
    cdef size_t i
    cdef uint8_t byte
    for i in range(size):
        byte = message[i]
        if 0x20 <= byte <= 0x7E and byte != c"%":
            continue
        put_bytes(out, message + begin, i - begin)
        put_byte(out, c"%")
        put_byte(out, HEX_DIGITS[byte >> 4])
        put_byte(out, HEX_DIGITS[byte & 0x0F])
        begin = i + 1
    if size:
        put_bytes(out, message + begin, size - begin)


cdef void put_grpc_message(ByteWriter* out, const uint8_t* message, size_t size) noexcept nogil:
    cdef size_t cut = cut_message(message, size)
    put_percent_encoded(out, message, cut)
    if cut < size:
        put_bytes(out, TRUNCATION_MARK, TRUNCATION_MARK_SIZE)


# --- content types and encodings --------------------------------------------------------------------------------------


cdef inline bint _equals(const uint8_t* data, size_t size, const char* text, size_t text_size) noexcept nogil:
    return size == text_size and memcmp(data, text, text_size) == 0


cdef bint is_grpc_content_type(const uint8_t* data, size_t size) noexcept nogil:
    if size < 16 or memcmp(data, "application/grpc", 16) != 0:
        return False
    return size == 16 or data[16] == c"+" or data[16] == c";"


cdef int encoding_of(const uint8_t* data, size_t size) noexcept nogil:
    if _equals(data, size, "identity", 8):
        return ENCODING_IDENTITY
    if _equals(data, size, "gzip", 4):
        return ENCODING_GZIP
    if _equals(data, size, "deflate", 7):
        return ENCODING_DEFLATE
    return 0


cdef int accepted_encodings(const uint8_t* data, size_t size) noexcept nogil:
    cdef int accepted = ENCODING_IDENTITY
    cdef size_t begin = 0
    cdef size_t end, following
    while begin < size:
        end = begin
        while end < size and data[end] != c",":
            end += 1
        following = end + 1
        while begin < end and (data[begin] == c" " or data[begin] == c"\t"):
            begin += 1
        while begin < end and (data[end - 1] == c" " or data[end - 1] == c"\t"):
            end -= 1
        accepted |= encoding_of(data + begin, end - begin)
        begin = following
    return accepted


# --- binary metadata --------------------------------------------------------------------------------------------------

cdef const uint8_t* BASE64_DIGITS = (
    <const uint8_t*>"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
)


cdef inline int _base64_value(uint8_t digit) noexcept nogil:
    """Six bits, or -1 for what is no digit."""
    if c"A" <= digit <= c"Z":
        return digit - c"A"
    if c"a" <= digit <= c"z":
        return digit - c"a" + 26
    if c"0" <= digit <= c"9":
        return digit - c"0" + 52
    if digit == c"+":
        return 62
    return 63 if digit == c"/" else -1


cdef bint decode_bin_header(const uint8_t* data, size_t size, ByteWriter* out) noexcept nogil:
    cdef size_t size_before = out.size
    cdef uint32_t bits = 0
    cdef int num_bits = 0
    cdef int value
    cdef size_t i
    # Padding only where it fills up a group of four.
    if size and size % 4 == 0 and data[size - 1] == c"=":
        size -= 2 if data[size - 2] == c"=" else 1
    if size % 4 == 1:
        return False
    if not writer_reserve(out, size // 4 * 3 + 2):
        return True
    for i in range(size):
        value = _base64_value(data[i])
        if value < 0:
            out.size = size_before
            return False
        bits = bits << 6 | <uint32_t>value
        num_bits += 6
        if num_bits >= 8:
            num_bits -= 8
            out.data[out.size] = <uint8_t>(bits >> num_bits)
            out.size += 1
    return True


cdef void put_base64(ByteWriter* out, const uint8_t* data, size_t size) noexcept nogil:
    cdef uint32_t bits = 0
    cdef int num_bits = 0
    cdef size_t i
    for i in range(size):
        bits = bits << 8 | data[i]
        num_bits += 8
        while num_bits >= 6:
            num_bits -= 6
            put_byte(out, BASE64_DIGITS[bits >> num_bits & 0x3F])
    if num_bits:
        put_byte(out, BASE64_DIGITS[bits << (6 - num_bits) & 0x3F])


# --- for Python -------------------------------------------------------------------------------------------------------


cdef inline const uint8_t* _start(bytes text):
    return <const uint8_t*><const char*>text


cdef inline bytes _taken(ByteWriter* out):
    try:
        if out.failed:
            raise MemoryError
        return PyBytes_FromStringAndSize(<const char*>out.data, <Py_ssize_t>out.size)
    finally:
        writer_free(out)


def timeout_us(bytes value not None):
    cdef int64_t timeout
    if not parse_timeout(_start(value), <size_t>len(value), &timeout):
        return None
    return timeout


def grpc_message(bytes message not None):
    cdef ByteWriter out
    writer_init(&out)
    put_grpc_message(&out, _start(message), <size_t>len(message))
    return _taken(&out)


def percent_encoded(bytes message not None):
    cdef ByteWriter out
    writer_init(&out)
    put_percent_encoded(&out, _start(message), <size_t>len(message))
    return _taken(&out)


def content_type_is_grpc(bytes value not None):
    return bool(is_grpc_content_type(_start(value), <size_t>len(value)))


def encoding(bytes value not None):
    return encoding_of(_start(value), <size_t>len(value))


def encodings(bytes value not None):
    return accepted_encodings(_start(value), <size_t>len(value))


def bin_header(bytes value not None):
    cdef ByteWriter out
    cdef bint good
    writer_init(&out)
    good = decode_bin_header(_start(value), <size_t>len(value), &out)
    if not good:
        writer_free(&out)
        return None
    return _taken(&out)


def base64_unpadded(bytes value not None):
    cdef ByteWriter out
    writer_init(&out)
    put_base64(&out, _start(value), <size_t>len(value))
    return _taken(&out)


IDENTITY = ENCODING_IDENTITY
GZIP = ENCODING_GZIP
DEFLATE = ENCODING_DEFLATE
