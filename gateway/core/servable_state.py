"""The state of one version as the manager publishes it: what GetModelStatus tells.

The value on the event bus between manager and monitor. Free of threads.

Source: tensorflow_serving/core/servable_state.h; the numbers are those of ModelVersionStatus.State.
"""

from dataclasses import dataclass
from enum import IntEnum

from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.protos.status_codes import ServingError


class ManagerState(IntEnum):
    """START → LOADING → AVAILABLE → UNLOADING → END, and from anywhere to END with an error."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True, slots=True)
class ServableState:
    """A version's state since ``time_us`` (microseconds since 1970); ``error`` says why it ended, None means well."""

    id: ServableId
    state: ManagerState
    error: ServingError | None
    time_us: int
