"""A dispatcher without workers: real route table and pins, and answers that a test gives as functions."""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tensorgate.gateway.core.model_spec import ModelSpec
from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.dispatch.call import Call, Cancellable, Method, OnEnd, Reply, RequestMetadata
from tensorgate.gateway.dispatch.route_table import Pin, RouteTable
from tensorgate.gateway.dispatch.worker import Replica
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow.core.protobuf import meta_graph_pb2
from tensorgate.protos.tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2

Answer = Callable[[predict_pb2.PredictRequest], predict_pb2.PredictResponse]


def make_signature(inputs: Mapping[str, int], outputs: Mapping[str, int] | None = None) -> meta_graph_pb2.SignatureDef:
    """A predict signature with these dtypes; by default one float output named y."""
    signature = meta_graph_pb2.SignatureDef(method_name="tensorflow/serving/predict")
    for alias, dtype in inputs.items():
        signature.inputs[alias].CopyFrom(_tensor_info(alias, dtype))
    for alias, dtype in ({"y": types_pb2.DT_FLOAT} if outputs is None else outputs).items():
        signature.outputs[alias].CopyFrom(_tensor_info(alias, dtype))
    return signature


def _tensor_info(alias: str, dtype: int) -> meta_graph_pb2.TensorInfo:
    info = meta_graph_pb2.TensorInfo(name=f"{alias}:0")
    info.dtype = dtype  # type: ignore[assignment]  # any enum number will do
    return info


def make_signatures(**signatures: meta_graph_pb2.SignatureDef) -> get_model_metadata_pb2.SignatureDefMap:
    made = get_model_metadata_pb2.SignatureDefMap()
    for name, signature in signatures.items():
        made.signature_def[name].CopyFrom(signature)
    return made


@dataclass(frozen=True, slots=True)
class FakeHosting:
    """Hosting with signatures and no worker."""

    signature_def_map: bytes
    replicas: Sequence[Replica] = ()

    def watch_replicas(self, on_change: Callable[[], None] | None) -> None:
        """Hosting: they never change."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """What a test finds in FakeDispatcher.submitted."""

    servable_id: ServableId
    method: Method
    payload: bytes
    metadata: RequestMetadata
    deadline_s: float | None
    cancelled: list[bool] = field(default_factory=list)

    @property
    def request(self) -> predict_pb2.PredictRequest:
        return predict_pb2.PredictRequest.FromString(self.payload)

    def cancel(self) -> None:
        """Cancellable: notes that it was asked to."""
        self.cancelled.append(True)


class FakeDispatcher:
    """Resolves like the real one, and answers at once with `answer`, or never while `answer` is None.

    `answers` does the same, from payload to payload, for each method that is no predict.
    """

    def __init__(self, answer: Answer | None = None) -> None:
        self.routes = RouteTable()
        self.answer = answer
        self.answers: dict[Method, Callable[[bytes], bytes]] = {}
        self.submitted: list[Submitted] = []
        self.has_submitted = threading.Event()
        self._waiting: set[asyncio.Future[None]] = set()

    def add(self, name: str, version: int, signatures: get_model_metadata_pb2.SignatureDefMap) -> None:
        self.routes.publish(ServableId(name, version), FakeHosting(signatures.SerializeToString()))

    def num_pins(self, name: str, version: int) -> int:
        """How many requests hold the version now; only those never answered may."""
        return self.routes.snapshot.versions[name][version].num_pins

    def resolve(self, model_spec: ModelSpec) -> Pin:
        return self.routes.resolve(model_spec)

    def submit(
        self,
        pin: Pin,
        method: Method,
        payload: bytes | memoryview,
        metadata: RequestMetadata,
        deadline_s: float | None,
    ) -> Call:
        version = pin.take()
        submitted = Submitted(version.servable_id, method, bytes(payload), metadata, deadline_s)
        self.submitted.append(submitted)
        self.has_submitted.set()
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        answer = self._answer_predict if method is Method.PREDICT and self.answer else self.answers.get(method)
        if answer is not None:
            version.unpin()
            try:
                response = answer(submitted.payload)
            except ServingError as error:
                future.set_exception(error)
            else:
                future.set_result(Reply(memoryview(response), 1, 2, 0, 0))
        return Call(future, submitted)

    def start(
        self,
        pin: Pin,
        method: Method,
        payload: bytes | memoryview,
        metadata: RequestMetadata,
        deadline_s: float | None,
        on_end: OnEnd,
    ) -> Cancellable:
        async def wait() -> None:
            try:
                reply = await call
            except ServingError as error:
                on_end(error.code, error.message.encode(), None)
            else:
                on_end(Code.OK, b"", reply)

        call = self.submit(pin, method, payload, metadata, deadline_s)
        waiting = asyncio.ensure_future(wait())
        self._waiting.add(waiting)
        waiting.add_done_callback(self._waiting.discard)
        return self.submitted[-1]

    def _answer_predict(self, payload: bytes) -> bytes:
        assert self.answer is not None
        return self.answer(predict_pb2.PredictRequest.FromString(payload)).SerializeToString()
