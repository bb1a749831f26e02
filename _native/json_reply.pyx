"""A serialized PredictResponse becomes the JSON a client expects, without a Python object for any value in it.

The quick way of a reply on the REST line, beside the exact one (gateway/rest/predict_response, which calls this, and
which has the same text for everything): what a worker writes in the ordinary way. All errors, lists in several pieces,
lists that are shorter than their shape says and the like are None, and the exact way decides.

Any thread; releases the GIL for a reply that takes long enough to be worth it.

Source: TensorFlow Serving's util/json_tensor.cc (MakeJsonFromPredictResponse); RapidJSON's PrettyWriter (white space).
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from tensorgate._native.byte_writer cimport (
    ByteWriter,
    put_byte,
    put_bytes,
    put_text,
    writer_free,
    writer_init,
    writer_reserve,
)
from tensorgate._native.decimal_write cimport (
    MAX_NUMBER_TEXT,
    write_float32,
    write_float64,
    write_int64,
    write_uint64,
)
from tensorgate._native.json_text cimport put_base64, put_json_string
from tensorgate._native.predict_outputs cimport Output, content_size, read_outputs, sort_outputs
from tensorgate._native.proto_wire cimport (
    ProtoReader,
    bytes_left,
    read_bytes,
    read_tag,
    read_varint,
    reader_of,
    skip_field,
)
from tensorgate._native.tensor_scan cimport FIELD_STRING_VAL, MAX_DIMS
from tensorgate._native.tf_c_api cimport (
    DT_BOOL,
    DT_DOUBLE,
    DT_FLOAT,
    DT_INT8,
    DT_INT16,
    DT_INT32,
    DT_INT64,
    DT_STRING,
    DT_UINT32,
    DT_UINT64,
)

cdef enum:
    INDENT = 4
    # A line's end and the indentation behind it, at any depth that can occur, with a comma before.
    MAX_SEPARATOR = 2 + INDENT * (MAX_DIMS + 4)
    SHORT_SEPARATOR = 16
    # Less than this is done before another thread could have taken the GIL and given it back.
    RELEASE_BYTES = 64 * 1024


cdef void _put_line(ByteWriter* out, int depth) noexcept nogil:
    """Begins a new line; depth is how many containers are open there."""
    if writer_reserve(out, 1 + INDENT * depth):
        out.data[out.size] = c"\n"
        memset(out.data + out.size + 1, c" ", INDENT * depth)
        out.size += 1 + INDENT * depth


cdef bint _put_string(ByteWriter* out, Output* output, int depth) noexcept nogil:
    """Writes the next string; depth is how many containers enclose it."""
    cdef uint32_t field = 0, wire_type = 0
    cdef ProtoReader string
    while True:
        if not read_tag(&output.values, &field, &wire_type):
            return False
        if field == FIELD_STRING_VAL:
            break
        if not skip_field(&output.values, field, wire_type):
            return False
    if not read_bytes(&output.values, &string):
        return False
    if not output.is_base64:
        put_json_string(out, string.pos, bytes_left(&string))
        return True
    put_byte(out, c"{")
    _put_line(out, depth + 1)
    put_text(out, b'"b64": "')
    put_base64(out, string.pos, bytes_left(&string))
    put_byte(out, c'"')
    _put_line(out, depth)
    put_byte(out, c"}")
    return True


cdef inline uint8_t* _write_bool(uint8_t* to, bint value) noexcept nogil:
    if value:
        memcpy(to, b"true", 4)
        return to + 4
    memcpy(to, b"false", 5)
    return to + 5


cdef uint8_t* _write_varint_value(uint8_t* to, Output* output) noexcept nogil:
    """The next value of a list of varints; NULL if there is none."""
    cdef uint64_t value
    if not read_varint(&output.values, &value):
        return NULL
    if output.scan.dtype == DT_BOOL:
        return _write_bool(to, value != 0)
    if output.scan.dtype == DT_INT64:
        return write_int64(to, <int64_t>value)
    if output.scan.dtype == DT_UINT32:
        return write_uint64(to, <uint32_t>value)
    if output.scan.dtype == DT_UINT64:
        return write_uint64(to, value)
    return write_int64(to, <int32_t>value)


cdef uint8_t* _write_content_value(uint8_t* to, Output* output) noexcept nogil:
    """The next value of tensor_content, which has as many as there are elements; its bytes need not be aligned."""
    cdef const uint8_t* at = output.values.pos
    cdef int dtype = output.scan.dtype
    cdef float float32
    cdef double float64
    cdef int16_t int16
    cdef int32_t int32
    cdef int64_t int64
    output.values.pos += content_size(dtype)
    if dtype == DT_FLOAT:
        memcpy(&float32, at, 4)
        return write_float32(to, float32)
    if dtype == DT_DOUBLE:
        memcpy(&float64, at, 8)
        return write_float64(to, float64)
    if dtype in (DT_INT64, DT_UINT64):
        memcpy(&int64, at, 8)
        return write_int64(to, int64) if dtype == DT_INT64 else write_uint64(to, <uint64_t>int64)
    if dtype in (DT_INT32, DT_UINT32):
        memcpy(&int32, at, 4)
        return write_int64(to, int32) if dtype == DT_INT32 else write_uint64(to, <uint32_t>int32)
    if dtype == DT_INT16:
        memcpy(&int16, at, 2)
        return write_int64(to, int16)
    if dtype == DT_BOOL:
        return _write_bool(to, at[0] != 0)
    if dtype == DT_INT8:
        return write_int64(to, <int8_t>at[0])
    return write_uint64(to, at[0])


cdef bint _put_scalars(
    ByteWriter* out, Output* output, int64_t count, const uint8_t* separator, size_t separator_size, int depth,
) noexcept nogil:
    """Writes the next values; depth is how many containers enclose each."""
    cdef uint8_t* at
    cdef int64_t i
    if output.scan.dtype == DT_STRING:
        for i in range(count):
            if i:
                put_bytes(out, separator, separator_size)
            if not _put_string(out, output, depth):
                return False
        return not out.failed
    for i in range(count):
        if not writer_reserve(out, MAX_SEPARATOR + MAX_NUMBER_TEXT):
            return False
        at = out.data + out.size
        if i:
            # Mostly a copy of constant size, which is two moves and no call; what is too much is written over.
            if separator_size <= SHORT_SEPARATOR:
                memcpy(at, separator, SHORT_SEPARATOR)
            else:
                memcpy(at, separator, separator_size)
            at += separator_size
        at = _write_content_value(at, output) if output.is_content else _write_varint_value(at, output)
        if at is NULL:
            return False
        out.size = at - out.data
    return not out.failed


cdef bint _put_value(ByteWriter* out, Output* output, int axis, int depth, bint is_one_line) noexcept nogil:
    """Writes what is next along the axes from this one on: a value, or nested lists; depth encloses it.

    Recursive: once for each axis.
    """
    cdef uint8_t separator[MAX_SEPARATOR]
    cdef size_t separator_size = 2
    cdef int64_t size, i
    if axis == output.scan.num_dims:
        return _put_scalars(out, output, 1, NULL, 0, depth)
    size = output.scan.dims[axis]
    put_byte(out, c"[")
    if size == 0:
        put_byte(out, c"]")
        return not out.failed
    separator[0] = c","
    separator[1] = c" "
    if not is_one_line:
        separator_size = 2 + INDENT * (depth + 1)
        separator[1] = c"\n"
        memset(&separator[2], c" ", separator_size - 2)
        put_bytes(out, &separator[1], separator_size - 1)
    if axis == output.scan.num_dims - 1:
        if not _put_scalars(out, output, size, separator, separator_size, depth + 1):
            return False
    else:
        for i in range(size):
            if i:
                put_bytes(out, separator, separator_size)
            if not _put_value(out, output, axis + 1, depth + 1, is_one_line):
                return False
    if not is_one_line:
        _put_line(out, depth)
    put_byte(out, c"]")
    return not out.failed


cdef bint _put_columns(ByteWriter* out, Output** outputs, size_t num_outputs) noexcept nogil:
    cdef size_t i
    put_text(out, b'{\n    "outputs": ')
    if num_outputs == 1:
        if not _put_value(out, outputs[0], 0, 1, False):
            return False
    else:
        put_byte(out, c"{")
        for i in range(num_outputs):
            if i:
                put_byte(out, c",")
            _put_line(out, 2)
            put_json_string(out, outputs[i].name, outputs[i].name_size)
            put_text(out, b": ")
            if not _put_value(out, outputs[i], 0, 2, False):
                return False
        put_text(out, b"\n    }")
    put_text(out, b"\n}")
    return not out.failed


cdef bint _put_rows(ByteWriter* out, Output** outputs, size_t num_outputs) noexcept nogil:
    cdef int64_t num_rows, row
    cdef size_t i
    for i in range(num_outputs):
        if outputs[i].scan.num_dims == 0 or outputs[i].scan.dims[0] != outputs[0].scan.dims[0]:
            return False
    num_rows = outputs[0].scan.dims[0]
    put_text(out, b'{\n    "predictions": [')
    for row in range(num_rows):
        if num_outputs == 1:
            if row:
                put_text(out, b", ")
            if not _put_value(out, outputs[0], 1, 2, True):
                return False
            continue
        put_text(out, b",\n        {" if row else b"\n        {")
        for i in range(num_outputs):
            if i:
                put_byte(out, c",")
            _put_line(out, 3)
            put_json_string(out, outputs[i].name, outputs[i].name_size)
            put_text(out, b": ")
            if not _put_value(out, outputs[i], 1, 3, True):
                return False
        put_text(out, b"\n        }")
    put_text(out, b"\n    ]\n}" if num_rows else b"]\n}")
    return not out.failed


cdef bint _put_reply(ByteWriter* out, ProtoReader message, bint is_row_form) noexcept nogil:
    cdef Output* outputs = NULL
    cdef Output** sorted_outputs = NULL
    cdef size_t num_outputs = 0
    cdef bint is_good = read_outputs(message, &outputs, &num_outputs)
    if is_good:
        sorted_outputs = <Output**>realloc(NULL, num_outputs * sizeof(Output*))
        is_good = sorted_outputs is not NULL and sort_outputs(outputs, num_outputs, sorted_outputs)
    if is_good:
        # A guess, so that little is moved: most numbers take more room as text.
        writer_reserve(out, 2 * bytes_left(&message))
        if is_row_form:
            is_good = _put_rows(out, sorted_outputs, num_outputs)
        else:
            is_good = _put_columns(out, sorted_outputs, num_outputs)
    free(sorted_outputs)
    free(outputs)
    return is_good and not out.failed


def write_reply(response, bint is_row_form):
    cdef Py_buffer buffer
    cdef ByteWriter out
    cdef ProtoReader message
    cdef bint is_good, is_large
    cdef bytes text
    cdef char* to
    writer_init(&out)
    PyObject_GetBuffer(response, &buffer, PyBUF_SIMPLE)
    try:
        message = reader_of(<const uint8_t*>buffer.buf, <size_t>buffer.len)
        is_large = buffer.len > RELEASE_BYTES
        if is_large:
            with nogil:
                is_good = _put_reply(&out, message, is_row_form)
        else:
            is_good = _put_reply(&out, message, is_row_form)
        if not is_good:
            return None
        text = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>out.size)
        to = PyBytes_AS_STRING(text)
        if is_large:
            # New memory is slow to write to for the first time.
            with nogil:
                memcpy(to, out.data, out.size)
        else:
            memcpy(to, out.data, out.size)
        return text
    finally:
        writer_free(&out)
        PyBuffer_Release(&buffer)
