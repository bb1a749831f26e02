from collections.abc import Sequence

from typing_extensions import Self, disjoint_base

from tensorgate._native.reply_memory import ReplyMemory
from tensorgate._native.request_memory import RequestMemory
from tensorgate._native.route_table import PublishedVersion, Routes

_Histogram = tuple[list[int], int]
_MethodRequests = tuple[int, int, list[int], _Histogram, _Histogram, _Histogram, _Histogram, int, int, int]
_VersionRequests = tuple[str, int, list[_MethodRequests]]
_RequestRecord = tuple[int, str, int, int, int, int, bool, bool, int, int, int, int, int, int, int, str]

@disjoint_base
class DataPlane:
    """Native threads, each with an event loop and a dispatcher, on a ZeroMQ context of their own.

    Between ``start`` and ``close`` the threads run; before ``start`` whatever is given to them is done at once on the
    calling thread, and requests wait. Methods may be called from any thread. Those that give something to the threads
    (``publish``, ``forget``, ``set_replicas``, ``add_line``, ``remove_line``) block for a turn of their loops, without
    the GIL; after ``close`` they do nothing.
    """

    num_threads: int
    is_closed: bool
    request_memory: RequestMemory | None
    """Where large requests go that workers read themselves; None: all are sent to them."""

    def __new__(cls, num_threads: int = 1, request_memory: RequestMemory | None = None) -> Self: ...
    def start(self) -> None: ...
    def close(self) -> None:
        """Fails what is outstanding with UNAVAILABLE and ends the threads and sockets. Idempotent.

        Edges must have stopped; completion queues may be drained afterwards.
        """

    def publish(self, routes: Routes) -> None:
        """When this returns, every thread uses the snapshot. The plane keeps its versions until they are drained."""

    def forget(self, version: PublishedVersion) -> None:
        """Lets a drained version go. Raises ValueError if it is not drained.

        Those that nobody asks to be forgotten go with a later ``publish``.
        """

    def set_replicas(self, version: PublishedVersion, replicas: Sequence[tuple[int, int]]) -> None:
        """Where a version is loaded: (line number, servable handle) of each copy."""

    @property
    def num_versions(self) -> int:
        """Versions that the plane keeps."""

    def add_line(
        self,
        number: int,
        epoch: int,
        name: str,
        data_endpoint: str,
        cancel_endpoint: str,
        credit: int,
        max_queued: int,
        max_queued_bytes: int,
        stream_path: str = "",
        reply_memory: ReplyMemory | None = None,
    ) -> None:
        """A worker's incarnation is up. ``number`` is never reused; credit (a version's) and bounds are each thread's.

        ``stream_path``: a unix socket that a worker of this host may listen on; requests go there instead of to the
        data endpoint if it does. ``reply_memory``: what the worker was given to write large replies into; once it says
        that it has it, large requests on the stream go by ``request_memory``. Raises OSError if its sockets cannot be
        opened.
        """

    def remove_line(self, number: int, cause: str) -> None:
        """It has died. What it was handed fails with UNAVAILABLE and ``cause``; what waited moves on or fails."""

    def line_load(self, number: int) -> tuple[int, int]:
        """(requests handed over, requests waiting); (0, 0) for a line that is not known."""

    @property
    def num_outstanding(self) -> int:
        """Requests whose worker has not replied, and those waiting, of all lines."""

    def counters(self) -> dict[str, int]:
        """Totals since start, by name as in DispatchCounters of dispatcher.pxd."""

    def shared_memory(self) -> dict[str, tuple[int, int, int]]:
        """Of "requests" and of "replies" (of all lines): (bytes, bytes in use, how often there was no room).

        Empty without ``request_memory``.
        """

    def request_stats(self) -> tuple[list[_VersionRequests], list[_VersionRequests]]:
        """What was counted so far: of versions that the plane keeps, and of those that went since the last call.

        A version: its model's name, its number, and a tuple for each entrypoint (0: Python's edges, 1: the native gRPC
        edge) and method that had a request: (entrypoint, method, requests by canonical code, total, queue and run
        times of those that succeeded, rows of batches, padding rows, request bytes, reply bytes). Times and rows are
        (requests by bucket, sum), in microseconds and with the limits of request_stats.
        """

    def unrouted(self) -> dict[tuple[str, int, int], int]:
        """Requests of the native gRPC edge that no version was found for: (model's name, method, code) to number.

        When there are many such names, later ones count together as ("", 0, 2).
        """

    def sample_requests(self, share: float, traces: bool = False) -> None:
        """Has requests that end recorded for ``take_records``, before ``start``.

        ``share``: of 0 to 1 of them at random. ``traces``: besides, all whose traceparent says that they are sampled.
        """

    def take_records(self) -> tuple[list[_RequestRecord], int]:
        """Records since the last call, each thread's in order; how many have been dropped so far for want of room.

        A record: (end in microseconds of the monotonic clock, model, version, method, request id, code, whether it came
        by the native gRPC edge, whether it is of the share, total, queue and run microseconds, rows of its batch,
        padding rows, request bytes, reply bytes, traceparent). A name is cut after 128 bytes.
        """

    def take_logged(self) -> tuple[list[tuple[int, str, int, int, bytes, bytes]], int]:
        """Requests that PublishedVersion.log_requests has kept since the last call, and how many it lost so far.

        Each: (end in microseconds of the monotonic clock, model, version, method, serialized request, response).
        """

    @property
    def num_timers(self) -> int:
        """Timers that are set, of deadlines and others. For tests, while the threads do not run."""

    def turn(self, run_timers: bool = True) -> None:
        """One turn of every loop on the calling thread, before ``start``. For tests."""
