"""Reloads and the admin API of a real server, while it serves."""

import pathlib
import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from tensorgate.protos.tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest, ModelVersionStatus
from tensorgate.protos.tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest
from tensorgate.protos.tensorgate.apis import model_admin_pb2 as admin_pb2
from tensorgate.protos.tensorgate.apis import model_admin_pb2_grpc
from tests.harness.model_server import ModelServer, StartServer, config_flag, floats, predict_request, wait_until


def admin_of(server: ModelServer) -> Any:
    return model_admin_pb2_grpc.ModelAdminStub(server.channel)


def answers(server: ModelServer, model: str) -> bool:
    call = server.prediction.Predict.future(predict_request(model, x=floats(2.0)), timeout=30)
    assert call.code() in (grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND), call.details()
    return bool(call.code() is grpc.StatusCode.OK)


def test_models_are_added_removed_and_listed_while_others_serve(
    start_server: StartServer, tmp_path: pathlib.Path, model_kinds: pathlib.Path
) -> None:
    server = start_server(
        config_flag(tmp_path, {"one": model_kinds / "half_plus_two"}),
        "--enable_model_admin",
        "--max_num_load_retries=0",
    )
    admin = admin_of(server)
    model = {"name": "two", "base_path": str(model_kinds / "half_plus_three"), "model_platform": "tensorflow"}
    response = admin.AddModel(admin_pb2.AddModelRequest(model=model), timeout=60)
    assert response.status.error_code == 0
    assert answers(server, "one")
    assert answers(server, "two")

    (tmp_path / "broken" / "1").mkdir(parents=True)
    (tmp_path / "broken" / "1" / "saved_model.pb").write_bytes(b"no model")
    broken = {"name": "broken", "base_path": str(tmp_path / "broken"), "model_platform": "tensorflow"}
    response = admin.AddModel(admin_pb2.AddModelRequest(model=broken), timeout=60)
    assert [(each.name, bool(each.status.error_code)) for each in response.model] == [
        ("one", False),
        ("two", False),
        ("broken", True),
    ]

    status, listed = server.rest("GET", "/v1/admin/models")
    assert status == 200
    assert {
        each["name"]: (each["configured"], [(v["version"], v["state"]) for v in each["model_version_status"]])
        for each in listed["model"]
    } == {
        "one": (True, [("123", "AVAILABLE")]),
        "two": (True, [("123", "AVAILABLE")]),
        "broken": (False, [("1", "END")]),
    }
    assert server.rest("DELETE", "/v1/admin/models/two")[0] == 200
    assert not answers(server, "two")
    assert answers(server, "one")
    assert server.rest("DELETE", "/v1/admin/models/two")[0] == 404


def test_the_admin_api_is_off_unless_it_is_asked_for(
    start_server: StartServer, model_config: Callable[..., str]
) -> None:
    server = start_server(model_config("softmax"))
    with pytest.raises(grpc.RpcError, match="--enable_model_admin") as caught:
        admin_of(server).GetConfig(admin_pb2.GetConfigRequest(), timeout=30)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    status, answer = server.rest("DELETE", "/v1/admin/models/softmax")
    assert status == 403
    assert "--enable_model_admin" in answer["error"]


def test_a_half_copied_version_of_a_new_model_is_told_of_and_the_old_models_serve_on(
    start_server: StartServer, tmp_path: pathlib.Path, model_kinds: pathlib.Path
) -> None:
    server = start_server(config_flag(tmp_path, {"one": model_kinds / "half_plus_two"}), "--models_ready_timeout_s=60")
    graph = (model_kinds / "half_plus_three" / "00000123" / "saved_model.pb").read_bytes()
    (tmp_path / "two" / "5" / "variables").mkdir(parents=True)
    request = ReloadConfigRequest()
    for name, base_path in (("one", model_kinds / "half_plus_two"), ("two", tmp_path / "two")):
        request.config.model_config_list.config.add(name=name, base_path=str(base_path), model_platform="tensorflow")
    reload = server.model_service.HandleReloadConfigRequest.future(request, timeout=90)

    def status() -> ModelVersionStatus | None:
        try:
            response = server.model_service.GetModelStatus(
                GetModelStatusRequest(model_spec={"name": "two"}), timeout=30
            )
        except grpc.RpcError:
            return None
        (only,) = response.model_version_status
        assert isinstance(only, ModelVersionStatus)
        return only

    wait_until(lambda: status() is not None, "the version is known of")
    waiting = status()
    assert waiting is not None
    assert (waiting.version, waiting.state) == (5, ModelVersionStatus.START)
    assert "it lacks saved_model.pb" in waiting.status.error_message
    assert answers(server, "one")
    assert not reload.done()

    variables = model_kinds / "half_plus_three" / "00000123" / "variables"
    for path in variables.iterdir() if variables.is_dir() else ():
        (tmp_path / "two" / "5" / "variables" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "two" / "5" / "saved_model.pb").write_bytes(graph)
    reload.result(90)
    assert answers(server, "two")


def test_reloads_good_and_bad_lose_no_request_of_a_model_that_stays(
    start_server: StartServer, tmp_path: pathlib.Path, model_kinds: pathlib.Path
) -> None:
    server = start_server(config_flag(tmp_path, {"one": model_kinds / "half_plus_two"}), "--max_num_load_retries=0")
    (tmp_path / "broken" / "1").mkdir(parents=True)
    (tmp_path / "broken" / "1" / "saved_model.pb").write_bytes(b"no model")

    def request(*names: str) -> ReloadConfigRequest:
        base_paths = {"one": model_kinds / "half_plus_two", "two": model_kinds / "half_plus_three"}
        made = ReloadConfigRequest()
        for name in names:
            base_path = base_paths.get(name, tmp_path / name)
            made.config.model_config_list.config.add(name=name, base_path=str(base_path), model_platform="tensorflow")
        return made

    codes: list[grpc.StatusCode] = []
    stopping = threading.Event()

    def keep_asking() -> None:
        while not stopping.is_set():
            call = server.prediction.Predict.future(predict_request("one", x=floats(2.0)), timeout=30)
            codes.append(call.code())

    asking = threading.Thread(target=keep_asking)
    asking.start()
    try:
        for _ in range(3):
            for names, expected in (
                (("one", "two"), grpc.StatusCode.OK),
                (("one", "broken"), grpc.StatusCode.UNKNOWN),
                (("one", "one"), grpc.StatusCode.INVALID_ARGUMENT),
                (("one",), grpc.StatusCode.OK),
            ):
                call = server.model_service.HandleReloadConfigRequest.future(request(*names), timeout=60)
                assert call.code() is expected, call.details()
    finally:
        stopping.set()
        asking.join()
    assert len(codes) > 10
    assert set(codes) == {grpc.StatusCode.OK}
