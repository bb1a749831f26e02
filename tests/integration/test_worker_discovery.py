"""Workers that a name stands for: they join and leave under load, all go and one comes back, an answer may lack one.

Loopback has many addresses, so every worker of a test has its own at one port, as those of a name have in earnest.
"""

import contextlib
import pathlib
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator

import grpc
import pytest

from tests.harness.model_server import (
    ModelServer,
    StartServer,
    floats,
    free_ports_in_a_row,
    predict_request,
    wait_until,
)
from tests.harness.remote_worker import RemoteWorker, StartWorker
from tests.harness.scripted_names import NAME

TIMEOUT_S = 60.0
PROGRAM = pathlib.Path(__file__).parents[1] / "harness" / "scripted_names.py"
ONE, TWO, THREE = (f"127.0.0.{each}" for each in (1, 2, 3))


class Scene:
    """One name, workers at its addresses, and a gateway that knows nothing but the name."""

    def __init__(
        self, folder: pathlib.Path, start_server: StartServer, start_worker: StartWorker, key_file: pathlib.Path
    ) -> None:
        self._names = folder / "names"
        self._start_server, self._start_worker = start_server, start_worker
        self._port = free_ports_in_a_row(3)
        self._key = f"--worker_key_file={key_file}"
        self.resolves_to()

    def resolves_to(self, *hosts: str) -> None:
        """From now on; none: the name is not known."""
        written = self._names.with_suffix(".new")
        written.write_text(" ".join(hosts), encoding="ascii")
        written.replace(self._names)

    def worker(self, host: str) -> RemoteWorker:
        return self._start_worker(self._key, host=host, port=self._port)

    def server(self, *flags: str, wait: bool = True, start_wait_s: float = 60) -> ModelServer:
        return self._start_server(
            f"--workers=dns://{NAME}:{self._port}",
            f"--workers_start_wait_s={start_wait_s}",
            self._key,
            *flags,
            wait=wait,
            program=(sys.executable, str(PROGRAM), str(self._names)),
        )


@pytest.fixture
def scene(
    tmp_path: pathlib.Path, start_server: StartServer, start_worker: StartWorker, key_file: pathlib.Path
) -> Scene:
    return Scene(tmp_path, start_server, start_worker, key_file)


