"""The REST edge's pages: picks what answers a request, turns errors into answers, adds what every answer has.

Between the HTTP connections and the handlers; runs on the REST loop. Source: TensorFlow Serving's
model_servers/http_rest_api_handler.cc and util/net_http (order of dispatch, CORS, which verbs exist).
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from http import HTTPStatus

from tensorgate.gateway.access_tokens import Access, Role
from tensorgate.gateway.dispatch.call import Cancellable, RequestMetadata
from tensorgate.gateway.monitoring.request_counts import RequestCounts
from tensorgate.gateway.monitoring.traces import Traces
from tensorgate.gateway.rest.admin import AdminPages, is_admin_path
from tensorgate.gateway.rest.handlers import Handlers, metadata_of
from tensorgate.gateway.rest.http_application import BeginQuickly, Begun
from tensorgate.gateway.rest.http_messages import (
    INTERNAL_ERROR,
    JSON_TYPE,
    SHUTTING_DOWN,
    SHUTTING_DOWN_TEXT,
    Answer,
    BodyTooLargeError,
    RequestHead,
    access_error,
    error_answer,
    json_error,
)
from tensorgate.gateway.rest.operator_pages import MODELS_PATH, OperatorPages, is_open_page, plain_answer
from tensorgate.gateway.rest.quick_predict import QuickPredict
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
NOT_READY_TEXT = "The server is still loading its models; try again later."

# What upstream's HTTP library puts on an answer that was given no type.
PREFLIGHT_TYPE = b"text/html; charset=ISO-8859-1"

_UNEXPECTED = "%s %r failed unexpectedly"

_CORS_HEADERS = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"POST, GET"),
    (b"access-control-allow-headers", b"Content-Type"),
)
_CORS_HEADERS_WITH_TOKENS = (
    *_CORS_HEADERS[:2],
    (b"access-control-allow-headers", b"Content-Type, Authorization"),
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
        pages: OperatorPages | None = None,
        counts: RequestCounts | None = None,
        admin_pages: AdminPages | None = None,
        traces: Traces | None = None,
        access: Access | None = None,
    ) -> None:
        """enable_cors: --rest_api_enable_cors_support. max_body_bytes bounds a body as it is sent, before inflation.

        counts: of the API's requests; only this changes it. Without admin_pages their paths are as unknown as any.
        traces: where spans of requests go whose clients trace them; None: there are none.
        access: None where nobody is asked for a token.
        """
        self.max_body_bytes = max_body_bytes
        self._handlers = handlers
        self._quick_predict = quick_predict
        self._admin_pages = admin_pages
        self._traces = traces
        self._access = access
        cors_headers = _CORS_HEADERS if access is None else _CORS_HEADERS_WITH_TOKENS
        self._added_headers = cors_headers if enable_cors else ()
        self._pages = OperatorPages() if pages is None else pages
        self._counts = RequestCounts() if counts is None else counts
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
        if self._access is not None and (error := self._refusal(self._access, head)) is not None:
            return self._finished(access_error(error))
        if not _is_api(head.verb, head.raw_path):
            return self._page(head.verb, head.raw_path)
        if head.verb == "GET" and head.raw_path == MODELS_PATH:
            return self._finished(self._pages.models())
        began_s = time.monotonic()
        model, code = "", Code.OK
        try:
            if (trouble := self._trouble()) is not None:
                raise ServingError(Code.UNAVAILABLE, trouble)
            if head.verb == "OPTIONS":
                # Answered for every path of the API and whatever the flag says; a refusal has no body.
                code = Code.OK if head.has_http_origin else Code.FAILED_PRECONDITION
                answer = Answer(http_status(code), content_type=PREFLIGHT_TYPE)
            elif self._admin_pages is not None and is_admin_path(head.raw_path):
                return partial(self._administer, head, self._admin_pages)
            else:
                route = parse_route(head.verb, head.raw_path, head.query_string)
                if isinstance(route, InferenceRoute):
                    return partial(self._infer, head, route)
                if isinstance(route, SilentRefusal):
                    code = route.error.code
                    answer = Answer(http_status(code), content_type=JSON_TYPE)
                else:
                    model = route.model.name
                    if isinstance(route, MetadataRoute):
                        answer = self._handlers.metadata(route)
                    else:
                        answer = self._handlers.status(route)
        except ServingError as error:
            code = error.code
            answer = error_answer(error)
        except Exception:
            code = Code.INTERNAL
            logger.exception(_UNEXPECTED, head.verb, head.raw_path)
            answer = error_answer(INTERNAL_ERROR)
        self._count(model, code, "", began_s)
        return self._finished(answer)

    def quick(self, head: RequestHead) -> BeginQuickly | None:
        """Application: predicts in JSON have a quick way."""
        if head.verb != "POST" or head.protobuf_type or head.is_gzip or not is_api_path(head.raw_path):
            return None
        if head.traceparent and self._traces is not None:
            return None  # one that is traced has a head like no other's
        try:
            route = parse_route(head.verb, head.raw_path, head.query_string)
        except ServingError:
            return None
        if not isinstance(route, InferenceRoute) or route.method is not InferenceMethod.PREDICT:
            return None
        return partial(
            self._predict_quickly, head, route.model.name, self._quick_predict(route.model), metadata_of(head)
        )

    def _predict_quickly(
        self,
        head: RequestHead,
        model: str,
        predict: QuickPredict,
        metadata: RequestMetadata,
        body: bytes,
        on_answer: Callable[[Answer], None],
    ) -> Cancellable | None:
        if self._trouble() is not None:
            return None
        # The head is the same as before, the tokens may not be.
        if self._access is not None and self._refusal(self._access, head) is not None:
            return None
        began_s = time.monotonic()

        def finish(code: Code, answer: Answer) -> None:
            self._count(model, code, InferenceMethod.PREDICT.value, began_s)
            on_answer(self._finished(answer))

        return predict.begin(body, metadata, accepts_gzip=head.accepts_gzip, on_answer=finish)

    def refuse_body(self, head: RequestHead, num_bytes: int | None) -> Answer:
        """Application: a body of num_bytes, or of who knows how many, is more than max_body_bytes."""
        size = "more bytes than" if num_bytes is None else f"{num_bytes} bytes, more than"
        answer = json_error(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE.value,
            f"The request body has {size} the limit of {self.max_body_bytes}.",
        )
        return self._finished(answer) if _is_api(head.verb, head.raw_path) else answer

    @staticmethod
    def _refusal(access: Access, head: RequestHead) -> ServingError | None:
        """Why the request's token is not enough for it; None where it is."""
        if is_api_path(head.raw_path):
            if head.verb == "OPTIONS":
                return None  # browsers ask so, without a token, whether they may send one
            needed = Role.ADMIN if is_admin_path(head.raw_path) else Role.PREDICT
        elif is_open_page(head.raw_path):
            return None
        else:
            needed = Role.METRICS
        return access.refusal(head.authorization, needed)

    # --- the API ------------------------------------------------------------------------------------------------------

    async def _infer(self, head: RequestHead, route: InferenceRoute, body_parts: list[bytes]) -> Answer:
        began_s = time.monotonic()
        span = None
        if head.traceparent and self._traces is not None:
            span = self._traces.begin(head.traceparent, head.verb, route.method.value, route.model.name)
            if span is not None:
                # What the worker does for it is a part of it.
                head = replace(head, traceparent=span.traceparent)
        code, answer = await self._answered(head, self._handlers.infer(route, head, body_parts))
        self._count(route.model.name, code, route.method.value, began_s)
        if span is not None:
            span.end(code, answer.status)
        return self._finished(answer)

    async def _administer(self, head: RequestHead, pages: AdminPages, body_parts: list[bytes]) -> Answer:
        _, answer = await self._answered(head, pages.answer(head, b"".join(body_parts)))
        return self._finished(answer)

    async def _answered(self, head: RequestHead, answering: Awaitable[Answer]) -> tuple[Code, Answer]:
        """What it comes to: its answer, or that to its error."""
        try:
            return Code.OK, await answering
        except BodyTooLargeError as error:
            return Code.INVALID_ARGUMENT, json_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE.value, str(error))
        except ServingError as error:
            return error.code, error_answer(error)
        except asyncio.CancelledError:
            # The client has gone, or the server's grace is over; then its client can still be told.
            return Code.CANCELLED, error_answer(SHUTTING_DOWN)
        except Exception:
            logger.exception(_UNEXPECTED, head.verb, head.raw_path)
            return Code.INTERNAL, error_answer(INTERNAL_ERROR)

    def _count(self, model: str, code: Code, api: str, began_s: float) -> None:
        self._counts.count(model, code.name, api, int((time.monotonic() - began_s) * 1e6))

    def _finished(self, answer: Answer) -> Answer:
        """An answer of the API with what all of them have."""
        return replace(answer, headers=answer.headers + self._added_headers) if self._added_headers else answer

    # --- other pages --------------------------------------------------------------------------------------------------

    def _trouble(self) -> str | None:
        """Why no request can be served now; None where they can."""
        if self._is_shutting_down:
            return SHUTTING_DOWN_TEXT
        return None if self._is_ready else NOT_READY_TEXT

    def _page(self, verb: str, raw_path: bytes) -> Answer:
        if verb not in VERBS:
            return plain_answer(HTTPStatus.NOT_IMPLEMENTED)
        if has_broken_escape(raw_path):
            return plain_answer(HTTPStatus.BAD_REQUEST)
        return self._pages.page(raw_path, self._trouble())


def _is_api(verb: str, raw_path: bytes) -> bool:
    """Whether the API answers; what upstream's HTTP library refuses by itself never gets as far."""
    return is_api_path(raw_path) and verb in VERBS and not has_broken_escape(raw_path)
