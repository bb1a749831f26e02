"""The REST edge as a bare ASGI application: picks the page, reads the body, turns errors into answers.

Between uvicorn and the handlers; runs on the REST loop. Sources: the ASGI specification; TensorFlow Serving's
model_servers/http_rest_api_handler.cc and util/net_http (order of dispatch, CORS, which verbs exist).
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from tensorgate.gateway.rest.handlers import Handlers
from tensorgate.gateway.rest.http_messages import (
    JSON_TYPE,
    SHUTTING_DOWN_TEXT,
    TEXT_TYPE,
    Answer,
    BodyTooLargeError,
    ClientDisconnectedError,
    Message,
    Receive,
    Send,
    error_answer,
    json_error,
    read_body,
)
from tensorgate.gateway.rest.status_codes import http_status
from tensorgate.gateway.rest.url_grammar import (
    InferenceRoute,
    MetadataRoute,
    SilentRefusal,
    has_broken_escape,
    is_api_path,
    parse_route,
)
from tensorgate.protos.status_codes import Code, ServingError

logger = logging.getLogger("tensorgate.rest")

VERBS = frozenset({"GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"})
LIVENESS_PATHS = frozenset({b"/healthz", b"/livez"})
READINESS_PATH = b"/readyz"
NOT_READY_TEXT = "The server is still loading its models; try again later."

# What upstream's HTTP library puts on an answer that was given no type.
PREFLIGHT_TYPE = b"text/html; charset=ISO-8859-1"

_CORS_HEADERS = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"POST, GET"),
    (b"access-control-allow-headers", b"Content-Type"),
)
_HTTP_ORIGINS = (b"http://", b"https://")


@dataclass(frozen=True, slots=True)
class RequestHeaders:
    """The few headers that change what is done. Others, the content type among them, are ignored as upstream does."""

    content_length: int | None
    is_gzip: bool
    has_http_origin: bool


class RestApp:
    """The ASGI application. Called on the REST loop only, except for set_ready and begin_shutdown."""

    def __init__(
        self, handlers: Handlers, *, enable_cors: bool, max_body_bytes: int, worker_trouble: Callable[[], str] = str
    ) -> None:
        """enable_cors: --rest_api_enable_cors_support. max_body_bytes bounds a body as it is sent, before inflation.

        worker_trouble tells /readyz, on the REST loop, what is wrong with the workers; empty for nothing.
        """
        self._handlers = handlers
        self._enable_cors = enable_cors
        self._max_body_bytes = max_body_bytes
        self._worker_trouble = worker_trouble
        self._is_ready = False
        self._is_shutting_down = False

    def set_ready(self, is_ready: bool) -> None:
        """Whether the initial load is done: until then the API answers 503. From any thread; takes effect at once."""
        self._is_ready = is_ready

    def begin_shutdown(self) -> None:
        """From now on every new request gets a 503, and every answer ends its connection. From any thread; final."""
        self._is_shutting_down = True

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answers one request; only an answer that cannot be sent can fail it."""
        raw_path: bytes = scope["raw_path"]
        verb: str = scope["method"]
        # What upstream's HTTP library refuses by itself never gets as far as the API.
        is_api = is_api_path(raw_path) and verb in VERBS and not has_broken_escape(raw_path)
        try:
            answer = await self._api(scope, receive) if is_api else self._page(verb, raw_path)
        except ClientDisconnectedError:
            return
        except BodyTooLargeError as error:
            answer = json_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE.value, str(error))
        except ServingError as error:
            answer = error_answer(error)
        except asyncio.CancelledError:
            # Only the end of the server's grace cancels a request. It is over, but its client can still be told.
            answer = error_answer(ServingError(Code.UNAVAILABLE, SHUTTING_DOWN_TEXT))
        except Exception:
            logger.exception("%s %s failed unexpectedly", verb, raw_path.decode("utf-8", "replace"))
            answer = error_answer(ServingError(Code.INTERNAL, "Internal error of the server; its log has the details."))
        headers = [(b"content-length", b"%d" % len(answer.body))]
        if answer.content_type is not None:
            headers.append((b"content-type", answer.content_type))
        if self._is_shutting_down:
            headers.append((b"connection", b"close"))
        if is_api and self._enable_cors:
            headers += _CORS_HEADERS
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _api(self, scope: Message, receive: Receive) -> Answer:
        verb: str = scope["method"]
        if (trouble := self._trouble()) is not None:
            raise ServingError(Code.UNAVAILABLE, trouble)
        headers = _read_headers(scope["headers"])
        if verb == "OPTIONS":
            # Answered for every path of the API and whatever the flag says; a refusal has no body.
            code = Code.OK if headers.has_http_origin else Code.FAILED_PRECONDITION
            return Answer(http_status(code), content_type=PREFLIGHT_TYPE)
        route = parse_route(verb, scope["raw_path"], scope["query_string"])
        if isinstance(route, SilentRefusal):
            return Answer(http_status(route.error.code), content_type=JSON_TYPE)
        if isinstance(route, InferenceRoute):
            body = await read_body(receive, self._max_body_bytes, headers.content_length)
            return await self._handlers.infer(route, body, is_gzip=headers.is_gzip)
        if isinstance(route, MetadataRoute):
            return self._handlers.metadata(route)
        return self._handlers.status(route)

    def _trouble(self) -> str | None:
        """Why no request can be served now; None where they can."""
        if self._is_shutting_down:
            return SHUTTING_DOWN_TEXT
        return None if self._is_ready else NOT_READY_TEXT

    def _page(self, verb: str, raw_path: bytes) -> Answer:
        if verb not in VERBS:
            return _plain(HTTPStatus.NOT_IMPLEMENTED)
        if has_broken_escape(raw_path):
            return _plain(HTTPStatus.BAD_REQUEST)
        if raw_path in LIVENESS_PATHS:
            return _plain(HTTPStatus.OK)
        if raw_path == READINESS_PATH:
            trouble = self._trouble() or self._worker_trouble()
            return _plain(HTTPStatus.SERVICE_UNAVAILABLE, trouble) if trouble else _plain(HTTPStatus.OK)
        return _plain(HTTPStatus.NOT_FOUND)


def _read_headers(headers: list[tuple[bytes, bytes]]) -> RequestHeaders:
    content_length = None
    is_gzip = has_http_origin = False
    for name, value in headers:
        if name == b"content-length" and value.isdigit():
            content_length = int(value)
        elif name == b"content-encoding":
            # This spelling only: a body that says GZIP is taken as it is.
            is_gzip = is_gzip or b"gzip" in value
        elif name == b"origin":
            has_http_origin = has_http_origin or any(scheme in value for scheme in _HTTP_ORIGINS)
    return RequestHeaders(content_length, is_gzip, has_http_origin)


def _plain(status: HTTPStatus, text: str = "") -> Answer:
    text = text or ("ok" if status is HTTPStatus.OK else status.phrase)
    return Answer(status.value, f"{text}\n".encode(), TEXT_TYPE)
