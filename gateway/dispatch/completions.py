"""One asyncio loop's end of the native data plane: futures of the loop for requests that native threads work on.

On a request's line: dispatcher → completions ‖ native thread → completions → call. Belongs to the loop's thread.
"""

import asyncio
import math

from tensorgate._native.completion_queue import CompletionQueue, Submission
from tensorgate._native.data_plane import DataPlane
from tensorgate.gateway.dispatch.call import Call, Method, Reply, RequestMetadata
from tensorgate.gateway.dispatch.route_table import RoutedVersion
from tensorgate.protos.status_codes import Code, ServingError

# Farther than any clock goes: a deadline that never comes, and still fits 64 bits.
MAX_DEADLINE_US = 2**62


class PendingCall:
    """The Cancellable of one request: its future, and what the native thread has of it."""

    __slots__ = ("_future", "_submission")

    def __init__(self, future: "asyncio.Future[Reply]", submission: Submission) -> None:
        self._future = future
        self._submission = submission

    def cancel(self) -> None:
        """Call.cancel."""
        future = self._future
        if future.done() and not future.cancelled():
            return
        fail_future(future, ServingError(Code.CANCELLED, "The request was cancelled by its client."))
        self._submission.cancel()


class Completions:
    """Submits requests of one loop and settles their futures; ``close`` ends it, on the loop."""

    def __init__(self, data_plane: DataPlane, loop: asyncio.AbstractEventLoop) -> None:
        """On the loop. Raises OSError when there is no descriptor left."""
        self._queue = CompletionQueue(data_plane)
        loop.add_reader(self._queue.event_fd, self._settle)

    def submit(
        self,
        future: "asyncio.Future[Reply]",
        version: RoutedVersion,
        method: Method,
        payload: bytes | memoryview,
        metadata: RequestMetadata,
        deadline_s: float | None,
    ) -> Call:
        """Starts a request whose outcome goes to ``future``, and takes over one pin of the version.

        Raises RuntimeError when the data plane is closed, MemoryError; the pin is then still the caller's.
        """
        deadline_us = -1
        if deadline_s is not None:
            # Rounded up: never early. What is past counts from the clock's beginning, since -1 would be no deadline.
            deadline_us = 0 if deadline_s <= 0 else math.ceil(min(deadline_s * 1e6, MAX_DEADLINE_US))
        submission = self._queue.submit(
            future,
            version.published,
            method,
            payload,
            metadata.priority,
            metadata.sampled,
            metadata.traceparent,
            deadline_us,
        )
        return Call(future, PendingCall(future, submission))

    def close(self, loop: asyncio.AbstractEventLoop) -> None:
        """Once the data plane is closed: settles what is left. Idempotent."""
        self._settle()
        loop.remove_reader(self._queue.event_fd)

    def _settle(self) -> None:
        for future, code, message, payload, queue_us, run_us, batch_rows, padding_rows in self._queue.drain():
            if code == Code.OK:
                if not future.done():
                    future.set_result(Reply(payload, queue_us, run_us, batch_rows, padding_rows))
            else:
                fail_future(future, ServingError(Code.of(code), message.decode("utf-8", "replace")))


def fail_future(future: "asyncio.Future[Reply]", error: ServingError) -> None:
    """Gives a future its error unless its submitter has ended it; on the future's loop."""
    if not future.done():
        future.set_exception(error)
        # A submitter that has gone away never asks; asyncio would log that as an error of ours.
        future.exception()
