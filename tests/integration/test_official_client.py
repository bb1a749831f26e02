"""TensorFlow Serving's own client package against our server, in an environment of its own.

tensorflow-serving-api requires ``tensorflow``, whose files overlap those of ``tensorflow-cpu``: it cannot live in the
environment of the tests. Make one (``python -m venv DIR && DIR/bin/pip install tensorflow-serving-api``) and name its
interpreter in TENSORGATE_OFFICIAL_CLIENT_PYTHON to run this.
"""

import os
import pathlib
import subprocess
from collections.abc import Callable

import pytest

from tests.harness.model_server import StartServer

INTERPRETER = os.environ.get("TENSORGATE_OFFICIAL_CLIENT_PYTHON", "")
SCRIPT = pathlib.Path(__file__).parents[1] / "harness" / "official_client.py"


@pytest.mark.skipif(not INTERPRETER, reason="TENSORGATE_OFFICIAL_CLIENT_PYTHON names no interpreter")
def test_the_official_client_gets_right_answers(start_server: StartServer, model_config: Callable[..., str]) -> None:
    server = start_server(model_config("half_plus_two"))
    done = subprocess.run(
        [INTERPRETER, str(SCRIPT), f"localhost:{server.port}", "half_plus_two"],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.stdout.strip().endswith("ok"), done.stdout + done.stderr
