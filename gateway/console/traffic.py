"""The last minutes of traffic, a sample a second: rates, requests in flight, latency and batches.

Beside the request line, which knows nothing of it: counters that the native threads keep anyway are read, and the
difference between two readings is a sample. Owned by the edge loop's thread.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tensorgate._native.request_stats import LATENCY_LIMITS_US
from tensorgate.gateway.monitoring.request_totals import MethodTotals, RequestTotals

_InFlight = Mapping[tuple[str, int], int]

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


class RequestTraffic:
    """A TrafficSource over what the native threads count of requests: the whole server's, and each version's."""

    def __init__(
        self, requests: RequestTotals, num_outstanding: Callable[[], int], in_flight: Callable[[], _InFlight]
    ) -> None:
        """``in_flight``: (model, version) to its requests that wait or run, of the versions that are served."""
        self._requests = requests
        self._num_outstanding = num_outstanding
        self._in_flight = in_flight

    def totals(self) -> Mapping[str, TrafficTotals]:
        """TrafficSource."""
        in_flight = self._in_flight()
        methods: dict[tuple[str, int], list[MethodTotals]] = {version: [] for version in in_flight}
        for (name, number, _, _), each in self._requests.by_version().items():
            if (name, number) in methods:
                methods[name, number].append(each)
        found = {f"{name}:{number}": _totals(each, in_flight[name, number]) for (name, number), each in methods.items()}
        return {EVERYTHING: _totals(self._requests.by_model().values(), self._num_outstanding()), **found}


def _totals(methods: Iterable[MethodTotals], num_outstanding: int) -> TrafficTotals:
    """Those of all the methods together."""
    num_succeeded = num_failed = num_batches = num_batched = 0
    buckets = [0] * (len(LATENCY_LIMITS_US) + 1)
    for each in methods:
        num_succeeded += each.by_code[0]
        num_failed += sum(each.by_code[1:])
        buckets = [mine + theirs for mine, theirs in zip(buckets, each.total[0], strict=True)]
        # Of a request that ran alone nothing is counted here.
        num_batches += sum(each.rows[0])
        num_batched += each.rows[1]
    latencies = tuple(zip((*LATENCY_LIMITS_US, LATENCY_LIMITS_US[-1]), buckets, strict=True))
    return TrafficTotals(
        num_succeeded,
        num_failed,
        num_outstanding,
        latencies,
        num_batches or None,
        num_batched if num_batches else None,
    )


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
