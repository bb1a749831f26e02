"""The seam between what finds versions and what manages them.

Start of a version's line: source → target (the manager).

Source: tensorflow_serving/core/source.h, target.h, servable_data.h.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tensorgate.gateway.core.servable_id import ServableId


@dataclass(frozen=True, slots=True)
class ServableData:
    """A version that should be served, and the folder that holds it."""

    id: ServableId
    path: str


class Target(Protocol):
    """Takes aspired versions: the whole wish for one model each time, not a change to the last one."""

    def set_aspired_versions(self, name: str, versions: Sequence[ServableData]) -> None:
        """From now on exactly these versions of the model are wanted; none of them: an empty sequence.

        For example ``[1, 2]`` and then ``[2, 3]`` asks for 3 to be loaded and 1 to be unloaded. All versions carry
        ``name``. Called on the edge loop, returns at once.
        """
