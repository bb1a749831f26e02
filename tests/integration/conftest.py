"""Real servers for the integration tests."""

import pathlib
import shutil
from collections.abc import Callable, Iterator

import pytest

from tensorgate.protos.worker_network import new_worker_key
from tests.harness.model_server import StartServer, config_flag, running_servers
from tests.harness.remote_worker import StartWorker, running_workers


@pytest.fixture
def start_server(tmp_path: pathlib.Path) -> Iterator[StartServer]:
    """Starts servers with the flags given, each ready when returned, and stops them after the test."""
    with running_servers(tmp_path) as start:
        yield start


@pytest.fixture
def start_worker(tmp_path: pathlib.Path) -> Iterator[StartWorker]:
    """Starts workers on the network with the flags given, and ends them after the test."""
    with running_workers(tmp_path) as start:
        yield start


@pytest.fixture
def key_file(tmp_path: pathlib.Path) -> pathlib.Path:
    """A key for workers on the network and their gateway."""
    path = tmp_path / "workers.key"
    path.write_text(new_worker_key() + "\n", encoding="ascii")
    return path


@pytest.fixture
def model_config(tmp_path: pathlib.Path, saved_models: pathlib.Path) -> Callable[..., str]:
    """Writes a config file for models of the ``saved_models`` folder; the flag that names it."""

    def write(*names: str) -> str:
        return config_flag(tmp_path, {name: saved_models / name for name in names})

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
