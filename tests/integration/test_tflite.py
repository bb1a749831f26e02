"""TensorFlow Lite models: served where they are preferred, checked as SavedModels are, and no end of their worker."""

import pathlib
import shutil
from collections.abc import Iterator

import grpc
import pytest

from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorgate.protos.tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorgate.protos.tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
from tests.harness.model_server import (
    ModelServer,
    StartServer,
    config_flag,
    floats,
    predict_request,
    running_servers,
    strings,
)
from tests.harness.tf_records import write_warmup_requests

INVALID_ARGUMENT, FAILED_PRECONDITION = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION


@pytest.fixture(scope="module")
def server(tflite_models: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    folder = tmp_path_factory.mktemp("tflite")
    models = {path.name: path for path in tflite_models.iterdir()}
    with running_servers(folder) as start_server:
        yield start_server(config_flag(folder, models), "--prefer_tflite_model=true", "--num_tflite_pools=2")


def integers(*values: int) -> TensorProto:
    tensor = TensorProto(dtype=types_pb2.DT_INT32, int_val=values)
    tensor.tensor_shape.dim.add(size=len(values))
    return tensor


def refusal(server: ModelServer, request: PredictRequest) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        server.prediction.Predict(request, timeout=30)
    return caught.value.code(), caught.value.details()


@pytest.mark.parametrize("name", ["half_plus_two", "with_signature"])
def test_predict_with_and_without_a_signature_def(server: ModelServer, name: str) -> None:
    for values in ([2.0], [1.0, 2.0, 5.0], []):
        response = server.prediction.Predict(predict_request(name, x=floats(*values)), timeout=30)
        assert list(response.outputs["y"].float_val) == [value / 2 + 2 for value in values]
        assert [dim.size for dim in response.outputs["y"].tensor_shape.dim] == [len(values)]
        spec = response.model_spec
        assert (spec.name, spec.version.value, spec.signature_name) == (name, 123, "serving_default")
    answer = server.rest("POST", f"/v1/models/{name}:predict", b'{"instances": [2.0, 3.0]}')
    assert answer == (200, {"predictions": [3.0, 3.5]})


def test_metadata_has_the_one_signature(server: ModelServer) -> None:
    request = GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "with_signature"
    signatures = SignatureDefMap()
    response = server.prediction.GetModelMetadata(request, timeout=30)
    assert response.metadata["signature_def"].Unpack(signatures)
    (signature,) = signatures.signature_def.values()
    assert signature.method_name == "tensorflow/serving/predict"
    assert {alias: info.name for alias, info in signature.inputs.items()} == {"x": "taken"}
    assert {alias: info.name for alias, info in signature.outputs.items()} == {"y": "given"}
    assert [dim.size for dim in signature.inputs["x"].tensor_shape.dim] == [-1]


def test_strings_go_in_and_come_out(server: ModelServer) -> None:
    request = predict_request("strings", text=strings(b"a\0b", b"\xff", b""), order=integers(2, 1, 0, 1))
    chosen = server.prediction.Predict(request, timeout=30).outputs["chosen"]
    assert list(chosen.string_val) == [b"", b"\xff", b"a\0b", b"\xff"]
    body = b'{"inputs": {"text": ["one", "two"], "order": [1, 0]}}'
    assert server.rest("POST", "/v1/models/strings:predict", body) == (200, {"outputs": ["two", "one"]})


def test_a_request_is_checked_as_one_for_a_saved_model(server: ModelServer) -> None:
    named = predict_request("half_plus_two", x=floats(1))
    named.model_spec.signature_name = "other"
    assert refusal(server, named) == (FAILED_PRECONDITION, 'Serving signature key "other" not found.')
    assert refusal(server, predict_request("half_plus_two")) == (
        INVALID_ARGUMENT,
        "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}.",
    )
    assert refusal(server, predict_request("half_plus_two", y=floats(1)))[1].startswith(
        "Signature input alias: x(feed name: x) not found in request"
    )
    assert refusal(server, predict_request("half_plus_two", x=strings(b"a"))) == (
        INVALID_ARGUMENT,
        "Expects x to be float but string is provided",
    )
    torn = floats(1, 2)
    torn.tensor_content = b"abc"
    assert refusal(server, predict_request("half_plus_two", x=torn)) == (INVALID_ARGUMENT, "tensor parsing error: x")
    filtered = predict_request("half_plus_two", x=floats(1))
    filtered.output_filter.append("z")
    assert refusal(server, filtered)[1] == (
        "output tensor alias not found in signature: z Outputs expected to be in the set {y}."
    )
    filtered.output_filter[:] = ["y", "y"]
    assert refusal(server, filtered)[1] == "duplicate output tensor alias: y"


def test_what_the_interpreter_refuses_ends_the_request_and_nothing_else(server: ModelServer) -> None:
    code, text = refusal(server, predict_request("strings", text=strings(b"a"), order=integers(5)))
    assert (code, "gather index out of bounds" in text) == (grpc.StatusCode.INTERNAL, True)
    worker = server.worker_pid
    for sizes in ([], [1, 1], [2, 1, 3], [0], [3, 0]):
        tensor = TensorProto(dtype=types_pb2.DT_FLOAT)
        tensor.tensor_shape.SetInParent()
        for size in sizes:
            tensor.tensor_shape.dim.add(size=size)
        count = 1
        for size in sizes:
            count *= size
        tensor.float_val.extend([2.0] * count)
        response = server.prediction.Predict(predict_request("half_plus_two", x=tensor), timeout=30)
        assert list(response.outputs["y"].float_val) == [3.0] * count
    answer = server.prediction.Predict(predict_request("strings", text=strings(b"a"), order=integers(0)), timeout=30)
    assert list(answer.outputs["chosen"].string_val) == [b"a"]
    assert server.worker_pid == worker


def test_it_is_warmed_up_too(start_server: StartServer, tflite_models: pathlib.Path, tmp_path: pathlib.Path) -> None:
    base_path = tmp_path / "strings"
    shutil.copytree(tflite_models / "strings", base_path)
    log = PredictionLog()
    log.predict_log.request.CopyFrom(predict_request("", text=strings(b"a"), order=integers(5)))
    write_warmup_requests(base_path / "00000123", log)
    flags = (f"--model_base_path={base_path}", "--prefer_tflite_model=true", "--max_num_load_retries=0")
    server = start_server(*flags, wait=False)
    assert server.process.wait(60) == 255
    assert "due to error: INTERNAL: " in server.log
    assert "gather index out of bounds" in server.log


def test_a_file_that_is_no_model_fails_the_load(start_server: StartServer, tmp_path: pathlib.Path) -> None:
    version = tmp_path / "model" / "1"
    version.mkdir(parents=True)
    (version / "model.tflite").write_bytes(b"no model")
    flags = (f"--model_base_path={tmp_path / 'model'}", "--prefer_tflite_model=true", "--max_num_load_retries=0")
    server = start_server(*flags, wait=False)
    assert server.process.wait(60) == 255
    assert "INVALID_ARGUMENT: Cannot build FlatBufferModel from buffer." in server.log


def test_it_is_not_looked_at_where_it_is_not_preferred(start_server: StartServer, tflite_models: pathlib.Path) -> None:
    server = start_server(
        f"--model_base_path={tflite_models / 'half_plus_two'}", "--max_num_load_retries=0", wait=False
    )
    assert server.process.wait(60) == 255
    assert "does not appear to contain a SavedModel bundle" in server.log
