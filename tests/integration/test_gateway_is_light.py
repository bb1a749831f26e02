"""The gateway stays free of TensorFlow and small; the worker stays free of the Python package and of gRPC and HTTP."""

import pathlib
import subprocess
import sys
import time
from collections.abc import Callable

from tests.harness.model_server import StartServer, floats, predict_request


def test_the_gateway_maps_no_libtensorflow_and_the_worker_runs_no_python_tensorflow(
    start_server: StartServer, model_config: Callable[..., str]
) -> None:
    began = time.monotonic()
    server = start_server(model_config("half_plus_two"))
    request = predict_request("half_plus_two", x=floats(1))
    assert list(server.prediction.Predict(request, timeout=30).outputs["y"].float_val) == [2.5]
    assert time.monotonic() - began < 20, "start to first answer"
    gateway = pathlib.Path(f"/proc/{server.process.pid}")
    assert "tensorflow/lib" not in gateway.joinpath("maps").read_text()
    assert "libtensorflow" not in gateway.joinpath("maps").read_text()
    worker = pathlib.Path(f"/proc/{server.worker_pid}").joinpath("maps").read_text()
    assert "libtensorflow_cc" in worker
    # Importing the Python package maps its extension modules; the worker has the libraries only.
    assert "_pywrap_tensorflow" not in worker
    assert "cygrpc" not in worker
    assert "httptools" not in worker
    status = gateway.joinpath("status").read_text()
    (resident_kb,) = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")]
    assert resident_kb * 1024 < 120e6


def test_importing_the_gateway_imports_neither_workers_nor_tensorflow() -> None:
    script = (
        "import sys, tensorgate.gateway.main, tensorgate.gateway.cli.main\n"
        "bad = [m for m in sys.modules if m.split('.')[0] == 'tensorflow' or m.startswith('tensorgate.workers')]\n"
        "sys.exit(repr(bad) if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_importing_the_worker_imports_neither_grpc_nor_http_nor_the_gateway() -> None:
    script = (
        "import sys, tensorgate.workers.main\n"
        "roots = {'grpc', 'uvicorn', 'httptools', 'tensorflow'}\n"
        "bad = [m for m in sys.modules if m.split('.')[0] in roots or m.startswith('tensorgate.gateway')]\n"
        "sys.exit(repr(bad) if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
