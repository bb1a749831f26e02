"""Writes numbers into JSON with the digits TensorFlow Serving writes, as gateway/rest/float_format does it in Python.

Last step but one of a reply on the REST line (json_reply); without the GIL, on any thread. All digits of a number come
from one 128-bit product with a power of ten, whose error is known: the first nine or seventeen, what they were cut
from, and so the first six too. Where the product leaves a rounding open, either the number is exactly between two
decimals, which integers can tell, or (never seen) the writer gives up.

Source: TensorFlow Serving's util/json_tensor.cc (WriteDecimal); printf's %g; the tables of decimal_powers.
"""

from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from tensorgate._native.decimal_powers cimport (
    MAX_EXACT_DOUBLE_POWER,
    MAX_EXACT_POWER,
    MIN_ROUNDED_UP_POWER,
    PowerOfTen,
    double_power_of_ten,
    floor_log2_of_power,
    floor_log10_of_power,
    leading_zeros,
    multiply,
    power_of_ten,
    trailing_zeros,
)
from tensorgate._native.decimal_read cimport nearest_double


cdef enum:
    SHORT_DIGITS = 6       # the three limits of _decimal_of go with these
    FLOAT32_DIGITS = 9
    FLOAT64_DIGITS = 17
    DIGITS_SIZE = 20       # any number of digits that a 64-bit integer has

cdef const char* _PAIRS = (
    b"00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445464748"
    b"4950515253545556575859606162636465666768697071727374757677787980818283848586878889909192939495969798"
    b"99"
)


cdef struct Decimal:
    # digits * 10**(exponent - (num_digits - 1)): exponent is that of the first digit.
    uint64_t digits
    int num_digits
    int exponent


cdef struct ScaledNumber:
    uint64_t doubled  # floor(2 * number * 10**power): the last bit is the first one behind the point
    bint is_exact     # nothing was cut off


cdef bint _is_exactly(uint64_t mantissa, int exponent, int power, uint64_t doubled) noexcept nogil:
    """Whether 2 * mantissa * 2**exponent * 10**power == doubled, for a negative power; any other one says no."""
    cdef uint64_t five = 1, product, high
    cdef int num_zeros = trailing_zeros(doubled), _i
    if power < -27 or power >= 0:
        return False  # 5**28 has more bits than any mantissa
    for _i in range(-power):
        five *= 5
    # Both sides as an odd number times a power of two.
    product = multiply(doubled >> num_zeros, five, &high)
    exponent += 1 + trailing_zeros(mantissa)
    return high == 0 and product == mantissa >> trailing_zeros(mantissa) and exponent == num_zeros - power


cdef inline bint _scale(uint64_t mantissa, int exponent, int power, ScaledNumber* scaled) noexcept nogil:
    """mantissa * 2**exponent, times 10**power; the mantissa's highest bit is set, the result below 2**62.

    False: it is too close to the next half to tell on which side it lies.
    """
    cdef const PowerOfTen* factor = power_of_ten(power)
    cdef uint64_t low, middle, top, carry, cut
    cdef int shift
    # Everywhere a lower bound is wanted.
    low = factor.low - (MIN_ROUNDED_UP_POWER <= power < 0)
    low = multiply(mantissa, low, &carry)
    middle = multiply(mantissa, factor.high, &top)
    middle += carry
    top += middle < carry
    shift = -(exponent + floor_log2_of_power(power) - 127 + 1) - 128
    scaled.doubled = top >> shift
    cut = top & ((<uint64_t>1 << shift) - 1)
    if 0 <= power <= MAX_EXACT_POWER:
        scaled.is_exact = (cut | middle | low) == 0
        return True
    # The true product is larger by less than the mantissa, in units of `low`: only a carry into all ones could tell.
    scaled.is_exact = False
    if middle == <uint64_t>-1 and cut == (<uint64_t>1 << shift) - 1:
        scaled.doubled += 1
        scaled.is_exact = True
        return _is_exactly(mantissa, exponent, power, scaled.doubled)
    return True


cdef inline bint _reads_back(const Decimal* short, double value, bint is_float32) noexcept nogil:
    """Whether the nearest double, or the float32 nearest to that, is the value."""
    cdef int power = short.exponent - (short.num_digits - 1)
    cdef double read = <double>short.digits
    if -MAX_EXACT_DOUBLE_POWER <= power < 0:
        read /= double_power_of_ten(-power)
    elif 0 <= power <= MAX_EXACT_DOUBLE_POWER:
        read *= double_power_of_ten(power)
    elif not nearest_double(short.digits, power, &read):
        return False
    return <float>read == <float>value if is_float32 else read == value


