"""The deadlines of all pending requests, on one timer.

Beside the dispatcher, on the edge loop's thread. An event loop's timer for each request costs more than the rest of the
dispatching, and hardly any ever fires. So requests lie in buckets by the moment they are to be looked at: adding and
removing is a dictionary's work, and the loop has one timer, for the earliest bucket.

Source: of the idea, hashed and hierarchical timing wheels (Varghese and Lauck, 1987), here with two levels.
"""

import math
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Protocol

from tensorgate.gateway.core.clock import Clock
from tensorgate.gateway.dispatch.pending_request import PendingRequest

# A deadline fires at most one tick late, and never early.
TICKS_PER_S = 200

# Far deadlines share a bucket per second, which is opened one to two seconds before they are due and dealt out to
# single ticks: or else an hour's deadline would keep an hour's worth of ticks.
FAR_S = 2.0

# Loops count in milliseconds: a shorter delay might mean none, again and again.
MIN_DELAY_S = 0.001


class TimerHandle(Protocol):
    """What asyncio's call_later returns."""

    def cancel(self) -> None: ...


class Timers(Protocol):
    """The part of an event loop that deadlines need; tests put a manual one in its place."""

    def call_later(self, delay: float, callback: Callable[[], None], /) -> TimerHandle:
        """Calls ``callback()`` on the edge loop in ``delay`` seconds."""
        ...


class Deadlines:
    """Calls ``expire(request)`` once for every request added and not removed, when its ``deadline_s`` has passed.

    ``expire`` may add and remove requests, and is not called for a settled one.
    """

    def __init__(self, timers: Timers, clock: Clock, expire: Callable[[PendingRequest], None]) -> None:
        self._timers = timers
        self._clock = clock
        self._expire = expire
        # Every key of _buckets is in the heap _ticks once; an emptied bucket stays until its tick, to keep it so.
        self._buckets: dict[int, dict[PendingRequest, None]] = {}
        self._ticks: list[int] = []
        self._timer: TimerHandle | None = None

    def __len__(self) -> int:
        return sum(len(bucket) for bucket in self._buckets.values())

    def add(self, request: PendingRequest, deadline_s: float, now_s: float) -> None:
        """Watches over a request; both times are in seconds of the clock's ``monotonic_s``."""
        tick = math.ceil(deadline_s * TICKS_PER_S)
        if deadline_s - now_s > FAR_S:
            tick = (tick // TICKS_PER_S - 1) * TICKS_PER_S
        request.deadline_tick = tick
        bucket = self._buckets.get(tick)
        if bucket is not None:
            bucket[request] = None
            return
        self._buckets[tick] = {request: None}
        heappush(self._ticks, tick)
        if self._ticks[0] == tick:
            self._arm(now_s)

    def remove(self, request: PendingRequest) -> None:
        """Forgets a request that was added, if its deadline has not passed."""
        bucket = self._buckets.get(request.deadline_tick)
        if bucket is not None:
            bucket.pop(request, None)

    def close(self) -> None:
        """Forgets everything and stops the timer."""
        self._buckets.clear()
        self._ticks.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, now_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay_s = max(MIN_DELAY_S, self._ticks[0] / TICKS_PER_S - now_s)
        self._timer = self._timers.call_later(delay_s, self._fire)

    def _fire(self) -> None:
        self._timer = None
        now_s = self._clock.monotonic_s()
        while self._ticks and self._ticks[0] <= now_s * TICKS_PER_S:
            for request in self._buckets.pop(heappop(self._ticks)):
                if request.is_settled or request.deadline_s is None:
                    continue
                if request.deadline_s <= now_s:
                    self._expire(request)
                else:
                    self.add(request, request.deadline_s, now_s)
        if self._ticks:
            self._arm(now_s)
