"""The JSON body of a predict becomes a serialized PredictRequest, without a Python object for any value in it.

The quick way of a predict on the REST line, beside the exact one (gateway/rest/predict_request, which calls this): a
body with nothing unusual in it. In two steps, since the model is looked up between them, by the signature's name, which
may stand behind the tensors: read_request reads everything into columns (json_document), serialize gives them the
dtypes of the signature. Integers travel in tensor_content, the rest in typed fields. What is unusual, and every error,
is None: the exact way decides.

Any thread; both steps release the GIL for a body that takes long enough to be worth it.

Source: TensorFlow Serving's util/json_tensor.cc (FillPredictRequestFromJson); apis/predict.proto,
tensorflow/core/framework/tensor.proto (field numbers).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stddef cimport size_t
from libc.stdint cimport (
    INT32_MAX,
    INT32_MIN,
    UINT32_MAX,
    int16_t,
    int32_t,
    int64_t,
    uint8_t,
    uint32_t,
    uint64_t,
)
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from tensorgate._native.byte_writer cimport varint_size
from tensorgate._native.json_document cimport Document, find_column, free_columns, read_document
from tensorgate._native.json_text cimport base64_decoded_size, decode_base64, unescape
from tensorgate._native.json_values cimport (
    BASE64_MARK,
    KIND_BOOLS,
    KIND_INTEGERS,
    KIND_REALS,
    KIND_STRINGS,
    KIND_UNKNOWN,
    MAX_TEXT_SIZE,
    Column,
    JsonReader,
    JsonString,
)
from tensorgate._native.proto_wire cimport MAX_LENGTH, WIRE_BYTES, WIRE_VARINT
from tensorgate._native.tensor_scan cimport (
    FIELD_BOOL_VAL,
    FIELD_DOUBLE_VAL,
    FIELD_DTYPE,
    FIELD_FLOAT_VAL,
    FIELD_STRING_VAL,
    FIELD_TENSOR_CONTENT,
    FIELD_TENSOR_SHAPE,
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
    # Less than this is done before another thread could have taken the GIL and given it back.
    RELEASE_BYTES = 64 * 1024


# --- writing ----------------------------------------------------------------------------------------------------------

cdef struct Input:
    # One entry of PredictRequest.inputs: where its values come from, and the lengths that come before them.
    const Column* column
    const char* name
    size_t name_size
    int dtype
    size_t shape_size
    size_t values_size
    size_t tensor_size
    size_t entry_size


cdef inline size_t _field_size(size_t body_size) noexcept nogil:
    """Bytes of a length-delimited field whose number is below 16: tag, length, body."""
    return 1 + varint_size(body_size) + body_size


cdef size_t _value_size(int dtype) noexcept nogil:
    """Bytes of a number of this dtype in memory; 0 for dtypes that JSON numbers and bools cannot become."""
    if dtype in (DT_FLOAT, DT_INT32, DT_UINT32):
        return 4
    if dtype in (DT_DOUBLE, DT_INT64, DT_UINT64):
        return 8
    if dtype == DT_INT16:
        return 2
    if dtype in (DT_INT8, DT_UINT8, DT_BOOL):
        return 1
    return 0


cdef uint32_t _value_field(int dtype) noexcept nogil:
    """The field for numbers of a dtype: its own one where that has the same bytes as tensor_content."""
    if dtype == DT_FLOAT:
        return FIELD_FLOAT_VAL
    if dtype == DT_DOUBLE:
        return FIELD_DOUBLE_VAL
    if dtype == DT_BOOL:
        return FIELD_BOOL_VAL
    return FIELD_TENSOR_CONTENT


cdef bint _are_all_in(const Column* column, int64_t least, int64_t most) noexcept nogil:
    cdef const int64_t* values = <const int64_t*>column.values
    cdef size_t i
    cdef bint is_outside = False
    for i in range(column.num_values):
        is_outside |= (values[i] < least) | (values[i] > most)
    return not is_outside


cdef bint _has_dtype(const Column* column, int dtype) noexcept nogil:
    """Whether the column's values can become this dtype's, range included."""
    if dtype in (DT_FLOAT, DT_DOUBLE):
        return column.kind in (KIND_UNKNOWN, KIND_INTEGERS, KIND_REALS)
    if dtype == DT_BOOL:
        return column.kind in (KIND_UNKNOWN, KIND_BOOLS)
    if dtype == DT_STRING:
        return column.kind in (KIND_UNKNOWN, KIND_STRINGS)
    if column.kind not in (KIND_UNKNOWN, KIND_INTEGERS):
        return False
    # The narrow ones must fit int32, and then wrap.
    if dtype in (DT_INT32, DT_INT16, DT_INT8, DT_UINT8):
        return _are_all_in(column, INT32_MIN, INT32_MAX)
    if dtype == DT_UINT32:
        return _are_all_in(column, 0, UINT32_MAX)
    if dtype == DT_UINT64:
        return _are_all_in(column, 0, (<uint64_t>1 << 63) - 1)
    return dtype == DT_INT64


cdef Py_ssize_t _string_size(const JsonString* string) noexcept nogil:
    """Bytes of the string itself; -1 for base64 that is not of the plain form."""
    if string.unescaped_size == BASE64_MARK:
        return base64_decoded_size(string.text, string.size)
    return <Py_ssize_t>string.unescaped_size


cdef inline size_t _dim_size(int64_t dim) noexcept nogil:
    return 1 + varint_size(<uint64_t>dim) if dim else 0


cdef bint _measure(Input* entry, bint has_rows) noexcept nogil:
    """Fills in the lengths; False for values that are not the dtype's, and for what no message may be as long as."""
    cdef const Column* column = entry.column
    cdef const JsonString* strings = <const JsonString*>column.values
    cdef Py_ssize_t size
    cdef size_t i
    cdef int axis
    if not _has_dtype(column, entry.dtype):
        return False
    entry.shape_size = _field_size(_dim_size(column.num_rows)) if has_rows else 0
    for axis in range(column.rank):
        entry.shape_size += _field_size(_dim_size(column.dims[axis]))
    entry.values_size = 0
    if entry.dtype == DT_STRING:
        for i in range(column.num_values):
            size = _string_size(&strings[i])
            if size < 0:
                return False
            entry.values_size += _field_size(size)
    elif column.num_values:
        # At most eight bytes for every two of the body: no overflow.
        entry.values_size = _field_size(column.num_values * _value_size(entry.dtype))
    entry.tensor_size = 1 + varint_size(entry.dtype) + _field_size(entry.shape_size) + entry.values_size
    entry.entry_size = _field_size(entry.name_size) + _field_size(entry.tensor_size)
    return entry.entry_size < MAX_LENGTH


