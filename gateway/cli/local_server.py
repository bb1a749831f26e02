"""A model server as a child process of a tool (the demo, a benchmark): started on free ports, waited for, stopped.

Everything blocks, and everything that waits has a deadline.
"""

import collections
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import grpc

from tensorgate.gateway.python_command import python_command
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc

_POLL_S = 0.05
_NUM_LOG_LINES_SHOWN = 30

# A server on this machine is meant: never by way of a proxy that the environment names, and asked anew at once.
LOCAL_CHANNEL_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)


def free_ports(count: int) -> list[int]:
    """TCP ports that nobody listens on now, all different; another process may take one before they are used."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class LocalServer:
    """One server process, serving one model. A context manager: leaving it ends the process, gently where it can."""

    def __init__(
        self,
        model_name: str,
        model_base_path: Path,
        log_path: Path,
        port: int,
        rest_api_port: int,
        flags: Sequence[str] = (),
    ) -> None:
        """Starts the process; ``port`` and ``rest_api_port`` must be free. Its output goes to the file ``log_path``.

        ``flags``: of the server, beside those that name its ports and its model.
        """
        self.grpc_address = f"localhost:{port}"
        self.rest_address = f"localhost:{rest_api_port}"
        self._model_name = model_name
        self._log_path = log_path
        command = [
            *python_command("tensorgate.gateway.main"),
            f"--port={port}",
            f"--rest_api_port={rest_api_port}",
            f"--model_name={model_name}",
            f"--model_base_path={model_base_path}",
            *flags,
        ]
        with log_path.open("wb") as log:
            # A session of its own, so that Ctrl-C reaches the tool only, which then stops the server in order.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> "LocalServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait_until_available(self, timeout_s: float) -> None:
        """Waits until a version of the model is AVAILABLE.

        Raises ServingError UNAVAILABLE with the end of the server's log where it ends first, DEADLINE_EXCEEDED where
        it takes longer than ``timeout_s``.
        """
        deadline_s = time.monotonic() + timeout_s
        with grpc.insecure_channel(self.grpc_address, options=LOCAL_CHANNEL_OPTIONS) as channel:
            stub = model_service_pb2_grpc.ModelServiceStub(channel)  # type: ignore[no-untyped-call]
            while not self._is_available(stub):
                exit_code = self._process.poll()
                if exit_code is not None:
                    raise self._failure(Code.UNAVAILABLE, f"The server ended at start with exit code {exit_code}")
                if time.monotonic() > deadline_s:
                    raise self._failure(Code.DEADLINE_EXCEEDED, f"The server is not up after {timeout_s:.0f} s")
                time.sleep(_POLL_S)

    def _is_available(self, stub: model_service_pb2_grpc.ModelServiceStub) -> bool:
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = self._model_name
        try:
            response = stub.GetModelStatus(request, timeout=1.0)
        except grpc.RpcError:
            return False  # not listening yet
        available = get_model_status_pb2.ModelVersionStatus.State.AVAILABLE
        return any(version.state == available for version in response.model_version_status)

    def wait(self) -> None:
        """Waits, without a deadline, until the process ends by itself; raises ServingError UNAVAILABLE then."""
        exit_code = self._process.wait()
        raise self._failure(Code.UNAVAILABLE, f"The server ended with exit code {exit_code}")

    def stop(self, timeout_s: float = 40.0) -> int:
        """Asks the process to end, kills it after ``timeout_s`` and returns its exit code, negative for a signal.

        Called again, it returns the same.
        """
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return self._process.wait()

    def _failure(self, code: Code, message: str) -> ServingError:
        return ServingError(code, f"{message}. The end of its log:\n{tail(self._log_path)}")


def tail(path: Path) -> str:
    """The last lines of the text file ``path``."""
    with path.open(encoding="utf-8", errors="replace") as file:
        lines = collections.deque(file, _NUM_LOG_LINES_SHOWN)
    return "".join(lines).rstrip() or "(empty)"
