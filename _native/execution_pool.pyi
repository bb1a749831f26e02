from typing_extensions import Buffer, Self, disjoint_base

from tensorgate._native.session import Session

@disjoint_base
class ResponseBuffer(Buffer):
    """A finished response message: a read-only buffer of bytes, empty for an error. Freed with the object."""

    def __len__(self) -> int: ...

@disjoint_base
class ExecutionPool:
    """Native threads that run requests. All methods belong to one thread, the worker's data loop.

    None of them blocks but ``stop`` (and ``submit``, for the microseconds of a request that it runs at once). Raises
    OSError when threads or the eventfd cannot be had, ValueError for num_threads < 1.
    """

    num_threads: int
    def __new__(cls, num_threads: int) -> Self: ...
    @property
    def event_fd(self) -> int:
        """Readable when requests have completed; owned by the pool."""

    @property
    def in_flight(self) -> int:
        """Requests submitted and not yet drained."""

    def submit(self, session: Session, request_id: int, method: int, payload: Buffer, remaining_us: int) -> bool:
        """Queues one request, or runs it at once if it is expected to take a few microseconds: then True.

        Session and payload are held, uncopied, until it is drained; one that ran at once does not ring ``event_fd``.

        remaining_us is the time left to its deadline, -1 for none. Raises ValueError for a request_id in flight.
        """

    def cancel(self, request_id: int) -> bool:
        """Drops a request that has not begun to run; it still completes, with CANCELLED. False when unknown."""

    def drain(self) -> list[tuple[int, int, bytes, int, int, bytes | ResponseBuffer, Session]]:
        """What has completed: (request_id, code, message, queue_us, run_us, response, session).

        A small response is bytes, a large one is taken over without a copy; an error's is empty.
        """

    def stop(self) -> None:
        """Runs what is queued, then ends the threads; blocks until they have. Idempotent."""

def predict_once(session: Session, payload: Buffer, remaining_us: int = -1) -> tuple[int, bytes, ResponseBuffer, int]:
    """One Predict on the calling thread: (code, message, response, run_us). For tests and benchmarks."""
