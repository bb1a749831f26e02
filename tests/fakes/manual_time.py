"""A clock and its timers, both moved by the test."""

from collections.abc import Callable
from typing import Any


class ManualTimer:
    """What call_later returns."""

    def __init__(self, due_s: float, callback: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        self.due_s = due_s
        self.callback = callback
        self.arguments = arguments
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class ManualTime:
    """Stands in for a Clock and for an event loop's call_later."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s
        self.timers: list[ManualTimer] = []

    def monotonic_s(self) -> float:
        return self.now_s

    def time_us(self) -> int:
        return round(self.now_s * 1e6)

    def call_later(self, delay: float, callback: Callable[..., object], *arguments: Any) -> ManualTimer:
        timer = ManualTimer(self.now_s + delay, callback, arguments)
        self.timers.append(timer)
        return timer

    @property
    def num_pending(self) -> int:
        return sum(not timer.is_cancelled for timer in self.timers)

    def advance(self, seconds: float) -> None:
        """Moves on, stopping at every timer that becomes due, those that timers start included."""
        end_s = self.now_s + seconds
        while True:
            self.timers = [timer for timer in self.timers if not timer.is_cancelled]
            due = [timer for timer in self.timers if timer.due_s <= end_s]
            if not due:
                break
            timer = min(due, key=lambda each: each.due_s)
            self.timers.remove(timer)
            self.now_s = max(self.now_s, timer.due_s)
            timer.callback(*timer.arguments)
        self.now_s = end_s
