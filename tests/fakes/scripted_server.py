"""A server without edges and workers: source, manager, route table and configuration are real, loaders are not."""

import asyncio
import os
import pathlib
from collections.abc import Awaitable, Callable, Sequence

from google.protobuf import text_format

from tensorgate.gateway.config_files import models_of
from tensorgate.gateway.core.aspired_version_policy import AvailabilityPreservingPolicy
from tensorgate.gateway.core.aspired_versions_manager import AspiredVersionsManager
from tensorgate.gateway.core.basic_manager import BasicManager
from tensorgate.gateway.core.clock import SystemClock
from tensorgate.gateway.core.event_bus import EventBus
from tensorgate.gateway.core.loader import Loader
from tensorgate.gateway.core.model_spec import ModelSpec
from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.servable_state import ManagerState, ServableState
from tensorgate.gateway.core.servable_state_monitor import ServableStateMonitor
from tensorgate.gateway.core.source import ServableData
from tensorgate.gateway.current_config import CurrentConfig, servables_of
from tensorgate.gateway.dispatch.route_table import RouteTable
from tensorgate.gateway.dispatch.worker import Replica
from tensorgate.gateway.model_config_manager import ModelConfigManager, ReloadOptions
from tensorgate.gateway.model_settings import read_model_settings
from tensorgate.gateway.reload_outcome import ReloadOutcome
from tensorgate.gateway.sources.file_system_storage_path_source import FileSystemStoragePathSource
from tensorgate.protos.status_codes import ServingError
from tensorgate.protos.tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

POLL_WAIT_S = 0.01
TIME_LIMIT_S = 20.0


class FakeLoader:
    """A core Loader and a Hosting: loads when the server lets it."""

    signature_def_map = b""
    replicas: Sequence[Replica] = ()

    def __init__(self, server: "ScriptedServer", data: ServableData) -> None:
        self._server = server
        self.data = data
        self.platform = server.platforms[data.id.name]

    def watch_replicas(self, on_change: Callable[[], None] | None) -> None:
        pass

    async def load(self) -> None:
        server = self._server
        server.loads.append(self.data.id)
        if (gate := server.gates.get(self.data.id.name)) is not None:
            await gate.wait()
        if (error := server.errors.get(self.data.id.name)) is not None:
            raise error

    async def unload(self) -> None:
        self._server.unloads.append(self.data.id)


