"""The native gRPC edge in front of a worker that the test plays, and a client that speaks HTTP/2 frame by frame."""

import contextlib
import pathlib
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events
import zmq

from tensorgate._native import zmq_api
from tensorgate._native.data_plane import DataPlane
from tensorgate._native.grpc_edge import GrpcEdge
from tensorgate._native.handled_call import EVENT_END, EVENT_MESSAGE, EVENT_START, HandledCall
from tensorgate._native.route_table import PublishedVersion, Routes
from tensorgate.gateway.rpc.grpc_options import GrpcOptions, native_limits
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictRequest
from tests.fakes.fake_worker import Endpoints, FakeWorker

PREDICT = "/tensorflow.serving.PredictionService/Predict"
MULTI_INFERENCE = "/tensorflow.serving.PredictionService/MultiInference"
HANDLED = "/test.Service/Echo"
HANDLE = 7
# Roles that the methods need: of the handled one, and of the others.
ADMIN = 2
PREDICTS = 1
WAIT_S = 20.0


def until(condition: Callable[[], bool], what: str = "") -> None:
    """Waits for something that other threads do."""
    end_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end_s, what or "waited in vain"
        time.sleep(0.002)


def predict_request(payload: bytes = b"content", name: str = "m") -> bytes:
    request = PredictRequest()
    request.model_spec.name = name
    request.inputs["x"].tensor_content = payload
    return request.SerializeToString()


class Scene:
    """A running edge; model ``m`` version 1 lives on a FakeWorker, which echoes. ``limits`` override the defaults."""

    def __init__(self, folder: pathlib.Path, num_threads: int = 1, **limits: Any) -> None:
        zmq_api.load_library()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        endpoints = Endpoints(*(f"ipc://{folder}/{name}" for name in ("data", "control", "cancel")))
        self.worker = FakeWorker(self._context, endpoints, epoch=3)
        self.worker.handles.add(HANDLE)
        self._worker_thread = threading.Thread(target=self.worker.run)
        self._worker_thread.start()
        self.plane = DataPlane(num_threads)
        self.version = PublishedVersion("m", 1)
        self.plane.start()
        self.plane.add_line(1, 3, "worker-0", endpoints.data, endpoints.cancel, 1000, 100_000, 1 << 40)
        self.plane.set_replicas(self.version, [(1, HANDLE)])
        self.plane.publish(Routes({"m": ([self.version], {})}))
        methods = [(HANDLED, 0, False, ADMIN), (PREDICT, 1, False, PREDICTS), (MULTI_INFERENCE, 4, True, PREDICTS)]
        self.edge = GrpcEdge(self.plane, methods, **{**native_limits(GrpcOptions()).arguments, **limits})
        listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        listener.setblocking(False)
        self.port: int = listener.getsockname()[1]
        self.edge.listen(listener.detach())
        # Calls of the method that Python serves: echoed, unless the test takes them in hand.
        self.started: list[HandledCall] = []
        self.events: list[tuple[int, HandledCall, bytes]] = []
        self.echoes = True
        self._running = True
        self._events_thread = threading.Thread(target=self._serve_events)
        self._events_thread.start()

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def _serve_events(self) -> None:
        while self._running:
            select.select([self.edge.event_fd], [], [], 0.05)
            for kind, call, message in self.edge.take_events():
                self.events.append((kind, call, message))
                if kind == EVENT_START:
                    self.started.append(call)
                elif self.echoes and kind == EVENT_MESSAGE:
                    call.send(message)
                    call.acknowledge(len(message))
                elif self.echoes and kind == EVENT_END:
                    call.finish(0)

    def is_at_rest(self) -> bool:
        """Nothing of any request is left but, perhaps, connections."""
        return (
            self.edge.num_calls == 0
            and self.edge.held_bytes == 0
            and self.version.num_pins == 0
            and self.plane.num_outstanding == 0
        )

    def close(self) -> None:
        self.edge.close()
        self._running = False
        self._events_thread.join()
        assert self.edge.num_connections == 0
        self.plane.close()
        self.worker.stop()
        self._worker_thread.join()
        self.worker.close()
        self._context.term()


@contextlib.contextmanager
def scene(folder: pathlib.Path, num_threads: int = 1, **limits: Any) -> Iterator[Scene]:
    made = Scene(folder, num_threads, **limits)
    try:
        yield made
    finally:
        made.close()


