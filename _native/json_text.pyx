"""Strings in JSON text: which characters are escaped, and base64 in its plain, padded form.

Used by both directions of the REST line (json_request, json_reply); without the GIL, on any thread. Base64 that is
unusual but allowed (white space, no padding, a dot for it) is left to gateway/rest/tensor_values.

Source: RFC 8259 section 7 as Python's json.encoder writes it; RFC 4648 section 4.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

from tensorgate._native.byte_writer cimport (
    ByteWriter,
    put_byte,
    put_bytes,
    put_text,
    writer_free,
    writer_init,
    writer_reserve,
)

cdef enum:
    NO_DIGIT = 255

cdef const char* _ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
cdef const char* _HEX_DIGITS = b"0123456789abcdef"

# The value of each character of the alphabet, NO_DIGIT for all others; filled on import.
cdef uint8_t _digit_values[256]


cdef void _fill():
    cdef int i
    for i in range(256):
        _digit_values[i] = NO_DIGIT
    for i in range(64):
        _digit_values[<uint8_t>_ALPHABET[i]] = <uint8_t>i


_fill()


cdef void _put_escape(ByteWriter* out, uint8_t byte) noexcept nogil:
    put_byte(out, c"\\")
    if byte == c'"' or byte == c"\\":
        put_byte(out, byte)
    elif byte == c"\n":
        put_byte(out, c"n")
    elif byte == c"\r":
        put_byte(out, c"r")
    elif byte == c"\t":
        put_byte(out, c"t")
    elif byte == c"\f":
        put_byte(out, c"f")
    elif byte == c"\b":
        put_byte(out, c"b")
    else:
        put_text(out, b"u00")
        put_byte(out, <uint8_t>_HEX_DIGITS[byte >> 4])
        put_byte(out, <uint8_t>_HEX_DIGITS[byte & 15])


cdef void put_json_string(ByteWriter* out, const uint8_t* text, size_t size) noexcept nogil:
    cdef size_t start = 0, i
    put_byte(out, c'"')
    for i in range(size):
        if text[i] < 0x20 or text[i] == c'"' or text[i] == c"\\":
            put_bytes(out, text + start, i - start)
            _put_escape(out, text[i])
            start = i + 1
    put_bytes(out, text + start, size - start)
    put_byte(out, c'"')


cdef void put_base64(ByteWriter* out, const uint8_t* data, size_t size) noexcept nogil:
    cdef uint8_t* to
    cdef uint32_t group
    cdef size_t i = 0
    if size > (<size_t>-1) // 4 or not writer_reserve(out, (size + 2) // 3 * 4):
        out.failed = True
        return
    to = out.data + out.size
    out.size += (size + 2) // 3 * 4
    while size - i >= 3:
        group = <uint32_t>data[i] << 16 | <uint32_t>data[i + 1] << 8 | data[i + 2]
        to[0] = <uint8_t>_ALPHABET[group >> 18]
        to[1] = <uint8_t>_ALPHABET[(group >> 12) & 63]
        to[2] = <uint8_t>_ALPHABET[(group >> 6) & 63]
        to[3] = <uint8_t>_ALPHABET[group & 63]
        to += 4
        i += 3
    if i == size:
        return
    group = <uint32_t>data[i] << 16
    if size - i == 2:
        group |= <uint32_t>data[i + 1] << 8
    to[0] = <uint8_t>_ALPHABET[group >> 18]
    to[1] = <uint8_t>_ALPHABET[(group >> 12) & 63]
    to[2] = <uint8_t>_ALPHABET[(group >> 6) & 63] if size - i == 2 else c"="
    to[3] = c"="


cdef Py_ssize_t base64_decoded_size(const uint8_t* text, size_t size) noexcept nogil:
    if size % 4:
        return -1
    if size == 0 or text[size - 1] != c"=":
        return <Py_ssize_t>(size // 4 * 3)
    return <Py_ssize_t>(size // 4 * 3) - (2 if text[size - 2] == c"=" else 1)


cdef bint decode_base64(const uint8_t* text, size_t size, uint8_t* to) noexcept nogil:
    cdef Py_ssize_t left = base64_decoded_size(text, size)
    cdef uint8_t a, b, c, d
    while left >= 3:
        a = _digit_values[text[0]]
        b = _digit_values[text[1]]
        c = _digit_values[text[2]]
        d = _digit_values[text[3]]
        if (a | b | c | d) & 0x80:
            return False
        to[0] = <uint8_t>(a << 2 | b >> 4)
        to[1] = <uint8_t>(b << 4 | c >> 2)
        to[2] = <uint8_t>(c << 6 | d)
        text += 4
        to += 3
        left -= 3
    if left <= 0:
        return left == 0
    # Bits left over are ignored, as everywhere.
    a = _digit_values[text[0]]
    b = _digit_values[text[1]]
    c = _digit_values[text[2]] if left == 2 else 0
    if (a | b | c) & 0x80:
        return False
    to[0] = <uint8_t>(a << 2 | b >> 4)
    if left == 2:
        to[1] = <uint8_t>(b << 4 | c >> 2)
    return True


cdef int _hex4(const uint8_t* at) noexcept nogil:
    """The number that four hexadecimal digits are, -1 if any of them is none."""
    cdef int number = 0, i
    for i in range(4):
        number <<= 4
        if c"0" <= at[i] <= c"9":
            number |= at[i] - c"0"
        elif c"a" <= at[i] | 0x20 <= c"f":
            number |= (at[i] | 0x20) - c"a" + 10
        else:
            return -1
    return number


cdef int read_escape(const uint8_t* at, uint32_t* character) noexcept nogil:
    cdef uint8_t letter = at[1]
    cdef int unit, second
    if letter == c'"' or letter == c"\\" or letter == c"/":
        character[0] = letter
    elif letter == c"n":
        character[0] = c"\n"
    elif letter == c"t":
        character[0] = c"\t"
    elif letter == c"r":
        character[0] = c"\r"
    elif letter == c"f":
        character[0] = c"\f"
    elif letter == c"b":
        character[0] = c"\b"
    elif letter != c"u":
        return 0
    else:
        unit = _hex4(at + 2)
        if unit < 0 or 0xDC00 <= unit <= 0xDFFF:
            return 0
        if unit < 0xD800 or unit > 0xDFFF:
            character[0] = <uint32_t>unit
            return 6
        second = _hex4(at + 8) if at[6] == c"\\" and at[7] == c"u" else -1
        if not 0xDC00 <= second <= 0xDFFF:
            return 0
        character[0] = 0x10000 + ((<uint32_t>unit - 0xD800) << 10) + (<uint32_t>second - 0xDC00)
        return 12
    return 2


cdef size_t utf8_size(uint32_t character) noexcept nogil:
    if character < 0x80:
        return 1
    if character < 0x800:
        return 2
    return 3 if character < 0x10000 else 4


cdef uint8_t* _put_utf8(uint8_t* to, uint32_t character) noexcept nogil:
    cdef size_t size = utf8_size(character), i
    if size == 1:
        to[0] = <uint8_t>character
        return to + 1
    for i in range(size - 1, 0, -1):
        to[i] = <uint8_t>(0x80 | character & 0x3F)
        character >>= 6
    # As many ones as there are bytes, and a zero.
    to[0] = <uint8_t>((0xF00 >> size) | character)
    return to + size


cdef void unescape(const uint8_t* text, size_t size, uint8_t* to) noexcept nogil:
    cdef const uint8_t* end = text + size
    cdef const uint8_t* start = text
    cdef uint32_t character = 0
    while text < end:
        if text[0] != c"\\":
            text += 1
            continue
        memcpy(to, start, text - start)
        to += text - start
        text += read_escape(text, &character)
        to = _put_utf8(to, character)
        start = text
    memcpy(to, start, text - start)


# --- for tests --------------------------------------------------------------------------------------------------------

def json_string(bytes text not None):
    cdef ByteWriter out
    writer_init(&out)
    put_json_string(&out, <const uint8_t*>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    return _taken(&out)


def base64_text(bytes data not None):
    cdef ByteWriter out
    writer_init(&out)
    put_base64(&out, <const uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    return _taken(&out)


def base64_bytes(bytes text not None):
    cdef const uint8_t* start = <const uint8_t*>PyBytes_AS_STRING(text)
    cdef Py_ssize_t size = base64_decoded_size(start, PyBytes_GET_SIZE(text))
    cdef bytes data
    if size < 0:
        return None
    data = PyBytes_FromStringAndSize(NULL, size)
    return data if decode_base64(start, PyBytes_GET_SIZE(text), <uint8_t*>PyBytes_AS_STRING(data)) else None


def unescaped(bytes text not None):
    cdef const uint8_t* start = <const uint8_t*>PyBytes_AS_STRING(text)
    cdef const uint8_t* at = start
    cdef uint32_t character = 0
    cdef Py_ssize_t size = 0, escape_size
    cdef bytes plain
    while at - start < PyBytes_GET_SIZE(text):
        if at[0] < 0x20 or at[0] == c'"':
            return None
        escape_size = read_escape(at, &character) if at[0] == c"\\" else 1
        if escape_size == 0:
            return None
        size += utf8_size(character) if at[0] == c"\\" else 1
        at += escape_size
    plain = PyBytes_FromStringAndSize(NULL, size)
    unescape(start, <size_t>PyBytes_GET_SIZE(text), <uint8_t*>PyBytes_AS_STRING(plain))
    return plain


cdef object _taken(ByteWriter* out):
    """The bytes written; frees the writer."""
    try:
        if out.failed:
            raise MemoryError
        return PyBytes_FromStringAndSize(<const char*>out.data, <Py_ssize_t>out.size)
    finally:
        writer_free(out)
