"""The handlers of the REST API's routes: predict, classify, regress, model status and metadata.

The middle of the REST line: JSON is checked and turned into a request message, two calls to the dispatcher run it, and
the reply is turned into JSON. Runs on the REST loop; the JSON of large bodies is read and written in a pool of threads
by native code, and what that does not take is read by another process, so that a large request never stalls small ones.
Source: TensorFlow Serving's model_servers/http_rest_api_handler.cc.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import Executor
from types import MappingProxyType
from typing import ParamSpec, Protocol, TypeVar

from tensorgate._native.json_request import JsonRequest, read_request
from tensorgate.gateway.core.model_spec import ModelSpec
from tensorgate.gateway.dispatch.call import Call, Method, Reply, RequestMetadata, metadata_of_priority
from tensorgate.gateway.dispatch.route_table import Pin
from tensorgate.gateway.model_status import StateMonitor
from tensorgate.gateway.rest.exact_reader import ExactReader
from tensorgate.gateway.rest.gzip_bodies import DEFLATE_FROM_BYTES, deflate, inflate
from tensorgate.gateway.rest.http_messages import Answer, BodyTooLargeError, RequestHead, deflated_answer, json_answer
from tensorgate.gateway.rest.inference_request import inference_request, parse_inference_request
from tensorgate.gateway.rest.inference_response import classification_response_json, regression_response_json
from tensorgate.gateway.rest.model_metadata import model_metadata_json
from tensorgate.gateway.rest.model_status import model_status_json
from tensorgate.gateway.rest.predict_request import (
    RequestDocument,
    RequestForm,
    build_predict_request,
    build_quickly,
    find_signature,
    input_dtypes,
    model_spec_bytes,
    parse_predict_request,
)
from tensorgate.gateway.rest.predict_response import predict_response_json
from tensorgate.gateway.rest.protobuf_request import read_model_spec, with_model_spec
from tensorgate.gateway.rest.url_grammar import (
    InferenceMethod,
    InferenceRoute,
    MetadataRoute,
    ModelAddress,
    StatusRoute,
)
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef

# From this size on, reading or writing JSON takes long enough to be worth another thread: 0.1 ms natively, and some
# milliseconds in Python, for what the native readers do not take.
OFFLOAD_BYTES = 64 * 1024
INFLATE_HERE_BYTES = 256 * 1024
# A part of a body is what one read of its connection gave, at most 256 KiB.
MAX_PARTS_JOINED_HERE = 8

_MESSAGES = MappingProxyType(
    {
        InferenceMethod.PREDICT: (Method.PREDICT, "PredictRequest"),
        InferenceMethod.CLASSIFY: (Method.CLASSIFY, "ClassificationRequest"),
        InferenceMethod.REGRESS: (Method.REGRESS, "RegressionRequest"),
    }
)

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


def _joined(parts: list[bytes]) -> bytes:
    """The parts in one piece; takes them over."""
    # Lets go of the GIL once it is about more than a megabyte.
    body = parts[0] if len(parts) == 1 else b"".join(parts)
    # To give the memory of many back takes as long as some requests: others may come in between.
    while parts:
        del parts[-MAX_PARTS_JOINED_HERE:]
    return body


def metadata_of(head: RequestHead) -> RequestMetadata:
    """What a request takes along to its worker."""
    if not head.traceparent:
        return metadata_of_priority(head.priority)
    return RequestMetadata(priority=head.priority, traceparent=head.traceparent)


class Handlers:
    """Answers the routes of the API. All methods run on one loop, the REST thread's."""

    def __init__(
        self,
        dispatcher: RequestDispatcher,
        monitor: StateMonitor,
        executor: Executor,
        exact_reader: ExactReader,
        run_timeout_s: float | None,
        max_inflated_bytes: int,
    ) -> None:
        """run_timeout_s bounds the run of a request (--rest_api_timeout_in_ms), not its JSON; None is no bound.

        The executor and the exact_reader stay the caller's, who shuts them down after the last request.
        """
        self._dispatcher = dispatcher
        self._monitor = monitor
        self._executor = executor
        self._exact = exact_reader
        self._run_timeout_s = run_timeout_s
        self._max_inflated_bytes = max_inflated_bytes

    async def infer(self, route: InferenceRoute, head: RequestHead, body_parts: list[bytes]) -> Answer:
        """Answers POST …:predict, :classify and :regress, and takes the parts over.

        Raises ServingError, BodyTooLargeError.
        """
        is_large = len(body_parts) > MAX_PARTS_JOINED_HERE
        body = await self._run_in_pool(_joined, body_parts) if is_large else _joined(body_parts)
        if head.is_gzip:
            body = await self._inflate(body)
        metadata = metadata_of(head)
        if head.protobuf_type:
            answer = await self._pass_on(route, body, head.protobuf_type, metadata)
        elif route.method is InferenceMethod.PREDICT:
            answer = await self._predict(route.model, body, metadata)
        elif route.method is InferenceMethod.CLASSIFY:
            answer = await self._infer_examples(
                route.model, body, Method.CLASSIFY, classification_response_json, metadata
            )
        else:
            answer = await self._infer_examples(route.model, body, Method.REGRESS, regression_response_json, metadata)
        if head.accepts_gzip and len(answer.body) >= DEFLATE_FROM_BYTES:
            deflated = await self._run(len(answer.body), deflate, answer.body)
            return deflated_answer(deflated, answer.content_type)
        return answer

    async def _inflate(self, body: bytes) -> bytes:
        if len(body) <= OFFLOAD_BYTES:
            # A small body can inflate to a thousand times its size: what turns out to be large is begun again in the
            # pool, where large bodies may keep it waiting.
            with contextlib.suppress(BodyTooLargeError):
                return inflate(body, min(INFLATE_HERE_BYTES, self._max_inflated_bytes))
        return await self._run_in_pool(inflate, body, self._max_inflated_bytes)

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

    async def _predict(self, model: ModelAddress, body: bytes, metadata: RequestMetadata) -> Answer:
        if len(body) <= OFFLOAD_BYTES:
            document: JsonRequest | RequestDocument | None = parse_predict_request(body)
        else:
            document = await self._run_in_pool(read_request, body)
        signature_name = await self._exact.signature_name(body) if document is None else document.signature_name
        model_spec = ModelSpec(model.name, model.version, model.version_label, signature_name)
        pin = self._dispatcher.resolve(model_spec)
        try:
            # The signature of the pinned version: what is decoded with it runs on that version.
            signature = find_signature(pin.signatures, signature_name)
            if len(body) <= OFFLOAD_BYTES and document is not None:
                payload, form = build_predict_request(document, body, signature, model_spec)
            else:
                payload, form = await self._build_large(document, body, signature, model_spec)
        except BaseException:
            pin.release()
            raise
        del document  # the parsed JSON is many times larger than the request
        reply = (await self._submit(pin, Method.PREDICT, payload, metadata)).payload
        if len(reply) <= OFFLOAD_BYTES:
            return json_answer(predict_response_json(reply, form))
        return json_answer(await self._run_in_pool(predict_response_json, reply, form))

    async def _build_large(
        self,
        document: JsonRequest | RequestDocument | None,
        body: bytes,
        signature: SignatureDef,
        model_spec: ModelSpec,
    ) -> tuple[bytes, RequestForm]:
        """build_predict_request for a large body, which ``document`` is None for where native code has not taken it."""
        dtypes = input_dtypes(signature, model_spec.signature_name)
        spec = model_spec_bytes(model_spec, model_spec.signature_name)
        if isinstance(document, JsonRequest):
            built = await self._run_in_pool(build_quickly, document, dtypes, spec)
            if built is not None:
                return built
        return await self._exact.predict_request(body, dtypes, spec)

    async def _infer_examples(
        self,
        model: ModelAddress,
        body: bytes,
        method: Method,
        response_json: Callable[[bytes | memoryview], bytes],
        metadata: RequestMetadata,
    ) -> Answer:
        if len(body) <= OFFLOAD_BYTES:
            document = parse_inference_request(body)
        else:
            document = await self._exact.inference_document(body)
        model_spec = ModelSpec(model.name, model.version, model.version_label, document.signature_name)
        pin = self._dispatcher.resolve(model_spec)
        try:
            payload = inference_request(document, model_spec)
        except BaseException:
            pin.release()
            raise
        del document
        reply = (await self._submit(pin, method, payload, metadata)).payload
        return json_answer(await self._run(len(reply), response_json, reply))

    async def _pass_on(
        self, route: InferenceRoute, body: bytes, protobuf_type: bytes, metadata: RequestMetadata
    ) -> Answer:
        """A message in, a message out; neither is looked into."""
        method, message_name = _MESSAGES[route.method]
        model_spec = read_model_spec(body, route.model, message_name)
        pin = self._dispatcher.resolve(model_spec)
        try:
            payload = with_model_spec(body, model_spec)
        except BaseException:
            pin.release()
            raise
        try:
            reply = await self._submit(pin, method, payload, metadata)
        except ServingError as error:
            if error.code is Code.INTERNAL and not error.message:
                # Which is what gRPC clients are told of bytes that are no message.
                text = f"The request body is not a serialized tensorflow.serving.{message_name}."
                raise ServingError(Code.INVALID_ARGUMENT, text) from error
            raise
        return Answer(200, bytes(reply.payload), protobuf_type)

    async def _submit(self, pin: Pin, method: Method, payload: bytes, metadata: RequestMetadata) -> Reply:
        """Runs a request on its pinned version, takes the pin over; the run is bounded, and cancelled with the task."""
        deadline_s = None if self._run_timeout_s is None else time.monotonic() + self._run_timeout_s
        call = self._dispatcher.submit(pin, method, payload, metadata, deadline_s)
        try:
            return await call
        except asyncio.CancelledError:
            call.cancel()
            raise

    async def _run(self, num_bytes: int, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Runs pure work here if it is small, in the pool if its num_bytes make it long."""
        if num_bytes <= OFFLOAD_BYTES:
            return work(*args, **kwargs)
        return await self._run_in_pool(work, *args, **kwargs)

    async def _run_in_pool(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: work(*args, **kwargs))
