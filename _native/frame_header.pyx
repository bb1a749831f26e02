"""The codec of frame headers: small msgpack arrays, read and written without the GIL.

Stands between dispatcher and worker loop, on both sides of the ZeroMQ sockets. Readers ask for the elements they know
and ignore surplus ones, so a newer peer may append; an array that is too short, of another kind or of another wire
version is malformed. Any thread.

Source: the layout at the structs in the .pxd; its elements' forms are in msgpack.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t

from tensorgate._native.byte_writer cimport ByteWriter, writer_free, writer_init
from tensorgate._native.msgpack cimport (
    MsgpackReader,
    put_binary,
    put_bool,
    put_short_array,
    put_signed,
    put_unsigned,
    take_array,
    take_binary,
    take_bool,
    take_signed,
    take_unsigned,
)
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

cdef bint _take_preamble(MsgpackReader* cursor, uint64_t kind, uint64_t num_elements, bint* has_place) noexcept nogil:
    """The array's length, the wire version and the kind, which every header begins with; there may be more elements."""
    cdef uint64_t length, found
    if not take_array(cursor, &length) or length < num_elements:
        return False
    has_place[0] = length >= num_elements + PLACE_ELEMENTS
    if not take_unsigned(cursor, &found) or found != C_WIRE_VERSION:
        return False
    return take_unsigned(cursor, &found) and found == kind


cdef bint _take_place(MsgpackReader* cursor, bint has_place, Place* place) noexcept nogil:
    return not has_place or (
        take_unsigned(cursor, &place.offset)
        and take_unsigned(cursor, &place.size)
        and take_unsigned(cursor, &place.generation)
    )


cdef bint read_request_header(const uint8_t* data, size_t size, RequestHeader* header) noexcept nogil:
    cdef MsgpackReader cursor
    cursor.pos = data
    cursor.end = data + size
    return (
        _take_preamble(&cursor, C_KIND_REQUEST, 10, &header.has_place)
        and take_unsigned(&cursor, &header.epoch)
        and take_unsigned(&cursor, &header.request_id)
        and take_unsigned(&cursor, &header.method)
        and take_unsigned(&cursor, &header.servable_handle)
        and take_signed(&cursor, &header.remaining_deadline_us)
        and take_signed(&cursor, &header.priority)
        and take_bool(&cursor, &header.sampled)
        and take_binary(&cursor, &header.traceparent, &header.traceparent_size)
        and _take_place(&cursor, header.has_place, &header.place)
    )


cdef bint read_reply_header(const uint8_t* data, size_t size, ReplyHeader* header) noexcept nogil:
    cdef MsgpackReader cursor
    cursor.pos = data
    cursor.end = data + size
    return (
        _take_preamble(&cursor, C_KIND_REPLY, 10, &header.has_place)
        and take_unsigned(&cursor, &header.epoch)
        and take_unsigned(&cursor, &header.request_id)
        and take_unsigned(&cursor, &header.code)
        and take_binary(&cursor, &header.message, &header.message_size)
        and take_unsigned(&cursor, &header.queue_us)
        and take_unsigned(&cursor, &header.run_us)
        and take_unsigned(&cursor, &header.batch_rows)
        and take_unsigned(&cursor, &header.padding_rows)
        and _take_place(&cursor, header.has_place, &header.place)
    )


cdef bint read_cancel_header(const uint8_t* data, size_t size, uint64_t* epoch, uint64_t* request_id) noexcept nogil:
    cdef MsgpackReader cursor
    cdef bint has_place
    cursor.pos = data
    cursor.end = data + size
    return (
        _take_preamble(&cursor, C_KIND_CANCEL, 4, &has_place)
        and take_unsigned(&cursor, epoch)
        and take_unsigned(&cursor, request_id)
    )


# --- writing ----------------------------------------------------------------------------------------------------------

cdef void _put_preamble(ByteWriter* out, int num_elements, uint64_t kind) noexcept nogil:
    put_short_array(out, num_elements)
    put_unsigned(out, C_WIRE_VERSION)
    put_unsigned(out, kind)


cdef void _put_place(ByteWriter* out, const Place* place) noexcept nogil:
    put_unsigned(out, place.offset)
    put_unsigned(out, place.size)
    put_unsigned(out, place.generation)


cdef void write_request_header(ByteWriter* out, const RequestHeader* header) noexcept nogil:
    _put_preamble(out, 10 + (PLACE_ELEMENTS if header.has_place else 0), C_KIND_REQUEST)
    put_unsigned(out, header.epoch)
    put_unsigned(out, header.request_id)
    put_unsigned(out, header.method)
    put_unsigned(out, header.servable_handle)
    put_signed(out, header.remaining_deadline_us)
    put_signed(out, header.priority)
    put_bool(out, header.sampled)
    put_binary(out, header.traceparent, header.traceparent_size)
    if header.has_place:
        _put_place(out, &header.place)


cdef void write_reply_header(ByteWriter* out, const ReplyHeader* header) noexcept nogil:
    _put_preamble(out, 10 + (PLACE_ELEMENTS if header.has_place else 0), C_KIND_REPLY)
    put_unsigned(out, header.epoch)
    put_unsigned(out, header.request_id)
    put_unsigned(out, header.code)
    put_binary(out, header.message, header.message_size)
    put_unsigned(out, header.queue_us)
    put_unsigned(out, header.run_us)
    put_unsigned(out, header.batch_rows)
    put_unsigned(out, header.padding_rows)
    if header.has_place:
        _put_place(out, &header.place)


cdef void write_cancel_header(ByteWriter* out, uint64_t epoch, uint64_t request_id) noexcept nogil:
    _put_preamble(out, 4, C_KIND_CANCEL)
    put_unsigned(out, epoch)
    put_unsigned(out, request_id)


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
