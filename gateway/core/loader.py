"""The seams behind the manager: how a version is loaded, and how requests get to it.

On a version's line: manager → loader harness → Loader → Publisher. Everything runs on the edge loop.

Source: tensorflow_serving/core/loader.h; upstream's manager publishes its own serving map.
"""

from collections.abc import Callable
from typing import Protocol

from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.source import ServableData


class Loader(Protocol):
    """One version's way into memory and out again. ``load`` may be tried again after it failed; never two at once."""

    async def load(self) -> None:
        """Returns when the version could serve. Raises ServingError, with nothing left behind."""

    async def unload(self) -> None:
        """Returns when its memory has been given back; only after a load that succeeded. Raises ServingError."""


LoaderFactory = Callable[[ServableData], Loader]


class Publisher(Protocol):
    """Makes loaded versions reachable, and unreachable."""

    async def publish(self, servable_id: ServableId, loader: Loader) -> None:
        """Returns when every request that arrives from now on can reach the version; if it raises, none can."""

    async def withdraw(self, servable_id: ServableId) -> None:
        """Returns when no new request can reach the version and the last that did has ended.

        If it raises, the version is unloaded all the same, and ends with that error.
        """
