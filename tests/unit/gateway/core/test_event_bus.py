"""The event bus: who hears what, in which order, and what a faulty subscriber can do (nothing)."""

from collections.abc import Callable

import pytest

from tensorgate.gateway.core.event_bus import EventBus


def test_every_subscriber_hears_every_event_in_the_order_of_subscription() -> None:
    bus: EventBus[int] = EventBus()
    heard: list[tuple[str, int]] = []
    bus.subscribe(lambda event: heard.append(("first", event)))
    bus.subscribe(lambda event: heard.append(("second", event)))
    bus.publish(1)
    bus.publish(2)
    assert heard == [("first", 1), ("second", 1), ("first", 2), ("second", 2)]


def test_publishing_to_nobody_does_nothing() -> None:
    EventBus[int]().publish(1)


def test_a_subscriber_hears_nothing_of_what_was_before() -> None:
    bus: EventBus[int] = EventBus()
    heard: list[int] = []
    bus.publish(1)
    bus.subscribe(heard.append)
    bus.publish(2)
    assert heard == [2]


def test_who_has_left_hears_nothing_more_and_may_leave_again() -> None:
    bus: EventBus[int] = EventBus()
    left: list[int] = []
    stayed: list[int] = []
    leave = bus.subscribe(left.append)
    bus.subscribe(stayed.append)
    bus.publish(1)
    leave()
    leave()
    bus.publish(2)
    assert (left, stayed) == ([1], [1, 2])


def test_a_callback_that_is_subscribed_twice_leaves_once_at_a_time() -> None:
    bus: EventBus[int] = EventBus()
    heard: list[int] = []
    leave = bus.subscribe(heard.append)
    bus.subscribe(heard.append)
    leave()
    leave()
    bus.publish(1)
    assert heard == [1]


def test_a_subscriber_that_raises_is_logged_and_keeps_nobody_else_from_hearing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bus: EventBus[int] = EventBus()
    heard: list[int] = []

    def raises(event: int) -> None:
        raise RuntimeError(f"cannot take {event}")

    bus.subscribe(raises)
    bus.subscribe(heard.append)
    bus.publish(7)
    assert heard == [7]
    assert "cannot take 7" in caplog.text


def test_who_leaves_during_a_publish_keeps_nobody_else_from_hearing() -> None:
    bus: EventBus[int] = EventBus()
    heard: list[str] = []
    leave: list[Callable[[], None]] = []

    def hears_once(_event: int) -> None:
        heard.append("once")
        leave[0]()

    leave.append(bus.subscribe(hears_once))
    bus.subscribe(lambda _event: heard.append("always"))
    bus.publish(1)
    bus.publish(2)
    assert heard == ["once", "always", "always"]


def test_who_comes_during_a_publish_hears_from_the_next_event_on() -> None:
    bus: EventBus[int] = EventBus()
    heard: list[int] = []
    leave: list[Callable[[], None]] = []

    def brings_another(_event: int) -> None:
        leave[0]()
        bus.subscribe(heard.append)

    leave.append(bus.subscribe(brings_another))
    bus.publish(1)
    bus.publish(2)
    assert heard == [2]
