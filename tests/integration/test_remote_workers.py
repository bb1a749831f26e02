"""Workers on the network: requests and loads go to them, they come and go, and only who has the key gets in."""

import asyncio
import pathlib
import re
import signal
import subprocess
from collections.abc import Callable

import grpc
import pytest
import zmq

from tensorgate.gateway.dispatch.worker import WorkerEndpoints
from tensorgate.gateway.dispatch.worker_client import WorkerClient
from tensorgate.gateway.python_command import python_command
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.worker_network import WorkerKey, new_worker_key, parse_address, read_worker_key
from tests.harness.model_server import (
    ModelServer,
    StartServer,
    floats,
    free_ports_in_a_row,
    predict_request,
    wait_until,
)
from tests.harness.remote_worker import RemoteWorker, StartWorker

TIMEOUT_S = 60.0


def is_served(server: ModelServer, answer: float = 4.0) -> bool:
    try:
        response = server.prediction.Predict(predict_request("half_plus_two", x=floats(4.0)), timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False
    return list(response.outputs["y"].float_val) == [answer]


def loads(server: ModelServer, worker: str) -> int:
    return len(re.findall(rf"{worker} loaded {{name: half_plus_two", server.log))


@pytest.mark.timeout(300)
def test_requests_go_to_workers_of_other_machines_which_come_and_go(
    start_server: StartServer, start_worker: StartWorker, model_config: Callable[..., str], key_file: pathlib.Path
) -> None:
    key = f"--worker_key_file={key_file}"
    workers = [start_worker(key), start_worker(key)]
    server = start_server(model_config("half_plus_two"), key, f"--workers={','.join(each.address for each in workers)}")
    assert all(is_served(server) for _ in range(20))
    assert "started: pid" not in server.log  # none of its own
    assert server.predict_rest("half_plus_two", {"instances": [4.0]}) == (200, {"predictions": [4.0]})
    before = [loads(server, name) for name in ("worker-0", "worker-1")]
    assert min(before) >= 1

    # One is killed: the other serves, and it gets all versions back when it is there again.
    workers[0].process.kill()
    wait_until(lambda: "has closed its connection" in server.log, "the loss is noticed")
    assert all(is_served(server) for _ in range(20))
    workers[0].process.wait()
    workers[0].start()
    wait_until(lambda: loads(server, "worker-0") == 2 * before[0], "loaded again", TIMEOUT_S)
    workers[1].process.kill()
    wait_until(lambda: server.log.count("has closed its connection") == 2, "the second loss is noticed")
    wait_until(lambda: is_served(server), "served by the one that came back", TIMEOUT_S)

    # A gateway that stops has its workers end in order.
    assert server.stop() == 0
    assert workers[0].process.wait(TIMEOUT_S) == 0
    assert "ends by the gateway's word" in workers[0].log


@pytest.mark.timeout(300)
def test_a_server_starts_and_takes_new_versions_with_the_workers_that_are_there(
    start_server: StartServer, start_worker: StartWorker, own_model: Callable[..., pathlib.Path]
) -> None:
    base_path = own_model("half_plus_two", 1)
    there, away = start_worker(), start_worker()
    away.process.kill()
    away.process.wait()
    there.wait_until_it_listens()  # before the start begins to wait
    server = start_server(
        "--model_name=half_plus_two",
        f"--model_base_path={base_path}",
        f"--workers={there.address},{away.address}",
        "--workers_start_wait_s=5",
        "--file_system_poll_wait_seconds=1",
    )
    assert is_served(server, 3.0)
    own_model("half_plus_two", 2)
    wait_until(lambda: loads(server, "worker-0") == 2, "the new version", TIMEOUT_S)
    wait_until(lambda: is_served(server), "served")
    away.start()
    wait_until(lambda: loads(server, "worker-1") >= 1, "the latest version on the one that has come", TIMEOUT_S)


def test_no_worker_at_all_refuses_the_start(start_server: StartServer, model_config: Callable[..., str]) -> None:
    address = f"tcp://127.0.0.1:{free_ports_in_a_row(3)}"
    # Longer than a greeting waits for its answer.
    server = start_server(model_config("half_plus_two"), f"--workers={address}", "--workers_start_wait_s=8", wait=False)
    assert server.process.wait(TIMEOUT_S) != 0
    assert f"No worker is up: worker-0 at {address}" in server.log
    assert "it may not run, or have another key" in server.log


@pytest.mark.timeout(300)
def test_a_worker_whose_gateway_has_gone_ends_and_serves_the_next_one(
    start_server: StartServer, start_worker: StartWorker, model_config: Callable[..., str]
) -> None:
    worker = start_worker("--gateway_timeout_s=3")
    server = start_server(model_config("half_plus_two"), f"--workers={worker.address}")
    assert is_served(server)
    server.stop(signal.SIGKILL)
    assert worker.process.wait(TIMEOUT_S) == 1
    assert "ends: its gateway is silent" in worker.log
    worker.start()
    assert is_served(start_server(model_config("half_plus_two"), f"--workers={worker.address}"))


def greet(worker: RemoteWorker, key: WorkerKey | None, *, holds: Callable[[], None] = lambda: None) -> Code:
    """What comes of a hello; ``holds`` is called while its lease lasts."""

    async def ask() -> Code:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        address = parse_address(worker.address)
        endpoints = WorkerEndpoints(address.data, address.control, address.cancel, key=key)
        client = WorkerClient(context, asyncio.get_running_loop(), "it", None, endpoints)
        try:
            await client.hello(3)
            await asyncio.to_thread(holds)
        except ServingError as error:
            return error.code
        finally:
            client.close(ServingError(Code.CANCELLED, "done"))
            context.term()
        return Code.OK

    return asyncio.run(ask())


@pytest.mark.timeout(300)
def test_only_who_has_the_key_gets_an_answer_and_one_gateway_at_a_time(
    start_worker: StartWorker, key_file: pathlib.Path
) -> None:
    worker = start_worker(f"--worker_key_file={key_file}")
    worker.wait_until_it_listens()
    key = read_worker_key(str(key_file))
    other_secret = new_worker_key().encode()
    other = WorkerKey(zmq.curve_public(other_secret), other_secret)
    assert greet(worker, None) is Code.DEADLINE_EXCEEDED
    assert greet(worker, other) is Code.DEADLINE_EXCEEDED
    # Who has learned the worker's public key, and nothing else, has a pair of keys, but not its secret.
    assert is_refused_with_public_key_only(worker, key.public, other)
    codes: list[Code] = []
    assert greet(worker, key, holds=lambda: codes.append(greet(worker, key))) is Code.OK
    assert codes == [Code.FAILED_PRECONDITION]


def is_refused_with_public_key_only(worker: RemoteWorker, server_key: bytes, own: WorkerKey) -> bool:
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.set(zmq.LINGER, 0)
        dealer.set(zmq.CURVE_SERVERKEY, server_key)
        dealer.set(zmq.CURVE_PUBLICKEY, own.public)
        dealer.set(zmq.CURVE_SECRETKEY, own.secret)
        monitor = dealer.get_monitor_socket(int(zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_SUCCEEDED))
        dealer.connect(worker.address)
        found = monitor.poll(20_000)
        event = int.from_bytes(monitor.recv_multipart()[0][:2], "little") if found else 0
        dealer.disable_monitor()
        monitor.close()
        return event == zmq.EVENT_HANDSHAKE_FAILED_AUTH


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--workers=tcp://10.0.0.1:9900"], "--worker_key_file is needed"),
        (["--workers=10.0.0.1:9900"], "a worker's address is tcp://HOST:PORT"),
        (["--workers=tcp://127.0.0.1:9900", "--num_workers=2"], "--workers names all workers"),
        (["--workers=tcp://127.0.0.1:9900", "--worker_isolation=model"], "worker_isolation is DEVICE with --workers"),
        (["--workers=tcp://127.0.0.1:9900", "--worker_key_file=/dev/null"], "holds no key of workers"),
    ],
)
def test_what_cannot_be_refuses_the_start(
    start_server: StartServer, model_config: Callable[..., str], flags: list[str], complaint: str
) -> None:
    server = start_server(model_config("half_plus_two"), *flags, wait=False)
    assert server.process.wait(TIMEOUT_S) != 0
    assert complaint in server.log


def test_a_worker_without_a_gateway_ends_at_once_by_sigterm(start_worker: StartWorker) -> None:
    worker = start_worker()
    worker.wait_until_it_listens()
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(TIMEOUT_S) == 0
    assert "ends by SIGTERM: 0 requests answered" in worker.log


def test_a_worker_that_others_reach_wants_a_key(tmp_path: pathlib.Path) -> None:
    command = [*python_command("tensorgate.workers.main"), "--listen=tcp://0.0.0.0:9900"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    assert done.returncode == 78
    assert "--worker_key_file is needed" in done.stderr