cdef inline uint8_t* _store_varint(uint8_t* to, uint64_t value) noexcept nogil:
    while value >= 0x80:
        to[0] = <uint8_t>(value | 0x80)
        to += 1
        value >>= 7
    to[0] = <uint8_t>value
    return to + 1


cdef inline uint8_t* _store_field(uint8_t* to, uint32_t field, size_t body_size) noexcept nogil:
    """The tag and length of a field whose number is below 16."""
    to[0] = <uint8_t>(field << 3 | WIRE_BYTES)
    return _store_varint(to + 1, body_size)


cdef uint8_t* _store_dim(uint8_t* to, int64_t dim) noexcept nogil:
    to = _store_field(to, 2, _dim_size(dim))
    if dim:
        to[0] = 1 << 3 | WIRE_VARINT
        to = _store_varint(to + 1, <uint64_t>dim)
    return to


cdef void _store_values(uint8_t* to, const Column* column, int dtype) noexcept nogil:
    """The values as a tensor has them in memory; the message's bytes need not be aligned, so each goes by memcpy."""
    cdef const int64_t* integers = <const int64_t*>column.values
    cdef const double* reals = <const double*>column.values
    cdef bint is_real = column.kind == KIND_REALS
    cdef size_t i
    cdef float narrow
    cdef double wide
    cdef int32_t integer
    cdef int16_t short_integer
    if dtype == DT_FLOAT:
        for i in range(column.num_values):
            narrow = <float>(reals[i] if is_real else <double>integers[i])
            memcpy(to + 4 * i, &narrow, 4)
    elif dtype == DT_DOUBLE:
        for i in range(column.num_values):
            wide = reals[i] if is_real else <double>integers[i]
            memcpy(to + 8 * i, &wide, 8)
    elif dtype in (DT_INT64, DT_UINT64):
        memcpy(to, integers, 8 * column.num_values)
    elif dtype in (DT_INT32, DT_UINT32):
        for i in range(column.num_values):
            integer = <int32_t>integers[i]
            memcpy(to + 4 * i, &integer, 4)
    elif dtype == DT_INT16:
        for i in range(column.num_values):
            short_integer = <int16_t>integers[i]
            memcpy(to + 2 * i, &short_integer, 2)
    else:  # int8, uint8, bool
        for i in range(column.num_values):
            to[i] = <uint8_t>integers[i]


cdef bint _store_input(uint8_t* to, const Input* entry, bint has_rows) noexcept nogil:
    """Writes the entry to memory of the size that was measured; False for characters that are not base64."""
    cdef const Column* column = entry.column
    cdef const JsonString* strings = <const JsonString*>column.values
    cdef size_t size, i
    cdef int axis
    to = _store_field(to, 2, entry.entry_size)
    to = _store_field(to, 1, entry.name_size)
    memcpy(to, entry.name, entry.name_size)
    to = _store_field(to + entry.name_size, 2, entry.tensor_size)
    to[0] = FIELD_DTYPE << 3 | WIRE_VARINT
    to = _store_varint(to + 1, <uint64_t>entry.dtype)
    # Present even when empty: a scalar has a shape, of rank 0.
    to = _store_field(to, FIELD_TENSOR_SHAPE, entry.shape_size)
    if has_rows:
        to = _store_dim(to, <int64_t>column.num_rows)
    for axis in range(column.rank):
        to = _store_dim(to, column.dims[axis])
    if entry.dtype != DT_STRING:
        if column.num_values:
            to = _store_field(to, _value_field(entry.dtype), column.num_values * _value_size(entry.dtype))
            _store_values(to, column, entry.dtype)
        return True
    for i in range(column.num_values):
        size = <size_t>_string_size(&strings[i])
        to = _store_field(to, FIELD_STRING_VAL, size)
        if strings[i].unescaped_size == BASE64_MARK:
            if not decode_base64(strings[i].text, strings[i].size, to):
                return False
        elif strings[i].unescaped_size < strings[i].size:
            unescape(strings[i].text, strings[i].size, to)
        else:
            memcpy(to, strings[i].text, size)
        to += size
    return True


