"""The numbers of the /metrics page: collected from the native threads' counters when the page is asked for.

Beside both lines; nothing here is touched by a request. Counters are the native threads' own, each written by one
thread, so that reading them costs the hot path nothing; a value may be a moment old.

Source: the Prometheus text format, and its naming practices.
"""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

CONTENT_TYPE = CONTENT_TYPE_LATEST

# How gRPC calls and dispatched requests end: the counters' names are the labels' values.
_CALL_RESULTS = ("succeeded", "failed", "cancelled", "refused_for_memory")
_REQUEST_RESULTS = ("succeeded", "failed", "cancelled", "deadline_exceeded", "refused")

# Counters of the native gRPC edge and of the dispatcher, each with its metric and what the page says of it.
_EDGE_COUNTERS = {
    "accepted": ("tensorgate_grpc_connections_accepted", "gRPC connections that were accepted."),
    "closed": ("tensorgate_grpc_connections_closed", "gRPC connections that have ended."),
    "protocol_errors": ("tensorgate_grpc_protocol_errors", "Connections closed since they broke HTTP/2's rules."),
    "rapid_resets": ("tensorgate_grpc_rapid_resets", "Connections closed since they reset streams too fast."),
    "keepalive_deaths": ("tensorgate_grpc_keepalive_deaths", "Connections closed since no ping was answered."),
    "tls_failures": ("tensorgate_grpc_tls_failures", "Connections closed since their TLS handshake failed."),
    "received_bytes": ("tensorgate_grpc_received_bytes", "Bytes of gRPC messages received, as they came."),
    "sent_bytes": ("tensorgate_grpc_sent_bytes", "Bytes of gRPC messages sent."),
}
_DISPATCH_COUNTERS = {
    "rerouted": ("tensorgate_requests_rerouted", "Requests moved from a dead worker's queue to another worker."),
    "late_replies": ("tensorgate_late_replies", "Replies of workers to requests that had ended before."),
    "unknown_replies": ("tensorgate_unknown_replies", "Replies of workers to no request."),
    "foreign_replies": ("tensorgate_foreign_replies", "Messages of workers that were no reply of their incarnation."),
    "worker_deaths": ("tensorgate_worker_deaths", "Workers that ended without being told to."),
}


class ServerCollector(Collector):
    """Reads the counters of one server; from any thread.

    ``edge`` is the gRPC edge that serves and ``wanted_edge`` what --grpc_edge asked for; they differ where the native
    one cannot run. ``edge_counters`` is empty for an edge that does not count.
    """

    def __init__(
        self,
        edge: str,
        wanted_edge: str,
        edge_counters: Callable[[], Mapping[str, int]],
        dispatch_counters: Callable[[], Mapping[str, int]],
        num_outstanding: Callable[[], int],
        shared_memory: Callable[[], Mapping[str, tuple[int, int, int]]],
    ) -> None:
        self._edge = edge
        self._wanted_edge = wanted_edge
        self._edge_counters = edge_counters
        self._dispatch_counters = dispatch_counters
        self._num_outstanding = num_outstanding
        self._shared_memory = shared_memory

    def collect(self) -> Iterator[Metric]:
        """One metric after the other, read as they are asked for."""
        edge = GaugeMetricFamily(
            "tensorgate_grpc_edge", "1 for the gRPC edge that serves, and the one that was asked for.",
            labels=["edge", "wanted"],
        )  # fmt: skip
        edge.add_metric([self._edge, self._wanted_edge], 1)
        yield edge
        yield GaugeMetricFamily(
            "tensorgate_grpc_edge_fallback",
            "1 where grpcio, several times slower, stands in for the native gRPC edge.",
            value=int(self._edge != self._wanted_edge),
        )
        counters = self._edge_counters()
        if counters:
            yield _by_result("tensorgate_grpc_calls", "gRPC calls by their end.", counters, _CALL_RESULTS)
            yield from _plain(counters, _EDGE_COUNTERS)
        counters = self._dispatch_counters()
        yield _by_result("tensorgate_requests", "Requests to workers by their end.", counters, _REQUEST_RESULTS)
        yield from _plain(counters, _DISPATCH_COUNTERS)
        yield GaugeMetricFamily(
            "tensorgate_requests_outstanding",
            "Requests that wait for a worker or that one has.",
            value=self._num_outstanding(),
        )
        yield from _shared_memory(self._shared_memory())


def _by_result(name: str, text: str, counters: Mapping[str, int], results: tuple[str, ...]) -> Metric:
    family = CounterMetricFamily(name, text, labels=["result"])
    for result in results:
        family.add_metric([result], counters[result])
    return family


def _shared_memory(memories: Mapping[str, tuple[int, int, int]]) -> Iterator[Metric]:
    """``memories``: DataPlane.shared_memory."""
    names = ("tensorgate_shared_memory_bytes", "tensorgate_shared_memory_used_bytes", "tensorgate_shared_memory_full")
    size = GaugeMetricFamily(names[0], "Memory that gateway and workers share, for what.", labels=["holds"])
    used = GaugeMetricFamily(names[1], "Bytes of it that are in use.", labels=["holds"])
    full = CounterMetricFamily(
        names[2], "Requests and replies that found no room in it and were sent instead.", labels=["holds"]
    )
    for holds, (size_bytes, used_bytes, num_full) in memories.items():
        size.add_metric([holds], size_bytes)
        used.add_metric([holds], used_bytes)
        full.add_metric([holds], num_full)
    if memories:
        yield from (size, used, full)


def _plain(counters: Mapping[str, int], metrics: Mapping[str, tuple[str, str]]) -> Iterator[Metric]:
    for counter, (name, text) in metrics.items():
        yield CounterMetricFamily(name, text, value=counters[counter])


class MetricsPage:
    """The page's text, made anew each time; with what the kernel counts for this process."""

    def __init__(self, *collectors: Collector) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        for collector in collectors:
            self._registry.register(collector)

    def text(self) -> bytes:
        """In the format of CONTENT_TYPE, as UTF-8. Reads a few files of /proc; from any thread."""
        return generate_latest(self._registry)
