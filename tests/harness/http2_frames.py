"""A client of HTTP/2 that sends any bytes at all: frames are built by hand, and what comes back is read as frames.

For tests that break the protocol on purpose, which a library's client would not do. Each client is one connection, in
the hands of the test; it answers nothing by itself.

Source: RFC 9113, RFC 7541.
"""

import contextlib
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import hpack

from tests.harness.native_grpc import PREDICT, WAIT_S

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# Frame types.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
# Flags; ACK has END_STREAM's value.
END_STREAM, ACK, END_HEADERS, PADDED, HAS_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
# Settings.
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 2, 3, 4, 5
# Error codes.
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR = 5, 6, 7, 8, 9
ENHANCE_YOUR_CALM = 11

Fields = list[tuple[str, str]]
# What a gRPC client sends, in its order.
REQUEST: Fields = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", PREDICT),
    (":authority", "test"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]


def frame(kind: int, flags: int = 0, stream_id: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream_id) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """One header field for a block, neither indexed nor checked (RFC 7541, 6.2.2); both under 127 bytes."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def block(fields: Iterable[tuple[str, str]]) -> bytes:
    """Header fields as literals, which leaves no state behind on either side."""
    return b"".join(literal(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields)


def headers(stream_id: int, fields: Iterable[tuple[str, str]] = REQUEST, end: bool = False) -> bytes:
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream_id, block(fields))


def data(stream_id: int, payload: bytes, end: bool = False) -> bytes:
    return frame(DATA, END_STREAM if end else 0, stream_id, payload)


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", key, value) for key, value in pairs))


def window_update(stream_id: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream_id, struct.pack(">I", increment))


def reset(stream_id: int, code: int = CANCEL) -> bytes:
    return frame(RST_STREAM, 0, stream_id, struct.pack(">I", code))


@dataclass(frozen=True, slots=True)
class Frame:
    """One that the server sent."""

    kind: int
    flags: int
    stream_id: int
    payload: bytes


@dataclass
class Outcome:
    """How the server took it: ``connection_error`` from its GOAWAY, ``resets`` by stream."""

    connection_error: int | None = None
    resets: dict[int, int] = field(default_factory=dict)
    is_closed: bool = False


class FrameClient:
    """One connection. ``greets``: exchanges preface and SETTINGS, acknowledged both ways, before the test goes on."""

    def __init__(self, port: int, greets: bool = True, first_settings: bytes = settings()) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.settimeout(WAIT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.frames: list[Frame] = []  # all that have come
        self.is_closed = False
        self._received = bytearray()
        self._hpack = hpack.Decoder()
        self.table_size = 4096
        if greets:
            self.send(PREFACE, first_settings)
            self.read_until(lambda each: each.kind == SETTINGS and not each.flags & ACK)
            self.send(frame(SETTINGS, ACK))
            self.read_until(lambda each: each.kind == SETTINGS and bool(each.flags & ACK))
            self.ping()  # so that the server has read the acknowledgement

    def __enter__(self) -> "FrameClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *pieces: bytes) -> None:
        """Sends them at once. A server that has gone already says so on reading."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(b"".join(pieces))

    def read(self) -> Frame | None:
        """The next frame; None when the server has closed the connection."""
        while len(self._received) < 9 or len(self._received) < 9 + int.from_bytes(self._received[:3], "big"):
            try:
                piece = self.socket.recv(1 << 20)
            except ConnectionResetError:
                piece = b""
            if not piece:
                self.is_closed = True
                return None
            self._received += piece
        size = int.from_bytes(self._received[:3], "big")
        kind, flags, stream_id = struct.unpack_from(">BBI", self._received, 3)
        found = Frame(kind, flags, stream_id, bytes(self._received[9 : 9 + size]))
        del self._received[: 9 + size]
        self.frames.append(found)
        return found

    def read_until(self, wanted: Callable[[Frame], bool]) -> Frame:
        while True:
            found = self.read()
            assert found is not None, f"closed before it came; until then {self.frames}"
            if wanted(found):
                return found

    def ping(self, payload: bytes = b"are you?") -> None:
        """Returns when the server has answered, so when it has read all that was sent before."""
        self.send(frame(PING, 0, 0, payload))
        self.read_until(lambda each: each.kind == PING and bool(each.flags & ACK) and each.payload == payload)

    def outcome(self) -> Outcome:
        """What the server has done about all that was sent."""
        # Its answer to a PING may overtake what it has to say about frames before; the second one cannot.
        for probe in (b"outcome?", b"outcome!"):
            self.send(frame(PING, 0, 0, probe))
            has_error = False
            while True:
                found = self.read()
                if found is None:
                    break
                has_error = has_error or (found.kind == GOAWAY and found.payload[4:8] != bytes(4))
                # Behind a GOAWAY with an error the connection is closed, which the test waits for.
                if not has_error and found.kind == PING and found.flags & ACK and found.payload == probe:
                    break
        outcome = Outcome(is_closed=self.is_closed)
        for each in self.frames:
            if each.kind == GOAWAY:
                outcome.connection_error = int.from_bytes(each.payload[4:8], "big")
            elif each.kind == RST_STREAM:
                outcome.resets[each.stream_id] = int.from_bytes(each.payload[:4], "big")
        return outcome

    def answer(self, stream_id: int) -> dict[str, str]:
        """Reads until the stream ends; all its header fields, trailers included. It must not be reset."""

        def ends(each: Frame) -> bool:
            assert each.kind != RST_STREAM or each.stream_id != stream_id, "reset"
            return each.stream_id == stream_id and each.kind in (HEADERS, DATA) and bool(each.flags & END_STREAM)

        if not any(ends(each) for each in self.frames):
            self.read_until(ends)
        fields: dict[str, str] = {}
        self._hpack.max_allowed_table_size = self.table_size
        # Blocks have to be decoded in their order, those of other streams too.
        for each in self.frames:
            if each.kind == HEADERS:
                assert each.flags & END_HEADERS
                assert not each.flags & (PADDED | HAS_PRIORITY)
                decoded = self._hpack.decode(each.payload)
                if each.stream_id == stream_id:
                    fields.update((str(name), str(value)) for name, value in decoded)
        self.frames = [each for each in self.frames if each.kind != HEADERS]
        return fields

    def body(self, stream_id: int) -> bytes:
        return b"".join(each.payload for each in self.frames if each.kind == DATA and each.stream_id == stream_id)
