"""A real server as tests see it: the gateway as a process, its worker, and what its clients send."""

import contextlib
import dataclasses
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grpc

from tensorgate.gateway.python_command import python_command
from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorgate.protos.tensorflow_serving.apis import (
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictRequest

START_TIMEOUT_S = 60.0
SERVER = python_command("tensorgate.gateway.main")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def free_ports_in_a_row(count: int) -> int:
    """The first of so many."""
    while True:
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            try:
                for each in range(port + 1, port + count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", each))
            except (OSError, OverflowError):
                continue
            return port


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    """Waits for something another process does; fails the test, naming it, when it does not come."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"still not after {timeout_s} s: {what}"
        time.sleep(0.02)


def process_exists(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def floats(*values: float) -> TensorProto:
    tensor = TensorProto(dtype=types_pb2.DT_FLOAT, float_val=values)
    tensor.tensor_shape.dim.add(size=len(values))
    return tensor


def strings(*values: bytes) -> TensorProto:
    tensor = TensorProto(dtype=types_pb2.DT_STRING, string_val=values)
    tensor.tensor_shape.dim.add(size=len(values))
    return tensor


def config_flag(folder: pathlib.Path, models: Mapping[str, pathlib.Path]) -> str:
    """Writes a config file that names the models and their base paths into the folder; the flag for it."""
    lines = "".join(
        f'config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" }}\n'
        for name, path in models.items()
    )
    path = folder / "models.config"
    path.write_text(f"model_config_list {{\n{lines}}}\n", encoding="utf-8")
    return f"--model_config_file={path}"


def predict_request(model_name: str, version: int | None = None, **inputs: TensorProto) -> PredictRequest:
    request = PredictRequest(inputs=inputs)
    request.model_spec.name = model_name
    if version is not None:
        request.model_spec.version.value = version
    return request


@dataclasses.dataclass
class ModelServer:
    """One running server; ``log`` is its standard error so far."""

    process: subprocess.Popen[bytes]
    port: int
    rest_port: int
    log_path: pathlib.Path
    channel: grpc.Channel

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    @property
    def prediction(self) -> Any:
        return prediction_service_pb2_grpc.PredictionServiceStub(self.channel)

    @property
    def model_service(self) -> Any:
        return model_service_pb2_grpc.ModelServiceStub(self.channel)

    @property
    def worker_pid(self) -> int:
        """The worker that started last, as the log has it."""
        return int(re.findall(r"worker-\d+ started: pid (\d+)", self.log)[-1])

    @property
    def live_workers(self) -> dict[str, int]:
        """Workers that run, by name: their process ids."""
        started = dict(re.findall(r"(worker-\d+) started: pid (\d+)", self.log))
        return {name: int(pid) for name, pid in started.items() if process_exists(int(pid))}

    @property
    def run_directory(self) -> pathlib.Path:
        """Where the worker's sockets are, from its command line."""
        arguments = pathlib.Path(f"/proc/{self.worker_pid}/cmdline").read_bytes().decode().split("\0")
        (endpoint,) = [each for each in arguments if each.startswith("--data_endpoint=ipc://")]
        return pathlib.Path(endpoint.removeprefix("--data_endpoint=ipc://")).parent

    def rest(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        timeout_s: float = 30,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Any]:
        """Status and parsed JSON (or text) of one REST request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.rest_port, timeout=timeout_s)
        with contextlib.closing(connection):
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            text = response.read().decode()
        try:
            return response.status, json.loads(text)
        except ValueError:
            return response.status, text

    def predict_rest(self, model_name: str, document: dict[str, Any]) -> tuple[int, Any]:
        """Status and parsed JSON of a predict over REST."""
        return self.rest("POST", f"/v1/models/{model_name}:predict", json.dumps(document).encode())

    def is_ready(self) -> bool:
        assert self.process.poll() is None, f"the server ended with {self.process.returncode}:\n{self.log}"
        try:
            return self.rest("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout_s: float = 30) -> int:
        """Sends the signal and waits for the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout_s)


StartServer = Callable[..., ModelServer]


@contextlib.contextmanager
def running_servers(log_folder: pathlib.Path) -> Iterator[StartServer]:
    """Gives a function that starts servers with the flags given, each ready when returned; stops them at the end."""
    servers: list[ModelServer] = []

    def start(
        *flags: str,
        wait: bool = True,
        environment: dict[str, str] | None = None,
        current_folder: pathlib.Path | None = None,
        program: Sequence[str] = SERVER,
    ) -> ModelServer:
        port, rest_port = free_port(), free_port()
        log_path = log_folder / f"server-{len(servers)}.log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [*program, f"--port={port}", f"--rest_api_port={rest_port}", *flags],
                cwd=current_folder,
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {})},
            )
        server = ModelServer(process, port, rest_port, log_path, grpc.insecure_channel(f"127.0.0.1:{port}"))
        servers.append(server)
        if wait:
            wait_until(server.is_ready, f"{flags} ready", START_TIMEOUT_S)
        return server

    try:
        yield start
    finally:
        stuck = [server for server in servers if not stopped(server)]
        assert not stuck, f"servers that did not stop on SIGTERM: {[server.log for server in stuck]}"


def stopped(server: ModelServer) -> bool:
    """Stops it, in order or else by force; whether it was in order."""
    server.channel.close()
    try:
        server.stop()
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait()
        return False
    return True
