"""What a JSON value is once it has been read, and the short text about it that error messages quote.

Used by every step of the REST line that looks into a request; pure, any thread.
Source: RapidJSON's PrettyWriter with single-line arrays, as TensorFlow Serving's util/json_tensor.cc uses it.
"""

import math
from collections.abc import Iterable, Iterator
from decimal import Decimal
from json.encoder import encode_basestring
from typing import TypeAlias

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"

# Text beyond this is not written any more; the last token is written whole.
DEBUG_STRING_BYTES = 256
_UINT64_MAX = 2**64 - 1
_INT64_MIN = -(2**63)


class RepeatedKeysObject(dict[str, JsonValue]):
    """An object in which some key occurs more than once: a lookup finds the first, `pairs` has them all.

    The difference matters to base64 objects, which have exactly one member.
    """

    def __init__(self, pairs: list[tuple[str, JsonValue]]) -> None:
        super().__init__(reversed(pairs))
        self.pairs = pairs


def make_object(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    """The object with these members; of those with the same key the first counts."""
    members = dict(pairs)
    return members if len(members) == len(pairs) else RepeatedKeysObject(pairs)


def json_type_name(value: JsonValue) -> str:
    """The kind of a value, in RapidJSON's words."""
    if value is None:
        return "Null"
    if value is True:
        return "True"
    if value is False:
        return "False"
    if isinstance(value, dict):
        return "Object"
    if isinstance(value, list):
        return "Array"
    return "String" if isinstance(value, str) else "Number"


def debug_string(value: JsonValue) -> str:
    """Pretty JSON of the value, arrays on one line, cut after about DEBUG_STRING_BYTES (maybe invalid JSON then)."""
    written: list[str] = []
    num_bytes = 0
    for token in _tokens(value, 0):
        written.append(token)
        num_bytes += len(token)
        if num_bytes > DEBUG_STRING_BYTES:
            break
    return "".join(written)


def _tokens(value: JsonValue, depth: int) -> Iterator[str]:
    """The pieces of the text. Every level writes a character or more, so the cut bounds the depth of this recursion."""
    if isinstance(value, dict):
        members: Iterable[tuple[str, JsonValue]] = (
            value.pairs if isinstance(value, RepeatedKeysObject) else value.items()
        )
        yield "{"
        separator = ""
        for key, member in members:
            yield f"{separator}\n{'    ' * (depth + 1)}{encode_basestring(key)}: "
            yield from _tokens(member, depth + 1)
            separator = ","
        yield f"\n{'    ' * depth}}}" if value else "}"
    elif isinstance(value, list):
        yield "["
        separator = ""
        for element in value:
            yield separator
            yield from _tokens(element, depth + 1)
            separator = ", "
        yield "]"
    else:
        yield _scalar(value)


def _scalar(value: bool | int | float | str | None) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return encode_basestring(value)
    if isinstance(value, int):
        # An integer that 64 bits cannot hold is a double to TensorFlow Serving's parser, and so is its text.
        return str(value) if _INT64_MIN <= value <= _UINT64_MAX else _double(float(value))
    return _double(value)


def _double(value: float) -> str:
    """The shortest digits that read back as the value, laid out as RapidJSON lays them out: 100.0, 1e30, 1.5e-7."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    sign = "-" if math.copysign(1.0, value) < 0 else ""
    if value == 0:
        return f"{sign}0.0"
    _, numbers, exponent = Decimal(repr(abs(value))).normalize().as_tuple()
    digits = "".join(map(str, numbers))
    point = len(digits) + int(exponent)  # where the decimal point stands, counted from the first digit
    if point >= len(digits) and point <= 21:
        return f"{sign}{digits}{'0' * (point - len(digits))}.0"
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{fraction}e{point - 1}"