@dataclass
class Stream:
    """What has come on one stream."""

    headers: dict[str, str] = field(default_factory=dict)
    trailers: dict[str, str] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)
    has_ended: bool = False
    reset_code: int | None = None

    @property
    def status(self) -> tuple[int, str]:
        """(grpc-status, grpc-message as it came), of trailers or of trailers only."""
        fields = self.trailers or self.headers
        return int(fields["grpc-status"]), fields.get("grpc-message", "")

    @property
    def messages(self) -> list[bytes]:
        found, at = [], 0
        while at < len(self.data):
            flag, size = struct.unpack_from(">BI", self.data, at)
            assert flag == 0
            found.append(bytes(self.data[at + 5 : at + 5 + size]))
            at += 5 + size
        return found


def framed(message: bytes, flag: int = 0) -> bytes:
    return struct.pack(">BI", flag, len(message)) + message


class RawClient:
    """One HTTP/2 connection, in the hands of the test."""

    def __init__(self, port: int, acknowledges: bool = True) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.settimeout(WAIT_S)
        self.http2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.streams: dict[int, Stream] = {}
        self.is_closed = False
        self.goaways: list[tuple[int, int]] = []
        self.pings = 0
        self._acknowledges = acknowledges
        self.http2.initiate_connection()
        self.flush()

    def __enter__(self) -> "RawClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def flush(self) -> None:
        data = self.http2.data_to_send()
        if data:
            self.socket.sendall(data)

    def start(self, path: str = PREDICT, headers: dict[str, str] | None = None, end: bool = False) -> int:
        """Opens a stream; headers whose value is empty are left out."""
        stream_id = self.http2.get_next_available_stream_id()
        fields = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "test",
            "te": "trailers",
            "content-type": "application/grpc",
            **(headers or {}),
        }
        self.streams[stream_id] = Stream()
        self.http2.send_headers(stream_id, [(name, value) for name, value in fields.items() if value], end_stream=end)
        self.flush()
        return stream_id

    def send(self, stream_id: int, data: bytes, end: bool = False, chunk: int = 16384) -> None:
        """Sends DATA as windows allow, reading meanwhile; stops when the server has answered without waiting for it."""
        at = 0
        while self.streams[stream_id].reset_code is None:
            room = min(self.http2.local_flow_control_window(stream_id), chunk)
            piece = data[at : at + room]
            at += len(piece)
            last = at == len(data)
            if piece or last:
                self.http2.send_data(stream_id, piece, end_stream=end and last)
                self.flush()
            if last:
                return
            if room <= 0:
                self.receive()

    def ask(self, message: bytes, path: str = PREDICT, headers: dict[str, str] | None = None) -> Stream:
        stream_id = self.start(path, headers)
        self.send(stream_id, framed(message), end=True)
        return self.finish(stream_id)

    def receive(self) -> None:
        """Takes what comes next; blocks."""
        try:
            data = self.socket.recv(1 << 20)
        except ConnectionResetError:
            data = b""
        if not data:
            self.is_closed = True
            return
        for event in self.http2.receive_data(data):
            self._take(event)
        self.flush()

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            self.goaways.append((int(event.error_code or 0), event.last_stream_id or 0))
            # h2 takes any GOAWAY for the end; streams up to the last one go on.
            self.http2.state_machine.state = h2.connection.ConnectionState.CLIENT_OPEN
        elif isinstance(event, h2.events.PingAckReceived):
            self.pings += 1
        stream = self.streams.get(getattr(event, "stream_id", 0) or 0)
        if stream is None:
            return
        if isinstance(event, h2.events.ResponseReceived):
            stream.headers = {str(name): str(value) for name, value in event.headers}
        elif isinstance(event, h2.events.TrailersReceived):
            stream.trailers = {str(name): str(value) for name, value in event.headers}
        elif isinstance(event, h2.events.DataReceived):
            stream.data += event.data
            if self._acknowledges:
                self.http2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            stream.has_ended = True
        elif isinstance(event, h2.events.StreamReset):
            stream.reset_code = int(event.error_code)

    def finish(self, stream_id: int) -> Stream:
        """Reads until the stream has ended, one way or another."""
        stream = self.streams[stream_id]
        while not stream.has_ended and stream.reset_code is None and not self.is_closed:
            self.receive()
        return stream
