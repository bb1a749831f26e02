"""Which version of a model to load or unload next: a pure function of the states of its versions.

On a version's line, asked by the manager after every change. No threads, no memory.

Source: tensorflow_serving/core/availability_preserving_policy.h, resource_preserving_policy.h.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from tensorgate.gateway.core.loader_harness import AT_REST, HarnessState


@dataclass(frozen=True, slots=True)
class VersionSnapshot:
    """One version of the model at this moment."""

    version: int
    state: HarnessState
    is_aspired: bool


class ActionKind(Enum):
    """What the manager can do with a version."""

    LOAD = "load"
    UNLOAD = "unload"


@dataclass(frozen=True, slots=True)
class PolicyAction:
    """Load a version that is new, or unload one that is ready."""

    kind: ActionKind
    version: int


class AspiredVersionPolicy(Protocol):
    """Given all versions of one model, the one thing to do now, or None.

    Asked again after the action has changed a state, until it answers None.
    """

    def next_action(self, versions: Sequence[VersionSnapshot]) -> PolicyAction | None: ...


class AvailabilityPreservingPolicy:
    """Never without a version that serves: loads the new one first, then unloads the old one."""

    def next_action(self, versions: Sequence[VersionSnapshot]) -> PolicyAction | None:
        aspired = [each for each in versions if each.is_aspired]
        stale = [each.version for each in versions if not each.is_aspired and each.state is HarnessState.READY]
        serves = any(each.state is HarnessState.READY for each in aspired)
        # Of several stale ones all but one may go before the new one is ready.
        if stale and (not aspired or serves or len(stale) > 1):
            return PolicyAction(ActionKind.UNLOAD, min(stale))
        return _load_highest(aspired)


class ResourcePreservingPolicy:
    """Never two at once: unloads the old version first, and loads the new one when the memory is back."""

    def next_action(self, versions: Sequence[VersionSnapshot]) -> PolicyAction | None:
        leaving = [each for each in versions if not each.is_aspired]
        for each in leaving:
            if each.state is HarnessState.READY:
                return PolicyAction(ActionKind.UNLOAD, each.version)
        if any(each.state not in AT_REST for each in leaving):
            return None
        return _load_highest([each for each in versions if each.is_aspired])


def _load_highest(aspired: Sequence[VersionSnapshot]) -> PolicyAction | None:
    new = [each.version for each in aspired if each.state is HarnessState.NEW]
    return PolicyAction(ActionKind.LOAD, max(new)) if new else None
