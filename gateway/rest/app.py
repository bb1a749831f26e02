"""The REST edge's pages: picks what answers a request, turns errors into answers, adds what every answer has.

Between the HTTP connections and the handlers; runs on the REST loop. Source: TensorFlow Serving's
model_servers/http_rest_api_handler.cc and util/net_http (order of dispatch, CORS, which verbs exist).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from http import HTTPStatus

from tensorgate.gateway.dispatch.call import Cancellable
from tensorgate.gateway.monitoring.metrics import CONTENT_TYPE
from tensorgate.gateway.rest.admin import AdminPages, is_admin_path
from tensorgate.gateway.rest.handlers import Handlers
from tensorgate.gateway.rest.http_connection import BeginQuickly, Begun
from tensorgate.gateway.rest.http_messages import (
    INTERNAL_ERROR,
    JSON_TYPE,
    SHUTTING_DOWN,
    SHUTTING_DOWN_TEXT,
    TEXT_TYPE,
    Answer,
    BodyTooLargeError,
    RequestHead,
    error_answer,
    json_error,
)
from tensorgate.gateway.rest.quick_predict import OnAnswer, QuickPredict
from tensorgate.gateway.rest.status_codes import http_status
from tensorgate.gateway.rest.url_grammar import (
    InferenceMethod,
    InferenceRoute,
    MetadataRoute,
    ModelAddress,
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
METRICS_PATH = b"/metrics"
METRICS_TYPE = CONTENT_TYPE.encode()
NOT_READY_TEXT = "The server is still loading its models; try again later."

# What upstream's HTTP library puts on an answer that was given no type.
PREFLIGHT_TYPE = b"text/html; charset=ISO-8859-1"

_UNEXPECTED = "%s %r failed unexpectedly"

_CORS_HEADERS = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"POST, GET"),
    (b"access-control-allow-headers", b"Content-Type"),
)


class RestApp:
    """The Application of the HTTP connections. Called on the REST loop, except for set_ready and begin_shutdown."""

    def __init__(
        self,
        handlers: Handlers,
        *,
        enable_cors: bool,
        max_body_bytes: int,
        quick_predict: Callable[[ModelAddress], QuickPredict],
        worker_trouble: Callable[[], str] = str,
        metrics_text: Callable[[], bytes] = bytes,
        admin_pages: AdminPages | None = None,
    ) -> None:
        """enable_cors: --rest_api_enable_cors_support. max_body_bytes bounds a body as it is sent, before inflation.

        worker_trouble tells /readyz, on the REST loop, what is wrong with the workers; empty for nothing. metrics_text
        makes what /metrics shows. Without admin_pages their paths are as unknown as any.
        """
        self.max_body_bytes = max_body_bytes
        self._handlers = handlers
        self._quick_predict = quick_predict
        self._enable_cors = enable_cors
        self._worker_trouble = worker_trouble
        self._metrics_text = metrics_text
        self._admin_pages = admin_pages
        self._is_ready = False
        self._is_shutting_down = False

    def set_ready(self, is_ready: bool) -> None:
        """Whether the initial load is done: until then the API answers 503. From any thread; takes effect at once."""
        self._is_ready = is_ready

    def begin_shutdown(self) -> None:
        """From now on every new request gets a 503. From any thread; final."""
        self._is_shutting_down = True

    # --- the Application of the connections ---------------------------------------------------------------------------

    def begin(self, head: RequestHead) -> Begun:
        """Application: the answer where it needs no body, else what answers once the body is there."""
        if not _is_api(head.verb, head.raw_path):
            return self._page(head.verb, head.raw_path)
        try:
            begun = self._begin_api(head)
        except ServingError as error:
            begun = error_answer(error)
        except Exception:
            logger.exception(_UNEXPECTED, head.verb, head.raw_path)
            begun = error_answer(INTERNAL_ERROR)
        return self._finished(begun) if isinstance(begun, Answer) else begun

    def quick(self, head: RequestHead) -> BeginQuickly | None:
        """Application: predicts in JSON have a quick way."""
        if head.verb != "POST" or head.protobuf_type or head.is_gzip or not is_api_path(head.raw_path):
            return None
        try:
            route = parse_route(head.verb, head.raw_path, head.query_string)
        except ServingError:
            return None
        if not isinstance(route, InferenceRoute) or route.method is not InferenceMethod.PREDICT:
            return None
        return partial(self._predict_quickly, self._quick_predict(route.model), head.accepts_gzip)

    def _predict_quickly(
        self, predict: QuickPredict, accepts_gzip: bool, body: bytes, on_answer: OnAnswer
    ) -> Cancellable | None:
        if self._trouble() is not None:
            return None
        if self._enable_cors:
            given = on_answer
            on_answer = lambda answer: given(self._finished(answer))  # noqa: E731
        return predict.begin(body, accepts_gzip=accepts_gzip, on_answer=on_answer)

    def refuse_body(self, head: RequestHead, num_bytes: int | None) -> Answer:
        """Application: a body of num_bytes, or of who knows how many, is more than max_body_bytes."""
        size = "more bytes than" if num_bytes is None else f"{num_bytes} bytes, more than"
        answer = json_error(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE.value,
            f"The request body has {size} the limit of {self.max_body_bytes}.",
        )
        return self._finished(answer) if _is_api(head.verb, head.raw_path) else answer

    # --- the API ------------------------------------------------------------------------------------------------------

    def _begin_api(self, head: RequestHead) -> Begun:
        if (trouble := self._trouble()) is not None:
            raise ServingError(Code.UNAVAILABLE, trouble)
        if head.verb == "OPTIONS":
            # Answered for every path of the API and whatever the flag says; a refusal has no body.
            code = Code.OK if head.has_http_origin else Code.FAILED_PRECONDITION
            return Answer(http_status(code), content_type=PREFLIGHT_TYPE)
        if self._admin_pages is not None and is_admin_path(head.raw_path):
            return partial(self._administer, head, self._admin_pages)
        route = parse_route(head.verb, head.raw_path, head.query_string)
        if isinstance(route, SilentRefusal):
            return Answer(http_status(route.error.code), content_type=JSON_TYPE)
        if isinstance(route, InferenceRoute):
            return partial(self._infer, head, route)
        if isinstance(route, MetadataRoute):
            return self._handlers.metadata(route)
        return self._handlers.status(route)

    async def _infer(self, head: RequestHead, route: InferenceRoute, body_parts: list[bytes]) -> Answer:
        return await self._answered(head, self._handlers.infer(route, head, body_parts))

    async def _administer(self, head: RequestHead, pages: AdminPages, body_parts: list[bytes]) -> Answer:
        return await self._answered(head, pages.answer(head, b"".join(body_parts)))

    async def _answered(self, head: RequestHead, answering: Awaitable[Answer]) -> Answer:
        try:
            answer = await answering
        except BodyTooLargeError as error:
            answer = json_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE.value, str(error))
        except ServingError as error:
            answer = error_answer(error)
        except asyncio.CancelledError:
            # The client has gone, or the server's grace is over; then its client can still be told.
            answer = error_answer(SHUTTING_DOWN)
        except Exception:
            logger.exception(_UNEXPECTED, head.verb, head.raw_path)
            answer = error_answer(INTERNAL_ERROR)
        return self._finished(answer)

    def _finished(self, answer: Answer) -> Answer:
        """An answer of the API with what all of them have."""
        return replace(answer, headers=answer.headers + _CORS_HEADERS) if self._enable_cors else answer

    # --- other pages --------------------------------------------------------------------------------------------------

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
        if raw_path == METRICS_PATH:
            return Answer(HTTPStatus.OK.value, self._metrics_text(), METRICS_TYPE)
        return _plain(HTTPStatus.NOT_FOUND)


def _is_api(verb: str, raw_path: bytes) -> bool:
    """Whether the API answers; what upstream's HTTP library refuses by itself never gets as far."""
    return is_api_path(raw_path) and verb in VERBS and not has_broken_escape(raw_path)


def _plain(status: HTTPStatus, text: str = "") -> Answer:
    text = text or ("ok" if status is HTTPStatus.OK else status.phrase)
    return Answer(status.value, f"{text}\n".encode(), TEXT_TYPE)
