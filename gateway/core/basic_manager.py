"""Carries out what the AspiredVersionsManager decides: loads and unloads as tasks of the edge loop.

On a version's line: AspiredVersionsManager → BasicManager → Loader, Publisher. Owned by the edge loop's thread.

Source: tensorflow_serving/core/basic_manager.h (what happens in which order), retrier.h.
"""

import asyncio
import logging
from collections.abc import Coroutine, Sequence

from tensorgate.gateway.core.aspired_versions_manager import AspiredVersionsManager, Load, Unload
from tensorgate.gateway.core.clock import Clock
from tensorgate.gateway.core.loader import Loader, LoaderFactory, Publisher
from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.source import ServableData
from tensorgate.protos.status_codes import Code, ServingError

logger = logging.getLogger("tensorgate.manager")


class BasicManager:
    """A Target that acts: every wish and every outcome leads to the next actions at once.

    ``load_retry_interval_s`` passes between attempts. ``stop`` ends the tasks; what is loaded stays loaded, since the
    workers end next.
    """

    def __init__(
        self,
        versions: AspiredVersionsManager,
        loader_factory: LoaderFactory,
        publisher: Publisher,
        clock: Clock,
        *,
        load_retry_interval_s: float = 60.0,
    ) -> None:
        self._versions = versions
        self._loader_factory = loader_factory
        self._publisher = publisher
        self._clock = clock
        self._load_retry_interval_s = load_retry_interval_s
        self._loaders: dict[ServableId, Loader] = {}
        self._retries: dict[ServableId, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_stopped = False

    def set_aspired_versions(self, name: str, versions: Sequence[ServableData]) -> None:
        """Target.set_aspired_versions."""
        self._versions.set_aspired_versions(name, versions)
        self._act()

    def set_max_parallel_loads(self, number: int) -> None:
        """How many loads may run at once from now on, at least 1."""
        self._versions.max_parallel_loads = max(number, 1)
        self._act()

    async def stop(self) -> None:
        """Begins nothing more and ends the tasks. Idempotent."""
        self._is_stopped = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _act(self) -> None:
        if self._is_stopped:
            return
        for action in self._versions.next_actions():
            if isinstance(action, Load):
                self._begin(self._load(action.data), f"load {action.data.id}")
            elif isinstance(action, Unload):
                self._begin(self._unload(action.id), f"unload {action.id}")
        for servable_id, retry in self._retries.items():
            if not self._versions.is_aspired(servable_id):
                retry.set()

    def _begin(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            logger.error("%s failed in the manager itself", task.get_name(), exc_info=error)
        self._act()

    async def _load(self, data: ServableData) -> None:
        began_s = self._clock.monotonic_s()
        logger.info("loading %s from %s", data.id, data.path)
        loader = self._loader_factory(data)
        while (error := await self._try_load(loader)) is not None:
            if not self._versions.load_failed(data.id, error):
                logger.error("%s could not be loaded and is given up: %s", data.id, error)
                return
            # The slot that the failed load held is free meanwhile.
            logger.error(
                "load attempt %d of %s failed: %s; next attempt in %g s",
                self._versions.num_attempts(data.id),
                data.id,
                error,
                self._load_retry_interval_s,
            )
            self._act()
            await self._wait_for_retry(data.id)
            if not self._versions.retry_load(data.id, error):
                return
        if not self._versions.load_succeeded(data.id):
            logger.info("%s is no longer wanted; unloading it again", data.id)
            self._versions.unload_finished(data.id, await self._try_unload(loader))
            return
        self._loaders[data.id] = loader
        await self._publisher.publish(data.id, loader)
        self._versions.published(data.id)
        logger.info("%s is available, %.0f ms after it was found", data.id, (self._clock.monotonic_s() - began_s) * 1e3)

    async def _try_load(self, loader: Loader) -> ServingError | None:
        try:
            await loader.load()
        except ServingError as error:
            return error
        except Exception as error:  # noqa: BLE001 - whatever a loader does wrong fails its version only
            return ServingError(Code.INTERNAL, f"{type(error).__name__}: {error}")
        return None

    async def _try_unload(self, loader: Loader) -> ServingError | None:
        try:
            await loader.unload()
        except ServingError as error:
            return error
        except Exception as error:  # noqa: BLE001
            return ServingError(Code.INTERNAL, f"{type(error).__name__}: {error}")
        return None

    async def _wait_for_retry(self, servable_id: ServableId) -> None:
        """Returns after the retry interval, or as soon as the version is no longer wanted."""
        retry = self._retries[servable_id] = asyncio.Event()
        try:
            await asyncio.wait_for(retry.wait(), self._load_retry_interval_s)
        except asyncio.TimeoutError:
            return
        finally:
            del self._retries[servable_id]

    async def _unload(self, servable_id: ServableId) -> None:
        logger.info("unloading %s once its last request has ended", servable_id)
        await self._publisher.withdraw(servable_id)
        error = await self._try_unload(self._loaders.pop(servable_id))
        self._versions.unload_finished(servable_id, error)
        if error is None:
            logger.info("%s is unloaded", servable_id)
        else:
            logger.error("unloading %s failed: %s", servable_id, error)
