"""Decides what to load and unload: events in, actions out, no I/O and no tasks.

On a version's line: source → AspiredVersionsManager (+ AspiredVersionPolicy) → BasicManager, which carries the actions
out and reports back. Owned by the edge loop's thread.

Unlike upstream, where one action at a time happens for the whole server, models do not wait for each other; loads are
bounded by ``max_parallel_loads``.

Source: tensorflow_serving/core/aspired_versions_manager.h, basic_manager.h.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from tensorgate.gateway.core.aspired_version_policy import ActionKind, AspiredVersionPolicy, VersionSnapshot
from tensorgate.gateway.core.clock import Clock
from tensorgate.gateway.core.event_bus import EventBus
from tensorgate.gateway.core.loader_harness import AT_REST, HarnessState, LoaderHarness
from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.servable_state import ManagerState, ServableState
from tensorgate.gateway.core.source import ServableData
from tensorgate.protos.status_codes import Code, ServingError

CANCELLED = ServingError(Code.CANCELLED, "Loading of servable cancelled")


@dataclass(frozen=True, slots=True)
class Load:
    """Load this version; answer with load_succeeded or load_failed."""

    data: ServableData


@dataclass(frozen=True, slots=True)
class Unload:
    """Withdraw this version from requests and unload it; answer with unload_finished."""

    id: ServableId


Action = Load | Unload


class Retry(Enum):
    """What becomes of a version whose next load attempt is due."""

    LOAD = "load"  # now
    WAIT = "wait"  # as many loads as may run are running: ask again after something has changed
    ENDED = "ended"  # no longer wanted


class AspiredVersionsManager:
    """After every call that changes something, ``next_actions`` says what to begin; a Target for sources."""

    def __init__(
        self,
        policy_of: Callable[[str], AspiredVersionPolicy],
        bus: EventBus[ServableState],
        clock: Clock,
        *,
        max_num_load_retries: int = 5,
        max_parallel_loads: int = 1,
    ) -> None:
        """``policy_of``: a model's name to its policy; asked before every decision, so its answer may change."""
        self._policy_of = policy_of
        self._bus = bus
        self._clock = clock
        self._max_num_load_retries = max_num_load_retries
        self.max_parallel_loads = max_parallel_loads
        self._harnesses: dict[str, dict[int, LoaderHarness]] = {}
        self._wishes: dict[str, Sequence[ServableData]] = {}
        self._refused: set[ServableId] = set()
        self._num_loading = 0

    # --- events -------------------------------------------------------------------------------------------------------

    def set_aspired_versions(self, name: str, versions: Sequence[ServableData]) -> None:
        """Target.set_aspired_versions; a newer wish replaces one that has not been taken up yet."""
        self._wishes[name] = tuple(versions)

    def load_succeeded(self, servable_id: ServableId) -> bool:
        """The load is done. True: publish it and report ``published``. False: it is no longer wanted; unload it."""
        harness = self._harness(servable_id)
        self._num_loading -= 1
        if harness.is_aspired:
            return True
        harness.move_to(HarnessState.UNLOADING)
        harness.error = CANCELLED
        return False

    def published(self, servable_id: ServableId) -> None:
        """Requests can reach the version."""
        self._harness(servable_id).move_to(HarnessState.READY)
        self._publish(servable_id, ManagerState.AVAILABLE)

    def load_failed(self, servable_id: ServableId, error: ServingError) -> bool:
        """An attempt failed. True: try again with ``retry_load`` after the retry interval; False: it has ended."""
        harness = self._harness(servable_id)
        self._num_loading -= 1
        harness.num_attempts += 1
        if harness.is_aspired and harness.num_attempts <= self._max_num_load_retries:
            return True
        harness.fail(error)
        self._publish(servable_id, ManagerState.END, error)
        return False

    def load_refused(self, servable_id: ServableId, error: ServingError) -> None:
        """There is not enough left of some resource to begin the load; it has ended until ``resources_freed``."""
        harness = self._harness(servable_id)
        self._num_loading -= 1
        harness.fail(error)
        self._refused.add(servable_id)
        self._publish(servable_id, ManagerState.END, error)

    def resources_freed(self) -> None:
        """Versions that were refused, and are still wanted, are new again."""
        for servable_id in sorted(self._refused):
            harness = self._harnesses.get(servable_id.name, {}).get(servable_id.version)
            if harness is not None and harness.is_aspired and harness.state is HarnessState.ERROR:
                self._harnesses[servable_id.name][servable_id.version] = LoaderHarness(harness.data)
                self._publish(servable_id, ManagerState.START)
        self._refused.clear()

    def give_up(self, servable_id: ServableId, error: ServingError) -> bool:
        """A version that is READY is lost for good. True: withdraw and unload it, and report ``unload_finished``, with
        which it ends with ``error``. False: it is not READY, so it has ended or is on its way out.
        """
        harness = self._harnesses.get(servable_id.name, {}).get(servable_id.version)
        if harness is None or harness.state is not HarnessState.READY:
            return False
        harness.begin_unload()
        harness.error = error
        self._publish(servable_id, ManagerState.UNLOADING)
        return True

    def retry_load(self, servable_id: ServableId, last_error: ServingError) -> Retry:
        """The retry interval is over, or was cut short; the answer says how to go on."""
        harness = self._harness(servable_id)
        if not harness.is_aspired:
            harness.fail(last_error)
            self._publish(servable_id, ManagerState.END, last_error)
            return Retry.ENDED
        if self._num_loading >= self.max_parallel_loads:
            return Retry.WAIT
        self._num_loading += 1
        return Retry.LOAD

    def unload_finished(self, servable_id: ServableId, error: ServingError | None = None) -> None:
        """The version's memory is back, or ``error`` says what failed on the way there; either way it has ended.

        Also the end of a version that was loaded but could not be published.
        """
        harness = self._harness(servable_id)
        ended_with = error or harness.error
        if error is not None:
            harness.fail(error)
        else:
            for state in (HarnessState.QUIESCED, HarnessState.UNLOADING, HarnessState.DISABLED):
                # A cancelled load is UNLOADING already.
                if harness.state is not HarnessState.UNLOADING or state is HarnessState.DISABLED:
                    harness.move_to(state)
        self._publish(servable_id, ManagerState.END, ended_with)

    # --- reading ------------------------------------------------------------------------------------------------------

    def is_aspired(self, servable_id: ServableId) -> bool:
        """Whether the version is known and wanted."""
        harness = self._harnesses.get(servable_id.name, {}).get(servable_id.version)
        return harness is not None and harness.is_aspired

    def num_attempts(self, servable_id: ServableId) -> int:
        """Failed loads of a known version."""
        return self._harness(servable_id).num_attempts

    # --- actions ------------------------------------------------------------------------------------------------------

    def next_actions(self) -> list[Action]:
        """What to begin now; each action is handed out once. Unloads come before loads."""
        unloads: list[Action] = []
        loads: list[Action] = []
        # In the order in which models came, so that a start under a limit on loads is the same each time.
        for name in list(dict.fromkeys([*self._harnesses, *self._wishes])):
            self._forget(name)
            self._take_wish(name)
            while (action := self._policy_of(name).next_action(self._snapshot(name))) is not None:
                harness = self._harnesses[name][action.version]
                if action.kind is ActionKind.UNLOAD:
                    harness.begin_unload()
                    self._publish(harness.id, ManagerState.UNLOADING)
                    unloads.append(Unload(harness.id))
                elif self._num_loading < self.max_parallel_loads:
                    harness.begin_load()
                    self._num_loading += 1
                    self._publish(harness.id, ManagerState.LOADING)
                    loads.append(Load(harness.data))
                else:
                    break
        return unloads + loads

    def _forget(self, name: str) -> None:
        versions = self._harnesses.get(name, {})
        for version, harness in list(versions.items()):
            if not harness.is_aspired and harness.state in AT_REST:
                del versions[version]
        if not versions:
            self._harnesses.pop(name, None)

    def _take_wish(self, name: str) -> None:
        if name not in self._wishes:
            return
        present = self._harnesses.get(name, {})
        wanted: dict[int, ServableData] = {}
        for data in self._wishes[name]:
            # Two folders can name one version ("1" and "001"): the first one counts.
            wanted.setdefault(data.id.version, data)
        if any(version in present and not present[version].is_aspired for version in wanted):
            # Wanted again while it is on its way out: held back until it has left.
            return
        moved = [present[version] for version, data in wanted.items() if _is_elsewhere(present, version, data)]
        if moved:
            # The same number from another folder, after a change of the base path: two of one id cannot be, so the one
            # that is there leaves first. Upstream goes on with the old files.
            for harness in moved:
                self._un_aspire(harness)
            self._forget(name)
            present = self._harnesses.get(name, {})
            if any(version in present and not present[version].is_aspired for version in wanted):
                return
        del self._wishes[name]
        for version, harness in present.items():
            if version not in wanted and harness.is_aspired:
                self._un_aspire(harness)
        for version, data in wanted.items():
            if version not in present:
                self._harnesses.setdefault(name, {})[version] = LoaderHarness(data)
                self._publish(data.id, ManagerState.START)
        self._forget(name)

    def _un_aspire(self, harness: LoaderHarness) -> None:
        harness.is_aspired = False
        if harness.state is HarnessState.NEW:
            # Said to have started, never loaded: its status must not stay so.
            self._publish(harness.id, ManagerState.END)

    def _snapshot(self, name: str) -> list[VersionSnapshot]:
        versions: Iterable[LoaderHarness] = self._harnesses.get(name, {}).values()
        return [VersionSnapshot(each.id.version, each.state, each.is_aspired) for each in versions]

    def _harness(self, servable_id: ServableId) -> LoaderHarness:
        return self._harnesses[servable_id.name][servable_id.version]

    def _publish(self, servable_id: ServableId, state: ManagerState, error: ServingError | None = None) -> None:
        self._bus.publish(ServableState(servable_id, state, error, self._clock.time_us()))


def _is_elsewhere(present: Mapping[int, LoaderHarness], version: int, data: ServableData) -> bool:
    """Whether the version is there, but from another path."""
    harness = present.get(version)
    return harness is not None and harness.data.path != data.path
