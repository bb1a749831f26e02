"""Remembers the last state of every version there ever was.

End of a version's line: manager → event bus → monitor → GetModelStatus and the wait for the initial models. Fed on the
edge loop; read from any thread.

Source: tensorflow_serving/core/servable_state_monitor.h.
"""

import asyncio
from collections.abc import Iterable

from tensorgate.gateway.core.event_bus import EventBus
from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.servable_state import ManagerState, ServableState


class ServableStateMonitor:
    """Ended versions stay listed, with their error. Readers see whole, immutable values."""

    def __init__(self, bus: EventBus[ServableState]) -> None:
        # Per model an immutable tuple, largest version first, replaced at each change: readers need no lock.
        self._versions: dict[str, tuple[ServableState, ...]] = {}
        self._changed = asyncio.Event()
        bus.subscribe(self._take)

    def _take(self, state: ServableState) -> None:
        others = [each for each in self._versions.get(state.id.name, ()) if each.id != state.id]
        self._versions[state.id.name] = tuple(sorted([*others, state], key=lambda each: -each.id.version))
        self._changed.set()

    def names(self) -> list[str]:
        """Every model that ever had a version."""
        return list(self._versions)

    def versions(self, name: str) -> list[ServableState]:
        """All versions of a model, largest first; none for a model never heard of."""
        return list(self._versions.get(name, ()))

    def state(self, servable_id: ServableId) -> ServableState | None:
        """The last state of one version, None if it was never heard of."""
        for each in self._versions.get(servable_id.name, ()):
            if each.id == servable_id:
                return each
        return None

    async def wait_until_settled(self, names: Iterable[str]) -> dict[str, ServableState]:
        """Waits until each model has a version that is AVAILABLE or at its END, the largest such one; returns those.

        On the edge loop. Waits for ever for a model that never gets a version: the caller sets the limit.
        """
        wanted = list(names)
        while True:
            self._changed.clear()
            settled = {name: state for name in wanted if (state := self._settled(name)) is not None}
            if len(settled) == len(set(wanted)):
                return settled
            await self._changed.wait()

    def _settled(self, name: str) -> ServableState | None:
        for each in self._versions.get(name, ()):
            if each.state in (ManagerState.AVAILABLE, ManagerState.END):
                return each
        return None
