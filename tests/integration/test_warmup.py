"""Warm-up of real versions: replayed before the version serves, and a version whose warm-up fails never does."""

import pathlib
from collections.abc import Callable

import pytest

from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
from tests.harness.model_server import StartServer, floats, predict_request
from tests.harness.tf_records import write_warmup_requests

OwnModel = Callable[..., pathlib.Path]


def keep_log() -> PredictionLog:
    """Adds one to the model's count; the model that it names is not looked at."""
    log = PredictionLog()
    log.predict_log.request.model_spec.name = "another"
    log.predict_log.request.model_spec.signature_name = "keep"
    text = log.predict_log.request.inputs["text"]
    text.dtype = types_pb2.DT_STRING
    text.string_val.append(b"warm")
    text.tensor_shape.SetInParent()
    return log


@pytest.mark.parametrize(
    ("flags", "count"),
    [((), 2), (("--num_request_iterations_for_warmup=3",), 6), (("--enable_model_warmup=false",), 0)],
)
def test_requests_are_replayed_before_the_first_client(
    start_server: StartServer, own_model: OwnModel, flags: tuple[str, ...], count: int
) -> None:
    base_path = own_model("counter", 1)
    write_warmup_requests(base_path / "1", keep_log(), keep_log())
    server = start_server(f"--model_base_path={base_path}", "--model_name=counter", *flags)
    outputs = server.prediction.Predict(predict_request("counter"), timeout=10).outputs
    assert list(outputs["count"].int64_val) == [count]
    assert outputs["kept"].string_val == ([b"warm"] if count else [b"nothing"])


def test_a_request_that_fails_keeps_the_version_from_serving(start_server: StartServer, own_model: OwnModel) -> None:
    base_path = own_model("half_plus_two", 1)
    log = PredictionLog()
    log.predict_log.request.CopyFrom(predict_request("", y=floats(1)))
    write_warmup_requests(base_path / "1", log)
    server = start_server(f"--model_base_path={base_path}", "--model_name=half", "--max_num_load_retries=0", wait=False)
    assert server.process.wait(60) == 255
    assert (
        "Failed to start server. Error: UNKNOWN: 1 servable(s) did not become available: {{name: half version: 1} due"
        " to error: INVALID_ARGUMENT: "
    ) in server.log
    assert "Signature input alias: x(feed name: x:0) not found in request" in server.log
