from typing_extensions import Buffer

WIRE_VERSION: int
KIND_REQUEST: int
KIND_REPLY: int
KIND_CANCEL: int

class FrameError(ValueError): ...

def pack_request(
    epoch: int,
    request_id: int,
    method: int,
    servable_handle: int,
    remaining_deadline_us: int,
    priority: int,
    sampled: bool,
    traceparent: bytes,
    place: tuple[int, int, int] | None = None,
) -> bytes:
    """A request header; numbers are unsigned 64-bit but for remaining_deadline_us (-1: none) and priority.

    ``place``: the payload's (offset, size, generation) in shared memory. Raises OverflowError for a number out of
    range.
    """

def unpack_request(frame: Buffer) -> tuple[int, int, int, int, int, int, bool, bytes]:
    """pack_request's arguments back, in its order. Raises FrameError. Does not keep ``frame``."""

def pack_reply(
    epoch: int,
    request_id: int,
    code: int,
    message: bytes,
    queue_us: int,
    run_us: int,
    batch_rows: int,
    padding_rows: int,
    place: tuple[int, int, int] | None = None,
) -> bytes:
    """A reply header; message is UTF-8 as far as its source was, and empty when code is 0 (OK)."""

def unpack_reply(frame: Buffer) -> tuple[int, int, int, bytes, int, int, int, int]:
    """pack_reply's arguments back, in its order. Raises FrameError. Does not keep ``frame``."""

def place_of(frame: Buffer) -> tuple[int, int, int] | None:
    """What a request's or reply's header says of shared memory, if anything. Raises FrameError."""

def pack_cancel(epoch: int, request_id: int) -> bytes:
    """A cancel header: the whole message of the cancel socket."""

def unpack_cancel(frame: Buffer) -> tuple[int, int]:
    """(epoch, request_id). Raises FrameError. Does not keep ``frame``."""
