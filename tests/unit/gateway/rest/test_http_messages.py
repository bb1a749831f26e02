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
    ],
)
def test_broken_gzip_is_an_invalid_argument(body: bytes, text: str) -> None:
    with pytest.raises(ServingError, match=text) as caught:
        inflate(body, 1000)
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_a_second_gzip_member_reads_as_an_empty_body() -> None:
    assert inflate(gzip.compress(TEXT[:10]) + gzip.compress(TEXT[10:]), 1000) == b""


def test_gzip_beyond_the_limit_is_not_inflated_to_its_end() -> None:
    with pytest.raises(BodyTooLargeError, match="more than the limit of 100 bytes"):
        inflate(gzip.compress(bytes(100_000_000), 1), 100)


def test_an_error_is_written_as_pretty_json() -> None:
    answer = error_answer(ServingError(Code.NOT_FOUND, 'no "m", née\n/\udcff'))
    assert (answer.status, answer.content_type) == (404, b"application/json")
    assert answer.body == b'{\n    "error": "no \\"m\\", n\xc3\xa9e\\n/\xff"\n}'
