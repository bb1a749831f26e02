"""A worker's data loop that merges requests for one model, in the test's own process."""

import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy
import zmq

from tensorgate._native.batching_options import BatchingOptions
from tensorgate._native.data_loop import DataLoop
from tensorgate._native.execution_pool import PREDICT, run_once
from tensorgate._native.session import Session
from tensorgate.protos.tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tests.fakes.data_gateway import EPOCH, Gateway, Reply, StreamGateway, Timing

HANDLE = 1
# Long enough for a batch never to go out for want of company, however slow the machine.
FOREVER_US = 3_600_000_000


def options(**changes: Any) -> BatchingOptions:
    """Batches of up to four rows that wait until they are full; ``changes`` by BatchingOptions' names."""
    chosen: dict[str, Any] = {
        "num_batch_threads": 2,
        "max_batch_size": 4,
        "batch_timeout_micros": FOREVER_US,
        "max_enqueued_batches": 100,
        **changes,
    }
    chosen.setdefault("max_execution_batch_size", chosen["max_batch_size"])
    return BatchingOptions(**chosen)


def tensor(values: Any, dtype: Any = numpy.float32) -> TensorProto:
    """A TensorProto of an array's shape, its values in the field of the dtype, or as content for small ones."""
    array = numpy.asarray(values, dtype)
    if array.dtype.kind in "OSU":
        made = TensorProto(dtype=7, string_val=[bytes(each) for each in array.ravel()])
    else:
        made = TensorProto(dtype=DTYPES[array.dtype.name], tensor_content=array.tobytes())
    for size in array.shape:
        made.tensor_shape.dim.add(size=size)
    return made


DTYPES = {
    "float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int16": 5, "int8": 6, "complex64": 8, "int64": 9, "bool": 10,
    "uint16": 17, "complex128": 18, "float16": 19, "uint32": 22, "uint64": 23,
}  # fmt: skip


def predict(signature: str = "", outputs: Iterable[str] = (), **inputs: TensorProto) -> bytes:
    request = PredictRequest(inputs=inputs, output_filter=outputs)
    request.model_spec.name = "m"
    request.model_spec.signature_name = signature
    return request.SerializeToString()


def outputs_of(reply: Reply) -> dict[str, Any]:
    """Of a Predict that succeeded: shape and values of each output."""
    assert (reply.code, reply.message) == (0, "")
    found = {}
    for alias, each in PredictResponse.FromString(reply.response).outputs.items():
        shape = tuple(dim.size for dim in each.tensor_shape.dim)
        values = next((list(value) for field, value in each.ListFields() if field.name.endswith("_val")), [])
        found[alias] = (shape, values)
    return found


class BatchLoop:
    """Serves one session with these options, over a unix socket of the folder's; a context manager."""

    def __init__(self, session: Session, batching: BatchingOptions | None, folder: pathlib.Path, num_threads: int = 2):
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.loop = DataLoop(
            self._context, "inproc://data", "inproc://cancels", EPOCH, num_threads, stream_path=str(folder / "stream")
        )
        self._session = session
        self.loop.register_servable(HANDLE, session, batching)
        self._folder = folder
        self._last_id = 0

    def __enter__(self) -> "BatchLoop":
        self.loop.start()
        self.gateway: Gateway = StreamGateway(self._context, self._folder / "stream")
        return self

    def __exit__(self, *_: object) -> None:
        self.gateway.close()
        self.loop.stop()
        self.loop.withdraw(HANDLE)
        self._context.term()
        (self._folder / "stream").unlink(missing_ok=True)

    def send(self, payload: bytes, remaining_us: int = -1, method: int = PREDICT) -> int:
        """The request's id."""
        self._last_id += 1
        self.gateway.send(self._last_id, HANDLE, payload, remaining_us, method)
        return self._last_id

    def ask(self, *payloads: bytes, method: int = PREDICT) -> list[Reply]:
        """Sends them all, and their replies, in the order of the requests."""
        ids = [self.send(payload, method=method) for payload in payloads]
        replies = self.gateway.replies(len(ids))
        return [replies[each] for each in ids]

    def alone(self, payload: bytes, method: int = PREDICT) -> Reply:
        """What the request gets without batching."""
        code, message, response, _ = run_once(self._session, method, payload)
        return Reply(code, message.decode(), response)

    def timing(self, request_id: int) -> Timing:
        return self.gateway.timings[request_id]

    @property
    def queues(self) -> Sequence[dict[str, Any]]:
        return self.loop.batch_queues(HANDLE)
