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
from collections.abc import Sequence
from dataclasses import dataclass, field

from tensorgate.gateway.core.clock import Clock
from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.source import ServableData, Target
from tensorgate.gateway.sources.version_files import Fingerprint, is_settled, look_at

logger = logging.getLogger("tensorgate.source")


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
    """A model: ``base_path`` holds a folder for each version, named by its number."""

    name: str
    base_path: str
    version_policy: VersionPolicy = field(default_factory=LatestVersions)


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


def look_for_versions(servable: ServableToMonitor) -> Found:
    """Reads the base path; blocks on the file system."""
    try:
        children = os.listdir(servable.base_path)
    except OSError as error:
        return Found((), f"{error.strerror}: {servable.base_path}")
    found = []
    for version, child in aspired_children(children, servable.version_policy):
        path = os.path.join(servable.base_path, child)
        found.append((ServableData(ServableId(servable.name, version), path), look_at(path)))
    return Found(tuple(found))


class FileSystemStoragePathSource:
    """Looks every ``poll_wait_s`` seconds; 0 means once, negative never. Each look tells the target of every model.

    While the files of a newly found version are not settled, the versions aspired before stay aspired and the next look
    decides. With a single look there is no next one, so what is there then counts.
    """

    def __init__(
        self, servables: Sequence[ServableToMonitor], poll_wait_s: float, target: Target, clock: Clock
    ) -> None:
        self._servables = tuple(servables)
        self._poll_wait_s = poll_wait_s
        self._target = target
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        # What the last look saw, and what was said of it: a trouble is logged when it changes, not at each look.
        self._fingerprints: dict[str, Fingerprint] = {}
        self._aspired: dict[str, tuple[ServableData, ...]] = {}
        self._troubles: dict[str, str] = {}

    async def start(self) -> None:
        """Begins to look; returns at once."""
        if self._poll_wait_s >= 0:
            self._task = asyncio.get_running_loop().create_task(self._poll(), name="file-system source")

    async def stop(self) -> None:
        """Ends the looking; the target hears nothing more. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _poll(self) -> None:
        while True:
            await self.poll_once()
            if self._poll_wait_s == 0:
                return
            await asyncio.sleep(self._poll_wait_s)

    async def poll_once(self) -> None:
        """One look at every model; the models are looked at side by side, so that a slow disk delays its own only."""
        await asyncio.gather(*(self._poll_servable(servable) for servable in self._servables))

    async def _poll_servable(self, servable: ServableToMonitor) -> None:
        self._take(servable, await asyncio.to_thread(look_for_versions, servable))

    def _take(self, servable: ServableToMonitor, found: Found) -> None:
        if found.error is not None:
            self._complain(
                servable.name,
                f"Could not find base path {servable.base_path} for servable {servable.name} with error {found.error};"
                " what is loaded stays",
            )
            return
        if not found.versions:
            self._complain(
                servable.name,
                f"No versions of servable {servable.name} found under base path {servable.base_path}."
                " Does it hold a folder named by a number?",
            )
        waiting = [data.path for data, fingerprint in found.versions if not self._may_serve(data, fingerprint)]
        if waiting:
            self._complain(servable.name, f"waiting for the files of {', '.join(waiting)} to be complete")
            return
        if found.versions:
            self._troubles.pop(servable.name, None)
        aspired = tuple(data for data, _ in found.versions)
        self._aspired[servable.name] = aspired
        self._target.set_aspired_versions(servable.name, aspired)

    def _may_serve(self, data: ServableData, fingerprint: Fingerprint) -> bool:
        last = self._fingerprints.get(data.path)
        self._fingerprints[data.path] = fingerprint
        if data in self._aspired.get(data.id.name, ()) or self._poll_wait_s == 0:
            return True
        return is_settled(fingerprint, last, self._clock.time_us())

    def _complain(self, name: str, trouble: str) -> None:
        if self._troubles.get(name) != trouble:
            self._troubles[name] = trouble
            logger.warning("%s", trouble)
