"""What the prediction service reads out of a request, and what it refuses."""

import pytest

from tensorgate.gateway.core.model_spec import ModelSpec
from tensorgate.gateway.rpc.prediction_service import read_model_spec, read_task_model_spec
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.apis.inference_pb2 import MultiInferenceRequest
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictRequest


def test_the_model_spec_is_read_whole() -> None:
    request = PredictRequest()
    request.model_spec.name = "m"
    request.model_spec.version.value = 0
    request.model_spec.signature_name = "s"
    assert read_model_spec(request.SerializeToString()) == ModelSpec("m", 0, None, "s")


def test_an_empty_model_spec_is_a_model_spec() -> None:
    request = PredictRequest()
    request.model_spec.SetInParent()
    assert read_model_spec(request.SerializeToString()) == ModelSpec("", None, None, "")


@pytest.mark.parametrize(
    ("request_bytes", "error"),
    [
        (b"", ServingError(Code.INVALID_ARGUMENT, "Missing ModelSpec")),
        (b"\x0a\x7f", ServingError(Code.INTERNAL, "")),
        (b"\x0a\x03\x0a\x01\xff", ServingError(Code.INTERNAL, "")),
    ],
    ids=["no spec", "cut off", "invalid UTF-8"],
)
def test_what_is_no_request_is_refused_as_upstream_refuses_it(request_bytes: bytes, error: ServingError) -> None:
    with pytest.raises(ServingError) as caught:
        read_model_spec(request_bytes)
    assert caught.value == error


def test_the_first_task_says_which_model_is_meant_and_the_others_do_not() -> None:
    request = MultiInferenceRequest()
    request.tasks.add().model_spec.name = "m"
    request.tasks[0].model_spec.version.value = 3
    request.tasks.add().model_spec.name = "other"
    request.input.SetInParent()
    assert read_task_model_spec(request.SerializeToString()) == ModelSpec("m", 3, None, "")


def test_without_a_task_or_its_model_spec_the_name_is_empty() -> None:
    request = MultiInferenceRequest()
    assert read_task_model_spec(request.SerializeToString()) == ModelSpec("")
    request.tasks.add().method_name = "tensorflow/serving/classify"
    request.tasks.add().model_spec.name = "m"
    assert read_task_model_spec(request.SerializeToString()) == ModelSpec("")


@pytest.mark.parametrize(
    "request_bytes",
    [b"\x0a\x7f", b"\x0a\x02\x0a\x7f", b"\x0a\x05\x0a\x03\x0a\x01\xff", b"\x0a\x00\x0a\x7f"],
    ids=["cut off", "a task cut off", "invalid UTF-8", "the second task cut off"],
)
def test_tasks_that_are_none_are_internal_without_a_text(request_bytes: bytes) -> None:
    with pytest.raises(ServingError) as caught:
        read_task_model_spec(request_bytes)
    assert caught.value == ServingError(Code.INTERNAL, "")
