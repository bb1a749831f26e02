"""The worker's data loop, driven as a gateway drives it: frames in, frames out, over a context of the test's own."""

import gc
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterator

import numpy
import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tensorgate._native import frame_header
from tensorgate._native.data_loop import DataLoop
from tensorgate._native.execution_pool import PREDICT, run_once
from tensorgate._native.session import Session
from tensorgate.protos.status_codes import Code
from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorgate.workers.saved_model import open_saved_model
from tests.fakes.data_gateway import EPOCH, TIMEOUT_S, Gateway, StreamGateway
from tests.fakes.frame_connection import SIZES, FrameConnection, packed

pytestmark = pytest.mark.usefixtures("libtensorflow")

SLOW, FAST, ECHO, PRODUCT = 1, 2, 3, 4
HOURS = 10**9  # rounds of the slow model


def rounds(number: int) -> bytes:
    request = PredictRequest(inputs={"rounds": TensorProto(dtype=types_pb2.DT_INT32, int_val=[number])})
    return request.SerializeToString()


def size(number: int) -> bytes:
    request = PredictRequest(inputs={"size": TensorProto(dtype=types_pb2.DT_INT32, int_val=[number])})
    return request.SerializeToString()


def four() -> bytes:
    x = TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[4])
    x.tensor_shape.dim.add(size=1)
    return PredictRequest(inputs={"x": x}).SerializeToString()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.001)


@pytest.fixture(scope="module")
def sessions(saved_models: pathlib.Path, libtensorflow: str) -> Iterator[dict[int, Session]]:
    opened = {
        handle: open_saved_model(str(saved_models / name / "1"), 1, ["serve"], b"")
        for handle, name in ((SLOW, "slow"), (FAST, "half_plus_two"), (ECHO, "echo"), (PRODUCT, "product"))
    }
    for _ in range(200):  # first runs are slow: they optimise the graph
        run_once(opened[FAST], PREDICT, four())
        run_once(opened[SLOW], PREDICT, rounds(0))
        run_once(opened[PRODUCT], PREDICT, size(2))
    yield opened
    for session in opened.values():
        session.close()


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    made: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield made
    made.term()


MakeLoop = Callable[..., DataLoop]


@pytest.fixture
def make_loop(
    context: zmq.Context[zmq.Socket[bytes]], sessions: dict[int, Session], tmp_path: pathlib.Path
) -> Iterator[MakeLoop]:
    made: list[DataLoop] = []

    def make(num_execution_threads: int = 1, send_high_water_mark: int = 0) -> DataLoop:
        loop = DataLoop(
            context,
            "inproc://data",
            "inproc://cancels",
            EPOCH,
            num_execution_threads,
            send_high_water_mark,
            str(tmp_path / "stream"),
        )
        made.append(loop)
        for handle, session in sessions.items():
            loop.register_servable(handle, session)
        loop.start()
        return loop

    yield make
    for loop in made:
        loop.stop()
        for handle in loop.handles:
            loop.withdraw(handle)


@pytest.fixture
def loop(make_loop: MakeLoop) -> DataLoop:
    return make_loop()


@pytest.fixture
def zmq_gateway(context: zmq.Context[zmq.Socket[bytes]], loop: DataLoop) -> Iterator[Gateway]:
    made = Gateway(context)
    yield made
    made.close()


@pytest.fixture
def stream_gateway(
    context: zmq.Context[zmq.Socket[bytes]], loop: DataLoop, tmp_path: pathlib.Path
) -> Iterator[StreamGateway]:
    made = StreamGateway(context, tmp_path / "stream")
    yield made
    made.close()


@pytest.fixture(params=["zmq", "stream"])
def gateway(request: pytest.FixtureRequest) -> Gateway:
    """One that sends its requests either way."""
    made = request.getfixturevalue(f"{request.param}_gateway")
    assert isinstance(made, Gateway)
    return made


# --- answers ----------------------------------------------------------------------------------------------------------


def test_requests_are_answered_with_their_own_responses(loop: DataLoop, gateway: Gateway) -> None:
    for request_id in range(100):
        gateway.send(request_id, SLOW if request_id % 2 else FAST, rounds(0) if request_id % 2 else four())
    replies = gateway.replies(100)
    assert {(code, message) for code, message, _ in replies.values()} == {(Code.OK, "")}
    assert PredictResponse.FromString(replies[7][2]).outputs["y"].float_val == [256.0]
    assert PredictResponse.FromString(replies[8][2]).outputs["y"].float_val == [3.0]
    wait_until(lambda: loop.completed == 100)
    assert (loop.in_flight, loop.unsent, loop.malformed) == (0, 0, 0)


