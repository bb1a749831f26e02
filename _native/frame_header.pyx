"""The codec of frame headers: small msgpack arrays, read and written without the GIL.

Stands between dispatcher and worker loop, on both sides of the ZeroMQ sockets. Readers ask for the elements they know
and ignore surplus ones, so a newer peer may append; an array that is too short, of another kind or of another wire
version is malformed. Only integers, booleans and byte strings occur. Any thread.

Source: github.com/msgpack/msgpack/blob/master/spec.md (the formats), design of the frames at the structs in the .pxd.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport INT64_MAX, UINT32_MAX, int64_t, uint8_t, uint64_t

from tensorgate._native.byte_writer cimport ByteWriter, put_byte, put_bytes, writer_free, writer_init
from tensorgate._native.shared_memory cimport Place

WIRE_VERSION = C_WIRE_VERSION
KIND_REQUEST = C_KIND_REQUEST
KIND_REPLY = C_KIND_REPLY
KIND_CANCEL = C_KIND_CANCEL

cdef enum:
    PLACE_ELEMENTS = 3


class FrameError(ValueError):
    """A frame header that does not follow the layout."""


# --- reading ----------------------------------------------------------------------------------------------------------

cdef struct Cursor:
    const uint8_t* pos
    const uint8_t* end


cdef inline bint _take_big_endian(Cursor* cursor, int num_bytes, uint64_t* value) noexcept nogil:
    cdef uint64_t result = 0
    cdef int i
    if cursor.end - cursor.pos < num_bytes:
        return False
    for i in range(num_bytes):
        result = (result << 8) | cursor.pos[i]
    cursor.pos += num_bytes
    value[0] = result
    return True


cdef inline bint _take_unsigned(Cursor* cursor, uint64_t* value) noexcept nogil:
    """A non-negative integer in any of msgpack's integer forms."""
    cdef int64_t number
    cdef uint8_t form
    if cursor.pos >= cursor.end:
        return False
    form = cursor.pos[0]
    if form == 0xCF:
        cursor.pos += 1
        return _take_big_endian(cursor, 8, value)
    if not _take_signed(cursor, &number) or number < 0:
        return False
    value[0] = <uint64_t>number
    return True


cdef bint _take_signed(Cursor* cursor, int64_t* value) noexcept nogil:
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
        if not _take_big_endian(cursor, 1 << (form - 0xCC), &raw) or raw > <uint64_t>INT64_MAX:
            return False
        value[0] = <int64_t>raw
        return True
    if 0xD0 <= form <= 0xD3:
        num_bytes = 1 << (form - 0xD0)
        if not _take_big_endian(cursor, num_bytes, &raw):
            return False
        if num_bytes < 8 and raw >> (8 * num_bytes - 1):
            raw |= ~<uint64_t>0 << (8 * num_bytes)
        value[0] = <int64_t>raw
        return True
    return False


cdef inline bint _take_bool(Cursor* cursor, bint* value) noexcept nogil:
    if cursor.pos >= cursor.end or cursor.pos[0] not in (0xC2, 0xC3):
        return False
    value[0] = cursor.pos[0] == 0xC3
    cursor.pos += 1
    return True


cdef bint _take_bytes(Cursor* cursor, const uint8_t** data, size_t* size) noexcept nogil:
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
        if not _take_big_endian(cursor, 1 << (form - 0xC4), &length):
            return False
    elif 0xD9 <= form <= 0xDB:
        if not _take_big_endian(cursor, 1 << (form - 0xD9), &length):
            return False
    else:
        return False
    if length > <uint64_t>(cursor.end - cursor.pos):
        return False
    data[0] = cursor.pos
    size[0] = <size_t>length
    cursor.pos += length
    return True


