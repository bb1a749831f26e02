"""SavedModels of every kind that TensorFlow makes: they load, answer Predict, and tell what they take."""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from tensorgate.protos.tensorflow.core.example.example_pb2 import Example
from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorgate.protos.tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorgate.protos.tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap
from tests.harness.model_server import ModelServer, config_flag, floats, predict_request, running_servers, strings

UNKNOWN_RANK = None
INITIALIZER = "__saved_model_init_op"
DTYPES = {
    types_pb2.DT_FLOAT: "float",
    types_pb2.DT_INT32: "int32",
    types_pb2.DT_INT64: "int64",
    types_pb2.DT_STRING: "str",
}

# What a tensor of a signature is: dtype and shape.
Info = tuple[str, list[int] | None]


class Kinds:
    """The server of all models, and what is asked of it."""

    def __init__(self, server: ModelServer) -> None:
        self.server = server

    def predict(self, name: str, signature: str = "", **inputs: TensorProto) -> dict[str, TensorProto]:
        request = predict_request(name, **inputs)
        request.model_spec.signature_name = signature
        response = self.server.prediction.Predict(request, timeout=30)
        assert (response.model_spec.name, response.model_spec.version.value) == (name, 123)
        assert response.model_spec.signature_name == (signature or "serving_default")
        return dict(response.outputs)

    def rest(self, name: str, **body: Any) -> Any:
        status, answer = self.server.rest("POST", f"/v1/models/{name}:predict", json.dumps(body).encode())
        assert status == 200, answer
        return answer

    def metadata(self, name: str) -> dict[str, SignatureDef]:
        request = GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = name
        response = self.server.prediction.GetModelMetadata(request, timeout=30)
        signatures = SignatureDefMap()
        assert response.metadata["signature_def"].Unpack(signatures)
        status, answer = self.server.rest("GET", f"/v1/models/{name}/metadata")
        assert status == 200
        assert answer["metadata"]["signature_def"]["signature_def"].keys() == signatures.signature_def.keys()
        return dict(signatures.signature_def)

    def signatures(self, name: str) -> dict[str, tuple[dict[str, Info], dict[str, Info]]]:
        """Inputs and outputs of each signature, but for the initializer's."""
        return {
            key: (infos(each.inputs), infos(each.outputs))
            for key, each in self.metadata(name).items()
            if key != INITIALIZER
        }


def infos(tensors: Any) -> dict[str, Info]:
    return {
        alias: (
            DTYPES[each.dtype],
            UNKNOWN_RANK if each.tensor_shape.unknown_rank else [dim.size for dim in each.tensor_shape.dim],
        )
        for alias, each in tensors.items()
    }


def scalar(value: int) -> TensorProto:
    tensor = TensorProto(dtype=types_pb2.DT_INT64, int64_val=[value])
    tensor.tensor_shape.SetInParent()
    return tensor


def shaped(values: list[float], *shape: int) -> TensorProto:
    tensor = TensorProto(dtype=types_pb2.DT_FLOAT, float_val=values)
    tensor.tensor_shape.SetInParent()
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    return tensor


def shape_of(tensor: TensorProto) -> list[int]:
    return [dim.size for dim in tensor.tensor_shape.dim]


@pytest.fixture(scope="module")
def kinds(model_kinds: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kinds]:
    folder = tmp_path_factory.mktemp("kinds")
    models = {path.name: path for path in model_kinds.iterdir() if path.is_dir()}
    with running_servers(folder) as start_server:
        yield Kinds(start_server(config_flag(folder, models)))


def test_a_tf1_model_with_the_signatures_of_an_estimator(kinds: Kinds) -> None:
    outputs = kinds.predict("half_plus_two", x=shaped([2.0, 4.0], 2, 1))
    assert (list(outputs["y"].float_val), shape_of(outputs["y"])) == ([3.0, 4.0], [2, 1])
    assert kinds.rest("half_plus_two", instances=[[2.0], [3.0]]) == {"predictions": [[3.0], [3.5]]}
    # Predict takes the signatures for classify and regress, too: tensors of serialized Examples.
    example = serialized_example(x=2.0, x2=4.0)
    assert list(kinds.predict("half_plus_two", "regress_x_to_y", inputs=strings(example))["outputs"].float_val) == [3.0]
    assert list(kinds.predict("half_plus_two", "classify_x2_to_y3", inputs=strings(example))["scores"].float_val) == [5]
    methods = {key: each.method_name.rpartition("/")[2] for key, each in kinds.metadata("half_plus_two").items()}
    assert methods == {
        "serving_default": "predict",
        "regress_x_to_y": "regress",
        "classify_x_to_y": "classify",
        "regress_x2_to_y3": "regress",
        "classify_x2_to_y3": "classify",
    }


