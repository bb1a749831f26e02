"""Classify, Regress, MultiInference and SessionRun from a client's call to the model and back, over both gRPC edges."""

from collections.abc import Callable

import grpc
import pytest

from tensorgate._native import nghttp2_api
from tensorgate._native.shared_library import LibraryError
from tensorgate.protos.tensorflow.core.example.example_pb2 import Example
from tensorgate.protos.tensorflow.core.example.feature_pb2 import Feature
from tensorgate.protos.tensorflow.core.protobuf.named_tensor_pb2 import NamedTensorProto
from tensorgate.protos.tensorflow_serving.apis import session_service_pb2_grpc
from tensorgate.protos.tensorflow_serving.apis.classification_pb2 import ClassificationRequest
from tensorgate.protos.tensorflow_serving.apis.inference_pb2 import InferenceTask, MultiInferenceRequest
from tensorgate.protos.tensorflow_serving.apis.input_pb2 import Input
from tensorgate.protos.tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorgate.protos.tensorflow_serving.apis.regression_pb2 import RegressionRequest
from tensorgate.protos.tensorflow_serving.apis.session_service_pb2 import SessionRunRequest
from tests.harness.model_server import ModelServer, StartServer, floats, predict_request


@pytest.fixture(params=["native", "grpcio"])
def server(request: pytest.FixtureRequest, start_server: StartServer, model_config: Callable[..., str]) -> ModelServer:
    if request.param == "native":
        try:
            nghttp2_api.load_library()
        except LibraryError as error:
            pytest.skip(f"the native gRPC edge cannot run here: {error}")
    return start_server(model_config("examples", "pair"), f"--grpc_edge={request.param}")


def listed(*values: float) -> Input:
    examples = [Example(features={"feature": {"x": Feature(float_list={"value": [value]})}}) for value in values]
    return Input(example_list={"examples": examples})


def spec(signature: str = "", name: str = "examples") -> ModelSpec:
    return ModelSpec(name=name, signature_name=signature)


def test_examples_are_classified_and_regressed_and_tensors_run_by_name(server: ModelServer) -> None:
    prediction = server.prediction
    classified = prediction.Classify(ClassificationRequest(model_spec=spec(), input=listed(1, 2)), timeout=30)
    rows = [[(each.label, each.score) for each in row.classes] for row in classified.result.classifications]
    assert rows == [[("none", 3), ("other", -3)], [("none", 5), ("other", -5)]]
    assert (classified.model_spec.version.value, classified.model_spec.signature_name) == (1, "serving_default")

    regressed = prediction.Regress(RegressionRequest(model_spec=spec("regress"), input=listed(1, 2)), timeout=30)
    assert [each.value for each in regressed.result.regressions] == [3, 5]

    tasks = [
        InferenceTask(model_spec=spec("regress"), method_name="tensorflow/serving/regress"),
        InferenceTask(model_spec=spec("scores_only"), method_name="tensorflow/serving/classify"),
    ]
    both = prediction.MultiInference(MultiInferenceRequest(tasks=tasks, input=listed(4)), timeout=30)
    assert [each.WhichOneof("result") for each in both.results] == ["regression_result", "classification_result"]
    assert both.results[0].regression_result.regressions[0].value == 9

    run_request = SessionRunRequest(model_spec=spec(name="pair"), fetch=["sum:0"])
    run_request.feed.extend([NamedTensorProto(name=name, tensor=floats(2)) for name in ("a", "b")])
    ran = session_service_pb2_grpc.SessionServiceStub(server.channel).SessionRun(run_request, timeout=30)
    assert [(each.name, list(each.tensor.float_val)) for each in ran.tensor] == [("sum:0", [4])]

    with pytest.raises(grpc.RpcError) as refused:
        prediction.Classify(ClassificationRequest(model_spec=spec(), input=Input()), timeout=30)
    assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "Input is empty.")


def test_flags_decide_on_method_names_and_on_the_form_of_outputs(
    start_server: StartServer, model_config: Callable[..., str]
) -> None:
    server = start_server(
        model_config("examples", "pair"),
        "--enable_signature_method_name_check=true",
        "--enable_serialization_as_tensor_content=true",
    )
    with pytest.raises(grpc.RpcError) as refused:
        server.prediction.Regress(RegressionRequest(model_spec=spec(), input=listed(1)), timeout=30)
    assert refused.value.details() == (
        "Expected regression signature method_name to be tensorflow/serving/regress. Was: tensorflow/serving/classify"
    )
    outputs = server.prediction.Predict(predict_request("pair", a=floats(1), b=floats(2)), timeout=30).outputs
    assert outputs["sum"].tensor_content == b"\0\0\x40\x40"
    assert list(outputs["sum"].float_val) == []
    # REST says the same either way.
    assert server.rest("POST", "/v1/models/pair:predict", b'{"inputs": {"a": [1], "b": [2]}}') == (
        200,
        {"outputs": {"product": [2.0], "sum": [3.0]}},
    )
