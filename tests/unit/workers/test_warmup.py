"""Warm-up: which requests are replayed, how often, in which order, and what fails a load."""

import pathlib

import pytest

from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorgate.protos.tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
from tensorgate.protos.tf_record import framed_record
from tensorgate.workers import warmup
from tensorgate.workers.warmup import WARMUP_REQUESTS, warm_up
from tests.harness.tf_records import write_warmup_requests


class Model:
    """Answers Predict; a request for signature "fail" fails."""

    def __init__(self) -> None:
        self.signatures: list[str] = []
        self.methods = {"predict_log": self.predict}

    def predict(self, payload: bytes) -> tuple[int, bytes, bytes, int]:
        name = PredictRequest.FromString(payload).model_spec.signature_name
        self.signatures.append(name)
        return (Code.DATA_LOSS, b"no such thing", b"", 0) if name == "fail" else (0, b"", b"response", 0)


def predict_log(signature_name: str) -> PredictionLog:
    log = PredictionLog()
    log.predict_log.request.model_spec.signature_name = signature_name
    return log


def failure(model: Model, path: pathlib.Path) -> ServingError:
    with pytest.raises(ServingError) as caught:
        warm_up(model.methods, str(path), 1)
    return caught.value


def test_records_are_replayed_in_their_order_each_as_often_as_asked(tmp_path: pathlib.Path) -> None:
    model = Model()
    write_warmup_requests(tmp_path, predict_log("a"), predict_log("b"))
    warm_up(model.methods, str(tmp_path), 2)
    assert model.signatures == ["a", "a", "b", "b"]


def test_a_version_without_warmup_requests_is_warm(tmp_path: pathlib.Path) -> None:
    warm_up({}, str(tmp_path), 1)


def test_a_log_of_no_kind_is_passed_over(tmp_path: pathlib.Path) -> None:
    model = Model()
    write_warmup_requests(tmp_path, PredictionLog(), predict_log("a"))
    warm_up(model.methods, str(tmp_path), 1)
    assert model.signatures == ["a"]


def test_a_request_that_fails_fails_the_load_with_its_own_code_and_text(tmp_path: pathlib.Path) -> None:
    model = Model()
    write_warmup_requests(tmp_path, predict_log("a"), predict_log("fail"), predict_log("b"))
    assert failure(model, tmp_path) == ServingError(Code.DATA_LOSS, "no such thing")
    assert model.signatures == ["a", "fail"]


def test_a_kind_of_log_without_a_method_is_refused_by_its_number(tmp_path: pathlib.Path) -> None:
    log = PredictionLog()
    log.predict_streamed_log.SetInParent()
    write_warmup_requests(tmp_path, log)
    assert failure(Model(), tmp_path) == ServingError(Code.UNIMPLEMENTED, "Unsupported log_type for warmup: 7")


def test_the_record_beyond_the_limit_is_replayed_and_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model()
    assert warmup.MAX_NUM_RECORDS == 1000
    monkeypatch.setattr(warmup, "MAX_NUM_RECORDS", 2)
    write_warmup_requests(tmp_path, predict_log("a"), predict_log("b"))
    warm_up(model.methods, str(tmp_path), 1)
    path = write_warmup_requests(tmp_path, *[predict_log(name) for name in "abcd"])
    assert failure(model, tmp_path) == ServingError(
        Code.INVALID_ARGUMENT, f"Number of warmup records exceeds the maximum (2) at {path}"
    )
    assert model.signatures == ["a", "b", "a", "b", "c"]


def test_a_record_that_is_no_prediction_log_is_shown(tmp_path: pathlib.Path) -> None:
    path = write_warmup_requests(tmp_path)
    path.write_bytes(framed_record(b"\xffno log"))
    assert failure(Model(), tmp_path) == ServingError(
        Code.INVALID_ARGUMENT, f"Failed to parse warmup record: \N{REPLACEMENT CHARACTER}no log from {path}"
    )


def test_a_file_of_another_format_is_data_loss(tmp_path: pathlib.Path) -> None:
    write_warmup_requests(tmp_path).write_bytes(b"predict this, predict that")
    assert failure(Model(), tmp_path) == ServingError(
        Code.DATA_LOSS,
        "corrupted record at 0 (Is this even a TFRecord file?). Please verify your warmup data is in TFRecord format.",
    )


def test_a_file_that_cannot_be_read_fails_the_load(tmp_path: pathlib.Path) -> None:
    path = tmp_path / WARMUP_REQUESTS
    path.mkdir(parents=True)
    assert failure(Model(), tmp_path) == ServingError(Code.FAILED_PRECONDITION, f"{path}; Is a directory")
