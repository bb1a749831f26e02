"""The last minutes of traffic, a sample a second: rates, requests in flight, latency and batches.

Beside the request line, which knows nothing of it: counters that the native threads keep anyway are read, and the
difference between two readings is a sample. Owned by the edge loop's thread.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

SAMPLE_INTERVAL_S = 1.0
MAX_SAMPLES = 300

# The name under which the traffic of the whole server goes; a version's is "name:version".
EVERYTHING = ""


@dataclass(frozen=True, slots=True)
class TrafficTotals:
    """What has been counted since the start; None or empty for what is not counted."""

    num_succeeded: int
    num_failed: int
    num_outstanding: int
    """Not a total: requests that wait or run now."""
    latencies_us: tuple[tuple[float, int], ...] = ()
    """Requests by how long they took: (upper bound in µs, how many), bounds ascending, not cumulative."""
    num_batches: int | None = None
    num_batched: int | None = None
    """Requests, or examples, that those batches held."""


class TrafficSource(Protocol):
    """Where the counters are."""

    def totals(self) -> Mapping[str, TrafficTotals]:
        """By name: ``EVERYTHING``, and versions where they are counted each. On the edge loop; never blocks."""
        ...


@dataclass(frozen=True, slots=True)
class TrafficSample:
    """One interval. ``number`` counts samples from 1 on; None for what is not counted or had no request."""

    number: int
    succeeded_per_s: float
    failed_per_s: float
    num_outstanding: int
    median_ms: float | None
    p99_ms: float | None
    mean_batch: float | None


class CounterTraffic:
    """A TrafficSource over the dispatcher's counters: the whole server's requests by their end."""

    def __init__(self, counters: Callable[[], Mapping[str, int]], num_outstanding: Callable[[], int]) -> None:
        self._counters = counters
        self._num_outstanding = num_outstanding

    def totals(self) -> Mapping[str, TrafficTotals]:
        """TrafficSource."""
        counters = self._counters()
        num_failed = sum(counters[name] for name in ("failed", "deadline_exceeded", "refused"))
        return {EVERYTHING: TrafficTotals(counters["succeeded"], num_failed, self._num_outstanding())}


class TrafficHistory:
    """The samples of the last ``MAX_SAMPLES`` intervals. ``sample`` is called once an interval."""

    def __init__(self, source: TrafficSource) -> None:
        self._source = source
        self._before: Mapping[str, TrafficTotals] = {}
        self._before_s = 0.0
        self._number = 0
        self._samples: dict[str, deque[TrafficSample]] = {}

    def sample(self, now_s: float) -> None:
        """Reads the counters; ``now_s`` is a monotonic time. The first reading is only what the next one is from."""
        totals = self._source.totals()
        interval_s = now_s - self._before_s
        if self._before and interval_s > 0:
            self._number += 1
            for name, now in totals.items():
                before = self._before.get(name)
                if before is not None:
                    samples = self._samples.setdefault(name, deque(maxlen=MAX_SAMPLES))
                    samples.append(_sample(self._number, before, now, interval_s))
        for name in self._samples.keys() - totals.keys():
            del self._samples[name]
        self._before, self._before_s = totals, now_s

    def names(self) -> list[str]:
        return sorted(self._samples)

    def after(self, name: str, number: int) -> list[TrafficSample]:
        """The samples of one name with larger numbers, oldest first; none for a name that is not known."""
        return [each for each in self._samples.get(name, ()) if each.number > number]


def _sample(number: int, before: TrafficTotals, now: TrafficTotals, interval_s: float) -> TrafficSample:
    counted = dict(before.latencies_us)
    latencies = [(bound, num - counted.get(bound, 0)) for bound, num in now.latencies_us]
    mean_batch = None
    if now.num_batches is not None and now.num_batched is not None:
        num_batches = now.num_batches - (before.num_batches or 0)
        mean_batch = (now.num_batched - (before.num_batched or 0)) / num_batches if num_batches > 0 else None
    return TrafficSample(
        number,
        # Counters that began anew, with a version that was loaded again, must not show as a negative rate.
        max(0, now.num_succeeded - before.num_succeeded) / interval_s,
        max(0, now.num_failed - before.num_failed) / interval_s,
        now.num_outstanding,
        _quantile_ms(latencies, 0.5),
        _quantile_ms(latencies, 0.99),
        mean_batch,
    )


def _quantile_ms(latencies: Sequence[tuple[float, int]], quantile: float) -> float | None:
    """The quantile of a histogram, taken as even within its buckets; None where nothing was counted."""
    total = sum(num for _, num in latencies)
    if total <= 0:
        return None
    rank = quantile * total
    lower = 0.0
    for upper, num in latencies:
        if num > 0 and rank <= num:
            # The last bucket has no end: its beginning is all that is known.
            return lower / 1e3 if upper == float("inf") else (lower + (upper - lower) * rank / num) / 1e3
        rank -= max(num, 0)
        lower = upper
    return lower / 1e3
