"""One HTTP connection: uvicorn's protocol, with limits on how long a request may take to arrive.

Before the ASGI application; one object for each connection, on the REST loop. uvicorn bounds how long a connection may
idle between two requests; without more, a client that begins a request and never ends it keeps its connection for ever,
and holds up the end of the server.

Sources: uvicorn's httptools_impl; RFC 9110 15.5.9 (408), RFC 9112 9.6 (why a closing server reads on for a while).
"""

import asyncio
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from tensorgate.gateway.rest.http_messages import SHUTTING_DOWN_TEXT, json_error

# After a refusal, what the client still sends is read and dropped for so long: closing with bytes unread would have the
# kernel reset the connection, and the client might never see the answer.
LINGER_S = 1.0


@dataclass(frozen=True, slots=True)
class ArrivalLimits:
    """How long a request may take to arrive; seconds."""

    headers_s: float = 20.0
    """From the connection, or a later request's first byte, to the end of the headers."""
    body_s: float = 30.0
    """From one byte of the body to the next."""


class _Receiving(Enum):
    """What of a request is awaited from the client."""

    FIRST_BYTE = "a request, on a new connection"
    HEADERS = "the rest of the headers"
    BODY = "the rest of the body"
    NOTHING = "nothing: a request is complete, or the connection idles"


class RestProtocol(HttpToolsProtocol):
    """``close_if_stalled`` is to be called every now and then; uvicorn calls the rest."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._receiving = _Receiving.FIRST_BYTE
        self._since_s = self.loop.time()
        self._is_refused = False
        self._is_shutting_down = False

    def close_if_stalled(self, now_s: float, limits: ArrivalLimits) -> None:
        """Answers 408 and closes where the client has kept us waiting for too long; ``now_s`` is the loop's time."""
        receiving = self._receiving
        if receiving is _Receiving.NOTHING or self._is_refused or self.transport.is_closing():
            return
        if self.flow.read_paused or self._is_answering_an_earlier_request():
            # It is not the client that we wait for.
            self._since_s = now_s
            return
        limit_s = limits.body_s if receiving is _Receiving.BODY else limits.headers_s
        if now_s - self._since_s < limit_s:
            return
        if receiving is _Receiving.FIRST_BYTE or (receiving is _Receiving.BODY and self.cycle.response_started):
            self.transport.close()
        elif receiving is _Receiving.HEADERS:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"The request's headers did not arrive within {limit_s:g} s.")
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"No more of the request's body arrived within {limit_s:g} s.")

    def _is_answering_an_earlier_request(self) -> bool:
        if self._receiving is _Receiving.BODY:
            return bool(self.pipeline)
        # Before the first request the cycle is None, whatever its type says.
        return self.cycle is not None and not self.cycle.response_complete  # type: ignore[redundant-expr]

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """Answers a request that is not complete, and closes the connection once the client has had time to read."""
        answer = json_error(status.value, message)
        headers = [
            *self.server_state.default_headers,
            (b"content-type", answer.content_type or b""),
            (b"content-length", b"%d" % len(answer.body)),
            (b"connection", b"close"),
        ]
        lines = [b"HTTP/1.1 %d %s" % (status.value, status.phrase.encode()), *(b"%s: %s" % each for each in headers)]
        self.transport.write(b"\r\n".join([*lines, b"", answer.body]))
        self.transport.write_eof()
        self._is_refused = True
        if self._receiving is _Receiving.BODY:
            # The application waits for the body.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.flow.resume_reading()
        self.loop.call_later(LINGER_S, self.transport.close)

    # --- asyncio's and uvicorn's calls --------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        if self._receiving is _Receiving.NOTHING:
            # Even a byte that begins no request ends uvicorn's watch over the idle connection.
            self._await(_Receiving.HEADERS)
        super().data_received(data)

    def on_message_begin(self) -> None:
        self._await(_Receiving.HEADERS)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._await(_Receiving.BODY)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._since_s = self.loop.time()
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._receiving = _Receiving.NOTHING
        super().on_message_complete()

    def _await(self, receiving: _Receiving) -> None:
        self._receiving = receiving
        self._since_s = self.loop.time()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._is_shutting_down and not self.transport.is_closing():
            self.shutdown()

    def shutdown(self) -> None:
        """The server ends: a request that is complete is answered first; any other is told, and not waited for."""
        self._is_shutting_down = True
        if self._is_refused:
            return
        is_incomplete = self._receiving in (_Receiving.HEADERS, _Receiving.BODY)
        if not is_incomplete or self._is_answering_an_earlier_request() or self._has_answered_early():
            super().shutdown()
        else:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, SHUTTING_DOWN_TEXT)

    def _has_answered_early(self) -> bool:
        """Whether a request has its answer although its body goes on: one that is too large."""
        return self._receiving is _Receiving.BODY and self.cycle.response_started
