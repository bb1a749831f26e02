"""The metrics of models and workers on the /metrics page, under names by Prometheus' own rules.

Beside both lines; read when the page is asked for, from any thread: the native threads' counts of requests, the states
of versions, and what workers last said of themselves.

Source: Prometheus' naming practices; nothing upstream corresponds to it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from tensorgate._native.request_stats import LATENCY_LIMITS_US, ROW_LIMITS
from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.servable_state import ManagerState, ServableState
from tensorgate.gateway.monitoring.access_log import method_name
from tensorgate.gateway.monitoring.request_totals import MethodTotals, RequestTotals
from tensorgate.protos.status_codes import Code

# Of TensorFlow Serving's buckets every second one: from 10 µs in steps of 3.24.
_LATENCY_BOUNDS = tuple((index, f"{LATENCY_LIMITS_US[index] / 1e6:.6g}") for index in range(0, 33, 2))
_ROW_BOUNDS = tuple((index, f"{limit:g}") for index, limit in enumerate(ROW_LIMITS))

_REQUEST_LABELS = ("model", "version", "signature", "method")
_LATENCIES: Mapping[str, tuple[str, Callable[[MethodTotals], tuple[Sequence[int], int]]]] = {
    "tensorgate_request_duration_seconds": (
        "Time in gateway and worker of requests that succeeded, without reading and writing JSON.",
        lambda totals: totals.total,
    ),
    "tensorgate_queue_duration_seconds": (
        "Time that requests which succeeded waited in a worker.",
        lambda totals: totals.queue,
    ),
    "tensorgate_run_duration_seconds": ("Time that requests which succeeded ran.", lambda totals: totals.run),
}


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """What is known of one worker; ``rss_bytes`` is 0 until it has said."""

    name: str
    is_up: bool
    num_starts: int
    rss_bytes: int
    num_handed: int
    num_queued: int


class LoadTimes:
    """How long versions took from LOADING to AVAILABLE; fed by the event bus, read from any thread."""

    def __init__(self) -> None:
        self._began_us: dict[ServableId, int] = {}
        self._seconds: dict[ServableId, float] = {}

    def take(self, state: ServableState) -> None:
        """A subscriber of the event bus."""
        if state.state is ManagerState.LOADING:
            self._began_us[state.id] = state.time_us
        elif state.state is ManagerState.AVAILABLE and state.id in self._began_us:
            self._seconds[state.id] = (state.time_us - self._began_us.pop(state.id)) / 1e6
        elif state.state is ManagerState.END:
            self._began_us.pop(state.id, None)
            self._seconds.pop(state.id, None)

    @property
    def seconds(self) -> Mapping[ServableId, float]:
        """Of the versions that are there."""
        return dict(self._seconds)


class ModelCollector(Collector):
    """Yields the metrics of models, their requests, and workers."""

    def __init__(
        self,
        totals: RequestTotals,
        unrouted: Callable[[], Mapping[tuple[str, int, int], int]],
        load_times: LoadTimes,
        states: Callable[[], Iterable[ServableState]],
        in_flight: Callable[[], Mapping[tuple[str, int], int]],
        workers: Callable[[], Iterable[WorkerStatus]],
    ) -> None:
        """``unrouted``: DataPlane.unrouted. ``in_flight``: (model, version) to requests that use the version."""
        self._totals = totals
        self._unrouted = unrouted
        self._load_times = load_times
        self._states = states
        self._in_flight = in_flight
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        """One metric after the other."""
        by_version = {
            (name, str(version), signature, method_name(method)): totals
            for (name, version, signature, method), totals in sorted(self._totals.by_version().items())
        }
        yield from self._requests(by_version)
        for name, (text, histogram_of) in _LATENCIES.items():
            latency = HistogramMetricFamily(name, text, labels=_REQUEST_LABELS)
            for labels, totals in by_version.items():
                buckets, sum_us = histogram_of(totals)
                latency.add_metric(labels, _cumulated(buckets, _LATENCY_BOUNDS), sum_us / 1e6)
            yield latency
        yield from self._models()
        yield from self._worker_metrics()

    def _requests(self, by_version: Mapping[tuple[str, str, str, str], MethodTotals]) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "tensorgate_model_requests",
            "Requests by their end; an empty version: none was found; signature other: not one of the version's.",
            labels=[*_REQUEST_LABELS, "code"],
        )
        for labels, totals in by_version.items():
            for code, number in enumerate(totals.by_code):
                if number:
                    requests.add_metric([*labels, Code.of(code).name], number)
        for (name, method, code), number in sorted(self._unrouted().items()):
            requests.add_metric([name, "", "", method_name(method), Code.of(code).name], number)
        yield requests
        rows = HistogramMetricFamily(
            "tensorgate_batch_rows", "Rows of the batches that requests ran in.", labels=_REQUEST_LABELS
        )
        counters: list[tuple[CounterMetricFamily, Callable[[MethodTotals], float]]] = [
            (
                CounterMetricFamily("tensorgate_request_bytes", "Bytes of requests.", labels=_REQUEST_LABELS),
                lambda totals: totals.request_bytes,
            ),
            (
                CounterMetricFamily("tensorgate_response_bytes", "Bytes of responses.", labels=_REQUEST_LABELS),
                lambda totals: totals.reply_bytes,
            ),
            (
                CounterMetricFamily("tensorgate_padding_rows", "Rows that filled batches up.", labels=_REQUEST_LABELS),
                lambda totals: totals.padding_rows,
            ),
        ]
        for labels, totals in by_version.items():
            rows.add_metric(labels, _cumulated(totals.rows[0], _ROW_BOUNDS), totals.rows[1])
            for family, number_of in counters:
                family.add_metric(labels, number_of(totals))
        yield rows
        for family, _ in counters:
            yield family

    def _models(self) -> Iterator[Metric]:
        in_flight = GaugeMetricFamily(
            "tensorgate_model_requests_in_flight",
            "Requests that use a version, waiting ones included.",
            labels=["model", "version"],
        )
        for (name, version), number in self._in_flight().items():
            in_flight.add_metric([name, str(version)], number)
        yield in_flight
        state_family = GaugeMetricFamily(
            "tensorgate_model_state", "1 for the state that a version is in.", labels=["model", "version", "state"]
        )
        for state in self._states():
            state_family.add_metric([state.id.name, str(state.id.version), state.state.name], 1)
        yield state_family
        load = GaugeMetricFamily(
            "tensorgate_model_load_seconds",
            "How long a version took to load and warm up.",
            labels=["model", "version"],
        )
        for servable_id, seconds in self._load_times.seconds.items():
            load.add_metric([servable_id.name, str(servable_id.version)], seconds)
        yield load

    def _worker_metrics(self) -> Iterator[Metric]:
        workers = list(self._workers())
        gauges: tuple[tuple[str, str, Callable[[WorkerStatus], float]], ...] = (
            ("tensorgate_worker_up", "Whether a worker is up.", lambda worker: int(worker.is_up)),
            (
                "tensorgate_worker_resident_memory_bytes",
                "A worker's memory, by its last heartbeat.",
                lambda worker: worker.rss_bytes,
            ),
            (
                "tensorgate_worker_requests_handed",
                "Requests that a worker was handed and has not answered.",
                lambda worker: worker.num_handed,
            ),
            (
                "tensorgate_worker_queue_depth",
                "Requests that wait in the gateway for a worker.",
                lambda worker: worker.num_queued,
            ),
        )
        for name, text, number_of in gauges:
            gauge = GaugeMetricFamily(name, text, labels=["worker"])
            for worker in workers:
                gauge.add_metric([worker.name], number_of(worker))
            yield gauge
        restarts = CounterMetricFamily(
            "tensorgate_worker_restarts", "How often a worker was started again.", labels=["worker"]
        )
        for worker in workers:
            restarts.add_metric([worker.name], max(0, worker.num_starts - 1))
        yield restarts


def _cumulated(buckets: Sequence[int], bounds: Iterable[tuple[int, str]]) -> list[tuple[str, float]]:
    """For prometheus_client: (limit, requests up to it); one equal to a limit is above it, as upstream."""
    so_far = list(accumulate(buckets))
    return [*((text, so_far[index]) for index, text in bounds), ("+Inf", so_far[-1])]
