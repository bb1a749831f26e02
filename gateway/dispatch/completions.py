"""One asyncio loop's end of the native data plane: what its requests have come to, told on the loop.

On a request's line: dispatcher → completions ‖ native thread → completions → call. Belongs to the loop's thread.
"""

import asyncio
import logging
import math

from tensorgate._native.completion_queue import CompletionQueue, Submission
from tensorgate._native.data_plane import DataPlane
from tensorgate.gateway.dispatch.call import Method, OnEnd, Reply, RequestMetadata
from tensorgate.gateway.dispatch.route_table import RoutedVersion

logger = logging.getLogger("tensorgate.dispatch")

# Farther than any clock goes: a deadline that never comes, and still fits 64 bits.
MAX_DEADLINE_US = 2**62


class Completions:
    """Submits requests of one loop and tells of their ends; ``close`` ends it, on the loop."""

    def __init__(self, data_plane: DataPlane, loop: asyncio.AbstractEventLoop) -> None:
        """On the loop. Raises OSError when there is no descriptor left."""
        self._queue = CompletionQueue(data_plane)
        loop.add_reader(self._queue.event_fd, self._settle)

    def submit(
        self,
        version: RoutedVersion,
        method: Method,
        payload: bytes | memoryview,
        metadata: RequestMetadata,
        deadline_s: float | None,
        on_end: OnEnd,
    ) -> Submission:
        """Starts a request whose end goes to ``on_end``, and takes over one pin of the version.

        Raises RuntimeError when the data plane is closed, MemoryError; the pin is then still the caller's.
        """
        deadline_us = -1
        if deadline_s is not None:
            # Rounded up: never early. What is past counts from the clock's beginning, since -1 would be no deadline.
            deadline_us = 0 if deadline_s <= 0 else math.ceil(min(deadline_s * 1e6, MAX_DEADLINE_US))
        return self._queue.submit(
            on_end,
            version.published,
            method,
            payload,
            metadata.priority,
            metadata.sampled,
            metadata.traceparent,
            deadline_us,
        )

    def close(self, loop: asyncio.AbstractEventLoop) -> None:
        """Once the data plane is closed: settles what is left. Idempotent."""
        self._settle()
        loop.remove_reader(self._queue.event_fd)

    def _settle(self) -> None:
        for on_end, code, message, payload, queue_us, run_us, batch_rows, padding_rows in self._queue.drain():
            reply = Reply(payload, queue_us, run_us, batch_rows, padding_rows) if code == 0 else None
            try:
                on_end(code, message, reply)
            except Exception:
                # The others' ends have been drained with this one.
                logger.exception("what a request's end was told to failed")
