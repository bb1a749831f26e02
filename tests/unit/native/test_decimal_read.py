"""Decimals read without the GIL against Python's float(), bit for bit."""

import json
import math
import random
import struct
from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tensorgate._native.decimal_read import number_from_json


def bits(value: float) -> bytes:
    return struct.pack("<d", value)


def check(text: str) -> None:
    """text is a JSON number with a point or an exponent, the latter not above 308."""
    value = number_from_json(text.encode())
    expected = float(text)
    if math.isinf(expected):
        assert value is None
        return
    assert isinstance(value, float)
    assert bits(value) == bits(expected), text


def between(value: float) -> Fraction:
    """The number exactly between a double and the next larger one."""
    return (Fraction(value) + Fraction(math.nextafter(value, math.inf))) / 2


@given(
    st.booleans(),
    st.one_of(st.just(0), st.integers(0, 10**25)),
    st.text("0123456789", min_size=1, max_size=40),
    st.none() | st.integers(-400, 308),
)
def test_numbers_of_any_length_are_read_as_python_reads_them(
    is_negative: bool, whole: int, fraction: str, exponent: int | None
) -> None:
    check(f"{'-' * is_negative}{whole}.{fraction}{'' if exponent is None else f'e{exponent}'}")


@given(st.integers(0, 2**64), st.integers(-400, 308))
def test_nineteen_digits_and_more_with_any_exponent(digits: int, exponent: int) -> None:
    check(f"{digits}e{exponent}")
    check(f"{digits}E{exponent:+}")


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 30))
def test_what_printf_writes_reads_back(value: float, precision: int) -> None:
    check(f"{value!r}" if "." in repr(value) or "e" in repr(value) else f"{value!r}.0")
    check(f"{value:.{precision}e}")


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_float32_in_the_digits_of_a_double_reads_back(value: float) -> None:
    check(f"{value:.17e}")


@given(
    st.floats(0, 1.7e308, allow_nan=False),
    st.sampled_from([17, 18, 19, 20, 21, 25, 40, 400, 1200]),
)
@example(5e-324, 1200)
@example(0.0, 1200)
@example(2.2250738585072009e-308, 1200)
@example(9007199254740992.0, 1200)
def test_halfway_cases_whole_and_cut_are_rounded_as_python_rounds_them(value: float, precision: int) -> None:
    half = between(value)
    with localcontext() as context:
        context.prec = precision
        decimal = Decimal(half.numerator) / Decimal(half.denominator)
        for neighbour in (decimal, decimal.next_plus(), decimal.next_minus()):
            check(f"{neighbour:e}".replace("e+", "e"))


def test_many_random_doubles_in_several_lengths() -> None:
    generator = random.Random(20261121)
    for pattern in struct.iter_unpack("<d", generator.randbytes(8 * 20_000)):
        value = abs(pattern[0])
        if math.isfinite(value):
            check(f"{value:.{generator.randrange(22)}e}")


@pytest.mark.parametrize(
    "text",
    [
        "5e-324",
        "2.4703282292062327e-324",
        "2.4703282292062328e-324",
        "4.9406564584124654e-324",
        "2.2250738585072011e-308",
        "2.2250738585072014e-308",
        "1.7976931348623157e308",
        "1.7976931348623158e308",
        "1.7976931348623159e308",
        "179769313486231580793728971405303415079934132710037826936173778980444968292764750946649017977587e212",
        "9007199254740993.0",
        "9007199254740992.9999999999999999999999999999",
        "9007199254740993.0000000000000000000000000001",
        "0.500000000000000166533453693773481063544750213623046875",
        "3.2378839133029012895883524125015321748630094096510499e-319",
        "6.8e22",
        "1e22",
        "1e23",
        "0.000000000000000000000000000000000000001e20",
        "1" + "0" * 300 + ".0e-300",
        "0." + "0" * 330 + "1",
        "0." + "0" * 330 + "1e300",
        "0." + "9" * 900,
        "1." + "0" * 900 + "1",
        "0.0e-99999999999999999999",
        "1.5e-99999999999999999999",
        "-0.0",
        "-0e0",
    ],
)
def test_numbers_known_to_be_hard(text: str) -> None:
    check(text)


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_integers_stay_integers(value: int) -> None:
    read = number_from_json(str(value).encode())
    assert type(read) is int
    assert read == value


@pytest.mark.parametrize(
    "text", [str(2**63), str(-(2**63)), str(2**64), "1" * 19 + "9" * 300, "1e309", "0.0e309", "9e308"]
)
def test_what_does_not_fit_is_left_to_others(text: str) -> None:
    assert number_from_json(text.encode()) is None


@given(st.text("0123456789.eE+-xN ", max_size=12))
@example("-0")
@example("1.e5")
@example("01")
@example("123456789012345678901234.567.8")  # what lies behind a long number's token is none of it
def test_only_json_numbers_are_read(text: str) -> None:
    value = number_from_json(text.encode())
    try:
        # Python's reader also knows -Infinity and the like, which these characters cannot spell.
        expected = json.loads(text) if text == text.strip() else None
    except ValueError:
        expected = None
    if value is None:
        assert expected is None or abs(expected) >= 2**63 or "e" in text.lower()
    else:
        assert type(value) is type(expected)
        assert value == expected
