"""A predict's JSON body that has been read: its tensors as columns whose dtypes are still open."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from tensorgate._native.json_values cimport Column, JsonReader, JsonString


cdef struct Document:
    Column* columns
    size_t num_columns
    size_t capacity
    bint has_tensors
    bint is_row_form
    bint is_named          # the columns have names; else there is one, of the signature's only input
    bint has_signature
    JsonString signature


# Reads a body into a document that is all zeros; False for anything unusual. The columns are the caller's either way,
# and their strings point into the reader's bytes.
cdef bint read_document(JsonReader* reader, Document* document) noexcept nogil
cdef void free_columns(Document* document) noexcept nogil
# The column of that name, or NULL; likely is where it would be if members were in the same order everywhere.
cdef Column* find_column(const Document* document, const uint8_t* name, size_t size, size_t likely) noexcept nogil
