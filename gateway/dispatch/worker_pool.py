"""Owns the supervisors of all workers: starts them for those who need them and ends them when nobody does.

Between the composition root and the supervisors; placement asks it where a version belongs. Owned by the edge loop's
thread.

How far versions are kept apart is a model's isolation. DEVICE: a version shares the slots' standing workers with all
others. MODEL: the model's versions share workers of their own. VERSION: it has workers for itself, which end with it,
so that all of their memory comes back.

Workers on the network are all standing ones, and may join and be forgotten at any time: see worker_discovery.
"""

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeAlias

from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.dispatch.devices import Slot
from tensorgate.gateway.dispatch.remote_supervisor import RemoteSupervisor
from tensorgate.gateway.dispatch.supervisor import OnDown, OnUp, Supervisor, WorkerOptions
from tensorgate.protos.status_codes import Code, ServingError

logger = logging.getLogger("tensorgate.worker_pool")

AnySupervisor: TypeAlias = Supervisor | RemoteSupervisor


class Isolation(Enum):
    """Who shares a worker process."""

    DEVICE = "device"
    MODEL = "model"
    VERSION = "version"


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a model wants to be hosted.

    ``num_replicas`` of each version, 0: one in each slot it may use; ``slots``: their names, or those of the services
    that found them, empty: all of them. ``num_execution_threads``: 0: as others have; only of use where the model has
    workers of its own.
    """

    isolation: Isolation = Isolation.DEVICE
    num_replicas: int = 0
    slots: frozenset[str] = frozenset()
    num_execution_threads: int = 0

    def may_use(self, slot: Slot) -> bool:
        """Whether the model may be there."""
        return not self.slots or slot.name in self.slots or slot.service in self.slots


@dataclass(slots=True)
class Home:
    """Where a version may be loaded: ``num_replicas`` copies, each on another worker of these names.

    ``ends_with_version``: the workers end when the version leaves, and need not unload it. ``may_lack``: workers may be
    away for long, so one copy is enough to serve, and others are loaded when there is a worker for them. Which workers
    there are, and how many copies with them, then changes as workers join and are forgotten: read it anew.
    """

    workers: frozenset[str]
    num_replicas: int
    ends_with_version: bool = False
    may_lack: bool = False


class _Group:
    """Supervisors that start and end together, and the versions that need them."""

    __slots__ = ("slots", "starting", "supervisors", "users")

    def __init__(self, supervisors: Sequence[AnySupervisor], slots: Sequence[str]) -> None:
        self.supervisors = supervisors
        self.slots = slots
        self.users: set[ServableId] = set()
        self.starting: asyncio.Task[None] | None = None


_Key = tuple[str, ...]


class WorkerPool:
    """``open`` and ``close`` a version's home; ``start`` and ``stop`` for the composition root."""

    def __init__(
        self,
        slots: Sequence[Slot],
        options_of: Callable[[Slot], WorkerOptions],
        make_supervisor: Callable[[WorkerOptions], AnySupervisor],
        settings_of: Callable[[str], WorkerSettings],
        stop_timeout_s: float,
    ) -> None:
        """``options_of``: how the slot's workers are run, but for their name and a model's own settings.

        ``settings_of``: by a model's name. ``stop_timeout_s``: what workers get to end that a version has left.
        """
        self._slots = list(slots)
        # All of them are or none is; the slots of some are found later.
        self._on_network = all(slot.address for slot in slots)
        self._options_of = options_of
        self._make_supervisor = make_supervisor
        self._settings_of = settings_of
        self._stop_timeout_s = stop_timeout_s
        self._listeners: list[tuple[OnUp, OnDown]] = []
        self._numbers = itertools.count(len(slots))
        self._groups: dict[_Key, _Group] = {}
        self._homes: dict[ServableId, list[_Key]] = {}
        self._homes_on_network: dict[ServableId, tuple[Home, WorkerSettings]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._is_stopped = False

    @property
    def wants_workers(self) -> bool:
        """Whether any worker should be up."""
        return self._on_network or bool(self._groups)

    @property
    def slots(self) -> Sequence[Slot]:
        """WorkerDiscovery's Joinable."""
        return self._slots

    @property
    def supervisors(self) -> list[AnySupervisor]:
        """Of the workers that should be up, in the order in which they were made; from any thread."""
        return [supervisor for group in list(self._groups.values()) for supervisor in group.supervisors]

    def subscribe(self, on_up: OnUp, on_down: OnDown) -> None:
        """Supervisor.subscribe, for every worker; before ``start``."""
        self._listeners.append((on_up, on_down))

    async def start(self) -> None:
        """Starts the standing workers and waits until they are up; raises ServingError if one of them does not come up.

        Of workers on the network one is enough. Without it they start with the first version that needs them.
        """
        outcomes = await asyncio.gather(*map(self._standing, self._slots), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        if self._on_network and not any(each.is_up for each in self.supervisors):
            ends = [each.last_end for each in self.supervisors if each.last_end]
            raise ServingError(Code.UNAVAILABLE, f"No worker is up: {ends[0] if ends else 'all were lost'}")

    async def stop(self, timeout_s: float) -> None:
        """Ends all workers at the same time, as Supervisor.stop; nothing can be opened any more. Idempotent."""
        self._is_stopped = True
        groups = list(self._groups.values())
        self._groups.clear()
        await asyncio.gather(*(self._end(group, timeout_s) for group in groups), *self._ending)

    # --- for worker_discovery -----------------------------------------------------------------------------------------

    def join(self, address: str, service: str) -> Slot:
        """Has a worker that somebody runs at the address greeted from now on; what should be on it is loaded there.

        Its slot has the first name that is free. Raises ServingError UNAVAILABLE once stopped.
        """
        taken = {slot.name for slot in self._slots}
        names = (f"worker-{number}" for number in itertools.count())
        name = next(each for each in names if each not in taken)
        slot = Slot(name, "", address, service)
        key = _key_of(slot)
        self._groups[key] = self._new_group([slot], [name], 0)
        self._slots.append(slot)
        self._fit_homes()
        self._begin_start(key)
        return slot

    def is_up(self, slot: Slot) -> bool:
        """WorkerDiscovery's Joinable."""
        group = self._groups.get(_key_of(slot))
        return group is not None and any(each.is_up for each in group.supervisors)

    def forget(self, slot: Slot) -> None:
        """The worker there is not greeted any more; its name is free."""
        self._slots.remove(slot)
        self._fit_homes()
        if (group := self._groups.pop(_key_of(slot), None)) is not None:
            self._begin_end(group, 0.0)

    def _fit_homes(self) -> None:
        for home, settings in self._homes_on_network.values():
            self._fit(home, settings)

    def _fit(self, home: Home, settings: WorkerSettings) -> None:
        """Has a home on the network be what the slots of now make it."""
        home.workers = frozenset(slot.name for slot in self._slots if settings.may_use(slot))
        home.num_replicas = _num_replicas(settings, len(home.workers))

    # --- for placement ------------------------------------------------------------------------------------------------

    def num_replicas(self, name: str) -> int:
        """Copies that each version of a model gets, with the workers that are known now."""
        settings = self._settings_of(name)
        return _num_replicas(settings, sum(map(settings.may_use, self._slots)))

    async def open(self, servable_id: ServableId) -> Home:
        """The version's home, with its workers started; raises ServingError, with nothing left, if they do not come up.

        Those on the network are not waited for. Each one is followed by a ``close``.
        """
        settings = self._settings_of(servable_id.name)
        if self._on_network:
            home = Home(frozenset(), 0, may_lack=True)
            self._fit(home, settings)
            self._homes_on_network[servable_id] = home, settings
            return home
        slots = [slot for slot in self._slots if settings.may_use(slot)]
        num_replicas = _num_replicas(settings, len(slots))
        if settings.isolation is Isolation.DEVICE:
            outcomes = await asyncio.gather(*map(self._standing, slots), return_exceptions=True)
            groups = [each for each in outcomes if not isinstance(each, BaseException)]
            # Those that came up serve; another one that did not is tried with the next version.
            if len(groups) < num_replicas:
                raise next(each for each in outcomes if isinstance(each, BaseException))
            self._homes[servable_id] = []
            names = frozenset(each.name for group in groups for each in group.supervisors)
            return Home(names, num_replicas)
        is_own = settings.isolation is Isolation.VERSION
        key: _Key = ("version", servable_id.name, str(servable_id.version)) if is_own else ("model", servable_id.name)
        if key not in self._groups:
            slots = sorted(slots, key=self._num_groups)[:num_replicas]
            own_names = [f"worker-{next(self._numbers)}" for _ in slots]
            whose = str(servable_id) if is_own else f"model {servable_id.name}"
            logger.info("starting %s for %s", ", ".join(own_names), whose)
            self._groups[key] = self._new_group(slots, own_names, settings.num_execution_threads)
        group = await self._started(key, servable_id)
        self._homes[servable_id] = [key]
        return Home(frozenset(each.name for each in group.supervisors), len(group.supervisors), is_own)

    async def close(self, servable_id: ServableId) -> None:
        """Returns when workers that no other version needs have ended. Idempotent."""
        self._homes_on_network.pop(servable_id, None)
        for key in self._homes.pop(servable_id, []):
            group = self._groups.get(key)
            if group is None:
                continue
            group.users.discard(servable_id)
            if not group.users:
                # From now on a version of the same name gets new workers.
                del self._groups[key]
                await asyncio.shield(self._begin_end(group, self._stop_timeout_s))

    # --- groups -------------------------------------------------------------------------------------------------------

    def _num_groups(self, slot: Slot) -> int:
        return sum(slot.name in group.slots for group in self._groups.values())

    async def _standing(self, slot: Slot) -> _Group:
        """The slot's own worker, which no version ends."""
        key = _key_of(slot)
        if key not in self._groups:
            self._groups[key] = self._new_group([slot], [slot.name], 0)
        return await self._started(key, None)

    def _new_group(self, slots: Sequence[Slot], names: Sequence[str], num_execution_threads: int) -> _Group:
        if self._is_stopped:
            raise ServingError(Code.UNAVAILABLE, "The server is shutting down.")
        supervisors = []
        for slot, name in zip(slots, names, strict=True):
            options = replace(self._options_of(slot), name=name)
            if num_execution_threads:
                options = replace(options, num_execution_threads=num_execution_threads)
            supervisor = self._make_supervisor(options)
            for on_up, on_down in self._listeners:
                supervisor.subscribe(on_up, on_down)
            supervisors.append(supervisor)
        return _Group(supervisors, [slot.name for slot in slots])

    async def _started(self, key: _Key, user: ServableId | None) -> _Group:
        """The group of that key once its workers have come up; if they do not, it is gone and the error raised."""
        group = self._groups[key]
        if user is not None:
            group.users.add(user)
        # Another version may wait for the same workers.
        await asyncio.shield(self._begin_start(key))
        return group

    def _begin_start(self, key: _Key) -> "asyncio.Task[None]":
        group = self._groups[key]
        if group.starting is None:
            group.starting = asyncio.get_running_loop().create_task(self._start_group(key, group))
            # Whoever waits hears of its error; that nobody may is no fault.
            group.starting.add_done_callback(lambda task: task.cancelled() or task.exception())
        return group.starting

    async def _start_group(self, key: _Key, group: _Group) -> None:
        outcomes = await asyncio.gather(*(each.start() for each in group.supervisors), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                if self._groups.get(key) is group:
                    del self._groups[key]
                await self._end(group, 0.0)
                raise outcome

    def _begin_end(self, group: _Group, timeout_s: float) -> "asyncio.Task[None]":
        ending = asyncio.get_running_loop().create_task(self._end(group, timeout_s))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        return ending

    async def _end(self, group: _Group, timeout_s: float) -> None:
        await asyncio.gather(*(each.stop(timeout_s) for each in group.supervisors))


def _key_of(slot: Slot) -> _Key:
    """Of the slot's standing worker."""
    return ("slot", slot.name)


def _num_replicas(settings: WorkerSettings, num_slots: int) -> int:
    # Where there is no worker yet, the first one to come is waited for.
    return max(1, min(settings.num_replicas or num_slots, num_slots))
