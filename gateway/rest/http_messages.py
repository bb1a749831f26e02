"""What goes in and out of the REST edge: the head of a request, and answers, as values.

Between the HTTP connection and the handlers; pure, any thread.
Sources: RFC 9110 (content coding and type); TensorFlow Serving's util/net_http (which headers change what is done).
"""

import re
from dataclasses import dataclass, replace
from json.encoder import encode_basestring

from tensorgate._native import admission
from tensorgate.gateway.dispatch.call import PRIORITY_HEADER
from tensorgate.gateway.rest.status_codes import http_status
from tensorgate.protos.status_codes import Code, ServingError

JSON_TYPE = b"application/json"
TEXT_TYPE = b"text/plain; charset=utf-8"
SHUTTING_DOWN_TEXT = "The server is shutting down."
SHUTTING_DOWN = ServingError(Code.UNAVAILABLE, SHUTTING_DOWN_TEXT)
INTERNAL_ERROR = ServingError(Code.INTERNAL, "Internal error of the server; its log has the details.")

# The names under which serialized protobufs go; there is no registered one.
_PROTOBUF_TYPES = frozenset({b"application/x-protobuf", b"application/protobuf", b"application/vnd.google.protobuf"})
_PRIORITY_HEADER = PRIORITY_HEADER.encode()
_HEADERS_THAT_MATTER = frozenset(
    {
        b"accept-encoding",
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"expect",
        b"host",
        b"origin",
        b"traceparent",
        b"transfer-encoding",
        _PRIORITY_HEADER,
    }
)
_GZIP_HEADERS = ((b"content-encoding", b"gzip"), (b"vary", b"accept-encoding"))
_CHALLENGE = ((b"www-authenticate", b"Bearer"),)
# Of what passes by itself clients are told when to come again, in seconds: there is no smaller number than that.
_PASSING_CODES = frozenset({Code.RESOURCE_EXHAUSTED, Code.UNAVAILABLE})
_RETRY_HEADERS = ((b"retry-after", b"1"),)
_HTTP_ORIGINS = (b"http://", b"https://")
_GZIP_CODING = re.compile(rb"(?:x-)?gzip\s*(?:;\s*q\s*=\s*(?:1(?:\.0*)?|0?\.[0-9]*[1-9][0-9]*))?", re.IGNORECASE)


@dataclass(slots=True)
class Answer:
    """One HTTP response, whole, not to be changed. content_type is None where the header is left out."""

    status: int
    body: bytes = b""
    content_type: bytes | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Besides those of content and connection; names in lower case."""


@dataclass(slots=True)
class RequestHead:
    """A request up to its body: the URL's parts as they were sent, and the few headers that change what is done."""

    verb: str
    raw_path: bytes
    query_string: bytes = b""
    content_length: int | None = None
    is_chunked: bool = False
    protobuf_type: bytes = b""
    """The body's content type, if it says that the body is a serialized message; no other one matters."""
    is_gzip: bool = False
    accepts_gzip: bool = False
    expects_continue: bool = False
    has_http_origin: bool = False
    priority: int = 0
    """RequestMetadata.priority."""
    host: bytes = b""
    origin: bytes = b""
    """These two as they were sent, for who has to know whose page in a browser asks."""
    traceparent: bytes = b""
    """As it was sent; what it says is for those who trace."""

    authorization: bytes | None = None
    """None: there is none; empty: there are several, and nobody can say which one counts."""

    def add_header(self, name: bytes, value: bytes) -> None:
        """Takes notice of one header; ``name`` in any case."""
        name = name.lower()
        if name not in _HEADERS_THAT_MATTER:
            return
        if name == b"content-length":
            self.content_length = int(value)  # digits only: the parser has seen to that
        elif name == b"transfer-encoding":
            self.is_chunked = True  # the only one that the parser lets through
        elif name == b"content-type":
            content_type = value.partition(b";")[0].strip().lower()
            self.protobuf_type = content_type if content_type in _PROTOBUF_TYPES else b""
        elif name == b"content-encoding":
            # This spelling only: a body that says GZIP is taken as it is, as upstream does.
            self.is_gzip = self.is_gzip or b"gzip" in value
        elif name == b"accept-encoding":
            self.accepts_gzip = self.accepts_gzip or any(
                _GZIP_CODING.fullmatch(coding.strip()) for coding in value.split(b",")
            )
        elif name == b"expect":
            self.expects_continue = value.strip().lower() == b"100-continue"
        elif name == b"authorization":
            self.authorization = value if self.authorization is None else b""
        elif name == b"host":
            self.host = value
        elif name == b"traceparent":
            self.traceparent = value.strip()
        elif name == _PRIORITY_HEADER:
            self.priority = admission.priority(value.strip())
        else:  # origin
            self.origin = value
            self.has_http_origin = self.has_http_origin or any(scheme in value for scheme in _HTTP_ORIGINS)


class BodyTooLargeError(Exception):
    """A request body is beyond a limit; the message names the limit. There is no canonical code for it."""


def json_answer(body: bytes) -> Answer:
    return Answer(200, body, JSON_TYPE)


def deflated_answer(body: bytes, content_type: bytes | None) -> Answer:
    """A success whose body is in gzip already."""
    return Answer(200, body, content_type, _GZIP_HEADERS)


def error_answer(error: ServingError) -> Answer:
    """The error JSON: the bare message, never cut."""
    return json_error(http_status(error.code), error.message, _RETRY_HEADERS if error.code in _PASSING_CODES else ())


def access_error(error: ServingError) -> Answer:
    """To a request whose token is not enough, or which has none; UNAUTHENTICATED says what to send."""
    answer = error_answer(error)
    return replace(answer, headers=_CHALLENGE) if error.code is Code.UNAUTHENTICATED else answer


def json_error(status: int, message: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Answer:
    text = f'{{\n    "error": {encode_basestring(message)}\n}}'
    return Answer(status, text.encode("utf-8", errors="surrogateescape"), JSON_TYPE, headers)
