from typing import Final

from typing_extensions import Self, disjoint_base

UNIT: Final[int]
"""Blocks begin at multiples of it, in bytes, and are as long as multiples of it."""

@disjoint_base
class Blocks:
    """A map of the bytes from ``begin`` up to ``end``, for tests.

    Raises ValueError unless both are multiples of UNIT, with memory between them.
    """

    def __new__(cls, begin: int, end: int) -> Self: ...
    def take(self, size: int) -> int | None:
        """The offset of the lowest block that has room for ``size`` bytes; None: there is none."""

    def give_back(self, offset: int) -> None:
        """A block that was taken. Raises KeyError for any other offset."""

    def cover(self) -> list[tuple[int, int, bool]]:
        """(offset, size, whether it is free) of all blocks, in their order."""

    @property
    def used(self) -> int:
        """Bytes of the blocks that are taken."""

    @property
    def reached(self) -> int:
        """Where the highest block ended that was ever taken."""
