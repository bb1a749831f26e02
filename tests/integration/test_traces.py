"""Spans of a running server, as an OpenTelemetry collector gets them, of requests over gRPC and over REST."""

import http.server
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.harness.model_server import StartServer, floats, predict_request, wait_until

trace_service_pb2 = pytest.importorskip(
    "opentelemetry.proto.collector.trace.v1.trace_service_pb2",
    reason="opentelemetry-exporter-otlp-proto-http is not installed: the extra tracing brings it",
)

PARENT_ID = "b7ad6b7169203331"
GRPC_TRACE, PREDICT_TRACE, EXAMPLES_TRACE, BROKEN_TRACE, UNSAMPLED_TRACE = (f"{number:032x}" for number in range(1, 6))


class Collector:
    """Takes OTLP over HTTP; ``spans`` is what has come."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                request = trace_service_pb2.ExportTraceServiceRequest.FromString(body)
                for resource in request.resource_spans:
                    for scope in resource.scope_spans:
                        collector.spans.extend(scope.spans)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def tree(self, trace_id: str) -> dict[str, str]:
        """Names of the trace's spans, each with that of its parent, or the parent's id where that is not here."""
        spans = [span for span in self.spans if span.trace_id.hex() == trace_id]
        names = {span.span_id: span.name for span in spans}
        return {span.name: names.get(span.parent_span_id, span.parent_span_id.hex()) for span in spans}


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def traceparent(trace_id: str, flags: str = "01") -> str:
    return f"00-{trace_id}-{PARENT_ID}-{flags}"


def test_requests_over_grpc_and_rest_become_spans_under_their_clients(
    start_server: StartServer, model_config: Callable[..., str], collector: Collector
) -> None:
    server = start_server(
        model_config("half_plus_two", "examples"),
        "--tracing",
        environment={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.address},
    )
    server.prediction.Predict(
        predict_request("half_plus_two", x=floats(4)), timeout=10, metadata=[("traceparent", traceparent(GRPC_TRACE))]
    )
    predict, regress = "/v1/models/half_plus_two:predict", "/v1/models/examples:regress"
    for path, body, trace_id, flags in (
        (predict, b'{"instances": [1]}', PREDICT_TRACE, "01"),
        (predict, b'{"instances": [1]}', UNSAMPLED_TRACE, "00"),
        (regress, b'{"signature_name": "regress", "examples": [{"x": 1.0}]}', EXAMPLES_TRACE, "01"),
    ):
        headers = {"traceparent": traceparent(trace_id, flags)}
        assert server.rest("POST", path, body, headers=headers)[0] == 200
    assert server.rest("POST", predict, b"{", headers={"traceparent": traceparent(BROKEN_TRACE)})[0] == 400
    assert server.predict_rest("half_plus_two", {"instances": [1]})[0] == 200
    assert server.stop() == 0  # which sends what is left

    # Four requests are traced, of which one is no JSON and runs nowhere.
    wait_until(lambda: len(collector.spans) == 3 + 4 + 4 + 1, "all spans")
    parts = {"queue": "predict half_plus_two", "run": "predict half_plus_two"}
    assert collector.tree(GRPC_TRACE) == {"predict half_plus_two": PARENT_ID, **parts}
    whole = "POST /v1/models/{model}:predict"
    assert collector.tree(PREDICT_TRACE) == {whole: PARENT_ID, "predict half_plus_two": whole, **parts}
    whole = "POST /v1/models/{model}:regress"
    name = "regress examples"
    assert collector.tree(EXAMPLES_TRACE) == {whole: PARENT_ID, name: whole, "queue": name, "run": name}

    assert collector.tree(BROKEN_TRACE) == {"POST /v1/models/{model}:predict": PARENT_ID}
    assert collector.tree(UNSAMPLED_TRACE) == {}

    spans = {span.name: span for span in collector.spans if span.trace_id.hex() == EXAMPLES_TRACE}
    assert spans[whole].start_time_unix_nano <= spans["run"].start_time_unix_nano
    assert spans["run"].end_time_unix_nano <= spans[whole].end_time_unix_nano
    statuses = [
        attribute.value.int_value
        for span in collector.spans
        for attribute in span.attributes
        if attribute.key == "http.response.status_code"
    ]
    assert sorted(statuses) == [200, 200, 400]
