"""The configuration of the running server: reloads are whole or nothing, in turn, and never wait without end."""

import asyncio
import pathlib

import pytest

from tensorgate.gateway.core.servable_state import ManagerState
from tensorgate.gateway.model_config_manager import ReloadOptions
from tensorgate.gateway.reload_outcome import ModelChange, ReloadOutcome
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig
from tests.fakes.scripted_server import ScriptedServer, ServerScene, config_of, make_versions, until

BROKEN = ServingError(Code.NOT_FOUND, "no SavedModel")
ALL = "model_version_policy { all { } }"


@pytest.fixture
def scene(tmp_path: pathlib.Path) -> ServerScene:
    return ServerScene(tmp_path)


def changes(outcome: ReloadOutcome) -> dict[str, ModelChange]:
    return {each.name: each.change for each in outcome.models}


def names(server: ScriptedServer) -> list[str]:
    return [model.name for model in server.model_config.current.config.model_config_list.config]


# --- what a reload does -----------------------------------------------------------------------------------------------


def test_a_reload_says_what_it_did_about_each_model(scene: ServerScene) -> None:
    async def scenario() -> None:
        server = await scene.started(scene.config("a", "b", "two"))
        new = config_of(scene.model("a"), scene.model("two", ALL), scene.model("c"))
        outcome = await server.reload(new)
        assert outcome.error is None
        assert changes(outcome) == {
            "a": ModelChange.UNCHANGED,
            "two": ModelChange.CHANGED,
            "c": ModelChange.ADDED,
            "b": ModelChange.REMOVED,
        }
        assert server.model_config.current.config == new
        await until(lambda: server.serving("two") == [2, 1], "the other version serves too")
        assert server.loads.count(server.monitor.versions("a")[0].id) == 1

    scene.run(scenario)


def test_a_new_model_that_fails_leaves_everything_as_it_was_and_its_status_says_why(scene: ServerScene) -> None:
    async def scenario() -> None:
        server = await scene.started(scene.config("a"))
        server.errors["c"] = BROKEN
        outcome = await server.reload(scene.config("b", "c"))
        assert outcome.error == ServingError(
            Code.UNKNOWN,
            "1 model(s) did not become available: {{name: c version: 1} due to error: NOT_FOUND: no SavedModel}, }",
        )
        assert {each.name: each.error.code if each.error else None for each in outcome.models} == {
            "a": Code.ABORTED,
            "b": Code.ABORTED,
            "c": Code.NOT_FOUND,
        }
        assert names(server) == ["a"]
        assert [server.serving(name) for name in "abc"] == [[1], [], []]
        assert server.monitor.versions("c")[0].error == BROKEN
        # Mended, the same configuration is taken.
        del server.errors["c"]
        assert (await server.reload(scene.config("b", "c"))).error is None
        assert [server.serving(name) for name in "abc"] == [[], [1], [1]]

    scene.run(scenario)


def test_old_models_serve_until_the_new_ones_do(scene: ServerScene) -> None:
    async def scenario() -> None:
        server = await scene.started(scene.config("a"))
        server.gates["b"] = asyncio.Event()
        reload = asyncio.ensure_future(server.reload(scene.config("b")))
        await until(lambda: server.state("b", 1) is ManagerState.LOADING, "b loads")
        assert (server.serving("a"), names(server)) == ([1], ["a"])
        server.gates["b"].set()
        assert (await reload).error is None
        assert (server.serving("a"), server.serving("b"), names(server)) == ([], [1], ["b"])

    scene.run(scenario)


@pytest.mark.parametrize(
    ("base_path", "said"), [("none", "No versions of servable m found"), ("missing", "Could not find base path")]
)
def test_a_reload_gives_up_after_its_limit_and_says_what_it_waited_for(
    scene: ServerScene, base_path: str, said: str
) -> None:
    async def scenario() -> None:
        server = await scene.started(scene.config("a"), ReloadOptions(ready_timeout_s=0.3))
        outcome = await server.reload(config_of(scene.model("a"), scene.model("m", base_path=base_path)))
        assert outcome.error is not None
        assert outcome.error.code is Code.UNKNOWN
        assert "{name: m} due to error: DEADLINE_EXCEEDED: not within 0.3 s: " in outcome.error.message
        assert said in outcome.error.message
        assert (names(server), server.serving("a")) == (["a"], [1])
        # Nobody looks for it any more.
        make_versions(scene.folder / base_path, 7)
        assert (await server.reload(scene.config("a", "b"))).error is None
        assert server.serving("m") == []

    scene.run(scenario)


