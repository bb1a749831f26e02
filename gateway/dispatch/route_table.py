"""The route table: which versions a request can reach, and who is using them.

Second stage of a request's line: model_spec → route → dispatcher. It is also the end of a version's line, where the
manager publishes and withdraws. The edge loop's thread changes it; any thread resolves.

A reader sees an immutable snapshot, so it needs no lock to look up. What it then needs is that the version it found
stays loaded: a pin, counted in one number together with those of native threads. Withdrawing first replaces the
snapshot and then closes the version, so a reader that finds it closed looks into the new snapshot, where it is gone; it
cannot come round a second time for the same version. Native threads get a form of the snapshot of their own, see
_native/route_table.

Source: tensorflow_serving/core/basic_manager.cc (ServingMap), model_servers/server_core.cc
(ServableRequestFromModelSpec).
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from tensorgate._native.data_plane import DataPlane
from tensorgate._native.route_table import PublishedVersion, Routes
from tensorgate.gateway.admission import NO_LIMITS, AdmissionLimits
from tensorgate.gateway.core.model_spec import ModelSpec
from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.dispatch.worker import Replica
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap


class Hosting(Protocol):
    """Where a published version is loaded right now; its loader tells."""

    @property
    def signature_def_map(self) -> bytes:
        """A serialized tensorflow.serving.SignatureDefMap; the same for as long as the version is published.

        Raises ServingError INVALID_ARGUMENT, always, for a servable of a type that has none.
        """
        ...

    @property
    def replicas(self) -> Sequence[Replica]:
        """The loaded copies; empty while its worker is being respawned. Read on the edge loop only."""
        ...

    def watch_replicas(self, on_change: Callable[[], None] | None) -> None:
        """Has ``on_change()`` called on the edge loop whenever ``replicas`` has changed; None ends that."""


class RoutedVersion:
    """A published version and the number of pins on it. Thread-safe."""

    __slots__ = ("_signatures", "hosting", "published", "servable_id")

    def __init__(self, servable_id: ServableId, hosting: Hosting) -> None:
        self.servable_id = servable_id
        self.hosting = hosting
        try:
            self._signatures: SignatureDefMap | None = SignatureDefMap.FromString(hosting.signature_def_map)
        except ServingError:
            # It is of another type, which whoever asks for signatures is told.
            self._signatures = None
        names = () if self._signatures is None else tuple(self._signatures.signature_def)
        self.published = PublishedVersion(servable_id.name, servable_id.version, names)

    @property
    def signatures(self) -> SignatureDefMap:
        """Shared by all, not to be modified. Raises ServingError INVALID_ARGUMENT for a servable without signatures."""
        if self._signatures is None:
            return SignatureDefMap.FromString(self.hosting.signature_def_map)
        return self._signatures

    @property
    def num_pins(self) -> int:
        """Those of Python's requests and of native threads' together."""
        return self.published.num_pins

    @property
    def num_replicas(self) -> int:
        """Loaded copies on live workers; from any thread."""
        return len(self.published.replicas)

    def try_pin(self) -> bool:
        """Counts one more user; False when the version has been withdrawn."""
        return self.published.try_pin()

    def unpin(self) -> None:
        """Counts one user less; the last one of a withdrawn version wakes whoever waits for that."""
        self.published.unpin()

    def close(self) -> None:
        """No further pins."""
        self.published.close()

    async def drained(self) -> None:
        """Returns when no pin is left of a closed version."""
        if self.published.is_drained:
            return
        loop = asyncio.get_running_loop()
        drained = asyncio.Event()
        # The last pin ends on whatever thread, perhaps a native one.
        loop.add_reader(self.published.drained_fd, drained.set)
        try:
            await drained.wait()
        finally:
            loop.remove_reader(self.published.drained_fd)


class Pin:
    """One request's hold on one version: it stays loaded until the pin ends.

    Submitting the pin hands it to the dispatcher, which ends it with the worker's final reply or the worker's death.
    A pin that is never submitted must be released. Not thread-safe: it belongs to one request.
    """

    __slots__ = ("_version",)

    def __init__(self, version: RoutedVersion) -> None:
        """Takes over one count of ``try_pin``."""
        self._version: RoutedVersion | None = version

    def _held(self) -> RoutedVersion:
        if self._version is None:
            raise RuntimeError("the pin was submitted or released before")
        return self._version

    @property
    def servable_id(self) -> ServableId:
        return self._held().servable_id

    @property
    def signature_def_map(self) -> bytes:
        """The version's signatures as a serialized tensorflow.serving.SignatureDefMap."""
        return self._held().hosting.signature_def_map

    @property
    def signatures(self) -> SignatureDefMap:
        """The same, parsed once per version and shared: not to be modified."""
        return self._held().signatures

    def release(self) -> None:
        """Ends a pin that was never submitted. Raises RuntimeError if it was, or was released before."""
        self.take().unpin()

    def take(self) -> RoutedVersion:
        """For the dispatcher: the version, whose ``unpin`` the caller owes from now on."""
        version = self._held()
        self._version = None
        return version


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One state of the table; nothing in it changes after it has been made.

    ``versions``: model name to its published versions, largest first. ``labels``: model name to label to version.
    """

    versions: Mapping[str, Mapping[int, RoutedVersion]]
    labels: Mapping[str, Mapping[str, int]]


class RouteTable:
    """Name and version, label or "latest" to a pinned version; latest is the largest version that is published.

    ``publish``, ``withdraw`` and ``set_labels`` are for the edge loop's thread. ``resolve`` and ``snapshot`` are for
    any thread and never wait for anything longer than another thread's few instructions.
    """

    def __init__(self, data_plane: DataPlane | None = None) -> None:
        """``data_plane``: whose native threads have to know the routes too, if any."""
        self._snapshot = Snapshot({}, {})
        self._data_plane = data_plane
        self._log_shares: Mapping[str, float] = {}
        self._limits_of: Callable[[str], AdmissionLimits] = lambda _name: NO_LIMITS

    @property
    def snapshot(self) -> Snapshot:
        return self._snapshot

    def publish(self, servable_id: ServableId, hosting: Hosting) -> None:
        """Makes a version reachable. When this returns, every later ``resolve`` sees it.

        Raises ValueError if it is published already.
        """
        old = self._snapshot.versions.get(servable_id.name, {})
        if servable_id.version in old:
            raise ValueError(f"{servable_id} is published already")
        routed = RoutedVersion(servable_id, hosting)
        routed.published.log_requests(self._log_shares.get(servable_id.name, 0.0))
        self._tell_limits(routed)
        self._tell_replicas(routed)
        hosting.watch_replicas(partial(self._tell_replicas, routed))
        added = {**old, servable_id.version: routed}
        self._replace(servable_id.name, {version: added[version] for version in sorted(added, reverse=True)})

    async def withdraw(self, servable_id: ServableId) -> None:
        """Makes a version unreachable at once, and returns when its last pin has ended.

        Waits for as long as its requests take; they have deadlines of their own, and end with their worker. Raises
        ValueError if it is not published. If the waiting task is cancelled the version stays withdrawn.
        """
        old = self._snapshot.versions.get(servable_id.name, {})
        if servable_id.version not in old:
            raise ValueError(f"{servable_id} is not published")
        self._replace(
            servable_id.name, {version: each for version, each in old.items() if version != servable_id.version}
        )
        routed = old[servable_id.version]
        routed.close()
        try:
            await routed.drained()
        finally:
            routed.hosting.watch_replicas(None)
        if self._data_plane is not None:
            self._data_plane.forget(routed.published)

    def set_labels(self, labels: Mapping[str, Mapping[str, int]]) -> None:
        """Replaces the whole map of model name to label to version; nothing is checked here."""
        self._snapshot = Snapshot(self._snapshot.versions, {name: dict(versions) for name, versions in labels.items()})
        self._tell_routes()

    def set_log_shares(self, shares: Mapping[str, float]) -> None:
        """Model name to the share of its requests, 0 to 1, that are logged; 0 for others. Holds at once, and on."""
        self._log_shares = dict(shares)
        for name, versions in self._snapshot.versions.items():
            for version in versions.values():
                version.published.log_requests(self._log_shares.get(name, 0.0))

    def set_limits(self, limits_of: Callable[[str], AdmissionLimits]) -> None:
        """What each copy of a model's versions may have, by the model's name: of those that are published, and later
        of others as they are. Native threads share it out equally, each getting at least one request at a time."""
        self._limits_of = limits_of
        for versions in self._snapshot.versions.values():
            for version in versions.values():
                self._tell_limits(version)

    def resolve(self, model_spec: ModelSpec) -> Pin:
        """The version that ``model_spec`` asks for, pinned.

        Raises ServingError: INVALID_ARGUMENT for an empty name or an unknown label, NOT_FOUND for a version (or any
        version of that name) that is not published. Never blocks.
        """
        if not model_spec.name:
            raise ServingError(Code.INVALID_ARGUMENT, "ModelSpec has no name specified.")
        while True:
            version = self._look_up(model_spec)
            if version.try_pin():
                return Pin(version)
            # Withdrawn since the snapshot was read; the present one no longer has it.

    def _look_up(self, model_spec: ModelSpec) -> RoutedVersion:
        snapshot = self._snapshot
        name = model_spec.name
        wanted = model_spec.version
        if model_spec.version_label is not None:
            wanted = snapshot.labels.get(name, {}).get(model_spec.version_label)
            if wanted is None:
                raise ServingError(
                    Code.INVALID_ARGUMENT, f"Unrecognized servable version label: {model_spec.version_label}"
                )
        versions = snapshot.versions.get(name)
        if wanted is None:
            if versions is None:
                raise ServingError(Code.NOT_FOUND, f"Servable not found for request: Latest({name})")
            return next(iter(versions.values()))
        version = None if versions is None else versions.get(wanted)
        if version is None:
            raise ServingError(Code.NOT_FOUND, f"Servable not found for request: Specific({name}, {wanted})")
        return version

    def _replace(self, name: str, versions: Mapping[int, RoutedVersion]) -> None:
        # A name without versions leaves the table, so that "latest" of a present name always exists.
        others = {each: routes for each, routes in self._snapshot.versions.items() if each != name}
        self._snapshot = Snapshot({**others, name: versions} if versions else others, self._snapshot.labels)
        self._tell_routes()

    def _tell_routes(self) -> None:
        """Gives the snapshot to native threads; returns when all use it."""
        if self._data_plane is None:
            return
        versions, labels = self._snapshot.versions, self._snapshot.labels
        self._data_plane.publish(
            Routes(
                {
                    name: ([each.published for each in versions.get(name, {}).values()], labels.get(name, {}))
                    for name in {**versions, **labels}
                }
            )
        )

    def _tell_limits(self, routed: RoutedVersion) -> None:
        if self._data_plane is None:
            return
        limits, num_threads = self._limits_of(routed.servable_id.name), self._data_plane.num_threads
        max_queued = -1 if limits.max_queued_requests is None else limits.max_queued_requests // num_threads
        max_handed = -(-limits.max_concurrent_requests // num_threads)
        self._data_plane.set_limits(routed.published, max_handed, max_queued, limits.weight)

    def _tell_replicas(self, routed: RoutedVersion) -> None:
        if self._data_plane is not None:
            self._data_plane.set_replicas(
                routed.published,
                [(replica.worker.number, replica.servable_handle) for replica in routed.hosting.replicas],
            )
