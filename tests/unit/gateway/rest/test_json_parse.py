"""Reading JSON: what is accepted, what it becomes, and the texts and offsets of what is refused."""

import math

import pytest

from tensorgate.gateway.rest.json_parse import parse_json
from tensorgate.gateway.rest.json_reader import read_json
from tensorgate.gateway.rest.json_value import JsonValue, RepeatedKeysObject
from tensorgate.protos.status_codes import Code, ServingError


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": [1, 2.5, true, false, null, "x"]}', {"a": [1, 2.5, True, False, None, "x"]}),
        (b" \t\r\n[ 1 ,\r2 ]\n", [1, 2]),
        (b'{"a": {}, "b": [], "c": [[], {}]}', {"a": {}, "b": [], "c": [[], {}]}),
        (b'{"a": 1} trailing', {"a": 1}),
        (b'{"a": 1}\0\0', {"a": 1}),
        (b"\xef\xbb\xbf[1]", [1]),
        (b"[9223372036854775807, 18446744073709551615]", [2**63 - 1, 2**64 - 1]),
        (b"[-9223372036854775808]", [-(2**63)]),
        (b"[1e2, 1E-2, 0.5e+1]", [100.0, 0.01, 5.0]),
        (b"[1e-400, 0.00001e310]", [0.0, 1e305]),
        (b'["\\u00e9\\n\\"\\\\\\/\\b\\f\\r\\t\\u0000"]', ['é\n"\\/\b\f\r\t\0']),
        (b'["\\ud83d\\ude00"]', ["😀"]),
        (b'["\\ud83d\\ude00", Inf, "\\\\ud800"]', ["😀", math.inf, "\\ud800"]),
        ('["é😀"]'.encode(), ["é😀"]),
        (b'["\xff\xfe"]', ["\udcff\udcfe"]),
        (b"[Infinity, -Infinity]", [math.inf, -math.inf]),
        (b"[Inf, -Inf]", [math.inf, -math.inf]),
        (b"7", 7),
        (b"null", None),
        (b'"s" x', "s"),
    ],
)
def test_legal_documents_are_read(body: bytes, value: JsonValue) -> None:
    assert parse_json(body) == value
    # The reader for hard cases agrees with the quick one.
    text = body.decode("utf-8", errors="surrogateescape")
    assert read_json(text, 1 if text[0] == "\ufeff" else 0) == value


@pytest.mark.parametrize("tail", [b"", b", Inf"])
def test_integers_and_floating_point_are_told_apart(tail: bytes) -> None:
    numbers = parse_json(b"[1, 1.0, 1e0, -0, -0.0" + tail + b"]")
    assert isinstance(numbers, list)
    assert [repr(number) for number in numbers[:5]] == ["1", "1.0", "1.0", "0", "-0.0"]


@pytest.mark.parametrize("body", [b"[NaN]", b"[-NaN]", b"[NaN, Inf]"])
def test_not_a_number_is_a_number(body: bytes) -> None:
    value = parse_json(body)
    assert isinstance(value, list)
    assert isinstance(value[0], float)
    assert math.isnan(value[0])


@pytest.mark.parametrize("tail", [b"", b', "c": -Inf'])
def test_of_equal_keys_the_first_counts(tail: bytes) -> None:
    value = parse_json(b'{"a": 1, "b": 2, "a": 3' + tail + b"}")
    assert isinstance(value, RepeatedKeysObject)
    assert (value["a"], value["b"]) == (1, 2)
    assert [key for key, _ in value.pairs][:3] == ["a", "b", "a"]


@pytest.mark.parametrize(
    ("body", "text", "offset"),
    [
        (b"  ", "The document is empty.", 2),
        (b"garbage", "Invalid value.", 0),
        (b"\xff\xfe{\0", "Invalid value.", 0),
        (b"[1,]", "Invalid value.", 3),
        (b"\xef\xbb\xbf[1,]", "Invalid value.", 6),
        (b"[inf]", "Invalid value.", 1),
        (b"[nan]", "Invalid value.", 2),
        (b"[Infinit]", "Invalid value.", 8),
        (b"[+1]", "Invalid value.", 1),
        (b"[.5]", "Invalid value.", 1),
        (b"[-]", "Invalid value.", 2),
        (b"[tru]", "Invalid value.", 4),
        (b'{"a": }', "Invalid value.", 6),
        (b"[" * 5000, "Invalid value.", 5000),
        (b"[01]", "Missing a comma or ']' after an array element.", 2),
        (b"[0x10]", "Missing a comma or ']' after an array element.", 2),
        (b"[1 2]", "Missing a comma or ']' after an array element.", 3),
        ('["é" 2]'.encode(), "Missing a comma or ']' after an array element.", 6),
        (b'{"a": 1 // c\n}', "Missing a comma or '}' after an object member.", 8),
        (b'{"a": 1', "Missing a comma or '}' after an object member.", 7),
        (b'{"a": 1,}', "Missing a name for object member.", 8),
        (b"{'a': 1}", "Missing a name for object member.", 1),
        (b"{/* c */}", "Missing a name for object member.", 1),
        (b"{1: 2}", "Missing a name for object member.", 1),
        (b'{"a" 1}', "Missing a colon after a name of object member.", 5),
        (b'["abc', "Missing a closing quotation mark in string.", 5),
        (b'["a\0b"]', "Missing a closing quotation mark in string.", 3),
        (b'["a\nb"]', "Invalid escape character in string.", 3),
        (b'["ab\\q"]', "Invalid escape character in string.", 4),
        (b'["a\\u12G4"]', "Incorrect hex digit after \\u escape in string.", 3),
        (b'["\\ud83d"]', "The surrogate pair in string is invalid.", 2),
        (b'["\\ud83dx"]', "The surrogate pair in string is invalid.", 2),
        (b'["\\ude00\\ud83d"]', "The surrogate pair in string is invalid.", 2),
        (b"[5.]", "Miss fraction part in number.", 3),
        (b"[1e]", "Miss exponent in number.", 3),
        (b"[1e+]", "Miss exponent in number.", 4),
        (b"[0, 1e400]", "Number too big to be stored in double.", 4),
        (b"[0, -1E+400]", "Number too big to be stored in double.", 4),
        (b"[1e99999999999999999999]", "Number too big to be stored in double.", 1),
        (b"[" + b"1" * 400 + b"]", "Number too big to be stored in double.", 1),
        (b"[" + b"1" * 5000 + b"]", "Number too big to be stored in double.", 1),
        (b"[" + b"1" * 400 + b".5]", "Number too big to be stored in double.", 1),
    ],
)
def test_illegal_documents_are_refused_with_text_and_offset(body: bytes, text: str, offset: int) -> None:
    with pytest.raises(ServingError) as caught:
        parse_json(body)
    assert caught.value == ServingError(Code.INVALID_ARGUMENT, f"JSON Parse error: {text} at offset: {offset}")


def test_an_empty_body_has_a_text_without_offset() -> None:
    with pytest.raises(ServingError) as caught:
        parse_json(b"")
    assert caught.value == ServingError(Code.INVALID_ARGUMENT, "JSON Parse error: The document is empty")


def test_half_a_million_nested_lists_are_read() -> None:
    value = parse_json(b'{"signature_name": ' + b"[" * 500_000 + b"]" * 500_000 + b"}")
    assert isinstance(value, dict)
    depth = 0
    inner = value["signature_name"]
    while inner:
        assert isinstance(inner, list)
        depth, inner = depth + 1, inner[0]
    assert depth == 499_999
