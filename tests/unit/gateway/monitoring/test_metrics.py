"""The /metrics page: what it says of the counters it is given, in a form that Prometheus reads."""

from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

from tensorgate._native.data_plane import DataPlane
from tensorgate._native.request_memory import RequestMemory
from tensorgate.gateway.monitoring.metrics import MetricsPage, ServerCollector

EDGE_COUNTERS = {
    "accepted": 5,
    "closed": 3,
    "protocol_errors": 1,
    "rapid_resets": 0,
    "keepalive_deaths": 0,
    "tls_failures": 0,
    "succeeded": 100,
    "failed": 7,
    "cancelled": 2,
    "refused_for_memory": 1,
    "received_bytes": 12345,
    "sent_bytes": 678,
}


def read(page: MetricsPage) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page.text().decode())
        for sample in family.samples
    }


def make_page(edge: str, counters: Mapping[str, int]) -> MetricsPage:
    plane = DataPlane(1, RequestMemory(1 << 20, 1))
    return MetricsPage(
        ServerCollector(edge, "native", lambda: counters, plane.counters, lambda: 42, plane.shared_memory)
    )


def test_the_page_has_the_counters_of_the_edge_and_of_the_dispatcher() -> None:
    found = read(make_page("native", EDGE_COUNTERS))
    assert found["tensorgate_grpc_edge", "native", "native"] == 1
    assert found["tensorgate_grpc_edge_fallback",] == 0
    assert found["tensorgate_grpc_calls_total", "succeeded"] == 100
    assert found["tensorgate_grpc_calls_total", "refused_for_memory"] == 1
    assert found["tensorgate_grpc_connections_accepted_total",] == 5
    assert found["tensorgate_grpc_received_bytes_total",] == 12345
    assert found["tensorgate_requests_total", "deadline_exceeded"] == 0
    assert found["tensorgate_worker_deaths_total",] == 0
    assert found["tensorgate_requests_outstanding",] == 42
    assert found["tensorgate_shared_memory_bytes", "requests"] == 1 << 20
    assert found["tensorgate_shared_memory_used_bytes", "requests"] == 0
    assert found["tensorgate_shared_memory_full_total", "replies"] == 0
    assert found["process_resident_memory_bytes",] > 0


def test_the_edge_that_stands_in_says_so() -> None:
    found = read(make_page("grpcio", {}))
    assert found["tensorgate_grpc_edge", "grpcio", "native"] == 1
    assert found["tensorgate_grpc_edge_fallback",] == 1
    assert not any(name.startswith("tensorgate_grpc_calls") for name, *_ in found)
