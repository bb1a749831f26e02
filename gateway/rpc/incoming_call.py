"""A gRPC call as a handler in Python sees it, whichever edge it came by.

For the methods that the data plane does not serve itself. Belongs to the edge loop's thread.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from tensorgate.protos.status_codes import Code, ServingError

# What a client hears of a fault in a handler.
UNEXPECTED_TEXT = "Unexpected error in the server; its log has it."

Metadata = Sequence[tuple[str, str | bytes]]


class IncomingCall(Protocol):
    """One call. A handler that returns ends it with OK; one that raises ServingError ends it with that status.

    When the client cancels, or its deadline passes, the handler's task is cancelled.
    """

    @property
    def path(self) -> str:
        """``/package.Service/Method``."""
        ...

    @property
    def metadata(self) -> Metadata:
        """What the client sent, keys in lower case; values of ``-bin`` keys are bytes."""
        ...

    @property
    def deadline_s(self) -> float | None:
        """In seconds of time.monotonic(); None without one."""
        ...

    async def read(self) -> bytes | None:
        """The next message, serialized; None when the client sends no more."""
        ...

    async def write(self, message: bytes) -> None:
        """Sends a message; waits while the client takes nothing."""
        ...


Handler = Callable[[IncomingCall], Awaitable[None]]


def unary(answer: Callable[[bytes], bytes]) -> Handler:
    """A handler that answers one message with one; ``answer`` must not block, and may raise ServingError."""

    async def handle(call: IncomingCall) -> None:
        request = await call.read()
        if request is None:
            # As gRPC's own deserializer answers.
            raise ServingError(Code.INTERNAL, "")
        await call.write(answer(request))

    return handle


def unary_async(answer: Callable[[bytes], Awaitable[bytes]]) -> Handler:
    """As ``unary``, for an answer that takes its time; it is cancelled with the call."""

    async def handle(call: IncomingCall) -> None:
        request = await call.read()
        if request is None:
            raise ServingError(Code.INTERNAL, "")
        await call.write(await answer(request))

    return handle
