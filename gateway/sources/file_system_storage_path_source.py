"""Finds versions of models in the file system and tells the manager which of them should be served.

Start of a version's line: FileSystemStoragePathSource → Target. Owned by the edge loop's thread; the looking itself
blocks on the file system and runs in executor threads.

Unlike upstream, a base path that cannot be read affects its own model only, and a version is not aspired while its
files are still being written (version_files.py says how that is told).

Source: tensorflow_serving/sources/storage_path/file_system_storage_path_source.h.
"""

import asyncio
import logging
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tensorgate.gateway.core.clock import Clock
from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.servable_state import ManagerState, ServableState
from tensorgate.gateway.core.source import ServableData, Target
from tensorgate.gateway.sources.version_files import Fingerprint, is_settled, look_at, missing_files
from tensorgate.protos.status_codes import Code, ServingError

logger = logging.getLogger("tensorgate.source")

# Files that have been waited for so long are worth a warning.
LONG_WAIT_S = 60.0
MAX_MISSING_NAMED = 3


@dataclass(frozen=True, slots=True)
class LatestVersions:
    """The ``num_versions`` largest ones, at least 1."""

    num_versions: int = 1


@dataclass(frozen=True, slots=True)
class AllVersions:
    """Every one there is."""


@dataclass(frozen=True, slots=True)
class SpecificVersions:
    """Those of the listed ones that exist."""

    versions: tuple[int, ...]


VersionPolicy = LatestVersions | AllVersions | SpecificVersions


@dataclass(frozen=True, slots=True)
class ServableToMonitor:
    """A model: ``base_path`` holds a folder for each version, named by its number.

    ``done_marker``: a file that each version has once it is complete, relative to the version; empty: there is none.
    """

    name: str
    base_path: str
    version_policy: VersionPolicy = field(default_factory=LatestVersions)
    done_marker: str = ""


_VERSION = re.compile(r"\s*([+-]?[0-9]+)\s*", re.ASCII)


def parse_version(child: str) -> int | None:
    """The version that a folder's name says, as absl::SimpleAtoi reads it; None for a name that says none.

    ``7``, ``00000007`` and ``+7`` are 7; ``7.denied`` and numbers beyond 64 bits are none.
    """
    match = _VERSION.fullmatch(child)
    if match is None or len(match[1]) > 400:
        return None
    version = int(match[1])
    return version if -(1 << 63) <= version < 1 << 63 else None


def aspired_children(children: Sequence[str], policy: VersionPolicy) -> list[tuple[int, str]]:
    """The versions that ``policy`` picks from the names in a base path: (version, name), largest first.

    Of names with the same version the last in sorted order counts ("1" over "001").
    """
    versions: dict[int, str] = {}
    for child in sorted(children):
        version = parse_version(child)
        if version is not None:
            versions[version] = child
    ordered = sorted(versions.items(), reverse=True)
    if isinstance(policy, AllVersions):
        return ordered
    if isinstance(policy, SpecificVersions):
        return [(version, child) for version, child in ordered if version in policy.versions]
    return ordered[: max(policy.num_versions, 1)]


@dataclass(frozen=True, slots=True)
class Found:
    """One look at a model's base path: what the policy picks, with the state of its files, or why nothing was seen."""

    versions: tuple[tuple[ServableData, Fingerprint], ...]
    error: str | None = None


def look_for_versions(
    servable: ServableToMonitor, without: Collection[str] = (), last: Mapping[str, Fingerprint] | None = None
) -> Found:
    """Reads the base path, as if the folders ``without`` (full paths) were not there; blocks on the file system.

    ``last`` has what was seen before, by path.
    """
    # As TensorFlow's file systems take it.
    base_path = servable.base_path.removeprefix("file://")
    try:
        children = {child for child in os.listdir(base_path) if os.path.join(base_path, child) not in without}
        while True:
            found = []
            vanished = set()
            for version, child in aspired_children(list(children), servable.version_policy):
                path = os.path.join(base_path, child)
                fingerprint = look_at(path, (last or {}).get(path))
                if fingerprint is None:
                    vanished.add(child)
                else:
                    found.append((ServableData(ServableId(servable.name, version), path), fingerprint))
            if not vanished:
                return Found(tuple(found))
            # Gone since it was listed: the policy picks others instead.
            children -= vanished
    except OSError as error:
        return Found((), f"{error.strerror}: {error.filename}")


