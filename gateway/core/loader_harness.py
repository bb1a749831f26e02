"""The life of one version inside the manager, as a state machine without I/O.

On a version's line: manager → harness → loader. Owned by the manager, on the edge loop.

Source: tensorflow_serving/core/loader_harness.h (states, transitions and error texts).
"""

from enum import Enum

from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.source import ServableData
from tensorgate.protos.status_codes import Code, ServingError


class HarnessState(Enum):
    """In the order of a full life; the values are upstream's debug names."""

    NEW = "new"
    LOAD_REQUESTED = "load-requested"
    LOAD_APPROVED = "load-approved"
    LOADING = "loading"
    READY = "ready"
    UNLOAD_REQUESTED = "unload-requested"
    QUIESCING = "quiescing"
    QUIESCED = "quiesced"
    UNLOADING = "unloading"
    DISABLED = "disabled"
    ERROR = "error"


S = HarnessState
TRANSITIONS: dict[HarnessState, tuple[HarnessState, ...]] = {
    S.NEW: (S.LOAD_REQUESTED, S.ERROR),
    S.LOAD_REQUESTED: (S.LOAD_APPROVED, S.ERROR),
    S.LOAD_APPROVED: (S.LOADING, S.ERROR),
    # A load that finishes after it was cancelled is undone at once.
    S.LOADING: (S.READY, S.UNLOADING, S.ERROR),
    S.READY: (S.UNLOAD_REQUESTED, S.ERROR),
    S.UNLOAD_REQUESTED: (S.QUIESCING, S.ERROR),
    S.QUIESCING: (S.QUIESCED, S.ERROR),
    S.QUIESCED: (S.UNLOADING, S.ERROR),
    S.UNLOADING: (S.DISABLED, S.ERROR),
    S.DISABLED: (S.ERROR,),
    S.ERROR: (),
}

# Neither loaded nor on the way: an un-aspired version in one of these is forgotten.
AT_REST = (S.NEW, S.DISABLED, S.ERROR)


class LoaderHarness:
    """State, wish and history of one version. ``num_attempts`` counts loads that have failed."""

    __slots__ = ("data", "error", "is_aspired", "num_attempts", "state")

    def __init__(self, data: ServableData) -> None:
        self.data = data
        self.state = HarnessState.NEW
        self.is_aspired = True
        self.num_attempts = 0
        self.error: ServingError | None = None

    @property
    def id(self) -> ServableId:
        return self.data.id

    def move_to(self, state: HarnessState) -> None:
        """Raises ServingError INTERNAL, naming both states, for a transition that does not exist."""
        if state not in TRANSITIONS[self.state]:
            raise ServingError(
                Code.INTERNAL, f"Illegal request to transition from state {self.state.value} to {state.value}"
            )
        self.state = state

    def begin_load(self) -> None:
        """NEW to LOADING. Raises ServingError FAILED_PRECONDITION when it was asked for before."""
        if self.state is not HarnessState.NEW:
            raise ServingError(Code.FAILED_PRECONDITION, "Duplicate load request")
        for state in (HarnessState.LOAD_REQUESTED, HarnessState.LOAD_APPROVED, HarnessState.LOADING):
            self.move_to(state)

    def begin_unload(self) -> None:
        """READY to QUIESCING. Raises ServingError FAILED_PRECONDITION when it is not loaded or already leaving."""
        if self.state is not HarnessState.READY:
            raise ServingError(Code.FAILED_PRECONDITION, "Servable not loaded, or unload already requested/ongoing")
        self.move_to(HarnessState.UNLOAD_REQUESTED)
        self.move_to(HarnessState.QUIESCING)

    def fail(self, error: ServingError) -> None:
        """To ERROR, from anywhere; the first error stays."""
        if self.state is not HarnessState.ERROR:
            self.error = error
            self.move_to(HarnessState.ERROR)
