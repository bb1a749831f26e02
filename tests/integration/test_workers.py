"""Several workers: copies of a model on all of them, workers of a model's or a version's own, and their deaths."""

import os
import pathlib
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow.core.framework.tensor_pb2 import TensorProto
from tests.fakes.fake_worker_options import FAKE_WORKER
from tests.harness.model_server import (
    ModelServer,
    StartServer,
    config_flag,
    floats,
    predict_request,
    process_exists,
    running_servers,
    wait_until,
)

OwnModel = Callable[..., pathlib.Path]


def ask(server: ModelServer, name: str = "half_plus_two", timeout_s: float = 20) -> tuple[int, float]:
    """The version that answers, and its answer to 4."""
    response = server.prediction.Predict(predict_request(name, x=floats(4)), timeout=timeout_s)
    return response.model_spec.version.value, response.outputs["y"].float_val[0]


def serves(server: ModelServer, version: int, name: str = "half_plus_two") -> bool:
    try:
        return ask(server, name) == (version, 2.0 + version)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False


def rounds(number: int) -> TensorProto:
    return TensorProto(dtype=types_pb2.DT_INT32, int_val=[number])


def version_status(server: ModelServer, name: str, version: int) -> dict[str, Any]:
    answer = server.rest("GET", f"/v1/models/{name}")[1]
    (found,) = [each for each in answer["model_version_status"] if each["version"] == str(version)]
    return dict(found)


def settings_flag(folder: pathlib.Path, text: str) -> str:
    path = folder / "settings.pbtxt"
    path.write_text(text, encoding="utf-8")
    return f"--model_settings_file={path}"


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory, saved_models: pathlib.Path) -> Iterator[ModelServer]:
    """half_plus_two on both of two workers, slow on the second only."""
    folder = tmp_path_factory.mktemp("two_workers")
    models = {name: saved_models / name for name in ("half_plus_two", "slow")}
    with running_servers(folder) as start:
        yield start(
            config_flag(folder, models),
            settings_flag(folder, 'model { name: "slow" workers: "worker-1" }'),
            "--num_workers=2",
            "--devices=cpu",
            "--worker_heartbeat_timeout_s=3",
        )


def test_each_worker_gets_a_copy_of_a_model_and_a_model_of_chosen_workers_is_on_those_only(
    two_workers: ModelServer,
) -> None:
    log = two_workers.log
    loads = sorted(re.findall(r"(worker-\d) loaded {name: (\w+) version: \d+}", log))
    assert loads == [("worker-0", "half_plus_two"), ("worker-1", "half_plus_two"), ("worker-1", "slow")]


def test_workers_on_the_cpu_see_no_gpu(two_workers: ModelServer) -> None:
    for pid in two_workers.live_workers.values():
        environment = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        assert b"CUDA_VISIBLE_DEVICES=-1" in environment


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_while_one_worker_is_gone_the_other_serves_and_the_server_stays_ready(
    two_workers: ModelServer, number: signal.Signals
) -> None:
    wait_until(lambda: two_workers.rest("GET", "/readyz")[0] == 200, "all copies loaded")
    wait_until(lambda: set(two_workers.live_workers) == {"worker-0", "worker-1"}, "both workers up")
    # worker-1 alone has "slow", so the server would rightly not be ready without it.
    pid = two_workers.live_workers["worker-0"]
    num_loads = two_workers.log.count("worker-0 loaded")
    os.kill(pid, number)
    began = time.monotonic()
    num_served, outcomes = 0, set()
    while two_workers.log.count("worker-0 loaded") == num_loads or num_served < 100:
        try:
            assert ask(two_workers, timeout_s=10) == (2, 4.0)
            num_served += 1
        except grpc.RpcError as error:
            outcomes.add(error.code())
        assert two_workers.rest("GET", "/readyz")[0] == 200
        assert time.monotonic() - began < 60, "worker-0 is not back"
    # What it had been handed is lost with it, nothing else.
    assert outcomes <= {grpc.StatusCode.UNAVAILABLE}
    assert two_workers.live_workers["worker-0"] != pid


def test_a_version_of_its_own_has_a_process_that_ends_with_it(
    start_server: StartServer, own_model: OwnModel, saved_models: pathlib.Path
) -> None:
    base_path = own_model("half_plus_two", 1)
    server = start_server("--model_name=half_plus_two", f"--model_base_path={base_path}", "--worker_isolation=version")
    assert ask(server) == (1, 3.0)
    first = server.live_workers
    assert list(first) == ["worker-1"]
    shutil.copytree(saved_models / "half_plus_two" / "2", base_path / "2")
    wait_until(lambda: serves(server, 2), "version 2 in use")
    wait_until(lambda: "worker-1" not in server.live_workers, "the process of version 1 to end")
    assert list(server.live_workers) == ["worker-2"]
    assert not process_exists(first["worker-1"])
    assert "worker-1 ends by the gateway's word" in server.log
    wait_until(lambda: version_status(server, "half_plus_two", 1)["state"] == "END", "the end of version 1")

    # Its successor loads what it had.
    second = server.live_workers["worker-2"]
    os.kill(second, signal.SIGKILL)
    wait_until(lambda: server.live_workers.get("worker-2", second) != second, "another worker-2")
    wait_until(lambda: serves(server, 2), "version 2 back")
    wait_until(lambda: server.rest("GET", "/readyz")[0] == 200, "ready again")
    left = list(server.live_workers.values())
    assert server.stop() == 0
    assert not [pid for pid in left if process_exists(pid)]


