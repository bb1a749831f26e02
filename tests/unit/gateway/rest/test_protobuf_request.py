"""Messages as bodies: which model they are for, where URL and model_spec both say something."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorgate.gateway.core.model_spec import ModelSpec
from tensorgate.gateway.rest.protobuf_request import read_model_spec, with_model_spec
from tensorgate.gateway.rest.url_grammar import ModelAddress
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.apis import model_pb2, predict_pb2


def message(
    name: str | None = None, version: int | None = None, label: str | None = None, signature_name: str = ""
) -> bytes:
    request = predict_pb2.PredictRequest()
    request.inputs["x"].float_val[:] = [1.0, 2.0]
    if name is not None:
        request.model_spec.name = name
    if version is not None:
        request.model_spec.version.value = version
    if label is not None:
        request.model_spec.version_label = label
    if signature_name:
        request.model_spec.signature_name = signature_name
    return request.SerializeToString()


@pytest.mark.parametrize(
    ("body", "model", "model_spec"),
    [
        (message(), ModelAddress("m"), ModelSpec("m")),
        (message(""), ModelAddress("m"), ModelSpec("m")),
        (message("m"), ModelAddress("m"), ModelSpec("m")),
        (message("m", 3, signature_name="s"), ModelAddress("m"), ModelSpec("m", 3, None, "s")),
        (message("m", 0), ModelAddress("m"), ModelSpec("m", 0)),
        (message(label="stable"), ModelAddress("m"), ModelSpec("m", None, "stable")),
        (message("m", signature_name="s"), ModelAddress("m", 3), ModelSpec("m", 3, None, "s")),
        (message("m", 3), ModelAddress("m", 3), ModelSpec("m", 3)),
        (message("m", label="l"), ModelAddress("m", None, "l"), ModelSpec("m", None, "l")),
    ],
)
def test_url_and_message_complete_each_other(body: bytes, model: ModelAddress, model_spec: ModelSpec) -> None:
    assert read_model_spec(body, model, "PredictRequest") == model_spec
    sent = predict_pb2.PredictRequest.FromString(with_model_spec(body, model_spec))
    expected = model_pb2.ModelSpec(name=model_spec.name, signature_name=model_spec.signature_name)
    if model_spec.version is not None:
        expected.version.value = model_spec.version
    if model_spec.version_label is not None:
        expected.version_label = model_spec.version_label
    assert sent.model_spec == expected
    assert list(sent.inputs["x"].float_val) == [1.0, 2.0]


@pytest.mark.parametrize(
    ("body", "model", "text"),
    [
        (message("n"), ModelAddress("m"), 'The URL names model "m", the model_spec of the request body "n".'),
        (
            message("m", 2),
            ModelAddress("m", 3),
            "The URL names version 3, the model_spec of the request body version 2.",
        ),
        (
            message("m", label="l"),
            ModelAddress("m", 3),
            'The URL names version 3, the model_spec of the request body label "l".',
        ),
        (
            message("m", 3),
            ModelAddress("m", None, "l"),
            'The URL names label "l", the model_spec of the request body version 3.',
        ),
    ],
)
def test_a_message_that_contradicts_its_url_is_refused(body: bytes, model: ModelAddress, text: str) -> None:
    with pytest.raises(ServingError) as caught:
        read_model_spec(body, model, "PredictRequest")
    assert caught.value == ServingError(Code.INVALID_ARGUMENT, text)


@pytest.mark.parametrize("body", [b'{"instances": [1]}', message("m")[:-1], b"\x0a\x05\x0a\x03\xff\xfe\xfd"])
def test_what_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(ServingError, match=r"is not a serialized tensorflow\.serving\.RegressionRequest") as caught:
        read_model_spec(body, ModelAddress("m"), "RegressionRequest")
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_a_message_that_says_all_itself_is_not_copied() -> None:
    body = message("m", 3, signature_name="s")
    assert with_model_spec(body, ModelSpec("m", 3, None, "s")) is body


@given(st.binary(max_size=100))
def test_any_body_is_for_the_model_of_its_url_or_refused(body: bytes) -> None:
    try:
        model_spec = read_model_spec(body, ModelAddress("m"), "PredictRequest")
    except ServingError:
        return
    assert model_spec.name == "m"
    assert read_model_spec(with_model_spec(body, model_spec), ModelAddress("m"), "PredictRequest") == model_spec
