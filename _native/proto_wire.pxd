"""Readers of the protobuf wire format: a cursor over bytes that somebody else owns, every length checked before use.

Shared by proto_scan (both processes) and by the worker's decoders. Nothing here allocates or touches Python, so every
function runs without the GIL; each returns False on malformed input and then leaves the cursor undefined, unless it
says otherwise.

Source: protobuf.dev/programming-guides/encoding, and the limits of the C++ parser (lengths below 2 GiB, groups
nested at most 100 deep, tags of at most 32 bits).
"""

from libc.stddef cimport size_t
from libc.stdint cimport UINT32_MAX, uint8_t, uint32_t, uint64_t

cdef enum:
    WIRE_VARINT = 0
    WIRE_FIXED64 = 1
    WIRE_BYTES = 2
    WIRE_GROUP_START = 3
    WIRE_GROUP_END = 4
    WIRE_FIXED32 = 5
    MAX_GROUP_DEPTH = 100
    MAX_LENGTH = 0x7FFFFFFF


cdef struct ProtoReader:
    const uint8_t* pos
    const uint8_t* end


cdef inline ProtoReader reader_of(const uint8_t* data, size_t size) noexcept nogil:
    cdef ProtoReader reader
    reader.pos = data
    reader.end = data + size
    return reader


cdef inline size_t bytes_left(const ProtoReader* reader) noexcept nogil:
    return <size_t>(reader.end - reader.pos)


cdef inline bint read_varint(ProtoReader* reader, uint64_t* value) noexcept nogil:
    """Up to ten bytes; bits beyond the 64th are dropped, as protobuf does."""
    cdef uint64_t result = 0
    cdef int shift = 0
    cdef uint8_t byte
    while shift < 70:
        if reader.pos >= reader.end:
            return False
        byte = reader.pos[0]
        reader.pos += 1
        if shift < 64:
            result |= <uint64_t>(byte & 0x7F) << shift
        if not byte & 0x80:
            value[0] = result
            return True
        shift += 7
    return False


cdef inline bint read_tag(ProtoReader* reader, uint32_t* field, uint32_t* wire_type) noexcept nogil:
    cdef uint64_t tag
    if not read_varint(reader, &tag) or tag > UINT32_MAX:
        return False
    field[0] = <uint32_t>(tag >> 3)
    wire_type[0] = <uint32_t>(tag & 7)
    return field[0] != 0


cdef inline bint read_bytes(ProtoReader* reader, ProtoReader* inner) noexcept nogil:
    """The body of a length-delimited field, as a cursor into the same bytes."""
    cdef uint64_t size
    if not read_varint(reader, &size) or size > MAX_LENGTH or size > bytes_left(reader):
        return False
    inner.pos = reader.pos
    inner.end = reader.pos + size
    reader.pos += size
    return True


cdef inline bint skip_scalar(ProtoReader* reader, uint32_t wire_type) noexcept nogil:
    """Skips a value of any wire type but the group ones."""
    cdef uint64_t ignored
    cdef ProtoReader inner
    if wire_type == WIRE_VARINT:
        return read_varint(reader, &ignored)
    if wire_type == WIRE_BYTES:
        return read_bytes(reader, &inner)
    if wire_type == WIRE_FIXED64:
        if bytes_left(reader) < 8:
            return False
        reader.pos += 8
        return True
    if wire_type == WIRE_FIXED32:
        if bytes_left(reader) < 4:
            return False
        reader.pos += 4
        return True
    return False


cdef inline bint skip_field(ProtoReader* reader, uint32_t field, uint32_t wire_type) noexcept nogil:
    """Skips a field's value, a (deprecated) group with all that is inside it included."""
    cdef uint32_t open_groups[MAX_GROUP_DEPTH]
    cdef int depth = 0
    if wire_type != WIRE_GROUP_START:
        return skip_scalar(reader, wire_type)
    open_groups[0] = field
    depth = 1
    while depth:
        if not read_tag(reader, &field, &wire_type):
            return False
        if wire_type == WIRE_GROUP_START:
            if depth == MAX_GROUP_DEPTH:
                return False
            open_groups[depth] = field
            depth += 1
        elif wire_type == WIRE_GROUP_END:
            depth -= 1
            if open_groups[depth] != field:
                return False
        elif not skip_scalar(reader, wire_type):
            return False
    return True


cdef inline bint next_bytes_field(ProtoReader* reader, uint32_t* field, ProtoReader* inner) noexcept nogil:
    """The next length-delimited field, past others; False behind the last one, and where the bytes are malformed.

    For messages whose other fields do not matter. Where they are malformed there are bytes left.
    """
    cdef const uint8_t* at
    cdef uint32_t wire_type
    while bytes_left(reader):
        at = reader.pos
        if read_tag(reader, field, &wire_type):
            if wire_type == WIRE_BYTES:
                if read_bytes(reader, inner):
                    return True
            elif skip_field(reader, field[0], wire_type):
                continue
        reader.pos = at
        return False
    return False


cdef inline bint is_utf8(const uint8_t* data, size_t size) noexcept nogil:
    """Whether the bytes are UTF-8 as protobuf's string fields ask for: no surrogates, no overlong forms."""
    cdef size_t i = 0
    cdef uint8_t byte, second
    while i < size:
        byte = data[i]
        if byte < 0x80:
            i += 1
        elif byte < 0xC2:
            return False
        elif byte < 0xE0:
            if size - i < 2 or (data[i + 1] & 0xC0) != 0x80:
                return False
            i += 2
        elif byte < 0xF0:
            if size - i < 3 or (data[i + 1] & 0xC0) != 0x80 or (data[i + 2] & 0xC0) != 0x80:
                return False
            second = data[i + 1]
            if (byte == 0xE0 and second < 0xA0) or (byte == 0xED and second >= 0xA0):
                return False
            i += 3
        elif byte < 0xF5:
            if (
                size - i < 4 or (data[i + 1] & 0xC0) != 0x80 or (data[i + 2] & 0xC0) != 0x80
                or (data[i + 3] & 0xC0) != 0x80
            ):
                return False
            second = data[i + 1]
            if (byte == 0xF0 and second < 0x90) or (byte == 0xF4 and second >= 0x90):
                return False
            i += 4
        else:
            return False
    return True
