"""Request bodies: their limits, and gzip."""

import asyncio
import gzip
import zlib
from collections.abc import Sequence

import pytest

from tensorgate.gateway.rest.http_messages import (
    BodyTooLargeError,
    ClientDisconnectedError,
    Message,
    error_answer,
    inflate,
    read_body,
)
from tensorgate.protos.status_codes import Code, ServingError

ORIGINAL = zlib.decompressobj
TEXT = b'{"instances": [1.0, 2.0, 5.0]}'


def read(messages: Sequence[Message], limit_bytes: int, announced_bytes: int | None = None) -> bytes:
    waiting = iter(messages)

    async def receive() -> Message:
        return next(waiting)

    return asyncio.run(read_body(receive, limit_bytes, announced_bytes))


def part(body: bytes, *, more_body: bool) -> Message:
    return {"type": "http.request", "body": body, "more_body": more_body}


def test_a_body_is_put_together_from_its_parts() -> None:
    assert read([part(b"ab", more_body=True), part(b"c", more_body=False)], limit_bytes=3) == b"abc"


def test_a_body_beyond_the_limit_is_not_collected() -> None:
    with pytest.raises(BodyTooLargeError, match="more bytes than the limit of 3"):
        read([part(b"ab", more_body=True), part(b"cd", more_body=True)], limit_bytes=3)


def test_a_body_announced_beyond_the_limit_is_not_read() -> None:
    with pytest.raises(BodyTooLargeError, match="has 4 bytes"):
        read([], limit_bytes=3, announced_bytes=4)


def test_a_client_that_leaves_in_between_ends_the_reading() -> None:
    with pytest.raises(ClientDisconnectedError):
        read([part(b"ab", more_body=True), {"type": "http.disconnect"}], limit_bytes=3)


def test_gzip_is_inflated() -> None:
    assert inflate(gzip.compress(TEXT), len(TEXT)) == TEXT
    assert inflate(gzip.compress(b""), 0) == b""
    large = bytes(5_000_000)
    assert inflate(gzip.compress(large), len(large)) == large


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "cut short"),
        (gzip.compress(TEXT)[:-10], "cut short"),
        (gzip.compress(TEXT)[:5], "cut short"),
        (gzip.compress(TEXT)[:-8] + bytes(8), "not valid gzip"),
        (zlib.compress(TEXT), "not valid gzip"),
        (TEXT, "not valid gzip"),
        (gzip.compress(TEXT) + b"trailing", "followed by 8 bytes"),
        (gzip.compress(TEXT) * 2 + b"trailing", "followed by 8 bytes"),
        (gzip.compress(TEXT) + gzip.compress(TEXT)[:-10], "cut short"),
        (gzip.compress(TEXT) + gzip.compress(TEXT)[:-8] + bytes(8), "not valid gzip"),
        (gzip.compress(TEXT) + b"\x1f\x8b" + b"\xff" * 20, "not valid gzip"),
    ],
)
def test_broken_gzip_is_an_invalid_argument(body: bytes, text: str) -> None:
    with pytest.raises(ServingError, match=text) as caught:
        inflate(body, 1000)
    assert caught.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize("size", [1, 10, 100_000])
def test_all_members_of_gzip_are_inflated(size: int) -> None:
    content = bytes(range(256)) * 1000
    body = b"".join(gzip.compress(content[begin : begin + size]) for begin in range(0, 20 * size, size))
    assert inflate(body, len(content)) == content[: 20 * size]
    assert inflate(gzip.compress(b"") + gzip.compress(TEXT) + gzip.compress(b""), 1000) == TEXT


def test_members_count_together_towards_the_limit() -> None:
    with pytest.raises(BodyTooLargeError):
        inflate(gzip.compress(bytes(60)) * 2, 100)


def test_a_body_of_very_many_members_is_read_in_one_go() -> None:
    copied = 0

    class Counting:
        """A decompressobj that notes what it leaves over."""

        def __init__(self, window: int) -> None:
            self._stream = ORIGINAL(window)

        def decompress(self, data: memoryview, max_length: int) -> bytes:
            nonlocal copied
            part = self._stream.decompress(data, max_length)
            copied += len(self._stream.unused_data)
            return part

        def __getattr__(self, name: str) -> object:
            return getattr(self._stream, name)

    member = gzip.compress(b"x")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zlib, "decompressobj", Counting)
        assert inflate(member * 5000, 5000) == b"x" * 5000
    # Each leaves over less than one small piece, not the rest of the body.
    assert copied <= 5000 * 4096


def test_gzip_beyond_the_limit_is_not_inflated_to_its_end() -> None:
    with pytest.raises(BodyTooLargeError, match="more than the limit of 100 bytes"):
        inflate(gzip.compress(bytes(100_000_000), 1), 100)


def test_an_error_is_written_as_pretty_json() -> None:
    answer = error_answer(ServingError(Code.NOT_FOUND, 'no "m", née\n/\udcff'))
    assert (answer.status, answer.content_type) == (404, b"application/json")
    assert answer.body == b'{\n    "error": "no \\"m\\", n\xc3\xa9e\\n/\xff"\n}'
