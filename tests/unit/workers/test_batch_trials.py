"""Trials of batches as a version loads: what is tried, with which rows, and what keeps from trying."""

import pathlib
from typing import Any

import pytest

from tensorgate._native.batching_options import BatchingOptions
from tensorgate._native.session import Session
from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorgate.protos.tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
from tensorgate.workers.batch_trials import try_batches, with_rows
from tensorgate.workers.saved_model import open_saved_model
from tests.harness.batch_loop import BatchLoop, options
from tests.harness.tf_records import write_warmup_requests

pytestmark = pytest.mark.usefixtures("libtensorflow")


def auto(**changes: Any) -> BatchingOptions:
    return options(**{
        "max_batch_size": 1 << 40, "max_execution_batch_size": 8, "batch_timeout_micros": 0,
        "auto_latency_target_us": 60_000_000, **changes,
    })  # fmt: skip


class Taught:
    """What is told of runs, by the signature's name."""

    def __init__(self) -> None:
        self.requests: dict[str, list[PredictRequest]] = {}

    def __call__(self, payload: bytes, run_us: int) -> bool:
        assert run_us > 0
        request = PredictRequest.FromString(payload)
        self.requests.setdefault(request.model_spec.signature_name, []).append(request)
        return True

    def sizes(self, signature: str) -> list[int]:
        return [next(iter(each.inputs.values())).tensor_shape.dim[0].size for each in self.requests[signature]]


def opened(saved_models: pathlib.Path, name: str) -> Session:
    return open_saved_model(str(saved_models / name / "1"), 1, ["serve"], b"")


def test_sizes_go_up_by_two_to_the_largest_batch_and_only_for_auto(
    saved_models: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    session = opened(saved_models, "mlp")
    try:
        taught = Taught()
        assert try_batches(session, str(tmp_path), auto(), taught) == 4
        assert taught.sizes("predict_images") == [1, 2, 4, 8]
        assert try_batches(session, str(tmp_path), options(), taught) == 0
        assert try_batches(session, str(tmp_path), auto(auto_latency_target_us=1), taught) == 1
        assert try_batches(session, str(tmp_path), auto(), taught, budget_s=0.0) == 0
        assert try_batches(session, str(tmp_path), auto(), lambda *_: False) == 0
    finally:
        session.close()


def test_without_known_rows_it_takes_those_of_the_warm_up_requests(
    saved_models: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    session = opened(saved_models, "rows")
    try:
        taught = Taught()
        assert try_batches(session, str(tmp_path), auto(), taught) == 0
        log = PredictionLog()
        x = log.predict_log.request.inputs["x"]
        x.CopyFrom(TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[1, 2, 3, 4]))
        for size in (2, 2):
            x.tensor_shape.dim.add(size=size)
        write_warmup_requests(tmp_path, PredictionLog(), log)
        assert try_batches(session, str(tmp_path), auto(), taught) == 4
        assert taught.sizes("serving_default") == [1, 2, 4, 8]
        assert list(taught.requests["serving_default"][2].inputs["x"].float_val) == [1, 2] * 4
    finally:
        session.close()


def test_a_file_that_is_no_file_of_requests_and_a_run_that_fails_only_end_the_trials(
    saved_models: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    session = opened(saved_models, "rows")
    try:
        log = PredictionLog()
        log.predict_log.request.inputs["unknown"].CopyFrom(TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[1]))
        log.predict_log.request.inputs["unknown"].tensor_shape.dim.add(size=1)
        write_warmup_requests(tmp_path, log)
        assert try_batches(session, str(tmp_path), auto(), Taught()) == 0
        (tmp_path / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"no records")
        assert try_batches(session, str(tmp_path), auto(), Taught()) == 0
    finally:
        session.close()


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (TensorProto(dtype=types_pb2.DT_INT32, tensor_content=bytes(range(8))), [bytes([0, 1, 2, 3]) * 3]),
        (TensorProto(dtype=types_pb2.DT_STRING, string_val=[b"a", b"b"]), [b"a"] * 3),
        (TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[7]), [7]),
    ],
)
def test_a_row_is_repeated_whatever_form_its_tensor_has(tensor: TensorProto, expected: list[Any]) -> None:
    tensor.tensor_shape.dim.add(size=2)
    made = with_rows(PredictRequest(inputs={"x": tensor}), "s", 3).inputs["x"]
    assert made.tensor_shape.dim[0].size == 3
    found = [made.tensor_content] if made.tensor_content else list(made.string_val) + list(made.float_val)
    assert found == expected


def test_what_a_queue_was_taught_it_knows_before_its_first_request(
    saved_models: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    session = opened(saved_models, "mlp")
    try:
        with BatchLoop(session, auto(), tmp_path) as served:
            assert try_batches(
                session, str(tmp_path), auto(), lambda payload, run_us: served.loop.teach_batching(1, payload, run_us)
            )
            (queue,) = served.queues
            assert queue["requests"] == 0
            assert all(queue["typical_us"][:4])
            assert not served.loop.teach_batching(99, b"", 1)
            assert not served.loop.teach_batching(1, b"no request", 1)
    finally:
        session.close()
