"""The dispatcher: gets a pinned request to a worker and its outcome back to the edge.

Second stage of a request's line: edge → model_spec → route → dispatcher → frames ‖ worker. It lives on the edge loop's
thread; edges on other loops hand over with call_soon_threadsafe and get their outcome back the same way. On the edge
loop itself a request costs one future, one record and no task.

A request ends exactly once for its client (reply, error, deadline or cancel) and, apart from that, once for its
version: the pin ends when nothing can be running it any more, that is with the worker's final reply or the worker's
death, or at once if no worker ever got it.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from tensorgate.gateway.core.clock import Clock
from tensorgate.gateway.core.model_spec import ModelSpec
from tensorgate.gateway.dispatch.call import Call, Method, Reply, RequestMetadata
from tensorgate.gateway.dispatch.deadlines import Deadlines, Timers
from tensorgate.gateway.dispatch.pending_request import (
    PendingRequest,
    Stage,
    fail_future,
    resolve_future,
)
from tensorgate.gateway.dispatch.route_table import Pin, RoutedVersion, RouteTable
from tensorgate.gateway.dispatch.worker import Replica, ReplyHandler, Worker
from tensorgate.gateway.dispatch.worker_line import DispatchLimits, WorkerLine
from tensorgate.protos.status_codes import Code, ServingError

logger = logging.getLogger("tensorgate.dispatcher")

# TensorFlow's own text for a run that outlives its RunOptions.timeout_in_ms.
DEADLINE_TEXT = "Timed out waiting for notification"


class DispatchCounters:
    """Totals since start; written on the edge loop only, read from anywhere (a value may be a moment old)."""

    __slots__ = (
        "cancelled",
        "deadline_exceeded",
        "failed",
        "late_replies",
        "refused",
        "rerouted",
        "submitted",
        "succeeded",
        "unknown_replies",
        "worker_deaths",
    )

    def __init__(self) -> None:
        self.submitted = 0
        self.succeeded = 0
        self.failed = 0  # errors from the worker, or for want of one
        self.cancelled = 0
        self.deadline_exceeded = 0
        self.refused = 0  # the queue was full
        self.rerouted = 0  # moved from a dead worker's queue to another worker
        self.late_replies = 0  # the client had its outcome already: cancel or deadline
        self.unknown_replies = 0  # no such request
        self.worker_deaths = 0


class Dispatcher:
    """Resolves, submits, and owns everything outstanding. See the contract of each method for its thread."""

    def __init__(
        self,
        route_table: RouteTable,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        limits: DispatchLimits | None = None,
        timers: Timers | None = None,
    ) -> None:
        """``loop`` is the edge loop; ``clock`` must count as time.monotonic() does; ``timers`` defaults to ``loop``."""
        self._route_table = route_table
        self._loop = loop
        self._clock = clock
        self._limits = limits if limits is not None else DispatchLimits()
        self._deadlines = Deadlines(timers if timers is not None else loop, clock, self._expire)
        self._lines: dict[Worker, WorkerLine] = {}
        self._last_request_id = 0
        self._closed = False
        self.counters = DispatchCounters()

    # --- for edges ----------------------------------------------------------------------------------------------------

    def resolve(self, model_spec: ModelSpec) -> Pin:
        """RouteTable.resolve: from any thread, never blocks; raises ServingError."""
        return self._route_table.resolve(model_spec)

    def submit(
        self,
        pin: Pin,
        method: Method,
        payload: bytes | memoryview,
        metadata: RequestMetadata,
        deadline_s: float | None,
    ) -> Call:
        """Starts one request on the pinned version; from a coroutine of any asyncio loop, never blocks.

        Takes the pin over. ``payload`` must not change until the call has completed, and is not copied if it is large.
        ``deadline_s`` is in seconds of time.monotonic(); when it passes the call fails with DEADLINE_EXCEEDED whatever
        the worker does. Every failure is raised by awaiting the call, never here.
        """
        loop = asyncio.get_running_loop()
        request = PendingRequest(pin.take(), method, payload, metadata, deadline_s, loop, self)
        if loop is self._loop:
            self._accept(request)
        else:
            try:
                self._loop.call_soon_threadsafe(self._accept, request)
            except RuntimeError:  # the edge loop has closed
                request.version.unpin()
                fail_future(request.future, _shutting_down())
        return Call(request.future, request)

    def abandon(self, request: PendingRequest) -> None:
        """Abandoner: a client has cancelled; from any thread."""
        if request.loop is self._loop:
            self._drop(request)
            return
        # Arrives after the hand-over of the request itself, since one thread's calls keep their order. A closed edge
        # loop has failed all requests already.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._drop, request)

    # --- for the supervisor; on the edge loop -------------------------------------------------------------------------

    def add_worker(self, worker: Worker) -> None:
        """A worker is up: requests for the versions that it hosts may go to it."""
        line = WorkerLine(worker, self._limits)
        self._lines[worker] = line
        worker.set_reply_handler(self._reply_handler(line))

    def remove_worker(self, worker: Worker, cause: ServingError) -> None:
        """A worker has died: what it was handed fails with UNAVAILABLE, what waited for it moves to another or fails.

        Does nothing for a worker that is not known. ``cause.message`` says what happened to it, and goes to clients.
        """
        line = self._lines.pop(worker, None)
        if line is None:
            return
        self.counters.worker_deaths += 1
        handed = list(line.handed.values())
        line.handed.clear()
        lost = ServingError(
            Code.UNAVAILABLE,
            f"The request was lost: {cause.message}. It may have run in part; it can be retried.",
        )
        for request in handed:
            request.stage = Stage.ENDED
            request.line = None
            request.version.unpin()
            self._fail(request, lost)
        while line.queue:
            request = line.queue.pop()
            request.stage = Stage.NEW
            request.line = None
            if self._route(request):
                self.counters.rerouted += 1

    def worker_load(self, worker: Worker) -> tuple[int, int]:
        """(requests handed over, requests waiting) of a live worker; (0, 0) for any other."""
        line = self._lines.get(worker)
        return (0, 0) if line is None else (len(line.handed), len(line.queue))

    @property
    def num_outstanding(self) -> int:
        """Requests whose worker has not replied, and those waiting, of all workers."""
        return sum(line.outstanding for line in self._lines.values())

    def close(self) -> None:
        """Fails what is outstanding and everything submitted from now on with UNAVAILABLE. Idempotent."""
        self._closed = True
        for line in self._lines.values():
            requests = list(line.handed.values())
            line.handed.clear()
            while line.queue:
                requests.append(line.queue.pop())
            for request in requests:
                request.stage = Stage.ENDED
                request.version.unpin()
                self._fail(request, _shutting_down())
        self._lines.clear()
        self._deadlines.close()

    # --- a request's way out ------------------------------------------------------------------------------------------

    def _accept(self, request: PendingRequest) -> None:
        self.counters.submitted += 1
        if self._closed:
            self._end(request, _shutting_down())
            return
        if request.deadline_s is not None:
            now_s = self._clock.monotonic_s()
            if request.deadline_s <= now_s:
                self._expire(request)
                return
            self._deadlines.add(request, request.deadline_s, now_s)
        self._route(request)

    def _route(self, request: PendingRequest) -> bool:
        """Hands a NEW request to the live worker with the fewest outstanding, or queues it there.

        False, with the request failed, if there is none or it has no room.
        """
        best: Replica | None = None
        line: WorkerLine | None = None
        for replica in request.version.hosting.replicas:
            candidate = self._lines.get(replica.worker)
            if candidate is not None and (line is None or candidate.outstanding < line.outstanding):
                best, line = replica, candidate
        if best is None or line is None:
            self._end(request, _restarting(request.version))
            return False
        request.line = line
        if len(line.handed) < line.credit and not line.queue:
            return self._hand(request, line, best.servable_handle)
        try:
            line.queue.push(request)
        except ServingError as error:
            self.counters.refused += 1
            self._end(request, error)
            return False
        request.stage = Stage.QUEUED
        return True

    def _hand(self, request: PendingRequest, line: WorkerLine, servable_handle: int) -> bool:
        remaining_us = -1
        if request.deadline_s is not None:
            remaining_us = int((request.deadline_s - self._clock.monotonic_s()) * 1e6)
            if remaining_us <= 0:  # it is about to be noticed
                self._expire(request)
                return False
        # Never reused, so a reply cannot be taken for another request's.
        self._last_request_id = request_id = self._last_request_id + 1
        request.request_id = request_id
        request.stage = Stage.HANDED
        line.handed[request_id] = request
        metadata = request.metadata
        try:
            line.worker.send_request(
                request_id,
                request.method,
                servable_handle,
                remaining_us,
                metadata.priority,
                metadata.sampled,
                metadata.traceparent,
                request.payload,
            )
        except ServingError as error:
            del line.handed[request_id]
            self._end(request, error)
            return False
        return True

    def _hand_waiting(self, line: WorkerLine) -> None:
        while line.queue and len(line.handed) < line.credit:
            request = line.queue.pop()
            request.stage = Stage.NEW
            for replica in request.version.hosting.replicas:
                if replica.worker is line.worker:
                    self._hand(request, line, replica.servable_handle)
                    break
            else:
                # The copy has gone from this worker since: another one may have it.
                self._route(request)

    # --- and back -----------------------------------------------------------------------------------------------------

    def _reply_handler(self, line: WorkerLine) -> ReplyHandler:
        return partial(self._take_reply, line)

    def _take_reply(
        self,
        line: WorkerLine,
        request_id: int,
        code: int,
        message: bytes,
        queue_us: int,
        run_us: int,
        batch_rows: int,
        padding_rows: int,
        payload: bytes | memoryview,
    ) -> None:
        request = line.handed.pop(request_id, None)
        if request is None:
            self.counters.unknown_replies += 1
            return
        request.stage = Stage.ENDED
        request.version.unpin()
        if not self._settle(request):
            self.counters.late_replies += 1
        elif code == Code.OK:
            self.counters.succeeded += 1
            reply = Reply(payload, queue_us, run_us, batch_rows, padding_rows)
            if request.loop is self._loop:
                resolve_future(request.future, reply)
            else:
                self._call_back(request.loop, partial(resolve_future, request.future, reply))
        else:
            self.counters.failed += 1
            self._send_error(request, ServingError(Code.of(code), message.decode("utf-8", "replace")))
        if line.queue:
            self._hand_waiting(line)

    def _expire(self, request: PendingRequest) -> None:
        if request.is_settled:
            return
        self._withdraw(request)
        if self._settle(request):
            self.counters.deadline_exceeded += 1
            self._send_error(request, ServingError(Code.DEADLINE_EXCEEDED, DEADLINE_TEXT))

    def _drop(self, request: PendingRequest) -> None:
        if request.is_settled:
            return
        self._withdraw(request)
        self._settle(request)
        self.counters.cancelled += 1

    def _withdraw(self, request: PendingRequest) -> None:
        """Takes a request back from wherever it is; a worker that has it is asked to skip it, and its pin stays."""
        line = request.line
        if request.stage is Stage.HANDED and line is not None:
            line.worker.send_cancel(request.request_id)
            return
        if request.stage is Stage.QUEUED and line is not None:
            line.queue.remove(request)
        if request.stage is not Stage.ENDED:
            request.stage = Stage.ENDED
            request.version.unpin()

    def _settle(self, request: PendingRequest) -> bool:
        """Marks a request settled: no deadline, no payload any more. False if it was settled before."""
        if request.is_settled:
            return False
        request.is_settled = True
        request.payload = b""
        if request.deadline_s is not None:
            self._deadlines.remove(request)
        return True

    def _end(self, request: PendingRequest, error: ServingError) -> None:
        """Ends a request that no worker has."""
        request.stage = Stage.ENDED
        request.version.unpin()
        self._fail(request, error)

    def _fail(self, request: PendingRequest, error: ServingError) -> None:
        if self._settle(request):
            self.counters.failed += 1
            self._send_error(request, error)

    def _send_error(self, request: PendingRequest, error: ServingError) -> None:
        if request.loop is self._loop:
            fail_future(request.future, error)
        else:
            self._call_back(request.loop, partial(fail_future, request.future, error))

    def _call_back(self, loop: asyncio.AbstractEventLoop, settle: Callable[[], None]) -> None:
        try:
            loop.call_soon_threadsafe(settle)
        except RuntimeError:
            # That edge has stopped and closed its loop; nobody waits there any more.
            logger.debug("an outcome was dropped: the loop that submitted the request is closed")


def _restarting(version: RoutedVersion) -> ServingError:
    return ServingError(
        Code.UNAVAILABLE,
        f"{version.servable_id} cannot be served just now: its worker is restarting and will load it again; retry.",
    )


def _shutting_down() -> ServingError:
    return ServingError(Code.UNAVAILABLE, "The server is shutting down.")
