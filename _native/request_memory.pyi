from typing_extensions import Buffer, Self, disjoint_base

_Place = tuple[int, int, int]

@disjoint_base
class RequestMemory:
    """Memory of ``size`` bytes for requests of ``threshold`` bytes or more: the gateway's end of it.

    Lives on until the last of its blocks is given back. Any thread. Raises ValueError for a size out of range, OSError
    where the kernel has none.
    """

    fd: int
    """Its descriptor, as long as this object is there."""

    def __new__(cls, size: int, threshold: int) -> Self: ...
    def open_for_reading(self) -> int:
        """A descriptor of the caller's that the memory can be mapped by for reading only. Raises OSError."""

    def put(self, content: Buffer) -> tuple[int, _Place] | None:
        """Copies it into a block: what ``give_back`` wants, and (offset, size, generation). For tests.

        None: there is no room for it.
        """

    def give_back(self, block: int) -> None:
        """The block of ``put``, once. For tests."""

    @property
    def size(self) -> int:
        """All of it, in bytes."""

    @property
    def used(self) -> int:
        """Bytes of the blocks that are taken."""

    @property
    def num_full(self) -> int:
        """How many requests found no room."""

@disjoint_base
class SharedRequests:
    """The worker's end: maps a descriptor of RequestMemory's. Raises OSError for any other."""

    def __new__(cls, fd: int) -> Self: ...
    def get(self, place: _Place) -> bytes | None:
        """A copy of the block there; None: there is none. For tests."""
