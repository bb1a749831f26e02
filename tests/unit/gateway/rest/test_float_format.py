"""The digits of floating-point numbers in responses."""

import math
import struct

import pytest

from tensorgate.gateway.rest.float_format import (
    format_float32,
    format_float32_exactly,
    format_float64,
    format_float64_exactly,
)

NON_FINITE = [(math.nan, "NaN"), (-math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity")]


def as_float32(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (9000000, "9e+06"),
        (999999, "999999.0"),
        (0.5, "0.5"),
        (0.0003, "0.0003"),
        (3e-05, "3e-05"),
        (555557.5, "555557.5"),
        (1.0, "1.0"),
        (-0.0, "-0.0"),
        (1e10, "1e+10"),
        (123456789, "123456792.0"),
        (1 / 3, "0.333333343"),
        (16777216, "16777216.0"),
        (123456.7, "123456.703"),
        (0.00012345678, "0.000123456775"),
        (3.4028234663852886e38, "3.40282347e+38"),
        *NON_FINITE,
    ],
)
def test_a_float32_takes_six_digits_or_nine(value: float, text: str) -> None:
    assert format_float32([as_float32(value)]) == format_float32_exactly([as_float32(value)]) == [text]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1.0"),
        (0.1, "0.1"),
        (123456789.0, "123456789.0"),
        (1 / 3, "0.33333333333333331"),
        (1e-30, "1e-30"),
        (1e300, "1e+300"),
        (0.30000001, "0.30000000999999998"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        *NON_FINITE,
    ],
)
def test_a_double_takes_six_digits_or_seventeen(value: float, text: str) -> None:
    assert format_float64([value]) == format_float64_exactly([value]) == [text]
