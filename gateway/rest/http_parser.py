"""An HTTP connection's bytes to requests: httptools' parser, and what it leaves to be done.

Of http_connection, which gives it the bytes and takes the requests. It does not see what known_head recognizes. On the
REST loop.

Sources: RFC 9112 (framing), httptools (parser.pyi, llhttp's leniencies).
"""

import logging
import re
from http import HTTPStatus
from typing import Protocol

import httptools

from tensorgate.gateway.rest.http_messages import RequestHead

logger = logging.getLogger("tensorgate.rest")

_REQUEST_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ \S+ HTTP/1\.[01]\r?")


class RequestTaker(Protocol):
    """What is told of the requests that are read, in the order of their parts, from within ``RequestParser.feed``."""

    is_deaf: bool
    """It wants to be told nothing more."""

    def take_begin(self) -> None:
        """A request has begun to arrive."""
        ...

    def take_head(self, head: RequestHead, refusal: HTTPStatus | None, *, keep_alive: bool, is_http_1_0: bool) -> None:
        """Its headers are complete. ``refusal``: it is to be answered with that, whatever it asks for."""
        ...

    def take_body(self, body: bytes) -> None:
        """The next piece of its body."""
        ...

    def take_end(self) -> None:
        """It is complete."""
        ...

    def refuse_plainly(self, status: HTTPStatus) -> None:
        """What arrives is no HTTP; the parser takes nothing more."""
        ...


class RequestParser:
    """Reads one connection's requests, one after the other."""

    def __init__(self, taker: RequestTaker, max_head_bytes: int) -> None:
        """``max_head_bytes`` bounds a request's URL and headers."""
        self._taker = taker
        self._max_head_bytes = max_head_bytes
        self._parser = httptools.HttpRequestParser(self)
        # A bare line feed ends a header's line, as RFC 9112 2.2 allows and upstream has it.
        self._parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True)
        self._url = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._head = RequestHead("", b"")  # of the current request
        self._is_in_head = False
        self._is_between = True  # two requests
        self._is_like_most = False  # the current request: it says nothing that changes how the connection is read
        self._has_left_off = False  # the parser, between the current request's head and its body: see _read_on
        self._is_reading_on = False
        self._num_begun = 0
        self._has_moved = False  # since the last feed began: something was told
        self._num_idle_bytes = 0  # taken in without bringing the current request forward

    def feed(self, data: bytes, *, begins: bool) -> RequestHead | None:
        """Parses the data. The head of the request, if they were exactly one that is like most.

        ``begins``: nothing of a request has come before them.
        """
        if begins:
            data = _with_whole_line_end(data)
        num_begun = self._num_begun
        self._has_moved = False
        try:
            self._feed(data)
        except httptools.HttpParserInvalidMethodError:
            # The parser knows the registered methods only.
            line = data.partition(b"\n")[0]
            is_request = begins and self._num_begun == num_begun + 1 and _REQUEST_LINE.fullmatch(line)
            self._taker.refuse_plainly(HTTPStatus.NOT_IMPLEMENTED if is_request else HTTPStatus.BAD_REQUEST)
        except httptools.HttpParserCallbackError:
            logger.exception("a request could not be read, by a fault of the server")
            self._taker.refuse_plainly(HTTPStatus.INTERNAL_SERVER_ERROR)
        except httptools.HttpParserError:
            self._taker.refuse_plainly(HTTPStatus.BAD_REQUEST)
        if self._taker.is_deaf:
            return None
        if not self._has_moved:
            # Part of a header, of a chunk's extension, of a trailer: the parser keeps it until it is whole.
            self._num_idle_bytes += len(data)
            if self._num_idle_bytes > self._max_head_bytes:
                self._taker.refuse_plainly(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return None
        self._num_idle_bytes = 0
        is_one = begins and self._is_between and self._num_begun == num_begun + 1
        return self._head if is_one and self._is_like_most else None

    def _feed(self, data: bytes) -> None:
        while True:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                # No other protocol is spoken here: the request is served in this one, and so is what follows.
                data = data[upgrade.args[0] :]
                if self._has_left_off:
                    self._read_on()
                if data and not self._taker.is_deaf:
                    continue
            return

    def _read_on(self) -> None:
        """Has the parser read the body of a request that offers to change the protocol, as Java's HttpClient does.

        The parser leaves off after such a head. A head without the offer, which nobody sees, brings it back.
        """
        length = self._head.content_length or 0
        framing = b"transfer-encoding: chunked" if self._head.is_chunked else b"content-length: %d" % length
        self._is_reading_on = True
        self._parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n\r\n")
        self._is_reading_on = False
        self._has_left_off = False

    # --- httptools' calls, in the order of a request ------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """httptools."""
        if self._is_reading_on or self._taker.is_deaf:
            return
        self._has_moved = True
        self._is_between = False
        self._is_in_head = True
        self._num_begun += 1
        self._url = b""
        self._fields = []
        self._taker.take_begin()

    def on_url(self, url: bytes) -> None:
        """httptools; in pieces where the URL came in pieces."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools; also for trailers, which nobody reads."""
        if self._is_in_head:
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """httptools."""
        if self._is_reading_on or self._taker.is_deaf:
            return
        self._has_moved = True
        self._is_in_head = False
        parser = self._parser
        verb = parser.get_method().decode("ascii")
        refusal = None
        head = _request_head(verb, self._url)
        if head is None:
            head = RequestHead(verb, self._url)
            refusal = HTTPStatus.BAD_REQUEST
        else:
            num_head_bytes = len(self._url)
            for name, value in self._fields:
                num_head_bytes += len(name) + len(value)
                head.add_header(name, value)
            if num_head_bytes > self._max_head_bytes:
                refusal = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        is_http_1_0 = parser.get_http_version() == "1.0"
        is_upgrade = parser.should_upgrade()
        self._head = head
        self._is_like_most = refusal is None and not (is_http_1_0 or is_upgrade)
        self._has_left_off = is_upgrade and bool(head.content_length or head.is_chunked)
        keep_alive = parser.should_keep_alive() and verb != "CONNECT"
        self._taker.take_head(head, refusal, keep_alive=keep_alive, is_http_1_0=is_http_1_0)

    def on_body(self, body: bytes) -> None:
        """httptools."""
        if not self._taker.is_deaf:
            self._has_moved = True
            self._taker.take_body(body)

    def on_message_complete(self) -> None:
        """httptools."""
        if not (self._has_left_off or self._taker.is_deaf):
            self._has_moved = True
            self._is_between = True
            self._taker.take_end()


def _request_head(verb: str, url: bytes) -> RequestHead | None:
    """The URL's parts; None for a URL that cannot be understood."""
    if url.startswith(b"/"):
        path, _, query = url.partition(b"#")[0].partition(b"?")
        return RequestHead(verb, path, query)
    if url == b"*" or verb == "CONNECT":
        return RequestHead(verb, url)
    # The absolute form, which clients send to proxies.
    try:
        parsed = httptools.parse_url(url)
    except httptools.HttpParserInvalidURLError:
        return None
    return RequestHead(verb, parsed.path or b"/", parsed.query or b"")


def _with_whole_line_end(data: bytes) -> bytes:
    """The first bytes of a request, whose first line ends as the parser wants it: it is lenient about the others."""
    end = data.find(b"\n")
    return data[:end] + b"\r" + data[end:] if end > 0 and data[end - 1 : end] != b"\r" else data
