"""What is known of a head, and which data are a whole request with it."""

import pytest

from tensorgate.gateway.rest.http_messages import RequestHead
from tensorgate.gateway.rest.known_head import KnownHead, known_head

HEAD = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\ncontent-length: %d\r\nAccept: */*\r\n\r\n"


def request(body: bytes) -> bytes:
    return HEAD % len(body) + body


def know(data: bytes, content_length: int | None = 5) -> KnownHead | None:
    head = RequestHead("POST", b"/v1/models/m:predict", content_length=content_length)
    return known_head(data, head)


@pytest.mark.parametrize("body", [b"", b"12345", b"1" * 1000, b"\r\n\r\n"])
def test_a_request_that_differs_in_its_body_only_is_known(body: bytes) -> None:
    known = know(request(b"12345"))
    assert known is not None
    assert known.body_of(request(body)) == body


@pytest.mark.parametrize(
    "data",
    [
        b"",
        request(b"12345")[:-1],
        request(b"12345") + b"G",
        request(b"12345").replace(b"Host: x", b"Host: y"),
        request(b"12345").replace(b"Accept", b"Bccept"),
        request(b"12345").replace(b": 5", b": 6"),
        request(b"12345").replace(b": 5", b": +5"),
        request(b"12345").replace(b": 5", b": "),
        request(b"12345").replace(b": 5", b": 5 "),
        request(b"12345").replace(b": 5", b": 00000000000005"),
        request(b"12345")[:60],
    ],
)
def test_anything_else_is_not(data: bytes) -> None:
    known = know(request(b"12345"))
    assert known is not None
    assert known.body_of(data) is None


@pytest.mark.parametrize(
    ("data", "content_length"),
    [
        (request(b"12345"), None),
        (request(b"12345"), 4),
        (request(b"12345").replace(b": 5", b":  5"), 5),
        (request(b"12345").replace(b"\r\n", b"\n"), 5),
        (b"POST / HTTP/1.1\r\n", 5),
    ],
)
def test_of_a_head_that_is_odd_nothing_is_known(data: bytes, content_length: int | None) -> None:
    assert know(data, content_length) is None
