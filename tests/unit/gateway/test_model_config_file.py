"""The config file that is read again: what changes is reloaded, what is wrong is said once and changes nothing."""

import asyncio
import logging
import pathlib

import pytest

from tensorgate.gateway.model_config_file import RETRY_S, ModelConfigFile
from tensorgate.gateway.model_config_manager import ReloadOptions
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig
from tests.fakes.manual_clock import ManualClock
from tests.fakes.scripted_server import ScriptedServer, ServerScene, until

BROKEN = ServingError(Code.NOT_FOUND, "no SavedModel")


@pytest.fixture
def scene(tmp_path: pathlib.Path) -> ServerScene:
    return ServerScene(tmp_path)


def names(server: ScriptedServer) -> list[str]:
    return [model.name for model in server.model_config.current.config.model_config_list.config]


class Files:
    """A config file and a settings file that the server reads again."""

    def __init__(self, scene: ServerScene) -> None:
        self.scene = scene
        self.clock = ManualClock()
        self.config = scene.folder / "models.config"
        self.settings = scene.folder / "settings.config"
        self.settings.touch()

    def write(self, config: ModelServerConfig) -> ModelServerConfig:
        self.config.write_text(str(config), encoding="utf-8")
        return config

    async def server(self, config: ModelServerConfig, poll_wait_s: float = 0.0) -> ScriptedServer:
        """One that has been started with this in the file."""
        server = await self.scene.started(self.write(config), ReloadOptions(str(self.settings), ready_timeout_s=5))
        self.file = ModelConfigFile(str(self.config), str(self.settings), poll_wait_s, server.model_config, self.clock)
        self.file.start()
        return server


def test_a_config_file_that_changes_is_taken_over(scene: ServerScene) -> None:
    async def scenario() -> None:
        files = Files(scene)
        server = await files.server(scene.config("a"), poll_wait_s=0.01)
        files.write(scene.config("b"))
        await until(lambda: names(server) == ["b"], "the file is taken over")
        assert (server.serving("a"), server.serving("b")) == ([], [1])
        await files.file.stop()
        await files.file.stop()

    scene.run(scenario)


def test_a_settings_file_that_changes_is_a_change_too(scene: ServerScene) -> None:
    async def scenario() -> None:
        files = Files(scene)
        server = await files.server(scene.config("a"))
        files.settings.write_text('model { done_marker_file: "DONE" }', encoding="utf-8")
        await files.file.read_once()
        assert server.model_config.settings_of("a").done_marker_file == "DONE"
        # What is loaded stays so, whatever the settings would ask of a new version.
        assert server.serving("a") == [1]

    scene.run(scenario)


def test_a_file_that_says_nothing_new_reloads_nothing(scene: ServerScene, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        files = Files(scene)
        server = await files.server(scene.config("a"))
        files.config.write_text("# a comment\n" + files.config.read_text(encoding="utf-8"), encoding="utf-8")
        before = server.model_config.current
        await files.file.read_once()
        assert server.model_config.current is before

    caplog.set_level(logging.INFO)
    scene.run(scenario)
    assert "reload" not in caplog.text


def test_without_an_interval_the_file_is_left_alone(scene: ServerScene) -> None:
    async def scenario() -> None:
        files = Files(scene)
        server = await files.server(scene.config("a"))
        assert {task.get_name() for task in asyncio.all_tasks()} & {"polling of the config file"} == set()
        files.write(scene.config("b"))
        # What a reading would do.
        await files.file.read_once()
        assert names(server) == ["b"]

    scene.run(scenario)


@pytest.mark.parametrize(
    ("which", "text", "said"),
    [
        ("config", "model_config_list {\n  config { nam: 'a' } }", "2:12 : Message type"),
        ("config", "oops", "1:1 : Message type"),
        ("config", "", "It is only legal to transition"),
        ("config", None, "No such file"),
        ("settings", "model {\n  name: 'a' agility: 3 }", "2:13 : Message type"),
    ],
)
def test_a_file_that_is_wrong_is_complained_about_once_with_its_place_and_changes_nothing(
    scene: ServerScene, caplog: pytest.LogCaptureFixture, which: str, text: str | None, said: str
) -> None:
    async def scenario() -> None:
        files = Files(scene)
        server = await files.server(scene.config("a"))
        path = getattr(files, which)
        if text is None:
            path.unlink()
        else:
            path.write_text(text, encoding="utf-8")
        for _ in range(3):
            await files.file.read_once()
        assert (names(server), server.serving("a")) == (["a"], [1])
        files.settings.write_text("", encoding="utf-8")
        files.write(scene.config("a", "b"))
        await files.file.read_once()
        assert names(server) == ["a", "b"]

    caplog.set_level(logging.ERROR)
    scene.run(scenario)
    assert caplog.text.count(said) == 1


def test_a_file_that_failed_is_not_tried_again_and_again_but_when_it_changes(scene: ServerScene) -> None:
    async def scenario() -> None:
        files = Files(scene)
        server = await files.server(scene.config("a"))
        server.errors["b"] = BROKEN
        files.write(scene.config("b"))
        for _ in range(3):
            await files.file.read_once()
        assert [each.name for each in server.loads] == ["a", "b"]
        files.write(scene.config("a", "b"))
        await files.file.read_once()
        assert [each.name for each in server.loads] == ["a", "b", "b"]
        assert names(server) == ["a"]
        # … or when some time has passed.
        del server.errors["b"]
        await files.file.read_once()
        assert names(server) == ["a"]
        files.clock.advance(RETRY_S)
        await files.file.read_once()
        assert names(server) == ["a", "b"]

    scene.run(scenario)
