"""Golden requests: what counts as the same answer, and how a difference is told."""

import math
import pathlib

import pytest

from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictResponse
from tensorgate.protos.tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
from tensorgate.protos.tf_record import framed_record
from tensorgate.workers import golden_requests
from tensorgate.workers.golden_requests import check_golden_requests
from tests.harness.tf_records import write_golden_requests

pytestmark = pytest.mark.usefixtures("libtensorflow")


def tensor(dtype: int, shape: tuple[int, ...], **values: object) -> TensorProto:
    made = TensorProto(dtype=dtype, **values)  # type: ignore[arg-type]
    made.tensor_shape.SetInParent()
    for size in shape:
        made.tensor_shape.dim.add(size=size)
    return made


def floats(*values: float) -> TensorProto:
    return tensor(types_pb2.DT_FLOAT, (len(values),), float_val=values)


def golden(**outputs: TensorProto) -> PredictionLog:
    log = PredictionLog()
    log.predict_log.response.CopyFrom(PredictResponse(outputs=outputs))
    return log


def outcome_of(
    path: pathlib.Path, answer: dict[str, TensorProto], *logs: PredictionLog, tolerance: float = 1e-4
) -> ServingError | None:
    """What the check of a version that gives always this answer ends with."""
    write_golden_requests(path, *logs)
    response = PredictResponse(outputs=answer).SerializeToString()
    try:
        check_golden_requests({"predict_log": lambda _payload: (0, b"", response, 0)}, str(path), tolerance)
    except ServingError as error:
        return error
    return None


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        (floats(1.00005, -2), floats(1, -2)),
        (floats(math.inf, math.nan), floats(math.inf, math.nan)),
        (floats(), floats()),
        (floats(1, 1), tensor(types_pb2.DT_FLOAT, (2,), float_val=[1])),
        (floats(1), tensor(types_pb2.DT_FLOAT, (1,), tensor_content=b"\x00\x00\x80\x3f")),
        (
            tensor(types_pb2.DT_COMPLEX64, (1,), scomplex_val=[1, 2]),
            tensor(types_pb2.DT_COMPLEX64, (1,), scomplex_val=[1, 2.0001]),
        ),
        (tensor(types_pb2.DT_HALF, (), half_val=[15360]), tensor(types_pb2.DT_HALF, (), half_val=[15360])),
        (tensor(types_pb2.DT_BFLOAT16, (), half_val=[16256]), tensor(types_pb2.DT_BFLOAT16, (), half_val=[16256])),
        (tensor(types_pb2.DT_INT64, (1,), int64_val=[7]), tensor(types_pb2.DT_INT64, (1,), int64_val=[7])),
        (tensor(types_pb2.DT_STRING, (1,), string_val=[b"a"]), tensor(types_pb2.DT_STRING, (1,), string_val=[b"a"])),
    ],
)
def test_an_answer_within_the_tolerance_lets_the_version_live(
    tmp_path: pathlib.Path, answer: TensorProto, wanted: TensorProto
) -> None:
    assert outcome_of(tmp_path, {"y": answer, "other": floats(9)}, golden(y=wanted)) is None


