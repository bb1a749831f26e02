"""Platforms other than TensorFlow: their versions load, are told of and go, and refuse what they cannot answer."""

import pathlib

import grpc
import pytest

from tensorgate.protos.tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest
from tensorgate.protos.tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest, ModelVersionStatus
from tests.harness.model_server import ModelServer, StartServer, floats, predict_request, wait_until

WRONG_TYPE = "Servable type doesn't match the asked for type."


def states(server: ModelServer, name: str) -> dict[int, tuple[int, str]]:
    request = GetModelStatusRequest()
    request.model_spec.name = name
    statuses = server.model_service.GetModelStatus(request, timeout=10).model_version_status
    return {each.version: (each.state, each.status.error_message) for each in statuses}


def platform_config(tmp_path: pathlib.Path, **models: str) -> str:
    """The flag with a config file of these models, by name: all of the rest."""
    lines = "".join(f'config {{ name: "{name}" {rest} }}\n' for name, rest in models.items())
    path = tmp_path / "models.config"
    path.write_text(f"model_config_list {{\n{lines}}}\n", encoding="utf-8")
    return f"--model_config_file={path}"


def test_a_lookup_table_is_a_servable_that_takes_no_inference(
    start_server: StartServer, tmp_path: pathlib.Path
) -> None:
    base_path = tmp_path / "table"
    base_path.mkdir()
    (base_path / "1").write_text("one,1\ntwo,2\n")
    server = start_server(
        platform_config(tmp_path, table=f'base_path: "{base_path}" model_platform: "hashmap"'),
        "--max_num_load_retries=0",
    )
    assert states(server, "table") == {1: (ModelVersionStatus.AVAILABLE, "")}

    with pytest.raises(grpc.RpcError) as caught:
        server.prediction.Predict(predict_request("table", x=floats(1)), timeout=10)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, WRONG_TYPE)
    metadata = GetModelMetadataRequest(metadata_field=["signature_def"])
    metadata.model_spec.name = "table"
    with pytest.raises(grpc.RpcError) as caught:
        server.prediction.GetModelMetadata(metadata, timeout=10)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, WRONG_TYPE)
    assert server.rest("POST", "/v1/models/table:predict", b'{"instances": [1]}') == (400, {"error": WRONG_TYPE})
    assert server.rest("GET", "/v1/models/table/metadata") == (400, {"error": WRONG_TYPE})

    (base_path / "2").write_text("no table")
    available, ended = ModelVersionStatus.AVAILABLE, ModelVersionStatus.END
    broken = {2: (ended, "Unexpected format."), 1: (available, "")}
    wait_until(lambda: states(server, "table") == broken, "the broken version has ended, the old one serves")
    (base_path / "3").write_text("three,3\n")
    wait_until(lambda: states(server, "table").get(3) == (available, ""), "version 3 serves")
    wait_until(lambda: states(server, "table")[1] == (ended, ""), "version 1 is unloaded")


def test_a_platform_that_is_not_known_is_refused_at_the_start(
    start_server: StartServer, tmp_path: pathlib.Path
) -> None:
    config = platform_config(tmp_path, m='base_path: "/m" model_platform: "caffe"')
    server = start_server(config, wait=False)
    assert server.process.wait(60) == 255
    text = "Failed to start server. Error: INVALID_ARGUMENT: Model m requests unsupported platform caffe"
    assert text in server.log