def test_a_load_that_outlives_the_limit_is_given_up_too(scene: ServerScene) -> None:
    async def scenario() -> None:
        server = await scene.started(scene.config("a"), ReloadOptions(ready_timeout_s=0.3))
        server.gates["b"] = asyncio.Event()
        outcome = await server.reload(scene.config("a", "b"))
        assert outcome.error is not None
        assert "not within 0.3 s: {name: b version: 1} is LOADING" in outcome.error.message
        server.gates["b"].set()
        await until(lambda: server.state("b", 1) is ManagerState.END, "b is unloaded again")
        assert server.serving("b") == []

    scene.run(scenario)


def test_the_start_gives_up_after_its_limit_and_names_the_models(scene: ServerScene) -> None:
    async def scenario() -> None:
        server = scene.server(
            config_of(scene.model("a"), scene.model("m", base_path="none")), ReloadOptions(ready_timeout_s=0.3)
        )
        with pytest.raises(
            ServingError, match=r"^UNKNOWN: 1 servable\(s\) did not become available: \{\{name: m\}"
        ) as caught:
            await server.start()
        assert caught.value.code is Code.UNKNOWN

    scene.run(scenario)


def test_a_reload_goes_on_when_who_asked_for_it_has_gone(scene: ServerScene) -> None:
    async def scenario() -> None:
        server = await scene.started(scene.config("a"))
        server.gates["b"] = asyncio.Event()
        asked = asyncio.ensure_future(server.reload(scene.config("b")))
        await until(lambda: server.state("b", 1) is ManagerState.LOADING, "b loads")
        asked.cancel()
        server.gates["b"].set()
        await until(lambda: names(server) == ["b"], "the reload is done")

    scene.run(scenario)


def test_reloads_that_come_together_happen_one_after_the_other(scene: ServerScene) -> None:
    async def scenario() -> None:
        server = await scene.started(scene.config("a"))
        outcomes = await asyncio.gather(*(server.reload(scene.config(name)) for name in "bcab"))
        assert [outcome.error for outcome in outcomes] == [None] * 4
        assert [changes(outcome) for outcome in outcomes] == [
            {new: ModelChange.ADDED, old: ModelChange.REMOVED} for old, new in ("ab", "bc", "ca", "ab")
        ]
        assert [server.serving(name) for name in "abc"] == [[], [1], []]

    scene.run(scenario)


def test_a_stop_ends_a_reload_that_waits(scene: ServerScene) -> None:
    async def scenario() -> None:
        server = await scene.started(scene.config("a"))
        reload = asyncio.ensure_future(server.reload(config_of(scene.model("m", base_path="none"))))
        await until(lambda: bool(server.source.trouble("m")), "it waits")
        await server.stop()
        stopped = ServingError(Code.UNAVAILABLE, "The server is shutting down.")
        assert (await reload).error == stopped
        assert (await server.reload(scene.config("a"))).error == stopped

    scene.run(scenario)


def test_a_refused_configuration_spoils_nothing_for_the_next(scene: ServerScene) -> None:
    async def scenario() -> None:
        server = await scene.started(scene.config("a"))
        bad = config_of(scene.model("a"), f'name: "x" base_path: "{scene.folder}"')
        outcome = await server.reload(bad)
        assert outcome.error is not None
        assert "Illegal setting neither" in outcome.error.message
        assert outcome.models == ()
        assert (await server.reload(scene.config("a", "b"))).error is None

    scene.run(scenario)


def test_a_list_may_not_be_followed_by_nothing_but_nothing_may_be_followed_by_a_list(scene: ServerScene) -> None:
    async def scenario() -> None:
        server = await scene.started(ModelServerConfig())
        assert (await server.reload(ModelServerConfig())).error is None
        assert (await server.reload(scene.config("a"))).error is None
        error = (await server.reload(ModelServerConfig())).error
        assert error is not None
        assert error.code is Code.FAILED_PRECONDITION
        assert server.serving("a") == [1]

    scene.run(scenario)


# --- one model at a time ----------------------------------------------------------------------------------------------


def model_config(text: str) -> ModelConfig:
    return config_of(text).model_config_list.config[0]


def test_one_model_is_added_and_removed_without_naming_the_others(scene: ServerScene) -> None:
    async def scenario() -> None:
        server = await scene.started(scene.config("a"))
        manager = server.model_config
        assert changes(await manager.add_model(model_config(scene.model("b")))) == {
            "a": ModelChange.UNCHANGED,
            "b": ModelChange.ADDED,
        }
        again = await manager.add_model(model_config(scene.model("b")))
        assert again.error == ServingError(Code.ALREADY_EXISTS, "There is a model b already; remove it first")
        assert names(server) == ["a", "b"]
        assert (await manager.remove_model("a")).error is None
        assert (await manager.remove_model("b")).error is None
        assert (names(server), server.serving("a"), server.serving("b")) == ([], [], [])
        missing = await manager.remove_model("b")
        assert missing.error == ServingError(Code.NOT_FOUND, "There is no model b in the current configuration")
        assert (await manager.add_model(model_config(scene.model("a")))).error is None

    scene.run(scenario)


