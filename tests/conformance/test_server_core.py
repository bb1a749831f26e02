"""Upstream's cases of the server core (server_core_test.cc), against ours: configuration, reload, labels.

Each test bears the name of upstream's case and runs, as there, with plain base paths and with ones that are URIs. No
process is started: loaders are fakes, everything between the configuration and them is real.
"""

import asyncio
import pathlib
from collections.abc import Awaitable, Callable

import pytest
from google.protobuf import text_format

from tensorgate.gateway.config_files import models_of
from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.servable_state import ManagerState, ServableState
from tensorgate.gateway.model_config_manager import ReloadOptions
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig
from tests.fakes.scripted_server import ScriptedServer, config_of, make_versions, until

ALLOW = ReloadOptions(allows_labels_of_unavailable_versions=True)
CUSTOM = text_format.Parse("custom_model_config { }", ModelServerConfig())
ALL = "model_version_policy { all { } }"
TENSORFLOW = 'model_platform: "tensorflow"'
NO_FLAG = pytest.mark.skip(reason="an option of upstream's library that no flag of its server sets")


class Scene:
    """Base paths with versions, and servers; upstream's names for both."""

    def __init__(self, folder: pathlib.Path, scheme: str) -> None:
        self.scheme = scheme
        self.one = make_versions(folder / "one", 123)
        self.two = make_versions(folder / "two", 123, 124)
        self.servers: list[ScriptedServer] = []

    def model(
        self, name: str = "m", base_path: pathlib.Path | None = None, rest: str = "", platform: str = TENSORFLOW
    ) -> str:
        return f'name: "{name}" base_path: "{self.scheme}{base_path or self.one}" {platform} {rest}'

    def server(self, *models: str, options: ReloadOptions | None = None) -> ScriptedServer:
        server = ScriptedServer(config_of(*models), options)
        self.servers.append(server)
        return server

    async def started(self, *models: str, options: ReloadOptions | None = None) -> ScriptedServer:
        server = self.server(*models, options=options)
        await server.start()
        return server

    def run(self, scenario: Callable[[], Awaitable[None]]) -> None:
        async def limited() -> None:
            try:
                await asyncio.wait_for(scenario(), 60)
            finally:
                for server in self.servers:
                    await server.stop()

        asyncio.run(limited())


@pytest.fixture(params=["", "file://"], ids=["path", "uri"])
def scene(tmp_path: pathlib.Path, request: pytest.FixtureRequest) -> Scene:
    return Scene(tmp_path, request.param)


def refused(error: ServingError | None, code: Code, text: str) -> bool:
    return error is not None and error.code is code and text in error.message


def start_refusal(scene: Scene, *models: str) -> ServingError:
    """What a start with these models fails with, before anything is begun."""

    async def scenario() -> None:
        with pytest.raises(ServingError) as caught:
            scene.server(*models)
        errors.append(caught.value)

    errors: list[ServingError] = []
    scene.run(scenario)
    return errors[0]


# --- waiting for models -----------------------------------------------------------------------------------------------


def test_pre_load_hook(scene: Scene) -> None:
    """Who listens to the event bus hears of a load before it begins; upstream has a hook for it."""

    async def scenario() -> None:
        server = scene.server(scene.model())
        heard: list[tuple[ServableId, int]] = []

        def listen(state: ServableState) -> None:
            if state.state is ManagerState.LOADING:
                heard.append((state.id, len(server.loads)))

        server.bus.subscribe(listen)
        await server.start()
        assert heard == [(ServableId("m", 123), 0)]

    scene.run(scenario)


def test_create_waits_till_models_available(scene: Scene) -> None:
    async def scenario() -> None:
        server = await scene.started(scene.model())
        assert server.served("m") == (123, str(scene.one / "123"))
        (state,) = server.monitor.versions("m")
        assert (state.state, state.error) == (ManagerState.AVAILABLE, None)

    scene.run(scenario)


def test_reload_config_waits_till_models_available(scene: Scene) -> None:
    async def scenario() -> None:
        server = await scene.started()
        assert server.loads == []
        outcome = await server.reload(config_of(scene.model()))
        assert outcome.error is None
        assert server.served("m")[0] == 123

    scene.run(scenario)


def test_reload_config_unloads_models(scene: Scene) -> None:
    async def scenario() -> None:
        server = await scene.started(scene.model())
        assert (await server.reload(config_of())).error is None
        await until(lambda: server.state("m", 123) is ManagerState.END, "the version has ended")
        assert [state.id.version for state in server.monitor.versions("m")] == [123]
        assert server.serving("m") == []

    scene.run(scenario)


def test_reload_config_handles_loading_a_previously_unloaded_model(scene: Scene) -> None:
    async def scenario() -> None:
        server = await scene.started(scene.model())
        await server.reload(config_of())
        # At once, with the old life perhaps not over yet.
        assert (await server.reload(config_of(scene.model()))).error is None
        assert server.served("m")[0] == 123
        assert server.loads == [ServableId("m", 123)] * 2

    scene.run(scenario)


