"""The loader of one version onto its workers, and its return to a worker after the old one has died.

On a version's line: manager → loader harness → WorkerLoader ‖ the workers' ``load``. Owned by the edge loop's thread.
Everything TensorFlow does happens in the workers; what stays here are handles and the signatures.

Source: of the contract, tensorflow_serving/core/loader.h; upstream has no process between the two.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Protocol

from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.source import ServableData
from tensorgate.gateway.dispatch.worker import Replica
from tensorgate.gateway.dispatch.worker_client import LoadOptions, WorkerClient
from tensorgate.gateway.dispatch.worker_pool import Home
from tensorgate.protos.control_messages import HASHMAP_PLATFORM, WRONG_SERVABLE_TYPE
from tensorgate.protos.status_codes import Code, ServingError

logger = logging.getLogger("tensorgate.worker_loader")

# Loading again after a worker's death: attempts wait longer and longer, so that a version that cannot be loaded any
# more does not keep its worker busy with trying.
MIN_RETRY_S = 1.0
MAX_RETRY_S = 60.0

# A copy whose loading has ended its worker this often in a row is not tried any more: others live there too.
MAX_LOAD_CRASHES = 3


class Host(Protocol):
    """Placement, as a loader sees it."""

    @property
    def suspects(self) -> asyncio.Lock:
        """Held while something is loaded that was being loaded when a worker died: one at a time, so that the next
        death tells who was at fault."""
        ...

    async def open(self, servable_id: ServableId) -> Home:
        """Where the version may be loaded; raises ServingError."""
        ...

    async def close_home(self, servable_id: ServableId) -> None:
        """The version has left its home; returns when workers that were its own have ended. Idempotent."""

    async def take(self, loader: "WorkerLoader", home: Home) -> WorkerClient:
        """A live worker of the home that has no copy of this version, waited for if there is none.

        The loader hears of its end by ``worker_lost``, until it says ``detach``. Raises ServingError UNAVAILABLE.
        """
        ...

    def num_free(self, loader: "WorkerLoader", home: Home) -> int:
        """How many live workers of the home have no copy of this version."""
        ...

    async def wait_for_free(self, loader: "WorkerLoader", home: Home) -> None:
        """Returns when there is one."""

    def next_handle(self) -> int:
        """A servable handle that was never used before."""
        ...

    def detach(self, loader: "WorkerLoader", worker: WorkerClient) -> None:
        """The loader uses that worker no longer. Idempotent."""

    def restored(self, loader: "WorkerLoader") -> None:
        """A copy of the loader's version is loaded again after its worker's death."""

    def given_up(self, loader: "WorkerLoader", cause: ServingError) -> None:
        """A loaded version has no copy left and will not get one again; the loader waits to be unloaded."""


class LoaderState(Enum):
    """NEW → LOADED ⇄ LOST → UNLOADED."""

    NEW = "new"
    LOADED = "loaded"
    LOST = "lost"  # none of its workers is left; being loaded again
    UNLOADED = "unloaded"


class _Copy:
    """One copy of the version: the worker that has it or is loading it, and the attempts to get it there."""

    __slots__ = ("is_leaving", "is_loading", "last_crash", "num_crashes", "replica", "restoring", "worker")

    def __init__(self) -> None:
        self.worker: WorkerClient | None = None
        self.replica: Replica | None = None  # once it is loaded
        self.is_loading = False
        self.is_leaving = False  # another copy has been made for it
        self.restoring: asyncio.Task[None] | None = None
        self.num_crashes = 0
        self.last_crash = ""


class WorkerLoader:
    """A core Loader; also the Hosting of its version in the route table.

    A version whose worker dies stays published and is loaded again by itself; meanwhile its other copies serve, and
    where there is none requests for it fail with UNAVAILABLE.
    """

    def __init__(self, data: ServableData, host: Host, platform: str, options: LoadOptions) -> None:
        self._data = data
        self._platform = platform
        self._host = host
        self._options = options
        self._state = LoaderState.NEW
        self._signature_def_map = b""
        self._home: Home | None = None
        self._copies: list[_Copy] = []
        self._replicas: tuple[Replica, ...] = ()
        self._on_replicas_changed: Callable[[], None] | None = None

    @property
    def servable_id(self) -> ServableId:
        return self._data.id

    @property
    def state(self) -> LoaderState:
        if self._state is LoaderState.LOADED and not self._replicas:
            return LoaderState.LOST
        return self._state

    @property
    def signature_def_map(self) -> bytes:
        """Hosting: as the first load answered it; a version's files do not change while it is loaded."""
        if self._platform == HASHMAP_PLATFORM:
            raise ServingError(Code.INVALID_ARGUMENT, WRONG_SERVABLE_TYPE)
        return self._signature_def_map

    @property
    def replicas(self) -> Sequence[Replica]:
        """Hosting: the copies that are loaded."""
        return self._replicas

    def watch_replicas(self, on_change: Callable[[], None] | None) -> None:
        """Hosting."""
        self._on_replicas_changed = on_change

    async def load(self) -> None:
        """Loader.load: has workers load all copies of the version, as far as the home wants, for as long as that takes.

        Raises ServingError: the first worker's that failed, or UNAVAILABLE when no worker is up or one dies. Cancelling
        it leaves workers loading what nobody will unload: for the end of the gateway only.
        """
        for copy in self._copies:
            if copy.num_crashes >= MAX_LOAD_CRASHES:
                raise self._crash_error(copy)
        home = self._home = await self._host.open(self._data.id)
        # The copies of an attempt that failed remember what it did to their workers.
        self._copies += [_Copy() for _ in range(home.num_replicas - len(self._copies))]
        # Where workers may be away, the copies that are for them come later.
        num_now = max(1, self._host.num_free(self, home)) if home.may_lack else len(self._copies)
        loads = (self._load_copy(copy, home) for copy in self._copies[:num_now])
        outcomes = await asyncio.gather(*loads, return_exceptions=True)
        failures = [each for each in outcomes if isinstance(each, BaseException)]
        if home.may_lack and self._replicas:  # a worker that went away meanwhile is one that is away
            failures = [each for each in failures if not _is_unavailable(each)]
        failure = failures[0] if failures else None
        if failure is None and not self._replicas:
            failure = ServingError(Code.UNAVAILABLE, f"every worker died just after it had loaded {self._data.id}")
        if failure is not None:
            await self._leave_home()
            raise failure
        self._state = LoaderState.LOADED
        for copy in self._copies:
            if copy.replica is None:  # its worker is away, or died while the others were loading
                self._begin_restoring(copy)
        self.fit_home()

    def fit_home(self) -> None:
        """Has the copies made that the home has come to want since the load: a worker has joined it.

        Copies whose worker has left it for good wait for the next one.
        """
        if self._state is not LoaderState.LOADED or self._home is None:
            return
        for _ in range(self._home.num_replicas - len(self._copies)):
            self._begin_copy()

    async def unload(self) -> None:
        """Loader.unload: returns when the workers have freed the version, or have ended. Raises ServingError."""
        self._state = LoaderState.UNLOADED
        await self._leave_home()
        self._copies.clear()

    async def _leave_home(self) -> None:
        errors = await asyncio.gather(*map(self._unload_copy, self._copies))
        await self._host.close_home(self._data.id)
        if self._state is LoaderState.UNLOADED:
            for error in filter(None, errors):
                raise error

    async def _unload_copy(self, copy: _Copy) -> ServingError | None:
        """Frees a copy, whatever state it is in; its worker's error."""
        ends_with_version = self._home is not None and self._home.ends_with_version
        if copy.restoring is not None:
            # A worker cannot stop loading; what it has then loaded is unloaded below.
            if ends_with_version or not copy.is_loading:
                copy.restoring.cancel()
            await asyncio.wait({copy.restoring})
            copy.restoring = None
        worker, replica = copy.worker, copy.replica
        self._forget_worker(copy)
        if worker is None or replica is None or ends_with_version:
            return None
        try:
            await worker.unload(replica.servable_handle)
        except ServingError as error:
            # Whatever a dead worker had loaded is gone.
            return None if worker.is_closed else error
        return None

    def worker_lost(self, worker: WorkerClient, cause: ServingError) -> None:
        """Placement: a worker in use has died. A load under way fails by itself; a copy that was loaded is restored."""
        for copy in list(self._copies):
            if copy.worker is not worker:
                continue
            if copy.is_loading:
                copy.num_crashes += 1
                copy.last_crash = cause.message
            was_loaded = copy.replica is not None
            self._forget_worker(copy)
            if copy.is_leaving:
                self._copies.remove(copy)
            elif was_loaded and self._state is LoaderState.LOADED:
                self._begin_restoring(copy)

    async def leave(self, worker: WorkerClient) -> None:
        """Placement: a worker in use is to end. A version whose only copy is there is loaded elsewhere first.

        Returns when that is done, or where there is no worker for it.
        """
        home = self._home
        if home is None or [replica.worker for replica in self._replicas] != [worker]:
            return
        coming = [copy.restoring for copy in self._copies if copy.is_loading and copy.restoring is not None]
        if self._state is LoaderState.LOADED and self._host.num_free(self, home):
            for copy in self._copies:
                copy.is_leaving = copy.worker is worker
            coming.append(self._begin_copy())
        if coming:
            await asyncio.wait(coming, return_when=asyncio.FIRST_COMPLETED)

    async def close(self) -> None:
        """Gives up restoring, for the end of the gateway. Idempotent."""
        restoring = [copy.restoring for copy in self._copies if copy.restoring is not None]
        for task in restoring:
            task.cancel()
        if restoring:
            await asyncio.wait(restoring)

    def _forget_worker(self, copy: _Copy) -> None:
        if copy.worker is not None:
            self._host.detach(self, copy.worker)
        copy.worker = copy.replica = None
        self._tell_replicas()

    def _tell_replicas(self) -> None:
        replicas = tuple(copy.replica for copy in self._copies if copy.replica is not None)
        if replicas != self._replicas:
            self._replicas = replicas
            if self._on_replicas_changed is not None:
                self._on_replicas_changed()

    async def _load_copy(self, copy: _Copy, home: Home) -> None:
        async with self._host.suspects if copy.num_crashes else contextlib.nullcontext():
            await self._load_on(await self._host.take(self, home), copy)

    async def _load_on(self, worker: WorkerClient, copy: _Copy) -> None:
        handle = self._host.next_handle()
        copy.worker = worker
        copy.is_loading = True
        data = self._data
        try:
            loaded = await worker.load(handle, data.id.name, data.id.version, data.path, self._platform, self._options)
        except BaseException:
            if copy.worker is worker:
                self._forget_worker(copy)
            raise
        finally:
            copy.is_loading = False
        if copy.worker is not worker:  # it answered and died in the same turn of the loop
            raise ServingError(Code.UNAVAILABLE, f"{worker.name} died just after it had loaded {data.id}")
        copy.num_crashes = 0
        copy.replica = Replica(worker, handle)
        self._signature_def_map = loaded.signature_def_map
        self._tell_replicas()
        logger.info("%s loaded %s in %.3f s", worker.name, data.id, loaded.load_us / 1e6)

    # --- after a worker's death ---------------------------------------------------------------------------------------

    def _begin_copy(self) -> "asyncio.Task[None]":
        """One copy more."""
        self._copies.append(_Copy())
        return self._begin_restoring(self._copies[-1])

    def _begin_restoring(self, copy: _Copy) -> "asyncio.Task[None]":
        copy.restoring = asyncio.get_running_loop().create_task(self._restore(copy), name=f"restore {self.servable_id}")
        return copy.restoring

    async def _restore(self, copy: _Copy) -> None:
        home = self._home
        if home is None:
            raise RuntimeError("a version that was never loaded is to be loaded again")
        retry_s = MIN_RETRY_S
        while self._state is LoaderState.LOADED:
            # As long as that takes: a worker that comes is not to wait for the next try.
            await self._host.wait_for_free(self, home)
            try:
                await self._load_copy(copy, home)
            except ServingError as error:
                if self._state is not LoaderState.LOADED:  # unloaded meanwhile
                    return
                if copy.num_crashes >= MAX_LOAD_CRASHES:
                    self._give_up(copy)
                    return
                logger.error("%s could not be loaded again: %s; next try in %g s", self._data.id, error, retry_s)
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, MAX_RETRY_S)
            else:
                copy.restoring = None
                if self._state is LoaderState.LOADED:
                    self._host.restored(self)
                return

    def _give_up(self, copy: _Copy) -> None:
        error = self._crash_error(copy)
        logger.error("%s", error.message)
        copy.restoring = None
        # As long as another copy serves, or may come back, the version lives on.
        if not self._replicas and all(each.restoring is None for each in self._copies):
            self._host.given_up(self, error)

    def _crash_error(self, copy: _Copy) -> ServingError:
        return ServingError(
            Code.INTERNAL,
            f"loading {self._data.id} has ended its worker {copy.num_crashes} times in a row and is not tried again;"
            f" the last time {copy.last_crash}",
        )


def _is_unavailable(error: BaseException) -> bool:
    return isinstance(error, ServingError) and error.code is Code.UNAVAILABLE
