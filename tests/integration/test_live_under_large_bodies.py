"""The liveness page while bodies of 100 MB are posted: whoever probes it does not take a busy server for a dead one."""

import contextlib
import http.client
import pathlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorgate.protos.tensorflow_serving.apis import prediction_service_pb2_grpc
from tests.harness.model_server import ModelServer, StartServer, predict_request
from tests.harness.probe import probing, yardstick

BODY_BYTES = 100_000_000
NUM_POSTERS = 2
NUM_POSTS = 2
# What a server with time to itself is to keep, and how many times slower than a program that does nothing but answer it
# may be where the machine has other things to do.
P99_S = 0.05
TIMES_YARDSTICK = 5
ATTEMPTS = 2
# Of the time that the gateway's threads want a processor. Beyond that it is the machine that holds up the page, since
# whoever has just used more than its share waits longer than one who has done nothing.
MAX_WAITING_SHARE = 0.7


def post_json(server: ModelServer) -> None:
    number = b"0.12345678"
    body = b'{"signature_name": "scalar_output", "inputs": [[%b]]}' % b", ".join(
        [number] * (BODY_BYTES // len(number + b", "))
    )
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=120)
    with contextlib.closing(connection):
        for _ in range(NUM_POSTS):
            connection.request("POST", "/v1/models/rows:predict", body)
            response = connection.getresponse()
            assert (response.status, response.read()[:15]) == (200, b'{\n    "outputs"')


def send_message(server: ModelServer) -> None:
    tensor = TensorProto(dtype=types_pb2.DT_FLOAT, tensor_content=bytes(BODY_BYTES))
    tensor.tensor_shape.dim.add(size=1)
    tensor.tensor_shape.dim.add(size=BODY_BYTES // 4)
    request = predict_request("rows", x=tensor)
    request.model_spec.signature_name = "scalar_output"
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", options=[("grpc.max_send_message_length", -1)]) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)  # type: ignore[no-untyped-call]
        for _ in range(NUM_POSTS):
            stub.Predict(request, timeout=120)


def processor_times_ns(pid: int) -> tuple[int, int]:
    """How long a process' threads ran, and waited for a processor; zeros where the kernel does not tell."""
    ran, waited = 0, 0
    for file in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):
            its_ran, its_waited, _ = map(int, file.read_text().split())
            ran, waited = ran + its_ran, waited + its_waited
    return ran, waited


@pytest.mark.timeout(600)
@pytest.mark.parametrize("post", [post_json, send_message])
def test_the_liveness_page_answers_at_once(
    start_server: StartServer, model_config: Callable[..., str], post: Callable[[ModelServer], None]
) -> None:
    server = start_server(model_config("rows"))
    seen = []
    was_judged = False
    with yardstick() as yardstick_port:
        for _ in range(ATTEMPTS):
            before = processor_times_ns(server.process.pid)
            with (
                ThreadPoolExecutor(NUM_POSTERS) as posters,
                probing(yardstick_port, "/") as idle,
                probing(server.rest_port, "/livez") as live,
            ):
                for posting in [posters.submit(post, server) for _ in range(NUM_POSTERS)]:
                    posting.result()
            ran, waited = (
                after - its for after, its in zip(processor_times_ns(server.process.pid), before, strict=True)
            )
            waiting_share = waited / (ran + waited) if ran + waited else 0.0
            seen.append(
                f"{len(live.times_s)} answers, p50 {live.quantile_s(0.5):.4f} s, p99 {live.quantile_s(0.99):.4f} s, "
                f"largest {live.times_s[-1]:.4f} s; of the yardstick p99 {idle.quantile_s(0.99):.4f} s, "
                f"largest {idle.times_s[-1]:.4f} s; waiting for a processor {100 * waiting_share:.0f} %"
            )
            # One attempt in which nothing else held up the page is enough.
            if live.quantile_s(0.99) <= max(P99_S, TIMES_YARDSTICK * idle.quantile_s(0.99)):
                return
            was_judged = was_judged or waiting_share <= MAX_WAITING_SHARE
    if not was_judged:
        pytest.skip(f"the machine is too busy to tell: {'; '.join(seen)}")
    pytest.fail("; ".join(seen))
