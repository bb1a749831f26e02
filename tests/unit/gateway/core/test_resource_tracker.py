"""The budget of memory: what fits, what does not, and that a place comes free again."""

import asyncio

import pytest

from tensorgate.gateway.core.resource_tracker import ResourceTracker
from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.source import ServableData
from tensorgate.protos.status_codes import Code, ServingError

MB = 1 << 20


def version_of_mb(number: int) -> ServableData:
    """Takes as many MB as its number."""
    return ServableData(ServableId("m", number), f"/models/m/{number}")


async def estimate(data: ServableData) -> int:
    return data.id.version * MB


def test_versions_are_taken_as_long_as_they_fit_and_leave_their_place_to_others() -> None:
    async def scenario() -> None:
        tracker = ResourceTracker(10 * MB, estimate)
        await tracker.reserve(version_of_mb(6))
        await tracker.reserve(version_of_mb(4))
        with pytest.raises(ServingError) as caught:
            await tracker.reserve(version_of_mb(1))
        assert (caught.value.code, caught.value.message) == (
            Code.RESOURCE_EXHAUSTED,
            "Insufficient resources to load servable {name: m version: 1}: it is expected to take 1.0 MB, and 0.0 of"
            " 10.0 MB are left (see --model_memory_budget_mb); it is tried again when another version has left",
        )
        for _ in range(2):
            tracker.release(ServableId("m", 6))
        assert tracker.reserved_bytes == 4 * MB
        await tracker.reserve(version_of_mb(1))

    asyncio.run(scenario())
