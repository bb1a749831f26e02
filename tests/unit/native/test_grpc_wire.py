"""The text forms of gRPC against Python's own base64 and urllib, upstream's cut, and anything a client could send."""

import base64
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorgate._native import grpc_wire
from tensorgate.gateway.rpc.status_codes import truncated_message

UNITS_US = {"H": 3600 * 10**6, "M": 60 * 10**6, "S": 10**6, "m": 10**3, "u": 1}


@given(st.integers(0, 99_999_999), st.sampled_from(sorted(UNITS_US)))
def test_a_timeout_of_up_to_eight_digits_is_read_in_every_unit(number: int, unit: str) -> None:
    assert grpc_wire.timeout_us(f"{number}{unit}".encode()) == number * UNITS_US[unit]
    assert grpc_wire.timeout_us(f"{number:08}{unit}".encode()) == number * UNITS_US[unit]


@pytest.mark.parametrize(
    ("text", "expected"), [(b"0n", 0), (b"1n", 1), (b"1000n", 1), (b"1001n", 2), (b"99999999n", 100_000)]
)
def test_nanoseconds_are_rounded_up_to_microseconds(text: bytes, expected: int) -> None:
    assert grpc_wire.timeout_us(text) == expected


@pytest.mark.parametrize(
    "text",
    [b"", b"1", b"S", b"-1S", b"+1S", b" 1S", b"1 S", b"1S ", b"1s", b"1h", b"1.5S", b"123456789S", b"1SS", b"\xb2S"],
)
def test_a_malformed_timeout_is_refused(text: bytes) -> None:
    assert grpc_wire.timeout_us(text) is None


@given(st.binary(max_size=12))
def test_a_timeout_of_any_bytes_is_refused_or_not_negative(text: bytes) -> None:
    timeout = grpc_wire.timeout_us(text)
    assert timeout is None or 0 <= timeout <= 99_999_999 * UNITS_US["H"]


@given(st.binary(max_size=3000))
def test_percent_encoding_leaves_printable_ascii_and_reads_back(message: bytes) -> None:
    encoded = grpc_wire.percent_encoded(message)
    assert urllib.parse.unquote_to_bytes(encoded) == message
    assert all(0x20 <= byte <= 0x7E for byte in encoded)
    unchanged = bytes(byte for byte in message if 0x20 <= byte <= 0x7E and byte != ord("%"))
    assert len(encoded) == len(unchanged) + 3 * (len(message) - len(unchanged))


def test_percent_encoding_writes_upper_case_digits() -> None:
    assert grpc_wire.percent_encoded("50 % of ~é\n\x7f".encode()) == b"50 %25 of ~%C3%A9%0A%7F"


@given(st.text(max_size=40), st.integers(1000, 1030), st.text(max_size=40))
def test_a_status_message_is_cut_as_upstream_cuts_it(begin: str, padding: int, end: str) -> None:
    for message in (begin + end, begin + "a" * padding + end, "a" * padding + end, end * 300):
        encoded = grpc_wire.grpc_message(message.encode("utf-8", "replace"))
        assert urllib.parse.unquote_to_bytes(encoded) == truncated_message(message).encode("utf-8", "replace")


@pytest.mark.parametrize("character", ["a", "é", "€", "𝄞"])
def test_no_character_is_cut_in_half_wherever_the_cut_falls(character: str) -> None:
    for padding in range(1015, 1030):
        message = "x" * padding + character * 10
        cut = urllib.parse.unquote_to_bytes(grpc_wire.grpc_message(message.encode())).decode()
        assert cut == truncated_message(message)


@given(st.binary(max_size=1100))
def test_a_message_that_is_no_utf8_is_cut_to_1024_bytes_or_up_to_three_less(message: bytes) -> None:
    cut = urllib.parse.unquote_to_bytes(grpc_wire.grpc_message(message * 3))
    if len(message * 3) <= 1024:
        assert cut == message * 3
    else:
        kept = cut.removesuffix(b"...TRUNCATED")
        assert len(kept) in range(1021, 1025)
        assert (message * 3).startswith(kept)


def test_continuation_bytes_alone_are_cut_at_the_limit() -> None:
    assert grpc_wire.grpc_message(b"\x80" * 1025) == b"%80" * 1024 + b"...TRUNCATED"


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"application/grpc+", True),
        (b"application/grpc;charset=utf-8", True),
        (b"application/grpc-web", False),
        (b"application/grpc-web+proto", False),
        (b"application/grpcx", False),
        (b"application/grp", False),
        (b"application/json", False),
        (b"", False),
    ],
)
def test_a_content_type_is_that_of_grpc_or_not(content_type: bytes, expected: bool) -> None:
    assert grpc_wire.content_type_is_grpc(content_type) is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"gzip", grpc_wire.GZIP),
        (b"identity", grpc_wire.IDENTITY),
        (b"deflate", grpc_wire.DEFLATE),
        (b"GZIP", 0),
        (b"gzi", 0),
        (b"gzipx", 0),
        (b"", 0),
    ],
)
def test_an_encoding_is_known_by_its_exact_name(value: bytes, expected: int) -> None:
    assert grpc_wire.encoding(value) == expected


@pytest.mark.parametrize(
    ("value", "accepted"),
    [
        (b"identity, deflate, gzip", grpc_wire.GZIP + grpc_wire.DEFLATE),
        (b"gzip", grpc_wire.GZIP),
        (b"gzip,identity", grpc_wire.GZIP),
        (b" \tgzip\t ,", grpc_wire.GZIP),
        (b",,gzip", grpc_wire.GZIP),
        (b"deflate", grpc_wire.DEFLATE),
        (b"identity", 0),
        (b"snappy, gzi p", 0),
        (b"gzip;q=1", 0),
        (b"", 0),
        (b",", 0),
    ],
)
def test_accepted_encodings_are_a_list_that_identity_is_always_in(value: bytes, accepted: int) -> None:
    assert grpc_wire.encodings(value) == grpc_wire.IDENTITY + accepted


@given(st.binary(max_size=60))
def test_accepted_encodings_of_any_bytes_are_a_set(value: bytes) -> None:
    assert grpc_wire.encodings(value) & grpc_wire.IDENTITY


@given(st.binary(max_size=300))
def test_binary_metadata_is_written_without_padding_and_read_with_or_without(value: bytes) -> None:
    padded = base64.b64encode(value)
    unpadded = grpc_wire.base64_unpadded(value)
    assert unpadded == padded.rstrip(b"=")
    assert grpc_wire.bin_header(unpadded) == value
    assert grpc_wire.bin_header(padded) == value


@pytest.mark.parametrize(
    "value",
    [b"A", b"AA=", b"AA===", b"A===", b"====", b"=", b"==", b"AA==AAAA", b"AA AA", b"AAAA\n", b"AA-_", b"AAAA,AAAA"],
)
def test_malformed_binary_metadata_is_refused(value: bytes) -> None:
    assert grpc_wire.bin_header(value) is None


def test_the_unused_bits_of_the_last_digit_are_passed_over_as_grpc_core_does() -> None:
    assert grpc_wire.bin_header(b"AB") == grpc_wire.bin_header(b"AP==") == b"\0"


@given(st.binary(max_size=40) | st.text("AZaz09+/=,", max_size=40).map(str.encode))
def test_binary_metadata_of_any_bytes_is_refused_or_reads_as_base64(value: bytes) -> None:
    decoded = grpc_wire.bin_header(value)
    if decoded is not None:
        digits = value.rstrip(b"=")
        assert decoded == base64.b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
