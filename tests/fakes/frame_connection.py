"""Frames on a unix socket as Python sees them: [8 bytes header size][8 bytes payload size][header][payload]."""

import select
import socket
import struct

SIZES = struct.Struct("=QQ")
TIMEOUT_S = 60.0


def packed(header: bytes, payload: bytes) -> bytes:
    return SIZES.pack(len(header), len(payload)) + header + payload


class FrameConnection:
    """One end of a stream, with as much of a ZeroMQ socket's face as the tests use."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.socket.settimeout(TIMEOUT_S)
        self._received = bytearray()

    @classmethod
    def to(cls, path: str) -> "FrameConnection":
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connected.connect(path)
        return cls(connected)

    def send_multipart(self, frames: list[bytes]) -> None:
        header, payload = frames
        self.socket.sendall(packed(header, payload))

    def recv_multipart(self) -> list[bytes]:
        """The next message; waits for it. Raises ConnectionError when the other end has closed."""
        while True:
            if len(self._received) >= SIZES.size:
                header_size, payload_size = SIZES.unpack_from(self._received)
                end = SIZES.size + header_size + payload_size
                if len(self._received) >= end:
                    header = bytes(self._received[SIZES.size : SIZES.size + header_size])
                    payload = bytes(self._received[SIZES.size + header_size : end])
                    del self._received[:end]
                    return [header, payload]
            data = self.socket.recv(1 << 20)
            if not data:
                raise ConnectionError("the stream has ended")
            self._received += data

    def poll(self, timeout_ms: int) -> bool:
        """Whether something has come; a whole message, where whole ones are sent."""
        return bool(self._received) or bool(select.select([self.socket], [], [], timeout_ms / 1000)[0])

    def close(self) -> None:
        self.socket.close()
