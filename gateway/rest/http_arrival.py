"""What a connection waits for from its client, and for how long.

Beside http_connection, which says what comes and ends what takes too long. Pure: times are given, in seconds of the
loop's clock. On the REST loop.
"""

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class ArrivalLimits:
    """How long a client may keep a connection waiting, in seconds."""

    headers_s: float = 20.0
    """From the connection, or a later request's first byte, to the end of the headers."""
    body_s: float = 30.0
    """From one byte of the body to the next."""
    idle_s: float = 60.0
    """Between two requests."""
    answer_s: float = 60.0
    """Without taking any byte of its answer."""
    max_head_bytes: int = 64 * 1024
    """Bound of a request's URL and headers."""


class Awaited(Enum):
    """What of a request is awaited from the client."""

    FIRST_BYTE = "a request, on a new connection"
    HEADERS = "the rest of the headers"
    BODY = "the rest of the body"
    NOTHING = "nothing: a request is complete, or the connection idles"


class Arrival:
    """What of requests is still to come on one connection. Whoever gets something sets what is awaited then."""

    __slots__ = ("_limits", "_num_unsent_bytes", "_unsent_since_s", "awaited", "since_s")

    def __init__(self, limits: ArrivalLimits, now_s: float) -> None:
        """Of a new connection."""
        self._limits = limits
        self.awaited = Awaited.FIRST_BYTE
        self.since_s = now_s
        """When the client last brought it forward."""
        self._num_unsent_bytes = 0
        self._unsent_since_s = 0.0

    def is_overdue(self, now_s: float) -> bool:
        """Whether the client has kept us waiting for too long."""
        limits = self._limits
        match self.awaited:
            case Awaited.FIRST_BYTE | Awaited.HEADERS:
                limit_s = limits.headers_s
            case Awaited.BODY:
                limit_s = limits.body_s
            case Awaited.NOTHING:
                limit_s = limits.idle_s
        return now_s - self.since_s >= limit_s

    def complaint(self) -> str | None:
        """What to tell a client that is overdue; None where it has asked for nothing."""
        match self.awaited:
            case Awaited.HEADERS:
                return f"The request's headers did not arrive within {self._limits.headers_s:g} s."
            case Awaited.BODY:
                return f"No more of the request's body arrived within {self._limits.body_s:g} s."
            case _:
                return None

    def has_stuck_answer(self, num_unsent_bytes: int, now_s: float) -> bool:
        """Whether the client has long taken nothing of the bytes that wait to be sent; asked every now and then."""
        if num_unsent_bytes != self._num_unsent_bytes:
            self._num_unsent_bytes, self._unsent_since_s = num_unsent_bytes, now_s
        return num_unsent_bytes > 0 and now_s - self._unsent_since_s >= self._limits.answer_s
