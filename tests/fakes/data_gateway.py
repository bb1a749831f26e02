"""A gateway's end of a worker's data loop, in the test's own process: requests and cancels out, replies in."""

import pathlib
from typing import NamedTuple

import zmq

from tensorgate._native import frame_header
from tensorgate._native.execution_pool import PREDICT
from tests.fakes.frame_connection import FrameConnection

EPOCH = 7
TIMEOUT_S = 60.0


class Reply(NamedTuple):
    """One request's outcome."""

    code: int
    message: str
    response: bytes


class Timing(NamedTuple):
    """What a reply's header says beside the outcome."""

    queue_us: int
    run_us: int
    batch_rows: int
    padding_rows: int


class Gateway:
    """A DEALER for requests and a PUSH for cancels, as one worker line of the dispatcher has them."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], receive_high_water_mark: int = 0) -> None:
        self.timings: dict[int, Timing] = {}
        self.data = context.socket(zmq.DEALER)
        self.cancels = context.socket(zmq.PUSH)
        for socket, endpoint in ((self.data, "inproc://data"), (self.cancels, "inproc://cancels")):
            socket.set(zmq.LINGER, 0)
            socket.set(zmq.SNDHWM, 0)
            socket.set(zmq.RCVHWM, receive_high_water_mark)
            socket.set(zmq.RCVTIMEO, int(TIMEOUT_S * 1000))
            socket.connect(endpoint)

    def send(self, request_id: int, handle: int, payload: bytes, remaining_us: int = -1, method: int = PREDICT) -> None:
        header = frame_header.pack_request(EPOCH, request_id, method, handle, remaining_us, 0, False, b"")
        self.data.send_multipart([header, payload])

    def cancel(self, request_id: int, epoch: int = EPOCH) -> None:
        self.cancels.send(frame_header.pack_cancel(epoch, request_id))

    def receive(self) -> tuple[int, Reply]:
        header, payload = self.data.recv_multipart()
        epoch, request_id, code, message, *rest = frame_header.unpack_reply(header)
        assert epoch == EPOCH
        self.timings[request_id] = Timing(*rest)
        return request_id, Reply(code, message.decode(), payload)

    def replies(self, count: int) -> dict[int, Reply]:
        got = dict(self.receive() for _ in range(count))
        assert len(got) == count, "a request was answered twice"
        return got

    def has_reply(self, within_s: float = 0.0) -> bool:
        return bool(self.data.poll(round(within_s * 1000)))

    def close(self) -> None:
        self.data.close()
        self.cancels.close()


class StreamGateway(Gateway):
    """A gateway of the same host, whose requests go over the loop's unix socket."""

    data: FrameConnection  # type: ignore[assignment]  # it has as much of a socket's face as is used

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], path: pathlib.Path) -> None:
        super().__init__(context)
        self.data.close()
        self.data = FrameConnection.to(str(path))
