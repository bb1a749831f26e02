"""Tells subscribers of events, at once and in order.

Between the manager and whoever watches states (monitor, health, metrics). Publishing happens on the edge loop's thread.

Source: tensorflow_serving/util/event_bus.h.
"""

import logging
from collections.abc import Callable
from typing import Generic, TypeVar

logger = logging.getLogger("tensorgate.event_bus")

Event = TypeVar("Event")


class EventBus(Generic[Event]):
    """``publish`` calls every subscriber, in the order of subscription, before it returns.

    A subscriber must neither block nor publish. One that raises is logged, and neither the publisher nor the other
    subscribers notice: the life of a version must not hang on who watches it. Who is added during a publish does not
    hear of that event, who is removed may still hear of it.
    """

    def __init__(self) -> None:
        # Keyed by subscription, not by callback: one that is subscribed twice hears twice, and each ends by itself.
        self._subscribers: dict[object, Callable[[Event], None]] = {}

    def subscribe(self, callback: Callable[[Event], None]) -> Callable[[], None]:
        """Adds a subscriber; the returned call removes it again and is idempotent."""
        subscription = object()
        self._subscribers[subscription] = callback

        def unsubscribe() -> None:
            self._subscribers.pop(subscription, None)

        return unsubscribe

    def publish(self, event: Event) -> None:
        for callback in list(self._subscribers.values()):
            try:
                callback(event)
            except Exception:  # a fault of the subscriber's, whatever it is
                logger.exception("a subscriber failed on %s", event)
