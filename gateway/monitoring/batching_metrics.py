"""What merging does to requests, on the /metrics page: by model, version and signature.

Beside both lines; read when the page is asked for, from any thread.

Source: Prometheus' naming practices; nothing upstream corresponds to it.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from tensorgate.gateway.monitoring.batching_totals import WAIT_LIMITS_US, BatchCounts, BatchingTotals

# Of TensorFlow Serving's buckets every fourth one: from 100 µs in steps of 2.07.
_WAIT_BOUNDS = tuple((index, f"{WAIT_LIMITS_US[index] / 1e6:.6g}") for index in range(0, len(WAIT_LIMITS_US), 4))
_LABELS = ("model", "version", "signature")

_COUNTERS: Mapping[str, tuple[str, Callable[[BatchCounts], float]]] = {
    "tensorgate_batching_requests": (
        "Requests that ran in batches; each part of one that was split counts.",
        lambda counts: counts.requests,
    ),
    "tensorgate_batching_batches": ("Batches that ran.", lambda counts: counts.batches),
    "tensorgate_batching_rows": ("Rows of these batches, without padding.", lambda counts: counts.rows),
    "tensorgate_batching_padding_rows": ("Rows that filled them up.", lambda counts: counts.padding_rows),
    "tensorgate_batching_run_seconds": ("Time that batches ran.", lambda counts: counts.run_us / 1e6),
    "tensorgate_batching_refused": ("Requests that a full queue refused.", lambda counts: counts.refused),
    "tensorgate_batching_expired": (
        "Requests that were cancelled or too late when their batch ran.",
        lambda counts: counts.expired,
    ),
}


class BatchingCollector(Collector):
    """Yields the metrics of batching."""

    def __init__(self, totals: BatchingTotals) -> None:
        self._totals = totals

    def collect(self) -> Iterator[Metric]:
        """One metric after the other."""
        by_signature = self._totals.by_signature()
        for name, (text, number_of) in _COUNTERS.items():
            counter = CounterMetricFamily(name, text, labels=_LABELS)
            for labels, counts in by_signature.items():
                counter.add_metric(labels, number_of(counts))
            yield counter
        waiting = GaugeMetricFamily("tensorgate_batching_rows_waiting", "Rows that wait for a batch.", labels=_LABELS)
        waits = HistogramMetricFamily(
            "tensorgate_batching_wait_seconds", "Time that requests waited for their batch to run.", labels=_LABELS
        )
        for labels, counts in by_signature.items():
            waiting.add_metric(labels, counts.waiting)
            buckets, sum_us = counts.waits
            so_far = list(accumulate(buckets))
            limits = [*((text, so_far[index]) for index, text in _WAIT_BOUNDS), ("+Inf", so_far[-1])]
            waits.add_metric(labels, limits, sum_us / 1e6)
        yield waiting
        yield waits
