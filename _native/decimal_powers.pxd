"""Powers of ten to 128 bits, and the products with them that reading and writing decimals are made of."""

from libc.stdint cimport uint64_t

cdef extern from *:
    """
    #ifndef TENSORGATE_WIDE_PRODUCTS
    #define TENSORGATE_WIDE_PRODUCTS
    #include <stdint.h>
    static inline uint64_t tensorgate_multiply(uint64_t a, uint64_t b, uint64_t* high) {
      unsigned __int128 product = (unsigned __int128)a * b;
      *high = (uint64_t)(product >> 64);
      return (uint64_t)product;
    }
    static inline int tensorgate_leading_zeros(uint64_t number) { return __builtin_clzll(number); }
    static inline int tensorgate_trailing_zeros(uint64_t number) { return __builtin_ctzll(number); }
    #endif
    """
    # The low half of a 128-bit product; the high half goes to *high.
    uint64_t multiply "tensorgate_multiply" (uint64_t a, uint64_t b, uint64_t* high) noexcept nogil
    # Of a number that is not 0.
    int leading_zeros "tensorgate_leading_zeros" (uint64_t number) noexcept nogil
    int trailing_zeros "tensorgate_trailing_zeros" (uint64_t number) noexcept nogil

cdef enum:
    # Below, 19 digits are less than half the smallest double; above is what the last digit of that double needs.
    MIN_POWER = -342
    MAX_POWER = 342
    MAX_EXACT_POWER = 55         # 5**55 has 128 bits: up to here the table is exact
    MIN_ROUNDED_UP_POWER = -27   # from here to -1 entries are one too large, as the proof behind Eisel-Lemire wants it
    MAX_INTEGER_POWER = 19       # 10**19 is the last power of ten that 64 bits hold
    MAX_EXACT_DOUBLE_POWER = 22  # 10**22 is the last power of ten that a double holds


cdef struct PowerOfTen:
    # The first 128 bits, the highest of them set: cut off, but for the powers named above.
    uint64_t high
    uint64_t low


cdef struct PowerTables:
    PowerOfTen powers[MAX_POWER - MIN_POWER + 1]
    double doubles[MAX_POWER - MIN_POWER + 1]  # the nearest double; 0.0 and infinity beyond them
    uint64_t integers[MAX_INTEGER_POWER + 1]


# Filled when the module is imported, constant from then on.
cdef PowerTables tables


cdef inline const PowerOfTen* power_of_ten(int exponent) noexcept nogil:
    """exponent: from MIN_POWER to MAX_POWER."""
    return &tables.powers[exponent - MIN_POWER]


cdef inline double double_power_of_ten(int exponent) noexcept nogil:
    """exponent: from MIN_POWER to MAX_POWER."""
    return tables.doubles[exponent - MIN_POWER]


cdef inline uint64_t small_power_of_ten(int exponent) noexcept nogil:
    """exponent: from 0 to MAX_INTEGER_POWER."""
    return tables.integers[exponent]


cdef inline int floor_log2_of_power(int exponent) noexcept nogil:
    """floor(log2(10**exponent)): an entry of the table times 2**(this - 127) is its power."""
    return (217706 * exponent) >> 16


cdef inline int floor_log10_of_power(int exponent) noexcept nogil:
    """floor(log10(2**exponent)), for exponents that doubles have."""
    return (78913 * exponent) >> 18
