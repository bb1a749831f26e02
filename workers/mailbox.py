"""A mailbox: calls handed to the thread that owns something, which an eventfd wakes.

Used between the worker's threads, since a ZeroMQ socket and the table of servables each belong to one thread.

Source: eventfd(2).
"""

import os
import threading
from collections import deque
from collections.abc import Callable


class Mailbox:
    """Calls posted by any thread, run in order by the one thread that calls run_posted.

    ``event_fd`` is readable while calls are waiting. The owner closes the mailbox when its loop has ended; calls posted
    after that are dropped.
    """

    def __init__(self) -> None:
        self.event_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._posted: deque[Callable[[], None]] = deque()
        self._closed = False
        # Between posting and closing, or a byte might go to whatever file has got the descriptor's number since.
        # Reentrant, for a signal handler that posts while its own thread holds it.
        self._lock = threading.RLock()

    def post(self, call: Callable[[], None]) -> None:
        """Hands a call over; waits for nothing but another thread's hand-over. The call must not raise."""
        with self._lock:
            if not self._closed:
                self._posted.append(call)
                os.eventfd_write(self.event_fd, 1)

    def run_posted(self) -> None:
        """Runs what has been posted, on the owner's thread."""
        try:
            os.eventfd_read(self.event_fd)
        except BlockingIOError:  # nobody has rung since the last look
            return
        while self._posted:
            self._posted.popleft()()

    def close(self) -> None:
        """Drops what is waiting. On the owner's thread, once."""
        with self._lock:
            self._closed = True
            self._posted.clear()
            os.close(self.event_fd)
