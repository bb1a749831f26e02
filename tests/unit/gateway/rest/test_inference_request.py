"""The JSON of classify and regress requests, and the examples it becomes."""

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorgate.gateway.core.model_spec import ModelSpec
from tensorgate.gateway.rest.inference_request import (
    InferenceDocument,
    inference_request,
    parse_inference_request,
)
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow.core.example import example_pb2, feature_pb2
from tensorgate.protos.tensorflow_serving.apis import classification_pb2, input_pb2, regression_pb2


def example(**features: feature_pb2.Feature) -> example_pb2.Example:
    return example_pb2.Example(features=feature_pb2.Features(feature=features))


def floats(*values: float) -> feature_pb2.Feature:
    return feature_pb2.Feature(float_list=feature_pb2.FloatList(value=values))


def int64s(*values: int) -> feature_pb2.Feature:
    return feature_pb2.Feature(int64_list=feature_pb2.Int64List(value=values))


def texts(*values: bytes) -> feature_pb2.Feature:
    return feature_pb2.Feature(bytes_list=feature_pb2.BytesList(value=values))


def input_of(document: InferenceDocument) -> input_pb2.Input:
    return classification_pb2.ClassificationRequest.FromString(document.request).input


def parse_feature(json: str) -> feature_pb2.Feature:
    document = parse_inference_request(f'{{"examples": [{{"x": {json}}}]}}'.encode())
    return input_of(document).example_list.examples[0].features.feature["x"]


@pytest.mark.parametrize(
    ("json", "feature"),
    [
        ("1.5", floats(1.5)),
        ("[1.0, 2e0, -0.0]", floats(1.0, 2.0, -0.0)),
        ("[Infinity, -Infinity]", floats(math.inf, -math.inf)),
        ("1e300", floats(math.inf)),
        ("7", int64s(7)),
        ("[true, false, 3]", int64s(1, 0, 3)),
        ("[9223372036854775807, -9223372036854775808]", int64s(2**63 - 1, -(2**63))),
        ("18446744073709551616", floats(2.0**64)),
        ("-9223372036854775809", floats(-(2.0**63))),
        ('"text"', texts(b"text")),
        ('["a", {"b64": "aGVsbG8="}, ""]', texts(b"a", b"hello", b"")),
        ("[]", feature_pb2.Feature()),
    ],
)
def test_the_kind_of_a_feature_is_that_of_its_values(json: str, feature: feature_pb2.Feature) -> None:
    assert parse_feature(json) == feature


def test_a_feature_that_is_not_a_number_is_a_float() -> None:
    [value] = parse_feature("NaN").float_list.value
    assert math.isnan(value)


@pytest.mark.parametrize(
    ("json", "message"),
    [
        ("null", "Feature: x has element with unexpected JSON type: Null"),
        ("[1.0, null]", "Feature: x has element with unexpected JSON type: Null"),
        ("[[1.0]]", "Feature: x has element with unexpected JSON type: Array"),
        ('{"y": 1}', "Feature: x has element with unexpected JSON type: Object"),
        ('{"b64": 5}', "Feature: x has element with unexpected JSON type: Object"),
        ('{"b64": "YQ==", "b64": "YQ=="}', "Feature: x has element with unexpected JSON type: Object"),
        ('{"b64": "!!"}', "Unable to base64 decode"),
        ("[10, 10.0]", "Unexpected element type in feature: x expecting type: int64"),
        ("[10.0, 10]", "Unexpected element type in feature: x expecting type: float"),
        ('["a", 1]', "Unexpected element type in feature: x expecting type: bytes"),
        ("18446744073709551615", "Feature: x has uint64_t element. Only int64_t is supported."),
        ("9223372036854775808", "Feature: x has uint64_t element. Only int64_t is supported."),
    ],
)
def test_values_that_no_feature_can_have_are_named(json: str, message: str) -> None:
    with pytest.raises(ServingError) as caught:
        parse_feature(json)
    assert caught.value == ServingError(Code.INVALID_ARGUMENT, message)


