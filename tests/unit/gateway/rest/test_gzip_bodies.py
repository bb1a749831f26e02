"""Bodies in gzip: what is inflated, what is refused, and that answers come back whole."""

import gzip
import zlib

import pytest

from tensorgate.gateway.rest.gzip_bodies import deflate, inflate
from tensorgate.gateway.rest.http_messages import BodyTooLargeError
from tensorgate.protos.status_codes import Code, ServingError

TEXT = b'{"instances": [1.0, 2.0, 5.0]}'


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
        (gzip.compress(TEXT) * 2, "JSON Parse error: The document is empty"),
    ],
)
def test_broken_gzip_is_an_invalid_argument(body: bytes, text: str) -> None:
    with pytest.raises(ServingError, match=text) as caught:
        inflate(body, 1000)
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_gzip_beyond_the_limit_is_not_inflated_to_its_end() -> None:
    with pytest.raises(BodyTooLargeError, match="more than the limit of 100 bytes"):
        inflate(gzip.compress(bytes(100_000_000), 1), 100)


def test_what_is_deflated_is_one_gzip_member() -> None:
    for body in (b"", TEXT * 1000):
        assert gzip.decompress(deflate(body)) == body
        assert inflate(deflate(body), len(body)) == body
    assert len(deflate(TEXT * 1000)) < len(TEXT * 1000) / 10
