"""What the versions of a model are up to: the lookup behind GetModelStatus, for both edges.

Reads the state monitor; any thread, never blocks.

Source: tensorflow_serving/model_servers/get_model_status_impl.cc.
"""

from collections.abc import Sequence
from typing import Protocol

from tensorgate.gateway.core.servable_state import ServableState
from tensorgate.protos.status_codes import Code, ServingError


class StateMonitor(Protocol):
    """The part of ServableStateMonitor that is read here."""

    def versions(self, name: str) -> Sequence[ServableState]:
        """All known versions of a model, largest first, those that have ended included; empty if there are none."""
        ...


def version_states(monitor: StateMonitor, name: str, version: int | None) -> Sequence[ServableState]:
    """The states of one version, or of all known ones, largest first.

    Raises ServingError NOT_FOUND, with upstream's texts, when there is none.
    """
    states = monitor.versions(name)
    if version is not None:
        states = [state for state in states if state.id.version == version]
        if not states:
            raise ServingError(Code.NOT_FOUND, f"Could not find version {version} of model {name}")
    if not states:
        raise ServingError(Code.NOT_FOUND, f"Could not find any versions of model {name}")
    return states
