from collections.abc import Sequence

from typing_extensions import Self, disjoint_base

from tensorgate._native.route_table import PublishedVersion, Routes

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
    def __new__(cls, num_threads: int = 1) -> Self: ...
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
    ) -> None:
        """A worker's incarnation is up. ``number`` is never reused; credit (a version's) and bounds are each thread's.

        ``stream_path``: a unix socket that a worker of this host may listen on; requests go there instead of to the
        data endpoint if it does. Raises OSError if its sockets cannot be opened.
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

    @property
    def num_timers(self) -> int:
        """Timers that are set, of deadlines and others. For tests, while the threads do not run."""

    def turn(self, run_timers: bool = True) -> None:
        """One turn of every loop on the calling thread, before ``start``. For tests."""
