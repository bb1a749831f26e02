"""``tensorgate replay``: sends the requests of a request log, or of a warm-up file, to a server.

A client of the gRPC edge. Answers are compared with the recorded ones where there are any.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from rich.console import Console
from rich.progress import Progress

from tensorgate.gateway.cli.access import Access
from tensorgate.gateway.cli.bench_load import percentile
from tensorgate.gateway.cli.connection import open_channel
from tensorgate.protos.status_codes import Code, ServingError, of_os_error
from tensorgate.protos.tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
from tensorgate.protos.tf_record import read_records

# The method that answers each kind of log.
_METHODS = {
    "predict_log": "/tensorflow.serving.PredictionService/Predict",
    "classify_log": "/tensorflow.serving.PredictionService/Classify",
    "regress_log": "/tensorflow.serving.PredictionService/Regress",
    "multi_inference_log": "/tensorflow.serving.PredictionService/MultiInference",
    "session_run_log": "/tensorflow.serving.SessionService/SessionRun",
}


@dataclass(slots=True)
class Outcome:
    """What came of a replay; ``num_same`` and ``num_different`` are of recorded answers."""

    statuses: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    num_same: int = 0
    num_different: int = 0


def read_logs(path: str) -> Iterator[PredictionLog]:
    """The logs of a TFRecord file. Raises ServingError: DATA_LOSS where it is none, the file system's errors."""
    try:
        with open(path, "rb") as file:
            for record in read_records(file):
                yield PredictionLog.FromString(record)
    except OSError as error:
        raise of_os_error(error, path) from error
    except DecodeError as error:
        raise ServingError(Code.DATA_LOSS, f"{path} has a record that is no PredictionLog") from error


def run_replay(
    address: str, access: Access, paths: Sequence[str], console: Console, model: str = "", timeout_s: float = 60
) -> int:
    """Sends all requests one after the other; 0 if every one succeeded, else 1. ``model``: instead of the recorded one.

    Raises ServingError for a file that cannot be read, and where no server answers.
    """
    outcome = Outcome()
    logs = [log for path in paths for log in read_logs(path)]
    with open_channel(address, access) as channel, Progress(console=console, transient=True) as progress:
        for log in progress.track(logs, description="replaying"):
            _replay(channel, log, model, timeout_s, outcome)
    ordered = sorted(outcome.latencies_s)
    statuses = ", ".join(f"{number} of {status}" for status, number in outcome.statuses.most_common()) or "no requests"
    console.print(f"{statuses}; p50 {1e3 * percentile(ordered, 50):.2f} ms, p99 {1e3 * percentile(ordered, 99):.2f} ms")
    if outcome.num_same or outcome.num_different:
        console.print(f"answers as recorded: {outcome.num_same}, others: {outcome.num_different}")
    return 0 if set(outcome.statuses) <= {"OK"} else 1


def _replay(channel: grpc.Channel, log: PredictionLog, model: str, timeout_s: float, outcome: Outcome) -> None:
    kind = log.WhichOneof("log_type")
    path = _METHODS.get(kind or "")
    if kind is None or path is None:
        outcome.statuses["skipped"] += 1
        return
    recorded = getattr(log, kind)
    request: Message = recorded.request
    if model:
        for spec in _specs(request):
            spec.name = model
            spec.ClearField("version_choice")
    call = channel.unary_unary(path, request_serializer=None, response_deserializer=None)
    began_s = time.monotonic()
    try:
        answer = call(request.SerializeToString(), timeout=timeout_s)
    except grpc.RpcError as error:
        outcome.statuses[error.code().name] += 1
        return
    outcome.latencies_s.append(time.monotonic() - began_s)
    outcome.statuses["OK"] += 1
    if recorded.HasField("response"):
        got = type(recorded.response).FromString(answer)
        if _without_versions(got) == _without_versions(recorded.response):
            outcome.num_same += 1
        else:
            outcome.num_different += 1


def _specs(request: Message) -> list[Any]:
    tasks = getattr(request, "tasks", None)
    return [task.model_spec for task in tasks] if tasks is not None else [request.model_spec]  # type: ignore[attr-defined]


def _without_versions(response: Message) -> Message:
    """Without its model_specs: another version may give the same answer."""
    made = type(response)()
    made.CopyFrom(response)
    for holder in [made, *getattr(made, "results", ())]:
        if "model_spec" in holder.DESCRIPTOR.fields_by_name:
            holder.ClearField("model_spec")
    return made