cdef bint _take_preamble(Cursor* cursor, uint64_t kind, uint64_t num_elements, bint* has_place) noexcept nogil:
    """The array's length, the wire version and the kind, which every header begins with; there may be more elements."""
    cdef uint64_t length, found
    cdef uint8_t form
    if cursor.pos >= cursor.end:
        return False
    form = cursor.pos[0]
    cursor.pos += 1
    if 0x90 <= form <= 0x9F:
        length = form & 0x0F
    elif form == 0xDC:
        if not _take_big_endian(cursor, 2, &length):
            return False
    else:
        return False
    if length < num_elements:
        return False
    has_place[0] = length >= num_elements + PLACE_ELEMENTS
    if not _take_unsigned(cursor, &found) or found != C_WIRE_VERSION:
        return False
    return _take_unsigned(cursor, &found) and found == kind


cdef bint _take_place(Cursor* cursor, bint has_place, Place* place) noexcept nogil:
    return not has_place or (
        _take_unsigned(cursor, &place.offset)
        and _take_unsigned(cursor, &place.size)
        and _take_unsigned(cursor, &place.generation)
    )


cdef bint read_request_header(const uint8_t* data, size_t size, RequestHeader* header) noexcept nogil:
    cdef Cursor cursor
    cursor.pos = data
    cursor.end = data + size
    return (
        _take_preamble(&cursor, C_KIND_REQUEST, 10, &header.has_place)
        and _take_unsigned(&cursor, &header.epoch)
        and _take_unsigned(&cursor, &header.request_id)
        and _take_unsigned(&cursor, &header.method)
        and _take_unsigned(&cursor, &header.servable_handle)
        and _take_signed(&cursor, &header.remaining_deadline_us)
        and _take_signed(&cursor, &header.priority)
        and _take_bool(&cursor, &header.sampled)
        and _take_bytes(&cursor, &header.traceparent, &header.traceparent_size)
        and _take_place(&cursor, header.has_place, &header.place)
    )


cdef bint read_reply_header(const uint8_t* data, size_t size, ReplyHeader* header) noexcept nogil:
    cdef Cursor cursor
    cursor.pos = data
    cursor.end = data + size
    return (
        _take_preamble(&cursor, C_KIND_REPLY, 10, &header.has_place)
        and _take_unsigned(&cursor, &header.epoch)
        and _take_unsigned(&cursor, &header.request_id)
        and _take_unsigned(&cursor, &header.code)
        and _take_bytes(&cursor, &header.message, &header.message_size)
        and _take_unsigned(&cursor, &header.queue_us)
        and _take_unsigned(&cursor, &header.run_us)
        and _take_unsigned(&cursor, &header.batch_rows)
        and _take_unsigned(&cursor, &header.padding_rows)
        and _take_place(&cursor, header.has_place, &header.place)
    )


cdef bint read_cancel_header(const uint8_t* data, size_t size, uint64_t* epoch, uint64_t* request_id) noexcept nogil:
    cdef Cursor cursor
    cdef bint has_place
    cursor.pos = data
    cursor.end = data + size
    return (
        _take_preamble(&cursor, C_KIND_CANCEL, 4, &has_place)
        and _take_unsigned(&cursor, epoch)
        and _take_unsigned(&cursor, request_id)
    )


# --- writing ----------------------------------------------------------------------------------------------------------

cdef void _put_big_endian(ByteWriter* out, uint64_t value, int num_bytes) noexcept nogil:
    cdef int i
    for i in range(num_bytes - 1, -1, -1):
        put_byte(out, <uint8_t>(value >> (8 * i)))


cdef void _put_unsigned(ByteWriter* out, uint64_t value) noexcept nogil:
    if value < 0x80:
        put_byte(out, <uint8_t>value)
    elif value <= 0xFF:
        put_byte(out, <uint8_t>0xCC)
        _put_big_endian(out, value, 1)
    elif value <= 0xFFFF:
        put_byte(out, <uint8_t>0xCD)
        _put_big_endian(out, value, 2)
    elif value <= UINT32_MAX:
        put_byte(out, <uint8_t>0xCE)
        _put_big_endian(out, value, 4)
    else:
        put_byte(out, <uint8_t>0xCF)
        _put_big_endian(out, value, 8)


