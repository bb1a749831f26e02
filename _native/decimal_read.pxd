"""Numbers of a JSON text: the token, and the double nearest to it, without the GIL and whatever the locale is."""

from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from tensorgate._native.decimal_powers cimport (
    MAX_EXACT_DOUBLE_POWER,
    double_power_of_ten,
    small_power_of_ten,
    trailing_zeros,
)

cdef enum:
    MAX_DIGITS = 19              # as many as 64 bits hold, whatever they are
    MAX_DECLARED_EXPONENT = 308  # a larger one is an error, or depends on how many digits there are


cdef struct JsonNumber:
    bint is_integer   # written without point and exponent
    int64_t integer   # its value then
    double real       # its value otherwise


# The double nearest to digits * 10**exponent, ties to even. False where that is infinite, or could not be decided.
cdef bint nearest_double(uint64_t digits, int exponent, double* value) noexcept nogil

# The same for a token that has more than MAX_DIGITS digits; `at` stands on its first digit, `end` behind the token, and
# behind that stands a byte that no number goes on with.
cdef bint nearest_double_of_token(const uint8_t* at, const uint8_t* end, double* value) noexcept nogil


# NaN and Infinity, behind a minus if is_negative; where they end, or NULL for other words. A NUL byte stops it.
cdef const uint8_t* read_special_number(const uint8_t* at, bint is_negative, double* value) noexcept nogil


cdef inline bint is_digit(uint8_t byte) noexcept nogil:
    return <uint8_t>(byte - c"0") < 10


cdef inline uint64_t load_eight(const uint8_t* at) noexcept nogil:
    cdef uint64_t bytes
    memcpy(&bytes, at, 8)
    return bytes


cdef inline uint64_t no_digits(uint64_t values) noexcept nogil:
    """Of eight bytes less their "0" (by exclusive or): bit 7 of the first that is no digit is the lowest bit set."""
    return (values | (values + <uint64_t>0x7676767676767676)) & <uint64_t>0x8080808080808080


cdef inline uint64_t eight_digits(uint64_t values) noexcept nogil:
    """The number that eight digits, less their "0", are: pairs, fours, all at a time. The lowest byte is the first."""
    cdef uint64_t mask = <uint64_t>0x000000FF000000FF
    values = values * 10 + (values >> 8)
    return <uint64_t>(<unsigned int>(
        ((values & mask) * <uint64_t>0x000F424000000064 + ((values >> 16) & mask) * <uint64_t>0x0000271000000001) >> 32
    ))


cdef inline const uint8_t* read_digits(const uint8_t* at, const uint8_t* end, uint64_t* digits) noexcept nogil:
    """Appends the digits at `at` to a number, which may overflow; where they end."""
    cdef uint64_t values, others
    cdef int count
    while end - at >= 8:
        values = load_eight(at) ^ <uint64_t>0x3030303030303030
        others = no_digits(values)
        if others == 0:
            digits[0] = digits[0] * <uint64_t>100000000 + eight_digits(values)
            at += 8
            continue
        # What is left in one go: how many it is differs from number to number, so a loop would be mispredicted.
        count = trailing_zeros(others) >> 3
        digits[0] = digits[0] * small_power_of_ten(count) + eight_digits(values << 1 << (63 - 8 * count))
        return at + count
    while is_digit(at[0]):
        digits[0] = digits[0] * 10 + (at[0] - c"0")
        at += 1
    return at


cdef inline Py_ssize_t leading_zero_digits(const uint8_t* at) noexcept nogil:
    """How many zeros a number begins with, its point left out."""
    cdef Py_ssize_t num_zeros = 0
    while at[0] == c"0" or at[0] == c".":
        num_zeros += at[0] == c"0"
        at += 1
    return num_zeros


cdef inline const uint8_t* read_number(const uint8_t* at, const uint8_t* end, JsonNumber* number) noexcept nogil:
    """Reads the number at `at`; where it ends, or NULL.

    A NUL byte must stand at `end`. NULL is for what is no number, and for what is better left to others: integers that
    int64 does not hold, numbers that double does not hold or that name an exponent above 308, and -NaN.
    """
    cdef bint is_negative = at[0] == c"-"
    cdef const uint8_t* first
    cdef const uint8_t* fraction
    cdef uint64_t digits = 0
    cdef Py_ssize_t num_digits
    cdef int exponent = 0, declared = 0
    cdef bint is_exponent_negative
    cdef double value = 0
    at += is_negative
    first = at
    if at[0] == c"0":
        at += 1
        if is_digit(at[0]):
            return NULL
    else:
        while is_digit(at[0]):
            digits = digits * 10 + (at[0] - c"0")
            at += 1
        if at == first:
            number.is_integer = False
            return read_special_number(at, is_negative, &number.real)
    num_digits = at - first
    number.is_integer = at[0] != c"." and at[0] | 0x20 != c"e"
    if number.is_integer:
        # Nineteen digits do not overflow 64 bits, so that the test of their value is sound.
        if num_digits > MAX_DIGITS or digits > <uint64_t>INT64_MAX:
            return NULL
        number.integer = -<int64_t>digits if is_negative else <int64_t>digits
        return at
    if at[0] == c".":
        at += 1
        fraction = at
        at = read_digits(at, end, &digits)
        if at == fraction or at - fraction > 100000:
            return NULL
        num_digits += at - fraction
        exponent = -<int>(at - fraction)
    if at[0] | 0x20 == c"e":
        at += 1
        is_exponent_negative = at[0] == c"-"
        at += at[0] == c"-" or at[0] == c"+"
        if not is_digit(at[0]):
            return NULL
        while is_digit(at[0]):
            if declared < 100000:
                declared = declared * 10 + (at[0] - c"0")
            at += 1
        if is_exponent_negative:
            exponent -= declared
        elif declared > MAX_DECLARED_EXPONENT:
            return NULL
        else:
            exponent += declared
    if num_digits > MAX_DIGITS and first[0] == c"0":
        num_digits -= leading_zero_digits(first)
    if num_digits > MAX_DIGITS:
        if not nearest_double_of_token(first, at, &value):
            return NULL
    elif digits <= <uint64_t>1 << 53 and -MAX_EXACT_DOUBLE_POWER <= exponent <= MAX_EXACT_DOUBLE_POWER:
        # Both are doubles exactly, so one operation rounds once.
        value = <double>digits
        if exponent < 0:
            value /= double_power_of_ten(-exponent)
        else:
            value *= double_power_of_ten(exponent)
    elif not nearest_double(digits, exponent, &value):
        return NULL
    number.real = -value if is_negative else value
    return at
