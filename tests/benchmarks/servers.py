"""Starts the servers that are measured, each in a process of its own, and stops them."""

import contextlib
import http.client
import json
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping

import zmq

from tensorgate.protos import control_messages

HERE = pathlib.Path(__file__).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def echo_server() -> Iterator[int]:
    """The grpcio aio echo server; its port."""
    with subprocess.Popen([sys.executable, str(HERE / "echo_server.py")], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            yield int(server.stdout.readline())
        finally:
            server.kill()


@contextlib.contextmanager
def asgi_echo_server() -> Iterator[int]:
    """The uvicorn echo server; its port."""
    with subprocess.Popen([sys.executable, str(HERE / "asgi_echo.py")], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            yield int(server.stdout.readline())
        finally:
            server.kill()


@contextlib.contextmanager
def nghttpd(folder: pathlib.Path) -> Iterator[int]:
    """nghttp2's own server, one thread, echoing what is posted; its port."""
    port = free_port()
    command = ["nghttpd", "--no-tls", "-n", "1", "-d", str(folder), str(port), "--echo-upload"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.02)
            yield port
        finally:
            server.kill()


@contextlib.contextmanager
def model_server(
    base_paths: Mapping[str, pathlib.Path], *flags: str, interpreter: str = sys.executable
) -> Iterator[tuple[int, int, subprocess.Popen[bytes]]]:
    """Our server with these models, ready; its gRPC port, its REST port, its process."""
    port, rest_port = free_port(), free_port()
    with tempfile.NamedTemporaryFile("w", prefix="models-", suffix=".config") as config:
        entries = "\n".join(
            f'config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" }}'
            for name, path in base_paths.items()
        )
        config.write(f"model_config_list {{ {entries} }}")
        config.flush()
        command = [interpreter, "-m", "tensorgate.gateway.main", f"--port={port}", f"--rest_api_port={rest_port}"]
        command += [f"--model_config_file={config.name}", "--log_level=warning", *flags]
        with _running(command, list(base_paths), rest_port) as server:
            yield port, rest_port, server


@contextlib.contextmanager
def _running(command: list[str], model_names: list[str], rest_port: int) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command) as server:
        try:
            for name in model_names:
                wait_until_available(name, rest_port, server)
            yield server
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(30)


def wait_until_available(
    model_name: str, rest_port: int, server: subprocess.Popen[bytes], timeout_s: float = 60
) -> None:
    """Asks for the model's status until a version is AVAILABLE; raises when the server ends or time is up."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"the server ended with status {server.returncode}")
        connection = http.client.HTTPConnection("127.0.0.1", rest_port, timeout=5)
        with contextlib.suppress(OSError), contextlib.closing(connection):
            connection.request("GET", f"/v1/models/{model_name}")
            if b"AVAILABLE" in connection.getresponse().read():
                return
        time.sleep(0.02)
    raise RuntimeError(f"{model_name} is not available after {timeout_s} s")


def resident_mb(pid: int) -> float:
    """Resident memory of a process in MB (10^6 bytes)."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"process {pid} has no resident memory")


def cpu_s(pid: int) -> float:
    """Processor seconds, user and system, that a process has used."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def batch_totals(worker_pid: int, model_name: str) -> tuple[int, int]:
    """(rows, batches) that a worker has merged for a model, asked over its control socket."""
    arguments = pathlib.Path(f"/proc/{worker_pid}/cmdline").read_bytes().decode().split("\0")
    values = [each.partition("=")[2] for each in arguments if each.startswith("--control_endpoint=")]
    endpoint = values[0] if values else arguments[arguments.index("--control_endpoint") + 1]
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.connect(endpoint)
        socket.send(control_messages.pack_request(1, "ping"))
        if not socket.poll(5000):
            raise RuntimeError("the worker does not answer")
        queues = [json.loads(each) for each in control_messages.unpack_reply(socket.recv()).fields["queues"]]
    found = [queue for queue in queues if queue["name"] == model_name]
    return sum(queue["rows"] for queue in found), sum(queue["batches"] for queue in found)


def child_pids(pid: int) -> list[int]:
    """The direct children of a process."""
    found: list[int] = []
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text(encoding="ascii").split()]
    return found
