"""Keeps in touch with one worker on the network, which somebody else starts: greets it, watches it, greets it again.

Beside both lines, in the place of a Supervisor. Owned by the edge loop's thread. A worker is up from its answer to
hello to the end of its connection or of its answers; what then answers at its address is another incarnation, with
nothing loaded: a worker ends when its gateway is silent. One that its own side wants to end says so first, is given
nothing more, and ends when it has answered all that it was given.

Source: zmq_socket_monitor(3), which tells of the connection's end.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import zmq

from tensorgate.gateway.dispatch.supervisor import OnDown, OnUp, WorkerOptions
from tensorgate.gateway.dispatch.worker import WorkerEndpoints
from tensorgate.gateway.dispatch.worker_client import WorkerClient
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.worker_network import parse_address

logger = logging.getLogger("tensorgate.supervisor")

# An unanswered hello is followed by another: the first may have gone to a worker that was ending.
HELLO_TIMEOUT_S = 5.0
# How long a worker may take to agree to its end when it has no time to finish what is in flight.
BYE_TIMEOUT_S = 1.0
# How often it is looked whether a worker that is leaving has answered everything.
LEAVE_INTERVAL_S = 0.05


class RemoteSupervisor:
    """``start``, then listeners hear of the worker as those of a Supervisor, until ``stop``."""

    def __init__(
        self,
        options: WorkerOptions,
        context: "zmq.Context[zmq.Socket[bytes]]",
        loop: asyncio.AbstractEventLoop,
        start_wait_s: float,
        on_leaving: Callable[[WorkerClient, ServingError], Awaitable[None]],
        load_of: Callable[[WorkerClient], tuple[int, int]],
    ) -> None:
        """``options`` with an address; ``start`` waits ``start_wait_s`` at most.

        ``on_leaving`` has a worker that is up get nothing new; it goes down later, as listeners hear. ``load_of``:
        (requests handed to it, requests waiting for it). Raises ServingError INVALID_ARGUMENT for an address that is
        none.
        """
        address = parse_address(options.address)
        self._endpoints = WorkerEndpoints(address.data, address.control, address.cancel, key=options.key)
        self._options = options
        self._context = context
        self._loop = loop
        self._start_wait_s = start_wait_s
        self._on_leaving = on_leaving
        self._load_of = load_of
        self._is_leaving = False
        self._listeners: list[tuple[OnUp, OnDown]] = []
        self._worker: WorkerClient | None = None
        self._num_starts = 0
        self._last_end = ""
        self._task: asyncio.Task[None] | None = None
        self._first_up = asyncio.Event()
        self._stopping = asyncio.Event()

    @property
    def name(self) -> str:
        return self._options.name

    @property
    def worker(self) -> WorkerClient | None:
        """The worker while it is up."""
        return self._worker

    @property
    def pid(self) -> int | None:
        """Of its process, on its own machine, while it is up."""
        return None if self._worker is None else self._worker.info.pid

    @property
    def is_up(self) -> bool:
        return self._worker is not None

    @property
    def num_starts(self) -> int:
        """How often it came up."""
        return self._num_starts

    @property
    def last_end(self) -> str:
        """How it was lost last, without a full stop; empty if it never was."""
        return self._last_end

    def subscribe(self, on_up: OnUp, on_down: OnDown) -> None:
        """Adds a listener; before ``start``."""
        self._listeners.append((on_up, on_down))

    async def start(self) -> None:
        """Returns when the worker is up, or after the wait: what is not there yet is greeted until ``stop``."""
        self._task = self._loop.create_task(self._run(), name=f"attend {self.name}")
        try:
            await asyncio.wait_for(self._first_up.wait(), self._start_wait_s)
        except asyncio.TimeoutError:
            logger.warning("%s is not up after %g s, and not waited for any longer", self.name, self._start_wait_s)

    async def stop(self, timeout_s: float) -> None:
        """Asks the worker to finish what is in flight and end, if it is up, and lets it go. Idempotent."""
        self._stopping.set()
        self._first_up.set()  # for a start that waits for it still
        if self._task is None:
            return
        worker = self._worker
        if worker is None:
            self._task.cancel()  # nobody has answered yet
        else:
            try:
                await worker.stop(max(timeout_s, BYE_TIMEOUT_S))
            except ServingError as error:
                logger.warning("%s was asked to stop: %s", self.name, error)
        await asyncio.wait({self._task})

    # --- the life cycle -----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while not self._stopping.is_set():
            await self._attend_once()
            try:
                await asyncio.wait_for(self._stopping.wait(), self._options.heartbeat_interval_s)
            except asyncio.TimeoutError:
                logger.debug("greeting %s again", self.name)

    async def _attend_once(self) -> None:
        """From one greeting to the end of that incarnation, or of the gateway."""
        client = WorkerClient(self._context, self._loop, self.name, None, self._endpoints)
        lost: asyncio.Future[ServingError] = self._loop.create_future()
        try:
            await client.hello(HELLO_TIMEOUT_S)
        except ServingError as error:
            hint = "; it may not run, or have another key" if error.code is Code.DEADLINE_EXCEEDED else ""
            cause = ServingError(Code.UNAVAILABLE, f"{self.name} at {self._options.address}: {error.message}{hint}")
            if cause.message != self._last_end:
                self._last_end = cause.message
                logger.warning("%s; it is greeted again and again", cause.message)
            client.close(cause)
            return
        except asyncio.CancelledError:
            client.close(self._cause("was let go"))
            raise
        client.watch_connection(lambda: self._lose(lost, "has closed its connection"))
        self._come_up(client)
        watching = self._loop.create_task(self._watch(client, lost), name=f"heartbeat {self.name}")
        leaving = self._loop.create_task(self._see_off(client), name=f"see off {self.name}")
        stopping = self._loop.create_task(self._stopping.wait())
        ends: set[asyncio.Future[Any]] = {lost, stopping}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not lost.done():
            # The end of the connection tells that the worker has agreed, and finished.
            await asyncio.wait({lost}, timeout=self._options.heartbeat_timeout_s)
        for task in (watching, leaving, stopping):
            task.cancel()
        await asyncio.wait({watching, leaving, stopping})
        self._go_down(client, lost.result() if lost.done() else self._cause("was let go"))

    def _come_up(self, client: WorkerClient) -> None:
        info = client.info
        self._num_starts += 1
        self._is_leaving = False
        logger.info(
            "%s is up at %s: TensorFlow %s, %d execution threads, pid %d there",
            self.name,
            self._options.address,
            info.tensorflow_version,
            info.num_execution_threads,
            info.pid,
        )
        self._worker = client
        for on_up, _ in self._listeners:
            on_up(client)
        self._first_up.set()

    def _go_down(self, client: WorkerClient, cause: ServingError) -> None:
        self._worker = None
        self._last_end = cause.message
        is_expected = self._stopping.is_set() or self._is_leaving
        logger.log(logging.INFO if is_expected else logging.ERROR, "%s", cause.message)
        # What it answered before it was lost is as good as any answer.
        client.drain()
        for _, on_down in self._listeners:
            on_down(client, cause)
        client.close(cause)

    async def _watch(self, client: WorkerClient, lost: "asyncio.Future[ServingError]") -> None:
        """Pings until the worker does not answer. That one is left alone then, and ends by itself."""
        while True:
            try:
                await client.ping(self._options.heartbeat_timeout_s)
            except ServingError as error:
                self._lose(lost, f"does not answer its heartbeat ({error.message})")
                return
            await asyncio.sleep(self._options.heartbeat_interval_s)

    async def _see_off(self, client: WorkerClient) -> None:
        """Waits until the worker wants to end, takes everything from it, and lets it go."""
        try:
            await client.await_leaving()
            self._is_leaving = True
            logger.info("%s at %s is leaving, by its own side's word", self.name, self._options.address)
            await self._on_leaving(client, self._cause("is leaving"))
            while any(self._load_of(client)):  # noqa: ASYNC110 - the threads that know have no Python
                await asyncio.sleep(LEAVE_INTERVAL_S)
            await client.stop(BYE_TIMEOUT_S)
        except ServingError as error:
            # It is lost, which is told elsewhere, or of a version that does not say that it leaves.
            logger.debug("%s: %s", self.name, error.message)

    def _lose(self, lost: "asyncio.Future[ServingError]", how: str) -> None:
        if not lost.done():
            lost.set_result(self._cause(how))

    def _cause(self, what: str) -> ServingError:
        return ServingError(Code.UNAVAILABLE, f"{self.name} at {self._options.address} {what}")
