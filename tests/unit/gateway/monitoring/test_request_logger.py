"""The request log's files: what a record holds, when a new file begins, what is left out."""

import pathlib

import pytest
from google.protobuf import text_format

from tensorgate.gateway.dispatch.call import Method
from tensorgate.gateway.monitoring import request_logger
from tensorgate.gateway.monitoring.request_logger import LoggedRequest, RequestLogger, sampling_rate
from tensorgate.protos.tensorflow_serving.apis.classification_pb2 import ClassificationRequest
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorgate.protos.tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
from tensorgate.protos.tensorflow_serving.config.logging_config_pb2 import LoggingConfig
from tensorgate.protos.tf_record import read_records


class Plane:
    def __init__(self, *logged: LoggedRequest) -> None:
        self.logged = list(logged)

    def take_logged(self) -> tuple[list[LoggedRequest], int]:
        taken, self.logged = self.logged, []
        return taken, 0


def config(prefix: pathlib.Path) -> LoggingConfig:
    made = LoggingConfig()
    made.log_collector_config.filename_prefix = str(prefix)
    made.sampling_config.sampling_rate = 0.25
    return made


def read_all(folder: pathlib.Path) -> list[list[PredictionLog]]:
    files = []
    for path in sorted(folder.glob("*.tfrecord")):
        with path.open("rb") as file:
            files.append([PredictionLog.FromString(record) for record in read_records(file)])
    return files


def test_a_record_is_a_prediction_log_with_request_answer_and_metadata(tmp_path: pathlib.Path) -> None:
    request, response = PredictRequest(), PredictResponse()
    request.model_spec.name = "m"
    request.inputs["x"].float_val.extend([1, 2])
    response.outputs["y"].float_val.extend([3] * 100)
    classify = ClassificationRequest()
    classify.model_spec.name = "m"
    plane = Plane(
        (0, "m", 7, Method.PREDICT, request.SerializeToString(), response.SerializeToString()),
        (0, "m", 7, Method.CLASSIFY, classify.SerializeToString(), b""),
        (0, "gone", 7, Method.PREDICT, b"", b""),
    )
    logger = RequestLogger(plane, {"m": config(tmp_path / "sub" / "log")}, ["serve"], lambda: 1_700_000_000.0)
    logger.write()
    logger.close()
    ((first, second),) = read_all(tmp_path / "sub")
    assert first.predict_log.request == request
    assert first.predict_log.response == response
    assert first.log_metadata.model_spec.name == "m"
    assert first.log_metadata.model_spec.version.value == 7
    assert first.log_metadata.sampling_config.sampling_rate == 0.25
    assert list(first.log_metadata.saved_model_tags) == ["serve"]
    assert 0 < first.log_metadata.timestamp_secs < 1_700_000_001
    assert second.classify_log.request == classify
    assert logger.counts == {("m", "OK"): 2}


def test_files_are_rotated_and_the_oldest_go(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_logger, "MAX_RECORDS_PER_FILE", 2)
    monkeypatch.setattr(request_logger, "MAX_FILES", 3)
    plane = Plane(*[(0, "m", number, Method.PREDICT, b"", b"") for number in range(9)])
    logger = RequestLogger(plane, {"m": config(tmp_path / "log")}, [])
    logger.write()
    logger.close()
    numbers = [[log.log_metadata.model_spec.version.value for log in file] for file in read_all(tmp_path)]
    assert numbers == [[4, 5], [6, 7], [8]]


def test_what_cannot_be_written_is_counted_and_the_rest_goes_on(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("no folder")
    plane = Plane((0, "bad", 1, Method.PREDICT, b"", b""), (0, "good", 1, Method.PREDICT, b"", b""))
    configs = {"bad": config(tmp_path / "file" / "log"), "good": config(tmp_path / "good")}
    logger = RequestLogger(plane, configs, [])
    logger.write()
    logger.close()
    assert logger.counts == {("bad", "UNAVAILABLE"): 1, ("good", "OK"): 1}
    assert len(read_all(tmp_path)) == 1


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("sampling_config { sampling_rate: 0.5 }", 0.5),
        ("", 0),
        ("sampling_config { sampling_rate: 0.5 per_task_sampling_configs { sampling_rate: 0.1 } }", 0.1),
        ('sampling_config { sampling_rate: 0.5 per_task_sampling_configs { dc: "x" sampling_rate: 0.1 } }', 0.5),
        ("sampling_config { sampling_rate: 0.5 per_task_sampling_configs { task_index: 0 sampling_rate: 1 } }", 0.5),
    ],
)
def test_the_rate_is_that_of_this_task(text: str, rate: float) -> None:
    assert sampling_rate(text_format.Parse(text, LoggingConfig())) == rate