def test_a_large_response_arrives_whole(gateway: Gateway) -> None:
    x = TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[1.0])
    x.tensor_shape.dim.add(size=100_000)
    request = PredictRequest(inputs={"x": x})
    request.model_spec.signature_name = "float32"
    gateway.send(1, ECHO, request.SerializeToString())
    code, _, response = gateway.replies(1)[1]
    assert code == Code.OK
    assert len(PredictResponse.FromString(response).outputs["y"].float_val) == 100_000


def test_an_error_comes_with_its_message_and_without_a_response(gateway: Gateway) -> None:
    gateway.send(1, FAST, rounds(1))
    gateway.send(2, FAST, b"\xff\xff")
    gateway.send(3, FAST, b"", method=99)
    replies = gateway.replies(3)
    assert replies[1][0] == Code.INVALID_ARGUMENT
    assert "input" in replies[1][1]
    assert replies[2] == (Code.INTERNAL, "", b"")
    assert replies[3] == (Code.UNIMPLEMENTED, "this worker does not know the method", b"")


def test_a_handle_that_is_not_there_is_unavailable(loop: DataLoop, gateway: Gateway) -> None:
    gateway.send(1, 12345, four())
    assert gateway.replies(1)[1] == (Code.UNAVAILABLE, "the model version is no longer loaded here", b"")
    assert loop.in_flight == 0


# --- cancels and deadlines --------------------------------------------------------------------------------------------


def test_what_is_cancelled_or_expired_before_it_runs_never_runs(loop: DataLoop, gateway: Gateway) -> None:
    gateway.send(1, SLOW, rounds(HOURS), remaining_us=2_000_000)  # keeps the servable's only turn
    gateway.send(2, SLOW, rounds(HOURS))
    gateway.send(3, SLOW, rounds(HOURS), remaining_us=1000)
    wait_until(lambda: loop.in_flight == 3)
    gateway.cancel(12345)
    gateway.cancel(2, epoch=EPOCH + 1)
    gateway.cancel(2)
    replies = gateway.replies(3)
    assert {request_id: code for request_id, (code, _, _) in replies.items()} == {
        1: Code.DEADLINE_EXCEEDED,
        2: Code.CANCELLED,
        3: Code.DEADLINE_EXCEEDED,
    }
    assert replies[2][1] == "the request was cancelled before it ran"
    assert replies[3][1] == "the request's deadline passed before it ran"
    assert loop.foreign == 1


def test_cancels_find_their_requests_among_thousands(loop: DataLoop, gateway: Gateway) -> None:
    count = 3000
    gateway.send(0, SLOW, rounds(HOURS), remaining_us=3_000_000)
    for number in range(1, count):
        gateway.send(number << 40, SLOW, rounds(HOURS))
    wait_until(lambda: loop.in_flight == count)
    for number in sorted(range(1, count), key=lambda number: number * 7919 % count):
        gateway.cancel(number << 40)
    replies = gateway.replies(count)
    assert replies.pop(0)[0] == Code.DEADLINE_EXCEEDED
    assert {code for code, _, _ in replies.values()} == {Code.CANCELLED}


def test_a_run_ends_at_its_deadline(gateway: Gateway) -> None:
    gateway.send(1, SLOW, rounds(HOURS), remaining_us=50_000)
    assert gateway.replies(1)[1][0] == Code.DEADLINE_EXCEEDED


def test_the_longest_deadline_there_is_does_not_overflow_into_one_that_has_passed(
    gateway: Gateway, sessions: dict[int, Session]
) -> None:
    gateway.send(1, SLOW, rounds(1), remaining_us=2**63 - 1)
    assert gateway.replies(1)[1][0] == Code.OK
    assert run_once(sessions[SLOW], PREDICT, rounds(1), 2**63 - 1)[0] == Code.OK


# --- what is dropped --------------------------------------------------------------------------------------------------


def test_a_request_of_an_id_in_flight_is_dropped_and_the_first_one_answered(loop: DataLoop, gateway: Gateway) -> None:
    gateway.send(1, SLOW, rounds(500))
    gateway.send(1, SLOW, rounds(HOURS))
    assert gateway.replies(1)[1][0] == Code.OK
    assert loop.duplicates == 1
    gateway.send(1, SLOW, rounds(0))  # no longer in flight
    assert gateway.replies(1)[1][0] == Code.OK


