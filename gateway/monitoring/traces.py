"""Spans of requests that their clients trace: edge → queue → run, for OpenTelemetry.

Beside a request's line: made from the records that the native threads keep of requests whose traceparent says that they
are sampled, after the fact, on the access log's thread; a request that nobody traces costs nothing here. REST puts a
span of its own around them, which has the time that JSON takes as well.

Source: W3C Trace Context (the header), OpenTelemetry's semantic conventions for RPC and HTTP (names of attributes).
What the worker tells are durations, so its spans lie where they fit: the run before the reply, the queue before it.
"""

import logging
import os
import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tensorgate.gateway.monitoring.access_log import RequestRecord, method_name
from tensorgate.protos.status_codes import Code, ServingError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

logger = logging.getLogger("tensorgate.traces")

INSTALL_TRACING = "install tensorgate with its extra tracing: pip install 'tensorgate[tracing]'"
SERVICE_NAME = "tensorgate"
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


def make_traces() -> "Traces":
    """Traces with OpenTelemetry's own exporter. Raises ServingError FAILED_PRECONDITION where it is not installed."""
    try:
        return Traces()
    except ImportError as error:
        raise ServingError(
            Code.FAILED_PRECONDITION, f"--tracing needs {error.name}, not installed here; {INSTALL_TRACING}"
        ) from error


class Traces:
    """Makes spans out of records and hands them to an exporter; ``close`` sends the rest."""

    def __init__(self, exporter: "SpanExporter | None" = None) -> None:
        """Without an exporter: by OTLP over HTTP, to where OTEL_EXPORTER_OTLP_ENDPOINT says.

        Raises ImportError where the extra is not installed. Other settings come from OpenTelemetry's own variables.
        """
        # Extras: only who traces has them.
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        if exporter is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

            exporter = OTLPSpanExporter()
        # A name of the operator's own comes before ours.
        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": SERVICE_NAME}
        self._provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer(SERVICE_NAME)

    def take(self, records: Sequence[RequestRecord]) -> None:
        """Spans of those records that are traced; does not wait for the exporter."""
        # The clocks' distance now: good to the drift of a second.
        offset_ns = time.time_ns() - time.monotonic_ns()
        for record in records:
            self._trace(record, offset_ns)

    def _trace(self, record: RequestRecord, offset_ns: int) -> None:
        from opentelemetry import trace  # noqa: PLC0415

        ended_us, name, version, method, request_id, code, is_native, _, total_us, queue_us, run_us, rows = record[:12]
        context = _context_of(record[15])
        if context is None:
            return
        end_ns = ended_us * 1000 + offset_ns
        attributes: dict[str, str | int] = {
            "rpc.method": method_name(method),
            "rpc.grpc.status_code": code,
            "tensorgate.model": name,
            "tensorgate.version": version,
            "tensorgate.request_id": request_id,
            "tensorgate.batch_rows": rows,
        }
        if is_native:
            attributes["rpc.system"] = "grpc"
        whole = self._tracer.start_span(
            f"{method_name(method)} {name}",
            context,
            trace.SpanKind.SERVER if is_native else trace.SpanKind.INTERNAL,
            attributes,
            start_time=end_ns - total_us * 1000,
        )
        if code != Code.OK:
            whole.set_status(trace.StatusCode.ERROR, Code.of(code).name)
        else:
            inner = trace.set_span_in_context(whole)
            run_ns = min(run_us, total_us) * 1000
            queue_ns = min(queue_us * 1000, total_us * 1000 - run_ns)
            queue = self._tracer.start_span("queue", inner, start_time=end_ns - run_ns - queue_ns)
            queue.end(end_ns - run_ns)
            run = self._tracer.start_span("run", inner, start_time=end_ns - run_ns)
            run.end(end_ns)
        whole.end(end_ns)

    def begin(self, traceparent: bytes, verb: str, api: str, model: str) -> "HttpSpan | None":
        """The span of an HTTP request for the model that has come as a whole; None where its client does not trace it.

        On any thread; does not wait for the exporter. ``api``: what is behind the colon of its URL.
        """
        from opentelemetry import trace  # noqa: PLC0415

        context = _context_of(traceparent.decode("latin-1"))
        if context is None:
            return None
        route = f"/v1/models/{{model}}:{api}"
        attributes = {"http.request.method": verb, "http.route": route, "tensorgate.model": model}
        return HttpSpan(self._tracer.start_span(f"{verb} {route}", context, trace.SpanKind.SERVER, attributes))

    def close(self) -> None:
        """Sends what there is; blocks for as long as OpenTelemetry's export timeouts let it."""
        self._provider.shutdown()


class HttpSpan:
    """An HTTP request that is being answered; ``end`` once."""

    def __init__(self, span: "Span") -> None:
        self._span = span
        context = span.get_span_context()
        self.traceparent = b"00-%032x-%016x-%02x" % (context.trace_id, context.span_id, context.trace_flags)
        """For what is done for the request, in the worker and elsewhere."""

    def end(self, code: Code, status: int) -> None:
        """The answer is there: the code that it stands for, and HTTP's."""
        from opentelemetry.trace import StatusCode  # noqa: PLC0415

        self._span.set_attribute("http.response.status_code", status)
        if code is not Code.OK:
            self._span.set_status(StatusCode.ERROR, code.name)
        self._span.end()


def _context_of(traceparent: str) -> "Context | None":
    """With the client's span as the current one; None unless its header says that it is sampled."""
    from opentelemetry import trace  # noqa: PLC0415

    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None or not int(match[3], 16) & 1:
        return None
    parent = trace.SpanContext(
        int(match[1], 16), int(match[2], 16), is_remote=True, trace_flags=trace.TraceFlags(int(match[3], 16))
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(parent)) if parent.is_valid else None
