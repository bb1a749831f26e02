"""The form of the gateway's log: one line for an event, whatever texts it quotes.

Errors of TensorFlow and names that clients send may hold line ends; a record that is cut by them cannot be told from
several. Used by the handlers that main and the access log install, in whatever thread logs. A record may carry
``fields``, a mapping that the text form appends as ``name=value`` and the JSON form has as members.
"""

import json
import logging
import time
from collections.abc import Mapping

LOG_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
LOG_FORMATS = ("text", "json")

# Members of a JSON line that fields cannot replace.
_OWN_MEMBERS = frozenset({"time", "level", "logger", "message", "exception"})


class OneLineFormatter(logging.Formatter):
    """Puts a record on one line, ``; `` for each line end in it; only the trace of an exception follows on others."""

    def __init__(self) -> None:
        super().__init__(LOG_FORMAT)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        fields = fields_of(record)
        if fields:
            shown = " ".join(f"{name}={_shown(value)}" for name, value in fields.items())
            record.message = f"{record.message} {shown}"
        lines = record.message.splitlines()
        if len(lines) > 1:
            record.message = "; ".join(stripped for line in lines if (stripped := line.strip()))
        return super().formatMessage(record)


class JsonFormatter(logging.Formatter):
    """A JSON object a line: time (RFC 3339, UTC), level, logger, message, the record's fields, a trace as a string."""

    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, object] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in fields_of(record).items():
            document[f"{name}_" if name in _OWN_MEMBERS else name] = value
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(document, ensure_ascii=False, default=str)


def make_formatter(log_format: str) -> logging.Formatter:
    """``log_format``: one of LOG_FORMATS."""
    return JsonFormatter() if log_format == "json" else OneLineFormatter()


def fields_of(record: logging.LogRecord) -> Mapping[str, object]:
    """What was given as ``extra={"fields": …}``; empty for nothing."""
    fields = getattr(record, "fields", None)
    return fields if isinstance(fields, Mapping) else {}


def _shown(value: object) -> str:
    """A value of the text form: quoted where it would run into what follows."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or any(each in text for each in ' "=\n\r') else text