def test_a_request_of_another_incarnation_is_dropped(loop: DataLoop, gateway: Gateway) -> None:
    header = frame_header.pack_request(EPOCH - 1, 1, PREDICT, FAST, -1, 0, False, b"")
    gateway.data.send_multipart([header, four()])
    gateway.send(2, FAST, four())
    assert list(gateway.replies(1)) == [2]
    assert loop.foreign == 1


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frames=st.lists(st.binary(max_size=300), min_size=1, max_size=5), cancel=st.binary(max_size=40))
def test_frames_that_are_no_request_are_counted_and_harm_nobody(
    loop: DataLoop, zmq_gateway: Gateway, frames: list[bytes], cancel: bytes
) -> None:
    before = loop.malformed
    zmq_gateway.data.send_multipart(frames)
    zmq_gateway.cancels.send(cancel)
    zmq_gateway.send(1, FAST, four())
    assert zmq_gateway.replies(1)[1][0] == Code.OK
    wait_until(lambda: loop.malformed == before + 2)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=st.binary(max_size=60), extra=st.lists(st.binary(max_size=9), max_size=3), cut=st.integers(0, 40))
def test_a_damaged_request_is_counted_and_harms_nobody(
    loop: DataLoop, zmq_gateway: Gateway, header: bytes, extra: list[bytes], cut: int
) -> None:
    whole = frame_header.pack_request(EPOCH, 2**64 - 1, PREDICT, SLOW, HOURS, 0, False, header)
    before = loop.malformed
    zmq_gateway.data.send_multipart([whole[: min(cut, len(whole) - 1)], b"", *extra])
    zmq_gateway.send(1, FAST, four())
    assert zmq_gateway.replies(1)[1][0] == Code.OK
    assert loop.malformed == before + 1


# --- many, and slow ones beside fast ones -----------------------------------------------------------------------------


@pytest.mark.parametrize("high_water_mark", [0, 10])
def test_a_gateway_that_does_not_read_for_a_while_loses_no_reply(
    context: zmq.Context[zmq.Socket[bytes]], make_loop: MakeLoop, high_water_mark: int
) -> None:
    loop = make_loop(2, high_water_mark)
    gateway = Gateway(context, receive_high_water_mark=high_water_mark)
    other = Gateway(context)
    count = 5000
    for request_id in range(count):
        gateway.send(request_id, FAST if request_id % 3 else 12345, four())
    if high_water_mark:
        # What two pipes of ten hold is gone; all others wait in the loop.
        wait_until(lambda: loop.completed + loop.in_flight == count)
        assert loop.in_flight > count - 100
        other.send(count, FAST, four())
        assert list(other.replies(1)) == [count], "one gateway waited for another"
    else:
        wait_until(lambda: loop.completed == count)
    replies = gateway.replies(count)
    assert [replies[request_id][0] for request_id in range(3)] == [Code.UNAVAILABLE, Code.OK, Code.OK]
    wait_until(lambda: loop.in_flight == 0)
    assert loop.unsent == 0
    gateway.close()
    other.close()


def test_a_slow_model_with_requests_in_line_does_not_delay_another_one(loop: DataLoop, gateway: Gateway) -> None:
    """The other one's requests run on an execution thread here, since the payload is larger than any before."""
    for request_id in range(4):
        gateway.send(request_id, SLOW, rounds(HOURS), remaining_us=3_000_000)
    wait_until(lambda: loop.in_flight == 4)
    x = TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[1.0] * 10_000)
    x.tensor_shape.dim.add(size=10_000)
    request = PredictRequest(inputs={"x": x})
    request.model_spec.signature_name = "float32"
    for request_id in range(10, 30):
        gateway.send(request_id, FAST, four())
        gateway.send(100 + request_id, ECHO, request.SerializeToString())
        assert {code for code, _, _ in gateway.replies(2).values()} == {Code.OK}
    assert loop.in_flight == 4, "the slow ones were done before the fast ones"
    assert {code for code, _, _ in gateway.replies(4).values()} == {Code.DEADLINE_EXCEEDED}


