"""One request between submit and its end: the dispatcher's own record of it.

Belongs to the edge loop's thread, but for ``cancel`` and the future, which belong to the loop that submitted. Each of
the two sides may settle the future first; it is settled once, always on its own loop.
"""

import asyncio
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

from tensorgate.gateway.dispatch.call import Method, Reply, RequestMetadata
from tensorgate.gateway.dispatch.route_table import RoutedVersion
from tensorgate.protos.status_codes import Code, ServingError

if TYPE_CHECKING:
    from tensorgate.gateway.dispatch.worker_line import WorkerLine


class Stage(IntEnum):
    """Where a request is. NEW → (QUEUED →) HANDED → ENDED, or to ENDED from anywhere."""

    NEW = 0
    QUEUED = 1  # in the gateway's queue for a worker: it can still be taken back
    HANDED = 2  # sent to the worker: the version stays pinned until its reply or its death
    ENDED = 3  # no longer in any table, its pin has ended


class Abandoner(Protocol):
    """The dispatcher, as a request that is cancelled sees it."""

    def abandon(self, request: "PendingRequest") -> None:
        """Takes a cancelled request out of the queue, or asks its worker to skip it; from any thread."""


class PendingRequest:
    """See the module. ``is_settled`` is the edge loop's view: nobody waits for an outcome any more."""

    __slots__ = (
        "_abandoner",
        "deadline_s",
        "deadline_tick",
        "future",
        "is_settled",
        "line",
        "loop",
        "metadata",
        "method",
        "payload",
        "payload_bytes",
        "request_id",
        "stage",
        "version",
    )

    def __init__(
        self,
        version: RoutedVersion,
        method: Method,
        payload: bytes | memoryview,
        metadata: RequestMetadata,
        deadline_s: float | None,
        loop: asyncio.AbstractEventLoop,
        abandoner: Abandoner,
    ) -> None:
        self.version = version
        self.method = method
        self.payload: bytes | memoryview = payload
        self.payload_bytes = len(payload)
        self.metadata = metadata
        self.deadline_s = deadline_s
        self.loop = loop
        self.future: asyncio.Future[Reply] = loop.create_future()
        self.is_settled = False
        self.line: WorkerLine | None = None
        self.request_id = 0
        self.stage = Stage.NEW
        self.deadline_tick = 0  # Deadlines' own
        self._abandoner = abandoner

    def cancel(self) -> None:
        """Call.cancel: on the submitter's thread."""
        if self.future.done() and not self.future.cancelled():
            return
        fail_future(self.future, ServingError(Code.CANCELLED, "The request was cancelled by its client."))
        self._abandoner.abandon(self)


def resolve_future(future: "asyncio.Future[Reply]", reply: Reply) -> None:
    """Gives a future its reply unless its submitter has ended it; on the future's loop."""
    if not future.done():
        future.set_result(reply)


def fail_future(future: "asyncio.Future[Reply]", error: ServingError) -> None:
    """Gives a future its error unless its submitter has ended it; on the future's loop."""
    if not future.done():
        future.set_exception(error)
        # A submitter that has gone away never asks; asyncio would log that as an error of ours.
        future.exception()