cdef void _put_signed(ByteWriter* out, int64_t value) noexcept nogil:
    if value >= 0:
        _put_unsigned(out, <uint64_t>value)
    elif value >= -32:
        put_byte(out, <uint8_t>value)
    else:
        put_byte(out, <uint8_t>0xD3)
        _put_big_endian(out, <uint64_t>value, 8)


cdef void _put_bytes(ByteWriter* out, const uint8_t* data, size_t size) noexcept nogil:
    if size <= 0xFF:
        put_byte(out, <uint8_t>0xC4)
        _put_big_endian(out, size, 1)
    elif size <= 0xFFFF:
        put_byte(out, <uint8_t>0xC5)
        _put_big_endian(out, size, 2)
    elif size <= UINT32_MAX:
        put_byte(out, <uint8_t>0xC6)
        _put_big_endian(out, size, 4)
    else:
        out.failed = True  # more than msgpack can say
    put_bytes(out, data, size)


cdef void _put_preamble(ByteWriter* out, int num_elements, uint64_t kind) noexcept nogil:
    put_byte(out, <uint8_t>(0x90 | num_elements))
    _put_unsigned(out, C_WIRE_VERSION)
    _put_unsigned(out, kind)


cdef void _put_place(ByteWriter* out, const Place* place) noexcept nogil:
    _put_unsigned(out, place.offset)
    _put_unsigned(out, place.size)
    _put_unsigned(out, place.generation)


cdef void write_request_header(ByteWriter* out, const RequestHeader* header) noexcept nogil:
    _put_preamble(out, 10 + (PLACE_ELEMENTS if header.has_place else 0), C_KIND_REQUEST)
    _put_unsigned(out, header.epoch)
    _put_unsigned(out, header.request_id)
    _put_unsigned(out, header.method)
    _put_unsigned(out, header.servable_handle)
    _put_signed(out, header.remaining_deadline_us)
    _put_signed(out, header.priority)
    put_byte(out, <uint8_t>(0xC3 if header.sampled else 0xC2))
    _put_bytes(out, header.traceparent, header.traceparent_size)
    if header.has_place:
        _put_place(out, &header.place)


cdef void write_reply_header(ByteWriter* out, const ReplyHeader* header) noexcept nogil:
    _put_preamble(out, 10 + (PLACE_ELEMENTS if header.has_place else 0), C_KIND_REPLY)
    _put_unsigned(out, header.epoch)
    _put_unsigned(out, header.request_id)
    _put_unsigned(out, header.code)
    _put_bytes(out, header.message, header.message_size)
    _put_unsigned(out, header.queue_us)
    _put_unsigned(out, header.run_us)
    _put_unsigned(out, header.batch_rows)
    _put_unsigned(out, header.padding_rows)
    if header.has_place:
        _put_place(out, &header.place)


cdef void write_cancel_header(ByteWriter* out, uint64_t epoch, uint64_t request_id) noexcept nogil:
    _put_preamble(out, 4, C_KIND_CANCEL)
    _put_unsigned(out, epoch)
    _put_unsigned(out, request_id)


# --- for Python -------------------------------------------------------------------------------------------------------

cdef inline bytes _taken(ByteWriter* out):
    try:
        if out.failed:
            raise MemoryError
        return PyBytes_FromStringAndSize(<const char*>out.data, <Py_ssize_t>out.size)
    finally:
        writer_free(out)


def pack_request(
    uint64_t epoch, uint64_t request_id, uint64_t method, uint64_t servable_handle, int64_t remaining_deadline_us,
    int64_t priority, bint sampled, bytes traceparent not None, place=None,
):
    cdef RequestHeader header
    cdef ByteWriter out
    writer_init(&out)
    header.epoch = epoch
    header.request_id = request_id
    header.method = method
    header.servable_handle = servable_handle
    header.remaining_deadline_us = remaining_deadline_us
    header.priority = priority
    header.sampled = sampled
    header.traceparent = <const uint8_t*><const char*>traceparent
    header.traceparent_size = <size_t>len(traceparent)
    header.has_place = place is not None
    if header.has_place:
        header.place.offset, header.place.size, header.place.generation = place
    write_request_header(&out, &header)
    return _taken(&out)