def serialized_example(**features: float) -> bytes:
    example = Example()
    for name, value in features.items():
        example.features.feature[name].float_list.value.append(value)
    return example.SerializeToString()


def test_a_tf2_model_with_classify_and_regress_signatures(kinds: Kinds) -> None:
    assert list(kinds.predict("half_plus_two_tf2", x=shaped([2.0], 1, 1))["y"].float_val) == [3.0]
    example = strings(serialized_example(x=4.0))
    assert list(kinds.predict("half_plus_two_tf2", "classify_x_to_y", inputs=example)["scores"].float_val) == [4.0]
    assert list(kinds.predict("half_plus_two_tf2", "regress_x_to_y", inputs=example)["outputs"].float_val) == [4.0]
    methods = {key: each.method_name for key, each in kinds.metadata("half_plus_two_tf2").items()}
    assert methods["classify_x_to_y"] == "tensorflow/serving/classify"
    assert methods["regress_x_to_y"] == "tensorflow/serving/regress"


def test_a_function_saved_by_tf2(kinds: Kinds) -> None:
    assert list(kinds.predict("save_one", x=floats(2.0))["y"].float_val) == [12.0]
    assert kinds.rest("save_one", inputs=2.0) == {"outputs": 12.0}
    assert kinds.signatures("save_one") == {
        "serving_default": ({"x": ("float", UNKNOWN_RANK)}, {"y": ("float", UNKNOWN_RANK)})
    }


def test_several_signatures_in_one_model(kinds: Kinds) -> None:
    assert list(kinds.predict("save_several", x=floats(2.0))["y"].float_val) == [1.0]
    outputs = kinds.predict("save_several", "custom_signature_key", x=floats(2.0))
    assert {alias: list(each.float_val) for alias, each in outputs.items()} == {"y": [2.0], "z": [4.0]}
    answer = kinds.rest("save_several", signature_name="custom_signature_key", instances=[3.0])
    assert answer == {"predictions": [{"y": 3.0, "z": 6.0}]}
    one = ("float", [1])
    assert kinds.signatures("save_several") == {
        "serving_default": ({"x": one}, {"y": one}),
        "custom_signature_key": ({"x": one}, {"y": one, "z": one}),
    }


@pytest.mark.parametrize("name", ["sequential", "distributed"])
def test_a_keras_model_as_it_is_exported(kinds: Kinds, name: str) -> None:
    """Its output has a name of Keras' choosing; "serve" is Keras' own name for the default signature."""
    (outputs,) = kinds.predict(name, x=shaped([2.0, 5.0], 2, 1)).values()
    assert (list(outputs.float_val), shape_of(outputs)) == ([2.0, 5.0], [2, 1])
    assert kinds.rest(name, instances=[[2.0]]) == {"predictions": [[2.0]]}
    signatures = kinds.signatures(name)
    assert signatures.keys() == {"serving_default", "serve"}
    inputs, outputs_info = signatures["serving_default"]
    assert inputs == {"x": ("float", [-1, 1])}
    assert list(outputs_info.values()) == [("float", [-1, 1])]


def test_a_table_is_filled_from_an_asset_before_the_first_request(kinds: Kinds) -> None:
    outputs = kinds.predict("lookup", words=strings(b"fox", b"the", b"dog"))
    assert list(outputs["ids"].int64_val) == [3, 0, -1]
    assert kinds.rest("lookup", instances=["quick", {"b64": "YnJvd24="}]) == {"predictions": [1, 2]}
    assert kinds.signatures("lookup") == {"serving_default": ({"words": ("str", [-1])}, {"ids": ("int64", [-1])})}
    assert INITIALIZER in kinds.metadata("lookup")


def test_strings_in_and_out(kinds: Kinds) -> None:
    outputs = kinds.predict("strings", text=strings(b"a\0\xff", b"", "日".encode()))
    assert list(outputs["joined"].string_val) == [b"<a\0\xff>", b"<>", "<日>".encode()]
    assert list(outputs["length"].int_val) == [3, 0, 3]
    assert kinds.rest("strings", instances=["日", {"b64": "Zm94"}]) == {
        "predictions": [
            {"joined": "<日>", "raw_bytes": {"b64": "5pel"}, "length": 3},
            {"joined": "<fox>", "raw_bytes": {"b64": "Zm94"}, "length": 3},
        ]
    }


