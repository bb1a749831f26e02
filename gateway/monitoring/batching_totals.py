"""What workers say of the requests that they merge, and of warm-ups, added up for the metrics pages.

Beside both lines: workers tell with every heartbeat, and the numbers are added up when a page is asked for, so they may
be a second old. From any thread.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, repeat
from operator import mul
from typing import Any

from tensorgate.gateway.dispatch.worker_client import LoadedServable

# The number of a worker's incarnation, and what it last said of its queues: WorkerHealth.batch_queues.
Report = tuple[int, Sequence[Mapping[str, Any]]]
Histogram = tuple[Sequence[int], int]

# Between the buckets, as TensorFlow Serving has them: of waiting times in microseconds, and of numbers of rows.
WAIT_LIMITS_US = tuple(accumulate(repeat(1.2, 51), mul, initial=100.0))
POWER_LIMITS = tuple(float(2**i) for i in range(14))

_NOTHING: Histogram = ((), 0)


@dataclass(slots=True)
class BatchCounts:
    """Of one queue or several; times in microseconds, histograms as (numbers by bucket, sum), empty without any."""

    requests: int = 0
    rows: int = 0
    batches: int = 0
    padding_rows: int = 0
    refused: int = 0
    expired: int = 0
    waiting: int = 0
    queue_us: int = 0
    run_us: int = 0
    waits: Histogram = _NOTHING
    request_sizes: Histogram = _NOTHING
    batch_sizes: Histogram = _NOTHING
    paddings: dict[int, Histogram] = field(default_factory=dict)
    """By the size that batches were padded to, where there are allowed sizes."""

    def add(self, other: "BatchCounts") -> None:
        """Counts the other's too."""
        self.requests += other.requests
        self.rows += other.rows
        self.batches += other.batches
        self.padding_rows += other.padding_rows
        self.refused += other.refused
        self.expired += other.expired
        self.waiting += other.waiting
        self.queue_us += other.queue_us
        self.run_us += other.run_us
        self.waits = _sum(self.waits, other.waits)
        self.request_sizes = _sum(self.request_sizes, other.request_sizes)
        self.batch_sizes = _sum(self.batch_sizes, other.batch_sizes)
        for size, padding in other.paddings.items():
            self.paddings[size] = _sum(self.paddings.get(size, _NOTHING), padding)


def counts_of(queue: Mapping[str, Any]) -> BatchCounts:
    """Of one queue, as DataLoop.batch_queues tells it."""
    return BatchCounts(
        queue["requests"],
        queue["rows"],
        queue["batches"],
        queue["padding_rows"],
        queue["refused"],
        queue["expired"],
        queue["waiting"],
        queue["queue_us"],
        queue["run_us"],
        (queue["waits"], queue["queue_us"]),
        (queue["request_sizes"], queue["request_rows"]),
        (queue["batch_sizes"], queue["rows"] + queue["padding_rows"]),
        {size: (buckets, rows) for size, buckets, rows in queue["paddings"] if any(buckets)},
    )


def _sum(one: Histogram, other: Histogram) -> Histogram:
    if not one[0] or not other[0]:
        return one if one[0] else other
    return [mine + theirs for mine, theirs in zip(one[0], other[0], strict=True)], one[1] + other[1]


class BatchingTotals:
    """By signature while its version is there, and altogether for ever: those numbers never go down."""

    def __init__(self, reports: Callable[[], Iterable[Report]]) -> None:
        self._reports = reports
        self._lock = threading.Lock()  # guards the rest
        self._last: dict[tuple[int, int, str, str, str], BatchCounts] = {}
        self._gone = BatchCounts()

    def by_signature(self) -> dict[tuple[str, str, str], BatchCounts]:
        """(model, version, signature) to what was counted, of versions that are loaded."""
        found: dict[tuple[str, str, str], BatchCounts] = {}
        with self._lock:
            for (_, _, *labels), counts in self._read().items():
                name, version, signature = labels
                found.setdefault((name, version, signature), BatchCounts()).add(counts)
        return found

    def altogether(self) -> BatchCounts:
        """Of versions that are gone, too."""
        total = BatchCounts()
        with self._lock:
            present = self._read()
            total.add(self._gone)
            for counts in present.values():
                total.add(counts)
        return total

    def _read(self) -> Mapping[tuple[int, int, str, str, str], BatchCounts]:
        """With the lock."""
        present: dict[tuple[int, int, str, str, str], BatchCounts] = {}
        for number, queues in self._reports():
            for queue in queues:
                key = (number, queue["handle"], queue["name"], str(queue["version"]), queue["signature"])
                present.setdefault(key, BatchCounts()).add(counts_of(queue))
        for key in self._last.keys() - present.keys():
            self._last[key].waiting = 0
            self._gone.add(self._last[key])
        self._last = present
        return present


class WarmupTotals:
    """Warm-ups that have ended well, by the version's folder."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the rest
        self._records: dict[str, int] = {}
        self._times_us: dict[str, list[int]] = {}

    def take(self, path: str, loaded: LoadedServable) -> None:
        """LoadOptions.on_loaded: counts what had something to warm up with."""
        if loaded.num_warmup_records:
            with self._lock:
                self._records[path] = self._records.get(path, 0) + loaded.num_warmup_records
                self._times_us.setdefault(path, []).append(loaded.warmup_us)

    def read(self) -> dict[str, tuple[int, list[int]]]:
        """Records, and the microseconds that each warm-up took, by folder."""
        with self._lock:
            return {path: (count, list(self._times_us[path])) for path, count in self._records.items()}
