"""Classify and regress responses as JSON text."""

import math

import pytest

from tensorgate.gateway.rest.inference_response import classification_response_json, regression_response_json
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.apis import classification_pb2, regression_pb2


def classifications(*examples: list[tuple[str, float]]) -> classification_pb2.ClassificationResponse:
    response = classification_pb2.ClassificationResponse()
    response.model_spec.name = "m"
    for classes in examples:
        added = response.result.classifications.add()
        for label, score in classes:
            added.classes.add(label=label, score=score)
    return response


def test_each_example_has_a_list_of_labels_and_scores() -> None:
    response = classifications([("none", 3.0), ('q"', -0.5)], [("日本", math.inf), ("", 2.0**63)])
    assert classification_response_json(response.SerializeToString()).decode() == (
        '{\n    "results": [[["none", 3.0], ["q\\"", -0.5]], [["日本", Infinity], ["", 9.22337204e+18]]\n    ]\n}'
    )


def test_fields_that_a_model_does_not_give_are_empty_or_zero() -> None:
    response = classifications([("a", 0.0)], [("", 0.0)], [])
    assert classification_response_json(response.SerializeToString()) == (
        b'{\n    "results": [[["a", 0.0]], [["", 0.0]], []\n    ]\n}'
    )


def test_a_label_that_is_not_utf8_is_written_as_it_is() -> None:
    payload = classifications([("\u00e9", 1.0)]).SerializeToString().replace(b"\xc3\xa9", b"\xff\xfe")
    assert classification_response_json(payload) == b'{\n    "results": [[["\xff\xfe", 1.0]]\n    ]\n}'


def test_each_example_has_a_value() -> None:
    response = regression_pb2.RegressionResponse()
    for value in (5.0, 0.1, math.nan, 0.0):
        response.result.regressions.add(value=value)
    assert regression_response_json(memoryview(response.SerializeToString())) == (
        b'{\n    "results": [5.0, 0.1, NaN, 0.0]\n}'
    )


def test_results_that_are_empty_cannot_be_written() -> None:
    with pytest.raises(ServingError) as caught:
        classification_response_json(classifications().SerializeToString())
    assert caught.value == ServingError(Code.INVALID_ARGUMENT, "Cannot convert empty ClassificationResults to JSON")
    with pytest.raises(ServingError) as caught:
        regression_response_json(b"")
    assert caught.value == ServingError(Code.INVALID_ARGUMENT, "Cannot convert empty RegressionResults to JSON")