def ask(server: ModelServer) -> str:
    """What became of one request: OK, or the error's code and text."""
    try:
        response = server.prediction.Predict(predict_request("half_plus_two", x=floats(4.0)), timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"
    assert list(response.outputs["y"].float_val) == [4.0]
    return "OK"


@contextlib.contextmanager
def under_load(server: ModelServer) -> Iterator[Counter[str]]:
    """Requests, one after another on two threads; what became of them so far."""
    outcomes: Counter[str] = Counter()
    stopping = threading.Event()

    def send() -> None:
        while not stopping.is_set():
            outcomes[ask(server)] += 1

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield outcomes
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


def wait_for_log(server: ModelServer, text: str) -> None:
    wait_until(lambda: text in server.log, text, TIMEOUT_S)


def workers_on_the_page(server: ModelServer) -> list[str]:
    lines = str(server.rest("GET", "/metrics")[1]).splitlines()
    return [line for line in lines if line.startswith("tensorgate_worker_up{")]


@pytest.mark.timeout(300)
def test_workers_join_and_leave_under_load_and_no_request_fails(scene: Scene, model_config: Callable[..., str]) -> None:
    first = scene.worker(ONE)
    scene.resolves_to(ONE)
    server = scene.server(model_config("half_plus_two"))
    with under_load(server) as outcomes:
        second = scene.worker(TWO)
        scene.resolves_to(ONE, TWO)
        wait_for_log(server, "worker-1 loaded {name: half_plus_two")
        assert workers_on_the_page(server) == [
            'tensorgate_worker_up{worker="worker-0"} 1.0',
            'tensorgate_worker_up{worker="worker-1"} 1.0',
        ]
        first.process.send_signal(signal.SIGTERM)
        assert first.process.wait(TIMEOUT_S) == 0
        scene.resolves_to(TWO)
        wait_for_log(server, "worker-0 is forgotten")
        before = outcomes["OK"]
        wait_until(lambda: outcomes["OK"] >= before + 20, "requests go on", TIMEOUT_S)
        assert workers_on_the_page(server) == ['tensorgate_worker_up{worker="worker-1"} 1.0']
        # The next one gets the name that is free.
        scene.worker(THREE)
        scene.resolves_to(TWO, THREE)
        wait_until(lambda: server.log.count("worker-0 loaded {name: half_plus_two") >= 2, "loaded again", TIMEOUT_S)
    assert set(outcomes) == {"OK"}
    assert "ends by SIGTERM and the gateway's word" in first.log
    assert server.stop() == 0
    assert second.process.wait(TIMEOUT_S) == 0
    assert "ends by the gateway's word" in second.log


@pytest.mark.timeout(300)
def test_a_server_waits_for_the_name_outlives_all_its_workers_and_is_served_by_the_next(
    scene: Scene, model_config: Callable[..., str]
) -> None:
    server = scene.server(model_config("half_plus_two"), wait=False)
    wait_for_log(server, "cannot be resolved")
    worker = scene.worker(ONE)
    scene.resolves_to(ONE)
    wait_until(server.is_ready, "ready once the name is known", TIMEOUT_S)
    # An answer without it, and none at all, are no reason to let go a worker that serves.
    scene.resolves_to(TWO)
    wait_for_log(server, "worker-1 has joined")
    assert ask(server) == "OK"
    scene.resolves_to()
    wait_until(lambda: server.log.count("cannot be resolved") == 2, "told of", TIMEOUT_S)
    assert ask(server) == "OK"
    worker.process.kill()
    wait_until(lambda: ask(server).startswith("UNAVAILABLE"), "all are gone", TIMEOUT_S)
    wait_until(lambda: not server.is_ready(), "not ready")
    scene.worker(THREE)
    scene.resolves_to(THREE)
    wait_until(lambda: ask(server) == "OK", "served by the next one", TIMEOUT_S)
    assert server.is_ready()
    assert "is forgotten" in server.log
    assert server.log.count("is resolved again") == 2


@pytest.mark.timeout(300)
def test_a_version_whose_only_copy_is_on_a_worker_that_leaves_is_loaded_elsewhere_first(
    scene: Scene, model_config: Callable[..., str], tmp_path: pathlib.Path
) -> None:
    settings = tmp_path / "settings"
    settings.write_text("model { replicas: 1 }", encoding="utf-8")
    workers = {host: scene.worker(host) for host in (ONE, TWO)}
    scene.resolves_to(ONE, TWO)
    server = scene.server(model_config("half_plus_two"), f"--model_settings_file={settings}")
    wait_until(lambda: len(workers_on_the_page(server)) == 2, "both are known", TIMEOUT_S)
    wait_until(lambda: all(line.endswith(" 1.0") for line in workers_on_the_page(server)), "both are up", TIMEOUT_S)
    with under_load(server) as outcomes:
        (loaded,) = [host for host in workers if f"{name_of(server, host)} loaded" in server.log]
        workers[loaded].process.send_signal(signal.SIGTERM)
        assert workers[loaded].process.wait(TIMEOUT_S) == 0
        before = outcomes["OK"]
        wait_until(lambda: outcomes["OK"] >= before + 20, "requests go on", TIMEOUT_S)
    assert set(outcomes) == {"OK"}


def name_of(server: ModelServer, host: str) -> str:
    """Of the worker at the host's address, as the gateway calls it."""
    (name,) = {line.split(" has joined")[0].split()[-1] for line in server.log.splitlines()
               if " has joined" in line and f"//{host}:" in line}  # fmt: skip
    return name


def test_a_name_that_is_not_known_refuses_the_start(scene: Scene, model_config: Callable[..., str]) -> None:
    server = scene.server(model_config("half_plus_two"), wait=False, start_wait_s=5)
    assert server.process.wait(TIMEOUT_S) != 0
    assert f"No worker is up: dns://{NAME}:" in server.log
    assert "Name or service not known" in server.log


@pytest.mark.timeout(300)
def test_a_name_may_stand_for_ipv6_addresses(scene: Scene, model_config: Callable[..., str]) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("there is no IPv6 here")
    scene.worker("[::1]")
    scene.resolves_to("::1")
    server = scene.server(model_config("half_plus_two"))
    assert ask(server) == "OK"
    assert "worker-0 is up at tcp://[::1]:" in server.log
