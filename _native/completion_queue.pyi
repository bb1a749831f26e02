from typing import Any

from typing_extensions import Buffer, Self, disjoint_base

from tensorgate._native.data_plane import DataPlane
from tensorgate._native.route_table import PublishedVersion

@disjoint_base
class ReplyBuffer(Buffer):
    """A reply's payload in the frame it arrived in, exposed through the buffer protocol."""

    def __new__(cls) -> Self: ...

@disjoint_base
class Submission:
    """One request of Python's on its way. Belongs to the thread of its queue."""

    def cancel(self) -> bool:
        """Forgets the outcome, and tells the worker to skip the request if it can.

        False if it was cancelled before, or ``drain`` has given its outcome out.
        """

@disjoint_base
class CompletionQueue:
    """Submits requests to one of the plane's threads and collects their outcomes.

    All methods belong to one thread, and none blocks. Requests that are under way when the queue is dropped go on, and
    nobody hears of their outcomes.
    """

    def __new__(cls, plane: DataPlane) -> Self: ...
    @property
    def event_fd(self) -> int:
        """Readable when ``drain`` has something to do; owned by the queue."""

    @property
    def num_pending(self) -> int:
        """Requests submitted and neither drained nor cancelled."""

    def submit(
        self,
        owner: object,
        version: PublishedVersion,
        method: int,
        payload: Buffer,
        priority: int = 0,
        sampled: bool = False,
        traceparent: bytes = b"",
        deadline_us: int = -1,
    ) -> Submission:
        """Starts one request on a pinned version, and takes the pin over.

        ``owner`` comes back with the outcome. A large payload is not copied but held, and must not change, until its
        message has been sent. ``deadline_us`` is of the monotonic clock, -1 for none. If this raises, the pin is still
        the caller's: MemoryError, BufferError, or RuntimeError when the plane is closed.
        """

    def drain(self) -> list[tuple[Any, int, bytes, bytes | memoryview, int, int, int, int]]:
        """What has ended: (owner, code, message, payload, queue_us, run_us, batch_rows, padding_rows).

        The message is UTF-8 and empty for code 0. A large payload is a view of the frame it arrived in; an error's is
        empty.
        """
