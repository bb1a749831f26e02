"""Real servers for the integration tests."""

import os
import pathlib
import shutil
import subprocess
from collections.abc import Callable, Iterator

import grpc
import pytest

from tensorgate.gateway.python_command import python_command
from tests.harness.model_server import ModelServer, StartServer, free_port, wait_until

START_TIMEOUT_S = 60.0
SERVER = python_command("tensorgate.gateway.main")


@pytest.fixture
def start_server(tmp_path: pathlib.Path) -> Iterator[StartServer]:
    """Starts servers with the flags given, each ready when returned, and stops them after the test."""
    servers: list[ModelServer] = []

    def start(
        *flags: str,
        wait: bool = True,
        environment: dict[str, str] | None = None,
        current_folder: pathlib.Path | None = None,
    ) -> ModelServer:
        port, rest_port = free_port(), free_port()
        log_path = tmp_path / f"server-{len(servers)}.log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [*SERVER, f"--port={port}", f"--rest_api_port={rest_port}", *flags],
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

    yield start
    for server in servers:
        server.channel.close()
        try:
            server.stop()
        except subprocess.TimeoutExpired:
            server.process.kill()
            server.process.wait()
            pytest.fail(f"the server did not stop on SIGTERM:\n{server.log}")


@pytest.fixture
def model_config(tmp_path: pathlib.Path, saved_models: pathlib.Path) -> Callable[..., str]:
    """Writes a config file for models of the ``saved_models`` folder; the flag that names it."""

    def write(*names: str) -> str:
        models = "".join(
            f'config {{ name: "{name}" base_path: "{saved_models / name}" model_platform: "tensorflow" }}\n'
            for name in names
        )
        path = tmp_path / "models.config"
        path.write_text(f"model_config_list {{\n{models}}}\n", encoding="utf-8")
        return f"--model_config_file={path}"

    return write


@pytest.fixture
def own_model(tmp_path: pathlib.Path, saved_models: pathlib.Path) -> Callable[..., pathlib.Path]:
    """A base path of the test's own, with copies of the versions asked for."""

    def copy(name: str, *versions: int) -> pathlib.Path:
        base_path = tmp_path / "models" / name
        for version in versions:
            shutil.copytree(saved_models / name / str(version), base_path / str(version))
        return base_path

    return copy
