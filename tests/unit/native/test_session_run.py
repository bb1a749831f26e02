"""SessionRun in the worker on real models: names and aliases, targets, options, and what is refused."""

import pathlib
from collections.abc import Iterator

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from tensorgate._native.execution_pool import run_once
from tensorgate._native.session import Session
from tensorgate.gateway.dispatch.call import Method
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorgate.protos.tensorflow.core.framework.tensor_shape_pb2 import TensorShapeProto
from tensorgate.protos.tensorflow.core.protobuf.config_pb2 import RunOptions
from tensorgate.protos.tensorflow.core.protobuf.named_tensor_pb2 import NamedTensorProto
from tensorgate.protos.tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorgate.protos.tensorflow_serving.apis.session_service_pb2 import SessionRunRequest, SessionRunResponse
from tensorgate.workers.saved_model import open_saved_model

pytestmark = pytest.mark.usefixtures("libtensorflow")


def floats(*values: float) -> TensorProto:
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=len(values))])
    return TensorProto(dtype=types_pb2.DT_FLOAT, tensor_shape=shape, float_val=values)


def request(
    feed: dict[str, TensorProto] | None = None,
    fetch: tuple[str, ...] = (),
    target: tuple[str, ...] = (),
    alias: bool = False,
    signature: str = "",
    timeout_ms: int = 0,
) -> SessionRunRequest:
    return SessionRunRequest(
        model_spec=ModelSpec(name="m", signature_name=signature),
        feed=[NamedTensorProto(name=name, tensor=tensor) for name, tensor in (feed or {}).items()],
        fetch=fetch,
        target=target,
        tensor_name_is_alias=alias,
        options=RunOptions(timeout_in_ms=timeout_ms) if timeout_ms else None,
    )


def run(session: Session, message: SessionRunRequest, remaining_us: int = -1) -> SessionRunResponse:
    code, text, response, _ = run_once(session, Method.SESSION_RUN, message.SerializeToString(), remaining_us)
    if code:
        raise ServingError(Code.of(code), text.decode())
    return SessionRunResponse.FromString(response)


def refusal(session: Session, message: SessionRunRequest) -> ServingError:
    with pytest.raises(ServingError) as refused:
        run(session, message)
    return refused.value


def opened(saved_models: pathlib.Path, name: str) -> Iterator[Session]:
    session = open_saved_model(str(saved_models / name / "1"), 1, ["serve"], b"")
    yield session
    session.close()


@pytest.fixture(scope="module")
def pair(saved_models: pathlib.Path, libtensorflow: str) -> Iterator[Session]:
    yield from opened(saved_models, "pair")


@pytest.fixture(scope="module")
def counter(saved_models: pathlib.Path, libtensorflow: str) -> Iterator[Session]:
    yield from opened(saved_models, "counter")


@pytest.fixture(scope="module")
def slow(saved_models: pathlib.Path, libtensorflow: str) -> Iterator[Session]:
    yield from opened(saved_models, "slow")


AB = {"a": floats(2), "b": floats(3)}


def test_tensors_of_the_graph_go_in_and_come_out_under_their_own_names_in_the_order_asked_for(pair: Session) -> None:
    response = run(pair, request({"a:0": floats(2), "b": floats(3)}, ("sum:0", "product", "sum:0")))
    assert [(each.name, list(each.tensor.float_val)) for each in response.tensor] == [
        ("sum:0", [5]),
        ("product", [6]),
        ("sum:0", [5]),
    ]
    assert (response.model_spec.name, response.model_spec.version.value) == ("m", 1)
    assert response.model_spec.signature_name == ""
    assert not response.HasField("metadata")


def test_aliases_are_those_of_the_signature(pair: Session) -> None:
    response = run(pair, request(AB, ("product", "sum"), alias=True))
    assert [(each.name, list(each.tensor.float_val)) for each in response.tensor] == [("product", [6]), ("sum", [5])]
    assert response.model_spec.signature_name == "serving_default"
    assert run(pair, request(AB, ("sum",), alias=True, signature="with_default")).model_spec.signature_name == (
        "with_default"
    )


def test_a_tensor_in_the_middle_of_the_graph_can_be_fed(saved_models: pathlib.Path) -> None:
    for session in opened(saved_models, "examples"):
        value = floats(7)
        value.tensor_shape.dim.add(size=1)
        (scores,) = run(session, request({"value": value}, ("scores",))).tensor
        assert list(scores.tensor.float_val) == [7, -7]


def test_targets_run_without_being_fetched(counter: Session) -> None:
    text = TensorProto(dtype=types_pb2.DT_STRING, string_val=[b"kept"])
    response = run(counter, request({"text": text}, (), ("keep",)))
    assert list(response.tensor) == []
    (kept,) = run(counter, request({}, ("kept",), alias=True)).tensor
    assert list(kept.tensor.string_val) == [b"kept"]


