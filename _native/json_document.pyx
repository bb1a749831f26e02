"""Reads the JSON body of a predict into columns of values, one for each tensor that it names.

First of the two steps of json_request, without the GIL, on any thread; what stands inside a tensor is json_values'
part. Strict: whatever is unusual, be it wrong or right, makes it give up.

Source: TensorFlow Serving's util/json_tensor.cc (FillPredictRequestFromJson).
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp

from tensorgate._native.json_values cimport (
    KIND_STRINGS,
    Column,
    JsonReader,
    JsonString,
    column_free,
    column_init,
    read_base64_object,
    read_name,
    read_plain_string,
    read_value,
    skip_byte,
    skip_space,
)

cdef enum:
    MAX_COLUMNS = 1024


cdef Column* _new_column(Document* document) noexcept nogil:
    """NULL: too many, or no memory. Columns met before may have moved."""
    cdef size_t capacity
    cdef Column* columns
    if document.num_columns == document.capacity:
        capacity = 2 * document.capacity if document.capacity else 4
        if capacity > MAX_COLUMNS:
            return NULL
        columns = <Column*>realloc(document.columns, capacity * sizeof(Column))
        if columns is NULL:
            return NULL
        document.columns = columns
        document.capacity = capacity
    column_init(&document.columns[document.num_columns])
    document.num_columns += 1
    return &document.columns[document.num_columns - 1]


cdef void free_columns(Document* document) noexcept nogil:
    cdef size_t i
    for i in range(document.num_columns):
        column_free(&document.columns[i])
    free(document.columns)
    document.columns = NULL
    document.num_columns = document.capacity = 0


cdef Column* find_column(const Document* document, const uint8_t* name, size_t size, size_t likely) noexcept nogil:
    cdef Column* column
    cdef size_t i
    for i in range(document.num_columns):
        column = &document.columns[(likely + i) % document.num_columns]
        if column.name.size == size and memcmp(column.name.text, name, size) == 0:
            return column
    return NULL


cdef bint _read_members(JsonReader* reader, Document* document, size_t row) noexcept nogil:
    """Reads an object whose members are values of columns, each once; row 0 is where the columns come from."""
    cdef JsonString name
    cdef Column* column
    cdef size_t num_members = 0
    reader.at += 1
    skip_space(reader)
    while True:
        if not read_name(reader, &name):
            return False
        column = find_column(document, name.text, name.size, num_members)
        if column is NULL:
            if row:
                return False
            column = _new_column(document)
            if column is NULL:
                return False
            column.name = name
        elif column.num_rows != row:
            return False  # this member was there before
        if not read_value(reader, column):
            return False
        num_members += 1
        skip_space(reader)
        if reader.at[0] == c"}":
            reader.at += 1
            # With a string in it this would be a base64 object, of a form that read_base64_object does not know.
            if num_members == 1 and name.size == 3 and memcmp(name.text, b"b64", 3) == 0:
                return column.kind != KIND_STRINGS and document.num_columns == 1
            return num_members == document.num_columns
        if not skip_byte(reader, c","):
            return False
        skip_space(reader)


cdef bint _read_named_rows(JsonReader* reader, Document* document) noexcept nogil:
    """Reads the list of objects whose first one the reader stands on."""
    cdef size_t row = 0
    while True:
        if reader.at[0] != c"{" or not _read_members(reader, document, row):
            return False
        row += 1
        skip_space(reader)
        if reader.at[0] == c"]":
            reader.at += 1
            return True
        if not skip_byte(reader, c","):
            return False
        skip_space(reader)


cdef bint _is_base64_object(const JsonReader* reader) noexcept nogil:
    cdef JsonReader ahead = reader[0]
    cdef JsonString ignored
    return read_base64_object(&ahead, &ignored)


cdef bint _read_tensors(JsonReader* reader, Document* document) noexcept nogil:
    """Reads what stands behind "instances" or "inputs"."""
    cdef JsonReader ahead
    cdef Column* column
    document.has_tensors = True
    if document.is_row_form:
        if reader.at[0] != c"[":
            return False
        ahead = reader[0]
        ahead.at += 1
        skip_space(&ahead)
        if ahead.at[0] == c"]":
            return False
        # The first row tells what rows are; a base64 object is a value.
        if ahead.at[0] == c"{" and not _is_base64_object(&ahead):
            document.is_named = True
            reader.at = ahead.at
            return _read_named_rows(reader, document)
    elif reader.at[0] == c"{" and not _is_base64_object(reader):
        document.is_named = True
        return _read_members(reader, document, 0)
    # Rows without names are the list they stand in, as one value.
    column = _new_column(document)
    return column is not NULL and read_value(reader, column)


cdef bint read_document(JsonReader* reader, Document* document) noexcept nogil:
    cdef JsonString name
    skip_space(reader)
    if not skip_byte(reader, c"{"):
        return False
    skip_space(reader)
    while True:
        if not read_name(reader, &name):
            return False
        if name.size == 14 and memcmp(name.text, b"signature_name", 14) == 0:
            if document.has_signature or not read_plain_string(reader, &document.signature):
                return False
            document.has_signature = True
        elif (name.size == 9 and memcmp(name.text, b"instances", 9) == 0) or (
            name.size == 6 and memcmp(name.text, b"inputs", 6) == 0
        ):
            if document.has_tensors:
                return False
            document.is_row_form = name.size == 9
            if not _read_tensors(reader, document):
                return False
        else:
            return False
        skip_space(reader)
        if reader.at[0] == c"}":
            break
        if not skip_byte(reader, c","):
            return False
        skip_space(reader)
    reader.at += 1
    skip_space(reader)
    return document.has_tensors and reader.at == reader.end