def test_reload_config_change_model_base_path(scene: Scene) -> None:
    one, two = scene.model(rest=ALL), scene.model(base_path=scene.two, rest=ALL)

    async def scenario() -> None:
        server = await scene.started(one)
        for model, versions, folder in ((two, [124, 123], scene.two), (one, [123], scene.one)):
            assert (await server.reload(config_of(model))).error is None
            await until(lambda: server.serving("m") == versions, f"{versions} serve")  # noqa: B023 - called at once
            # Not upstream's: one version number under another path is another version.
            await until(lambda: server.served("m", 123)[1] == str(folder / "123"), f"from {folder}")  # noqa: B023

    scene.run(scenario)


# --- base paths -------------------------------------------------------------------------------------------------------


def test_absolute_path_succeeds(scene: Scene) -> None:
    async def scenario() -> None:
        assert (await scene.started(scene.model())).serving("m") == [123]

    scene.run(scenario)


def test_relative_path_fails(scene: Scene) -> None:
    error = start_refusal(scene, f'name: "m" base_path: "relative" {TENSORFLOW}')
    assert refused(error, Code.INVALID_ARGUMENT, "Expected model m to have an absolute path or URI")


@NO_FLAG
def test_absolute_and_relative_paths_with_options_succeed() -> None: ...


@NO_FLAG
def test_absolute_path_with_empty_path_fails() -> None: ...


@NO_FLAG
def test_relative_path_with_options_succeeds() -> None: ...


def test_mixed_absolute_relative_fails(scene: Scene) -> None:
    error = start_refusal(scene, scene.model(), f'name: "n" base_path: "relative" {TENSORFLOW}')
    assert refused(error, Code.INVALID_ARGUMENT, "Expected model n to have an absolute path or URI")


@NO_FLAG
def test_storage_path_prefix_option() -> None: ...


# --- what is refused --------------------------------------------------------------------------------------------------


def test_erroring_model(scene: Scene) -> None:
    injected = ServingError(Code.CANCELLED, "injected error")

    async def scenario() -> None:
        server = scene.server(scene.model())
        server.errors["m"] = injected
        with pytest.raises(ServingError) as caught:
            await server.start()
        assert refused(caught.value, Code.UNKNOWN, "1 servable(s) did not become available")
        assert caught.value.message.endswith(": {{name: m version: 123} due to error: CANCELLED: injected error}, }")
        (state,) = server.monitor.versions("m")
        assert (state.state, state.error) == (ManagerState.END, injected)

    scene.run(scenario)


def test_illegal_reconfiguration_to_custom_config(scene: Scene) -> None:
    async def scenario() -> None:
        server = await scene.started(scene.model())
        outcome = await server.reload(CUSTOM)
        assert refused(outcome.error, Code.FAILED_PRECONDITION, "Cannot transition to requested config")
        assert server.serving("m") == [123]

    scene.run(scenario)


def test_illegal_reconfiguration_from_custom_config(scene: Scene) -> None:
    """There is no server to reconfigure: a custom configuration does not start one (upstream's server ends on it)."""

    async def scenario() -> None:
        with pytest.raises(ServingError, match="custom_model_config is not supported") as caught:
            ScriptedServer(CUSTOM)
        assert caught.value.code is Code.INVALID_ARGUMENT

    scene.run(scenario)


def test_illegal_config_model_type_and_platform_set(scene: Scene) -> None:
    error = start_refusal(scene, scene.model(rest="model_type: TENSORFLOW"))
    assert refused(error, Code.INVALID_ARGUMENT, "Illegal setting both")


def test_deprecated_model_type_config(scene: Scene) -> None:
    async def scenario() -> None:
        server = await scene.started(scene.model(platform="model_type: TENSORFLOW"))
        assert server.served("m")[0] == 123
        assert server.platform_of("m") == "tensorflow"

    scene.run(scenario)


def test_duplicate_model_name_in_config(scene: Scene) -> None:
    error = start_refusal(scene, scene.model(), scene.model())
    assert refused(error, Code.INVALID_ARGUMENT, "Illegal to list model m multiple times in config list")


def test_unknown_model_platform(scene: Scene) -> None:
    error = start_refusal(scene, scene.model(platform='model_platform: "not_a_known_platform"'))
    assert refused(error, Code.INVALID_ARGUMENT, "Model m requests unsupported platform not_a_known_platform")


# --- platforms --------------------------------------------------------------------------------------------------------

HASHMAP = 'model_platform: "hashmap"'


def test_multiple_platforms(scene: Scene) -> None:
    async def scenario() -> None:
        server = await scene.started(scene.model("a"), scene.model("b", platform=HASHMAP))
        assert (server.platform_of("a"), server.platform_of("b")) == ("tensorflow", "hashmap")

    scene.run(scenario)


