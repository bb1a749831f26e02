"""Limits of a model over a real server: what waits goes by priority, a full queue says so, a reload changes bounds."""

import json
import pathlib
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow.core.framework.tensor_pb2 import TensorProto
from tests.harness.model_server import ModelServer, StartServer, predict_request, wait_until

ModelConfig = Callable[..., str]

# How long a request keeps the one place that there is, and so has all others wait.
HOLD_S = 8.0
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def rounds(number: int) -> Any:
    return predict_request("slow", rounds=TensorProto(dtype=types_pb2.DT_INT32, int_val=[number]))


class Client:
    """Sends requests that take a few milliseconds, and keeps the names of those answered, in their order."""

    def __init__(self, server: ModelServer) -> None:
        self.server = server
        self.answered: list[str] = []
        self.calls: dict[str, Any] = {}
        self._threads: list[threading.Thread] = []

    def hold(self) -> None:
        """Takes the model's place in the worker until the deadline; returns when it has it."""
        self.calls["hold"] = self.server.prediction.Predict.future(rounds(10**8), timeout=HOLD_S)
        wait_until(lambda: self.gauge("tensorgate_worker_requests_handed") == 1, "the worker has the first request")

    def send(self, name: str, priority: str | None = None) -> None:
        metadata = [] if priority is None else [("x-priority", priority)]
        call = self.server.prediction.Predict.future(rounds(50), timeout=60, metadata=metadata)
        call.add_done_callback(lambda _call: self.answered.append(name))
        self.calls[name] = call

    def send_rest(self, name: str, priority: str) -> None:
        def ask() -> None:
            assert self.ask_rest(priority)[0] == 200
            self.answered.append(name)

        thread = threading.Thread(target=ask)
        thread.start()
        self._threads.append(thread)

    def ask_rest(self, priority: str) -> tuple[int, Any, str | None]:
        """Status, JSON, and when to try again."""
        request = urllib.request.Request(
            f"http://localhost:{self.server.rest_port}/v1/models/slow:predict",
            json.dumps({"inputs": 50}).encode(),
            {"X-Priority": priority},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer), answer.headers["Retry-After"]
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error), error.headers["Retry-After"]

    def wait_for_waiting(self, count: int) -> None:
        wait_until(lambda: self.gauge("tensorgate_worker_queue_depth") == count, f"{count} requests wait")

    def gauge(self, name: str) -> float:
        with urllib.request.urlopen(f"http://localhost:{self.server.rest_port}/metrics", timeout=30) as page:
            lines = page.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + "{"))

    def join(self) -> None:
        for thread in self._threads:
            thread.join()


@pytest.fixture
def settings(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "settings.pbtxt"
    path.write_text('model { name: "slow" max_concurrent_requests: 1 max_queued_requests: 4 }', encoding="ascii")
    return path


@pytest.mark.parametrize("edge", ["native", "grpcio"])
def test_what_waits_goes_by_priority_and_a_full_queue_gives_up_the_least_urgent(
    start_server: StartServer, model_config: ModelConfig, settings: pathlib.Path, edge: str
) -> None:
    server = start_server(model_config("slow"), f"--model_settings_file={settings}", f"--grpc_edge={edge}")
    client = Client(server)
    client.hold()
    for count, (name, priority) in enumerate(
        [("low", "low"), ("normal", None), ("odd", "urgent!"), ("high", "High")], start=1
    ):
        client.send(name, priority)
        client.wait_for_waiting(count)
    # Full: one like those that wait is refused, one that goes first has the last one leave.
    client.send("refused", "low")
    assert client.calls["refused"].code() is EXHAUSTED
    assert client.calls["refused"].details() == (
        "The queue of slow is full: 4 requests wait for worker-0, max_queued_requests of its settings is 4;"
        " retry later."
    )
    status, body, retry_after = client.ask_rest("low")
    assert (status, retry_after) == (429, "1")
    assert body["error"].startswith("The queue of slow is full: ")
    client.send_rest("rest", "high")
    assert client.calls["low"].code() is EXHAUSTED
    assert "full, and a request has come that goes before this one" in client.calls["low"].details()
    client.answered.clear()
    assert client.calls["hold"].code() is grpc.StatusCode.DEADLINE_EXCEEDED
    for name in ("high", "normal", "odd"):
        assert client.calls[name].code() is grpc.StatusCode.OK
    client.join()
    wait_until(lambda: len(client.answered) >= 4, "all have been told")
    assert [name for name in client.answered if name not in ("low", "refused")] == ["high", "rest", "normal", "odd"]


def test_workers_take_the_weights_of_models_and_new_ones_of_a_reload(
    start_server: StartServer, model_config: ModelConfig, settings: pathlib.Path
) -> None:
    settings.write_text('model { name: "slow" weight: 3 }', encoding="ascii")
    server = start_server(
        model_config("slow"), f"--model_settings_file={settings}", "--model_config_file_poll_wait_seconds=1",
        "--batching=auto",
    )  # fmt: skip
    settings.write_text('model { name: "slow" weight: 2000 }', encoding="ascii")
    wait_until(lambda: "Model settings of 'slow' set weight to 2000; it is from 1 to 1000" in server.log, "a refusal")
    settings.write_text("model { weight: 7 }", encoding="ascii")
    wait_until(lambda: "worker-0 knows the models' weights: slow 7" in server.log, "the new weight")
    assert server.prediction.Predict(rounds(1), timeout=30).outputs["y"].float_val
    assert "worker-0 knows the models' weights: slow 3" in server.log


def test_a_client_that_leaves_makes_room_and_a_reload_changes_the_bounds(
    start_server: StartServer, model_config: ModelConfig, settings: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    settings.write_text('model { name: "slow" max_concurrent_requests: 1 max_queued_requests: 1 }', encoding="ascii")
    server = start_server(
        model_config("slow"), f"--model_settings_file={settings}", "--model_config_file_poll_wait_seconds=1"
    )
    client = Client(server)
    client.hold()
    client.send("leaves")
    client.wait_for_waiting(1)
    client.calls["leaves"].cancel()
    client.wait_for_waiting(0)
    client.send("stays")
    client.wait_for_waiting(1)
    client.send("refused")
    assert client.calls["refused"].code() is EXHAUSTED
    # The endless run is still there: what waits gets a place of its own.
    settings.write_text('model { name: "slow" max_concurrent_requests: 2 }', encoding="ascii")
    assert client.calls["stays"].code() is grpc.StatusCode.OK
    assert not client.calls["hold"].done()
    client.calls["hold"].cancel()
