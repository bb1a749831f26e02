"""Floating-point numbers and integers as the text that a JSON reply has them in."""

from libc.stdint cimport int64_t, uint8_t, uint64_t

cdef enum:
    # Room that every function here needs: a text has at most 24 bytes, but is written in larger pieces.
    MAX_NUMBER_TEXT = 48

# Write one number at `to` and return where it ends. Floats: six digits where they read back as the same number, else
# nine (float32) or seventeen (float64); NULL in place of a text whose last digit could not be decided, which no number
# is known to cause: the caller leaves such a number to Python.
cdef uint8_t* write_float32(uint8_t* to, float value) noexcept nogil
cdef uint8_t* write_float64(uint8_t* to, double value) noexcept nogil
cdef uint8_t* write_int64(uint8_t* to, int64_t value) noexcept nogil
cdef uint8_t* write_uint64(uint8_t* to, uint64_t value) noexcept nogil
