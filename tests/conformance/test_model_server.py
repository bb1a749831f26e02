"""Upstream's cases of the model server as a process (tensorflow_model_server_test.py), against ours.

Each test bears the name of upstream's method. VP, upstream's check of a Predict, is ``verify_predict``.
"""

import contextlib
import importlib.util
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow_serving.apis import prediction_service_pb2_grpc
from tensorgate.protos.tensorflow_serving.apis.classification_pb2 import ClassificationRequest
from tensorgate.protos.tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest
from tensorgate.protos.tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest, ModelVersionStatus
from tensorgate.protos.tensorflow_serving.apis.inference_pb2 import MultiInferenceRequest
from tensorgate.protos.tensorflow_serving.apis.input_pb2 import Input
from tensorgate.protos.tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorgate.protos.tensorflow_serving.apis.regression_pb2 import RegressionRequest
from tensorgate.protos.tsl.profiler.protobuf.xplane_pb2 import XSpace
from tests.conftest import made_by
from tests.harness.model_server import (
    ModelServer,
    StartServer,
    config_flag,
    floats,
    predict_request,
    running_servers,
    wait_until,
)

VERSION = 123
HALF_PLUS_TWO = "/v1/models/half_plus_two"


@pytest.fixture
def start_server(tmp_path: pathlib.Path) -> Iterator[StartServer]:
    with running_servers(tmp_path) as start:
        yield start


def verify_predict(
    server: ModelServer,
    expected: float,
    model: str = "half_plus_two",
    *,
    signature: str = "",
    specify_output: bool = True,
    rows: bool = False,
) -> None:
    """Predict of x = 2: one float comes back, and the model_spec with version and signature filled in."""
    tensor = floats(2.0)
    if rows:
        tensor.tensor_shape.dim.add(size=1)
    request = predict_request(model, x=tensor)
    request.model_spec.signature_name = signature
    if specify_output:
        request.output_filter.append("y")
    response = server.prediction.Predict(request, timeout=30)
    assert list(response.outputs) == ["y"] or not specify_output
    output = response.outputs["y"] if specify_output else next(iter(response.outputs.values()))
    assert output.dtype == types_pb2.DT_FLOAT
    assert list(output.float_val) == [expected]
    assert_echoes(response.model_spec, model, signature or "serving_default")


def assert_echoes(spec: ModelSpec, model: str, signature: str) -> None:
    assert (spec.name, spec.version.value, spec.signature_name) == (model, VERSION, signature)


def examples(x: float) -> Input:
    made = Input()
    made.example_list.examples.add().features.feature["x"].float_list.value.append(x)
    return made


# --- the gRPC API -----------------------------------------------------------------------------------------------------


def test_get_model_status(model_server: ModelServer) -> None:
    request = GetModelStatusRequest(model_spec=ModelSpec(name="half_plus_two"))
    (status,) = model_server.model_service.GetModelStatus(request, timeout=30).model_version_status
    assert (status.version, status.state) == (VERSION, ModelVersionStatus.AVAILABLE)
    assert (status.status.error_code, status.status.error_message) == (0, "")


def test_get_model_metadata(model_server: ModelServer) -> None:
    request = GetModelMetadataRequest(model_spec=ModelSpec(name="half_plus_two"), metadata_field=["signature_def"])
    response = model_server.prediction.GetModelMetadata(request, timeout=30)
    assert_echoes(response.model_spec, "half_plus_two", "")
    assert list(response.metadata) == ["signature_def"]


def check_classify(server: ModelServer, model: str) -> None:
    spec = ModelSpec(name=model, signature_name="classify_x_to_y")
    response = server.prediction.Classify(ClassificationRequest(model_spec=spec, input=examples(2.0)), timeout=30)
    ((only,),) = [each.classes for each in response.result.classifications]
    assert (only.label, only.score) == ("", 3.0)
    assert_echoes(response.model_spec, model, "classify_x_to_y")


def check_regress(server: ModelServer, model: str) -> None:
    spec = ModelSpec(name=model, signature_name="regress_x_to_y")
    response = server.prediction.Regress(RegressionRequest(model_spec=spec, input=examples(2.0)), timeout=30)
    assert [each.value for each in response.result.regressions] == [3.0]
    assert_echoes(response.model_spec, model, "regress_x_to_y")


def check_multi_inference(server: ModelServer, model: str) -> None:
    request = MultiInferenceRequest(input=examples(2.0))
    for method in ("regress", "classify"):
        spec = ModelSpec(name=model, signature_name=f"{method}_x_to_y")
        request.tasks.add(model_spec=spec, method_name=f"tensorflow/serving/{method}")
    regression, classification = server.prediction.MultiInference(request, timeout=30).results
    assert [each.value for each in regression.regression_result.regressions] == [3.0]
    assert [each.classes[0].score for each in classification.classification_result.classifications] == [3.0]
    assert_echoes(regression.model_spec, model, "regress_x_to_y")
    assert_echoes(classification.model_spec, model, "classify_x_to_y")


def test_classify(model_server: ModelServer) -> None:
    check_classify(model_server, "half_plus_two")