def test_a_run_that_surprises_the_loops_own_thread_delays_nobody_else(
    loop: DataLoop, gateway: Gateway, sessions: dict[int, Session]
) -> None:
    for _ in range(20):
        # Small ones until they run on the loop's thread; on a busy machine that takes more than one attempt.
        for request_id in range(100):
            gateway.send(request_id, PRODUCT, size(2))
            gateway.replies(1)
        gateway.send(1000, PRODUCT, size(3000))
        for request_id in range(10):
            gateway.send(request_id, FAST, four())
            assert gateway.replies(1)[request_id][0] == Code.OK
        if loop.surprises:
            break
        assert gateway.replies(1)[1000][0] == Code.OK
    assert loop.surprises == 1
    assert loop.in_flight == 1, "the long one was done before the others"
    gateway.cancel(1000)  # comes too late
    loop.register_servable(50, sessions[FAST])
    assert loop.withdraw(50) is sessions[FAST]
    assert gateway.replies(1)[1000][0] == Code.OK
    # For a while the servable's runs go to the pool.
    for request_id in range(100):
        gateway.send(request_id, PRODUCT, size(2))
    gateway.replies(100)
    gateway.send(1000, PRODUCT, size(1000))
    assert gateway.replies(1)[1000][0] == Code.OK
    assert loop.surprises == 1


def test_a_reply_for_a_gateway_that_has_gone_is_dropped_and_counted(
    context: zmq.Context[zmq.Socket[bytes]], loop: DataLoop, gateway: Gateway
) -> None:
    gone = Gateway(context)
    gone.send(1, SLOW, rounds(HOURS), remaining_us=500_000)
    wait_until(lambda: loop.in_flight == 1)
    gone.close()
    wait_until(lambda: loop.unsent == 1)
    assert (loop.in_flight, loop.completed) == (0, 0)
    gateway.send(1, FAST, four())
    assert gateway.replies(1)[1][0] == Code.OK


# --- streams ----------------------------------------------------------------------------------------------------------


def test_messages_on_a_stream_may_be_cut_anywhere(loop: DataLoop, stream_gateway: StreamGateway) -> None:
    header = frame_header.pack_request(EPOCH, 1, PREDICT, FAST, -1, 0, False, b"")
    second = frame_header.pack_request(EPOCH, 2, PREDICT, FAST, -1, 0, False, b"")
    data = packed(header, four()) + packed(second, four())
    for cut in range(len(data) + 1):
        stream_gateway.data.socket.sendall(data[:cut])
        stream_gateway.data.socket.sendall(data[cut:])
        assert {code for code, _, _ in stream_gateway.replies(2).values()} == {Code.OK}
    for byte in data:
        stream_gateway.data.socket.sendall(bytes([byte]))
    assert {code for code, _, _ in stream_gateway.replies(2).values()} == {Code.OK}
    assert (loop.malformed, loop.in_flight) == (0, 0)


@pytest.mark.parametrize("count", [1, 60_000, 65_536, 70_000, 5_000_000])
def test_payloads_of_any_size_go_both_ways_on_a_stream(stream_gateway: StreamGateway, count: int) -> None:
    x = TensorProto(dtype=types_pb2.DT_FLOAT, tensor_content=numpy.arange(count, dtype="f4").tobytes())
    x.tensor_shape.dim.add(size=count)
    request = PredictRequest(inputs={"x": x})
    request.model_spec.signature_name = "float32"
    stream_gateway.send(1, ECHO, request.SerializeToString())
    stream_gateway.send(2, FAST, four())
    replies = stream_gateway.replies(2)
    assert replies[2][0] == Code.OK
    assert PredictResponse.FromString(replies[1][2]).outputs["y"].float_val[-1] == count - 1


@pytest.mark.parametrize(
    "data",
    [SIZES.pack(2**63, 0), SIZES.pack(0, 2**63), SIZES.pack(2**64 - 1, 2**64 - 1), SIZES.pack(300_000, 1)],
)
def test_sizes_that_cannot_be_end_the_stream_and_nobody_elses(
    loop: DataLoop, stream_gateway: StreamGateway, zmq_gateway: Gateway, tmp_path: pathlib.Path, data: bytes
) -> None:
    stream_gateway.data.socket.sendall(data)
    with pytest.raises(ConnectionError):
        stream_gateway.receive()
    other = FrameConnection.to(str(tmp_path / "stream"))
    header = frame_header.pack_request(EPOCH, 1, PREDICT, FAST, -1, 0, False, b"")
    other.send_multipart([header, four()])
    assert frame_header.unpack_reply(other.recv_multipart()[0])[2] == Code.OK
    other.close()
    zmq_gateway.send(1, FAST, four())
    assert zmq_gateway.replies(1)[1][0] == Code.OK


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=st.binary(max_size=60), payload=st.binary(max_size=60))
def test_a_damaged_request_on_a_stream_is_counted_and_harms_nobody(
    loop: DataLoop, stream_gateway: StreamGateway, header: bytes, payload: bytes
) -> None:
    before = loop.malformed + loop.foreign
    stream_gateway.data.send_multipart([header, payload])
    stream_gateway.send(1, FAST, four())
    assert stream_gateway.replies(1)[1][0] == Code.OK
    assert loop.malformed + loop.foreign == before + 1


