"""gRPC's health service and reflection on both edges, as their own clients use them; readiness while workers end."""

import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import grpc
import pytest

from tensorgate.gateway.rpc.reflection import SERVICES
from tensorgate.protos.grpc.health.v1 import health_pb2_grpc
from tensorgate.protos.grpc.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from tensorgate.protos.grpc.reflection.v1 import reflection_pb2_grpc
from tensorgate.protos.grpc.reflection.v1.reflection_pb2 import ServerReflectionRequest
from tests.harness.model_server import ModelServer, StartServer, wait_until

SCRIPT = pathlib.Path(__file__).parents[1] / "harness" / "grpc_tools_client.py"
EDGES = pytest.mark.parametrize("edge", ["native", "grpcio"])
SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


def health_of(server: ModelServer, service: str = "") -> int:
    stub = health_pb2_grpc.HealthStub(server.channel)  # type: ignore[no-untyped-call]
    return int(stub.Check(HealthCheckRequest(service=service), timeout=10).status)


@EDGES
@pytest.mark.skipif(
    importlib.util.find_spec("grpc_health") is None or importlib.util.find_spec("grpc_reflection") is None,
    reason="grpcio-health-checking or grpcio-reflection is not installed",
)
def test_grpcs_own_clients_understand_both_services(
    start_server: StartServer, model_config: Callable[..., str], edge: str
) -> None:
    server = start_server(model_config("half_plus_two"), f"--grpc_edge={edge}")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), f"127.0.0.1:{server.port}", "half_plus_two"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "statuses": {
            "": "SERVING",
            "tensorflow.serving.PredictionService": "SERVING",
            "ModelService": "SERVING",
            "half_plus_two": "SERVING",
            "nobody": "NOT_FOUND",
        },
        "watched": {"half_plus_two": "SERVING", "nobody": "SERVICE_UNKNOWN"},
        "services": sorted(SERVICES),
        "predict_takes": "tensorflow.serving.PredictRequest",
        "inputs_are": "tensorflow.TensorProto",
    }


@EDGES
def test_version_1_of_reflection_answers_each_request_of_a_stream(
    start_server: StartServer, model_config: Callable[..., str], edge: str
) -> None:
    server = start_server(model_config("half_plus_two"), f"--grpc_edge={edge}")
    stub = reflection_pb2_grpc.ServerReflectionStub(server.channel)  # type: ignore[no-untyped-call]
    requests = [
        ServerReflectionRequest(list_services=""),
        ServerReflectionRequest(file_containing_symbol="tensorflow.serving.ModelService"),
        ServerReflectionRequest(file_containing_symbol="no.such.Thing"),
        ServerReflectionRequest(file_by_filename="tensorflow_serving/apis/model.proto"),
        ServerReflectionRequest(),
    ]
    listed, file, missing, named, empty = stub.ServerReflectionInfo(iter(requests), timeout=20)
    assert [service.name for service in listed.list_services_response.service] == list(SERVICES)
    assert b"ModelService" in file.file_descriptor_response.file_descriptor_proto[0]
    assert len(file.file_descriptor_response.file_descriptor_proto) > 3
    assert missing.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    assert missing.original_request == requests[2]
    assert b"ModelSpec" in named.file_descriptor_response.file_descriptor_proto[0]
    assert empty.error_response.error_code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


@EDGES
def test_health_follows_the_worker_and_a_watch_is_told(
    start_server: StartServer, model_config: Callable[..., str], edge: str
) -> None:
    server = start_server(model_config("half_plus_two"), f"--grpc_edge={edge}")
    stub = health_pb2_grpc.HealthStub(server.channel)  # type: ignore[no-untyped-call]
    seen: list[int] = []
    watch = stub.Watch(HealthCheckRequest(service="half_plus_two"), timeout=100)

    def collect() -> None:
        try:
            seen.extend(response.status for response in watch)
        except grpc.RpcError as error:
            seen.append(-error.code().value[0])

    thread = threading.Thread(target=collect)
    thread.start()
    wait_until(lambda: seen == [SERVING], "the first status")
    first = server.worker_pid
    # It is started again, which takes longer than a watch sleeps.
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: seen == [SERVING, NOT_SERVING], "the worker's end")
    wait_until(lambda: seen == [SERVING, NOT_SERVING, SERVING], "its return")
    assert health_of(server) == health_of(server, "half_plus_two") == SERVING
    # An open watch neither holds the server's end up nor misses it.
    assert server.stop(timeout_s=20) == 0
    thread.join(20)
    assert not thread.is_alive()
    assert seen[3:] == [NOT_SERVING, -grpc.StatusCode.UNAVAILABLE.value[0]]


def test_a_server_that_needs_one_model_is_not_ready_without_it(
    start_server: StartServer, model_config: Callable[..., str]
) -> None:
    server = start_server(model_config("half_plus_two"), "--readiness=models:half_plus_two,other", wait=False)
    wait_until(lambda: "Running gRPC ModelServer" in server.log, "the server")
    assert server.rest("GET", "/readyz") == (503, "Model other has no version that is available.\n")
    assert server.rest("GET", "/v2/health/ready")[0] == 503
    assert server.rest("GET", "/v2/health/live")[0] == 200
    assert health_of(server) == NOT_SERVING
    assert health_of(server, "half_plus_two") == SERVING
    status, document = server.rest("GET", "/v1/models")
    assert status == 200
    (model,) = document["models"]
    assert model["name"] == "half_plus_two"
    assert [version["state"] for version in model["model_version_status"]] == ["AVAILABLE"]