def _missing_versions(policy: VersionPolicy, aspired: Sequence[ServableData]) -> list[int]:
    if not isinstance(policy, SpecificVersions):
        return []
    return sorted(set(policy.versions) - {data.id.version for data in aspired})


@dataclass(slots=True)
class _Wait:
    """Since when a folder has been waited for, and whether that has been warned of."""

    since_s: float
    since_us: int
    is_warned_of: bool = False


def _tell_nobody(_name: str, _states: Sequence[ServableState]) -> None:
    pass


class FileSystemStoragePathSource:
    """Looks every ``poll_wait_s`` seconds; 0 means once, negative never. Each look tells the target of its model.

    A newly found version whose files are not settled counts as absent, and the next look decides; what is aspired stays
    so meanwhile, and others may only join it. With a single look there is no next one, so what is there then counts.

    Each model is looked at by a task of its own, so that a slow or broken disk delays no other model.
    """

    def __init__(
        self,
        servables: Iterable[ServableToMonitor],
        poll_wait_s: float,
        target: Target,
        clock: Clock,
        on_waiting: Callable[[str, Sequence[ServableState]], None] = _tell_nobody,
    ) -> None:
        """``on_waiting(name, states)`` is told after each look which versions of a model wait for their files.

        They are in state START, and their error says what they lack.
        """
        self._servables = {servable.name: servable for servable in servables}
        self._poll_wait_s = poll_wait_s
        self._target = target
        self._clock = clock
        self._on_waiting = on_waiting
        self._is_started = False
        # Of each model its task, and all that have not ended yet, those of models that are gone included.
        self._task_of: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # Per model what the last look saw (by path), and what was said of it: a trouble is logged when it changes, not
        # at each look.
        self._fingerprints: dict[str, dict[str, Fingerprint]] = {}
        self._aspired: dict[str, tuple[ServableData, ...]] = {}
        self._troubles: dict[str, str] = {}
        self._waits: dict[str, dict[str, _Wait]] = {}

    async def start(self) -> None:
        """Begins to look; returns at once."""
        self._is_started = True
        for servable in self._servables.values():
            self._begin(servable)

    async def stop(self) -> None:
        """Returns when no further look will happen and the target is left alone. Idempotent."""
        self._is_started = False
        self._task_of.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def set_servables(self, servables: Iterable[ServableToMonitor]) -> None:
        """Replaces the models that are looked at. On the edge loop; returns at once.

        Nothing of a model that is gone is aspired from now on. One that is new, or has changed, is looked at at once,
        whatever the interval is, and keeps what it has until that look. One that stays as it is notices nothing.
        """
        wanted = {servable.name: servable for servable in servables}
        old, self._servables = self._servables, wanted
        for name, servable in old.items():
            if wanted.get(name) != servable and (task := self._task_of.pop(name, None)) is not None:
                task.cancel()
            if name not in wanted:
                for known in (self._fingerprints, self._aspired, self._troubles, self._waits):
                    known.pop(name, None)
                self._on_waiting(name, ())
                self._target.set_aspired_versions(name, ())
        if self._is_started:
            for name, servable in wanted.items():
                if old.get(name) != servable:
                    self._begin(servable)

    def trouble(self, name: str) -> str:
        """What is wrong with where a model's versions are looked for, as the log has it; empty: nothing."""
        return self._troubles.get(name, "")

    def _begin(self, servable: ServableToMonitor) -> None:
        if self._poll_wait_s < 0:
            return
        task = asyncio.get_running_loop().create_task(
            self._poll(servable), name=f"file-system source of {servable.name}"
        )
        self._task_of[servable.name] = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _poll(self, servable: ServableToMonitor) -> None:
        while True:
            await self._look(servable)
            if self._poll_wait_s == 0:
                return
            await asyncio.sleep(self._poll_wait_s)

    async def poll_once(self) -> None:
        """One look at every model, side by side; returns when the target has been told."""
        await asyncio.gather(*(self._look(servable) for servable in self._servables.values()))

    async def _look(self, servable: ServableToMonitor) -> None:
        try:
            await self._look_and_tell(servable)
        except Exception as error:  # noqa: BLE001 - no fault may end the looking: the next look may well succeed
            self._complain(servable.name, f"looking for versions of {servable.name} failed: {error!r}", error)

    async def _look_and_tell(self, servable: ServableToMonitor) -> None:
        waiting: dict[str, Fingerprint] = {}
        seen: dict[str, Fingerprint] = {}
        last = self._fingerprints.get(servable.name, {})
        while True:
            found = await asyncio.to_thread(look_for_versions, servable, waiting, {**last, **seen})
            if found.error is not None:
                self._complain(
                    servable.name,
                    f"Could not find base path {servable.base_path} for servable {servable.name} with error"
                    f" {found.error}; what is loaded stays",
                )
                return
            unsettled = {
                data.path: fingerprint
                for data, fingerprint in found.versions
                if not self._may_serve(servable, data, fingerprint)
            }
            seen.update((data.path, fingerprint) for data, fingerprint in found.versions)
            if not unsettled:
                break
            # The policy picks again, among the others.
            waiting |= unsettled
        self._fingerprints[servable.name] = seen
        self._tell(servable, tuple(data for data, _ in found.versions), waiting)

    def _may_serve(self, servable: ServableToMonitor, data: ServableData, fingerprint: Fingerprint) -> bool:
        # A marker is there or not; without one, whether files have settled takes another look to tell.
        if data in self._aspired.get(servable.name, ()) or (self._poll_wait_s == 0 and not servable.done_marker):
            return True
        last = self._fingerprints.get(servable.name, {}).get(data.path)
        return is_settled(fingerprint, last, self._clock.time_us(), servable.done_marker)

    def _tell(
        self, servable: ServableToMonitor, aspired: tuple[ServableData, ...], waiting: Mapping[str, Fingerprint]
    ) -> None:
        name = servable.name
        self._tell_of_waiting(servable, waiting)
        if waiting:
            self._troubles.pop(name, None)
            if not set(self._aspired.get(name, ())) < set(aspired):
                return
        self._aspired[name] = aspired
        self._target.set_aspired_versions(name, aspired)
        if waiting:
            return
        if not aspired:
            self._complain(
                name,
                f"No versions of servable {name} found under base path {servable.base_path}."
                " Does it hold a folder named by a number?",
            )
        elif missing := _missing_versions(servable.version_policy, aspired):
            self._complain(name, f"versions {missing} of servable {name} are asked for but not in {servable.base_path}")
        else:
            self._troubles.pop(name, None)

    def _tell_of_waiting(self, servable: ServableToMonitor, waiting: Mapping[str, Fingerprint]) -> None:
        """In the status all the time; in the log once when the wait begins, and once more when it has become long."""
        name = servable.name
        now_s, now_us = self._clock.monotonic_s(), self._clock.time_us()
        known = self._waits.get(name, {})
        self._waits[name] = waits = {path: known.get(path) or _Wait(now_s, now_us) for path in sorted(waiting)}
        states = []
        for path, wait in waits.items():
            lacks = _lacks(missing_files(waiting[path], servable.done_marker))
            states.append(_waiting_state(name, path, wait, f"waiting for the files of {path} to be complete{lacks}"))
            if path not in known:
                logger.info("waiting for the files of %s to be complete%s", path, lacks)
            elif not wait.is_warned_of and now_s - wait.since_s >= LONG_WAIT_S:
                wait.is_warned_of = True
                waited_s = now_s - wait.since_s
                logger.warning("the files of %s are still not complete after %.0f s%s", path, waited_s, lacks)
        self._on_waiting(name, states)

    def _complain(self, name: str, trouble: str, error: Exception | None = None) -> None:
        if self._troubles.get(name) != trouble:
            self._troubles[name] = trouble
            logger.warning("%s", trouble, exc_info=error)


def _waiting_state(name: str, path: str, wait: _Wait, text: str) -> ServableState:
    version = parse_version(os.path.basename(path))
    assert version is not None, "only folders that name a version are waited for"
    return ServableState(
        ServableId(name, version), ManagerState.START, ServingError(Code.UNAVAILABLE, text), wait.since_us
    )


def _lacks(missing: Sequence[str]) -> str:
    """What is not there yet, as the end of a sentence; empty where that is not known."""
    if not missing:
        return ""
    more = f" and {len(missing) - MAX_MISSING_NAMED} more" if len(missing) > MAX_MISSING_NAMED else ""
    return f": it lacks {', '.join(missing[:MAX_MISSING_NAMED])}{more}"
