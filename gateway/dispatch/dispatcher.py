"""The dispatcher, for Python's edges and the supervisor: a thin front of the native one.

Second stage of a request's line: edge → model_spec → route → dispatcher → frames ‖ worker. Queueing, credit, deadlines,
cancels and what a worker's death means are in _native/dispatcher; here requests get futures, and workers their limits.

A request ends exactly once for its client (reply, error, deadline or cancel) and, apart from that, once for its
version: the pin ends when nothing can be running it any more, that is with the worker's final reply or the worker's
death, or at once if no worker ever got it.
"""

import asyncio
import contextlib
import threading
import weakref
from dataclasses import dataclass

from tensorgate._native.data_plane import DataPlane
from tensorgate.gateway.core.model_spec import ModelSpec
from tensorgate.gateway.dispatch.call import Call, Method, Reply, RequestMetadata
from tensorgate.gateway.dispatch.completions import Completions, fail_future
from tensorgate.gateway.dispatch.route_table import Pin, RouteTable
from tensorgate.gateway.dispatch.worker import Worker
from tensorgate.protos.status_codes import Code, ServingError


@dataclass(frozen=True, slots=True)
class DispatchLimits:
    """Bounds per worker. Credit = ``credit_per_thread`` × its execution threads + ``extra_credit``, in requests.

    Each version has a credit of its own at each worker: a slow model does not keep the others from it.
    ``max_queued_requests`` and ``max_queued_bytes`` (of payload) bound what waits in the gateway beyond the credit.
    Native threads share all of them out equally, each getting at least one request.
    """

    credit_per_thread: int = 4
    extra_credit: int = 4
    max_queued_requests: int = 10_000
    max_queued_bytes: int = 1 << 30


@dataclass(frozen=True, slots=True)
class DispatchCounters:
    """Totals since start, of all native threads; each may be a moment old."""

    submitted: int
    succeeded: int
    failed: int
    """Errors from the worker, or for want of one."""
    cancelled: int
    deadline_exceeded: int
    refused: int
    """The queue was full."""
    rerouted: int
    """Moved from a dead worker's queue to another worker."""
    late_replies: int
    """The client had its outcome already: cancel or deadline."""
    unknown_replies: int
    """No such request."""
    foreign_replies: int
    """Of another epoch, or no reply at all."""
    worker_deaths: int


class _ClosedCall:
    """The Cancellable of a request that has failed before it began."""

    def cancel(self) -> None:
        """Call.cancel."""


class Dispatcher:
    """Resolves, submits, and knows the live workers. See the contract of each method for its thread."""

    def __init__(self, route_table: RouteTable, data_plane: DataPlane, limits: DispatchLimits | None = None) -> None:
        """``data_plane`` is the one that ``route_table`` publishes to; ``close`` closes it."""
        self._route_table = route_table
        self._data_plane = data_plane
        self._limits = limits if limits is not None else DispatchLimits()
        self._lock = threading.Lock()  # guards _completions
        self._completions: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Completions] = (
            weakref.WeakKeyDictionary()
        )

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
        version = pin.take()
        future: asyncio.Future[Reply] = loop.create_future()
        try:
            return self._completions_of(loop).submit(future, version, method, payload, metadata, deadline_s)
        except RuntimeError:  # closed
            version.unpin()
            fail_future(future, ServingError(Code.UNAVAILABLE, "The server is shutting down."))
        except (MemoryError, OSError) as error:
            version.unpin()
            fail_future(future, ServingError(Code.RESOURCE_EXHAUSTED, f"The gateway cannot take the request: {error}"))
        except BaseException:
            version.unpin()
            raise
        return Call(future, _ClosedCall())

    def _completions_of(self, loop: asyncio.AbstractEventLoop) -> Completions:
        with self._lock:
            found = self._completions.get(loop)
            if found is None:
                if self._data_plane.is_closed:
                    raise RuntimeError("the data plane is closed")
                found = self._completions[loop] = Completions(self._data_plane, loop)
            return found

    # --- for the supervisor -------------------------------------------------------------------------------------------

    def add_worker(self, worker: Worker) -> None:
        """A worker is up: requests for the versions that it hosts may go to it. Raises OSError without descriptors."""
        limits, num_threads = self._limits, self._data_plane.num_threads
        credit = limits.credit_per_thread * worker.num_execution_threads + limits.extra_credit
        self._data_plane.add_line(
            worker.number,
            worker.epoch,
            worker.name,
            worker.endpoints.data,
            worker.endpoints.cancel,
            -(-credit // num_threads),
            max(1, limits.max_queued_requests // num_threads),
            limits.max_queued_bytes // num_threads,
            worker.endpoints.stream,
        )

    def remove_worker(self, worker: Worker, cause: ServingError) -> None:
        """A worker has died: what it was handed fails with UNAVAILABLE, what waited for it moves to another or fails.

        Does nothing for a worker that is not known. ``cause.message`` says what happened to it, and goes to clients.
        """
        self._data_plane.remove_line(worker.number, cause.message)

    def worker_load(self, worker: Worker) -> tuple[int, int]:
        """(requests handed over, requests waiting) of a live worker; (0, 0) for any other."""
        return self._data_plane.line_load(worker.number)

    @property
    def num_outstanding(self) -> int:
        """Requests whose worker has not replied, and those waiting, of all workers."""
        return self._data_plane.num_outstanding

    @property
    def counters(self) -> DispatchCounters:
        return DispatchCounters(**self._data_plane.counters())

    def close(self) -> None:
        """Fails what is outstanding and everything submitted from now on with UNAVAILABLE. Idempotent."""
        self._data_plane.close()
        with self._lock:
            completions = list(self._completions.items())
            self._completions.clear()
        for loop, each in completions:
            # An edge that has stopped has closed its loop: nobody waits there any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(each.close, loop)
