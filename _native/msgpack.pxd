"""Readers and writers of msgpack: only integers, booleans, byte strings and the beginnings of arrays.

Under frame_header, in both processes. Nothing here touches Python; readers return False on what is malformed or of
another kind, and then leave the cursor undefined, and check every length before use.

Source: github.com/msgpack/msgpack/blob/master/spec.md.
"""

from libc.stddef cimport size_t
from libc.stdint cimport INT64_MAX, UINT32_MAX, int64_t, uint8_t, uint64_t

from tensorgate._native.byte_writer cimport ByteWriter, put_byte, put_bytes


# --- reading ----------------------------------------------------------------------------------------------------------

cdef struct MsgpackReader:
    const uint8_t* pos
    const uint8_t* end


cdef inline bint take_big_endian(MsgpackReader* cursor, int num_bytes, uint64_t* value) noexcept nogil:
    cdef uint64_t result = 0
    cdef int i
    if cursor.end - cursor.pos < num_bytes:
        return False
    for i in range(num_bytes):
        result = (result << 8) | cursor.pos[i]
    cursor.pos += num_bytes
    value[0] = result
    return True


cdef inline bint take_signed(MsgpackReader* cursor, int64_t* value) noexcept nogil:
    """An integer that fits 64 signed bits, in any of msgpack's integer forms."""
    cdef uint64_t raw
    cdef uint8_t form
    cdef int num_bytes
    if cursor.pos >= cursor.end:
        return False
    form = cursor.pos[0]
    cursor.pos += 1
    if form < 0x80:
        value[0] = form
        return True
    if form >= 0xE0:
        value[0] = <int64_t>form - 0x100
        return True
    if 0xCC <= form <= 0xCF:
        if not take_big_endian(cursor, 1 << (form - 0xCC), &raw) or raw > <uint64_t>INT64_MAX:
            return False
        value[0] = <int64_t>raw
        return True
    if 0xD0 <= form <= 0xD3:
        num_bytes = 1 << (form - 0xD0)
        if not take_big_endian(cursor, num_bytes, &raw):
            return False
        if num_bytes < 8 and raw >> (8 * num_bytes - 1):
            raw |= ~<uint64_t>0 << (8 * num_bytes)
        value[0] = <int64_t>raw
        return True
    return False


cdef inline bint take_unsigned(MsgpackReader* cursor, uint64_t* value) noexcept nogil:
    """A non-negative integer in any of msgpack's integer forms."""
    cdef int64_t number
    cdef uint8_t form
    if cursor.pos >= cursor.end:
        return False
    form = cursor.pos[0]
    if form == 0xCF:
        cursor.pos += 1
        return take_big_endian(cursor, 8, value)
    if not take_signed(cursor, &number) or number < 0:
        return False
    value[0] = <uint64_t>number
    return True


cdef inline bint take_bool(MsgpackReader* cursor, bint* value) noexcept nogil:
    if cursor.pos >= cursor.end or cursor.pos[0] not in (0xC2, 0xC3):
        return False
    value[0] = cursor.pos[0] == 0xC3
    cursor.pos += 1
    return True


cdef inline bint take_binary(MsgpackReader* cursor, const uint8_t** data, size_t* size) noexcept nogil:
    """A byte string, in one of msgpack's bin or str forms."""
    cdef uint64_t length
    cdef uint8_t form
    if cursor.pos >= cursor.end:
        return False
    form = cursor.pos[0]
    cursor.pos += 1
    if 0xA0 <= form <= 0xBF:
        length = form & 0x1F
    elif 0xC4 <= form <= 0xC6:
        if not take_big_endian(cursor, 1 << (form - 0xC4), &length):
            return False
    elif 0xD9 <= form <= 0xDB:
        if not take_big_endian(cursor, 1 << (form - 0xD9), &length):
            return False
    else:
        return False
    if length > <uint64_t>(cursor.end - cursor.pos):
        return False
    data[0] = cursor.pos
    size[0] = <size_t>length
    cursor.pos += length
    return True


cdef inline bint take_array(MsgpackReader* cursor, uint64_t* length) noexcept nogil:
    """How many elements follow, of an array of less than 2^16."""
    cdef uint8_t form
    if cursor.pos >= cursor.end:
        return False
    form = cursor.pos[0]
    cursor.pos += 1
    if 0x90 <= form <= 0x9F:
        length[0] = form & 0x0F
        return True
    return form == 0xDC and take_big_endian(cursor, 2, length)


# --- writing ----------------------------------------------------------------------------------------------------------

cdef inline void put_big_endian(ByteWriter* out, uint64_t value, int num_bytes) noexcept nogil:
    cdef int i
    for i in range(num_bytes - 1, -1, -1):
        put_byte(out, <uint8_t>(value >> (8 * i)))


cdef inline void put_unsigned(ByteWriter* out, uint64_t value) noexcept nogil:
    if value < 0x80:
        put_byte(out, <uint8_t>value)
    elif value <= 0xFF:
        put_byte(out, <uint8_t>0xCC)
        put_big_endian(out, value, 1)
    elif value <= 0xFFFF:
        put_byte(out, <uint8_t>0xCD)
        put_big_endian(out, value, 2)
    elif value <= UINT32_MAX:
        put_byte(out, <uint8_t>0xCE)
        put_big_endian(out, value, 4)
    else:
        put_byte(out, <uint8_t>0xCF)
        put_big_endian(out, value, 8)


cdef inline void put_signed(ByteWriter* out, int64_t value) noexcept nogil:
    if value >= 0:
        put_unsigned(out, <uint64_t>value)
    elif value >= -32:
        put_byte(out, <uint8_t>value)
    else:
        put_byte(out, <uint8_t>0xD3)
        put_big_endian(out, <uint64_t>value, 8)


cdef inline void put_binary(ByteWriter* out, const uint8_t* data, size_t size) noexcept nogil:
    if size <= 0xFF:
        put_byte(out, <uint8_t>0xC4)
        put_big_endian(out, size, 1)
    elif size <= 0xFFFF:
        put_byte(out, <uint8_t>0xC5)
        put_big_endian(out, size, 2)
    elif size <= UINT32_MAX:
        put_byte(out, <uint8_t>0xC6)
        put_big_endian(out, size, 4)
    else:
        out.failed = True  # more than msgpack can say
    put_bytes(out, data, size)


cdef inline void put_bool(ByteWriter* out, bint value) noexcept nogil:
    put_byte(out, <uint8_t>(0xC3 if value else 0xC2))


cdef inline void put_short_array(ByteWriter* out, int num_elements) noexcept nogil:
    """The beginning of an array of at most 15 elements."""
    put_byte(out, <uint8_t>(0x90 | num_elements))
