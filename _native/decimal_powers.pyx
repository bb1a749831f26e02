"""Powers of ten to 128 bits: one table for reading decimals (decimal_read) and for writing them (decimal_write).

Computed from Python's integers when the module is imported (about a millisecond), read without the GIL by any thread
from then on.

Source: Lemire, Number Parsing at a Gigabyte per Second (2021), section 5: which 128 bits.
"""


def power_bits(exponent):
    # All of it in Python's integers, which have no end.
    if exponent >= 0:
        power = 5 ** exponent
        shift = 128 - power.bit_length()
        return power << shift if shift >= 0 else power >> -shift
    power = 5 ** -exponent
    # A power of five above 1 is no power of two: 2**shift // power has exactly 128 bits.
    bits = (1 << (power.bit_length() + 127)) // power
    return bits + 1 if exponent >= MIN_ROUNDED_UP_POWER else bits


def logarithms(int exponent):
    return floor_log2_of_power(exponent), floor_log10_of_power(exponent)


cdef void _fill():
    cdef int exponent
    cdef object bits
    for exponent in range(MIN_POWER, MAX_POWER + 1):
        bits = power_bits(exponent)
        tables.powers[exponent - MIN_POWER].high = bits >> 64
        tables.powers[exponent - MIN_POWER].low = bits & 0xFFFFFFFFFFFFFFFF
        tables.doubles[exponent - MIN_POWER] = float(f"1e{exponent}")
    tables.integers[0] = 1
    for exponent in range(1, MAX_INTEGER_POWER + 1):
        tables.integers[exponent] = 10 * tables.integers[exponent - 1]


_fill()
