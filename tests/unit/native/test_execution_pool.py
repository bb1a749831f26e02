"""The execution pool: completions, cancellation, deadlines before running, and an orderly end."""

import gc
import os
import pathlib
import select
from collections.abc import Iterator

import pytest

from tensorgate._native.execution_pool import ExecutionPool, ResponseBuffer, predict_once
from tensorgate._native.session import Session
from tensorgate.protos.status_codes import Code
from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorgate.workers.saved_model import open_saved_model

pytestmark = pytest.mark.usefixtures("libtensorflow")

PREDICT = 1


@pytest.fixture(scope="module")
def slow(saved_models: pathlib.Path, libtensorflow: str) -> Iterator[Session]:
    session = open_saved_model(str(saved_models / "slow" / "1"), 1, ["serve"], b"")
    yield session
    session.close()


@pytest.fixture
def pool() -> Iterator[ExecutionPool]:
    made = ExecutionPool(1)
    yield made
    made.stop()


def rounds(number: int) -> bytes:
    request = PredictRequest(inputs={"rounds": TensorProto(dtype=types_pb2.DT_INT32, int_val=[number])})
    return request.SerializeToString()


def drain(pool: ExecutionPool, count: int) -> dict[int, tuple[int, bytes, bytes]]:
    """Waits for that many completions: request id to (code, message, response)."""
    done: dict[int, tuple[int, bytes, bytes]] = {}
    while len(done) < count:
        assert select.select([pool.event_fd], [], [], 30)[0], "no completion within 30 s"
        for request_id, code, message, _, _, response, _ in pool.drain():
            done[request_id] = (code, message, bytes(response))
    return done


def test_requests_complete_with_their_own_answers(pool: ExecutionPool, slow: Session) -> None:
    for request_id in range(50):
        pool.submit(slow, request_id, PREDICT, rounds(0), -1)
    done = drain(pool, 50)
    assert {code for code, _, _ in done.values()} == {Code.OK}
    assert PredictResponse.FromString(done[7][2]).outputs["y"].float_val == [256.0]
    assert pool.in_flight == 0


def test_a_cheap_request_runs_at_once_and_a_loop_never_does(
    pool: ExecutionPool, slow: Session, saved_models: pathlib.Path
) -> None:
    session = open_saved_model(str(saved_models / "half_plus_two" / "1"), 1, ["serve"], b"")
    x = TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[4])
    x.tensor_shape.dim.add(size=1)
    payload = PredictRequest(inputs={"x": x}).SerializeToString()
    for _ in range(200):  # first runs are slow: they optimise the graph
        predict_once(session, payload)
        predict_once(slow, rounds(0))
    ran_at_once = 0
    for request_id in range(100):
        if pool.submit(session, request_id, PREDICT, payload, -1):
            ((done_id, code, _, _, _, response, _),) = pool.drain()
            assert (done_id, code) == (request_id, Code.OK)
            assert PredictResponse.FromString(bytes(response)).outputs["y"].float_val == [3.0]
            ran_at_once += 1
        else:
            drain(pool, 1)
        assert not pool.submit(slow, 1000 + request_id, PREDICT, rounds(0), -1)
        drain(pool, 1)
    assert ran_at_once > 50
    session.close()


def test_what_is_cancelled_or_expired_in_the_queue_never_runs(pool: ExecutionPool, slow: Session) -> None:
    pool.submit(slow, 1, PREDICT, rounds(2000), -1)  # keeps the only thread busy
    pool.submit(slow, 2, PREDICT, rounds(10**9), -1)  # would run for hours
    pool.submit(slow, 3, PREDICT, rounds(10**9), 1000)  # expires while the first runs
    pool.submit(slow, 4, 99, b"", -1)
    assert pool.cancel(2)
    assert not pool.cancel(12345)
    done = drain(pool, 4)
    assert {request_id: code for request_id, (code, _, _) in done.items()} == {
        1: Code.OK,
        2: Code.CANCELLED,
        3: Code.DEADLINE_EXCEEDED,
        4: Code.UNIMPLEMENTED,
    }


