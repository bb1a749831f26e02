"""Reads decimals to the nearest double, bit for bit what Python's float() makes of the same text.

Part of reading a JSON body (json_values), without the GIL, on any thread. Three ways, the quickest that is sure: one
multiplication or division of doubles where both operands are exact (Clinger); a 128-bit product with a power of ten,
for up to 19 digits of any size (Eisel and Lemire), which is what float32 printed with 17 digits needs; and the C
library's, in the locale "C", for the few longer ones whose first 19 digits leave it open.

Source: Clinger, How to Read Floating Point Numbers Accurately (1990); Lemire, Number Parsing at a Gigabyte per Second
(2021), sections 6 and 8; IEEE 754 binary64.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.math cimport HUGE_VAL, NAN
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, strncmp

from tensorgate._native.decimal_powers cimport (
    MIN_POWER,
    PowerOfTen,
    floor_log2_of_power,
    leading_zeros,
    multiply,
    power_of_ten,
)


cdef extern from "<locale.h>" nogil:
    ctypedef void* locale_t
    int LC_ALL_MASK
    locale_t newlocale(int mask, const char* name, locale_t base)


cdef extern from "<stdlib.h>" nogil:
    double strtod_l(const char* text, char** end, locale_t locale)


cdef locale_t _c_locale = newlocale(LC_ALL_MASK, "C", NULL)

cdef enum:
    FRACTION_BITS = 52
    MAX_READ_POWER = 308  # one digit times 10**309 is beyond double


cdef bint nearest_double(uint64_t digits, int exponent, double* value) noexcept nogil:
    cdef const PowerOfTen* power
    cdef uint64_t high, low, more_high, fraction, bits
    cdef int shift, upper_bit, binary_exponent
    if digits == 0 or exponent < MIN_POWER:
        value[0] = 0
        return True
    if exponent > MAX_READ_POWER:
        return False
    shift = leading_zeros(digits)
    digits <<= shift
    power = power_of_ten(exponent)
    low = multiply(digits, power.high, &high)
    # The bits kept and the ones that round them are settled, unless all below them are ones: then 64 more count.
    if high & 0x1FF == 0x1FF:
        multiply(digits, power.low, &more_high)
        low += more_high
        if low < more_high:
            high += 1
        if low == <uint64_t>-1 and (exponent < -27 or exponent > 55):
            return False
    upper_bit = <int>(high >> 63)
    # One bit more than a double has, which rounds it.
    fraction = high >> (upper_bit + 64 - FRACTION_BITS - 3)
    binary_exponent = floor_log2_of_power(exponent) + 63 + upper_bit - shift + 1023
    if binary_exponent <= 0:
        if binary_exponent < -62:
            value[0] = 0
            return True
        fraction >>= 1 - binary_exponent
        fraction = (fraction + (fraction & 1)) >> 1
        # What rounds up to the smallest normal number has its bit, and so its exponent, already.
        memcpy(value, &fraction, 8)
        return True
    # Exactly between two doubles, which only these powers allow: to the even one.
    if (
        low <= 1 and -4 <= exponent <= 23 and fraction & 3 == 1
        and fraction << (upper_bit + 64 - FRACTION_BITS - 3) == high
    ):
        fraction &= ~<uint64_t>1
    fraction = (fraction + (fraction & 1)) >> 1
    if fraction >> (FRACTION_BITS + 1):
        fraction >>= 1
        binary_exponent += 1
    if binary_exponent >= 0x7FF:
        return False
    bits = (fraction & ((<uint64_t>1 << FRACTION_BITS) - 1)) | (<uint64_t>binary_exponent << FRACTION_BITS)
    memcpy(value, &bits, 8)
    return True


cdef const uint8_t* read_special_number(const uint8_t* at, bint is_negative, double* value) noexcept nogil:
    if strncmp(<const char*>at, b"Infinity", 8) == 0:
        value[0] = -HUGE_VAL if is_negative else HUGE_VAL
        return at + 8
    if is_negative or strncmp(<const char*>at, b"NaN", 3) != 0:
        return NULL
    value[0] = NAN
    return at + 3


cdef bint nearest_double_of_token(const uint8_t* at, const uint8_t* end, double* value) noexcept nogil:
    cdef const uint8_t* start = at
    cdef char* stopped = NULL
    cdef uint64_t digits = 0
    cdef double next_value = 0
    cdef int num_digits = 0, declared = 0
    cdef Py_ssize_t exponent = 0
    cdef bint is_behind_point = False, is_cut = False, is_exponent_negative
    # Behind the end there may be another point, which is no part of the token.
    while at != end and (is_digit(at[0]) or at[0] == c"."):
        if at[0] == c".":
            is_behind_point = True
        else:
            if num_digits < MAX_DIGITS:
                digits = digits * 10 + (at[0] - c"0")
                num_digits += digits != 0  # leading zeros are no digits that count
                exponent -= is_behind_point
            else:
                is_cut = is_cut or at[0] != c"0"
                exponent += not is_behind_point
        at += 1
    if at != end:
        at += 1
        is_exponent_negative = at[0] == c"-"
        at += at[0] == c"-" or at[0] == c"+"
        while at != end:
            if declared < 100000:
                declared = declared * 10 + (at[0] - c"0")
            at += 1
        exponent += -declared if is_exponent_negative else declared
    # The value lies from these 19 digits to the next ones: where both round to the same double, so does the value.
    if -1000000 < exponent < 1000000 and nearest_double(digits, <int>exponent, value):
        if not is_cut:
            return True
        if nearest_double(digits + 1, <int>exponent, &next_value) and next_value == value[0]:
            return True
    if _c_locale is NULL:
        return False
    value[0] = strtod_l(<const char*>start, &stopped, _c_locale)
    return <const uint8_t*>stopped == end and value[0] != HUGE_VAL


# --- for tests --------------------------------------------------------------------------------------------------------

def number_from_json(bytes text not None):
    cdef JsonNumber number
    cdef const uint8_t* start = <const uint8_t*>PyBytes_AS_STRING(text)
    cdef const uint8_t* end = start + PyBytes_GET_SIZE(text)
    if read_number(start, end, &number) != end:
        return None
    return number.integer if number.is_integer else number.real
