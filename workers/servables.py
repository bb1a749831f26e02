"""The servables a worker has loaded, by the handle that the gateway gave them.

Stands between the data loop, which owns it (no lock: only that thread touches it), and the control commands, which
reach it through the data loop's mailbox. A servable is retired first and closed when its last run is over.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from tensorgate._native.session import Session


@dataclass(slots=True)
class Servable:
    """One loaded version. ``in_flight`` counts its requests that are submitted and not yet answered."""

    name: str
    version: int
    session: Session
    in_flight: int = 0
    when_idle: Callable[[], None] | None = field(default=None)


class Servables:
    """Handle to servable; every method is for the data loop's thread."""

    def __init__(self) -> None:
        self._by_handle: dict[int, Servable] = {}

    def add(self, handle: int, servable: Servable) -> None:
        self._by_handle[handle] = servable

    def acquire(self, handle: int) -> Servable | None:
        """The servable with one more request in flight, or None when the handle is unknown or retired."""
        servable = self._by_handle.get(handle)
        if servable is not None:
            servable.in_flight += 1
        return servable

    def release(self, servable: Servable) -> None:
        """A request acquired before has been answered."""
        servable.in_flight -= 1
        if servable.in_flight == 0 and servable.when_idle is not None:
            servable.when_idle()

    def retire(self, handle: int, when_idle: Callable[[Servable | None], None]) -> None:
        """Makes the handle unknown; calls ``when_idle`` once, when its last request has been answered.

        That may be at once. With None when there is no such handle.
        """
        servable = self._by_handle.pop(handle, None)
        if servable is None or servable.in_flight == 0:
            when_idle(servable)
        else:
            servable.when_idle = lambda: when_idle(servable)

    def take_all(self) -> list[Servable]:
        """Empties the table, for the end of the process; nothing may be in flight."""
        servables = list(self._by_handle.values())
        self._by_handle.clear()
        return servables