def test_sizes_that_vary_from_request_to_request(kinds: Kinds) -> None:
    for sizes in ([1, 1, 2], [2, 3, 2], [1, 0, 2]):
        count = sizes[0] * sizes[1] * sizes[2]
        outputs = kinds.predict("shapes", x=shaped([1.0] * count, *sizes))
        assert list(outputs["shape"].int_val) == sizes
        assert (list(outputs["y"].float_val), shape_of(outputs["y"])) == ([2.0] * count, sizes)
    assert kinds.rest("shapes", inputs=[[[1, 2], [3, 4]]]) == {
        "outputs": {"y": [[[2.0, 4.0], [6.0, 8.0]]], "shape": [1, 2, 2]}
    }
    inputs, outputs_info = kinds.signatures("shapes")["serving_default"]
    assert inputs == {"x": ("float", [-1, -1, 2])}
    assert outputs_info == {"y": ("float", [-1, -1, 2]), "shape": ("int32", [3])}


def test_an_input_of_any_rank(kinds: Kinds) -> None:
    for sizes in ([], [2], [1, 2, 1, 1]):
        values = [1.5, -2.0][: 2 if sizes else 1]
        outputs = kinds.predict("shapes", "any_rank", x=shaped(values, *sizes))
        assert list(outputs["rank"].int_val) == [len(sizes)]
        assert (list(outputs["y"].float_val), shape_of(outputs["y"])) == ([-value for value in values], sizes)
    answer = kinds.rest("shapes", signature_name="any_rank", inputs=[[4]])
    assert answer == {"outputs": {"y": [[-4.0]], "rank": 2}}
    assert kinds.signatures("shapes")["any_rank"] == (
        {"x": ("float", UNKNOWN_RANK)},
        {"y": ("float", UNKNOWN_RANK), "rank": ("int32", [])},
    )


def test_an_output_without_dimensions(kinds: Kinds) -> None:
    outputs = kinds.predict("shapes", "total", x=floats(1, 2, 3.5))
    assert (list(outputs["sum"].float_val), shape_of(outputs["sum"])) == ([6.5], [])
    assert kinds.rest("shapes", signature_name="total", inputs=[1, 2, 3.5]) == {"outputs": 6.5}
    body = b'{"signature_name": "total", "instances": [1, 2, 3.5]}'
    assert kinds.server.rest("POST", "/v1/models/shapes:predict", body) == (
        400,
        {"error": "Tensor name: sum has no shape information "},
    )


def test_inputs_that_have_defaults_may_be_left_out(kinds: Kinds) -> None:
    assert list(kinds.predict("defaults", x=floats(3))["y"].float_val) == [7.0]
    assert list(kinds.predict("defaults", x=floats(3), scale=shaped([10]))["y"].float_val) == [31.0]
    assert list(kinds.predict("defaults", x=floats(3), offset=shaped([0]))["y"].float_val) == [6.0]
    with pytest.raises(grpc.RpcError) as caught:
        kinds.predict("defaults", scale=shaped([10]))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details().startswith("Signature input alias: x(feed name: x:0) not found in request")
    signature = kinds.metadata("defaults")["serving_default"]
    assert {alias: list(each.float_val) for alias, each in signature.defaults.items()} == {"scale": [2], "offset": [1]}


def test_a_version_keeps_its_state_between_requests(kinds: Kinds) -> None:
    assert list(kinds.predict("state", "get")["count"].int64_val) == [0]
    assert list(kinds.predict("state", "add", by=scalar(5))["count"].int64_val) == [5]
    assert kinds.rest("state", signature_name="add", inputs=-2) == {"outputs": 3}
    assert list(kinds.predict("state", "get")["count"].int64_val) == [3]
    values = TensorProto(dtype=types_pb2.DT_INT64, int64_val=[7, 8])
    values.tensor_shape.dim.add(size=2)
    assert list(kinds.predict("state", "put", keys=strings(b"a", b"b"), values=values)["values"].int64_val) == [7, 8]
    assert kinds.rest("state", signature_name="find", instances=["b", "c"]) == {"predictions": [8, -1]}
