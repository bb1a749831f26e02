"""The seam between the dispatcher and one incarnation of one worker.

The dispatcher hands requests to a Worker and gets replies by its handler; WorkerClient is the Worker made of ZeroMQ
sockets. Everything here happens on the edge loop's thread.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class WorkerEndpoints:
    """Where one incarnation listens: ZeroMQ addresses, each used by this incarnation only."""

    data: str
    control: str
    cancel: str


class ReplyHandler(Protocol):
    """Takes one decoded reply; ``code`` 0 is OK, ``message`` is UTF-8. Called on the edge loop, must not raise."""

    def __call__(
        self,
        request_id: int,
        code: int,
        message: bytes,
        queue_us: int,
        run_us: int,
        batch_rows: int,
        padding_rows: int,
        payload: bytes | memoryview,
    ) -> None: ...


class Worker(Protocol):
    """One incarnation of a worker process that is up.

    A respawned worker is another Worker, compared by identity; ``name`` is what both share, e.g. ``worker-0``.
    """

    @property
    def name(self) -> str: ...

    @property
    def num_execution_threads(self) -> int:
        """How many requests it runs at a time; known once it is up."""
        ...

    def set_reply_handler(self, handler: ReplyHandler) -> None:
        """Replies go to ``handler`` from now on; before that they are dropped and counted."""

    def send_request(
        self,
        request_id: int,
        method: int,
        servable_handle: int,
        remaining_deadline_us: int,
        priority: int,
        sampled: bool,
        traceparent: bytes,
        payload: bytes | memoryview,
    ) -> None:
        """Hands one request over; never blocks. ``payload`` must not change until the reply.

        Raises ServingError when the worker cannot be reached any more.
        """

    def send_cancel(self, request_id: int) -> None:
        """Asks the worker to skip a request it has not begun; it replies all the same. Never blocks, never raises."""


@dataclass(frozen=True, slots=True)
class Replica:
    """One loaded copy of a servable version: the worker that holds it and its handle there."""

    worker: Worker
    servable_handle: int
