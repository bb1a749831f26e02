"""Strings in JSON text: escapes on the way out, base64 both ways."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t

from tensorgate._native.byte_writer cimport ByteWriter

# Writes a string between quotation marks, escaped as Python's json does it; bytes above 127 pass as they are.
cdef void put_json_string(ByteWriter* out, const uint8_t* text, size_t size) noexcept nogil

# Writes padded base64.
cdef void put_base64(ByteWriter* out, const uint8_t* data, size_t size) noexcept nogil

# How many bytes padded base64 stands for, by its length and its last two characters; -1 where it cannot be that.
cdef Py_ssize_t base64_decoded_size(const uint8_t* text, size_t size) noexcept nogil

# Decodes padded base64 to as many bytes as base64_decoded_size says; False at a character that is none of its own.
cdef bint decode_base64(const uint8_t* text, size_t size, uint8_t* to) noexcept nogil

# The character that an escape stands for, and how many bytes the escape has; 0 for what is none, half a surrogate pair
# among it. at stands on the backslash; a NUL byte stops it.
cdef int read_escape(const uint8_t* at, uint32_t* character) noexcept nogil

# Bytes of a character in UTF-8.
cdef size_t utf8_size(uint32_t character) noexcept nogil

# Replaces the escapes, all of them right, by what they stand for; to has room for that.
cdef void unescape(const uint8_t* text, size_t size, uint8_t* to) noexcept nogil
