"""The thread that writes a log, coming round once a second.

Beside both lines: what native threads have kept of requests is taken to Python's loggers and files there, so that no
request waits for a disk.
"""

import threading
from collections.abc import Callable

WRITE_INTERVAL_S = 1.0


class LogThread:
    """Calls ``write`` every second from ``start`` to ``stop``, and a last time then."""

    def __init__(self, name: str, write: Callable[[], None]) -> None:
        """``name``: the thread's."""
        self._name = name
        self._write = write
        self._stops = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Idempotent; does nothing after ``stop``."""
        if self._thread is None and not self._stops.is_set():
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Returns when what is left has been written; blocks. Idempotent; fine if it never started."""
        self._stops.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while not self._stops.wait(WRITE_INTERVAL_S):
            self._write()
        self._write()
