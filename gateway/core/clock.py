"""Time, as the control plane asks for it: passed in, so that tests can move it by hand."""

import time
from typing import Protocol


class Clock(Protocol):
    """Both readings may be taken from any thread."""

    def monotonic_s(self) -> float:
        """Seconds since some fixed moment; never goes back."""
        ...

    def time_us(self) -> int:
        """Microseconds since 1970, for people to read."""
        ...


class SystemClock:
    """The machine's clocks."""

    def monotonic_s(self) -> float:
        return time.monotonic()

    def time_us(self) -> int:
        return time.time_ns() // 1000
