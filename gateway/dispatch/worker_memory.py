"""The memory that the gateway shares with workers of its own host: what each one is started with.

Beside both lines, between the supervisor and the native dispatchers: large requests are received into one memory that
all local workers map, and each incarnation of a worker gets one of its own for its large replies. Descriptors pass by
inheritance, so a worker that was started otherwise, on another host or past a program that closes them, has none, says
so by not attaching, and is sent everything.

Source: _native/request_memory and reply_memory.
"""

import logging
import os

from tensorgate._native.reply_memory import ReplyMemory
from tensorgate._native.request_memory import RequestMemory

logger = logging.getLogger("tensorgate.worker_memory")


class WorkerOffer:
    """What one incarnation is started with; ``close`` once it has been."""

    def __init__(self, request_fd: int, replies: ReplyMemory, threshold_bytes: int) -> None:
        self._request_fd = request_fd
        self.replies = replies
        self.flags = (
            f"--request_memory_fd={request_fd}",
            f"--reply_memory_fd={replies.fd}",
            f"--shared_memory_threshold_bytes={threshold_bytes}",
        )
        self.fds = (request_fd, replies.fd)

    def close(self) -> None:
        """Closes the descriptors, which the worker has or never will have."""
        os.close(self._request_fd)
        self.replies.close_fd()


class WorkerMemory:
    """The memory for requests, ``size_bytes`` long, and what each worker gets; payloads below the threshold are sent.

    For the edge loop's thread.
    """

    def __init__(self, size_bytes: int, threshold_bytes: int) -> None:
        """Raises OSError or MemoryError where the system has none, ValueError for a size that it cannot have."""
        self.requests = RequestMemory(size_bytes, threshold_bytes)
        self._size_bytes = size_bytes
        self._threshold_bytes = threshold_bytes

    def offer(self) -> WorkerOffer | None:
        """For one start of a worker; None, with a line in the log, where the system has no memory or descriptors."""
        request_fd = -1
        try:
            request_fd = self.requests.open_for_reading()
            return WorkerOffer(request_fd, ReplyMemory(self._size_bytes), self._threshold_bytes)
        except (OSError, MemoryError) as error:
            if request_fd >= 0:
                os.close(request_fd)
            logger.warning("a worker starts without shared memory: %s", error)
            return None


def make_worker_memory(size_bytes: int, threshold_bytes: int) -> WorkerMemory | None:
    """None for a size of 0, and, with a line in the log, where the system has no such memory."""
    if not size_bytes:
        return None
    try:
        return WorkerMemory(size_bytes, threshold_bytes)
    except (OSError, MemoryError, ValueError) as error:
        logger.warning("no memory is shared with workers: %s", error)
        return None
