"""The head that a connection's last request had: clients send the same again and again, up to the body's length.

Beside the parser of an HTTP connection: a request that differs from the one before only in its body, and has arrived as
a whole, need not be parsed anew, which is most of what a small request costs the connection. Pure; on the REST loop.
"""

import re
from dataclasses import dataclass

from tensorgate.gateway.rest.http_messages import RequestHead

_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ ]?([0-9]{1,9})\r\n", re.IGNORECASE)
_END_OF_HEAD = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class KnownHead:
    """A head that the parser has accepted, without the digits of its Content-Length."""

    before_length: bytes
    after_length: bytes
    head: RequestHead
    """What it says; its content_length is that of the request it was taken from."""

    def body_of(self, data: bytes) -> bytes | None:
        """The body, if the data is one whole request with this head, to the byte; None for anything else."""
        begin = len(self.before_length)
        if not data.startswith(self.before_length):
            return None
        end = data.find(b"\r", begin, begin + 10)
        digits = data[begin:end]
        if end < 0 or not digits.isdigit() or not data.startswith(self.after_length, end):
            return None
        at = end + len(self.after_length)
        return data[at:] if len(data) - at == int(digits) else None


def known_head(data: bytes, head: RequestHead) -> KnownHead | None:
    """What to know of the one request that the parser has just read out of ``data``; None where it is too odd."""
    at = data.find(_END_OF_HEAD) + len(_END_OF_HEAD)
    if at < len(_END_OF_HEAD) or head.content_length is None or head.content_length != len(data) - at:
        return None
    length = _CONTENT_LENGTH.search(data, 0, at)
    if length is None or head.is_chunked or head.expects_continue:
        return None
    return KnownHead(data[: length.start(1)], data[length.end(1) : at], head)