def test_an_unload_does_not_hang_on_a_process_that_stands_still(start_server: StartServer, own_model: OwnModel) -> None:
    base_path = own_model("half_plus_two", 1, 2)
    server = start_server(
        "--model_name=half_plus_two",
        f"--model_base_path={base_path}",
        settings_flag(base_path.parent, "model { worker_isolation: VERSION }"),
        "--worker_heartbeat_timeout_s=3",
    )
    (pid,) = [pid for name, pid in server.live_workers.items() if name != "worker-0"]
    os.kill(pid, signal.SIGSTOP)
    shutil.rmtree(base_path / "2")
    wait_until(lambda: serves(server, 1), "version 1 back")
    wait_until(lambda: version_status(server, "half_plus_two", 2)["state"] == "END", "the end of version 2")
    assert not process_exists(pid)


def test_models_with_workers_of_their_own_die_alone_and_may_have_threads_of_their_own(
    start_server: StartServer, model_config: Callable[..., str], tmp_path: pathlib.Path
) -> None:
    server = start_server(
        model_config("half_plus_two", "slow"),
        settings_flag(tmp_path, 'model { name: "slow" num_execution_threads: 7 intra_op_parallelism_threads: 1 }'),
        "--worker_isolation=model",
    )
    ((slow_worker, _),) = re.findall(r"starting (worker-\d+) for (model slow)", server.log)
    assert re.search(rf"{slow_worker} is up: TensorFlow [\d.]+, 7 execution threads", server.log)
    assert len(server.live_workers) == 2
    os.kill(server.live_workers[slow_worker], signal.SIGKILL)
    for _ in range(20):
        assert ask(server) == (2, 4.0)


def test_workers_that_cannot_be_as_asked_refuse_the_start(start_server: StartServer, tmp_path: pathlib.Path) -> None:
    server = start_server(f"--model_base_path={tmp_path}", "--devices=cpu,tpu", wait=False)
    assert server.process.wait(60) == 255
    assert (
        "Failed to start server. Error: INVALID_ARGUMENT: --devices takes cpu, gpu:0, gpu:1, …; got 'tpu'" in server.log
    )


def test_a_load_that_kills_its_worker_is_given_up_and_says_why(
    start_server: StartServer, saved_models: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    # The fake worker ends when it is asked to load a model of that name.
    config = config_flag(tmp_path, {"exit": saved_models / "half_plus_two"})
    server = start_server(
        config, f"--worker_command={sys.executable} {FAKE_WORKER}", "--load_retry_interval_micros=0", wait=False
    )
    assert server.process.wait(60) == 255
    assert re.search(
        r"1 servable\(s\) did not become available: {{name: exit version: 2} due to error: INTERNAL: loading"
        r" {name: exit version: 2} has ended its worker 3 times in a row and is not tried again; the last time"
        r" worker-0 \(pid \d+\) exited with code 5}, }",
        server.log,
    )


def test_a_version_that_serves_and_then_kills_whoever_loads_it_again_ends_and_the_others_come_back(
    start_server: StartServer, own_model: OwnModel, tmp_path: pathlib.Path
) -> None:
    base_paths = {name: tmp_path / name for name in ("good", "fragile")}
    for path in base_paths.values():
        shutil.copytree(own_model("half_plus_two", 1) / "1", path / "1")
        shutil.rmtree(tmp_path / "models")
    # Nobody waits for the fragile one, which does not come back.
    flags = [f"--worker_command={sys.executable} {FAKE_WORKER}", "--readiness=models:good"]
    server = start_server(config_flag(tmp_path, base_paths), *flags)
    (base_paths["fragile"] / "1" / "crash").touch()
    os.kill(server.worker_pid, signal.SIGKILL)
    wait_until(lambda: version_status(server, "fragile", 1)["state"] == "END", "the end of the fragile version")
    status = version_status(server, "fragile", 1)["status"]
    assert status["error_code"] == "INTERNAL"
    assert "has ended its worker 3 times in a row and is not tried again" in status["error_message"]
    wait_until(lambda: server.rest("GET", "/readyz")[0] == 200, "the good version back")
    assert version_status(server, "good", 1)["state"] == "AVAILABLE"


def test_requests_in_flight_on_several_workers_are_finished_when_the_server_is_stopped(
    start_server: StartServer, model_config: Callable[..., str]
) -> None:
    server = start_server(model_config("slow", "half_plus_two"), "--num_workers=2", "--worker_isolation=version")
    workers, server_folder = server.live_workers, server.run_directory
    assert len(workers) == 4
    server.prediction.Predict(predict_request("slow", rounds=rounds(0)), timeout=30)
    calls = [
        server.prediction.Predict.future(predict_request("slow", rounds=rounds(300)), timeout=60) for _ in range(6)
    ]
    time.sleep(0.3)
    assert not all(call.done() for call in calls)
    assert server.stop() == 0
    assert [call.result().outputs["y"].float_val[0] for call in calls] == pytest.approx([256] * 6)
    assert not [pid for pid in workers.values() if process_exists(pid)]
    assert not server_folder.exists()
