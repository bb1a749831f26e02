"""Tells subscribers of events, at once and in order.

Between the manager and whoever watches states (monitor, health, metrics). Publishing happens on the edge loop's thread.

Source: tensorflow_serving/util/event_bus.h.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

Event = TypeVar("Event")


class EventBus(Generic[Event]):
    """``publish`` calls every subscriber, in the order of subscription, before it returns.

    A subscriber must neither block nor raise; one that is removed during a publish may still hear of that event.
    """

    def __init__(self) -> None:
        self._subscribers: list[Callable[[Event], None]] = []

    def subscribe(self, callback: Callable[[Event], None]) -> Callable[[], None]:
        """Adds a subscriber; the returned call removes it again and is idempotent."""
        self._subscribers.append(callback)

        def unsubscribe() -> None:
            if callback in self._subscribers:
                self._subscribers.remove(callback)

        return unsubscribe

    def publish(self, event: Event) -> None:
        for callback in list(self._subscribers):
            callback(event)