@pytest.mark.parametrize(
    ("json", "message"),
    [
        ("", "JSON Parse error: The document is empty"),
        ("{", "JSON Parse error: Missing a name for object member. at offset: 1"),
        ("[]", "JSON Value: [] Is not object"),
        (
            '{"signature_name": 1}',
            'JSON Value: {\n    "signature_name": 1\n} not formatted correctly. '
            "'signature_name' key must be a string value.",
        ),
        ('{"context": [1], "examples": 5}', "Example must be JSON object but got JSON Array"),
        ('{"context": null}', "Example must be JSON object but got JSON Null"),
        ("{}", "JSON Value: {} When method is classify, key 'examples' is expected and was not found"),
        (
            '{"examples": null}',
            "JSON Value: {\n    \"examples\": null\n} Expecting 'examples' value to be an list/array",
        ),
        ('{"examples": []}', "JSON Value: {\n    \"examples\": []\n} 'examples' value is an empty array"),
        ('{"examples": [{}, "x"]}', "Example must be JSON object but got JSON String"),
        ('{"examples": [true]}', "Example must be JSON object but got JSON True"),
    ],
)
def test_what_is_wrong_with_a_request_is_named(json: str, message: str) -> None:
    with pytest.raises(ServingError) as caught:
        parse_inference_request(json.encode())
    assert caught.value == ServingError(Code.INVALID_ARGUMENT, message)


def test_of_features_with_one_name_the_last_counts_and_of_other_keys_the_first() -> None:
    document = parse_inference_request(b'{"examples": [{"x": 1, "x": 2.5}], "examples": [{}]}')
    assert input_of(document).example_list.examples == [example(x=floats(2.5))]


def test_a_context_even_an_empty_one_makes_an_example_list_with_context() -> None:
    document = parse_inference_request(b'{"context": {"c": 1}, "examples": [{"x": 1.0}, {}]}')
    assert input_of(document).example_list_with_context == input_pb2.ExampleListWithContext(
        context=example(c=int64s(1)), examples=[example(x=floats(1.0)), example()]
    )
    assert input_of(parse_inference_request(b'{"context": {}, "examples": [{}]}')).WhichOneof("kind") == (
        "example_list_with_context"
    )
    assert input_of(parse_inference_request(b'{"examples": [{}]}')).WhichOneof("kind") == "example_list"


def test_a_request_is_the_same_bytes_for_both_methods_and_names_what_its_client_named() -> None:
    document = parse_inference_request(b'{"signature_name": "s", "examples": [{"x": 1.0}]}')
    assert document.signature_name == "s"
    payload = inference_request(document, ModelSpec("m", 3, None, "s"))
    for request in (
        classification_pb2.ClassificationRequest.FromString(payload),
        regression_pb2.RegressionRequest.FromString(payload),
    ):
        assert request.input == input_of(document)
        assert (request.model_spec.name, request.model_spec.version.value) == ("m", 3)
        assert request.model_spec.signature_name == "s"
    labelled = classification_pb2.ClassificationRequest.FromString(
        inference_request(document, ModelSpec("m", None, "stable"))
    )
    assert labelled.model_spec.version_label == "stable"


def test_names_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(ServingError, match="has a name that is not UTF-8"):
        parse_inference_request(b'{"examples": [{"\xff": 1}]}')
    document = parse_inference_request(b'{"signature_name": "\xff", "examples": [{}]}')
    with pytest.raises(ServingError, match="No signature was found with the name: \udcff"):
        inference_request(document, ModelSpec("m", signature_name=document.signature_name))


@given(st.binary(max_size=200) | st.from_regex(rb'\{"examples": \[\{"x": [\[\]{}0-9.,"be64:tru ]{0,20}\}\]\}'))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(ServingError):
        read = input_of(parse_inference_request(body))
        assert read.example_list.examples or read.example_list_with_context.examples
