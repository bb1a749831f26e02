from collections.abc import Sequence
from typing import Literal

from typing_extensions import Buffer, Self, disjoint_base

EVENT_START: Literal[1]
EVENT_MESSAGE: Literal[2]
EVENT_END: Literal[3]
EVENT_DRAINED: Literal[4]
EVENT_CLOSED: Literal[5]

@disjoint_base
class HandledCall:
    """One call of a method that Python serves; made by ``GrpcEdge.take_events``. Nothing blocks; any thread.

    What is sent after the call is over (EVENT_CLOSED) goes nowhere.
    """

    method: int  # the index in GrpcEdge's methods
    metadata: Sequence[tuple[bytes, bytes]]  # as it came: values of -bin keys are base64
    deadline_us: int  # monotonic clock, -1: none

    def __new__(cls) -> Self:
        """One that is over."""

    def send(self, message: Buffer, reports: bool = False) -> None:
        """Sends a message, which is copied; EVENT_DRAINED tells when one that ``reports`` has left for the socket."""

    def finish(self, code: int, message: bytes = b"") -> None:
        """The status (UTF-8, cut to 1,024 bytes), after what was sent. Only the first one counts."""

    def acknowledge(self, size: int) -> None:
        """So many bytes of messages have been taken: the client may send as many more."""
