"""Spans of requests that their clients trace: edge → queue → run, for OpenTelemetry.

Beside a request's line: made from the records that the native threads keep of requests whose traceparent says that they
are sampled, after the fact, on the access log's thread; a request that nobody traces costs nothing here.

Source: W3C Trace Context (the header), OpenTelemetry's semantic conventions for RPC (names of attributes). What the
worker tells are durations, so its spans lie where they fit: the run before the reply, the queue before the run.
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
    from opentelemetry.sdk.trace.export import SpanExporter

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
        match = _TRACEPARENT.fullmatch(record[15])
        if match is None or not int(match[3], 16) & 1:
            return
        parent = trace.SpanContext(
            int(match[1], 16), int(match[2], 16), is_remote=True, trace_flags=trace.TraceFlags(int(match[3], 16))
        )
        if not parent.is_valid:
            return
        context = trace.set_span_in_context(trace.NonRecordingSpan(parent))
        end_ns = ended_us * 1000 + offset_ns
        attributes: dict[str, str | int] = {
            "rpc.system": "grpc" if is_native else "python",
            "rpc.method": method_name(method),
            "rpc.grpc.status_code": code,
            "tensorgate.model": name,
            "tensorgate.version": version,
            "tensorgate.request_id": request_id,
            "tensorgate.batch_rows": rows,
        }
        whole = self._tracer.start_span(
            f"{method_name(method)} {name}",
            context,
            trace.SpanKind.SERVER,
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

    def close(self) -> None:
        """Sends what there is; blocks for as long as OpenTelemetry's export timeouts let it."""
        self._provider.shutdown()