class ScriptedServer:
    """Made and used on one loop; ``start``, and ``stop`` in the end.

    ``errors``: by model, what its loads fail with. ``gates``: by model, what its loads wait for.
    """

    def __init__(
        self,
        config: ModelServerConfig,
        options: ReloadOptions | None = None,
        *,
        poll_wait_s: float = POLL_WAIT_S,
    ) -> None:
        options = options or ReloadOptions()
        clock = SystemClock()
        self.bus: EventBus[ServableState] = EventBus()
        self.monitor = ServableStateMonitor(self.bus)
        self.table = RouteTable()
        self.platforms: dict[str, str] = {}
        self.errors: dict[str, ServingError] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.loads: list[ServableId] = []
        self.unloads: list[ServableId] = []
        self.manager = BasicManager(
            AspiredVersionsManager(
                lambda _name: AvailabilityPreservingPolicy(),
                self.bus,
                clock,
                max_num_load_retries=0,
                max_parallel_loads=100,
            ),
            lambda data: FakeLoader(self, data),
            self,
            clock,
        )
        current = CurrentConfig(config, models_of(config), read_model_settings(options.settings_file))
        self.source = FileSystemStoragePathSource(
            servables_of(current.models, current.settings), poll_wait_s, self.manager, clock, self.monitor.set_waiting
        )
        self.model_config = ModelConfigManager(current, self.source, self.monitor, self.table, self.platforms, options)
        self.bus.subscribe(self.model_config.on_state)

    async def publish(self, servable_id: ServableId, loader: Loader) -> None:
        """Publisher."""
        assert isinstance(loader, FakeLoader)
        self.table.publish(servable_id, loader)

    async def withdraw(self, servable_id: ServableId) -> None:
        """Publisher."""
        await self.table.withdraw(servable_id)

    async def start(self) -> None:
        await self.source.start()
        await self.model_config.wait_for_first_models()

    async def stop(self) -> None:
        await self.model_config.stop()
        await self.source.stop()
        await self.manager.stop()

    async def reload(self, config: ModelServerConfig) -> ReloadOutcome:
        return await asyncio.wait_for(self.model_config.reload(config), TIME_LIMIT_S)

    def state(self, name: str, version: int) -> ManagerState | None:
        state = self.monitor.state(ServableId(name, version))
        return None if state is None else state.state

    def serving(self, name: str) -> list[int]:
        """The versions that requests can reach, largest first."""
        return list(self.table.snapshot.versions.get(name, ()))

    def served(self, name: str, version: int | None = None, label: str | None = None) -> tuple[int, str]:
        """The version that a request gets, and where it was loaded from. Raises ServingError."""
        pin = self.table.resolve(ModelSpec(name, version, label))
        try:
            (routed,) = [
                each for each in self.table.snapshot.versions[name].values() if each.servable_id == pin.servable_id
            ]
            assert isinstance(routed.hosting, FakeLoader)
            return pin.servable_id.version, routed.hosting.data.path
        finally:
            pin.release()

    def platform_of(self, name: str) -> str:
        """What the latest version of a model was loaded as."""
        (hosting, *_) = [each.hosting for each in self.table.snapshot.versions[name].values()]
        assert isinstance(hosting, FakeLoader)
        return hosting.platform


def config_of(*models: str) -> ModelServerConfig:
    """A list of models, each in text form."""
    text = "\n".join(f"config {{ {model} }}" for model in models)
    return text_format.Parse(f"model_config_list {{ {text} }}", ModelServerConfig())


def make_versions(base_path: pathlib.Path, *versions: int) -> pathlib.Path:
    """Complete versions that were written long ago."""
    for version in versions:
        path = base_path / str(version)
        path.mkdir(parents=True)
        (path / "saved_model.pb").write_bytes(b"model")
        for each in (path / "saved_model.pb", path):
            os.utime(each, (1_600_000_000, 1_600_000_000))
    return base_path


async def until(condition: Callable[[], bool], what: str) -> None:
    """Waits for what the server's tasks do by and by."""
    deadline = asyncio.get_running_loop().time() + TIME_LIMIT_S
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"still not: {what}"
        await asyncio.sleep(0.005)


class ServerScene:
    """Base paths ``a``, ``b``, ``c`` with version 1 each, ``two`` with versions 1 and 2, ``none`` with none."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        for name in "abc":
            make_versions(folder / name, 1)
        make_versions(folder / "two", 1, 2)
        (folder / "none").mkdir()
        self.servers: list[ScriptedServer] = []

    def model(self, name: str, rest: str = "", base_path: str = "") -> str:
        return f'name: "{name}" base_path: "{self.folder / (base_path or name)}" model_platform: "tensorflow" {rest}'

    def config(self, *names: str) -> ModelServerConfig:
        return config_of(*(self.model(name) for name in names))

    def server(self, config: ModelServerConfig, options: ReloadOptions | None = None) -> ScriptedServer:
        self.servers.append(ScriptedServer(config, options))
        return self.servers[-1]

    async def started(self, config: ModelServerConfig, options: ReloadOptions | None = None) -> ScriptedServer:
        server = self.server(config, options)
        await server.start()
        return server

    def run(self, scenario: Callable[[], Awaitable[None]]) -> None:
        async def limited() -> None:
            try:
                await asyncio.wait_for(scenario(), 60)
            finally:
                for server in self.servers:
                    await server.stop()
            assert asyncio.all_tasks() == {asyncio.current_task()}

        asyncio.run(limited())
