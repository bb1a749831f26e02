"""A client of the tutorial's model: sends test images over gRPC and counts the wrong answers.

Used by the demo and by examples/mnist_client.py. It needs grpcio and tensorgate.protos, no TensorFlow, and works
against any server of the PredictionService. Replies are counted on grpcio's own thread.

Source: prediction_service.proto; the message forms are those of the tutorial's client.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from tensorgate.gateway.cli.mnist_data import Digits
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

SIGNATURE_NAME = "predict_images"


@dataclass(frozen=True, slots=True)
class InferenceResult:
    """What came back: how many images, how many of them taken for another digit, in how many seconds."""

    num_images: int
    num_wrong: int
    elapsed_s: float

    @property
    def error_rate(self) -> float:
        return self.num_wrong / self.num_images

    @property
    def requests_per_s(self) -> float:
        return self.num_images / self.elapsed_s


def predict_request(image: npt.NDArray[np.float32], model_name: str) -> predict_pb2.PredictRequest:
    """The request for one image, float32 [784]; the tensor travels as raw little-endian bytes."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model_name
    request.model_spec.signature_name = SIGNATURE_NAME
    tensor = request.inputs["images"]
    tensor.dtype = types_pb2.DT_FLOAT
    tensor.tensor_shape.dim.add(size=1)
    tensor.tensor_shape.dim.add(size=image.size)
    tensor.tensor_content = image.astype("<f4").tobytes()
    return request


def run_inference(
    channel: grpc.Channel,
    digits: Digits,
    *,
    concurrency: int,
    on_reply: Callable[[bool], None],
    model_name: str = "mnist",
    timeout_s: float = 10.0,
) -> InferenceResult:
    """Asks about every image of ``digits``, at most ``concurrency`` requests in flight; blocks until all are answered.

    ``on_reply`` is told of each answer whether it was right, one at a time, on grpcio's thread. A request has
    ``timeout_s`` seconds. Raises ServingError with the server's code and message after the first one that fails.
    """
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)  # type: ignore[no-untyped-call]
    tally = _Tally(on_reply)
    slots = threading.BoundedSemaphore(concurrency)

    def collect(call: Any, label: int) -> None:
        try:
            tally.add(call, label)
        finally:
            slots.release()

    started_s = time.monotonic()
    for image, label in zip(digits.pixels, digits.labels.tolist(), strict=True):
        slots.acquire()
        if tally.error is not None:
            slots.release()
            break
        call = stub.Predict.future(predict_request(image, model_name), timeout=timeout_s)
        call.add_done_callback(lambda call, label=label: collect(call, label))
    # With every slot back in hand no request is in flight; each of them ends by its own timeout at the latest.
    for _ in range(concurrency):
        slots.acquire()
    elapsed_s = time.monotonic() - started_s
    if tally.error is not None:
        raise tally.error
    return InferenceResult(tally.num_answers, tally.num_wrong, elapsed_s)


class _Tally:
    """Counts answers. ``add`` is called on grpcio's threads; the numbers are read when no request is in flight."""

    def __init__(self, on_reply: Callable[[bool], None]) -> None:
        self._on_reply = on_reply
        self._lock = threading.Lock()
        self.num_answers = 0
        self.num_wrong = 0
        self.error: ServingError | None = None

    def add(self, call: Any, label: int) -> None:
        """Takes in one finished call; its failure, if it is the first one, is kept in ``error``."""
        outcome = self._outcome(call, label)
        with self._lock:
            if isinstance(outcome, ServingError):
                self.error = self.error or outcome
                return
            self.num_answers += 1
            self.num_wrong += not outcome
            self._on_reply(outcome)

    @staticmethod
    def _outcome(call: Any, label: int) -> bool | ServingError:
        error = call.exception()
        if isinstance(error, grpc.RpcError):
            return ServingError(Code.of(error.code().value[0]), error.details() or "")
        if error is not None:
            return ServingError(Code.UNKNOWN, str(error))
        scores = call.result().outputs["scores"]
        values = scores.float_val or np.frombuffer(scores.tensor_content, "<f4")
        if len(values) == 0:
            return ServingError(Code.INTERNAL, "The server's answer has no scores")
        return int(np.argmax(values)) == label
