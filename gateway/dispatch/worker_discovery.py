"""Finds workers on the network by name: every address that the name resolves to is a worker, for as long as it is.

Beside the worker pool, which it tells of workers that join and that are forgotten. Owned by the edge loop's thread. A
name is resolved every few seconds. An address that has left its name is forgotten once the worker there is down: an
answer that lacks an address must not take a worker away that serves, and one that fails changes nothing at all.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from tensorgate.gateway.dispatch.devices import Slot
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.worker_network import WorkerService, address_of

logger = logging.getLogger("tensorgate.worker_discovery")

RESOLVE_INTERVAL_S = 5.0
# How often the start looks.
START_INTERVAL_S = 0.5

Resolve = Callable[[], Awaitable[Sequence[str]]]


class Joinable(Protocol):
    """The worker pool, as it is seen here."""

    @property
    def slots(self) -> Sequence[Slot]:
        """Of all workers, found ones and others."""
        ...

    def join(self, address: str, service: str) -> Slot:
        """There is a worker at the address; ``service`` is the name by which it was found."""
        ...

    def is_up(self, slot: Slot) -> bool:
        """Whether the worker there is up."""
        ...

    def forget(self, slot: Slot) -> None:
        """There is no worker there any more."""


class WorkerDiscovery:
    """``start`` once, then ``stop``; without services both do nothing."""

    def __init__(
        self,
        services: Sequence[WorkerService],
        pool: Joinable,
        resolver_of: Callable[[str], Resolve],
        start_wait_s: float,
    ) -> None:
        """``resolver_of``: a host's name to what resolves it, to at least one IP address; may raise ServingError.

        ``start`` waits ``start_wait_s`` at most.
        """
        self._pool = pool
        self._start_wait_s = start_wait_s
        self._watches = [_Watch(service, pool, resolver_of(service.host)) for service in services]
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Returns when all names have been resolved once, or after the wait.

        Raises ServingError UNAVAILABLE if there is no worker to wait for then.
        """
        if not self._watches:
            return
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(each.run(), name=f"resolve {each.service.text}") for each in self._watches]
        resolved = [asyncio.ensure_future(each.resolved.wait()) for each in self._watches]
        try:
            await asyncio.wait(resolved, timeout=self._start_wait_s)
        finally:
            for waiting in resolved:
                waiting.cancel()
        if not self._pool.slots:
            troubles = "; ".join(f"{each.service.text}: {each.trouble or 'no answer yet'}" for each in self._watches)
            raise ServingError(Code.UNAVAILABLE, f"No worker is up: {troubles}")

    def stop(self) -> None:
        """Nothing joins and nothing is forgotten any more. Idempotent."""
        for task in self._tasks:
            task.cancel()


class _Watch:
    """One name. ``trouble`` is what its resolver said last, empty if it answered."""

    def __init__(self, service: WorkerService, pool: Joinable, resolve: Resolve) -> None:
        self.service = service
        self.resolved = asyncio.Event()
        self.trouble = ""
        self._pool = pool
        self._resolve = resolve

    async def run(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(RESOLVE_INTERVAL_S if self.resolved.is_set() else START_INTERVAL_S)

    async def _look(self) -> None:
        service = self.service.text
        try:
            hosts = await self._resolve()
        except ServingError as error:
            if not self.trouble:
                logger.error("%s cannot be resolved, its workers stay as they are: %s", service, error.message)
            self.trouble = error.message
            return
        if self.trouble:
            logger.info("%s is resolved again", service)
            self.trouble = ""
        addresses = [address_of(host, self.service.port) for host in hosts]
        self._forget_all_but(addresses)
        # One that another name has found, or that a flag names, is that one's.
        known = {slot.address for slot in self._pool.slots}
        for address in addresses:
            if address not in known:
                slot = self._pool.join(address, service)
                logger.info("%s has joined: %s has its address, %s", slot.name, service, address)
        self.resolved.set()

    def _forget_all_but(self, addresses: Sequence[str]) -> None:
        for slot in list(self._pool.slots):
            if slot.service == self.service.text and slot.address not in addresses and not self._pool.is_up(slot):
                self._pool.forget(slot)
                logger.info(
                    "%s is forgotten: it is down, and %s no longer has %s", slot.name, slot.service, slot.address
                )
