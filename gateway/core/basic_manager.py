"""Carries out what the AspiredVersionsManager decides: loads and unloads as tasks of the edge loop.

On a version's line: AspiredVersionsManager → BasicManager → Loader, Publisher. Owned by the edge loop's thread.

Source: tensorflow_serving/core/basic_manager.h (what happens in which order), retrier.h.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence

from tensorgate.gateway.core.aspired_versions_manager import AspiredVersionsManager, Load, Retry, Unload
from tensorgate.gateway.core.clock import Clock
from tensorgate.gateway.core.loader import Loader, LoaderFactory, Publisher
from tensorgate.gateway.core.resource_tracker import ResourceTracker
from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.source import ServableData
from tensorgate.protos.status_codes import Code, ServingError

logger = logging.getLogger("tensorgate.manager")


class BasicManager:
    """A Target that acts: every wish and every outcome leads to the next actions at once.

    ``load_retry_interval_s`` passes between attempts. ``stop`` ends the tasks; what is loaded stays loaded, since the
    workers end next. Whatever a loader or publisher raises ends its version with that error, and nothing else.
    """

    def __init__(
        self,
        versions: AspiredVersionsManager,
        loader_factory: LoaderFactory,
        publisher: Publisher,
        clock: Clock,
        *,
        load_retry_interval_s: float = 60.0,
        resources: ResourceTracker | None = None,
    ) -> None:
        """``resources``: what must grant a version memory before it is loaded; None: there is always enough."""
        self._versions = versions
        self._loader_factory = loader_factory
        self._publisher = publisher
        self._clock = clock
        self._load_retry_interval_s = load_retry_interval_s
        self._resources = resources
        self._loaders: dict[ServableId, Loader] = {}
        # Versions between two attempts. The first event cuts the interval short; the second says that a load which is
        # due may ask again whether it may run.
        self._unwanted: dict[ServableId, asyncio.Event] = {}
        self._changed: dict[ServableId, asyncio.Event] = {}
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

    def give_up(self, servable_id: ServableId, error: ServingError) -> None:
        """A version that serves cannot be kept loaded: it leaves and ends with ``error``. Nothing for any other."""
        if not self._is_stopped and self._versions.give_up(servable_id, error):
            self._begin(self._unload(servable_id), f"give up {servable_id}")

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
        for servable_id, unwanted in self._unwanted.items():
            if not self._versions.is_aspired(servable_id):
                unwanted.set()
        for changed in self._changed.values():
            changed.set()

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
        resources = self._resources
        if resources is not None:
            refusal = await self._attempt(lambda: resources.reserve(data))
            if refusal is not None:
                logger.error("%s is not loaded: %s", data.id, refusal)
                self._versions.load_refused(data.id, refusal)
                return
        logger.info("loading %s from %s", data.id, data.path)
        while (error := await self._attempt(lambda: self._load_once(data))) is not None:
            if not self._versions.load_failed(data.id, error):
                logger.error("%s could not be loaded and is given up: %s", data.id, error)
            elif await self._may_retry(data.id, error):
                continue
            self._loaders.pop(data.id, None)
            self._release(data.id)
            return
        if not self._versions.load_succeeded(data.id):
            logger.info("%s is no longer wanted; unloading it again", data.id)
            self._versions.unload_finished(data.id, await self._unload_once(data.id))
            return
        error = await self._attempt(lambda: self._publisher.publish(data.id, self._loaders[data.id]))
        if error is not None:
            logger.error("%s is loaded but could not be published, and is unloaded again: %s", data.id, error)
            unload_error = await self._unload_once(data.id)
            if unload_error is not None:
                logger.error("unloading %s failed: %s", data.id, unload_error)
            self._versions.unload_finished(data.id, error)
            return
        self._versions.published(data.id)
        logger.info("%s is available, %.0f ms after it was found", data.id, (self._clock.monotonic_s() - began_s) * 1e3)

    async def _load_once(self, data: ServableData) -> None:
        if data.id not in self._loaders:
            self._loaders[data.id] = self._loader_factory(data)
        await self._loaders[data.id].load()

    async def _may_retry(self, servable_id: ServableId, error: ServingError) -> bool:
        """Waits for the retry interval and a free slot: True. False as soon as the version is no longer wanted."""
        logger.error(
            "load attempt %d of %s failed: %s; next attempt in %g s",
            self._versions.num_attempts(servable_id),
            servable_id,
            error,
            self._load_retry_interval_s,
        )
        unwanted = self._unwanted[servable_id] = asyncio.Event()
        # The slot that the failed load held is free for others meanwhile.
        self._act()
        try:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(unwanted.wait(), self._load_retry_interval_s)
        finally:
            del self._unwanted[servable_id]
        changed = self._changed[servable_id] = asyncio.Event()
        try:
            while (answer := self._versions.retry_load(servable_id, error)) is Retry.WAIT:
                changed.clear()
                await changed.wait()
        finally:
            del self._changed[servable_id]
        return answer is Retry.LOAD

    async def _unload(self, servable_id: ServableId) -> None:
        logger.info("unloading %s once its last request has ended", servable_id)
        withdraw_error = await self._attempt(lambda: self._publisher.withdraw(servable_id))
        unload_error = await self._unload_once(servable_id)
        error = withdraw_error or unload_error
        self._versions.unload_finished(servable_id, error)
        if error is None:
            logger.info("%s is unloaded", servable_id)
        else:
            logger.error("unloading %s failed: %s", servable_id, error)

    async def _unload_once(self, servable_id: ServableId) -> ServingError | None:
        error = await self._attempt(self._loaders.pop(servable_id).unload)
        self._release(servable_id)
        return error

    def _release(self, servable_id: ServableId) -> None:
        if self._resources is not None:
            self._resources.release(servable_id)
            self._versions.resources_freed()

    async def _attempt(self, step: Callable[[], Awaitable[None]]) -> ServingError | None:
        """Does one step of a loader's or a publisher's; what goes wrong in it is a value, for its version alone."""
        try:
            await step()
        except ServingError as error:
            return error
        except asyncio.CancelledError:
            if self._is_stopped:
                raise
            # Nobody but ``stop`` cancels the manager's tasks: something that the step waited for was cancelled.
            return ServingError(Code.CANCELLED, "what the step waited for was cancelled")
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not leave the version half-way for ever
            return ServingError(Code.INTERNAL, f"{type(error).__name__}: {error}")
        return None
