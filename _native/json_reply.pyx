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
from libc.stdint cimport (
    INT64_MAX,
    int8_t,
    int16_t,
    int32_t,
    int64_t,
    uint8_t,
    uint32_t,
    uint64_t,
)
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memset

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
from tensorgate._native.proto_wire cimport (
    WIRE_BYTES,
    ProtoReader,
    bytes_left,
    is_utf8,
    read_bytes,
    read_tag,
    read_varint,
    reader_of,
    skip_field,
)
from tensorgate._native.tensor_scan cimport (
    FIELD_BOOL_VAL,
    FIELD_DOUBLE_VAL,
    FIELD_FLOAT_VAL,
    FIELD_INT64_VAL,
    FIELD_INT_VAL,
    FIELD_STRING_VAL,
    FIELD_UINT32_VAL,
    FIELD_UINT64_VAL,
    MAX_DIMS,
    TensorScan,
    scan_tensor,
)
from tensorgate._native.tf_c_api cimport (
    DT_BOOL,
    DT_DOUBLE,
    DT_FLOAT,
    DT_INT8,
    DT_INT16,
    DT_INT32,
    DT_INT64,
    DT_STRING,
    DT_UINT8,
    DT_UINT32,
    DT_UINT64,
)

cdef enum:
    MAX_OUTPUTS = 1024
    INDENT = 4
    # A line's end and the indentation behind it, at any depth that can occur, with a comma before.
    MAX_SEPARATOR = 2 + INDENT * (MAX_DIMS + 4)
    SHORT_SEPARATOR = 16
    # Less than this is done before another thread could have taken the GIL and given it back.
    RELEASE_BYTES = 64 * 1024


cdef struct Output:
    const uint8_t* name
    size_t name_size
    TensorScan scan
    size_t num_elements
    bint is_content     # the values are the tensor's own bytes, and not a list of the dtype's field
    bint is_base64      # strings are written as {"b64": …}
    ProtoReader values  # those not written yet: of a list; of strings, the TensorProto's fields


# --- reading ----------------------------------------------------------------------------------------------------------

cdef uint32_t _value_field(int dtype) noexcept nogil:
    """The field that has the values of a dtype; 0 for what JSON cannot carry."""
    if dtype == DT_FLOAT:
        return FIELD_FLOAT_VAL
    if dtype == DT_DOUBLE:
        return FIELD_DOUBLE_VAL
    if dtype in (DT_INT32, DT_INT16, DT_INT8, DT_UINT8):
        return FIELD_INT_VAL
    if dtype == DT_STRING:
        return FIELD_STRING_VAL
    if dtype == DT_INT64:
        return FIELD_INT64_VAL
    if dtype == DT_BOOL:
        return FIELD_BOOL_VAL
    if dtype == DT_UINT32:
        return FIELD_UINT32_VAL
    if dtype == DT_UINT64:
        return FIELD_UINT64_VAL
    return 0


cdef size_t _content_size(int dtype) noexcept nogil:
    """Bytes of a value in tensor_content."""
    if dtype in (DT_DOUBLE, DT_INT64, DT_UINT64):
        return 8
    if dtype in (DT_FLOAT, DT_INT32, DT_UINT32):
        return 4
    return 2 if dtype == DT_INT16 else 1