def test_classify_tf2(model_server: ModelServer) -> None:
    check_classify(model_server, "half_plus_two_tf2")


def test_regress(model_server: ModelServer) -> None:
    check_regress(model_server, "half_plus_two")


def test_regress_tf2(model_server: ModelServer) -> None:
    check_regress(model_server, "half_plus_two_tf2")


def test_multi_inference(model_server: ModelServer) -> None:
    check_multi_inference(model_server, "half_plus_two")


def test_multi_inference_tf2(model_server: ModelServer) -> None:
    check_multi_inference(model_server, "half_plus_two_tf2")


def test_predict_saved_model(model_server: ModelServer) -> None:
    verify_predict(model_server, 3.0)
    verify_predict(model_server, 3.0, specify_output=False)


def test_predict_uds(model_server: ModelServer) -> None:
    (flag,) = [arg for arg in command_line(model_server) if arg.startswith("--grpc_socket_path=")]
    with grpc.insecure_channel(f"unix:{flag.partition('=')[2]}") as channel:
        stub: Any = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        response = stub.Predict(predict_request("half_plus_two", x=floats(2.0)), timeout=30)
    assert list(response.outputs["y"].float_val) == [3.0]


def command_line(server: ModelServer) -> list[str]:
    return pathlib.Path(f"/proc/{server.process.pid}/cmdline").read_bytes().decode().split("\0")


# --- configuration and flags ------------------------------------------------------------------------------------------


def test_good_model_config(model_server: ModelServer) -> None:
    for specify_output in (True, False):
        verify_predict(model_server, 3.0, "half_plus_two", specify_output=specify_output)
        verify_predict(model_server, 4.0, "half_plus_three", specify_output=specify_output)


def test_bad_model_config(start_server: StartServer, tmp_path: pathlib.Path) -> None:
    """Upstream looks for a line that protobuf's C++ parser logs; ours says the same in the server's own error."""
    config = tmp_path / "bad.config"
    config.write_text("this is not a model config")
    server = start_server(f"--model_config_file={config}", wait=False)
    assert server.process.wait(60) == 255
    assert f"Failed to start server. Error: INVALID_ARGUMENT: Invalid protobuf file: '{config}'" in server.log


def rewrite_config(folder: pathlib.Path, model: pathlib.Path) -> str:
    """Replaces the config file by one with that model only; its flag."""
    return config_flag(folder, {model.name: model})


def test_model_config_reload(start_server: StartServer, tmp_path: pathlib.Path, model_kinds: pathlib.Path) -> None:
    flag = rewrite_config(tmp_path, model_kinds / "half_plus_two")
    server = start_server(flag, "--model_config_file_poll_wait_seconds=1")
    verify_predict(server, 3.0)
    rewrite_config(tmp_path, model_kinds / "half_plus_three")

    def answers() -> bool:
        with contextlib.suppress(grpc.RpcError):
            verify_predict(server, 4.0, "half_plus_three")
            return True
        return False

    wait_until(answers, "half_plus_three answers", 10)


def test_model_config_reload_with_zero_poll_period(
    start_server: StartServer, tmp_path: pathlib.Path, model_kinds: pathlib.Path
) -> None:
    flag = rewrite_config(tmp_path, model_kinds / "half_plus_two")
    server = start_server(flag, "--model_config_file_poll_wait_seconds=0", "--file_system_poll_wait_seconds=1")
    rewrite_config(tmp_path, model_kinds / "half_plus_three")
    verify_predict(server, 3.0)
    with pytest.raises(grpc.RpcError) as caught:
        verify_predict(server, 4.0, "half_plus_three")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    verify_predict(server, 3.0)


def test_good_grpc_channel_args(start_server: StartServer, model_kinds: pathlib.Path) -> None:
    server = start_server(
        "--grpc_channel_arguments=grpc.max_connection_age_ms=2000,grpc.lb_policy_name=grpclb",
        "--model_name=half_plus_two",
        f"--model_base_path={model_kinds / 'half_plus_two'}",
    )
    verify_predict(server, 3.0)


# --- the REST API -----------------------------------------------------------------------------------------------------


def test_classify_rest(model_server: ModelServer) -> None:
    body = b'{"signature_name": "classify_x_to_y", "examples": [{"x": 2.0}]}'
    assert model_server.rest("POST", f"{HALF_PLUS_TWO}:classify", body) == (200, {"results": [[["", 3.0]]]})


def test_regress_rest(model_server: ModelServer) -> None:
    body = b'{"signature_name": "regress_x_to_y", "examples": [{"x": 2.0}]}'
    assert model_server.rest("POST", f"{HALF_PLUS_TWO}:regress", body) == (200, {"results": [3.0]})


def test_predict_rest(model_server: ModelServer) -> None:
    answer = model_server.rest("POST", f"{HALF_PLUS_TWO}:predict", b'{"instances": [2.0, 3.0, 4.0]}')
    assert answer == (200, {"predictions": [3.0, 3.5, 4.0]})


