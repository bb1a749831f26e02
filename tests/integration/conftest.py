"""Real servers for the integration tests."""

import pathlib
import shutil
from collections.abc import Callable, Iterator

import pytest

from tests.harness.model_server import StartServer, running_servers


@pytest.fixture
def start_server(tmp_path: pathlib.Path) -> Iterator[StartServer]:
    """Starts servers with the flags given, each ready when returned, and stops them after the test."""
    with running_servers(tmp_path) as start:
        yield start


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