cdef bint _count_elements(const TensorScan* scan, size_t* num_elements) noexcept nogil:
    cdef int64_t product = 1
    cdef int axis
    if scan.num_dims > MAX_DIMS:
        return False
    for axis in range(scan.num_dims):
        if scan.dims[axis] < 0 or (scan.dims[axis] > 0 and product > INT64_MAX // scan.dims[axis]):
            return False
        product *= scan.dims[axis]
    num_elements[0] = <size_t>product
    return True


cdef bint _count_strings(ProtoReader body, size_t* count) noexcept nogil:
    cdef uint32_t field, wire_type
    cdef ProtoReader inner
    while bytes_left(&body):
        if not read_tag(&body, &field, &wire_type):
            return False
        if field == FIELD_STRING_VAL and wire_type == WIRE_BYTES:
            if not read_bytes(&body, &inner):
                return False
            count[0] += 1
        elif field == FIELD_STRING_VAL or not skip_field(&body, field, wire_type):
            return False
    return True


cdef bint _find_list(ProtoReader body, uint32_t value_field, ProtoReader* values) noexcept nogil:
    """The one packed list of the field; False if there is none, or the values are in several pieces."""
    cdef uint32_t field, wire_type
    cdef bint is_found = False
    while bytes_left(&body):
        if not read_tag(&body, &field, &wire_type):
            return False
        if field == value_field:
            if is_found or wire_type != WIRE_BYTES or not read_bytes(&body, values):
                return False
            is_found = True
        elif not skip_field(&body, field, wire_type):
            return False
    return is_found


cdef size_t _count_varints(const ProtoReader* values) noexcept nogil:
    """How many whole ones there are."""
    cdef size_t count = 0, i
    for i in range(bytes_left(values)):
        count += values.pos[i] < 0x80
    return count


cdef bint _prepare(Output* output) noexcept nogil:
    """Finds an output's values; False if they are not one for each element, or in no ordinary form."""
    cdef TensorScan* scan = &output.scan
    cdef uint32_t field = _value_field(scan.dtype)
    cdef size_t width = _content_size(scan.dtype), count = 0
    output.is_base64 = (
        output.name_size >= 6 and memcmp(output.name + output.name_size - 6, b"_bytes", 6) == 0
    )
    if field == 0 or not _count_elements(scan, &output.num_elements):
        return False
    if output.num_elements == 0:
        return True
    if scan.content_size:
        output.is_content = True
        output.values = reader_of(scan.content, scan.content_size)
        return (
            scan.dtype != DT_STRING and scan.content_size % width == 0
            and scan.content_size // width == output.num_elements
        )
    if field == FIELD_STRING_VAL:
        output.values = scan.body
        return _count_strings(scan.body, &count) and count == output.num_elements
    if not _find_list(scan.body, field, &output.values):
        return False
    if field == FIELD_FLOAT_VAL or field == FIELD_DOUBLE_VAL:
        output.is_content = True  # the list's bytes are the same
        return bytes_left(&output.values) // width == output.num_elements
    return _count_varints(&output.values) == output.num_elements


cdef bint _read_entry(ProtoReader body, Output* output) noexcept nogil:
    """Reads an entry of PredictResponse.outputs."""
    cdef uint32_t field, wire_type
    cdef ProtoReader inner
    cdef bint has_tensor = False
    while bytes_left(&body):
        if not read_tag(&body, &field, &wire_type) or wire_type != WIRE_BYTES or not read_bytes(&body, &inner):
            return False
        if field == 1 and output.name is NULL and is_utf8(inner.pos, bytes_left(&inner)):
            output.name = inner.pos
            output.name_size = bytes_left(&inner)
        elif field == 2 and not has_tensor and scan_tensor(inner, &output.scan):
            has_tensor = True
        else:
            return False
    return has_tensor and output.name is not NULL


cdef int _compare_names(const Output* one, const Output* other) noexcept nogil:
    cdef int order = memcmp(one.name, other.name, min(one.name_size, other.name_size))
    if order:
        return order
    return (one.name_size > other.name_size) - (one.name_size < other.name_size)


cdef bint _read_outputs(ProtoReader message, Output** outputs, size_t* num_outputs) noexcept nogil:
    """Reads all outputs into malloc'ed memory, which is the caller's even if the answer is False."""
    cdef uint32_t field, wire_type
    cdef ProtoReader inner
    cdef size_t capacity = 0
    cdef Output* moved
    while bytes_left(&message):
        if not read_tag(&message, &field, &wire_type):
            return False
        if field != 1:
            if not skip_field(&message, field, wire_type):
                return False
            continue
        if wire_type != WIRE_BYTES or not read_bytes(&message, &inner):
            return False
        if num_outputs[0] == capacity:
            capacity = 2 * capacity if capacity else 1
            if capacity > MAX_OUTPUTS:
                return False
            moved = <Output*>realloc(outputs[0], capacity * sizeof(Output))
            if moved is NULL:
                return False
            outputs[0] = moved
        memset(&outputs[0][num_outputs[0]], 0, sizeof(Output))
        if not _read_entry(inner, &outputs[0][num_outputs[0]]) or not _prepare(&outputs[0][num_outputs[0]]):
            return False
        num_outputs[0] += 1
    return num_outputs[0] > 0


cdef bint _sort(const Output* outputs, size_t num_outputs, Output** sorted_outputs) noexcept nogil:
    """Sorts pointers to the outputs by name; False if two have the same one."""
    cdef size_t i, j
    cdef int order
    for i in range(num_outputs):
        j = i
        while j:
            order = _compare_names(sorted_outputs[j - 1], &outputs[i])
            if order == 0:
                return False
            if order < 0:
                break
            sorted_outputs[j] = sorted_outputs[j - 1]
            j -= 1
        sorted_outputs[j] = <Output*>&outputs[i]
    return True


# --- writing ----------------------------------------------------------------------------------------------------------

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
    output.values.pos += _content_size(dtype)
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
    cdef bint is_good = _read_outputs(message, &outputs, &num_outputs)
    if is_good:
        sorted_outputs = <Output**>realloc(NULL, num_outputs * sizeof(Output*))
        is_good = sorted_outputs is not NULL and _sort(outputs, num_outputs, sorted_outputs)
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
