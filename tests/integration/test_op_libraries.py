"""Ops that TensorFlow does not have: served where --op_libraries names their library, refused in words where not."""

import importlib.util
import pathlib
import shutil
import subprocess

import pytest

from tests.conftest import made_by
from tests.harness.model_server import ModelServer, StartServer, floats, predict_request, wait_until

SOURCE = pathlib.Path(__file__).parents[1] / "saved_models" / "triple_op.c"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """triple_op.c as a library of ops."""
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip('TensorFlow is not installed: pip install "tensorgate[cpu]"')
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = spec.submodule_search_locations[0]
    path = tmp_path_factory.mktemp("ops") / "triple_op.so"
    command = [compiler, "-shared", "-fPIC", "-o", path, SOURCE, f"-I{folder}/include", f"-L{folder}"]
    subprocess.run([*command, "-l:libtensorflow_framework.so.2"], check=True, timeout=120)
    return path


@pytest.fixture(scope="module")
def triple(library: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The base path of a model with its op."""
    return made_by("make_models_of_ops.py", tmp_path_factory.mktemp("models"), str(library)) / "triple"


def refused_start(start_server: StartServer, base_path: pathlib.Path, op_libraries: str) -> str:
    """What a server says that ends at its start."""
    server: ModelServer = start_server(
        "--model_name=triple", f"--model_base_path={base_path}", f"--op_libraries={op_libraries}", wait=False
    )
    wait_until(lambda: server.process.poll() is not None, "the server has ended", 60)
    assert server.process.returncode not in (0, None)
    return server.log


def test_a_model_with_an_op_of_a_library_is_served_by_every_worker(
    start_server: StartServer, triple: pathlib.Path, library: pathlib.Path
) -> None:
    server = start_server(
        "--model_name=triple", f"--model_base_path={triple}", f"--op_libraries={library}", "--num_workers=2"
    )
    for _ in range(4):
        response = server.prediction.Predict(predict_request("triple", x=floats(1.0, 2.5)), timeout=30)
        assert list(response.outputs["y"].float_val) == [3.0, 7.5]
    assert server.log.count("triple_op.so are loaded") == 2


def test_a_worker_that_is_started_again_loads_the_library_too(
    start_server: StartServer, triple: pathlib.Path, library: pathlib.Path
) -> None:
    # Relative to the folder that the server was started in.
    server = start_server(
        "--model_name=triple",
        f"--model_base_path={triple}",
        "--op_libraries=./triple_op.so",
        current_folder=library.parent,
    )
    subprocess.run(["kill", "-KILL", str(server.worker_pid)], check=True)
    wait_until(lambda: server.log.count("triple_op.so are loaded") == 2, "the second worker has loaded it")
    answer = floats(0.0)
    wait_until(lambda: server.predict_rest("triple", {"instances": [4.0]})[0] == 200, "the model serves again")
    response = server.prediction.Predict(predict_request("triple", x=answer), timeout=30)
    assert list(response.outputs["y"].float_val) == [0.0]


def test_without_the_library_the_version_says_which_op_it_lacks(
    start_server: StartServer, triple: pathlib.Path
) -> None:
    server = start_server("--model_name=triple", f"--model_base_path={triple}", "--max_num_load_retries=0", wait=False)
    wait_until(lambda: server.process.poll() is not None, "the server has ended", 60)
    assert "TensorgateTriple" in server.log


def test_a_library_that_is_not_there_ends_the_start(start_server: StartServer, triple: pathlib.Path) -> None:
    log = refused_start(start_server, triple, "/no/such/ops.so")
    assert "--op_libraries names '/no/such/ops.so', but there is no file /no/such/ops.so" in log


def test_a_file_that_is_no_library_ends_the_start_with_its_name(
    start_server: StartServer, triple: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "broken.so").write_bytes(b"\x7fELF and no more")
    assert f"cannot load the ops of {tmp_path}/broken.so" in refused_start(
        start_server, triple, f"{tmp_path}/broken.so"
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("no-such-distribution-of-ops", "no Python distribution of that name is installed where the worker runs"),
        ("msgpack", "that distribution has no library of TensorFlow ops"),
    ],
)
def test_a_distribution_without_ops_ends_the_start(
    start_server: StartServer, triple: pathlib.Path, name: str, text: str
) -> None:
    assert f"--op_libraries names '{name}', but {text}" in refused_start(start_server, triple, name)
