from typing_extensions import Buffer, Self, disjoint_base

from tensorgate._native.request_memory import RequestMemory

class MessageError(ValueError): ...

@disjoint_base
class Assembler:
    """The messages of one gRPC stream out of its bytes. For one thread at a time."""

    def __new__(cls, max_message_size: int, memory: RequestMemory | None = None) -> Self: ...
    def push(self, chunk: Buffer) -> list[tuple[bool, bytes]]:
        """The messages that ``chunk`` completes: (compressed, bytes). Raises MessageError; keeps no ``chunk``."""

    @property
    def held_bytes(self) -> int:
        """The memory held for a message that has begun."""

    @property
    def is_between_messages(self) -> bool:
        """Whether the stream may end here."""
