"""Whose a worker is that listens on the network: one gateway's, from its hello until it is silent for too long.

Beside the command line of the worker. A worker that its gateway has left ends, and with it everything that the gateway
had loaded; who started it starts it again, empty, for whichever gateway comes next.
"""

import threading
import time
from collections.abc import Callable


class Lease:
    """Held by one peer of the control socket; ``renew`` is for that socket's thread."""

    def __init__(self, timeout_s: float, on_lapse: Callable[[], None]) -> None:
        """``on_lapse`` is called once, on a thread of the lease's own, ``timeout_s`` after the holder's last word."""
        self._timeout_s = timeout_s
        self._on_lapse = on_lapse
        self._holder: bytes | None = None
        self._last_s = 0.0

    def renew(self, peer: bytes, *, takes: bool) -> bool:
        """A word of a peer's; one that ``takes`` gets the lease if nobody has it. Whether it is the peer's."""
        if self._holder is None and takes:
            self._last_s = time.monotonic()
            self._holder = peer
            threading.Thread(target=self._watch, name="lease", daemon=True).start()
        if peer != self._holder:
            return False
        self._last_s = time.monotonic()
        return True

    def _watch(self) -> None:
        while (left_s := self._last_s + self._timeout_s - time.monotonic()) > 0:
            time.sleep(left_s)
        self._on_lapse()
