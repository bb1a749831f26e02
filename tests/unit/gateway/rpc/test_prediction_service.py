"""What the prediction service reads out of a request, and what it refuses."""

import pytest

from tensorgate.gateway.core.model_spec import ModelSpec
from tensorgate.gateway.rpc.prediction_service import read_model_spec
from tensorgate.protos.status_codes import Code, ServingError
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
