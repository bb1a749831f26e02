"""The worker's data loop with memory that it shares with its gateway, which the test plays."""

import os
import pathlib
from collections.abc import Iterator

import pytest
import zmq

from tensorgate._native import frame_header
from tensorgate._native.data_loop import DataLoop
from tensorgate._native.execution_pool import PREDICT
from tensorgate._native.reply_memory import ReplyMemory, SharedReplies
from tensorgate._native.request_memory import RequestMemory, SharedRequests
from tensorgate.protos.status_codes import Code
from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorgate.workers.saved_model import open_saved_model
from tests.fakes.data_gateway import EPOCH, StreamGateway

pytestmark = pytest.mark.usefixtures("libtensorflow")

ECHO = 3
THRESHOLD = 10_000
NOT_THERE = "the request is not where the gateway says, in the memory that it shares"
Place = tuple[int, int, int]


def echo_request(count: int) -> bytes:
    x = TensorProto(dtype=types_pb2.DT_FLOAT, float_val=map(float, range(count)))
    x.tensor_shape.dim.add(size=count)
    request = PredictRequest(inputs={"x": x})
    request.model_spec.signature_name = "float32"
    return request.SerializeToString()


class Scene:
    """A loop with one model, the gateway's ends of its memory, and a connection to it."""

    def __init__(self, saved_models: pathlib.Path, folder: pathlib.Path) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.requests, self.replies = RequestMemory(1 << 22, THRESHOLD), ReplyMemory(1 << 20)
        fd = self.requests.open_for_reading()
        self.shared_replies = SharedReplies(self.replies.fd, THRESHOLD)
        self.loop = DataLoop(
            self.context, "inproc://data", "inproc://cancels", EPOCH, 1, 0, str(folder / "stream"),
            SharedRequests(fd), self.shared_replies,
        )  # fmt: skip
        os.close(fd)
        self.session = open_saved_model(str(saved_models / "echo" / "1"), 1, ["serve"], b"")
        self.loop.register_servable(ECHO, self.session)
        self.loop.start()
        self.gateway = StreamGateway(self.context, folder / "stream")

    def send_place(self, request_id: int, place: Place) -> None:
        header = frame_header.pack_request(EPOCH, request_id, PREDICT, ECHO, -1, 0, False, b"", place)
        self.gateway.data.send_multipart([header, b""])

    def receive(self) -> tuple[int, str, Place | None, bytes]:
        """Code and text of a reply, and where it is or what it is."""
        header, payload = self.gateway.data.recv_multipart()
        _, _, code, message, *_ = frame_header.unpack_reply(header)
        return code, message.decode(), frame_header.place_of(header), payload

    def close(self) -> None:
        self.gateway.close()
        self.loop.stop()
        self.loop.withdraw(ECHO)
        self.session.close()
        self.context.term()


@pytest.fixture
def scene(saved_models: pathlib.Path, tmp_path: pathlib.Path) -> Iterator[Scene]:
    made = Scene(saved_models, tmp_path)
    yield made
    made.close()


def test_a_large_request_is_read_in_place_and_its_reply_written_into_the_memory(scene: Scene) -> None:
    assert scene.replies.is_attached
    put = scene.requests.put(echo_request(50_000))
    assert put is not None
    block, place = put
    scene.send_place(1, place)
    code, _, reply_place, payload = scene.receive()
    scene.requests.give_back(block)
    assert (code, payload) == (Code.OK, b"")
    assert reply_place is not None
    response = scene.replies.get(reply_place)
    assert response is not None
    assert PredictResponse.FromString(response).outputs["y"].float_val == [float(each) for each in range(50_000)]
    assert scene.shared_replies.used == 0


def test_small_replies_and_those_that_find_no_room_are_in_their_frames(scene: Scene) -> None:
    scene.gateway.send(1, ECHO, echo_request(10))
    code, _, place, payload = scene.receive()
    assert (code, place) == (Code.OK, None)
    assert len(PredictResponse.FromString(payload).outputs["y"].float_val) == 10
    scene.gateway.send(2, ECHO, echo_request(500_000))  # more than all of the memory
    code, _, place, payload = scene.receive()
    assert (code, place) == (Code.OK, None)
    assert len(PredictResponse.FromString(payload).outputs["y"].float_val) == 500_000
    assert scene.replies.num_full > 0
    assert scene.shared_replies.used == 0


def test_replies_that_nobody_gives_back_fill_the_memory_and_no_more(scene: Scene) -> None:
    places = []
    for request_id in range(12):
        scene.gateway.send(request_id, ECHO, echo_request(40_000))
        code, _, place, payload = scene.receive()
        assert code == Code.OK
        assert (place is None) == (len(payload) > 0)
        if place is not None:
            places.append(place)
    assert 3 < len(places) < 12
    assert len(set(places)) == len(places)
    for place in places:
        assert scene.replies.get(place) is not None
    scene.gateway.send(99, ECHO, echo_request(40_000))
    assert scene.receive()[2] is not None


@pytest.mark.parametrize("wrong", [(0, 100, 1), (1 << 62, 100, 1), (8192, (1 << 64) - 1, 1), (16384, 100, 9)])
def test_a_request_that_is_not_where_the_gateway_says_is_refused_and_the_next_one_answered(
    scene: Scene, wrong: Place
) -> None:
    scene.send_place(1, wrong)
    assert scene.receive() == (Code.INTERNAL, NOT_THERE, None, b"")
    scene.gateway.send(2, ECHO, echo_request(10))
    assert scene.receive()[0] == Code.OK
    assert scene.loop.in_flight == 0


def test_a_request_that_fails_leaves_no_reply_in_the_memory(scene: Scene) -> None:
    put = scene.requests.put(b"\xff" * 20_000)
    assert put is not None
    scene.send_place(1, put[1])
    assert scene.receive()[0] == Code.INTERNAL
    scene.requests.give_back(put[0])
    assert scene.shared_replies.used == 0
