"""Counts of requests that Python's edges serve, as TensorFlow Serving's metrics have them: by model, end and API.

Beside the REST edge and the grpcio edge, whose threads alone count; the native edge's requests are counted natively.
Any thread reads.

Source: tensorflow_serving/servables/tensorflow/util.cc (RecordRequestLatency, RecordModelRequestCount).
"""

from bisect import bisect_right

from tensorgate._native.request_stats import LATENCY_LIMITS_US

# Clients choose the names, of models that exist and of others.
MAX_NUM_MODELS = 1000


class LatencyCounts:
    """How many requests took how long: one more bucket than LATENCY_LIMITS_US has limits, and the sum."""

    __slots__ = ("buckets", "sum_us")

    def __init__(self) -> None:
        self.buckets = [0] * (len(LATENCY_LIMITS_US) + 1)
        self.sum_us = 0

    def count(self, elapsed_us: int) -> None:
        """One request."""
        self.buckets[bisect_right(LATENCY_LIMITS_US, elapsed_us)] += 1
        self.sum_us += elapsed_us


class RequestCounts:
    """``by_status``: (model, name of the status code) to number. ``latencies``: (model, API), of what succeeded."""

    def __init__(self) -> None:
        self.by_status: dict[tuple[str, str], int] = {}
        self.latencies: dict[tuple[str, str], LatencyCounts] = {}

    def count(self, model: str, status: str, api: str, elapsed_us: int) -> None:
        """One request that has ended; ``elapsed_us`` counts for those whose ``status`` is OK."""
        key = (model, status)
        number = self.by_status.get(key)
        if number is None and len(self.by_status) >= MAX_NUM_MODELS:
            key = ("", status)
            number = self.by_status.get(key, 0)
        self.by_status[key] = (number or 0) + 1
        if status != "OK":
            return
        latency = self.latencies.get((model, api))
        if latency is None:
            if len(self.latencies) >= MAX_NUM_MODELS:
                return
            latency = self.latencies[model, api] = LatencyCounts()
        latency.count(elapsed_us)
