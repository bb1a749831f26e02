"""Bodies in gzip: those of requests are inflated within a bound, those of answers deflated where it is worth it.

Between the HTTP connection and the handlers; pure, any thread; zlib works without the GIL, so large bodies belong in a
pool. Sources: RFC 1952 (gzip); TensorFlow Serving's util/net_http (which bodies are inflated, and the bound).

Two differences are deliberate: TensorFlow Serving takes a broken or too large gzip body for an empty one, and blames
its JSON. Here broken gzip is a 400 that says so, and a body that is too large is a 413. A body of several members,
which RFC 1952 allows, is refused as it is there. It compresses no answer.
"""

import zlib

from tensorgate.gateway.rest.http_messages import BodyTooLargeError
from tensorgate.protos.status_codes import Code, ServingError

# Below this an answer hardly needs fewer packets when it is compressed.
DEFLATE_FROM_BYTES = 4096
# Numbers in text shrink to less than half at the fastest level; the higher ones cost several times as much for little.
_LEVEL = 1

_GZIP_WINDOW = 16 + zlib.MAX_WBITS  # zlib's way of saying: gzip, and nothing else
_GZIP_MAGIC = b"\x1f\x8b"
_INFLATE_STEP_BYTES = 1024 * 1024


def deflate(body: bytes) -> bytes:
    """The body as one gzip member."""
    stream = zlib.compressobj(_LEVEL, wbits=_GZIP_WINDOW)
    return stream.compress(body) + stream.flush()


def inflate(body: bytes, limit_bytes: int) -> bytes:
    """The content of a gzip body of one member; never holds more than the limit and one step of it.

    Raises ServingError(INVALID_ARGUMENT) for what is not gzip, is cut short or is followed by something else, and
    BodyTooLargeError.
    """
    stream = zlib.decompressobj(_GZIP_WINDOW)
    parts: list[bytes] = []
    num_bytes = 0
    rest = body
    while not stream.eof:
        try:
            part = stream.decompress(rest, _INFLATE_STEP_BYTES)
        except zlib.error as error:
            raise _invalid(f"The request body is not valid gzip data: {error}") from error
        if not part and not rest and not stream.eof:
            raise _invalid("The gzip request body is cut short.")
        num_bytes += len(part)
        if num_bytes > limit_bytes:
            raise BodyTooLargeError(f"The gzip request body inflates to more than the limit of {limit_bytes} bytes.")
        parts.append(part)
        rest = stream.unconsumed_tail
    if stream.unused_data.startswith(_GZIP_MAGIC):
        # Upstream reads a body of several members as an empty one.
        raise _invalid("JSON Parse error: The document is empty")
    if stream.unused_data:
        raise _invalid(f"The gzip request body is followed by {len(stream.unused_data)} bytes that are no part of it.")
    return b"".join(parts)


def _invalid(message: str) -> ServingError:
    return ServingError(Code.INVALID_ARGUMENT, message)
