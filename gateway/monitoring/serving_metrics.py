"""TensorFlow Serving's own metrics page, for dashboards that exist: its names, labels, buckets and form of text.

Beside both lines; made anew each time it is asked for, out of what the native threads and Python's edges have counted.
The text is written by a table here: prometheus_client would rename the counters.

Source: tensorflow_serving/util/prometheus_exporter.cc (the text), servables/tensorflow/util.cc and the files that it
names (the metrics).
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate

from tensorgate._native.request_stats import LATENCY_LIMITS_US
from tensorgate.gateway.dispatch.call import Method
from tensorgate.gateway.monitoring.batching_totals import (
    POWER_LIMITS,
    WAIT_LIMITS_US,
    BatchCounts,
    BatchingTotals,
    WarmupTotals,
)
from tensorgate.gateway.monitoring.request_counts import RequestCounts
from tensorgate.gateway.monitoring.request_totals import NATIVE_EDGE, RequestTotals
from tensorgate.protos.status_codes import Code

CONTENT_TYPE = "text/plain"
DEFAULT_PATH = "/monitoring/prometheus/metrics"

_PREFIX = "/tensorflow/serving/"

# Every metric of the page with its kind, in the order of the page; a line tells of each, whether it has points or not.
_METRICS = (
    ("batching_session/input_batch_size", "histogram"),
    ("batching_session/padding_size", "histogram"),
    ("batching_session/processed_batch_size", "histogram"),
    ("batching_session/queuing_latency", "histogram"),
    ("batching_session/wrapped_run_count", "counter"),
    ("mlmd_map", "gauge"),
    ("model_warmup_latency", "histogram"),
    ("model_warmup_records_read", "counter"),
    ("request_count", "counter"),
    ("request_example_count_total", "counter"),
    ("request_example_counts", "histogram"),
    ("request_latency", "histogram"),
    ("request_log_count", "counter"),
    ("runtime_latency", "histogram"),
)

# What upstream counts of gRPC's requests, and what it calls them.
_COUNTED_METHODS = {Method.PREDICT: "Predict", Method.CLASSIFY: "Classify", Method.REGRESS: "Regress"}
_RUN_METHODS = {**_COUNTED_METHODS, Method.MULTI_INFERENCE: "MultiInference"}

_Labels = tuple[tuple[str, str], ...]
_Histogram = tuple[Sequence[int], int]

# Of histograms that are not of times with LATENCY_LIMITS_US.
_LIMITS: Mapping[str, Sequence[float]] = {
    "batching_session/input_batch_size": POWER_LIMITS,
    "batching_session/padding_size": POWER_LIMITS,
    "batching_session/processed_batch_size": POWER_LIMITS,
    "batching_session/queuing_latency": WAIT_LIMITS_US,
}


class ServingMetrics:
    """Makes the page."""

    def __init__(
        self,
        totals: RequestTotals,
        unrouted: Callable[[], Mapping[tuple[str, int, int], int]],
        rest_counts: RequestCounts,
        grpcio_counts: RequestCounts,
        log_counts: Callable[[], Mapping[tuple[str, str], int]] = dict,
        batching: BatchingTotals | None = None,
        warmups: WarmupTotals | None = None,
    ) -> None:
        """``unrouted``: DataPlane.unrouted. ``log_counts``: requests logged, by (model, name of the status code)."""
        self._batching = batching
        self._warmups = warmups
        self._totals = totals
        self._unrouted = unrouted
        self._rest_counts = rest_counts
        self._grpcio_counts = grpcio_counts
        self._log_counts = log_counts

    def text(self) -> bytes:
        """The page, as UTF-8; from any thread."""
        counters = self._counters()
        histograms: dict[str, list[tuple[_Labels, _Histogram]]] = {
            "request_latency": self._request_latency(),
            "runtime_latency": self._runtime_latency(),
        }
        self._add_batching(counters, histograms)
        self._add_warmups(counters, histograms)
        lines: list[str] = []
        for name, kind in _METRICS:
            shown = metric_name(_PREFIX + name)
            lines.append(f"# TYPE {shown} {kind}\n")
            for labels, number in sorted(counters.get(name, [])):
                lines.append(f"{shown}{{{_label_text(labels)}}} {number}\n")
            for labels, histogram in sorted(histograms.get(name, [])):
                lines.extend(_histogram_lines(shown, labels, histogram, _LIMITS.get(name, LATENCY_LIMITS_US)))
        return "".join(lines).encode("utf-8", "surrogateescape")

    def first_point(self, path: str) -> int:
        """Where the first point of a counter stands, such as /tensorflow/serving/request_count; 0 for anything else."""
        points = self._counters().get(path.removeprefix(_PREFIX), []) if path.startswith(_PREFIX) else []
        return min(points)[1] if points else 0

    def _counters(self) -> dict[str, list[tuple[_Labels, int]]]:
        return {
            "request_count": self._request_count(),
            "request_log_count": [
                ((("model_name", model), ("status_code", status)), number)
                for (model, status), number in self._log_counts().items()
            ],
        }

    def _add_batching(
        self, counters: dict[str, list[tuple[_Labels, int]]], histograms: dict[str, list[tuple[_Labels, _Histogram]]]
    ) -> None:
        counts = BatchCounts() if self._batching is None else self._batching.altogether()
        if not counts.batches:
            return
        counters["batching_session/wrapped_run_count"] = [((), counts.batches)]
        histograms["batching_session/queuing_latency"] = [((("thread_pool_name", ""),), counts.waits)]
        histograms["batching_session/input_batch_size"] = [((), counts.request_sizes)]
        histograms["batching_session/processed_batch_size"] = [((), counts.batch_sizes)]
        histograms["batching_session/padding_size"] = [
            ((("execution_batch_size", str(size)),), padding) for size, padding in counts.paddings.items()
        ]

    def _add_warmups(
        self, counters: dict[str, list[tuple[_Labels, int]]], histograms: dict[str, list[tuple[_Labels, _Histogram]]]
    ) -> None:
        for path, (num_records, times_us) in ({} if self._warmups is None else self._warmups.read()).items():
            labels = (("model_path", path), ("status", "OK"))
            counters.setdefault("model_warmup_records_read", []).append((labels, num_records))
            buckets = [0] * (len(LATENCY_LIMITS_US) + 1)
            for time_us in times_us:
                buckets[bisect_right(LATENCY_LIMITS_US, time_us)] += 1
            histograms.setdefault("model_warmup_latency", []).append((labels, (buckets, sum(times_us))))

    def _request_count(self) -> list[tuple[_Labels, int]]:
        numbers: dict[tuple[str, str], int] = {}

        def add(model: str, status: str, number: int) -> None:
            numbers[model, status] = numbers.get((model, status), 0) + number

        for (model, entrypoint, method), totals in self._totals.by_model().items():
            if entrypoint == NATIVE_EDGE and method in _COUNTED_METHODS:
                for code, number in enumerate(totals.by_code):
                    if number:
                        add(model, Code.of(code).name, number)
        for (model, method, code), number in self._unrouted().items():
            if method in _COUNTED_METHODS:
                add(model, Code.of(code).name, number)
        for counts in (self._rest_counts, self._grpcio_counts):
            for (model, status), number in list(counts.by_status.items()):
                add(model, status, number)
        return [((("model_name", model), ("status", status)), number) for (model, status), number in numbers.items()]

    def _request_latency(self) -> list[tuple[_Labels, _Histogram]]:
        found: list[tuple[_Labels, _Histogram]] = [
            (_latency_labels(model, _COUNTED_METHODS[Method(method)], "GRPC"), totals.total)
            for (model, entrypoint, method), totals in self._totals.by_model().items()
            if entrypoint == NATIVE_EDGE and method in _COUNTED_METHODS and totals.by_code[Code.OK]
        ]
        for counts, entrypoint_name in ((self._rest_counts, "REST"), (self._grpcio_counts, "GRPC")):
            for (model, api), latency in list(counts.latencies.items()):
                found.append((_latency_labels(model, api, entrypoint_name), (latency.buckets, latency.sum_us)))
        return found

    def _runtime_latency(self) -> list[tuple[_Labels, _Histogram]]:
        runs: dict[tuple[str, str], _Histogram] = {}
        for (model, _, method), totals in self._totals.by_model().items():
            if method in _RUN_METHODS and totals.by_code[Code.OK]:
                key = (model, _RUN_METHODS[Method(method)])
                buckets, sum_us = totals.run
                if key in runs:
                    former, former_sum_us = runs[key]
                    buckets = [one + other for one, other in zip(former, buckets, strict=True)]
                    sum_us += former_sum_us
                runs[key] = (buckets, sum_us)
        return [
            ((("model_name", model), ("API", api), ("runtime", "TF1")), histogram)
            for (model, api), histogram in runs.items()
        ]


def _latency_labels(model: str, api: str, entrypoint: str) -> _Labels:
    return (("model_name", model), ("API", api), ("entrypoint", entrypoint))


def metric_name(path: str) -> str:
    """A metric's path as its name: a colon for what names cannot hold, an underscore before a leading digit."""
    name = re.sub(r"[^a-zA-Z0-9_]", ":", path)
    return f"_{name}" if name[:1].isdigit() else name


def _label_text(labels: _Labels) -> str:
    return ",".join(
        '{}="{}"'.format(re.sub("[^a-zA-Z0-9]", "_", name), value.replace("\\", "\\\\").replace('"', '\\"'))
        for name, value in labels
    )


def _histogram_lines(name: str, labels: _Labels, histogram: _Histogram, between: Sequence[float]) -> Iterable[str]:
    buckets, total_us = histogram
    text = _label_text(labels)
    limits = [f"{limit:g}" for limit in between] + ["+Inf"]
    separator = "," if text else ""
    for limit, number in zip(limits, accumulate(buckets), strict=True):
        yield f'{name}_bucket{{{text}{separator}le="{limit}"}} {number}\n'
    yield f"{name}_sum{{{text}}} {total_us}\n"
    yield f"{name}_count{{{text}}} {sum(buckets)}\n"