def unpack_request(frame):
    cdef Py_buffer buffer
    cdef RequestHeader header
    PyObject_GetBuffer(frame, &buffer, PyBUF_SIMPLE)
    try:
        if not read_request_header(<const uint8_t*>buffer.buf, <size_t>buffer.len, &header):
            raise FrameError("malformed request header")
        return (
            header.epoch, header.request_id, header.method, header.servable_handle, header.remaining_deadline_us,
            header.priority, bool(header.sampled),
            PyBytes_FromStringAndSize(<const char*>header.traceparent, <Py_ssize_t>header.traceparent_size),
        )
    finally:
        PyBuffer_Release(&buffer)


def pack_reply(
    uint64_t epoch, uint64_t request_id, uint64_t code, bytes message not None, uint64_t queue_us, uint64_t run_us,
    uint64_t batch_rows, uint64_t padding_rows, place=None,
):
    cdef ReplyHeader header
    cdef ByteWriter out
    writer_init(&out)
    header.epoch = epoch
    header.request_id = request_id
    header.code = code
    header.message = <const uint8_t*><const char*>message
    header.message_size = <size_t>len(message)
    header.queue_us = queue_us
    header.run_us = run_us
    header.batch_rows = batch_rows
    header.padding_rows = padding_rows
    header.has_place = place is not None
    if header.has_place:
        header.place.offset, header.place.size, header.place.generation = place
    write_reply_header(&out, &header)
    return _taken(&out)


def unpack_reply(frame):
    cdef Py_buffer buffer
    cdef ReplyHeader header
    PyObject_GetBuffer(frame, &buffer, PyBUF_SIMPLE)
    try:
        if not read_reply_header(<const uint8_t*>buffer.buf, <size_t>buffer.len, &header):
            raise FrameError("malformed reply header")
        return (
            header.epoch, header.request_id, header.code,
            PyBytes_FromStringAndSize(<const char*>header.message, <Py_ssize_t>header.message_size),
            header.queue_us, header.run_us, header.batch_rows, header.padding_rows,
        )
    finally:
        PyBuffer_Release(&buffer)


cdef inline tuple _place_tuple(const Place* place):
    return place.offset, place.size, place.generation


def place_of(frame):
    cdef Py_buffer buffer
    cdef RequestHeader request
    cdef ReplyHeader reply
    cdef const uint8_t* data
    PyObject_GetBuffer(frame, &buffer, PyBUF_SIMPLE)
    try:
        data = <const uint8_t*>buffer.buf
        if read_request_header(data, <size_t>buffer.len, &request):
            return _place_tuple(&request.place) if request.has_place else None
        if read_reply_header(data, <size_t>buffer.len, &reply):
            return _place_tuple(&reply.place) if reply.has_place else None
        raise FrameError("malformed header of a request or reply")
    finally:
        PyBuffer_Release(&buffer)


def pack_cancel(uint64_t epoch, uint64_t request_id):
    cdef ByteWriter out
    writer_init(&out)
    write_cancel_header(&out, epoch, request_id)
    return _taken(&out)


def unpack_cancel(frame):
    cdef Py_buffer buffer
    cdef uint64_t epoch, request_id
    PyObject_GetBuffer(frame, &buffer, PyBUF_SIMPLE)
    try:
        if not read_cancel_header(<const uint8_t*>buffer.buf, <size_t>buffer.len, &epoch, &request_id):
            raise FrameError("malformed cancel header")
        return epoch, request_id
    finally:
        PyBuffer_Release(&buffer)
