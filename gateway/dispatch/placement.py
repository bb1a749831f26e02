"""Decides which workers host a servable, and tells loaders when one of their workers has gone.

Between the control line and the workers: supervisors report workers up and down, loaders ask for one for each of their
copies, and the worker pool says which may be asked. Owned by the edge loop's thread.
"""

import asyncio
import weakref
from collections.abc import Callable, Mapping
from typing import Protocol

from tensorgate.gateway.core.loader import Loader, LoaderFactory
from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.source import ServableData
from tensorgate.gateway.dispatch.worker_client import LoadOptions, WorkerClient
from tensorgate.gateway.dispatch.worker_loader import LoaderState, WorkerLoader
from tensorgate.gateway.dispatch.worker_pool import Home
from tensorgate.protos.control_messages import TENSORFLOW_PLATFORM
from tensorgate.protos.status_codes import Code, ServingError

NO_WORKER_TEXT = "No worker is up; the log says why."


class Homes(Protocol):
    """The worker pool, as placement sees it."""

    @property
    def wants_workers(self) -> bool:
        """Whether any worker should be up."""
        ...

    async def open(self, servable_id: ServableId) -> Home:
        """Where a version may be loaded. Raises ServingError."""
        ...

    async def close(self, servable_id: ServableId) -> None:
        """The version has left its home. Idempotent."""


class Placement:
    """The Host of all loaders: of the live workers in a version's home, the one with the fewest servables comes first.

    ``add_worker`` and ``remove_worker`` are meant for WorkerPool.subscribe.
    """

    def __init__(
        self,
        homes: Homes,
        on_given_up: Callable[[ServableId, ServingError], None] | None = None,
        wait_for_worker_s: float = 60.0,
    ) -> None:
        """``on_given_up`` hears of a loaded version that has lost its workers for good, and why.

        ``wait_for_worker_s``: how long a load waits for a worker to come up before it fails.
        """
        self._homes = homes
        self._on_given_up = on_given_up
        self._wait_for_worker_s = wait_for_worker_s
        # Both keep the order in which things came: workers that are equally busy are taken in that order.
        self._loaders: dict[WorkerClient, dict[WorkerLoader, None]] = {}
        self._made: weakref.WeakSet[WorkerLoader] = weakref.WeakSet()
        self._leaving: set[WorkerClient] = set()
        self._worker_came = asyncio.Event()
        self._suspects = asyncio.Lock()
        self._last_handle = 0
        self._closed = False
        self._trouble = NO_WORKER_TEXT

    @property
    def trouble(self) -> str:
        """Why some version that should be served is not, for a readiness check; empty where all is well.

        From any thread. While the first versions load there is no trouble: nothing was being served yet. Nor is there
        while a version has a copy left that serves.
        """
        return self._trouble if self._homes.wants_workers else ""

    def loader_factory(
        self,
        options: LoadOptions,
        platforms: Mapping[str, str] | None = None,
        own_options: Callable[[str, LoadOptions], LoadOptions] | None = None,
    ) -> LoaderFactory:
        """Makes loaders that place their version here, all with the same options but for what ``own_options`` changes.

        ``platforms``: of models, by name, read when a loader is made; a model that is not in it is TensorFlow's.
        ``own_options``: a model's name and the common options to the model's own.
        """
        platform_of = {} if platforms is None else platforms

        def make_loader(data: ServableData) -> Loader:
            chosen = options if own_options is None else own_options(data.id.name, options)
            loader = WorkerLoader(data, self, platform_of.get(data.id.name, TENSORFLOW_PLATFORM), chosen)
            self._made.add(loader)
            return loader

        return make_loader

    def num_servables(self, worker: WorkerClient) -> int:
        """Versions that are loaded, or being loaded, on a worker."""
        return len(self._loaders.get(worker, {}))

    # --- for the supervisors ------------------------------------------------------------------------------------------

    def add_worker(self, worker: WorkerClient) -> None:
        """A worker is up."""
        self._loaders[worker] = {}
        self._worker_came.set()
        self._worker_came = asyncio.Event()
        if not self._closed:
            for loader in list(self._made):
                loader.fit_home()
        self._look_for_trouble()

    def remove_worker(self, worker: WorkerClient, cause: ServingError) -> None:
        """A worker is down: its loaders lose it. Does nothing for a worker that is not known."""
        self._leaving.discard(worker)
        for loader in self._loaders.pop(worker, {}):
            if not self._closed:
                loader.worker_lost(worker, cause)
        self._look_for_trouble()

    async def take_leave(self, worker: WorkerClient, cause: ServingError) -> None:
        """A worker is to end: returns when no request is sent to it any more, which is when others have its versions,
        if there are others. RemoteSupervisor's on_leaving."""
        self._leaving.add(worker)
        await asyncio.gather(*(loader.leave(worker) for loader in self._loaders.get(worker, {})))
        self.remove_worker(worker, cause)

    def _look_for_trouble(self) -> None:
        lost = sorted(str(loader.servable_id) for loader in self._made if loader.state is LoaderState.LOST)
        if not self._loaders:
            self._trouble = NO_WORKER_TEXT
        elif lost:
            self._trouble = f"Being loaded again after the end of a worker: {', '.join(lost)}."
        else:
            self._trouble = ""

    # --- for loaders (Host) -------------------------------------------------------------------------------------------

    @property
    def suspects(self) -> asyncio.Lock:
        """Host.suspects."""
        return self._suspects

    async def open(self, servable_id: ServableId) -> Home:
        """Host.open."""
        return await self._homes.open(servable_id)

    async def close_home(self, servable_id: ServableId) -> None:
        """Host.close_home."""
        self._look_for_trouble()
        await self._homes.close(servable_id)

    async def take(self, loader: WorkerLoader, home: Home) -> WorkerClient:
        """Host.take."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._wait_for_worker_s
        while True:
            free = self._free(loader, home)
            if free:
                worker = min(free, key=self.num_servables)
                self._loaders[worker][loader] = None
                return worker
            try:
                await asyncio.wait_for(self._worker_came.wait(), deadline_s - loop.time())
            except asyncio.TimeoutError as error:
                raise ServingError(
                    Code.UNAVAILABLE,
                    f"no worker came up within {self._wait_for_worker_s:g} s; its log says why",
                ) from error

    def num_free(self, loader: WorkerLoader, home: Home) -> int:
        """Host.num_free."""
        return len(self._free(loader, home))

    async def wait_for_free(self, loader: WorkerLoader, home: Home) -> None:
        """Host.wait_for_free."""
        while not self._free(loader, home):
            await self._worker_came.wait()

    def _free(self, loader: WorkerLoader, home: Home) -> list[WorkerClient]:
        return [
            worker
            for worker, loaders in self._loaders.items()
            if worker.name in home.workers and loader not in loaders and worker not in self._leaving
        ]

    def next_handle(self) -> int:
        """Host.next_handle."""
        self._last_handle += 1
        return self._last_handle

    def detach(self, loader: WorkerLoader, worker: WorkerClient) -> None:
        """Host.detach."""
        self._loaders.get(worker, {}).pop(loader, None)
        self._look_for_trouble()

    def restored(self, _loader: WorkerLoader) -> None:
        """Host.restored."""
        self._look_for_trouble()

    def given_up(self, loader: WorkerLoader, cause: ServingError) -> None:
        """Host.given_up."""
        if self._on_given_up is not None and not self._closed:
            self._on_given_up(loader.servable_id, cause)

    async def close(self) -> None:
        """Ends every attempt to load a version again, for the end of the gateway: before the pool stops."""
        self._closed = True
        for loader in list(self._made):
            await loader.close()
