"""JSON values read into columns: all values of one tensor, in order, and the shape they have in common."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t

cdef enum:
    MAX_RANK = 32  # of nested lists; deeper ones are left to the exact reader
    MAX_TEXT_SIZE = 0x7FFFFFFF    # of a whole body
    BASE64_MARK = 0x80000000      # the string stood in {"b64": …}; what it is has not been looked at

cdef enum ColumnKind:
    KIND_UNKNOWN = 0   # no value yet
    KIND_INTEGERS = 1  # int64_t
    KIND_REALS = 2     # double: at least one had a point or an exponent
    KIND_BOOLS = 3     # int64_t, 0 or 1
    KIND_STRINGS = 4   # JsonString


cdef struct JsonReader:
    const uint8_t* at
    const uint8_t* start
    const uint8_t* end  # a NUL byte stands here; MAX_TEXT_SIZE bytes behind start at most


cdef struct JsonString:
    # What stands between the quotation marks. There may be one in every three bytes of a body, so it is small.
    const uint8_t* text
    uint32_t size
    uint32_t unescaped_size  # less than size: there are escapes in it, all of them right; or BASE64_MARK


cdef struct Column:
    JsonString name
    ColumnKind kind
    int rank                 # of a row, or of the whole tensor; -1: not known yet
    int64_t dims[MAX_RANK]   # -1: not known yet
    size_t num_rows          # how often read_value has been called
    size_t num_values
    size_t capacity
    void* values             # malloc'ed, eight bytes each or a JsonString


# A column that has nothing yet; free with column_free.
cdef void column_init(Column* column) noexcept nogil
cdef void column_free(Column* column) noexcept nogil

# All of these return False for anything unusual: what is no JSON, what an exact reader would have to look at (null,
# integers beyond int64, …), what does not fit the column (ragged lists, mixed kinds), and no memory. The reader then
# stands anywhere. What they read points into the reader's bytes.

# Reads one value, a scalar or nested lists, behind the column's values; all values read so far have the same shape.
cdef bint read_value(JsonReader* reader, Column* column) noexcept nogil

# Reads a string; the reader stands on its quotation mark, and behind the closing one afterwards. A plain one: without
# escapes, as names are to be.
cdef bint read_string(JsonReader* reader, JsonString* string) noexcept nogil
cdef bint read_plain_string(JsonReader* reader, JsonString* string) noexcept nogil

# Reads {"b64": "…"}; the reader stands on its brace, and behind the closing one afterwards.
cdef bint read_base64_object(JsonReader* reader, JsonString* string) noexcept nogil

# Reads a member's name, its colon and the white space around them.
cdef bint read_name(JsonReader* reader, JsonString* name) noexcept nogil


cdef inline const uint8_t* behind_space(const uint8_t* at) noexcept nogil:
    while at[0] <= c" " and (at[0] == c" " or at[0] == c"\n" or at[0] == c"\r" or at[0] == c"\t"):
        at += 1
    return at


cdef inline void skip_space(JsonReader* reader) noexcept nogil:
    reader.at = behind_space(reader.at)


cdef inline bint skip_byte(JsonReader* reader, uint8_t byte) noexcept nogil:
    """Steps over this byte; False where another one stands."""
    if reader.at[0] != byte:
        return False
    reader.at += 1
    return True