@pytest.mark.parametrize(
    ("message", "code", "text"),
    [
        (
            request({"c": floats(1)}, ("sum",)),
            3,
            "Tensor c, specified in either feed_devices or fetch_devices was not found in the Graph",
        ),
        (
            request(AB, ("sum:1",)),
            3,
            "Tensor sum:1, specified in either feed_devices or fetch_devices was not found in the Graph",
        ),
        (
            request(AB, ("sum:99999999999999999999",)),
            3,
            "Tensor sum:99999999999999999999, specified in either feed_devices or fetch_devices was not found in the"
            " Graph",
        ),
        (
            request(AB, ("",)),
            3,
            "Tensor , specified in either feed_devices or fetch_devices was not found in the Graph",
        ),
        (
            request(AB, ("sum\0x",)),
            3,
            "Tensor sum\0x, specified in either feed_devices or fetch_devices was not found in the Graph",
        ),
        (request(AB, ("sum",), ("nope",)), 5, "PruneForTargets: Some target nodes not found: nope"),
        (request({"a:0": floats(1), "b": floats(1)}, ("a",)), 3, "a:0 is both fed and fetched."),
        (request(AB), 3, "Must specify at least one target to fetch or execute."),
        (request(AB, ("sum",), alias=True, signature="nope"), 9, 'Serving signature key "nope" not found.'),
        (request({"sum": floats(1)}, ("sum",), alias=True), 3, "tensor alias not found in signature: sum"),
        (request(AB, ("a",), alias=True), 3, "tensor alias not found in signature: a"),
        (
            request(AB, ("sum",), alias=True, signature="odd"),
            3,
            "Tensor no_such_tensor:0, specified in either feed_devices or fetch_devices was not found in the Graph",
        ),
        (request({"a": TensorProto()}, ("sum",)), 3, "tensor parsing error: a"),
        (
            request({"a": TensorProto(dtype=types_pb2.DT_DOUBLE)} | {"b": floats(1)}, ("sum",)),
            3,
            "Expects arg[0] to be float but double is provided",
        ),
    ],
)
def test_what_cannot_be_run_is_refused(pair: Session, message: SessionRunRequest, code: int, text: str) -> None:
    assert refusal(pair, message) == ServingError(Code.of(code), text)


def test_a_placeholder_that_is_not_fed_is_the_sessions_own_error(pair: Session) -> None:
    refused = refusal(pair, request({"a": floats(1)}, ("sum",)))
    assert refused.code is Code.INVALID_ARGUMENT
    assert "You must feed a value for placeholder tensor 'b'" in refused.message


@pytest.mark.parametrize("timeout_ms", [200, 2**62])
def test_the_shorter_of_deadline_and_timeout_ends_a_slow_run(slow: Session, timeout_ms: int) -> None:
    rounds = TensorProto(dtype=types_pb2.DT_INT32, int_val=[10**7])
    endless = request({"rounds": rounds}, ("y",), timeout_ms=timeout_ms)
    remaining_us = 200_000 if timeout_ms > 200 else -1
    with pytest.raises(ServingError) as expired:
        run(slow, endless, remaining_us)
    assert expired.value == ServingError(Code.DEADLINE_EXCEEDED, "Timed out waiting for notification")


def test_floods_are_refused_and_bounded(pair: Session) -> None:
    assert "4096" in refusal(pair, request(AB, ("sum",) * 5000)).message
    assert "4096" in refusal(pair, request(AB, ("sum",), ("sum",) * 5000)).message
    assert len(run(pair, request(AB, ("sum",) * 4096)).tensor) == 4096


WHOLE = request(AB, ("sum", "product"), ("product",), timeout_ms=20_000)


def test_every_truncation_is_refused_or_asks_for_less(pair: Session) -> None:
    payload = WHOLE.SerializeToString()
    assert run_once(pair, Method.SESSION_RUN, payload)[0] == 0
    for size in range(len(payload)):
        assert (run_once(pair, Method.SESSION_RUN, payload[:size])[:2] == (13, b"")) is not is_message(payload[:size])


def is_message(payload: bytes) -> bool:
    try:
        SessionRunRequest.FromString(payload)
    except DecodeError:
        return False
    return True


@given(st.data())
def test_damaged_requests_are_refused_when_protobuf_refuses_them(pair: Session, data: st.DataObject) -> None:
    damaged = bytearray(WHOLE.SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    code, message, _, _ = run_once(pair, Method.SESSION_RUN, damaged)
    if is_message(bytes(damaged)):
        assert (code, message) != (Code.INTERNAL, b"")
    elif WHOLE.options.SerializeToString() in damaged:
        # What options have no meaning here is not looked into; all else is.
        assert code != 0


@given(st.binary(max_size=60))
def test_garbage_is_refused(pair: Session, garbage: bytes) -> None:
    assert run_once(pair, Method.SESSION_RUN, garbage)[0] != 0