def test_predict_columnar_rest(model_server: ModelServer) -> None:
    answer = model_server.rest("POST", f"{HALF_PLUS_TWO}:predict", b'{"inputs": [2.0, 3.0, 4.0]}')
    assert answer == (200, {"outputs": [3.0, 3.5, 4.0]})


def test_get_status_rest(model_server: ModelServer) -> None:
    status = {"error_code": "OK", "error_message": ""}
    assert model_server.rest("GET", HALF_PLUS_TWO) == (
        200,
        {"model_version_status": [{"version": "123", "state": "AVAILABLE", "status": status}]},
    )


def test_get_model_metadata_rest(model_server: ModelServer) -> None:
    """What upstream compares with a file is looked at in test_rest_handler; here: version and signatures."""
    status, answer = model_server.rest("GET", f"{HALF_PLUS_TWO}/metadata")
    assert status == 200
    assert answer["model_spec"] == {"name": "half_plus_two", "signature_name": "", "version": "123"}
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    assert {name: each["method_name"].rpartition("/")[2] for name, each in signatures.items()} == {
        "serving_default": "predict",
        "regress_x_to_y": "regress",
        "classify_x_to_y": "classify",
        "regress_x2_to_y3": "regress",
        "classify_x2_to_y3": "classify",
    }


def test_prometheus_endpoint(start_server: StartServer, tmp_path: pathlib.Path, model_kinds: pathlib.Path) -> None:
    config = tmp_path / "monitoring.config"
    config.write_text('prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }')
    server = start_server(f"--monitoring_config_file={config}", f"--model_base_path={model_kinds / 'half_plus_two'}")
    status, body = server.rest("GET", "/monitoring/prometheus/metrics")
    assert status == 200
    assert "# TYPE" in body


# --- kinds of models --------------------------------------------------------------------------------------------------


def test_predict_on_tf_lite(start_server: StartServer, tflite_models: pathlib.Path) -> None:
    base_path = tflite_models / "half_plus_two"
    server = start_server("--model_name=half_plus_two", f"--model_base_path={base_path}", "--prefer_tflite_model=true")
    verify_predict(server, 3.0, specify_output=False)


def test_predict_with_signature_def_on_tf_lite(start_server: StartServer, tflite_models: pathlib.Path) -> None:
    base_path = tflite_models / "with_signature"
    server = start_server("--model_name=half_plus_two", f"--model_base_path={base_path}", "--prefer_tflite_model=true")
    verify_predict(server, 3.0)


def test_tf_saved_model_save(model_server: ModelServer) -> None:
    verify_predict(model_server, 12.0, "save_one", specify_output=False)


def test_tf_saved_model_save_multiple_signatures(model_server: ModelServer) -> None:
    verify_predict(model_server, 2.0, "save_several", signature="custom_signature_key")
    verify_predict(model_server, 1.0, "save_several")


def test_sequential_keras_saved_model_save(model_server: ModelServer) -> None:
    verify_predict(model_server, 2.0, "sequential", specify_output=False, rows=True)


def test_distrat_sequential_keras_saved_model_save(model_server: ModelServer) -> None:
    verify_predict(model_server, 2.0, "distributed", specify_output=False, rows=True)


def test_profiler_service_with_valid_trace_request(model_server: ModelServer, tmp_path: pathlib.Path) -> None:
    # Upstream's test traces with TensorFlow's own client while REST predicts.
    with tracing_client(model_server.port, tmp_path) as client:
        while client.poll() is None:
            status, _ = model_server.predict_rest("half_plus_two", {"instances": [2.0, 3.0, 4.0]})
            assert status == 200
    (trace,) = tmp_path.glob("plugins/profile/*/*.xplane.pb")
    space = XSpace.FromString(trace.read_bytes())
    names = {event.name for plane in space.planes for event in plane.event_metadata.values()}
    assert any("SessionRun" in name for name in names), sorted(names)[:50]


@contextlib.contextmanager
def tracing_client(port: int, folder: pathlib.Path) -> Iterator[subprocess.Popen[bytes]]:
    """TensorFlow's client of the profiler, which takes a trace of a second into the folder, as a process."""
    program = (
        "import sys; from tensorflow.python.profiler import profiler_client as client;"
        " client.trace(sys.argv[1], sys.argv[2], 1000, '', 10)"
    )
    with subprocess.Popen([sys.executable, "-c", program, f"127.0.0.1:{port}", str(folder)]) as client:
        yield client
    assert client.returncode == 0


def test_tf_text(start_server: StartServer, tmp_path: pathlib.Path) -> None:
    if importlib.util.find_spec("tensorflow_text") is None:
        pytest.skip("tensorflow-text is not installed: pip install --no-deps tensorflow-text")
    base_path = made_by("make_models_of_ops.py", tmp_path) / "tokens"
    server = start_server("--model_name=tokens", f"--model_base_path={base_path}", "--op_libraries=tensorflow-text")
    predictions = server.predict_rest("tokens", {"instances": ["What you know", "hi"]})
    assert predictions == (200, {"predictions": [["What", "you", "know"], ["hi", "", ""]]})
