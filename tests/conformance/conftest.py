"""The servers that the conformance tests share, set up as upstream's own tests set theirs up."""

import pathlib
import shutil
from collections.abc import Iterator

import pytest

from tests.harness.model_server import ModelServer, config_flag, running_servers

# Upstream's tests ask for these two versions of half_plus_two, and for these labels.
VERSIONS, LABELS = (123, 124), {"A": 123, "B": 124}


@pytest.fixture(scope="session")
def model_server(model_kinds: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    """Every model of tests/saved_models/make_model_kinds.py, version 123, on TCP and on a UNIX socket."""
    folder = tmp_path_factory.mktemp("model_server")
    models = {path.name: path for path in model_kinds.iterdir() if path.is_dir()}
    with running_servers(folder) as start_server:
        yield start_server(
            config_flag(folder, models),
            "--rest_api_timeout_in_ms=5000",
            "--grpc_channel_arguments=grpc.so_reuseaddr=1",
            f"--grpc_socket_path={folder / 'socket'}",
        )


@pytest.fixture(scope="session")
def two_versions(model_kinds: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    """half_plus_two as "model" in versions 123 and 124, with a label for each."""
    folder = tmp_path_factory.mktemp("two_versions")
    for version in VERSIONS:
        shutil.copytree(model_kinds / "half_plus_two" / "00000123", folder / "model" / f"{version:08}")
    labels = " ".join(f'version_labels {{ key: "{label}" value: {version} }}' for label, version in LABELS.items())
    config = folder / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "model" base_path: "{folder / "model"}" model_platform: "tensorflow"'
        f" model_version_policy {{ all {{}} }} {labels} }} }}\n"
    )
    with running_servers(folder) as start_server:
        yield start_server(f"--model_config_file={config}", "--allow_version_labels_for_unavailable_models=true")
