"""The access log: a line for each of a share of the requests, with what they took, and spans for those that are traced.

Beside a request's line: the native threads record sampled requests in rings without a lock, and a log_thread comes
round and writes them. A ring that is full drops, and the log says how many.
"""

import logging
import logging.handlers
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from tensorgate.gateway.dispatch.call import Method
from tensorgate.gateway.log_lines import make_formatter
from tensorgate.protos.status_codes import Code

logger = logging.getLogger("tensorgate.access")

STDERR = "stderr"

# As DataPlane.take_records has it.
RequestRecord = tuple[int, str, int, int, int, int, bool, bool, int, int, int, int, int, int, int, str]


class RecordSource(Protocol):
    """The part of DataPlane that is read here."""

    def take_records(self) -> tuple[list[RequestRecord], int]:
        """DataPlane.take_records."""
        ...


def open_access_log(path: str, log_format: str) -> logging.Handler | None:
    """Has access lines go to a file, which may be renamed by logrotate; for ``stderr`` they go where the log goes.

    Returns what is to be closed. Raises OSError for a file that cannot be opened.
    """
    # Whatever --log_level says: who asks for an access log gets one.
    logger.setLevel(logging.INFO)
    if path == STDERR:
        return None
    handler = logging.handlers.WatchedFileHandler(path, encoding="utf-8")
    handler.setFormatter(make_formatter(log_format))
    logger.addHandler(handler)
    logger.propagate = False
    return handler


class AccessLog:
    """Writes what has been recorded; on one thread at a time."""

    def __init__(
        self,
        source: RecordSource,
        *,
        writes_lines: bool,
        on_records: Callable[[Sequence[RequestRecord]], None] | None = None,
    ) -> None:
        """``on_records``: gets all records, on the thread that writes."""
        self._source = source
        self._writes_lines = writes_lines
        self._on_records = on_records
        self._num_dropped = 0

    def write(self) -> None:
        """Writes what there is now."""
        records, num_dropped = self._source.take_records()
        if num_dropped > self._num_dropped:
            logger.warning("%d sampled requests are missing here", num_dropped - self._num_dropped)
            self._num_dropped = num_dropped
        if self._writes_lines:
            for record in records:
                if record[7]:
                    logger.info("request", extra={"fields": fields_of(record)})
        if self._on_records is not None and records:
            self._on_records(records)


def fields_of(record: RequestRecord) -> dict[str, object]:
    """What a line says of a request; times in microseconds, ``ended`` in seconds since 1970."""
    (
        ended_us, name, version, method, request_id, code, is_native, _, total_us, queue_us, run_us, rows, padding,
        request_bytes, reply_bytes, traceparent,
    ) = record  # fmt: skip
    fields: dict[str, object] = {
        "ended": round(time.time() - (time.monotonic() - ended_us / 1e6), 6),
        "request_id": request_id,
        "model": name,
        "version": version,
        "method": method_name(method),
        "code": Code.of(code).name,
        "edge": "grpc" if is_native else "python",
        "total_us": total_us,
        "queue_us": queue_us,
        "run_us": run_us,
        "batch_rows": rows,
        "padding_rows": padding,
        "request_bytes": request_bytes,
        "response_bytes": reply_bytes,
    }
    if traceparent:
        fields["traceparent"] = traceparent
    return fields


def method_name(method: int) -> str:
    """Of dispatch.call.Method, in lower case."""
    return Method(method).name.lower() if method in Method.__members__.values() else "unknown"
