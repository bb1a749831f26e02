"""Versions that Python answers for, in the data loop: their requests are run and answered as a session's are."""

import gc
import threading
import time
from collections.abc import Iterator

import pytest
import zmq

from tensorgate._native import frame_header
from tensorgate._native.data_loop import DataLoop
from tensorgate._native.python_servable import PythonServable
from tensorgate.protos.status_codes import Code

pytestmark = pytest.mark.usefixtures("libtensorflow")

EPOCH = 7
HANDLE = 3
TIMEOUT_MS = 60_000


class Scene:
    """A running loop with one PythonServable, and a gateway's socket."""

    def __init__(self) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.loop = DataLoop(self.context, "inproc://data", "inproc://cancels", EPOCH, 2)
        self.calls: list[tuple[int, bytes, int]] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.loop.register_servable(HANDLE, PythonServable(self.answer))
        self.loop.start()
        self.data = self.context.socket(zmq.DEALER)
        self.data.set(zmq.LINGER, 0)
        self.data.set(zmq.RCVTIMEO, TIMEOUT_MS)
        self.data.connect("inproc://data")

    def answer(self, method: int, payload: bytes, remaining_us: int) -> tuple[int, bytes, bytes]:
        self.calls.append((method, payload, remaining_us))
        assert self.may_answer.wait(TIMEOUT_MS / 1000)
        if payload == b"raise":
            raise RuntimeError("no wärm")
        if payload == b"odd":
            return 99, b"", b""
        if payload == b"refuse":
            return Code.NOT_FOUND, b"not here", b"unused"
        return Code.OK, b"unused", b"<" + payload + b">"

    def send(self, request_id: int, payload: bytes, remaining_us: int = -1, method: int = 1) -> None:
        header = frame_header.pack_request(EPOCH, request_id, method, HANDLE, remaining_us, 0, False, b"")
        self.data.send_multipart([header, payload])

    def receive(self) -> tuple[int, int, str, bytes]:
        """(request id, code, message, response)."""
        header, payload = self.data.recv_multipart()
        _, request_id, code, message, *_ = frame_header.unpack_reply(header)
        return request_id, code, message.decode(), payload

    def close(self) -> None:
        self.may_answer.set()
        self.loop.stop()
        self.data.close()
        for handle in self.loop.handles:
            self.loop.withdraw(handle)
        self.context.term()


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.close()


def test_a_request_is_answered_by_python_whatever_its_method(scene: Scene) -> None:
    scene.send(1, b"payload", method=1)
    scene.send(2, b"", method=77)
    assert sorted(scene.receive() for _ in range(2)) == [(1, 0, "", b"<payload>"), (2, 0, "", b"<>")]
    assert sorted(scene.calls) == [(1, b"payload", -1), (77, b"", -1)]


@pytest.mark.leaks("Python keeps an entry for each thread of others' that has written to the log")
def test_errors_reach_the_client_and_what_python_raises_ends_nothing_but_its_request(scene: Scene) -> None:
    scene.send(1, b"refuse")
    assert scene.receive() == (1, Code.NOT_FOUND, "not here", b"")
    scene.send(2, b"raise")
    assert scene.receive() == (2, Code.INTERNAL, "RuntimeError: no wärm", b"")
    scene.send(3, b"odd")
    assert scene.receive() == (3, Code.INTERNAL, "ValueError: 99 is no status code", b"")
    scene.send(4, b"next")
    assert scene.receive() == (4, Code.OK, "", b"<next>")


def test_the_time_that_is_left_is_told_and_a_deadline_that_has_passed_ends_the_request(scene: Scene) -> None:
    scene.send(1, b"", remaining_us=60_000_000)
    assert scene.receive()[1] == Code.OK
    assert 0 < scene.calls[0][2] <= 60_000_000
    scene.send(2, b"", remaining_us=0)
    assert scene.receive()[1] == Code.DEADLINE_EXCEEDED
    assert len(scene.calls) == 1


def test_a_servable_is_withdrawn_when_its_last_request_has_been_answered(scene: Scene) -> None:
    scene.may_answer.clear()
    scene.send(1, b"slow")
    while not scene.calls:
        time.sleep(0.001)
    withdrawn: list[object] = []
    thread = threading.Thread(target=lambda: withdrawn.append(scene.loop.withdraw(HANDLE)))
    thread.start()
    thread.join(0.1)
    assert not withdrawn
    scene.may_answer.set()
    assert scene.receive() == (1, Code.OK, "", b"<slow>")
    thread.join()
    assert isinstance(withdrawn[0], PythonServable)


@pytest.mark.parametrize("weight", [1, 3])
def test_threads_are_shared_out_by_weight_where_there_is_one(weight: int) -> None:
    """Two versions with more to do than the threads can: how far one is when the other has done all."""
    count, done = 60, {1: 0, 2: 0}
    done_meanwhile = 0
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    loop = DataLoop(context, "inproc://data", "inproc://cancels", EPOCH, 4)

    def rest(*_: object) -> tuple[int, bytes, bytes]:
        time.sleep(0.005)
        return Code.OK, b"", b""

    data = context.socket(zmq.DEALER)
    try:
        for handle in done:
            loop.register_servable(handle, PythonServable(rest))
        loop.start()
        assert loop.set_weight(1, weight)
        assert not loop.set_weight(99, weight)
        data.set(zmq.LINGER, 0)
        data.set(zmq.RCVTIMEO, TIMEOUT_MS)
        data.connect("inproc://data")
        for number in range(2 * count):
            handle = 1 + number % 2
            header = frame_header.pack_request(EPOCH, 10 * number + handle, 1, handle, -1, 0, False, b"")
            data.send_multipart([header, b""])
        for _ in range(2 * count):
            header, _ = data.recv_multipart()
            done[frame_header.unpack_reply(header)[1] % 10] += 1
            if done[1] == count and not done_meanwhile:
                done_meanwhile = done[2]
    finally:
        loop.stop()
        data.close()
        for handle in loop.handles:
            loop.withdraw(handle)
        context.term()
    # A third of the first one's, and all of it.
    assert (done_meanwhile < 0.6 * count) == (weight == 3)


def test_a_registered_servable_is_kept_and_nothing_else_is_taken(scene: Scene) -> None:
    scene.loop.register_servable(4, PythonServable(lambda *_: (0, b"", b"kept")))
    gc.collect()
    header = frame_header.pack_request(EPOCH, 1, 1, 4, -1, 0, False, b"")
    scene.data.send_multipart([header, b""])
    assert scene.receive() == (1, 0, "", b"kept")
    with pytest.raises(TypeError, match="int can run no requests"):
        scene.loop.register_servable(5, 5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="taken"):
        scene.loop.register_servable(4, PythonServable(lambda *_: (0, b"", b"")))
