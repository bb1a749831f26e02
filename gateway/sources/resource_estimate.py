"""Guesses how much memory a version will take from the size of its files, and holds versions to a budget of it.

On a version's line, beside the source that found it. Blocks on the file system; any thread.

Source: tensorflow_serving/servables/tensorflow/util.cc and bundle_factory_util.cc (what is summed up, and the factor).
"""

import asyncio
import os
from collections.abc import Callable

from tensorgate.gateway.core.resource_tracker import ResourceTracker
from tensorgate.gateway.core.source import ServableData

# Memory that a loaded model takes beyond its files' size.
FACTOR = 1.2


def estimated_bytes(path: str) -> int:
    """1.2 times the size of all files in the version's folder and below; what cannot be read counts nothing."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += os.stat(os.path.join(folder, name)).st_size
            except OSError:  # the load that follows says it better
                continue
    return round(total * FACTOR)


def tracker_of_files(budget_bytes: int, num_copies: Callable[[str], int]) -> ResourceTracker | None:
    """Of that budget, for as many copies as a model, by its name, will have; None where there is no budget."""
    if budget_bytes == 0:
        return None

    async def estimate(data: ServableData) -> int:
        return num_copies(data.id.name) * await asyncio.to_thread(estimated_bytes, data.path)

    return ResourceTracker(budget_bytes, estimate)
