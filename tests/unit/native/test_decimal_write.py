"""Floating-point numbers as text against the same in Python, which takes the digits from printf's algorithm."""

import math
import random
import struct
from array import array

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tensorgate._native.decimal_write import float32_texts, float64_texts
from tensorgate.gateway.rest.float_format import format_float32_exactly, format_float64_exactly


def float32(value: float) -> float:
    return array("f", [value])[0]


@given(st.floats(width=32))
@example(1e10)
@example(16777216.0)
@example(float32(1e-45))
@example(float32(3.4028234663852886e38))
def test_a_float32_is_written_as_python_writes_it(value: float) -> None:
    assert float32_texts([value, -value]) == format_float32_exactly([value, -value])


@given(st.floats())
@example(5e-324)
@example(1.7976931348623157e308)
@example(1e22)
@example(1e23)
def test_a_double_is_written_as_python_writes_it(value: float) -> None:
    assert float64_texts([value, -value]) == format_float64_exactly([value, -value])


@given(st.integers(0, 10**12), st.integers(-60, 60))
def test_numbers_with_few_digits_are_written_as_python_writes_them(digits: int, exponent: int) -> None:
    value = float(f"{digits}e{exponent}")
    assert float64_texts([value]) == format_float64_exactly([value])
    if value < 1e38:
        assert float32_texts([float32(value)]) == format_float32_exactly([float32(value)])


@given(st.integers(1, 2**53), st.integers(-80, 80), st.integers(0, 22))
def test_numbers_exactly_between_two_decimals_go_to_the_even_one(mantissa: int, exponent: int, fives: int) -> None:
    # Few factors but two and five: such numbers end soon in decimal, often with a 5 where they are cut.
    value = float(mantissa * 5**fives) * 2.0**exponent
    assert float64_texts([value]) == format_float64_exactly([value])
    short = float32(float(mantissa % 2**12 * 5 ** (fives % 6)) * 2.0**exponent)
    assert float32_texts([short]) == format_float32_exactly([short])


@pytest.mark.parametrize("value", [10.0**exponent for exponent in range(-320, 309)])
def test_powers_of_ten_and_their_neighbours(value: float) -> None:
    values = [value, math.nextafter(value, 0), math.nextafter(value, math.inf)]
    assert float64_texts(values) == format_float64_exactly(values)
    if value < 1e38:
        pattern = struct.unpack("<I", struct.pack("<f", value))[0]
        near = [struct.unpack("<f", struct.pack("<I", pattern + step))[0] for step in (0, 1, -1) if pattern + step >= 0]
        assert float32_texts(near) == format_float32_exactly(near)


def test_many_random_bit_patterns() -> None:
    generator = random.Random(20261121)
    singles = array("f", generator.randbytes(4 * 200_000)).tolist()
    assert float32_texts(singles) == format_float32_exactly(singles)
    doubles = array("d", generator.randbytes(8 * 100_000)).tolist()
    assert float64_texts(doubles) == format_float64_exactly(doubles)
    scores = [generator.random() for _ in range(100_000)]
    assert float64_texts(scores) == format_float64_exactly(scores)
    short_scores = array("f", scores).tolist()
    assert float32_texts(short_scores) == format_float32_exactly(short_scores)


def test_all_exponents_of_float32() -> None:
    values = [
        struct.unpack("<f", struct.pack("<I", exponent << 23 | fraction))[0]
        for exponent in range(256)
        for fraction in (0, 1, 2, 0x400000, 0x555555, 0x7FFFFE, 0x7FFFFF)
    ]
    assert float32_texts(values) == format_float32_exactly(values)


def test_values_are_rounded_to_float32_first() -> None:
    assert float32_texts([0.1, 1e300, -1e-300]) == ["0.1", "Infinity", "-0.0"]
