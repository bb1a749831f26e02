"""The admin API, as both edges serve it: what is read back, what is changed, and that it is off unless asked for."""

import asyncio
import json
import pathlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tensorgate.gateway.model_admin import OFF_TEXT, ModelAdmin
from tensorgate.gateway.model_config_manager import ReloadOptions
from tensorgate.gateway.rest.admin import AdminPages, is_admin_path
from tensorgate.gateway.rest.http_messages import RequestHead
from tensorgate.gateway.rpc.model_admin_service import ModelAdminService
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus
from tensorgate.protos.tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig
from tensorgate.protos.tensorgate.apis import model_admin_pb2 as admin_pb2
from tests.fakes.scripted_server import ScriptedServer, config_of, make_versions, until

BROKEN = ServingError(Code.NOT_FOUND, "no SavedModel")


class Scene:
    """Base paths ``a`` and ``b`` with version 1; a server with model ``a``, and its admin API over both edges."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        for name in "ab":
            make_versions(folder / name, 1)

    def model(self, name: str) -> str:
        return f'name: "{name}" base_path: "{self.folder / name}" model_platform: "tensorflow"'

    def message(self, name: str) -> ModelConfig:
        return config_of(self.model(name)).model_config_list.config[0]

    def document(self, name: str) -> dict[str, str]:
        return {"name": name, "base_path": str(self.folder / name), "model_platform": "tensorflow"}

    def run(self, scenario: Callable[[], Awaitable[None]], *, is_enabled: bool = True) -> None:
        async def limited() -> None:
            self.server = ScriptedServer(config_of(self.model("a")), ReloadOptions(ready_timeout_s=0.5))
            admin = ModelAdmin(self.server.model_config, self.server.monitor, is_enabled=is_enabled)
            self.grpc = ModelAdminService(admin)
            self.pages = AdminPages(admin, asyncio.get_running_loop())
            try:
                await self.server.start()
                await asyncio.wait_for(scenario(), 60)
            finally:
                await self.server.stop()

        asyncio.run(limited())

    def list(self) -> dict[str, admin_pb2.ModelEntry]:
        return {each.name: each for each in admin_pb2.ListModelsResponse.FromString(self.grpc.list_models(b"")).model}

    def config(self) -> ModelServerConfig:
        return admin_pb2.GetConfigResponse.FromString(self.grpc.get_config(b"")).config

    async def add(self, name: str) -> admin_pb2.ChangeResponse:
        request = admin_pb2.AddModelRequest(model=self.message(name)).SerializeToString()
        return admin_pb2.ChangeResponse.FromString(await self.grpc.add_model(request))

    async def remove(self, name: str) -> admin_pb2.ChangeResponse:
        request = admin_pb2.RemoveModelRequest(name=name).SerializeToString()
        return admin_pb2.ChangeResponse.FromString(await self.grpc.remove_model(request))

    async def rest(self, verb: str, path: str, document: object = None) -> tuple[int, Any]:
        body = b"" if document is None else json.dumps(document).encode()
        answer = await self.pages.answer(RequestHead(verb, path.encode()), body)
        assert answer.content_type == b"application/json"
        return answer.status, json.loads(answer.body)

    async def rest_refusal(self, verb: str, path: str, body: bytes = b"") -> ServingError:
        with pytest.raises(ServingError) as caught:
            await self.pages.answer(RequestHead(verb, path.encode()), body)
        return caught.value


@pytest.fixture
def scene(tmp_path: pathlib.Path) -> Scene:
    return Scene(tmp_path)


def test_the_configuration_that_runs_is_read_back(scene: Scene) -> None:
    async def scenario() -> None:
        assert scene.config() == config_of(scene.model("a"))
        assert await scene.rest("GET", "/v1/admin/config") == (
            200,
            {"config": {"model_config_list": {"config": [{**EMPTY_MODEL, **scene.document("a")}]}}},
        )

    scene.run(scenario)


# protobuf's JSON has fields that are not set too, but for messages.
EMPTY_MODEL = {"model_type": "MODEL_TYPE_UNSPECIFIED", "version_labels": {}}


def test_models_are_listed_with_versions_states_errors_and_labels(scene: Scene) -> None:
    async def scenario() -> None:
        labelled = f'{scene.model("a")} version_labels {{ key: "stable" value: 1 }}'
        assert (await scene.server.reload(config_of(labelled))).error is None
        (entry,) = scene.list().values()
        assert (entry.name, entry.configured, entry.base_path) == ("a", True, str(scene.folder / "a"))
        assert [(each.version, each.state) for each in entry.model_version_status] == [
            (1, ModelVersionStatus.AVAILABLE)
        ]
        assert dict(entry.version_labels) == {"stable": 1}
        assert entry.source_error == ""
        _status, listed = await scene.rest("GET", "/v1/admin/models")
        assert listed["model"][0]["model_version_status"] == [
            {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ]

    scene.run(scenario)


def test_a_model_that_is_gone_is_listed_as_not_configured_with_its_end(scene: Scene) -> None:
    async def scenario() -> None:
        assert (await scene.remove("a")).status.error_code == Code.OK
        await until(lambda: scene.list()["a"].model_version_status[0].state == ModelVersionStatus.END, "a has ended")
        assert not scene.list()["a"].configured
        assert scene.config() == ModelServerConfig(model_config_list={})

    scene.run(scenario)


def test_what_is_wrong_with_a_base_path_is_in_the_list(scene: Scene) -> None:
    async def scenario() -> None:
        for child in (scene.folder / "a").rglob("*"):
            if child.is_file():
                child.unlink()
        (scene.folder / "a" / "1").rmdir()
        await until(lambda: "No versions of servable a found" in scene.list()["a"].source_error, "it is noticed")

    scene.run(scenario)


def test_a_model_is_added_and_the_answer_tells_of_each(scene: Scene) -> None:
    async def scenario() -> None:
        response = await scene.add("b")
        assert response.status.error_code == Code.OK
        assert [(each.name, admin_pb2.ModelOutcome.Change.Name(each.change)) for each in response.model] == [
            ("a", "UNCHANGED"),
            ("b", "ADDED"),
        ]
        assert scene.server.serving("b") == [1]
        assert [each.name for each in scene.config().model_config_list.config] == ["a", "b"]

    scene.run(scenario)


def test_a_model_that_does_not_load_is_told_of_and_not_added(scene: Scene) -> None:
    async def scenario() -> None:
        scene.server.errors["b"] = BROKEN
        response = await scene.add("b")
        assert response.status.error_code == Code.UNKNOWN
        assert [(each.name, each.status.error_code, each.status.error_message) for each in response.model] == [
            ("a", Code.OK, ""),
            ("b", Code.NOT_FOUND, "no SavedModel"),
        ]
        status, answer = await scene.rest("POST", "/v1/admin/models", scene.document("b"))
        assert status == 500
        assert answer["model"][1]["status"] == {"error_code": "NOT_FOUND", "error_message": "no SavedModel"}
        assert [each.name for each in scene.config().model_config_list.config] == ["a"]

    scene.run(scenario)


def test_models_come_and_go_over_rest(scene: Scene) -> None:
    async def scenario() -> None:
        status, answer = await scene.rest("POST", "/v1/admin/models", scene.document("b"))
        assert (status, [each["change"] for each in answer["model"]]) == (200, ["UNCHANGED", "ADDED"])
        again = await scene.rest_refusal("POST", "/v1/admin/models", json.dumps(scene.document("b")).encode())
        assert again.code is Code.ALREADY_EXISTS
        assert (await scene.rest("DELETE", "/v1/admin/models/%61"))[0] == 200
        assert [each.name for each in scene.config().model_config_list.config] == ["b"]
        assert (await scene.rest_refusal("DELETE", "/v1/admin/models/a")).code is Code.NOT_FOUND
        config = {"model_config_list": {"config": [scene.document("a")]}}
        status, answer = await scene.rest("PUT", "/v1/admin/config", config)
        assert (status, answer["status"]["error_code"]) == (200, "OK")
        assert (scene.server.serving("a"), scene.server.serving("b")) == ([1], [])

    scene.run(scenario)


@pytest.mark.parametrize(
    ("verb", "path", "body", "text"),
    [
        ("GET", "/v1/admin", b"", "Malformed request: GET /v1/admin."),
        ("POST", "/v1/admin/config", b"{}", "Malformed request"),
        ("DELETE", "/v1/admin/models", b"", "Malformed request"),
        ("POST", "/v1/admin/models", b"[", "The body is not the JSON of a tensorflow.serving.ModelConfig"),
        ("POST", "/v1/admin/models", b"\xff", "The body is not the JSON of a tensorflow.serving.ModelConfig"),
        ("POST", "/v1/admin/models", b'{"nam": "x"}', 'no field named "nam"'),
        ("POST", "/v1/admin/models", b'{"name": "x"}', "Expected model x to have an absolute path or URI"),
        ("PUT", "/v1/admin/config", b"7", "The body is not the JSON of a tensorflow.serving.ModelServerConfig"),
    ],
)
def test_what_the_admin_api_does_not_understand_is_a_bad_request(
    scene: Scene, verb: str, path: str, body: bytes, text: str
) -> None:
    async def scenario() -> None:
        error = await scene.rest_refusal(verb, path, body)
        assert error.code is Code.INVALID_ARGUMENT
        assert text in error.message

    scene.run(scenario)


def test_a_request_that_is_no_message_is_an_internal_error_without_text(scene: Scene) -> None:
    async def scenario() -> None:
        for method in (scene.grpc.add_model, scene.grpc.remove_model, scene.grpc.reload):
            with pytest.raises(ServingError) as caught:
                await method(b"\xff")
            assert (caught.value.code, caught.value.message) == (Code.INTERNAL, "")

    scene.run(scenario)


def test_off_every_request_is_refused_and_told_how_to_turn_it_on(scene: Scene) -> None:
    async def scenario() -> None:
        for read in (scene.grpc.get_config, scene.grpc.list_models):
            with pytest.raises(ServingError) as caught:
                read(b"")
            assert caught.value == ServingError(Code.PERMISSION_DENIED, OFF_TEXT)
        for change in (scene.grpc.add_model, scene.grpc.remove_model, scene.grpc.reload):
            with pytest.raises(ServingError) as caught:
                await change(b"")
            assert caught.value.code is Code.PERMISSION_DENIED
        for verb, path in (
            ("GET", "config"),
            ("PUT", "config"),
            ("GET", "models"),
            ("POST", "models"),
            ("DELETE", "models/a"),
            ("GET", "nonsense"),
        ):
            error = await scene.rest_refusal(verb, f"/v1/admin/{path}", b"{}")
            assert error == ServingError(Code.PERMISSION_DENIED, OFF_TEXT)
        assert scene.server.serving("a") == [1]

    scene.run(scenario, is_enabled=False)


def test_no_web_page_may_administer_the_server(scene: Scene) -> None:
    async def scenario() -> None:
        head = RequestHead("DELETE", b"/v1/admin/models/a", has_http_origin=True)
        with pytest.raises(ServingError, match="takes no requests of web pages") as caught:
            await scene.pages.answer(head, b"")
        assert caught.value.code is Code.PERMISSION_DENIED
        assert scene.server.serving("a") == [1]

    scene.run(scenario)


@pytest.mark.parametrize(
    ("path", "is_admin"),
    [
        (b"/v1/admin", True),
        (b"/v1/admin/models", True),
        (b"/v1/administrator", False),
        (b"/v1/models/admin", False),
        (b"/v1/models/admin:predict", False),
    ],
)
def test_the_admin_api_has_its_own_paths(path: bytes, is_admin: bool) -> None:
    assert is_admin_path(path) is is_admin
