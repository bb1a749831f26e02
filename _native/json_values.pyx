"""Reads the JSON values of one tensor into a column, with their shape; numbers never become Python objects.

Part of reading a JSON body (json_request), without the GIL, on any thread. Strict: whatever is not plainly right, or
right but rare, makes the reader give up, and json_parse with json_to_tensors reads the body again and decides.

The dtype is not known yet: the signature may be named behind the tensors. So numbers are kept as int64 as long as all
of a column are integers, and as doubles once one is not; what the dtype makes of them comes later.

Source: RFC 8259; TensorFlow Serving's util/json_tensor.cc for the shape of nested lists.
"""

from libc.stddef cimport size_t
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memset

from tensorgate._native.decimal_read cimport JsonNumber, is_digit, load_eight, read_number
from tensorgate._native.json_text cimport read_escape, utf8_size

cdef enum:
    FIRST_CAPACITY = 64


cdef void column_init(Column* column) noexcept nogil:
    memset(column, 0, sizeof(Column))
    column.rank = -1


cdef void column_free(Column* column) noexcept nogil:
    free(column.values)
    column.values = NULL


cdef bint _grow(Column* column, const JsonReader* reader) noexcept nogil:
    """Makes room for one value or more: for as many as the rest of the text may have, judged by what has been read."""
    cdef size_t element_size = sizeof(JsonString) if column.kind == KIND_STRINGS else 8
    cdef size_t capacity = 2 * column.capacity
    cdef double expected
    cdef void* moved
    if column.capacity == 0:
        capacity = FIRST_CAPACITY
    else:
        expected = (
            1.0625 * <double>column.num_values * <double>(reader.end - reader.start)
            / <double>(reader.at - reader.start + 1)
        )
        # No value takes less than two bytes.
        expected = min(expected, <double>column.num_values + <double>(reader.end - reader.at))
        if expected > <double>capacity:
            capacity = <size_t>expected
    if capacity > <size_t>INT64_MAX // element_size:
        return False
    moved = realloc(column.values, capacity * element_size)
    if moved is NULL:
        return False
    column.values = moved
    column.capacity = capacity
    return True


cdef bint _make_room(Column* column, ColumnKind kind, const JsonReader* reader) noexcept nogil:
    """Lets the column take one more value, of this kind; False if it has some of another, and for want of memory."""
    cdef int64_t* integers
    cdef double* reals
    cdef size_t i
    if column.kind == KIND_UNKNOWN:
        column.kind = kind
    elif column.kind == KIND_INTEGERS and kind == KIND_REALS:
        integers = <int64_t*>column.values
        reals = <double*>column.values
        for i in range(column.num_values):
            reals[i] = <double>integers[i]
        column.kind = KIND_REALS
    elif column.kind != kind and not (column.kind == KIND_REALS and kind == KIND_INTEGERS):
        return False
    return column.num_values < column.capacity or _grow(column, reader)


cdef bint _add_numbers(JsonReader* reader, Column* column, int64_t* count, bint is_in_list) noexcept nogil:
    """Reads one number, or those of a list up to its end; the reader stands on the first, and behind the last then."""
    cdef JsonNumber number
    cdef const uint8_t* at = reader.at
    cdef const uint8_t* end = reader.end
    cdef size_t first = column.num_values, index = first
    cdef ColumnKind kind
    while True:
        at = read_number(at, end, &number)
        if at is NULL:
            return False
        kind = KIND_INTEGERS if number.is_integer else KIND_REALS
        if index == column.capacity or column.kind != kind:
            # For once: most numbers find room, and others of their kind.
            reader.at = at
            column.num_values = index
            if not _make_room(column, kind, reader):
                return False
        if kind == KIND_REALS:
            (<double*>column.values)[index] = number.real
        elif column.kind == KIND_INTEGERS:
            (<int64_t*>column.values)[index] = number.integer
        else:
            (<double*>column.values)[index] = <double>number.integer
        index += 1
        if not is_in_list:
            break
        at = behind_space(at)
        if at[0] == c"]":
            break
        if at[0] != c",":
            return False
        at = behind_space(at + 1)
    reader.at = at
    count[0] += <int64_t>(index - first)
    column.num_values = index
    return True


cdef bint _add_bool(JsonReader* reader, Column* column) noexcept nogil:
    cdef bint value = reader.at[0] == c"t"
    cdef size_t size = 4 if value else 5
    if <size_t>(reader.end - reader.at) < size or memcmp(reader.at, b"true" if value else b"false", size):
        return False
    if not _make_room(column, KIND_BOOLS, reader):
        return False
    (<int64_t*>column.values)[column.num_values] = value
    column.num_values += 1
    reader.at += size
    return True


cdef bint _add_string(JsonReader* reader, Column* column) noexcept nogil:
    cdef JsonString string
    if reader.at[0] == c"{":
        if not read_base64_object(reader, &string):
            return False
    elif not read_string(reader, &string):
        return False
    if not _make_room(column, KIND_STRINGS, reader):
        return False
    (<JsonString*>column.values)[column.num_values] = string
    column.num_values += 1
    return True


