"""Writes floating-point numbers into JSON with the digits TensorFlow Serving writes.

Last step but one of a response on the REST line; pure, any thread. The exact form of what _native/decimal_write does;
it also takes over should that not be sure of a last digit.
Source: TensorFlow Serving's util/json_tensor.cc (WriteDecimal).
"""

from array import array
from collections.abc import Iterable, Sequence

from tensorgate._native.decimal_write import float32_texts, float64_texts

_NON_FINITE = {"nan": "NaN", "-nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def format_float32(values: Sequence[float]) -> list[str]:
    """The text of each value; every value must be one that a float32 holds exactly.

    Six digits where they read back as the same float32, else nine, which always do.
    """
    texts = float32_texts(values)
    return format_float32_exactly(values) if texts is None else texts


def format_float64(values: Sequence[float]) -> list[str]:
    """The text of each value: six digits where they read back as the same double, else seventeen, which always do."""
    texts = float64_texts(values)
    return format_float64_exactly(values) if texts is None else texts


def format_float32_exactly(values: Sequence[float]) -> list[str]:
    """The same as format_float32, slowly."""
    short = [f"{value:g}" for value in values]
    read_back = array("f", map(float, short))
    return [
        _as_json_number(text if same == value else f"{value:.9g}")
        for value, text, same in zip(values, short, read_back, strict=True)
    ]


def format_float64_exactly(values: Iterable[float]) -> list[str]:
    """The same as format_float64, slowly."""
    texts = []
    for value in values:
        text = f"{value:g}"
        texts.append(_as_json_number(text if float(text) == value else f"{value:.17g}"))
    return texts


def _as_json_number(text: str) -> str:
    """Marks whole numbers as floating point (`3` → `3.0`); the non-finite ones become the bare tokens clients know."""
    if "." in text or "e" in text:
        return text
    return _NON_FINITE.get(text) or f"{text}.0"
