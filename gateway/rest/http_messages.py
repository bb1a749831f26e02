"""What goes in and out of the REST edge: answers as values, and request bodies read from ASGI and inflated.

Between uvicorn and the handlers; runs on the REST loop. Sources: the ASGI specification (http.request messages);
TensorFlow Serving's util/net_http (which bodies are inflated, and the bound); RFC 1952 (gzip, a series of members).

Three differences are deliberate: TensorFlow Serving takes a broken or too large gzip body, or one of several members,
for an empty one, and blames its JSON. Here broken gzip is a 400 that says so, a body that is too large is a 413, and
all members count.
"""

import zlib
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass
from http import HTTPStatus
from json.encoder import encode_basestring
from typing import Any, TypeAlias

from tensorgate.gateway.rest.status_codes import http_status
from tensorgate.protos.status_codes import Code, ServingError

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

JSON_TYPE = b"application/json"
TEXT_TYPE = b"text/plain; charset=utf-8"
SHUTTING_DOWN_TEXT = "The server is shutting down."

_GZIP_WINDOW = 16 + zlib.MAX_WBITS  # zlib's way of saying: gzip, and nothing else
_GZIP_MAGIC = b"\x1f\x8b"
_INFLATE_STEP_BYTES = 1024 * 1024
_FIRST_PIECE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP response, whole. content_type is None where the header is left out."""

    status: int
    body: bytes = b""
    content_type: bytes | None = None


class BodyTooLargeError(Exception):
    """A request body is beyond a limit; the message names the limit. There is no canonical code for it."""


class ClientDisconnectedError(Exception):
    """The client went away before its request was complete, so nobody waits for an answer."""


def json_answer(body: bytes) -> Answer:
    return Answer(HTTPStatus.OK.value, body, JSON_TYPE)


def error_answer(error: ServingError) -> Answer:
    """The error JSON: the bare message, never cut."""
    return json_error(http_status(error.code), error.message)


def json_error(status: int, message: str) -> Answer:
    text = f'{{\n    "error": {encode_basestring(message)}\n}}'
    return Answer(status, text.encode("utf-8", errors="surrogateescape"), JSON_TYPE)


async def read_body(receive: Receive, limit_bytes: int, announced_bytes: int | None) -> bytes:
    """The whole body of a request.

    announced_bytes is its Content-Length, None without one; a body announced as too large is refused before it is read.
    Raises BodyTooLargeError, ClientDisconnectedError.
    """
    if announced_bytes is not None and announced_bytes > limit_bytes:
        raise BodyTooLargeError(f"The request body has {announced_bytes} bytes, more than the limit of {limit_bytes}.")
    parts: list[bytes] = []
    num_bytes = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnectedError
        part: bytes = message.get("body", b"")
        num_bytes += len(part)
        if num_bytes > limit_bytes:
            raise BodyTooLargeError(f"The request body has more bytes than the limit of {limit_bytes}.")
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def inflate(body: bytes, limit_bytes: int) -> bytes:
    """The content of a gzip body, of all its members; never holds more than the limit and one step of it.

    Raises ServingError(INVALID_ARGUMENT) for what is not gzip, is cut short or is followed by something else, and
    BodyTooLargeError.
    """
    parts: list[bytes] = []
    num_bytes = 0
    for part in _inflated_parts(body):
        num_bytes += len(part)
        if num_bytes > limit_bytes:
            raise BodyTooLargeError(f"The gzip request body inflates to more than the limit of {limit_bytes} bytes.")
        parts.append(part)
    return b"".join(parts)


def _inflated_parts(body: bytes) -> Iterator[bytes]:
    """The content of member after member, in parts of at most _INFLATE_STEP_BYTES."""
    view = memoryview(body)
    begin = 0
    while True:
        stream = zlib.decompressobj(_GZIP_WINDOW)
        # What is left of a piece at its member's end is copied by zlib: a body of tiny members has tiny pieces.
        piece_bytes = _FIRST_PIECE_BYTES
        while True:
            piece = view[begin : begin + piece_bytes]
            piece_bytes = min(2 * piece_bytes, _INFLATE_STEP_BYTES)
            try:
                part = stream.decompress(piece, _INFLATE_STEP_BYTES)
            except zlib.error as error:
                raise ServingError(
                    Code.INVALID_ARGUMENT, f"The request body is not valid gzip data: {error}"
                ) from error
            begin += len(piece) - len(stream.unused_data if stream.eof else stream.unconsumed_tail)
            if part:
                yield part
            if stream.eof:
                break
            if not part and not piece:
                raise ServingError(Code.INVALID_ARGUMENT, "The gzip request body is cut short.")
        if begin == len(body):
            return
        if view[begin : begin + len(_GZIP_MAGIC)] != _GZIP_MAGIC:
            text = f"The gzip request body is followed by {len(body) - begin} bytes that do not belong to it."
            raise ServingError(Code.INVALID_ARGUMENT, text)
