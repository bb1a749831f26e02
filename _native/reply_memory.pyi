from typing_extensions import Buffer, Self, disjoint_base

_Place = tuple[int, int, int]

@disjoint_base
class ReplyMemory:
    """Memory of ``size`` bytes for the replies of one incarnation of a worker: the gateway's end of it.

    The memory lives on until the last reply in it is given back. Any thread. Raises ValueError for a size out of range,
    OSError where the kernel has none.
    """

    fd: int
    """Its descriptor, for the worker; -1 once closed."""

    def __new__(cls, size: int) -> Self: ...
    def close(self) -> None:
        """The worker is dead, and no line to it is left. Idempotent; the rest is of no use then."""

    def close_fd(self) -> None:
        """The worker has been started: nobody else needs the descriptor. Idempotent."""

    @property
    def size(self) -> int:
        """All of it, in bytes."""

    @property
    def held_bytes(self) -> int:
        """Of replies that the worker has told of and that are not given back."""

    @property
    def num_full(self) -> int:
        """How many replies found no room, as the worker has it."""

    @property
    def is_attached(self) -> bool:
        """Whether the worker has mapped it, and the memory of requests."""

    def get(self, place: _Place) -> bytes | None:
        """A copy of the reply at (offset, size, generation), which is given back; None: there is none. For tests."""

@disjoint_base
class SharedReplies:
    """The worker's end: maps ReplyMemory's descriptor, for replies of ``threshold`` bytes or more.

    Raises OSError for any other descriptor.
    """

    def __new__(cls, fd: int, threshold: int) -> Self: ...
    def attach(self) -> None:
        """Lets the gateway know that this worker reads requests from shared memory, and writes replies into it."""

    def put(self, content: Buffer, tell: bool = True) -> _Place | None:
        """Writes it into a block, which is the gateway's to give back then, or, if it is not to be told of it, given
        back at once; None: no block. For tests."""

    @property
    def used(self) -> int:
        """Bytes of the blocks that are taken."""