# --- labels -----------------------------------------------------------------------------------------------------------


def label(name: str, version: int) -> str:
    return f'version_labels {{ key: "{name}" value: {version} }}'


def test_labels_of_the_start_up_configuration_are_assigned(scene: ServerScene) -> None:
    async def scenario() -> None:
        config = config_of(scene.model("two", f"{ALL} {label('stable', 1)} {label('canary', 2)}"))
        server = await scene.started(config)
        await until(lambda: server.serving("two") == [2, 1], "both serve")
        assert server.served("two", label="stable")[0] == 1
        assert server.served("two", label="canary")[0] == 2

    scene.run(scenario)


def test_a_label_whose_version_is_not_there_at_start_waits_for_it_and_ends_nothing(
    scene: ServerScene, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        server = await scene.started(config_of(scene.model("a", f"{ALL} {label('canary', 5)} {label('stable', 1)}")))
        assert server.served("a", label="stable")[0] == 1
        with pytest.raises(ServingError, match="Unrecognized servable version label: canary"):
            server.served("a", label="canary")
        make_versions(scene.folder / "a", 5)
        await until(lambda: server.serving("a") == [5, 1], "the version serves")
        assert server.served("a", label="canary")[0] == 5
        assert server.served("a", label="stable")[0] == 1

    scene.run(scenario)
    assert "label canary of model a is not assigned: version 5 is not there" in caplog.text


@pytest.mark.parametrize(
    ("policy", "accepted"),
    [
        ("all { }", True),
        ("latest { num_versions: 2 }", True),
        ("latest { num_versions: 1 }", False),
        ("specific { versions: 1 }", True),
        ("specific { versions: 2 }", False),
    ],
)
def test_a_label_may_not_go_to_a_version_that_the_same_configuration_drops(
    scene: ServerScene, policy: str, accepted: bool
) -> None:
    async def scenario() -> None:
        server = await scene.started(config_of(scene.model("two", ALL)))
        await until(lambda: server.serving("two") == [2, 1], "both serve")
        new = config_of(scene.model("two", f"model_version_policy {{ {policy} }} {label('stable', 1)}"))
        error = (await server.reload(new)).error
        assert (error is None) == accepted
        if error is not None:
            assert error.code is Code.FAILED_PRECONDITION
            assert server.serving("two") == [2, 1]

    scene.run(scenario)


def test_labels_that_are_not_in_the_new_configuration_are_gone(scene: ServerScene) -> None:
    async def scenario() -> None:
        server = await scene.started(config_of(scene.model("a", label("stable", 1))))
        assert server.served("a", label="stable")[0] == 1
        assert (await server.reload(scene.config("a"))).error is None
        with pytest.raises(ServingError, match="Unrecognized servable version label"):
            server.served("a", label="stable")

    scene.run(scenario)


# --- the settings of models -------------------------------------------------------------------------------------------


def test_the_settings_are_read_again_with_the_configuration_and_hold_for_new_models_at_once(scene: ServerScene) -> None:
    settings = scene.folder / "settings.config"
    settings.touch()

    async def scenario() -> None:
        server = await scene.started(scene.config("a"), ReloadOptions(str(settings), ready_timeout_s=30))
        settings.write_text('model { name: "b" done_marker_file: "DONE" }', encoding="utf-8")
        reload = asyncio.ensure_future(server.reload(scene.config("a", "b")))
        await until(lambda: bool(server.monitor.versions("b")), "b is waited for")
        (state,) = server.monitor.versions("b")
        assert state.error is not None
        assert "it lacks DONE" in state.error.message
        (scene.folder / "b" / "1" / "DONE").touch()
        assert (await reload).error is None
        assert server.model_config.settings_of("b").done_marker_file == "DONE"

    scene.run(scenario)


def test_a_settings_file_that_is_wrong_fails_the_reload(scene: ServerScene) -> None:
    settings = scene.folder / "settings.config"
    settings.touch()

    async def scenario() -> None:
        server = await scene.started(scene.config("a"), ReloadOptions(str(settings)))
        settings.write_text("model { agility: 3 }", encoding="utf-8")
        error = (await server.reload(scene.config("b"))).error
        assert error is not None
        assert error.message.startswith(f"Invalid protobuf file: '{settings}': 1:9")
        assert names(server) == ["a"]

    scene.run(scenario)
