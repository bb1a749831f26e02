"""The handlers of the REST API's routes: predict, model status and metadata; classify and regress have a place here.

The middle of the REST line: JSON is checked and turned into a PredictRequest, two calls to the dispatcher run it, and
the reply is turned into JSON. Runs on the REST loop; the JSON of large bodies is read and written in a pool of threads,
so that a large request never stalls the small ones for longer than the GIL makes it.
Source: TensorFlow Serving's model_servers/http_rest_api_handler.cc.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import ParamSpec, Protocol, TypeVar

from tensorgate.gateway.core.model_spec import ModelSpec
from tensorgate.gateway.dispatch.call import Call, Method, RequestMetadata
from tensorgate.gateway.dispatch.route_table import Pin
from tensorgate.gateway.model_status import StateMonitor
from tensorgate.gateway.rest.http_messages import Answer, inflate, json_answer
from tensorgate.gateway.rest.model_metadata import model_metadata_json
from tensorgate.gateway.rest.model_status import model_status_json
from tensorgate.gateway.rest.predict_request import build_predict_request, find_signature, parse_predict_request
from tensorgate.gateway.rest.predict_response import predict_response_json
from tensorgate.gateway.rest.url_grammar import (
    InferenceMethod,
    InferenceRoute,
    MetadataRoute,
    ModelAddress,
    StatusRoute,
)
from tensorgate.protos.status_codes import Code, ServingError

# From this size on, reading or writing JSON takes long enough to be worth another thread: 0.1 ms natively, and some
# milliseconds in Python, for what the native readers do not take.
OFFLOAD_BYTES = 64 * 1024

_P = ParamSpec("_P")
_T = TypeVar("_T")


class RequestDispatcher(Protocol):
    """The part of Dispatcher that an edge calls."""

    def resolve(self, model_spec: ModelSpec) -> Pin:
        """Pins the version a request is for; any thread, never blocks. Raises ServingError."""
        ...

    def submit(
        self,
        pin: Pin,
        method: Method,
        payload: bytes | memoryview,
        metadata: RequestMetadata,
        deadline_s: float | None,
    ) -> Call:
        """Takes the pin over and runs the request; from a coroutine of any loop. deadline_s is of time.monotonic()."""
        ...


class Handlers:
    """Answers the routes of the API. All methods run on one loop, the REST thread's."""

    def __init__(
        self,
        dispatcher: RequestDispatcher,
        monitor: StateMonitor,
        executor: Executor,
        run_timeout_s: float | None,
        max_inflated_bytes: int,
    ) -> None:
        """run_timeout_s bounds the run of a request (--rest_api_timeout_in_ms), not its JSON; None is no bound.

        The executor stays the caller's, who shuts it down after the last request.
        """
        self._dispatcher = dispatcher
        self._monitor = monitor
        self._executor = executor
        self._run_timeout_s = run_timeout_s
        self._max_inflated_bytes = max_inflated_bytes

    async def infer(self, route: InferenceRoute, body: bytes, *, is_gzip: bool) -> Answer:
        """Answers POST …:predict (:classify and :regress are not served yet).

        is_gzip: the body is to be inflated first. Raises ServingError, BodyTooLargeError.
        """
        if route.method is not InferenceMethod.PREDICT:
            raise _not_served(f":{route.method.value}")
        return await self._predict(route.model, body, is_gzip=is_gzip)

    def status(self, route: StatusRoute) -> Answer:
        """Answers GET …/NAME; raises ServingError."""
        return json_answer(model_status_json(self._monitor, route.model))

    def metadata(self, route: MetadataRoute) -> Answer:
        """Answers GET …/NAME/metadata; raises ServingError."""
        model = route.model
        pin = self._dispatcher.resolve(ModelSpec(model.name, model.version, model.version_label))
        try:
            return json_answer(model_metadata_json(pin.servable_id, pin.signatures))
        finally:
            pin.release()

    async def _predict(self, model: ModelAddress, body: bytes, *, is_gzip: bool) -> Answer:
        if is_gzip:
            # Always in the pool: a small body can inflate to a thousand times its size.
            body = await self._run_in_pool(inflate, body, self._max_inflated_bytes)
        document = await self._run(len(body), parse_predict_request, body)
        model_spec = ModelSpec(model.name, model.version, model.version_label, document.signature_name)
        pin = self._dispatcher.resolve(model_spec)
        try:
            # The signature of the pinned version: what is decoded with it runs on that version.
            signature = find_signature(pin.signatures, document.signature_name)
            payload, form = await self._run(len(body), build_predict_request, document, body, signature, model_spec)
        except BaseException:
            pin.release()
            raise
        del document  # the parsed JSON is many times larger than the request
        deadline_s = None if self._run_timeout_s is None else time.monotonic() + self._run_timeout_s
        call = self._dispatcher.submit(pin, Method.PREDICT, payload, RequestMetadata(), deadline_s)
        try:
            reply = await call
        except asyncio.CancelledError:
            call.cancel()
            raise
        return json_answer(await self._run(len(reply.payload), predict_response_json, reply.payload, form))

    async def _run(self, num_bytes: int, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Runs pure work here if it is small, in the pool if its num_bytes make it long."""
        if num_bytes <= OFFLOAD_BYTES:
            return work(*args, **kwargs)
        return await self._run_in_pool(work, *args, **kwargs)

    async def _run_in_pool(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: work(*args, **kwargs))


def _not_served(what: str) -> ServingError:
    return ServingError(
        Code.UNIMPLEMENTED, f"{what} is not available over REST in this version of the server; use gRPC or :predict."
    )
