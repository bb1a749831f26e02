"""One HTTP/1.1 connection: bytes to requests, requests to the application one after the other, answers to bytes.

First stage of the REST line after the server's listener; one object for each connection, on the REST loop, an
asyncio.Protocol on httptools' parser. There is no ASGI in between: for small requests it costs more than all of this.

Requests of a connection wait in a queue and are answered in their order. The first of them may still be arriving: an
answer that needs no body, a refusal too, is written at once, and what of the body still comes is read and dropped.
Nobody is waited for without end: neither for a head, a body or the next request, nor for a client that does not take
its answer.

Sources: RFC 9112 (framing, 9.6: why a closing server reads on for a while), RFC 9110 (10.1.1 Expect, 15.5 statuses),
httptools (parser.pyi, llhttp's leniencies).
"""

import asyncio
import logging
import re
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import Enum
from functools import partial
from http import HTTPStatus
from typing import Any, Protocol, TypeAlias, cast

import httptools

from tensorgate.gateway.dispatch.call import Cancellable
from tensorgate.gateway.rest.http_head import CONTINUE, DateHeader, answer_head
from tensorgate.gateway.rest.http_messages import SHUTTING_DOWN_TEXT, TEXT_TYPE, Answer, RequestHead, json_error
from tensorgate.gateway.rest.known_head import KnownHead, known_head

logger = logging.getLogger("tensorgate.rest")

# After a refusal, what the client still sends is read and dropped for so long: closing with bytes unread would have the
# kernel reset the connection, and the client might never see the answer.
LINGER_S = 1.0
# So many requests may be known of before the first of them is answered; then the client is not read from.
_MAX_WAITING = 1
# After so many bytes at once the loop gets to see to others: by itself it would read 32 times before it looks up, which
# of a large body is 8 MiB, and takes longer than any probe waits when several of them come together.
_GIVE_WAY_BYTES = 128 * 1024
# Answers up to this size are put into one piece with their head.
_JOIN_BYTES = 16 * 1024
_REQUEST_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ \S+ HTTP/1\.[01]\r?")

# Takes the body in the pieces in which it came: putting a large one together takes longer than a small request.
BodyHandler: TypeAlias = Callable[[list[bytes]], Coroutine[Any, Any, Answer]]
Begun: TypeAlias = Answer | BodyHandler


# Takes a whole body, and what to call once with the answer, later, on the loop, also after a cancel. None: nothing has
# been done, and the application is to ``begin`` with the request as with any other.
BeginQuickly: TypeAlias = Callable[[bytes, Callable[[Answer], None]], Cancellable | None]


class Application(Protocol):
    """What answers requests; all on the REST loop."""

    max_body_bytes: int
    """Bound of a body as it is sent."""

    def begin(self, head: RequestHead) -> Begun:
        """The answer where the body does not matter, else what makes the answer of the body. Raises nothing.

        The coroutine is cancelled when the client goes away or the server's grace is over; it may answer even so.
        """
        ...

    def quick(self, head: RequestHead) -> BeginQuickly | None:
        """A quicker way for requests with this head, which are likely to come again. Raises nothing."""
        ...

    def refuse_body(self, head: RequestHead, num_bytes: int | None) -> Answer:
        """The answer to a body beyond max_body_bytes; num_bytes where the client has told. Raises nothing."""
        ...


@dataclass(frozen=True, slots=True)
class ArrivalLimits:
    """How long a client may keep a connection waiting, in seconds."""

    headers_s: float = 20.0
    """From the connection, or a later request's first byte, to the end of the headers."""
    body_s: float = 30.0
    """From one byte of the body to the next."""
    idle_s: float = 60.0
    """Between two requests."""
    answer_s: float = 60.0
    """Without taking any byte of its answer."""
    max_head_bytes: int = 64 * 1024
    """Bound of a request's URL and headers."""


class _Receiving(Enum):
    """What of a request is awaited from the client."""

    FIRST_BYTE = "a request, on a new connection"
    HEADERS = "the rest of the headers"
    BODY = "the rest of the body"
    NOTHING = "nothing: a request is complete, or the connection idles"