cdef bint _measure_all(Input* entries, size_t num_entries, bint has_rows, size_t* size) noexcept nogil:
    cdef size_t i
    for i in range(num_entries):
        if not _measure(&entries[i], has_rows):
            return False
        size[0] += _field_size(entries[i].entry_size)
        if size[0] > MAX_LENGTH:
            return False
    return True


cdef bint _store_all(uint8_t* to, const Input* entries, size_t num_entries, bint has_rows) noexcept nogil:
    cdef size_t i
    for i in range(num_entries):
        if not _store_input(to, &entries[i], has_rows):
            return False
        to += _field_size(entries[i].entry_size)
    return True


# --- for Python -------------------------------------------------------------------------------------------------------

cdef class JsonRequest:

    cdef Document _document
    cdef bytes _body  # the strings of the document lie in it

    def __dealloc__(self):
        free_columns(&self._document)

    @property
    def signature_name(self):
        if not self._document.has_signature:
            return ""
        return PyUnicode_DecodeUTF8(
            <const char*>self._document.signature.text, <Py_ssize_t>self._document.signature.size, "surrogateescape")

    @property
    def is_row_form(self):
        return self._document.is_row_form

    cdef const Column* _column(self, bytes name, size_t index) noexcept:
        """The column for the signature's input of that name, its index-th; NULL if there is none."""
        if not self._document.is_named and self._document.num_columns:
            return &self._document.columns[0]
        return find_column(
            &self._document, <const uint8_t*>PyBytes_AS_STRING(name), <size_t>PyBytes_GET_SIZE(name), index)

    def serialize(self, bytes model_spec not None, dict dtypes not None):
        cdef size_t num_entries = len(dtypes), size = 0, prefix_size, i = 0
        cdef bint has_rows = self._document.is_row_form and self._document.is_named
        cdef bint is_large = PyBytes_GET_SIZE(self._body) > RELEASE_BYTES
        cdef bint is_good
        cdef Input* entries
        cdef uint8_t* to
        cdef list names = [alias.encode() for alias in dtypes]
        cdef bytes message, name
        if num_entries == 0 or (not self._document.is_named and num_entries != 1):
            return None
        # Columns that are no inputs are ignored in column form only.
        if has_rows and num_entries != self._document.num_columns:
            return None
        entries = <Input*>calloc(num_entries, sizeof(Input))
        if entries is NULL:
            raise MemoryError
        try:
            for name, dtype in zip(names, dtypes.values()):
                entries[i].column = self._column(name, i)
                if entries[i].column is NULL:
                    return None
                entries[i].name = PyBytes_AS_STRING(name)
                entries[i].name_size = <size_t>PyBytes_GET_SIZE(name)
                entries[i].dtype = dtype
                i += 1
            prefix_size = _field_size(<size_t>PyBytes_GET_SIZE(model_spec))
            size = prefix_size
            if is_large:
                with nogil:
                    is_good = _measure_all(entries, num_entries, has_rows, &size)
            else:
                is_good = _measure_all(entries, num_entries, has_rows, &size)
            if not is_good:
                return None
            message = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>size)
            to = _store_field(
                <uint8_t*>PyBytes_AS_STRING(message), 1, <size_t>PyBytes_GET_SIZE(model_spec))
            memcpy(to, PyBytes_AS_STRING(model_spec), <size_t>PyBytes_GET_SIZE(model_spec))
            to += PyBytes_GET_SIZE(model_spec)
            if is_large:
                with nogil:
                    is_good = _store_all(to, entries, num_entries, has_rows)
                    # Giving much memory back takes a while, and later might be in a thread that has better to do.
                    free_columns(&self._document)
            else:
                is_good = _store_all(to, entries, num_entries, has_rows)
                free_columns(&self._document)
            return message if is_good else None
        finally:
            free(entries)


def read_request(bytes body not None):
    cdef JsonRequest request = JsonRequest.__new__(JsonRequest)
    cdef JsonReader reader
    cdef bint is_good
    if PyBytes_GET_SIZE(body) > MAX_TEXT_SIZE:
        return None
    request._body = body
    reader.at = <const uint8_t*>PyBytes_AS_STRING(body)
    reader.start = reader.at
    reader.end = reader.at + PyBytes_GET_SIZE(body)
    if PyBytes_GET_SIZE(body) > RELEASE_BYTES:
        with nogil:
            is_good = read_document(&reader, &request._document)
    else:
        is_good = read_document(&reader, &request._document)
    return request if is_good else None
