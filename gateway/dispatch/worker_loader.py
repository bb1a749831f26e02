"""The loader of one version onto a worker, and its return to a worker after the old one has died.

On a version's line: manager → loader harness → WorkerLoader ‖ the worker's ``load``. Owned by the edge loop's thread.
Everything TensorFlow does happens in the worker; what stays here is the handle and the signatures.

Source: of the contract, tensorflow_serving/core/loader.h; upstream has no process between the two.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Protocol

from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.source import ServableData
from tensorgate.gateway.dispatch.worker import Replica
from tensorgate.gateway.dispatch.worker_client import LoadOptions, WorkerClient
from tensorgate.protos.control_messages import HASHMAP_PLATFORM, WRONG_SERVABLE_TYPE
from tensorgate.protos.status_codes import Code, ServingError

logger = logging.getLogger("tensorgate.worker_loader")

# Loading again after a worker's death: attempts wait longer and longer, so that a version whose loading kills its
# worker leaves the others some time to serve.
MIN_RETRY_S = 1.0
MAX_RETRY_S = 60.0


class Host(Protocol):
    """Placement, as a loader sees it."""

    async def choose(self) -> WorkerClient:
        """A live worker for one more servable, waited for if there is none; raises ServingError UNAVAILABLE."""
        ...

    def next_handle(self) -> int:
        """A servable handle that was never used before."""
        ...

    def attach(self, loader: "WorkerLoader", worker: WorkerClient) -> None:
        """The loader has begun to use the worker and wants to hear of its end by ``worker_lost``."""

    def detach(self, loader: "WorkerLoader") -> None:
        """The loader uses no worker any more. Idempotent."""

    def restored(self, loader: "WorkerLoader") -> None:
        """The loader's version is loaded again after its worker's death."""


class LoaderState(Enum):
    """NEW → LOADED ⇄ LOST → UNLOADED."""

    NEW = "new"
    LOADED = "loaded"
    LOST = "lost"  # its worker died; being loaded again
    UNLOADED = "unloaded"


class WorkerLoader:
    """A core Loader; also the Hosting of its version in the route table.

    A version whose worker dies stays published and is loaded again by itself; meanwhile it has no replica, and requests
    for it fail with UNAVAILABLE.
    """

    def __init__(self, data: ServableData, host: Host, platform: str, options: LoadOptions) -> None:
        self._data = data
        self._platform = platform
        self._host = host
        self._options = options
        self._state = LoaderState.NEW
        self._signature_def_map = b""
        self._worker: WorkerClient | None = None
        self._replicas: tuple[Replica, ...] = ()
        self._on_replicas_changed: Callable[[], None] | None = None
        self._restoring: asyncio.Task[None] | None = None
        self._is_loading = False

    @property
    def servable_id(self) -> ServableId:
        return self._data.id

    @property
    def state(self) -> LoaderState:
        return self._state

    @property
    def signature_def_map(self) -> bytes:
        """Hosting: as the first load answered it; a version's files do not change while it is loaded."""
        if self._platform == HASHMAP_PLATFORM:
            raise ServingError(Code.INVALID_ARGUMENT, WRONG_SERVABLE_TYPE)
        return self._signature_def_map

    @property
    def replicas(self) -> Sequence[Replica]:
        """Hosting: one copy, or none while its worker is down."""
        return self._replicas

    def watch_replicas(self, on_change: Callable[[], None] | None) -> None:
        """Hosting."""
        self._on_replicas_changed = on_change

    async def load(self) -> None:
        """Loader.load: has a worker load the version, for as long as that takes.

        Raises ServingError: the worker's, or UNAVAILABLE when no worker is up or the worker dies. Cancelling it leaves
        the worker loading what nobody will unload: for the end of the gateway only.
        """
        self._signature_def_map = await self._load_once()
        self._state = LoaderState.LOADED

    async def unload(self) -> None:
        """Loader.unload: returns when the worker has freed the version, or has died. Raises ServingError."""
        self._state = LoaderState.UNLOADED
        if self._restoring is not None:
            # A worker cannot stop loading; what it has then loaded is unloaded below.
            if not self._is_loading:
                self._restoring.cancel()
            await asyncio.wait({self._restoring})
            self._restoring = None
        worker, replicas = self._worker, self._replicas
        self._forget_worker()
        if worker is None or not replicas:
            return
        try:
            await worker.unload(replicas[0].servable_handle)
        except ServingError:
            # Whatever a dead worker had loaded is gone.
            if not worker.is_closed:
                raise

    def worker_lost(self) -> None:
        """Placement: the worker in use has died. A load under way fails by itself; a loaded version is restored."""
        self._forget_worker()
        if self._state is LoaderState.LOADED:
            self._state = LoaderState.LOST
            self._restoring = asyncio.get_running_loop().create_task(
                self._restore(), name=f"restore {self.servable_id}"
            )

    async def close(self) -> None:
        """Gives up restoring, for the end of the gateway. Idempotent."""
        if self._restoring is not None:
            self._restoring.cancel()
            await asyncio.wait({self._restoring})
            self._restoring = None

    def _forget_worker(self) -> None:
        self._host.detach(self)
        self._worker = None
        self._set_replicas(())

    def _set_replicas(self, replicas: tuple[Replica, ...]) -> None:
        if replicas != self._replicas:
            self._replicas = replicas
            if self._on_replicas_changed is not None:
                self._on_replicas_changed()

    async def _load_once(self) -> bytes:
        worker = await self._host.choose()
        handle = self._host.next_handle()
        self._host.attach(self, worker)
        self._worker = worker
        self._is_loading = True
        try:
            loaded = await worker.load(
                handle, self._data.id.name, self._data.id.version, self._data.path, self._platform, self._options
            )
        except BaseException:
            if self._worker is worker:
                self._forget_worker()
            raise
        finally:
            self._is_loading = False
        if self._worker is not worker:  # it answered and died in the same turn of the loop
            raise ServingError(Code.UNAVAILABLE, f"{worker.name} died just after it had loaded {self._data.id}")
        self._set_replicas((Replica(worker, handle),))
        logger.info("%s loaded %s in %.3f s", worker.name, self._data.id, loaded.load_us / 1e6)
        return loaded.signature_def_map

    async def _restore(self) -> None:
        retry_s = MIN_RETRY_S
        while self._state is LoaderState.LOST:
            try:
                await self._load_once()
            except ServingError as error:
                if self._state is not LoaderState.LOST:  # unloaded meanwhile
                    return
                logger.error("%s could not be loaded again: %s; next try in %g s", self._data.id, error, retry_s)
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, MAX_RETRY_S)
            else:
                if self._state is LoaderState.LOST:
                    self._state = LoaderState.LOADED
                    self._restoring = None
                    self._host.restored(self)
                return
