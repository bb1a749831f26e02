"""The text about a JSON value that error messages quote."""

import math

import pytest

from tensorgate.gateway.rest.json_value import JsonValue, debug_string, json_type_name, make_object


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (7, "7"),
        (-(2**63), "-9223372036854775808"),
        (2**64, "18446744073709552000.0"),
        ('a"b\n\x01', '"a\\"b\\n\\u0001"'),
        ("é", '"é"'),
        ([], "[]"),
        ({}, "{}"),
        ([1, [2, "x"]], '[1, [2, "x"]]'),
        ({"a": 1, "b": [1, 2]}, '{\n    "a": 1,\n    "b": [1, 2]\n}'),
        ({"a": {"b": 1}}, '{\n    "a": {\n        "b": 1\n    }\n}'),
        (make_object([("a", 1), ("a", 2)]), '{\n    "a": 1,\n    "a": 2\n}'),
    ],
)
def test_a_value_is_written_as_pretty_json_with_arrays_on_one_line(value: JsonValue, text: str) -> None:
    assert debug_string(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1.0"),
        (-2.5, "-2.5"),
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (100.0, "100.0"),
        (123456.789, "123456.789"),
        (1e20, "100000000000000000000.0"),
        (1e21, "1e21"),
        (1.5e300, "1.5e300"),
        (0.000001, "0.000001"),
        (1.5e-7, "1.5e-7"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (math.nan, "NaN"),
    ],
)
def test_a_double_is_written_with_its_shortest_digits(value: float, text: str) -> None:
    assert debug_string(value) == text


def test_a_long_value_is_cut() -> None:
    assert len(debug_string([0] * 1_000_000)) < 300


def test_a_deep_value_is_cut_before_it_is_walked_down() -> None:
    value: JsonValue = []
    for _ in range(500_000):
        value = [value]
    assert debug_string(value) == "[" * 257


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (None, "Null"),
        (True, "True"),
        (False, "False"),
        ({}, "Object"),
        ([], "Array"),
        ("", "String"),
        (0, "Number"),
        (0.0, "Number"),
    ],
)
def test_kinds_have_their_names(value: JsonValue, name: str) -> None:
    assert json_type_name(value) == name