cdef inline bint _decimal_of(
    double value, uint64_t mantissa, int exponent, bint is_float32, bint is_normal, Decimal* decimal,
) noexcept nogil:
    """The digits of value = mantissa * 2**exponent > 0: six if they read back, else as many as always do."""
    cdef int num_digits = FLOAT32_DIGITS if is_float32 else FLOAT64_DIGITS
    # Constants where this is inlined, so that the compiler need not divide by them.
    cdef uint64_t limit = <uint64_t>1000000000 if is_float32 else <uint64_t>100000000000000000
    cdef uint64_t unit = <uint64_t>1000 if is_float32 else <uint64_t>100000000000
    cdef uint64_t cut, rest, distance
    cdef ScaledNumber scaled
    cdef Decimal short
    cdef bint is_tail
    cdef int shift = leading_zeros(mantissa)
    mantissa <<= shift
    exponent -= shift
    decimal.num_digits = num_digits
    decimal.exponent = floor_log10_of_power(exponent + 63)
    decimal.exponent += value >= double_power_of_ten(decimal.exponent + 1)
    while True:
        if not _scale(mantissa, exponent, num_digits - 1 - decimal.exponent, &scaled):
            return False
        cut = scaled.doubled >> 1
        # The comparison above was with the double nearest to the power of ten.
        if cut >= limit:
            decimal.exponent += 1
        elif cut < limit // 10:
            decimal.exponent -= 1
        else:
            break
    is_tail = (scaled.doubled & 1) != 0 or not scaled.is_exact
    short.num_digits = SHORT_DIGITS
    short.exponent = decimal.exponent
    short.digits = cut // unit
    rest = cut - short.digits * unit
    if rest > unit // 2 or (rest == unit // 2 and (is_tail or (short.digits & 1) != 0)):
        short.digits += 1
        distance = unit - rest
    else:
        distance = rest
    # What is farther off than the spacing of its numbers cannot read back; this spares most the division.
    if not is_normal or distance <= (cut >> (23 if is_float32 else 52)) + 2:
        if short.digits == 1000000:
            short.digits = 100000
            short.exponent += 1
        if _reads_back(&short, value, is_float32):
            decimal[0] = short
            return True
    # The bit behind the point is a half: with anything behind it up, alone to the even digit.
    decimal.digits = cut + (scaled.doubled & (<uint64_t>(not scaled.is_exact) | cut) & 1)
    if decimal.digits == limit:
        decimal.digits = limit // 10
        decimal.exponent += 1
    return True


cdef inline void _put_pair(uint8_t* to, unsigned int pair) noexcept nogil:
    memcpy(to, _PAIRS + 2 * pair, 2)


