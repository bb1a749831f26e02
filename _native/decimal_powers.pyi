def power_bits(exponent: int) -> int:
    """The first 128 bits of 10**exponent, cut off; for exponents from -27 to -1 one more than that. For tests."""

def logarithms(exponent: int) -> tuple[int, int]:
    """(floor(log2(10**exponent)), floor(log10(2**exponent))), as readers and writers of decimals compute them."""
