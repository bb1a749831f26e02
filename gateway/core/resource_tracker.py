"""Holds loaded versions to a budget of memory: a version that cannot fit is not loaded.

On a version's line, asked by the manager before a version's first load attempt and told when it has left. Owned by the
edge loop's thread. Counts estimates only; what a version really takes is known when it is too late.

Source: tensorflow_serving/resources/resource_tracker.h; the refusal's first words are basic_manager.cc's.
"""

from collections.abc import Awaitable, Callable

from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.source import ServableData
from tensorgate.protos.status_codes import Code, ServingError


class ResourceTracker:
    """``reserve`` before a load, ``release`` after the unload or a load that has failed for good."""

    def __init__(self, budget_bytes: int, estimate: Callable[[ServableData], Awaitable[int]]) -> None:
        """``budget_bytes`` for all versions together; ``estimate``: what a version takes, in bytes, all its copies."""
        self._budget_bytes = budget_bytes
        self._estimate = estimate
        self._reserved: dict[ServableId, int] = {}

    @property
    def reserved_bytes(self) -> int:
        """Of all versions that are loaded or loading."""
        return sum(self._reserved.values())

    async def reserve(self, data: ServableData) -> None:
        """Sets the version's memory aside. Raises ServingError RESOURCE_EXHAUSTED if that is more than is left."""
        wanted = await self._estimate(data)
        left = self._budget_bytes - self.reserved_bytes
        if wanted > left:
            raise ServingError(
                Code.RESOURCE_EXHAUSTED,
                f"Insufficient resources to load servable {data.id}: it is expected to take {_mb(wanted)} MB, and"
                f" {_mb(max(left, 0))} of {_mb(self._budget_bytes)} MB are left (see --model_memory_budget_mb); it is"
                " tried again when another version has left",
            )
        self._reserved[data.id] = wanted

    def release(self, servable_id: ServableId) -> None:
        """The version is not in memory any more. Idempotent."""
        self._reserved.pop(servable_id, None)


def _mb(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 20):.1f}"