def test_a_stream_that_does_not_read_for_a_while_loses_no_reply(
    loop: DataLoop, stream_gateway: StreamGateway, zmq_gateway: Gateway
) -> None:
    count = 20_000
    for request_id in range(count):
        stream_gateway.send(request_id, FAST if request_id % 3 else 12345, four())
    wait_until(lambda: loop.completed == count)
    zmq_gateway.send(count, FAST, four())
    assert list(zmq_gateway.replies(1)) == [count], "one gateway waited for another"
    replies = stream_gateway.replies(count)
    assert [replies[request_id][0] for request_id in range(3)] == [Code.UNAVAILABLE, Code.OK, Code.OK]


def test_replies_for_a_stream_that_has_ended_are_dropped_and_counted(
    loop: DataLoop, stream_gateway: StreamGateway, zmq_gateway: Gateway
) -> None:
    stream_gateway.send(1, SLOW, rounds(HOURS), remaining_us=500_000)
    stream_gateway.send(2, SLOW, rounds(HOURS), remaining_us=500_000)
    wait_until(lambda: loop.in_flight == 2)
    stream_gateway.data.close()
    wait_until(lambda: loop.in_flight == 0)
    assert (loop.unsent, loop.completed) == (2, 0)
    zmq_gateway.send(1, FAST, four())
    assert zmq_gateway.replies(1)[1][0] == Code.OK


def test_streams_that_come_and_go_leave_no_descriptor(loop: DataLoop, tmp_path: pathlib.Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    header = frame_header.pack_request(EPOCH, 1, PREDICT, FAST, -1, 0, False, b"")
    whole = packed(header, four())
    for number in range(500):
        connection = FrameConnection.to(str(tmp_path / "stream"))
        connection.socket.sendall(whole[: number % (len(whole) + 1)])
        connection.close()
    wait_until(lambda: loop.in_flight == 0)
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before)


# --- servables --------------------------------------------------------------------------------------------------------


def test_withdrawing_waits_for_the_last_run_and_then_the_session_closes(
    loop: DataLoop, gateway: Gateway, saved_models: pathlib.Path
) -> None:
    session = open_saved_model(str(saved_models / "slow" / "1"), 1, ["serve"], b"")
    loop.register_servable(99, session)
    gateway.send(1, 99, rounds(HOURS), remaining_us=1_500_000)
    gateway.send(2, 99, rounds(1))
    wait_until(lambda: loop.in_flight == 2)
    with pytest.raises(RuntimeError, match="in use"):
        session.close()
    withdrawn: list[Session | None] = []
    thread = threading.Thread(target=lambda: withdrawn.append(loop.withdraw(99)))
    thread.start()
    codes: dict[int, int] = {}
    probe = 100
    while Code.UNAVAILABLE not in codes.values():
        probe += 1
        gateway.send(probe, 99, rounds(0))  # taken in while the withdrawal is on its way, and refused after that
        if gateway.has_reply(within_s=0.01):
            request_id, (code, _, _) = gateway.receive()
            codes[request_id] = code
    assert 1 not in codes
    assert thread.is_alive()
    while len(codes) < probe - 100 + 2:
        request_id, (code, _, _) = gateway.receive()
        codes[request_id] = code
    assert (codes[1], codes[2]) == (Code.DEADLINE_EXCEEDED, Code.OK)
    thread.join(TIMEOUT_S)
    assert withdrawn == [session]
    session.close()
    assert loop.withdraw(99) is None


def test_a_handle_is_registered_once(loop: DataLoop, sessions: dict[int, Session]) -> None:
    with pytest.raises(ValueError, match="the handle 1 is taken"):
        loop.register_servable(SLOW, sessions[SLOW])
    assert loop.handles == [SLOW, FAST, ECHO, PRODUCT]


