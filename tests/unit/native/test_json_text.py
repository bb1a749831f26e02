"""Strings and base64 in JSON text against Python's json and base64."""

import base64
from json.encoder import encode_basestring

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorgate._native.json_text import base64_bytes, base64_text, json_string, unescaped


@given(st.binary(max_size=100))
def test_strings_are_escaped_as_python_escapes_them(text: bytes) -> None:
    expected = encode_basestring(text.decode("utf-8", "surrogateescape"))
    assert json_string(text) == expected.encode("utf-8", "surrogateescape")


@given(st.text(max_size=60).map(str.encode))
def test_text_in_any_escapes_comes_back(text: bytes) -> None:
    assert unescaped(json_string(text)[1:-1]) == text
    units = text.decode().encode("utf-16-be")
    escapes = "".join(f"\\u{units[at] << 8 | units[at + 1]:04{'xX'[at // 2 % 2]}}" for at in range(0, len(units), 2))
    assert unescaped(escapes.encode()) == text


@pytest.mark.parametrize(
    ("escaped", "text"),
    [(b'\\/\\b\\f\\n\\r\\t\\"\\\\', b'/\b\f\n\r\t"\\'), (b"a\\u0000b", b"a\0b"), (b"\\uD83D\\uDe00!", "😀!".encode())],
)
def test_every_escape_is_known(escaped: bytes, text: bytes) -> None:
    assert unescaped(escaped) == text


@pytest.mark.parametrize(
    "escaped",
    [
        b"\\",
        b"\\x",
        b"\\u",
        b"\\u12",
        b"\\u123g",
        b"\\ud800",
        b"\\ud800x",
        b"\\ud800\\n",
        b"\\ud800\\u0041",
        b"\\udc00",
        b"\\udc00\\ud800",
        b"\\ud800\\ud800",
        b"\\ud800\\udc0",
        b'"',
        b"a\nb",
    ],
)
def test_wrong_escapes_are_left_to_others(escaped: bytes) -> None:
    assert unescaped(escaped) is None


@given(st.binary(max_size=60))
def test_base64_goes_both_ways(data: bytes) -> None:
    assert base64_text(data) == base64.b64encode(data)
    assert base64_bytes(base64.b64encode(data)) == data


@pytest.mark.parametrize(
    "text", [b"A", b"AA", b"AAA", b"AAA.", b"AA==AAAA", b"A===", b"====", b"AA=A", b"AAA-", b"AA A", b"\xff" * 4]
)
def test_what_is_not_plain_base64_is_left_to_others(text: bytes) -> None:
    assert base64_bytes(text) is None


def test_bits_left_over_in_base64_are_ignored() -> None:
    assert base64_bytes(b"AB==") == b"\x00"
    assert base64_bytes(b"AAB=") == b"\x00\x00"


@given(st.binary(max_size=12))
def test_any_bytes_are_base64_or_left_to_others(text: bytes) -> None:
    data = base64_bytes(text)
    if data is not None:
        assert data == base64.b64decode(text, validate=True)
