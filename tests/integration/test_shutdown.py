"""The server ends as asked: in-flight requests finished, no process, socket or folder left behind."""

import pathlib
import signal
import time
from collections.abc import Callable

import grpc
import pytest

from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow.core.framework.tensor_pb2 import TensorProto
from tests.harness.model_server import StartServer, floats, predict_request, process_exists, wait_until


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_leaves_nothing_behind(
    start_server: StartServer, model_config: Callable[..., str], tmp_path: pathlib.Path, number: signal.Signals
) -> None:
    socket_path = tmp_path / "grpc.sock"
    server = start_server(model_config("slow"), f"--grpc_socket_path={socket_path}")
    worker, run_directory = server.worker_pid, server.run_directory
    assert run_directory.stat().st_mode & 0o777 == 0o700
    assert socket_path.exists()
    slow = predict_request("slow", rounds=TensorProto(dtype=types_pb2.DT_INT32, int_val=[1500]))
    server.prediction.Predict(predict_request("slow", rounds=TensorProto(dtype=types_pb2.DT_INT32)), timeout=30)
    call = server.prediction.Predict.future(slow, timeout=60)
    time.sleep(0.3)
    assert not call.done()
    assert server.stop(number) == 0
    assert call.result().outputs["y"].float_val[0] == pytest.approx(256)
    assert "draining" in server.log
    assert not process_exists(worker)
    assert not run_directory.exists()
    assert not socket_path.exists()


def test_what_outlives_the_drain_is_cut_off(start_server: StartServer, model_config: Callable[..., str]) -> None:
    server = start_server(model_config("slow"), "--drain_timeout_s=0.5")
    worker = server.worker_pid
    endless = predict_request("slow", rounds=TensorProto(dtype=types_pb2.DT_INT32, int_val=[10**8]))
    call = server.prediction.Predict.future(endless, timeout=60)
    time.sleep(0.3)
    began = time.monotonic()
    assert server.stop() == 0
    # Half a second is the drain's, the rest this machine's; asking such a worker to stop takes seconds in vain.
    assert time.monotonic() - began < 4
    assert "was killed by the gateway, which is stopping" in server.log
    assert "does not end on SIGTERM" not in server.log
    assert isinstance(call.exception(), grpc.RpcError)
    assert not process_exists(worker)


def test_a_second_signal_ends_at_once_and_the_worker_with_it(
    start_server: StartServer, model_config: Callable[..., str]
) -> None:
    server = start_server(model_config("slow"))
    worker = server.worker_pid
    endless = predict_request("slow", rounds=TensorProto(dtype=types_pb2.DT_INT32, int_val=[10**8]))
    server.prediction.Predict.future(endless, timeout=60)
    time.sleep(0.3)
    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "draining" in server.log, "the drain")
    assert server.stop() != 0
    wait_until(lambda: not process_exists(worker), "the worker gone")


def test_a_gateway_that_is_killed_takes_its_worker_and_their_sockets_along(
    start_server: StartServer, model_config: Callable[..., str]
) -> None:
    server = start_server(model_config("half_plus_two"))
    worker, run_directory = server.worker_pid, server.run_directory
    server.process.kill()
    server.process.wait()
    wait_until(lambda: not process_exists(worker), "the worker gone", 10)
    wait_until(lambda: not run_directory.exists(), "the run directory gone", 10)


def test_a_signal_while_models_load_ends_the_start(start_server: StartServer, tmp_path: pathlib.Path) -> None:
    """A base path without versions keeps the server waiting, as upstream; a signal must still end it."""
    server = start_server("--model_name=m", f"--model_base_path={tmp_path}", wait=False)
    wait_until(lambda: "No versions of servable m found" in server.log, "the complaint")
    assert server.rest("GET", "/readyz")[0] == 503
    assert server.rest("GET", "/livez")[0] == 200
    status, body = server.rest("GET", "/v1/models/m")
    assert status == 503
    assert "error" in body
    with pytest.raises(grpc.RpcError) as refused:
        server.prediction.Predict(predict_request("m", x=floats(1)), timeout=5)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert server.stop() == 0