@pytest.mark.parametrize(
    ("answer", "wanted", "text"),
    [
        (
            floats(1, 2.5, 3),
            floats(1, 2, 3),
            "output 'y' differs by 0.5 at [1]: it is 2.5 and not 2, with a tolerance of 0.0001 * (1 + |golden|)",
        ),
        (
            tensor(types_pb2.DT_DOUBLE, (2, 2), double_val=[1, 1, 8, 2]),
            tensor(types_pb2.DT_DOUBLE, (2, 2), double_val=[1, 2, 4, 2]),
            "output 'y' differs by 4 at [1, 0]: it is 8 and not 4",
        ),
        (
            tensor(types_pb2.DT_BFLOAT16, (1,), half_val=[16256]),
            tensor(types_pb2.DT_BFLOAT16, (1,), half_val=[16384]),
            "it is 1 and not 2",
        ),
        (
            tensor(types_pb2.DT_HALF, (1,), half_val=[15360]),
            tensor(types_pb2.DT_HALF, (1,), half_val=[16384]),
            "it is 1 and not 2",
        ),
        (floats(math.nan), floats(0), "it is nan and not 0"),
        (floats(math.inf), floats(-math.inf), "it is inf and not -inf"),
        (
            tensor(types_pb2.DT_COMPLEX64, (2,), scomplex_val=[1, 2, 3, 4]),
            tensor(types_pb2.DT_COMPLEX64, (2,), scomplex_val=[1, 2, 3, 5]),
            "differs by 1 at [1]",
        ),
        (floats(1), floats(1, 2), "output 'y' is of shape [1], not [2]"),
        (floats(1), tensor(types_pb2.DT_DOUBLE, (1,), double_val=[1]), "output 'y' is of type float, not double"),
        (
            tensor(types_pb2.DT_INT32, (1,), int_val=[1]),
            tensor(types_pb2.DT_INT32, (1,), int_val=[2]),
            "output 'y' differs; type int32 has no tolerance",
        ),
        (
            tensor(types_pb2.DT_STRING, (2,), string_val=[b"a", b"b"]),
            tensor(types_pb2.DT_STRING, (2,), string_val=[b"a", b"c"]),
            "output 'y' is b'b' and not b'c' at [1]",
        ),
    ],
)
def test_a_difference_fails_the_load_and_is_told_with_its_output_and_place(
    tmp_path: pathlib.Path, answer: TensorProto, wanted: TensorProto, text: str
) -> None:
    error = outcome_of(tmp_path, {"y": answer}, golden(y=answer), golden(y=wanted))
    assert error is not None
    assert error.code is Code.FAILED_PRECONDITION
    assert error.message.startswith(
        f"golden request 2 of {tmp_path}/assets.extra/tensorgate_golden_requests is answered"
    )
    assert text in error.message


def test_the_tolerance_grows_with_the_golden_value(tmp_path: pathlib.Path) -> None:
    assert outcome_of(tmp_path, {"y": floats(1010)}, golden(y=floats(1000)), tolerance=0.01) is None
    assert outcome_of(tmp_path, {"y": floats(1.03)}, golden(y=floats(1)), tolerance=0.01) is not None


def test_an_output_that_is_missing_is_named(tmp_path: pathlib.Path) -> None:
    error = outcome_of(tmp_path, {}, golden(y=floats(1)))
    assert error is not None
    assert error.message.endswith("is answered differently: output 'y' is missing")


def test_a_request_that_fails_fails_the_load_with_its_code(tmp_path: pathlib.Path) -> None:
    path = write_golden_requests(tmp_path, golden(y=floats(1)))
    with pytest.raises(ServingError) as caught:
        check_golden_requests({"predict_log": lambda _: (Code.NOT_FOUND, b"no such thing", b"", 0)}, str(tmp_path), 0)
    assert caught.value == ServingError(Code.NOT_FOUND, f"golden request 1 of {path} fails: no such thing")


def test_a_version_that_carries_none_is_as_good_as_gold(tmp_path: pathlib.Path) -> None:
    check_golden_requests({}, str(tmp_path), 0)


def test_a_version_without_predict_cannot_have_golden_requests(tmp_path: pathlib.Path) -> None:
    write_golden_requests(tmp_path, golden(y=floats(1)))
    with pytest.raises(ServingError, match="answers no Predict"):
        check_golden_requests({}, str(tmp_path), 0)


def test_a_file_of_anything_else_is_refused(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_golden_requests(tmp_path)
    for content, text in (
        (framed_record(b"\xffno log"), f"record 1 of {path} is no PredictionLog"),
        (framed_record(b""), f"record 1 of {path} is no predict_log with a response that has outputs"),
        (framed_record(golden().SerializeToString()), "is no predict_log with a response that has outputs"),
        (b"predict this, predict that", "Is this even a TFRecord file?"),
    ):
        path.write_bytes(content)
        with pytest.raises(ServingError) as caught:
            check_golden_requests({}, str(tmp_path), 0)
        assert text in caught.value.message
    monkeypatch.setattr(golden_requests, "MAX_NUM_RECORDS", 1)
    error = outcome_of(tmp_path, {"y": floats(1)}, golden(y=floats(1)), golden(y=floats(1)))
    assert error == ServingError(Code.INVALID_ARGUMENT, f"{path} has more than 1 golden requests")