def test_a_request_id_in_flight_is_refused_and_the_first_keeps_its_place(pool: ExecutionPool, slow: Session) -> None:
    pool.submit(slow, 1, PREDICT, rounds(100), -1)
    with pytest.raises(ValueError, match="already in flight"):
        pool.submit(slow, 1, PREDICT, rounds(100), -1)
    assert drain(pool, 1)[1][0] == Code.OK


def test_the_payload_is_held_uncopied_until_drained_and_then_let_go(pool: ExecutionPool, slow: Session) -> None:
    payload = bytearray(rounds(1))
    pool.submit(slow, 1, PREDICT, payload, -1)
    with pytest.raises(BufferError):
        payload.extend(b"x")  # its memory is lent to the pool
    drain(pool, 1)
    gc.collect()
    payload.extend(b"x")


def test_stop_runs_what_is_queued_and_refuses_more(slow: Session) -> None:
    pool = ExecutionPool(2)
    for request_id in range(10):
        pool.submit(slow, request_id, PREDICT, rounds(1), -1)
    pool.stop()
    assert len(pool.drain()) == 10
    with pytest.raises(RuntimeError):
        pool.submit(slow, 11, PREDICT, rounds(1), -1)
    pool.stop()


def test_a_large_response_is_a_read_only_buffer_that_outlives_the_pool(saved_models: pathlib.Path) -> None:
    pool = ExecutionPool(1)
    echo = open_saved_model(str(saved_models / "echo" / "1"), 1, ["serve"], b"")
    x = TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[1.0])
    x.tensor_shape.dim.add(size=100_000)
    request = PredictRequest(inputs={"x": x})
    request.model_spec.signature_name = "float32"
    pool.submit(echo, 1, PREDICT, request.SerializeToString(), -1)
    pool.stop()
    ((_, _, _, _, _, response, _),) = pool.drain()
    del pool
    gc.collect()
    view = memoryview(response)
    assert view.readonly
    assert isinstance(response, ResponseBuffer)
    assert len(view) == len(response) > 400_000
    assert len(PredictResponse.FromString(view.tobytes()).outputs["y"].float_val) == 100_000
    echo.close()


def test_the_longest_deadline_there_is_does_not_overflow_into_one_that_has_passed(
    pool: ExecutionPool, slow: Session
) -> None:
    pool.submit(slow, 1, PREDICT, rounds(1), 2**63 - 1)
    assert drain(pool, 1)[1][0] == Code.OK
    assert predict_once(slow, rounds(1), 2**63 - 1)[0] == Code.OK


def test_a_pool_lost_in_a_reference_cycle_ends_its_runs_before_it_lets_their_payloads_go(slow: Session) -> None:
    """The garbage collector empties an object before it frees it; the threads must be gone by then."""
    payloads = [bytearray(rounds(20)) for _ in range(10)]
    pool = ExecutionPool(2)
    for request_id, payload in enumerate(payloads):
        pool.submit(slow, request_id, PREDICT, payload, -1)
    cycle: list[object] = [pool]
    cycle.append(cycle)
    del pool, cycle
    gc.collect()
    for payload in payloads:
        payload.extend(b"let go")


def test_a_pool_dropped_with_requests_in_flight_ends_them_first(slow: Session) -> None:
    pool = ExecutionPool(1)
    payload = bytearray(rounds(20))
    pool.submit(slow, 1, PREDICT, payload, -1)
    pool.submit(slow, 2, PREDICT, payload, -1)
    del pool
    payload.extend(b"let go")


def test_a_pool_that_was_never_made_closes_no_descriptor() -> None:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(TypeError):
        ExecutionPool("two")  # type: ignore[arg-type]
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_pool_without_threads_is_refused() -> None:
    with pytest.raises(ValueError, match="num_threads must be positive"):
        ExecutionPool(0)
