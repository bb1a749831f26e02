"""A session's life: it cannot be taken from under its runs, nor used before it is there or after it is gone."""

import pathlib
import threading
from collections.abc import Iterator

import pytest

from tensorgate._native.execution_pool import PREDICT, run_once
from tensorgate._native.session import Session
from tensorgate.protos.status_codes import Code
from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorgate.workers.saved_model import open_saved_model

pytestmark = pytest.mark.usefixtures("libtensorflow")

ONE_ROUND = PredictRequest(inputs={"rounds": TensorProto(dtype=types_pb2.DT_INT32, int_val=[1])}).SerializeToString()


@pytest.fixture
def path(saved_models: pathlib.Path) -> str:
    return str(saved_models / "slow" / "1")


@pytest.fixture
def session(path: str) -> Iterator[Session]:
    opened = open_saved_model(path, 1, ["serve"], b"")
    yield opened
    opened.close()


def test_nothing_runs_on_a_closed_session(session: Session) -> None:
    session.close()
    session.close()
    with pytest.raises(RuntimeError, match="closed"):
        run_once(session, PREDICT, ONE_ROUND)


def test_a_session_is_not_closed_while_a_request_runs_on_it(session: Session) -> None:
    request = PredictRequest(inputs={"rounds": TensorProto(dtype=types_pb2.DT_INT32, int_val=[10**9])})
    codes: list[int] = []
    run = threading.Thread(
        target=lambda: codes.append(run_once(session, PREDICT, request.SerializeToString(), 1_000_000)[0])
    )
    run.start()
    refused = False
    while not codes:
        try:
            run_once(session, PREDICT, ONE_ROUND)
            session.close()
            break
        except RuntimeError as error:
            refused = "is in use" in str(error)
    run.join()
    assert refused
    assert codes == [Code.DEADLINE_EXCEEDED]


def test_a_session_that_was_never_loaded_is_no_session() -> None:
    session = Session.__new__(Session)
    with pytest.raises(RuntimeError, match="closed"):
        run_once(session, PREDICT, ONE_ROUND)
    with pytest.raises(RuntimeError, match="open session"):
        session.bind_signatures([])
    session.close()


def test_a_session_is_loaded_once_and_bound_once(session: Session, path: str) -> None:
    with pytest.raises(RuntimeError, match="loaded once"):
        session.__init__(path, 1, ["serve"])  # type: ignore[misc]
    with pytest.raises(RuntimeError, match="bound once"):
        session.bind_signatures([])
    assert run_once(session, PREDICT, ONE_ROUND)[0] == 0


def test_a_session_that_is_dropped_closes_itself(path: str) -> None:
    for _ in range(3):
        open_saved_model(path, 1, ["serve"], b"")


class TwoFaced(list[object]):
    """A list that tells a smaller length than it has."""

    def __len__(self) -> int:
        return 0


def test_room_is_made_for_the_endpoints_there_are_and_not_for_those_a_list_says_it_has(path: str) -> None:
    session = Session(path, 1, ["serve"])
    inputs = TwoFaced([(f"alias {i}", "rounds:0", b"default" * 10) for i in range(200)])
    outputs = TwoFaced([(f"alias {i}", "y:0") for i in range(200)])
    session.bind_signatures([("many", "", "", inputs, outputs)])  # type: ignore[list-item]
    session.close()
