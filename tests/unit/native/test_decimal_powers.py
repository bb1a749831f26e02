"""The table of powers of ten against Python's integers."""

from tensorgate._native.decimal_powers import logarithms, power_bits

POWERS = range(-342, 343)


def test_the_bits_are_the_first_128_of_the_power() -> None:
    for exponent in POWERS:
        bits = power_bits(exponent)
        assert bits.bit_length() == 128
        shift = logarithms(exponent)[0] - 127
        numerator, denominator = 10 ** max(exponent, 0), 10 ** max(-exponent, 0)
        # bits * 2**shift, and with one bit more, enclose the power; those rounded up lie above it.
        low, high = (bits - 1, bits) if -27 <= exponent <= -1 else (bits, bits + 1)
        scale_up, scale_down = 2 ** max(shift, 0), 2 ** max(-shift, 0)
        assert low * scale_up * denominator <= numerator * scale_down < high * scale_up * denominator


def test_up_to_the_fifty_fifth_power_the_bits_are_exact() -> None:
    for exponent in range(343):
        is_exact = power_bits(exponent) << max(0, logarithms(exponent)[0] - 127) == 10**exponent << max(
            0, 127 - logarithms(exponent)[0]
        )
        assert is_exact == (exponent <= 55)


def test_the_logarithms_are_rounded_down_for_all_exponents_that_doubles_have() -> None:
    for exponent in range(-1140, 1101):
        _, decimal = logarithms(exponent)
        numerator, denominator = 2 ** max(exponent, 0), 2 ** max(-exponent, 0)
        assert 10 ** max(decimal, 0) * denominator <= numerator * 10 ** max(-decimal, 0)
        assert numerator * 10 ** max(-decimal - 1, 0) < 10 ** max(decimal + 1, 0) * denominator
    for exponent in POWERS:
        binary, _ = logarithms(exponent)
        numerator, denominator = 10 ** max(exponent, 0), 10 ** max(-exponent, 0)
        assert 2 ** max(binary, 0) * denominator <= numerator * 2 ** max(-binary, 0)
        assert numerator * 2 ** max(-binary - 1, 0) < 2 ** max(binary + 1, 0) * denominator
