"""Remembers how each version came to its state: every state it was in, since when, and with which error.

End of a version's line, beside the ServableStateMonitor, which keeps the last state only. Owned by the edge loop's
thread.
"""

from collections import deque

from tensorgate.gateway.core.event_bus import EventBus
from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.servable_state import ManagerState, ServableState

# A version that is loaded and unloaded again and again keeps its last states, a model its last versions.
MAX_STATES = 16
MAX_VERSIONS = 32


class StateHistory:
    """Bounded: versions that have ended are forgotten, longest ended first, where a model has had too many."""

    def __init__(self, bus: EventBus[ServableState]) -> None:
        self._models: dict[str, dict[ServableId, deque[ServableState]]] = {}
        bus.subscribe(self._take)

    def _take(self, state: ServableState) -> None:
        versions = self._models.setdefault(state.id.name, {})
        # Put in again at the end: a dictionary keeps the order, here that of the last change.
        states = versions.pop(state.id, None) or deque(maxlen=MAX_STATES)
        versions[state.id] = states
        states.append(state)
        if len(versions) > MAX_VERSIONS:
            ended = (each for each, its in versions.items() if its[-1].state is ManagerState.END)
            if (oldest := next(ended, None)) is not None:
                del versions[oldest]

    def names(self) -> list[str]:
        """Every model that ever had a version, by name."""
        return sorted(self._models)

    def versions(self, name: str) -> list[list[ServableState]]:
        """The states of each version, oldest first, never empty; the largest version first."""
        versions = self._models.get(name, {})
        return [list(versions[each]) for each in sorted(versions, key=lambda each: -each.version)]
