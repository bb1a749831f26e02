"""The /metrics page of a running server."""

import pathlib

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.harness.model_server import ModelServer, StartServer, floats, predict_request, wait_until


def metrics_of(server: ModelServer) -> dict[tuple[str, ...], float]:
    status, text = server.rest("GET", "/metrics")
    assert status == 200
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize("edge", ["native", "grpcio"])
def test_requests_are_counted_and_the_edge_is_named(
    start_server: StartServer, saved_models: pathlib.Path, edge: str
) -> None:
    server = start_server(
        "--model_name=m", f"--model_base_path={saved_models / 'half_plus_two'}", f"--grpc_edge={edge}"
    )
    for _ in range(5):
        server.prediction.Predict(predict_request("m", x=floats(4)), timeout=10)
    assert server.rest("POST", "/v1/models/m:predict", b'{"instances": [1]}')[0] == 200
    # Counters may be a moment old.
    wait_until(lambda: metrics_of(server)["tensorgate_requests_total", "succeeded"] == 6, "all requests are counted")
    found = metrics_of(server)
    assert found["tensorgate_grpc_edge", edge, edge] == 1
    assert found["tensorgate_grpc_edge_fallback",] == 0
    assert found["tensorgate_requests_outstanding",] == 0
    if edge == "native":
        assert found["tensorgate_grpc_calls_total", "succeeded"] == 5
        assert found["tensorgate_grpc_connections_accepted_total",] >= 1