class _Request:
    """One request, from the end of its headers to its answer."""

    __slots__ = ("answer", "expects_continue", "handler", "head", "is_complete", "is_http_1_0", "keep_alive", "parts")

    def __init__(self, head: RequestHead, *, keep_alive: bool, is_http_1_0: bool) -> None:
        self.head = head
        self.keep_alive = keep_alive
        self.is_http_1_0 = is_http_1_0
        self.expects_continue = head.expects_continue and not is_http_1_0
        self.parts: list[bytes] = []
        self.is_complete = False
        self.handler: BodyHandler | None = None
        self.answer: Answer | None = None
        """Set as soon as it is known; it then waits for the answers before it."""


class HttpConnection(asyncio.Protocol):
    """The server calls ``close_if_stalled`` every now and then, and ``shut_down`` at its end; asyncio the rest."""

    def __init__(
        self,
        app: Application,
        limits: ArrivalLimits,
        date: DateHeader,
        connections: "set[HttpConnection]",
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """``connections`` holds the connection from its making to its end."""
        self._app = app
        self._limits = limits
        self._date = date
        self._connections = connections
        self._loop = loop
        self._transport = cast(asyncio.Transport, None)  # connection_made comes first
        self._parser = httptools.HttpRequestParser(self)
        # A bare line feed ends a header's line, as RFC 9112 2.2 allows and upstream has it.
        self._parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True)

        self._receiving = _Receiving.FIRST_BYTE
        self._now_s = loop.time()  # when bytes last came
        self._since_s = self._now_s  # when the client last brought it forward
        self._url = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._current: _Request | None = None  # whose body is arriving
        self._known: KnownHead | None = None
        self._begin_quickly: BeginQuickly | None = None  # for requests with the known head
        self._last_head: RequestHead | None = None  # of the last complete request, if it may be known
        self._is_upgrade = False  # whether the current request offers another protocol
        self._has_left_off = False  # the parser, between the current request's head and its body: see _read_on
        self._is_reading_on = False
        self._num_begun = 0
        self._num_body_bytes = 0  # of the current request
        self._num_idle_bytes = 0  # taken in without bringing the current request forward

        self._queue: deque[_Request] = deque()
        self._task: Cancellable | None = None  # answers the first of the queue
        self._is_deaf = False  # no byte matters any more: the last request of the queue ends the connection
        self._is_write_paused = False
        self._is_read_paused = False
        self._gives_way = False  # until the loop's next turn
        self._num_unsent_bytes = 0
        self._unsent_since_s = 0.0

    # --- the server's calls -------------------------------------------------------------------------------------------

    def close_if_stalled(self, now_s: float) -> None:
        """Ends the connection where its client has kept us waiting for too long; ``now_s`` is the loop's time."""
        limits = self._limits
        if self._has_stuck_answer(now_s):
            self._transport.abort()
            return
        if self._is_deaf or self._transport.is_closing():
            return
        if self._is_answering():
            # It is not the client that we wait for.
            self._since_s = now_s
            return
        waited_s = now_s - self._since_s
        match self._receiving:
            case _Receiving.NOTHING:
                if waited_s >= limits.idle_s:
                    self._transport.close()
            case _Receiving.FIRST_BYTE:
                if waited_s >= limits.headers_s:
                    self._transport.close()
            case _Receiving.HEADERS:
                if waited_s >= limits.headers_s:
                    self._refuse_slow(f"The request's headers did not arrive within {limits.headers_s:g} s.")
            case _Receiving.BODY:
                if waited_s >= limits.body_s:
                    self._refuse_slow(f"No more of the request's body arrived within {limits.body_s:g} s.")

    def shut_down(self) -> None:
        """The server ends: requests that are complete are answered first; any other is told, and not waited for."""
        if self._is_deaf:
            return
        if self._receiving in (_Receiving.HEADERS, _Receiving.BODY):
            self._refuse(json_error(HTTPStatus.SERVICE_UNAVAILABLE.value, SHUTTING_DOWN_TEXT))
        elif self._queue:
            self._is_deaf = True
            self._queue[-1].keep_alive = False
        else:
            self._transport.close()

    def cancel(self) -> None:
        """The server's grace is over: the request that is being answered is to answer now."""
        if self._task is not None:
            self._task.cancel()

    def abort(self) -> None:
        """Drops the connection, answers that have not been sent included."""
        self._transport.abort()

    def _has_stuck_answer(self, now_s: float) -> bool:
        num_bytes = self._transport.get_write_buffer_size()
        if num_bytes != self._num_unsent_bytes:
            self._num_unsent_bytes, self._unsent_since_s = num_bytes, now_s
        return num_bytes > 0 and now_s - self._unsent_since_s >= self._limits.answer_s

    def _is_answering(self) -> bool:
        """Whether the next thing to happen is ours to do: an answer to a complete request, or to one refused early."""
        if self._is_write_paused or not self._queue:
            return self._is_write_paused
        first = self._queue[0]
        return first.is_complete or first.answer is not None

    # --- refusals -----------------------------------------------------------------------------------------------------

    def _refuse(self, answer: Answer) -> None:
        """Answers the request that is arriving, after those before it, and ends the connection with that."""
        if self._is_deaf:
            return
        self._is_deaf = True
        request = self._current
        if self._receiving is _Receiving.BODY and request is not None:
            if request not in self._queue:
                # It had its answer before its body was there.
                self._end(lingers=False)
                return
            request.parts.clear()
        else:
            request = _Request(RequestHead("", b""), keep_alive=False, is_http_1_0=False)
            self._queue.append(request)
        request.keep_alive = False
        if request.answer is None:
            request.answer = answer
        self._advance()

    def _refuse_slow(self, text: str) -> None:
        self._refuse(json_error(HTTPStatus.REQUEST_TIMEOUT.value, text))

    def _refuse_plainly(self, status: HTTPStatus) -> None:
        self._refuse(Answer(status.value, f"{status.phrase}\n".encode(), TEXT_TYPE))

    # --- bytes that come ----------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """asyncio.Protocol."""
        if self._is_deaf:
            return
        self._now_s = self._loop.time()
        if self._known is not None and self._receiving is _Receiving.NOTHING:
            body = self._known.body_of(data)
            if body is not None and len(body) <= self._app.max_body_bytes:
                self._take_whole(self._known.head, body)
                return
        last = self._parse(data)
        if last is not None:
            self._known = known_head(data, last)
            self._begin_quickly = None if self._known is None else self._app.quick(last)
        elif len(data) >= _GIVE_WAY_BYTES:
            self._gives_way = True
            self._regulate_reading()
            self._loop.call_soon(self._go_on)

    def _take_whole(self, head: RequestHead, body: bytes) -> None:
        """A request like the one before, without the parser, which is between two requests and stays there."""
        self._num_begun += 1
        self._since_s = self._now_s
        request = _Request(head, keep_alive=True, is_http_1_0=False)
        request.is_complete = True
        if self._begin_quickly is not None and not self._queue and not self._is_write_paused:
            self._task = self._begin_quickly(body, partial(self._answered, request))
            if self._task is not None:
                self._queue.append(request)
                return
        begun = self._app.begin(head)
        if isinstance(begun, Answer):
            request.answer = begun
        else:
            request.handler = begun
            request.parts.append(body)
        self._queue.append(request)
        self._advance()

    def _parse(self, data: bytes) -> RequestHead | None:
        """Has the parser take the data. The head of the request, if they were exactly one that is like most."""
        begins = self._receiving in (_Receiving.FIRST_BYTE, _Receiving.NOTHING)
        if begins:
            data = _with_whole_line_end(data)
        if self._receiving is _Receiving.NOTHING:
            # Even a byte that begins no request ends the idle time.
            self._await(_Receiving.HEADERS)
        before = (self._num_begun, self._receiving, self._num_body_bytes)
        try:
            self._feed(data)
        except httptools.HttpParserInvalidMethodError:
            # The parser knows the registered methods only.
            line = data.partition(b"\n")[0]
            is_request = begins and self._num_begun == before[0] + 1 and _REQUEST_LINE.fullmatch(line)
            self._refuse_plainly(HTTPStatus.NOT_IMPLEMENTED if is_request else HTTPStatus.BAD_REQUEST)
        except httptools.HttpParserCallbackError:
            logger.exception("a request could not be read, by a fault of the server")
            self._refuse_plainly(HTTPStatus.INTERNAL_SERVER_ERROR)
        except httptools.HttpParserError:
            self._refuse_plainly(HTTPStatus.BAD_REQUEST)
        if before == (self._num_begun, self._receiving, self._num_body_bytes) and not self._is_deaf:
            # Part of a header, of a chunk's extension, of a trailer: the parser keeps it until it is whole.
            self._num_idle_bytes += len(data)
            if self._num_idle_bytes > self._limits.max_head_bytes:
                self._refuse_plainly(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return None
        is_one = begins and self._num_begun == before[0] + 1 and self._receiving is _Receiving.NOTHING
        return self._last_head if is_one and not self._is_deaf else None

    def _feed(self, data: bytes) -> None:
        while True:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                # No other protocol is spoken here: the request is served in this one, and so is what follows.
                data = data[upgrade.args[0] :]
                if self._current is not None:
                    self._read_on(self._current.head)
                if data and not self._is_deaf:
                    continue
            return

    def _read_on(self, head: RequestHead) -> None:
        """Has the parser read the body of a request that offers to change the protocol, as Java's HttpClient does.

        The parser leaves off after such a head. A head without the offer, which nobody sees, brings it back.
        """
        framing = (
            b"transfer-encoding: chunked" if head.is_chunked else b"content-length: %d" % (head.content_length or 0)
        )
        self._is_reading_on = True
        self._parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n\r\n")
        self._is_reading_on = False
        self._has_left_off = False

    def _await(self, receiving: _Receiving) -> None:
        self._receiving = receiving
        self._since_s = self._now_s
        self._num_idle_bytes = 0

    # --- the parser's calls, in the order of a request ----------------------------------------------------------------

    def on_message_begin(self) -> None:
        """httptools."""
        if self._is_reading_on:
            return
        self._await(_Receiving.HEADERS)
        self._num_begun += 1
        self._num_body_bytes = 0
        self._url = b""
        self._fields = []

    def on_url(self, url: bytes) -> None:
        """httptools; in pieces where the URL came in pieces."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools; also for trailers, which nobody reads."""
        if self._receiving is _Receiving.HEADERS:
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """httptools."""
        if self._is_deaf or self._is_reading_on:
            return
        self._await(_Receiving.BODY)
        parser = self._parser
        verb = parser.get_method().decode("ascii")
        head = _request_head(verb, self._url)
        request = _Request(
            RequestHead(verb, self._url) if head is None else head,
            keep_alive=parser.should_keep_alive() and verb != "CONNECT",
            is_http_1_0=parser.get_http_version() == "1.0",
        )
        self._current = request
        self._queue.append(request)
        if head is None:
            self._refuse_plainly(HTTPStatus.BAD_REQUEST)
            return
        num_head_bytes = len(self._url)
        for name, value in self._fields:
            num_head_bytes += len(name) + len(value)
            head.add_header(name, value)
        if num_head_bytes > self._limits.max_head_bytes:
            self._refuse_plainly(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return
        request.expects_continue = head.expects_continue and not request.is_http_1_0
        if head.content_length is not None and head.content_length > self._app.max_body_bytes:
            request.answer = self._app.refuse_body(head, head.content_length)
        else:
            begun = self._app.begin(head)
            if isinstance(begun, Answer):
                request.answer = begun
            else:
                request.handler = begun
        if request.answer is not None and request.expects_continue:
            # Nobody knows whether the client will send the body that it asked about.
            request.keep_alive = False
        self._is_upgrade = parser.should_upgrade()
        # Without a body the request is complete in a moment, which is the better time for its answer.
        if head.content_length or head.is_chunked:
            self._has_left_off = self._is_upgrade
            if request.answer is not None or request.expects_continue:
                self._advance()
            elif len(self._queue) > _MAX_WAITING:
                self._regulate_reading()

    def on_body(self, body: bytes) -> None:
        """httptools."""
        request = self._current
        if request is None or self._is_deaf:
            return
        self._since_s = self._now_s
        self._num_body_bytes += len(body)
        self._num_idle_bytes = 0
        request.expects_continue = False
        if self._num_body_bytes > self._app.max_body_bytes:
            # A length that was announced has been judged before; chunks may go on for ever.
            if request.head.content_length is None:
                self._refuse(self._app.refuse_body(request.head, None))
        elif request.answer is None:
            request.parts.append(body)

    def on_message_complete(self) -> None:
        """httptools."""
        request = self._current
        if request is None or self._is_deaf or self._has_left_off:
            return
        self._current = None
        self._last_head = None if request.is_http_1_0 or self._is_upgrade else request.head
        self._receiving = _Receiving.NOTHING
        self._since_s = self._now_s
        request.is_complete = True
        if not request.keep_alive:
            self._is_deaf = True
        self._advance()

    # --- answers that go ----------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Does what can be done for the requests of the queue, in their order."""
        while self._queue and self._task is None and not self._is_write_paused:
            request = self._queue[0]
            if request.answer is not None:
                self._queue.popleft()
                self._write(request, request.answer)
                continue
            if request.is_complete:
                self._task = self._loop.create_task(self._answer(request))
            elif request.expects_continue:
                request.expects_continue = False
                self._transport.write(CONTINUE)
            break
        self._regulate_reading()

    async def _answer(self, request: _Request) -> None:
        parts, request.parts = request.parts, []
        assert request.handler is not None
        self._answered(request, await request.handler(parts))

    def _answered(self, request: _Request, answer: Answer) -> None:
        self._task = None
        if self._transport.is_closing():
            return
        if self._receiving is _Receiving.NOTHING:
            self._since_s = self._loop.time()
        request.answer = answer
        self._advance()

    def _write(self, request: _Request, answer: Answer) -> None:
        head = answer_head(answer, self._date.value(), keep_alive=request.keep_alive, is_http_1_0=request.is_http_1_0)
        if request.head.verb == "HEAD":
            self._transport.write(head)
        elif len(answer.body) <= _JOIN_BYTES:
            self._transport.write(head + answer.body)
        else:
            self._transport.writelines((head, answer.body))
        if not request.keep_alive:
            self._end(lingers=not request.is_complete)

    def _end(self, *, lingers: bool) -> None:
        """Closes the connection once what has been written is sent, or a while later if the client still sends."""
        self._is_deaf = True
        self._queue.clear()
        if lingers and self._transport.can_write_eof():
            self._transport.write_eof()
            self._loop.call_later(LINGER_S, self._transport.close)
        else:
            self._transport.close()

    def _regulate_reading(self) -> None:
        """Reads on unless requests or answers pile up."""
        is_full = len(self._queue) > _MAX_WAITING or self._is_write_paused
        pauses = not self._is_deaf and (is_full or self._gives_way)
        if pauses is self._is_read_paused or self._transport.is_closing():
            return
        self._is_read_paused = pauses
        if pauses:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _go_on(self) -> None:
        self._gives_way = False
        self._regulate_reading()

    # --- asyncio's other calls ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio.Protocol: nobody waits for an answer any more."""
        self._is_deaf = True
        self._connections.discard(self)
        self._queue.clear()
        self._current = None
        self.cancel()

    def pause_writing(self) -> None:
        """asyncio.Protocol."""
        self._is_write_paused = True
        self._regulate_reading()

    def resume_writing(self) -> None:
        """asyncio.Protocol."""
        self._is_write_paused = False
        self._advance()


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
