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
from tensorgate.gateway.dispatch.call import Call, Cancellable, Method, OnEnd, Reply, RequestMetadata
from tensorgate.gateway.dispatch.completions import Completions
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


class _SubmittedCall:
    """The Cancellable of a request that a future waits for; without a request where it could not be started."""

    __slots__ = ("_future", "_request")

    def __init__(self, future: "asyncio.Future[Reply]", request: Cancellable | None) -> None:
        self._future = future
        self._request = request

    def cancel(self) -> None:
        """Call.cancel."""
        future = self._future
        if self._request is None or (future.done() and not future.cancelled()):
            return
        _fail(future, ServingError(Code.CANCELLED, "The request was cancelled by its client."))
        self._request.cancel()


class _Here(threading.local):
    """The loop that a thread asked for last, and its Completions; both may have gone."""

    last: tuple[weakref.ref[asyncio.AbstractEventLoop], weakref.ref[Completions]] | None = None


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
        self._here = _Here()

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
        """``start`` for coroutines: every failure is raised by awaiting the call, never here."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def on_end(code: int, message: bytes, reply: Reply | None) -> None:
            if reply is None:
                _fail(future, ServingError(Code.of(code), message.decode("utf-8", "replace")))
            elif not future.done():
                future.set_result(reply)

        try:
            return Call(future, _SubmittedCall(future, self.start(pin, method, payload, metadata, deadline_s, on_end)))
        except ServingError as error:
            _fail(future, error)
            return Call(future, _SubmittedCall(future, None))

    def start(
        self,
        pin: Pin,
        method: Method,
        payload: bytes | memoryview,
        metadata: RequestMetadata,
        deadline_s: float | None,
        on_end: OnEnd,
    ) -> Cancellable:
        """Starts one request on the pinned version; on a thread with a running asyncio loop, never blocks.

        Takes the pin over. ``payload`` must not change until the request has ended, and is not copied if it is large.
        ``deadline_s`` is in seconds of time.monotonic(); when it passes the request ends with DEADLINE_EXCEEDED
        whatever the worker does. ``on_end`` is called later, on the loop; not after a cancel. Raises ServingError:
        UNAVAILABLE once closed, RESOURCE_EXHAUSTED for want of memory or descriptors.
        """
        version = pin.take()
        try:
            return self._completions_here().submit(version, method, payload, metadata, deadline_s, on_end)
        except RuntimeError as error:  # closed
            version.unpin()
            raise ServingError(Code.UNAVAILABLE, "The server is shutting down.") from error
        except (MemoryError, OSError) as error:
            version.unpin()
            raise ServingError(Code.RESOURCE_EXHAUSTED, f"The gateway cannot take the request: {error}") from error
        except BaseException:
            version.unpin()
            raise

    def _completions_here(self) -> Completions:
        """Of the loop that runs here."""
        loop = asyncio.get_running_loop()
        # A thread has one loop, or one after another: asked without a lock, since every request asks.
        last = self._here.last
        if last is not None and last[0]() is loop and (found := last[1]()) is not None:
            return found
        with self._lock:
            if self._data_plane.is_closed:
                raise RuntimeError("the data plane is closed")
            completions = self._completions[loop] = Completions(self._data_plane, loop)
        self._here.last = weakref.ref(loop), weakref.ref(completions)
        return completions

    # --- for the supervisor -------------------------------------------------------------------------------------------

    def add_worker(self, worker: Worker) -> None:
        """A worker is up: requests for the versions that it hosts may go to it. Raises OSError without descriptors."""
        limits, num_threads = self._limits, self._data_plane.num_threads
        key = worker.endpoints.key
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
            worker.endpoints.replies,
            b"" if key is None else key.public,
            b"" if key is None else key.secret,
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


def _fail(future: "asyncio.Future[Reply]", error: ServingError) -> None:
    """Gives a future its error unless its submitter has ended it; on the future's loop."""
    if not future.done():
        future.set_exception(error)
        # A submitter that has gone away never asks; asyncio would log that as an error of ours.
        future.exception()
