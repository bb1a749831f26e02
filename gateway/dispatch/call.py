"""What a request and its answer look like between an edge and the dispatcher.

Second stage of a request's line (edge → route → dispatcher ‖ worker): values that every edge makes and reads, and the
handle of one submitted request. Values may cross threads; a Call belongs to the thread of the loop that submitted it.
"""

import asyncio
from collections.abc import Generator
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import Any, Protocol


class Method(IntEnum):
    """What a worker is asked to do with a payload; the numbers are those in the request frame."""

    PREDICT = 1
    CLASSIFY = 2
    REGRESS = 3
    MULTI_INFERENCE = 4
    SESSION_RUN = 5


@dataclass(frozen=True, slots=True)
class RequestMetadata:
    """What travels with a request beside its payload.

    A larger ``priority`` leaves the gateway's queue earlier; equal ones leave in the order of arrival. It is what
    admission.priority makes of the client's PRIORITY_HEADER. ``traceparent`` is the W3C header's value, or empty.
    """

    priority: int = 0
    sampled: bool = False
    traceparent: bytes = b""


NO_METADATA = RequestMetadata()

# Of gRPC's metadata and of HTTP.
PRIORITY_HEADER = "x-priority"


@cache
def metadata_of_priority(priority: int) -> RequestMetadata:
    """Nothing but a priority; one of the three that there are."""
    return RequestMetadata(priority=priority)


@dataclass(frozen=True, slots=True)
class Reply:
    """A worker's successful answer.

    ``payload`` is a finished response message, e.g. a serialized PredictResponse. A large one is a memoryview into the
    frame it arrived in, valid for as long as the Reply is kept; a small one is bytes. ``queue_us`` and ``run_us`` are
    the microseconds the request waited and ran inside the worker. ``batch_rows`` and ``padding_rows`` describe the
    batch it ran in, and are 0 when it ran alone.
    """

    payload: bytes | memoryview
    queue_us: int
    run_us: int
    batch_rows: int
    padding_rows: int


class OnEnd(Protocol):
    """Hears once how a request has ended, on the loop that submitted it; not after a cancel."""

    def __call__(self, code: int, message: bytes, reply: Reply | None) -> None:
        """``reply`` is None unless the code is that of OK; the message is UTF-8. Must neither block nor raise."""
        ...


class Cancellable(Protocol):
    """The dispatcher's side of a Call."""

    def cancel(self) -> object:
        """The submitter has lost interest. Idempotent; on the submitter's thread. What it returns is of no matter."""


class Call:
    """One submitted request: await it once for its Reply, or cancel it.

    Awaiting raises ServingError with the code and message a client may see. When the awaiting task is itself
    cancelled, the request goes on in the worker until somebody calls ``cancel``.
    """

    __slots__ = ("_future", "_request")

    def __init__(self, future: "asyncio.Future[Reply]", request: Cancellable) -> None:
        self._future = future
        self._request = request

    def __await__(self) -> Generator[Any, None, Reply]:
        return self._future.__await__()

    def cancel(self) -> None:
        """Completes the call with CANCELLED unless it has completed, and tells the worker to skip it if it can.

        Idempotent, never blocks; only from the thread that submitted. The version stays pinned until the worker's own
        final reply, since it may be running the request.
        """
        self._request.cancel()
