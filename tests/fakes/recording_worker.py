"""The data side of a worker on sockets that the test drives: it records what arrives, the test makes the replies."""

import pathlib
from dataclasses import dataclass

import zmq

from tensorgate._native import frame_header
from tensorgate.gateway.dispatch.worker import WorkerEndpoints
from tensorgate.protos.status_codes import Code


@dataclass(frozen=True, slots=True)
class Handed:
    """One request as the worker saw it."""

    request_id: int
    method: int
    servable_handle: int
    remaining_deadline_us: int
    priority: int
    sampled: bool
    traceparent: bytes
    payload: bytes
    peer: bytes


class RecordingWorker:
    """A Worker whose sockets are read by ``poll`` only. All of it on the test's thread."""

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        folder: pathlib.Path,
        name: str = "worker-0",
        number: int = 1,
        num_execution_threads: int = 1,
        epoch: int = 3,
    ) -> None:
        self.name = name
        self.number = number
        self.epoch = epoch
        self.num_execution_threads = num_execution_threads
        self.endpoints = WorkerEndpoints(
            f"ipc://{folder}/{number}-data", f"ipc://{folder}/{number}-control", f"ipc://{folder}/{number}-cancel"
        )
        self.handed: list[Handed] = []
        self.cancelled: list[int] = []
        self.num_replies = 0
        self._data = context.socket(zmq.ROUTER)
        self._cancels = context.socket(zmq.PULL)
        for socket, endpoint in ((self._data, self.endpoints.data), (self._cancels, self.endpoints.cancel)):
            socket.set(zmq.LINGER, 0)
            socket.set(zmq.SNDHWM, 0)
            socket.set(zmq.RCVHWM, 0)
            socket.bind(endpoint)

    def close(self) -> None:
        self._data.close()
        self._cancels.close()

    def poll(self, timeout_ms: int = 1) -> None:
        """Takes in what has arrived, waiting a moment if nothing has."""
        self._data.poll(timeout_ms)
        while self._data.poll(0):
            peer, header, payload = self._data.recv_multipart()
            epoch, *fields = frame_header.unpack_request(header)
            assert epoch == self.epoch
            self.handed.append(Handed(*fields, payload, peer))
        while self._cancels.poll(0):
            epoch, request_id = frame_header.unpack_cancel(self._cancels.recv())
            assert epoch == self.epoch
            self.cancelled.append(request_id)

    @property
    def payloads(self) -> list[bytes]:
        return [each.payload for each in self.handed]

    @property
    def num_held(self) -> int:
        """Requests that it has not replied to."""
        return len(self.handed) - self.num_replies

    def reply_to(self, index: int, payload: bytes = b"reply", code: int = Code.OK, message: bytes = b"") -> None:
        """Answers the request that was handed over as number ``index``."""
        self.num_replies += 1
        self.reply(self.handed[index].request_id, payload, code, message)

    def reply(self, request_id: int, payload: bytes = b"reply", code: int = Code.OK, message: bytes = b"") -> None:
        """Answers any number, to whoever asked first."""
        header = frame_header.pack_reply(self.epoch, request_id, code, message, 11, 22, 3, 4)
        self.send(header, payload)

    def send(self, *frames: bytes) -> None:
        """Sends a message of any frames."""
        self._data.send_multipart([self.handed[0].peer, *frames])