def test_multiple_platforms_with_config_change(scene: Scene) -> None:
    first, second = scene.model("0"), scene.model("1", platform=HASHMAP)

    async def scenario() -> None:
        server = await scene.started(first, second)
        assert (await server.reload(config_of(second, scene.model("2")))).error is None
        assert [server.serving(name) for name in "012"] == [[], [123], [123]]
        assert (server.platform_of("1"), server.platform_of("2")) == ("hashmap", "tensorflow")

    scene.run(scenario)


def test_illegal_to_change_model_platform(scene: Scene) -> None:
    async def scenario() -> None:
        server = await scene.started(scene.model())
        outcome = await server.reload(config_of(scene.model(platform=HASHMAP)))
        assert refused(
            outcome.error,
            Code.INVALID_ARGUMENT,
            "Illegal to change a model's platform. For model m platform was tensorflow and new platform requested is"
            " hashmap",
        )
        assert (server.serving("m"), server.platform_of("m")) == ([123], "tensorflow")

    scene.run(scenario)


# --- request logging --------------------------------------------------------------------------------------------------


def test_request_logging_off(scene: Scene) -> None:
    (model,) = models_of(config_of(scene.model()))
    assert model.logging_config is None


def test_request_logging_on(scene: Scene) -> None:
    """Upstream's own server has nothing to log with and fails; ours logs, and has to be told where."""

    async def scenario() -> None:
        server = await scene.started()
        rate = "sampling_config { sampling_rate: 1.0 }"
        outcome = await server.reload(config_of(scene.model(rest=f"logging_config {{ {rate} }}")))
        assert outcome.error is not None
        assert "needs a filename_prefix" in outcome.error.message
        logged = scene.model(rest=f'logging_config {{ {rate} log_collector_config {{ filename_prefix: "/l" }} }}')
        outcome = await server.reload(config_of(logged))
        assert outcome.error is None
        assert server.serving("m") == [123]

    scene.run(scenario)


# --- version labels ---------------------------------------------------------------------------------------------------


def labels(**versions: int) -> str:
    return ALL + "".join(f' version_labels {{ key: "{label}" value: {each} }}' for label, each in versions.items())


async def with_two_versions(scene: Scene, options: ReloadOptions | None = None) -> ScriptedServer:
    server = await scene.started(scene.model(base_path=scene.two, rest=ALL), options=options)
    await until(lambda: server.serving("m") == [124, 123], "both versions serve")
    return server


async def assigned(scene: Scene, server: ScriptedServer, **versions: int) -> ServingError | None:
    return (await server.reload(config_of(scene.model(base_path=scene.two, rest=labels(**versions))))).error


def test_model_spec_multiple_versions_available(scene: Scene) -> None:
    async def scenario() -> None:
        server = await with_two_versions(scene)
        assert server.served("m")[0] == 124
        assert server.served("m", 123)[0] == 123
        assert await assigned(scene, server, A=123, B=124) is None
        assert server.served("m", label="A")[0] == 123
        assert server.served("m", label="B")[0] == 124
        with pytest.raises(ServingError, match="Unrecognized servable version label: C") as caught:
            server.served("m", label="C")
        assert caught.value.code is Code.INVALID_ARGUMENT

    scene.run(scenario)


def test_assign_label_to_unavailable_version(scene: Scene) -> None:
    async def scenario() -> None:
        server = await with_two_versions(scene)
        error = await assigned(scene, server, A=123, C=100)
        assert refused(
            error,
            Code.FAILED_PRECONDITION,
            "Request to assign label to version 100 of model m, which is not currently available for inference",
        )
        with pytest.raises(ServingError, match="Unrecognized servable version label"):
            server.served("m", label="A")

    scene.run(scenario)


def test_assign_label_to_unavailable_version_allowed(scene: Scene) -> None:
    async def scenario() -> None:
        server = await with_two_versions(scene, ALLOW)
        assert await assigned(scene, server, A=123, C=100) is None
        assert server.served("m", label="A")[0] == 123
        with pytest.raises(ServingError, match=r"Servable not found for request: Specific\(m, 100\)"):
            server.served("m", label="C")

    scene.run(scenario)


def test_assign_existing_label_to_unavailable_version_disallowed(scene: Scene) -> None:
    async def scenario() -> None:
        server = await with_two_versions(scene, ALLOW)
        assert await assigned(scene, server, A=123, B=124) is None
        error = await assigned(scene, server, A=123, B=100)
        assert refused(error, Code.FAILED_PRECONDITION, "not currently available for inference")
        assert server.served("m", label="B")[0] == 124

    scene.run(scenario)


@NO_FLAG
def test_assign_existing_label_to_unavailable_version_allowed() -> None: ...


@NO_FLAG
def test_version_labels_not_allowed() -> None: ...