cdef bint _add_scalars(JsonReader* reader, Column* column, int64_t* count, bint is_in_list) noexcept nogil:
    """Reads one value that is no list, or those of a list up to its end, where the reader stands then."""
    cdef uint8_t byte
    while True:
        byte = reader.at[0]
        if is_digit(byte) or byte == c"-" or byte == c"N" or byte == c"I":
            # A list that begins with a number has nothing else.
            return _add_numbers(reader, column, count, is_in_list)
        if byte == c'"' or byte == c"{":
            if not _add_string(reader, column):
                return False
        elif byte == c"t" or byte == c"f":
            if not _add_bool(reader, column):
                return False
        else:
            return False
        count[0] += 1
        if not is_in_list:
            return True
        skip_space(reader)
        if reader.at[0] == c"]":
            return True
        if not skip_byte(reader, c","):
            return False
        skip_space(reader)


cdef bint read_value(JsonReader* reader, Column* column) noexcept nogil:
    cdef int64_t counts[MAX_RANK]
    cdef int depth = 0  # how many lists are open
    counts[0] = 0
    column.num_rows += 1
    while True:
        # A value begins here.
        if reader.at[0] == c"[":
            if depth == (MAX_RANK if column.rank < 0 else column.rank):
                return False
            if column.rank < 0:
                column.dims[depth] = -1
            counts[depth] = 0
            depth += 1
            reader.at += 1
            skip_space(reader)
            if reader.at[0] != c"]":
                continue
            # Nothing tells what an empty list would hold: it is the innermost.
            if column.rank < 0:
                column.rank = depth
        else:
            if column.rank < 0:
                column.rank = depth
            elif depth != column.rank:
                return False
            if depth == 0:
                return _add_scalars(reader, column, &counts[0], False)
            if not _add_scalars(reader, column, &counts[depth - 1], True):
                return False
        # A list ends here, and maybe those around it.
        while reader.at[0] == c"]":
            reader.at += 1
            depth -= 1
            if column.dims[depth] < 0:
                column.dims[depth] = counts[depth]
            elif column.dims[depth] != counts[depth]:
                return False
            if depth == 0:
                return True
            counts[depth - 1] += 1
            skip_space(reader)
        if not skip_byte(reader, c","):
            return False
        skip_space(reader)


cdef inline uint64_t _zero_bytes(uint64_t bytes) noexcept nogil:
    """Not 0 if any of the eight bytes is 0."""
    return (bytes - <uint64_t>0x0101010101010101) & ~bytes & <uint64_t>0x8080808080808080


cdef inline const uint8_t* _behind_plain(const uint8_t* at, const uint8_t* end) noexcept nogil:
    """The first quotation mark, backslash or byte below 32; there is one, since a NUL byte stands at the end."""
    cdef uint64_t bytes
    while end - at >= 8:
        bytes = load_eight(at)
        if (
            _zero_bytes(bytes ^ <uint64_t>0x2222222222222222) | _zero_bytes(bytes ^ <uint64_t>0x5C5C5C5C5C5C5C5C)
            | ((bytes - <uint64_t>0x2020202020202020) & ~bytes & <uint64_t>0x8080808080808080)
        ):
            break
        at += 8
    while at[0] >= 0x20 and at[0] != c'"' and at[0] != c"\\":
        at += 1
    return at


cdef bint read_string(JsonReader* reader, JsonString* string) noexcept nogil:
    cdef const uint8_t* at = reader.at + 1
    cdef uint32_t character = 0
    cdef uint32_t saved = 0  # bytes by which the meaning is shorter; every escape is longer than it
    cdef int size
    if reader.at[0] != c'"':
        return False
    string.text = at
    at = _behind_plain(at, reader.end)
    while at[0] == c"\\":
        size = read_escape(at, &character)
        if size == 0:
            return False
        saved += <uint32_t>(size - <int>utf8_size(character))
        at = _behind_plain(at + size, reader.end)
    if at[0] != c'"':
        return False
    string.size = <uint32_t>(at - string.text)
    string.unescaped_size = string.size - saved
    reader.at = at + 1
    return True


cdef bint read_plain_string(JsonReader* reader, JsonString* string) noexcept nogil:
    return read_string(reader, string) and string.unescaped_size == string.size


cdef bint read_name(JsonReader* reader, JsonString* name) noexcept nogil:
    if not read_plain_string(reader, name):
        return False
    skip_space(reader)
    if not skip_byte(reader, c":"):
        return False
    skip_space(reader)
    return True


cdef bint read_base64_object(JsonReader* reader, JsonString* string) noexcept nogil:
    cdef JsonString name
    if not skip_byte(reader, c"{"):
        return False
    skip_space(reader)
    if not read_name(reader, &name) or name.size != 3 or memcmp(name.text, b"b64", 3):
        return False
    if not read_plain_string(reader, string):
        return False
    skip_space(reader)
    string.unescaped_size = BASE64_MARK
    return skip_byte(reader, c"}")
