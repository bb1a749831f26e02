"""Remembers the last state of every version there ever was.

End of a version's line: manager → event bus → monitor → GetModelStatus and the wait for the initial models. Fed on the
edge loop; read from any thread.

Source: tensorflow_serving/core/servable_state_monitor.h.
"""

import asyncio
from collections.abc import Collection, Iterable, Sequence

from tensorgate.gateway.core.event_bus import EventBus
from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.servable_state import ManagerState, ServableState


class ServableStateMonitor:
    """Ended versions stay listed, with their error. Readers see whole, immutable values."""

    def __init__(self, bus: EventBus[ServableState]) -> None:
        # Per model an immutable tuple, largest version first, replaced at each change: readers need no lock.
        self._versions: dict[str, tuple[ServableState, ...]] = {}
        self._waiting: dict[str, tuple[ServableState, ...]] = {}
        self._changed = asyncio.Event()
        bus.subscribe(self._take)

    def _take(self, state: ServableState) -> None:
        others = [each for each in self._versions.get(state.id.name, ()) if each.id != state.id]
        self._versions[state.id.name] = tuple(sorted([*others, state], key=lambda each: -each.id.version))
        self._changed.set()

    def set_waiting(self, name: str, states: Sequence[ServableState]) -> None:
        """Replaces what is known of versions that the source has seen and not asked for yet; on the edge loop.

        They are listed among the model's versions, in place of one of the same number that has ended, and settle
        nothing.
        """
        if states:
            self._waiting[name] = tuple(states)
        else:
            self._waiting.pop(name, None)

    def names(self) -> list[str]:
        """Every model that ever had a version, or whose source has seen one."""
        return list(dict.fromkeys([*self._versions, *self._waiting]))

    def versions(self, name: str) -> list[ServableState]:
        """All versions of a model, largest first; none for a model never heard of."""
        known = self._versions.get(name, ())
        waiting = self._waiting.get(name, ())
        if not waiting:
            return list(known)
        states = {state.id.version: state for state in (*waiting, *known)}
        states |= {each.id.version: each for each in waiting if states[each.id.version].state is ManagerState.END}
        return [states[version] for version in sorted(states, reverse=True)]

    def state(self, servable_id: ServableId) -> ServableState | None:
        """The last state of one version, None if it was never heard of."""
        for each in self._versions.get(servable_id.name, ()):
            if each.id == servable_id:
                return each
        return None

    async def wait_until_settled(
        self, names: Iterable[str], since: Iterable[ServableState] = ()
    ) -> dict[str, ServableState]:
        """Waits until each model has a version that is AVAILABLE or at its END, the largest such one; returns those.

        States in ``since`` count for nothing: what was known before the models were asked for. On the edge loop. Waits
        for ever for a model that never gets a version: the caller sets the limit.
        """
        wanted = list(names)
        before = {id(state): state for state in since}
        while True:
            self._changed.clear()
            settled = {name: state for name in wanted if (state := self.settled(name, before)) is not None}
            if len(settled) == len(set(wanted)):
                return settled
            await self._changed.wait()

    async def wait_until_ended(self, names: Iterable[str]) -> None:
        """Waits until no version of these models is on its way in or out. On the edge loop; as long as that takes."""
        wanted = list(names)
        while True:
            self._changed.clear()
            if all(state.state is ManagerState.END for name in wanted for state in self._versions.get(name, ())):
                return
            await self._changed.wait()

    def settled(self, name: str, before: Collection[int] = ()) -> ServableState | None:
        """The largest version that is AVAILABLE or at its END, None if there is none.

        ``before``: the id()s of states that do not count.
        """
        for each in self._versions.get(name, ()):
            if each.state in (ManagerState.AVAILABLE, ManagerState.END) and id(each) not in before:
                return each
        return None