cdef inline void _put_eight(uint8_t* to, unsigned int digits) noexcept nogil:
    cdef unsigned int high = digits // 10000, low = digits % 10000
    _put_pair(to, high // 100)
    _put_pair(to + 2, high % 100)
    _put_pair(to + 4, low // 100)
    _put_pair(to + 6, low % 100)


cdef inline void _put_digits(uint8_t* to, uint64_t digits, int num_digits) noexcept nogil:
    """All digits of a number, zeros in front included; num_digits is at most 20."""
    while num_digits >= 8:
        num_digits -= 8
        _put_eight(to + num_digits, <unsigned int>(digits % 100000000))
        digits //= 100000000
    while num_digits >= 2:
        num_digits -= 2
        _put_pair(to + num_digits, <unsigned int>(digits % 100))
        digits //= 100
    if num_digits:
        to[0] = <uint8_t>(c"0" + digits)


cdef inline uint8_t* _put_exponent(uint8_t* to, int exponent) noexcept nogil:
    """A sign and two digits or three."""
    to[0] = c"e"
    to[1] = c"-" if exponent < 0 else c"+"
    to += 2
    if exponent < 0:
        exponent = -exponent
    if exponent >= 100:
        to[0] = <uint8_t>(c"0" + exponent // 100)
        to += 1
        exponent %= 100
    _put_pair(to, <unsigned int>exponent)
    return to + 2


cdef inline uint8_t* _put_decimal(uint8_t* to, const Decimal* decimal) noexcept nogil:
    """As %g lays it out, with `.0` behind what would look like an integer.

    Copies are of a constant size, more than there is to copy, since the compiler makes two or three moves of them.
    """
    cdef uint8_t digits[2 * DIGITS_SIZE]
    cdef int count = decimal.num_digits, exponent = decimal.exponent
    _put_digits(digits, decimal.digits, count)
    while count > 1 and digits[count - 1] == c"0":
        count -= 1
    if exponent < -4 or exponent >= decimal.num_digits:
        to[0] = digits[0]
        if count > 1:
            to[1] = c"."
            memcpy(to + 2, digits + 1, DIGITS_SIZE)
            return _put_exponent(to + count + 1, exponent)
        return _put_exponent(to + 1, exponent)
    if exponent < 0:
        memcpy(to, b"0.000000", 8)
        to += 1 - exponent
        memcpy(to, digits, DIGITS_SIZE)
        return to + count
    memcpy(to, digits, DIGITS_SIZE)
    to += exponent + 1
    to[0] = c"."
    if count <= exponent + 1:
        # The zeros before the point are among the digits.
        to[1] = c"0"
        return to + 2
    memcpy(to + 1, digits + exponent + 1, DIGITS_SIZE)
    return to + count - exponent


cdef inline uint8_t* _put_special(uint8_t* to, bint is_negative, bint is_zero, bint is_nan) noexcept nogil:
    if is_nan:
        memcpy(to, b"NaN", 3)
        return to + 3
    if is_negative:
        to[0] = c"-"
        to += 1
    if is_zero:
        memcpy(to, b"0.0", 3)
        return to + 3
    memcpy(to, b"Infinity", 8)
    return to + 8


cdef uint8_t* write_float32(uint8_t* to, float value) noexcept nogil:
    cdef uint32_t bits
    cdef uint64_t fraction
    cdef int exponent
    cdef bint is_negative
    cdef Decimal decimal
    memcpy(&bits, &value, 4)
    is_negative = bits >> 31
    exponent = (bits >> 23) & 0xFF
    fraction = bits & 0x7FFFFF
    if exponent == 0xFF or (exponent == 0 and fraction == 0):
        return _put_special(to, is_negative, exponent == 0, fraction != 0)
    if is_negative:
        to[0] = c"-"
        to += 1
        value = -value
    if exponent:
        fraction |= 0x800000
    if not _decimal_of(value, fraction, max(exponent, 1) - 150, True, exponent != 0, &decimal):
        return NULL
    return _put_decimal(to, &decimal)


cdef uint8_t* write_float64(uint8_t* to, double value) noexcept nogil:
    cdef uint64_t bits, fraction
    cdef int exponent
    cdef bint is_negative
    cdef Decimal decimal
    memcpy(&bits, &value, 8)
    is_negative = bits >> 63
    exponent = (bits >> 52) & 0x7FF
    fraction = bits & ((<uint64_t>1 << 52) - 1)
    if exponent == 0x7FF or (exponent == 0 and fraction == 0):
        return _put_special(to, is_negative, exponent == 0, fraction != 0)
    if is_negative:
        to[0] = c"-"
        to += 1
        value = -value
    if exponent:
        fraction |= <uint64_t>1 << 52
    if not _decimal_of(value, fraction, max(exponent, 1) - 1075, False, exponent != 0, &decimal):
        return NULL
    return _put_decimal(to, &decimal)


cdef uint8_t* write_uint64(uint8_t* to, uint64_t value) noexcept nogil:
    cdef int count = 1
    cdef uint64_t rest = value // 10
    while rest:
        rest //= 10
        count += 1
    _put_digits(to, value, count)
    return to + count


cdef uint8_t* write_int64(uint8_t* to, int64_t value) noexcept nogil:
    if value < 0:
        to[0] = c"-"
        return write_uint64(to + 1, -<uint64_t>value)
    return write_uint64(to, <uint64_t>value)


# --- for Python -------------------------------------------------------------------------------------------------------

def float32_texts(values):
    cdef uint8_t text[MAX_NUMBER_TEXT]
    cdef uint8_t* end
    cdef double value
    cdef list texts = []
    for value in values:
        end = write_float32(text, <float>value)
        if end is NULL:
            return None
        texts.append(PyUnicode_DecodeASCII(<const char*>text, end - text, NULL))
    return texts


def float64_texts(values):
    cdef uint8_t text[MAX_NUMBER_TEXT]
    cdef uint8_t* end
    cdef double value
    cdef list texts = []
    for value in values:
        end = write_float64(text, value)
        if end is NULL:
            return None
        texts.append(PyUnicode_DecodeASCII(<const char*>text, end - text, NULL))
    return texts
