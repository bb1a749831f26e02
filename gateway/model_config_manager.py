"""The configuration of the running server: which models it has, and how another one takes its place.

At the head of a version's line: model_config_file, HandleReloadConfigRequest or the admin API → ModelConfigManager →
source, route table (labels). Owned by the edge loop's thread.

A reload takes effect as a whole or not at all: what is refused, and what does not load, leaves everything as it was.
Upstream keeps a refused configuration as its current one, and drops models before their successors have loaded.

Source: tensorflow_serving/model_servers/server_core.cc (the rules, their order and texts).
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from tensorgate.gateway.config_files import ModelConfig, models_of
from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.servable_state import ManagerState, ServableState
from tensorgate.gateway.core.servable_state_monitor import ServableStateMonitor
from tensorgate.gateway.core.version_labels import check_version_labels
from tensorgate.gateway.current_config import CurrentConfig, servables_of
from tensorgate.gateway.model_settings import SettingsOfModels, read_model_settings
from tensorgate.gateway.reload_outcome import (
    STOPPED,
    Failures,
    ReloadOutcome,
    log_outcome,
    not_available,
    outcomes_of,
)
from tensorgate.gateway.sources.file_system_storage_path_source import (
    FileSystemStoragePathSource,
    ServableToMonitor,
    aspired_children,
)
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.config import model_server_config_pb2 as config_pb2
from tensorgate.protos.tensorgate.config.model_settings_pb2 import ModelSettings

logger = logging.getLogger("tensorgate.model_config")


@dataclass(frozen=True, slots=True)
class ReloadOptions:
    """What can be set about reloading."""

    settings_file: str = ""
    """Empty: there is none."""
    ready_timeout_s: float = 900.0
    """How long new models may take to become available or to fail."""
    allows_labels_of_unavailable_versions: bool = False


class LabelTable(Protocol):
    """The part of RouteTable that is written here."""

    def set_labels(self, labels: Mapping[str, Mapping[str, int]]) -> None:
        """Replaces the whole map of model name to label to version."""


class ModelConfigManager:
    """Reloads, one after the other. ``platforms`` (name to platform) is kept up to date for who makes loaders."""

    def __init__(
        self,
        current: CurrentConfig,
        source: FileSystemStoragePathSource,
        monitor: ServableStateMonitor,
        labels: LabelTable,
        platforms: MutableMapping[str, str],
        options: ReloadOptions,
        check_settings: Callable[[SettingsOfModels], None] = lambda _settings: None,
    ) -> None:
        """``current`` is what the source was made with: see ``servables_of``.

        ``check_settings`` raises ServingError for settings that the workers cannot do.
        """
        self._current = current
        self._source = source
        self._monitor = monitor
        self._label_table = labels
        self._platforms = platforms
        self._options = options
        self._check_settings = check_settings
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[ReloadOutcome]] = set()
        self._is_stopped = False
        self._watchers: list[Callable[[CurrentConfig], None]] = []
        self._labels: dict[str, dict[str, int]] = {}
        # Labels of the start-up configuration whose version is not there: assigned when it comes.
        self._withheld: dict[ServableId, set[str]] = {}
        # Settings of a configuration that is being taken over hold for its new models already.
        self._new_settings: tuple[frozenset[str], SettingsOfModels] = (frozenset(), current.settings)
        platforms.update({model.name: model.platform for model in current.models})

    @property
    def current(self) -> CurrentConfig:
        return self._current

    @property
    def model_names(self) -> list[str]:
        """Of the current configuration, in its order; from any thread."""
        return [model.name for model in self._current.models]

    def watch(self, on_current: Callable[[CurrentConfig], None]) -> None:
        """Has ``on_current`` called with every configuration that takes the place of another."""
        self._watchers.append(on_current)

    def settings_of(self, name: str) -> ModelSettings:
        """The settings that hold for a model now; not to be modified."""
        names, settings = self._new_settings
        return (settings if name in names else self._current.settings).of(name)

    def labels_of(self, name: str) -> Mapping[str, int]:
        """The labels that are assigned to versions of a model."""
        return self._labels.get(name, {})

    def source_error(self, name: str) -> str:
        """Why no versions of a model are found, or not those asked for; empty: nothing is wrong."""
        return self._source.trouble(name)

    def _servables(self) -> list[ServableToMonitor]:
        return servables_of(self._current.models, self._current.settings)

    # --- start and stop -----------------------------------------------------------------------------------------------

    async def wait_for_first_models(self) -> None:
        """Returns when each model of the start-up configuration has a version that is available; assigns its labels.

        Raises ServingError UNKNOWN, in upstream's words, when the first version of a model that settled has failed, or
        when a model has none within the limit (upstream waits for ever).
        """
        names = [model.name for model in self._current.models]
        try:
            settled = await asyncio.wait_for(self._monitor.wait_until_settled(names), self._options.ready_timeout_s)
        except asyncio.TimeoutError:
            settled = {name: state for name in names if (state := self._monitor.settled(name)) is not None}
        failures = self._failures(names, settled)
        if failures:
            raise not_available("servable(s)", failures)
        self._assign_first_labels()

    async def stop(self) -> None:
        """Gives up what is under way, whose callers are told so; idempotent. Whatever runs goes on."""
        self._is_stopped = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # --- reloads ------------------------------------------------------------------------------------------------------

    async def reload(self, config: config_pb2.ModelServerConfig) -> ReloadOutcome:
        """Puts a configuration in place of the current one, and reads the settings file again.

        Waits for reloads that came before, and then until the new models have a version that is available, or one has
        failed, or the limit has passed. Goes on when the caller is cancelled.
        """
        return await self._in_turn(lambda _current: config)

    async def add_model(self, model: config_pb2.ModelConfig) -> ReloadOutcome:
        """Adds one model to the current configuration, as ``reload`` would. ALREADY_EXISTS: one has its name."""

        def added(current: config_pb2.ModelServerConfig) -> config_pb2.ModelServerConfig:
            if any(each.name == model.name for each in current.model_config_list.config):
                raise ServingError(Code.ALREADY_EXISTS, f"There is a model {model.name} already; remove it first")
            config = config_pb2.ModelServerConfig()
            config.CopyFrom(current)
            config.model_config_list.config.append(model)
            return config

        return await self._in_turn(added)

    async def remove_model(self, name: str) -> ReloadOutcome:
        """Takes one model out of the current configuration, as ``reload`` would. NOT_FOUND: none has that name."""

        def without(current: config_pb2.ModelServerConfig) -> config_pb2.ModelServerConfig:
            others = [each for each in current.model_config_list.config if each.name != name]
            if len(others) == len(current.model_config_list.config):
                raise ServingError(Code.NOT_FOUND, f"There is no model {name} in the current configuration")
            config = config_pb2.ModelServerConfig()
            config.model_config_list.config.extend(others)
            if not others:
                config.model_config_list.SetInParent()
            return config

        return await self._in_turn(without)

    async def _in_turn(
        self, change: Callable[[config_pb2.ModelServerConfig], config_pb2.ModelServerConfig]
    ) -> ReloadOutcome:
        if self._is_stopped:
            return STOPPED
        task = asyncio.get_running_loop().create_task(self._reload(change), name="reload of the configuration")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                return STOPPED
            raise

    async def _reload(
        self, change: Callable[[config_pb2.ModelServerConfig], config_pb2.ModelServerConfig]
    ) -> ReloadOutcome:
        async with self._lock:
            try:
                config = change(self._current.config)
                settings = await asyncio.to_thread(read_model_settings, self._options.settings_file)
                self._check_settings(settings)
                new = self._checked(config, settings)
            except ServingError as error:
                outcome = ReloadOutcome(error=error)
            else:
                outcome = await self._take_over(new)
        log_outcome(outcome)
        return outcome

    def _checked(self, config: config_pb2.ModelServerConfig, settings: SettingsOfModels) -> CurrentConfig:
        current = self._current
        is_list = config.WhichOneof("config") == "model_config_list"
        was_list = current.config.WhichOneof("config") == "model_config_list"
        if was_list and not is_list:
            raise ServingError(
                Code.FAILED_PRECONDITION,
                "Cannot transition to requested config. It is only legal to transition from one ModelConfigList to"
                " another.",
            )
        models = models_of(config, {model.name: model.platform for model in current.models})
        old = {model.name: model for model in current.models}
        for model in models:
            check_version_labels(
                model.name,
                model.version_labels,
                self._labels.get(model.name, {}),
                partial(self._will_serve, model, old.get(model.name)),
                allows_unavailable=self._options.allows_labels_of_unavailable_versions,
            )
        return CurrentConfig(config, models, settings)

    def _will_serve(self, model: ModelConfig, old: ModelConfig | None, version: int) -> bool:
        """Whether the version serves and the policy that ``model`` has will not drop it."""
        serving = [state.id.version for state in self._monitor.versions(model.name) if _serves(state)]
        if old is None or version not in serving:
            return False
        candidates = serving if model.base_path == old.base_path else [version]
        return version in dict(aspired_children([str(each) for each in candidates], model.version_policy))

    async def _take_over(self, new: CurrentConfig) -> ReloadOutcome:
        old = self._current
        old_names = {model.name for model in old.models}
        added = [model for model in new.models if model.name not in old_names]
        failures = await self._bring_up(added, new.settings)
        outcomes = outcomes_of(old, new, failures)
        if failures:
            return ReloadOutcome(outcomes, not_available("model(s)", failures))
        self._current = new
        for on_current in self._watchers:
            on_current(new)
        self._source.set_servables(servables_of(new.models, new.settings))
        for name in old_names - {model.name for model in new.models}:
            self._platforms.pop(name, None)
        self._withheld.clear()
        self._set_labels({model.name: dict(model.version_labels) for model in new.models})
        # Models that are gone have been withdrawn when this answers.
        await asyncio.sleep(0)
        return ReloadOutcome(outcomes)

    async def _bring_up(self, added: Sequence[ModelConfig], settings: SettingsOfModels) -> Failures:
        """Has the new models loaded beside the present ones; where one fails, none of them is left."""
        names = [model.name for model in added]
        if not names:
            return {}
        self._new_settings = (frozenset(names), settings)
        failures: Failures | None = None
        try:
            failures = await self._settle(added, settings)
        finally:
            self._new_settings = (frozenset(), settings)
            if failures is None or failures:
                self._source.set_servables(self._servables())
                for name in names:
                    self._platforms.pop(name, None)
        return failures

    async def _settle(self, added: Sequence[ModelConfig], settings: SettingsOfModels) -> Failures:
        names = [model.name for model in added]
        before: list[ServableState] | None = None

        async def settle() -> dict[str, ServableState]:
            nonlocal before
            # Models that were there before, under the same names, leave first: what is said of them then counts not.
            await self._monitor.wait_until_ended(names)
            before = [state for name in names for state in self._monitor.versions(name)]
            self._platforms.update({model.name: model.platform for model in added})
            self._source.set_servables([*self._servables(), *servables_of(added, settings)])
            return await self._monitor.wait_until_settled(names, before)

        settled: dict[str, ServableState] = {}
        try:
            settled = await asyncio.wait_for(settle(), self._options.ready_timeout_s)
        except asyncio.TimeoutError:
            if before is not None:
                old = {id(state) for state in before}
                settled = {name: state for name in names if (state := self._monitor.settled(name, old)) is not None}
        return self._failures(names, settled)

    def _failures(self, names: Sequence[str], settled: Mapping[str, ServableState]) -> Failures:
        """Which models have not become available; empty: all have."""
        failures: Failures = {}
        for name in names:
            state = settled.get(name)
            if state is None:
                failures[name] = (f"{{name: {name}}}", self._too_late(name))
            elif state.state is ManagerState.END and state.error is not None:
                failures[name] = (str(state.id), state.error)
        return failures

    def _too_late(self, name: str) -> ServingError:
        said = self._source.trouble(name) or "; ".join(
            f"{state.id} is {state.state.name}{': ' + state.error.message if state.error else ''}"
            for state in self._monitor.versions(name)
        )
        limit = f"not within {self._options.ready_timeout_s:g} s"
        return ServingError(Code.DEADLINE_EXCEEDED, f"{limit}: {said}" if said else limit)

    # --- labels -------------------------------------------------------------------------------------------------------

    def _assign_first_labels(self) -> None:
        """Those of the start-up configuration, whose versions may still be loading. None of them ends the start.

        Upstream compares them with what is loaded at that moment, which is nothing, and so refuses every one.
        """
        labels: dict[str, dict[str, int]] = {}
        for model in self._current.models:
            states = {state.id.version: state for state in self._monitor.versions(model.name)}
            for label, version in model.version_labels.items():
                state = states.get(version)
                is_wanted = state is not None and state.error is None and state.state is not ManagerState.END
                if is_wanted or self._options.allows_labels_of_unavailable_versions:
                    labels.setdefault(model.name, {})[label] = version
                else:
                    self._withheld.setdefault(ServableId(model.name, version), set()).add(label)
                    logger.error(
                        "label %s of model %s is not assigned: version %d is not there; it will be when that comes",
                        label,
                        model.name,
                        version,
                    )
        self._set_labels(labels)

    def on_state(self, state: ServableState) -> None:
        """For the event bus: a version whose labels were withheld may have become available."""
        if state.state is not ManagerState.AVAILABLE or state.id not in self._withheld:
            return
        added = dict.fromkeys(self._withheld.pop(state.id), state.id.version)
        self._set_labels({**self._labels, state.id.name: {**self._labels.get(state.id.name, {}), **added}})

    def _set_labels(self, labels: dict[str, dict[str, int]]) -> None:
        self._labels = {name: dict(versions) for name, versions in labels.items() if versions}
        self._label_table.set_labels(self._labels)


def _serves(state: ServableState) -> bool:
    return state.state is ManagerState.AVAILABLE
