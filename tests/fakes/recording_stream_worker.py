"""The data side of a worker that takes its requests over a unix socket; else as RecordingWorker."""

import contextlib
import pathlib
import select
import socket

import zmq

from tensorgate._native import frame_header
from tensorgate.gateway.dispatch.worker import WorkerEndpoints
from tests.fakes.frame_connection import SIZES, packed
from tests.fakes.recording_worker import Handed, RecordingWorker


class RecordingStreamWorker(RecordingWorker):
    """``peer`` of what it is handed names the connection that it came by, one of each native thread."""

    def __init__(
        self, context: "zmq.Context[zmq.Socket[bytes]]", folder: pathlib.Path, name: str = "worker-0", number: int = 1
    ) -> None:
        super().__init__(context, folder, name, number)
        path = f"{folder}/{number}-stream"
        self.endpoints = WorkerEndpoints(
            self.endpoints.data, self.endpoints.control, self.endpoints.cancel, stream=path
        )
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen()
        self._connections: dict[bytes, _Connection] = {}

    def close(self) -> None:
        super().close()
        self._listener.close()
        for connection in self._connections.values():
            connection.socket.close()

    def poll(self, timeout_ms: int = 1) -> None:
        super().poll(0)
        sockets = [self._listener, *(connection.socket for connection in self._connections.values())]
        ready = select.select(sockets, [], [], timeout_ms / 1000)[0]
        if self._listener in ready:
            connected = self._listener.accept()[0]
            connected.setblocking(False)
            self._connections[b"%d" % connected.fileno()] = _Connection(connected)
        for peer, connection in self._connections.items():
            connection.move()
            self._take(peer, connection.received)

    def _take(self, peer: bytes, received: bytearray) -> None:
        while len(received) >= SIZES.size:
            header_size, payload_size = SIZES.unpack_from(received)
            end = SIZES.size + header_size + payload_size
            if len(received) < end:
                return
            header = bytes(received[SIZES.size : SIZES.size + header_size])
            payload = self.payload_of(header, bytes(received[SIZES.size + header_size : end]))
            epoch, *fields = frame_header.unpack_request(header)
            assert epoch == self.epoch
            self.handed.append(Handed(*fields, payload, peer))
            del received[:end]

    def payload_of(self, header: bytes, payload: bytes) -> bytes:
        """Of a message that has come; a worker that shares memory finds it there."""
        assert frame_header.place_of(header) is None
        return payload

    def send(self, *frames: bytes) -> None:
        header, payload = frames
        connection = self._connections[self.handed[0].peer]
        connection.unsent += packed(header, payload)
        connection.move()


class _Connection:
    """Takes and gives what the other end has and wants at the moment; one that has closed is given nothing more."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.received = bytearray()
        self.unsent = bytearray()

    def move(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while data := self.socket.recv(1 << 20):
                self.received += data
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while self.unsent:
                del self.unsent[: self.socket.send(self.unsent)]
