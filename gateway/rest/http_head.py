"""Writes the heads of HTTP answers.

Last step of the REST line: answer → bytes on the connection. On the REST loop.
Sources: RFC 9112 (status line, persistence), RFC 9110 6.6.1 (Date).
"""

import time
from email.utils import formatdate
from functools import cache
from http import HTTPStatus

from tensorgate.gateway.rest.http_messages import Answer
from tensorgate.gateway.rest.status_codes import CLIENT_CLOSED_REQUEST

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class DateHeader:
    """The date header of answers; made anew when the second has changed."""

    def __init__(self) -> None:
        self._second = -1
        self._line = b""

    def value(self) -> bytes:
        """The line, its end included."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._line = f"date: {formatdate(second, usegmt=True)}\r\n".encode("ascii")
        return self._line


def answer_head(answer: Answer, date: bytes, *, keep_alive: bool, is_http_1_0: bool) -> bytes:
    """Status line and headers up to the empty line; ``date`` is a line of DateHeader."""
    lines = [_status_line(answer.status), date, b"content-length: %d\r\n" % len(answer.body)]
    if answer.content_type is not None:
        lines.append(b"content-type: %b\r\n" % answer.content_type)
    for field in answer.headers:
        lines.append(b"%b: %b\r\n" % field)
    if not keep_alive:
        lines.append(b"connection: close\r\n")
    elif is_http_1_0:
        # There it is not the rule, so the client wants to be told.
        lines.append(b"connection: keep-alive\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)


@cache
def _status_line(status: int) -> bytes:
    phrase = "Client Closed Request" if status == CLIENT_CLOSED_REQUEST else HTTPStatus(status).phrase
    return f"HTTP/1.1 {status} {phrase}\r\n".encode("ascii")