def test_a_closed_session_is_not_registered(loop: DataLoop, saved_models: pathlib.Path) -> None:
    session = open_saved_model(str(saved_models / "slow" / "1"), 1, ["serve"], b"")
    session.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.register_servable(50, session)
    assert 50 not in loop.handles


# --- the end ----------------------------------------------------------------------------------------------------------


def test_draining_answers_what_is_in_flight_and_refuses_the_rest(loop: DataLoop, gateway: Gateway) -> None:
    for request_id in range(5):
        gateway.send(request_id, SLOW, rounds(50))
    wait_until(lambda: loop.completed + loop.in_flight == 5)
    loop.drain()
    assert {code for code, _, _ in gateway.replies(5).values()} == {Code.OK}
    gateway.send(9, SLOW, rounds(1))
    assert gateway.replies(1)[9] == (Code.UNAVAILABLE, "the worker is stopping", b"")
    loop.drain()


def test_stopping_answers_what_runs_and_cancels_what_waits(loop: DataLoop, gateway: Gateway) -> None:
    gateway.send(1, SLOW, rounds(2000))
    for request_id in range(2, 6):
        gateway.send(request_id, SLOW, rounds(HOURS))
    wait_until(lambda: loop.in_flight == 5 and loop.running == 1)
    loop.stop()
    replies = gateway.replies(5)
    assert [replies[request_id][0] for request_id in range(1, 6)] == [Code.OK] + 4 * [Code.CANCELLED]
    loop.stop()
    loop.drain()
    with pytest.raises(RuntimeError, match="started once"):
        loop.start()


def test_stopping_gives_up_on_a_gateway_that_does_not_read(
    context: zmq.Context[zmq.Socket[bytes]], make_loop: MakeLoop
) -> None:
    loop = make_loop(1, 1)
    gateway = Gateway(context, receive_high_water_mark=1)
    for request_id in range(100):
        gateway.send(request_id, FAST, four())
    wait_until(lambda: loop.completed + loop.in_flight == 100)
    loop.stop()
    assert loop.unsent > 90
    assert loop.in_flight == 0
    gateway.close()


def test_a_loop_that_was_never_started_stops(
    context: zmq.Context[zmq.Socket[bytes]], sessions: dict[int, Session]
) -> None:
    loop = DataLoop(context, "inproc://data", "inproc://cancels", EPOCH, 1)
    loop.register_servable(1, sessions[SLOW])
    assert loop.withdraw(1) is sessions[SLOW]
    assert loop.withdraw(1) is None
    loop.stop()


def test_a_loop_that_nobody_stopped_ends_with_its_object(
    context: zmq.Context[zmq.Socket[bytes]], saved_models: pathlib.Path
) -> None:
    """Even in a reference cycle, with requests under way: its threads end before the session goes."""
    session = open_saved_model(str(saved_models / "slow" / "1"), 1, ["serve"], b"")
    loop = DataLoop(context, "inproc://data", "inproc://cancels", EPOCH, 2)
    loop.register_servable(1, session)
    loop.start()
    gateway = Gateway(context)
    for request_id in range(20):
        gateway.send(request_id, 1, rounds(50))
    gateway.replies(1)
    cycle: list[object] = [loop]
    cycle.append(cycle)
    del loop, cycle
    gc.collect()
    gateway.replies(19)
    session.close()
    gateway.close()


def test_a_loop_that_cannot_be_made_leaves_nothing_behind(
    context: zmq.Context[zmq.Socket[bytes]], tmp_path: pathlib.Path
) -> None:
    before = set(os.listdir("/proc/self/fd"))
    nowhere = f"ipc://{tmp_path}/no/such/folder"
    with pytest.raises(OSError, match="no/such/folder"):
        DataLoop(context, nowhere, "inproc://cancels", EPOCH, 1)
    with pytest.raises(OSError, match="no/such/folder"):
        DataLoop(context, "inproc://data", nowhere, EPOCH, 1)
    with pytest.raises(ValueError, match="num_execution_threads must be positive"):
        DataLoop(context, "inproc://data", "inproc://cancels", EPOCH, 0)
    with pytest.raises(TypeError):
        DataLoop("no context")  # type: ignore[call-arg, arg-type]
    gc.collect()
    wait_until(lambda: len(set(os.listdir("/proc/self/fd")) - before) <= 8)
