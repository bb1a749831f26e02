"""A worker that is killed takes its own requests with it and nothing else, and serves again."""

import os
import pathlib
import signal
import time
from collections.abc import Callable

import grpc

from tensorgate.gateway.dispatch.placement import NO_WORKER_TEXT
from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictRequest
from tests.harness.model_server import ModelServer, StartServer, floats, predict_request, process_exists, wait_until


def rounds(number: int) -> TensorProto:
    return TensorProto(dtype=types_pb2.DT_INT32, int_val=[number])


def text(value: bytes) -> TensorProto:
    return TensorProto(dtype=types_pb2.DT_STRING, string_val=[value])


def test_a_killed_worker_fails_its_requests_at_once_and_is_respawned(
    start_server: StartServer, model_config: Callable[..., str]
) -> None:
    server = start_server(model_config("slow", "half_plus_two", "counter"))
    keep = predict_request("counter", text=text(b"before"))
    keep.model_spec.signature_name = "keep"
    server.prediction.Predict(keep, timeout=30)
    first = server.worker_pid

    slow = [
        server.prediction.Predict.future(predict_request("slow", rounds=rounds(10**8)), timeout=60) for _ in range(20)
    ]
    # More slow ones than it has threads, and than it is handed at a time, do not keep the counter from it.
    for _ in range(5):
        server.prediction.Predict(keep, timeout=30)
    # While it stands still the counter's requests wait, some with the worker, most in the gateway.
    os.kill(first, signal.SIGSTOP)
    wait_until(lambda: is_stopped(first), "the worker to stand still")
    queued = [server.prediction.Predict.future(keep, timeout=60) for _ in range(50)]
    time.sleep(0.5)
    assert [call for call in slow + queued if call.done()] == []
    began = time.monotonic()
    os.kill(first, signal.SIGKILL)
    outcomes = {(call.exception(timeout=10).code(), "worker" in call.exception().details()) for call in slow + queued}
    assert outcomes == {(grpc.StatusCode.UNAVAILABLE, True)}
    assert time.monotonic() - began < 5
    assert "was killed by signal 9" in server.log or "SIGKILL" in server.log

    wait_until(lambda: server.worker_pid != first, "a new worker")
    ask = predict_request("counter")
    wait_until(lambda: answers(server, ask), "the counter loaded again")
    # A fresh process: had anything meant for the dead worker run on this one, the count would show it.
    response = server.prediction.Predict(ask, timeout=30)
    assert response.outputs["count"].int64_val == [0]
    assert response.outputs["kept"].string_val == [b"nothing"]
    wait_until(lambda: answers(server, predict_request("half_plus_two", x=floats(1))), "half_plus_two loaded again")
    assert not process_exists(first)


def is_stopped(pid: int) -> bool:
    """Whether each thread of the process stands still."""
    states = [path.read_text(encoding="utf-8") for path in pathlib.Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(state.rpartition(")")[2].split()[0] == "T" for state in states)


def answers(server: ModelServer, request: PredictRequest) -> bool:
    try:
        server.prediction.Predict(request, timeout=10)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False
    return True


def test_a_worker_that_keeps_dying_does_not_take_the_gateway_down(
    start_server: StartServer, model_config: Callable[..., str]
) -> None:
    server = start_server(model_config("half_plus_two"))
    request = predict_request("half_plus_two", x=floats(1))
    for _ in range(3):
        os.kill(server.worker_pid, signal.SIGKILL)
        assert server.rest("GET", "/livez")[0] == 200
        wait_until(lambda: server.rest("GET", "/readyz") == (503, f"{NO_WORKER_TEXT}\n"), "not ready")
        status = server.rest("GET", "/v1/models/half_plus_two")[1]["model_version_status"][0]
        assert status["state"] == "AVAILABLE"
        wait_until(lambda: server.rest("GET", "/readyz") == (200, "ok\n"), "ready again")
        assert answers(server, request)
    assert len(list(pathlib.Path(server.run_directory).iterdir())) <= 4, "socket files of dead workers are left behind"


def test_a_worker_that_hangs_is_killed_and_replaced(
    start_server: StartServer, model_config: Callable[..., str]
) -> None:
    server = start_server(model_config("half_plus_two"), "--worker_heartbeat_timeout_s=2")
    first = server.worker_pid
    os.kill(first, signal.SIGSTOP)
    request = predict_request("half_plus_two", x=floats(1))
    # The deadline fires in the gateway, whatever the worker does.
    began = time.monotonic()
    hung = server.prediction.Predict.future(request, timeout=0.5)
    assert hung.exception(timeout=5).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - began < 3
    wait_until(lambda: server.worker_pid != first, "a new worker")
    wait_until(lambda: answers(server, request), "an answer from it")
    assert "heartbeat" in server.log
