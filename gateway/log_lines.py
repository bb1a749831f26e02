"""The form of the gateway's log: one line for an event, whatever texts it quotes.

Errors of TensorFlow and names that clients send may hold line ends; a record that is cut by them cannot be told from
several. Used by the handler that main installs, in whatever thread logs.
"""

import logging

LOG_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


class OneLineFormatter(logging.Formatter):
    """Puts a record on one line, ``; `` for each line end in it; only the trace of an exception follows on others."""

    def __init__(self) -> None:
        super().__init__(LOG_FORMAT)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        lines = record.message.splitlines()
        if len(lines) > 1:
            record.message = "; ".join(stripped for line in lines if (stripped := line.strip()))
        return super().formatMessage(record)
