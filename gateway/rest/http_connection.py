"""One HTTP/1.1 connection: its requests to the application, one after the other, and the answers back, in order.

First stage of the REST line after the server's listener; one object for each connection, on the REST loop, an
asyncio.Protocol. Its bytes become requests by http_parser or known_head, answers become bytes by http_head, and
http_arrival knows how long to wait. There is no ASGI in between: for small requests it costs more than all of this.

Requests of a connection wait in a queue and are answered in their order. The first of them may still be arriving: an
answer that needs no body, a refusal too, is written at once, and what of the body still comes is read and dropped.
Nobody is waited for without end: neither for a head, a body or the next request, nor for a client that does not take
its answer.

Sources: RFC 9112 (9.3 persistence, 9.6: why a closing server reads on for a while), RFC 9110 (10.1.1 Expect, 15.5
statuses).
"""

import asyncio
from collections import deque
from functools import partial
from http import HTTPStatus
from typing import cast

from tensorgate.gateway.dispatch.call import Cancellable
from tensorgate.gateway.rest.http_application import Application, BeginQuickly, BodyHandler
from tensorgate.gateway.rest.http_arrival import Arrival, ArrivalLimits, Awaited
from tensorgate.gateway.rest.http_head import CONTINUE, DateHeader, answer_head
from tensorgate.gateway.rest.http_messages import SHUTTING_DOWN_TEXT, TEXT_TYPE, Answer, RequestHead, json_error
from tensorgate.gateway.rest.http_parser import RequestParser
from tensorgate.gateway.rest.known_head import KnownHead, known_head

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
        self._date = date
        self._connections = connections
        self._loop = loop
        self._transport = cast(asyncio.Transport, None)  # connection_made comes first

        self._parser = RequestParser(self, limits.max_head_bytes)
        self._now_s = loop.time()  # when bytes last came
        self._arrival = Arrival(limits, self._now_s)
        self._current: _Request | None = None  # whose body is arriving
        self._num_body_bytes = 0  # of it
        self._known: KnownHead | None = None
        self._begin_quickly: BeginQuickly | None = None  # for requests with the known head

        self._queue: deque[_Request] = deque()
        self._task: Cancellable | None = None  # answers the first of the queue
        self.is_deaf = False
        """No byte matters any more: the last request of the queue ends the connection."""
        self._is_write_paused = False
        self._is_read_paused = False
        self._gives_way = False  # until the loop's next turn

    # --- the server's calls -------------------------------------------------------------------------------------------

    def close_if_stalled(self, now_s: float) -> None:
        """Ends the connection where its client has kept us waiting for too long; ``now_s`` is the loop's time."""
        arrival = self._arrival
        if arrival.has_stuck_answer(self._transport.get_write_buffer_size(), now_s):
            self._transport.abort()
            return
        if self.is_deaf or self._transport.is_closing():
            return
        if self._is_answering():
            # It is not the client that we wait for.
            arrival.since_s = now_s
        elif arrival.is_overdue(now_s):
            complaint = arrival.complaint()
            if complaint is None:
                self._transport.close()
            else:
                self._refuse(json_error(HTTPStatus.REQUEST_TIMEOUT.value, complaint))

    def shut_down(self) -> None:
        """The server ends: requests that are complete are answered first; any other is told, and not waited for."""
        if self.is_deaf:
            return
        if self._arrival.awaited in (Awaited.HEADERS, Awaited.BODY):
            self._refuse(json_error(HTTPStatus.SERVICE_UNAVAILABLE.value, SHUTTING_DOWN_TEXT))
        elif self._queue:
            self.is_deaf = True
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

    def _is_answering(self) -> bool:
        """Whether the next thing to happen is ours to do: an answer to a complete request, or to one refused early."""
        if self._is_write_paused or not self._queue:
            return self._is_write_paused
        first = self._queue[0]
        return first.is_complete or first.answer is not None

    # --- refusals -----------------------------------------------------------------------------------------------------

    def _refuse(self, answer: Answer) -> None:
        """Answers the request that is arriving, after those before it, and ends the connection with that."""
        if self.is_deaf:
            return
        self.is_deaf = True
        request = self._current
        if self._arrival.awaited is Awaited.BODY and request is not None:
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

    def refuse_plainly(self, status: HTTPStatus) -> None:
        """RequestTaker."""
        self._refuse(Answer(status.value, f"{status.phrase}\n".encode(), TEXT_TYPE))

    # --- bytes that come ----------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """asyncio.Protocol."""
        if self.is_deaf:
            return
        self._now_s = self._loop.time()
        if self._known is not None and self._arrival.awaited is Awaited.NOTHING:
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
        self._arrival.since_s = self._now_s
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
        """Has the parser take the data; see there."""
        begins = self._arrival.awaited in (Awaited.FIRST_BYTE, Awaited.NOTHING)
        if self._arrival.awaited is Awaited.NOTHING:
            # Even a byte that begins no request ends the idle time.
            self._await(Awaited.HEADERS)
        return self._parser.feed(data, begins=begins)

    def _await(self, awaited: Awaited) -> None:
        self._arrival.awaited = awaited
        self._arrival.since_s = self._now_s

    # --- the parser's calls, in the order of a request ----------------------------------------------------------------

    def take_begin(self) -> None:
        """RequestTaker."""
        self._await(Awaited.HEADERS)

    def take_head(self, head: RequestHead, refusal: HTTPStatus | None, *, keep_alive: bool, is_http_1_0: bool) -> None:
        """RequestTaker."""
        self._await(Awaited.BODY)
        request = _Request(head, keep_alive=keep_alive, is_http_1_0=is_http_1_0)
        self._current = request
        self._num_body_bytes = 0
        self._queue.append(request)
        if refusal is not None:
            self.refuse_plainly(refusal)
            return
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
        # Without a body the request is complete in a moment, which is the better time for its answer.
        if head.content_length or head.is_chunked:
            if request.answer is not None or request.expects_continue:
                self._advance()
            elif len(self._queue) > _MAX_WAITING:
                self._regulate_reading()

    def take_body(self, body: bytes) -> None:
        """RequestTaker."""
        request = self._current
        assert request is not None
        self._arrival.since_s = self._now_s
        self._num_body_bytes += len(body)
        request.expects_continue = False
        if self._num_body_bytes > self._app.max_body_bytes:
            # A length that was announced has been judged before; chunks may go on for ever.
            if request.head.content_length is None:
                self._refuse(self._app.refuse_body(request.head, None))
        elif request.answer is None:
            request.parts.append(body)

    def take_end(self) -> None:
        """RequestTaker."""
        request = self._current
        assert request is not None
        self._current = None
        self._await(Awaited.NOTHING)
        request.is_complete = True
        if not request.keep_alive:
            self.is_deaf = True
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
        if self._arrival.awaited is Awaited.NOTHING:
            self._arrival.since_s = self._loop.time()
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
        self.is_deaf = True
        self._queue.clear()
        if lingers and self._transport.can_write_eof():
            self._transport.write_eof()
            self._loop.call_later(LINGER_S, self._transport.close)
        else:
            self._transport.close()

    def _regulate_reading(self) -> None:
        """Reads on unless requests or answers pile up."""
        is_full = len(self._queue) > _MAX_WAITING or self._is_write_paused
        pauses = not self.is_deaf and (is_full or self._gives_way)
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
        self.is_deaf = True
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
