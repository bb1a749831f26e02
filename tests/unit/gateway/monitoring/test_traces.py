"""Spans out of records: whose children they are, and how they lie in time."""

import time

import pytest

from tensorgate.gateway.monitoring.access_log import RequestRecord
from tensorgate.gateway.monitoring.traces import Traces
from tensorgate.protos.status_codes import Code

pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed: the extra tracing brings it")

TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def record(traceparent: str, code: Code = Code.OK, queue_us: int = 200) -> RequestRecord:
    """A request of 1 ms that ended just now, after a run of 500 µs."""
    ended_us = time.monotonic_ns() // 1000
    return (ended_us, "m", 7, 1, 42, int(code), True, False, 1000, queue_us, 500, 8, 0, 10, 20, traceparent)


def spans_of(*records: RequestRecord):  # type: ignore[no-untyped-def]
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    traces = Traces(exporter)
    traces.take(records)
    traces.close()
    return {span.name: span for span in exporter.get_finished_spans()}


def test_a_traced_request_is_its_clients_child_with_queue_and_run_inside() -> None:
    before_ns = time.time_ns()
    spans = spans_of(record(f"00-{TRACE_ID}-{PARENT_ID}-01"))
    assert sorted(spans) == ["predict m", "queue", "run"]
    whole, queue, run = (spans[name] for name in ("predict m", "queue", "run"))
    assert f"{whole.context.trace_id:032x}" == TRACE_ID
    assert f"{whole.parent.span_id:016x}" == PARENT_ID
    assert {queue.parent.span_id, run.parent.span_id} == {whole.context.span_id}
    assert whole.end_time - whole.start_time == 1_000_000
    assert run.end_time == whole.end_time
    assert run.end_time - run.start_time == 500_000
    assert queue.end_time == run.start_time
    assert queue.end_time - queue.start_time == 200_000
    assert abs(whole.end_time - before_ns) < 60e9
    assert whole.attributes["tensorgate.model"] == "m"
    assert whole.attributes["tensorgate.version"] == 7
    assert whole.resource.attributes["service.name"] == "tensorgate"


def test_times_that_do_not_fit_are_cut_to_the_requests() -> None:
    spans = spans_of(record(f"00-{TRACE_ID}-{PARENT_ID}-01", queue_us=10_000))
    assert spans["queue"].start_time == spans["predict m"].start_time


def test_an_error_is_marked_and_has_no_parts() -> None:
    spans = spans_of(record(f"00-{TRACE_ID}-{PARENT_ID}-01", Code.NOT_FOUND))
    (whole,) = spans.values()
    assert whole.status.description == "NOT_FOUND"
    assert not whole.status.is_ok


@pytest.mark.parametrize(
    "traceparent",
    ["", "nonsense", f"00-{TRACE_ID}-{PARENT_ID}-00", f"00-{'0' * 32}-{PARENT_ID}-01", f"00-{TRACE_ID}-{PARENT_ID}"],
)
def test_what_is_not_traced_makes_no_spans(traceparent: str) -> None:
    assert spans_of(record(traceparent)) == {}


def test_an_http_request_has_a_span_that_its_records_are_children_of() -> None:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    traces = Traces(exporter)
    begun = traces.begin(f"00-{TRACE_ID}-{PARENT_ID}-01".encode(), "POST", "predict", "m")
    assert begun is not None
    traces.take([record(begun.traceparent.decode())])
    begun.end(Code.NOT_FOUND, 404)
    traces.close()
    spans = {span.name: span for span in exporter.get_finished_spans()}
    whole, inner = spans["POST /v1/models/{model}:predict"], spans["predict m"]
    assert f"{whole.parent.span_id:016x}" == PARENT_ID
    assert inner.parent.span_id == whole.context.span_id
    assert {f"{span.context.trace_id:032x}" for span in spans.values()} == {TRACE_ID}
    assert whole.attributes["http.response.status_code"] == 404
    assert whole.status.description == "NOT_FOUND"


@pytest.mark.parametrize("traceparent", [b"", b"\xff", f"00-{TRACE_ID}-{PARENT_ID}-00".encode()])
def test_an_http_request_that_is_not_traced_has_none(traceparent: bytes) -> None:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    traces = Traces(InMemorySpanExporter())
    assert traces.begin(traceparent, "POST", "predict", "m") is None
    traces.close()
