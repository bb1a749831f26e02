"""Decides which worker hosts a servable, and tells loaders when their worker has gone.

Between the control line and the workers: the supervisor reports workers up and down, loaders ask for one. Owned by the
edge loop's thread.
"""

import asyncio
import dataclasses
import weakref
from collections.abc import Callable, Mapping

from tensorgate.gateway.core.loader import Loader, LoaderFactory
from tensorgate.gateway.core.source import ServableData
from tensorgate.gateway.dispatch.worker_client import LoadOptions, WorkerClient
from tensorgate.gateway.dispatch.worker_loader import LoaderState, WorkerLoader
from tensorgate.protos.control_messages import TENSORFLOW_PLATFORM
from tensorgate.protos.status_codes import Code, ServingError

NO_WORKER_TEXT = "No worker is up; the log says why."


class Placement:
    """The Host of all loaders: the live worker with the fewest servables takes the next one.

    ``add_worker`` and ``remove_worker`` are meant for Supervisor.subscribe.
    """

    def __init__(self, wait_for_worker_s: float = 60.0) -> None:
        """``wait_for_worker_s``: how long a load waits for a worker to come up before it fails."""
        self._wait_for_worker_s = wait_for_worker_s
        # Both keep the order in which things came: workers that are equally busy are taken in that order.
        self._loaders: dict[WorkerClient, dict[WorkerLoader, None]] = {}
        self._worker_of: dict[WorkerLoader, WorkerClient] = {}
        self._made: weakref.WeakSet[WorkerLoader] = weakref.WeakSet()
        self._has_worker = asyncio.Event()
        self._last_handle = 0
        self._closed = False
        self._trouble = NO_WORKER_TEXT

    @property
    def trouble(self) -> str:
        """Why some version that should be served is not, for a readiness check; empty where all is well.

        From any thread. While the first versions load there is no trouble: nothing was being served yet.
        """
        return self._trouble

    def loader_factory(
        self,
        options: LoadOptions,
        platforms: Mapping[str, str] | None = None,
        settings_of: Callable[[str], bytes] = lambda _name: b"",
    ) -> LoaderFactory:
        """Makes loaders that place their version here, all with the same options.

        ``platforms``: of models, by name, read when a loader is made; a model that is not in it is TensorFlow's.
        ``settings_of``: a model's own settings, by name, serialized.
        """
        platform_of = {} if platforms is None else platforms

        def make_loader(data: ServableData) -> Loader:
            own_options = dataclasses.replace(options, model_settings=settings_of(data.id.name))
            loader = WorkerLoader(data, self, platform_of.get(data.id.name, TENSORFLOW_PLATFORM), own_options)
            self._made.add(loader)
            return loader

        return make_loader

    def num_servables(self, worker: WorkerClient) -> int:
        """Versions that are loaded, or being loaded, on a worker."""
        return len(self._loaders.get(worker, {}))

    # --- for the supervisor -------------------------------------------------------------------------------------------

    def add_worker(self, worker: WorkerClient) -> None:
        """A worker is up."""
        self._loaders[worker] = {}
        self._has_worker.set()
        self._look_for_trouble()

    def remove_worker(self, worker: WorkerClient, _cause: ServingError) -> None:
        """A worker is down: its loaders lose it. Does nothing for a worker that is not known."""
        lost = self._loaders.pop(worker, {})
        if not self._loaders:
            self._has_worker.clear()
        for loader in lost:
            self._worker_of.pop(loader, None)
            if not self._closed:
                loader.worker_lost()
        self._look_for_trouble()

    def _look_for_trouble(self) -> None:
        lost = sorted(str(loader.servable_id) for loader in self._made if loader.state is LoaderState.LOST)
        if not self._loaders:
            self._trouble = NO_WORKER_TEXT
        elif lost:
            self._trouble = f"Being loaded again after the end of a worker: {', '.join(lost)}."
        else:
            self._trouble = ""

    # --- for loaders (Host) -------------------------------------------------------------------------------------------

    async def choose(self) -> WorkerClient:
        """Host.choose."""
        try:
            await asyncio.wait_for(self._has_worker.wait(), self._wait_for_worker_s)
        except asyncio.TimeoutError as error:
            raise ServingError(
                Code.UNAVAILABLE,
                f"no worker came up within {self._wait_for_worker_s:g} s; its log says why",
            ) from error
        if not self._loaders:
            raise ServingError(Code.UNAVAILABLE, "the worker went down again as it came up")
        return min(self._loaders, key=self.num_servables)

    def next_handle(self) -> int:
        """Host.next_handle."""
        self._last_handle += 1
        return self._last_handle

    def attach(self, loader: WorkerLoader, worker: WorkerClient) -> None:
        """Host.attach."""
        self._loaders[worker][loader] = None
        self._worker_of[loader] = worker

    def detach(self, loader: WorkerLoader) -> None:
        """Host.detach."""
        worker = self._worker_of.pop(loader, None)
        if worker is not None and worker in self._loaders:
            self._loaders[worker].pop(loader, None)
        self._look_for_trouble()

    def restored(self, _loader: WorkerLoader) -> None:
        """Host.restored."""
        self._look_for_trouble()

    async def close(self) -> None:
        """Ends every attempt to load a version again, for the end of the gateway: before the supervisors stop."""
        self._closed = True
        for loader in list(self._made):
            await loader.close()
