"""Upstream's cases of JSON and tensors (json_tensor_test.cc), asked of a real server with models that give back what
they take.

Each test bears the name of upstream's case. Upstream calls its converters; here a request goes all the way, so that
what is looked at is what a client sees.
"""

import base64
import json
from typing import Any

import pytest

from tensorgate.protos.tensorflow.core.example.example_pb2 import Example
from tests.harness.model_server import ModelServer

MODEL = "/v1/models/json_tensors"
INF, NAN = float("inf"), float("nan")
FLT_MAX, FLT_MIN = 3.4028234663852886e38, 1.1754943508222875e-38
DBL_MAX, DBL_MIN = 1.7976931348623157e308, 2.2250738585072014e-308
METHODS = pytest.mark.parametrize("method", ["classify", "regress"])


class Json:
    """The model's REST API."""

    def __init__(self, server: ModelServer) -> None:
        self._server = server

    def post(self, body: str, method: str = "predict") -> tuple[int, Any]:
        return self._server.rest("POST", f"{MODEL}:{method}", body.encode())

    def predict(self, signature: str, rest: str) -> Any:
        """The answer's one value; ``rest`` are the body's other keys, as text."""
        status, answer = self.post(f'{{"signature_name": "{signature}", {rest}}}')
        assert status == 200, answer
        ((_, value),) = answer.items()
        return value

    def error(self, signature: str, rest: str, status: int = 400) -> str:
        return self.error_of(f'{{"signature_name": "{signature}", {rest}}}', status=status)

    def error_of(self, body: str, method: str = "predict", status: int = 400) -> str:
        got, answer = self.post(body, method)
        assert (got, list(answer)) == (status, ["error"])
        text = answer["error"]
        assert isinstance(text, str)
        return text


@pytest.fixture
def model(model_server: ModelServer) -> Json:
    return Json(model_server)


# --- requests ---------------------------------------------------------------------------------------------------------


def test_single_unnamed_tensor(model: Json) -> None:
    assert model.predict("int32", '"instances": [[1,2],[3,4],[5,6]]') == [[1, 2], [3, 4], [5, 6]]


def test_deeply_nested_well_formed(model: Json) -> None:
    deep = "[" * 500_000 + "]" * 500_000
    assert model.predict("int32", f'"garbage": {deep}, "instances": [1]') == [1]


def test_deeply_nested_malformed(model: Json) -> None:
    deep = "[" * 500_000 + "]" * 500_000
    assert model.error_of(f'{{"signature_name": {deep}}}').endswith("'signature_name' key must be a string value.")


def test_mixed_input_for_float_tensor(model: Json) -> None:
    assert model.predict("float32", '"instances": [1, 2.0, 3, 4.5]') == [1.0, 2.0, 3.0, 4.5]


def test_mixed_input_for_double_tensor(model: Json) -> None:
    assert model.predict("float64", '"instances": [1, 2.0, 3, 4.5]') == [1.0, 2.0, 3.0, 4.5]


def test_float_tensor_with_precision_loss(model: Json) -> None:
    whole, decimal = model.predict("float32", '"instances": [1435774380, 1435774380.0]')
    assert whole == decimal == pytest.approx(1435774380, rel=1e-7)


def test_float_tensor_that_exceeds_max_returns_inf(model: Json) -> None:
    assert model.predict("float32", f'"instances": [{DBL_MAX}, -{DBL_MAX}]') == [INF, -INF]
    assert model.predict("float32", f'"instances": [{FLT_MAX}, -{FLT_MAX}]') == [
        pytest.approx(FLT_MAX),
        pytest.approx(-FLT_MAX),
    ]


def test_float_tensor_that_exceeds_min_returns_zero(model: Json) -> None:
    assert [str(value) for value in model.predict("float32", f'"instances": [{DBL_MIN}, -{DBL_MIN}]')] == [
        "0.0",
        "-0.0",
    ]
    assert model.predict("float32", f'"instances": [{FLT_MIN}]') == [pytest.approx(FLT_MIN)]


def test_single_unnamed_tensor_with_signature(model: Json) -> None:
    """The name chooses the signature; none means serving_default, which this model does not have."""
    assert model.predict("int32", '"instances": [1]') == [1]
    assert model.predict("float32", '"instances": [1]') == [1.0]
    assert (
        model.error_of('{"instances": [1]}') == 'Serving signature name: "serving_default" not found in signature def'
    )


def test_tensor_from_non_null_terminated_buffer(model: Json) -> None:
    """What comes after the value is no part of it."""
    assert model.post('{"signature_name": "int32", "instances": [[1,2],[3,4]]}&![]{ garbage') == (
        200,
        {"predictions": [[1, 2], [3, 4]]},
    )


def test_single_unnamed_tensor_base64_scalars(model: Json) -> None:
    assert model.predict("string", '"instances": [{"b64": "aGVsbG8="}, {"b64": "d29ybGQ="}]') == ["hello", "world"]


def test_single_unnamed_tensor_base64_lists(model: Json) -> None:
    rows = '"instances": [[{"b64": "aGVsbG8="}], [{"b64": "d29ybGQ="}]]'
    assert model.predict("string", rows) == [["hello"], ["world"]]


def test_single_named_tensor_base64(model: Json) -> None:
    rows = '"instances": [{"x": [[{"b64": "aGVsbG8="}, {"b64": "d29ybGQ="}]]}]'
    assert model.predict("string", rows) == [[["hello", "world"]]]


def test_multiple_named_tensor(model: Json) -> None:
    rows = """"instances": [
        {"int_tensor": [[1,2],[3,4]], "str_tensor": ["foo", "bar"], "float_tensor": 1.0, "double_tensor": NaN},
        {"int_tensor": [[4,5],[6,7]], "str_tensor": ["foz", "baz"], "float_tensor": Inf, "double_tensor": -Infinity}
    ]"""
    first, second = model.predict("named", rows)
    assert str(first.pop("double_tensor")) == "nan"
    assert first == {"int_tensor": [[1, 2], [3, 4]], "str_tensor": ["foo", "bar"], "float_tensor": 1.0}
    assert second == {
        "int_tensor": [[4, 5], [6, 7]],
        "str_tensor": ["foz", "baz"],
        "float_tensor": INF,
        "double_tensor": -INF,
    }


def test_single_unnamed_tensor_columnar_format(model: Json) -> None:
    value = [[[1, 2], [3, 4], [5, 6]]]
    assert model.predict("int32", f'"inputs": {{"x": {value}}}') == value
    assert model.predict("int32", f'"inputs": {value}') == value


def test_multiple_named_tensor_columnar_format(model: Json) -> None:
    columns = """"inputs": {
        "int_tensor": [[[1,2],[3,4]], [[5,6],[7,8]]], "str_tensor": {"b64": "aGVsbG8="},
        "float_tensor": [1.0, 2.0], "double_tensor": [[[3.5]]]
    }"""
    assert model.predict("named", columns) == {
        "int_tensor": [[[1, 2], [3, 4]], [[5, 6], [7, 8]]],
        "str_tensor": "hello",
        "float_tensor": [1.0, 2.0],
        "double_tensor": [[[3.5]]],
    }


def test_single_unnamed_tensor_errors(model: Json) -> None:
    assert model.error_of("") == "JSON Parse error: The document is empty"
    assert "must be a string value" in model.error_of('{"signature_name": 5, "instances": [1]}')
    assert "expecting only one of 'inputs' or 'instances'" in model.error("int32", '"instances": [1], "inputs": [1]')
    assert "Encountered list at unexpected size: 3 at level: 2 expected size: 2" in model.error(
        "int32", '"inputs": [[[1,2],[3,4,5]]]'
    )
    assert "Expecting tensor size: 2 but got: 3" in model.error("int32", '"instances": [[1,2],[3,4,5]]')
    assert "Expecting shape [2,1] but got: [1,2]" in model.error("int32", '"instances": [[[1],[2]],[[3,4]]]')
    assert "is not of expected type: int32" in model.error("int32", '"instances": [[1,2],["foo","bar"]]')
    assert "found at incorrect level: 3 in the JSON DOM. Expected at level: 2" in model.error(
        "int32", '"inputs": [[1,2],[3,[4]]]'
    ) or "unexpected level" in model.error("int32", '"inputs": [[1,2],[3,[4]]]')


def test_multiple_named_tensor_errors(model: Json) -> None:
    def row(number: str, text: str = '"a"') -> str:
        return f'{{"int_tensor": {number}, "str_tensor": {text}, "float_tensor": 1, "double_tensor": 1}}'

    assert "Expecting tensor size: 2 but got: 3" in model.error(
        "named", f'"instances": [{row("[1,2]")}, {row("[3,4,5]")}]'
    )
    assert "Expecting shape [2,1] but got: [1,2]" in model.error(
        "named", f'"instances": [{row("[[1],[2]]")}, {row("[[1,2]]")}]'
    )
    assert model.error("named", f'"instances": [{row("1")}, [1, 2]]') == (
        "Expecting object but got list at item 1 of input list"
    )
    assert model.error("int32", '"instances": [[1, 2], {"x": [3, 4]}]') == (
        "Expecting value/list but got object at item 1 of input list"
    )
    assert "keys must be equal to: double_tensor,float_tensor,int_tensor,str_tensor" in model.error(
        "named", '"instances": [{"int_tensor": 1, "str_tensor": "a", "float_tensor": 1}]'
    )


# --- responses --------------------------------------------------------------------------------------------------------


def test_from_json_single_tensor(model: Json) -> None:
    value = [[[1, 2], [3, 4], [5, 6]]]
    assert model.post(f'{{"signature_name": "int32", "instances": {value}}}') == (200, {"predictions": value})
    assert model.post(f'{{"signature_name": "int32", "inputs": {value}}}') == (200, {"outputs": value})


def test_from_json_single_scalar_tensor(model: Json) -> None:
    for key, answer in (("instances", "predictions"), ("inputs", "outputs")):
        body = f'{{"signature_name": "int32", "{key}": [1, 2, 3, 4, 5]}}'
        assert model.post(body) == (200, {answer: [1, 2, 3, 4, 5]})


def test_from_json_single_bytes_tensor(model: Json) -> None:
    values = '"instances": ["hello", {"b64": "d29ybGQ="}]'
    assert model.predict("bytes", values) == [{"b64": "aGVsbG8="}, {"b64": "d29ybGQ="}]


def test_from_json_single_float_tensor_six_digit_precision(model_server: ModelServer) -> None:
    """The digits themselves: the answer is looked at as text."""
    numbers = "9000000.0, 999999.0, 0.50, 0.0003, 0.00003, 555557.5"
    body = f'{{"signature_name": "float32", "instances": [{numbers}]}}'
    assert raw_answer(model_server, body).replace(b"\n", b"").replace(b" ", b"") == (
        b'{"predictions":[9e+06,999999.0,0.5,0.0003,3e-05,555557.5]}'
    )


def test_from_json_single_float_tensor_non_finite(model_server: ModelServer) -> None:
    body = '{"signature_name": "float32", "instances": [NaN, Infinity, 3.0, -Infinity]}'
    assert raw_answer(model_server, body).replace(b"\n", b"").replace(b" ", b"") == (
        b'{"predictions":[NaN,Infinity,3.0,-Infinity]}'
    )


def raw_answer(server: ModelServer, body: str) -> bytes:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=30)
    connection.request("POST", f"{MODEL}:predict", body.encode())
    answer = connection.getresponse().read()
    connection.close()
    return answer


def test_from_json_single_tensor_errors(model: Json) -> None:
    """Upstream's empty tensor map cannot come from a real run: a signature without outputs does not run at all."""
    assert model.error("no_outputs", '"instances": [1.0]') == "Must specify at least one target to fetch or execute."
    assert model.error("complex", '"instances": [1.0]') == "Failed to write JSON value for tensor type: complex64"
    assert model.error("total", '"instances": [1.0]') == "Tensor name: y has no shape information "


def test_from_json_multiple_named_tensors(model: Json) -> None:
    columns = '{"int_tensor": [1, 2], "str_tensor": ["a", "b"], "float_tensor": [1, 2.5], "double_tensor": [[3], [4]]}'
    assert model.predict("named", f'"inputs": {columns}') == {
        "int_tensor": [1, 2],
        "str_tensor": ["a", "b"],
        "float_tensor": [1.0, 2.5],
        "double_tensor": [[3.0], [4.0]],
    }
    rows = '[{"int_tensor": 1, "str_tensor": "a", "float_tensor": 1, "double_tensor": [3]}]'
    assert model.predict("named", f'"instances": {rows}') == [
        {"int_tensor": 1, "str_tensor": "a", "float_tensor": 1.0, "double_tensor": [3.0]}
    ]


def test_from_json_multiple_named_tensors_errors(model: Json) -> None:
    assert "has inconsistent batch size: " in model.error("uneven", '"instances": [1.0, 2.0, 3.0]')


def test_from_json_single_zero_batch_tensor(model: Json) -> None:
    assert model.predict("no_rows", '"instances": [1.0]') == []


def test_from_json_multiple_zero_batch_tensors(model: Json) -> None:
    assert model.predict("no_rows_twice", '"instances": [1.0]') == []


def test_from_json_multiple_zero_batch_tensors_errors(model: Json) -> None:
    """One row of the one output, none of the other."""
    assert "has inconsistent batch size: " in model.error("uneven", '"instances": [1.0]')


# --- Classify and Regress (upstream runs each of these for both) ------------------------------------------------------


def seen_by(model: Json, method: str, body: str) -> list[Example]:
    """The Examples as the model got them; of regress, which answers numbers only, the scores in them."""
    status, answer = model.post(body, method)
    assert status == 200, answer
    if method == "regress":
        made = []
        for score in answer["results"]:
            made.append(Example())
            made[-1].features.feature["score"].float_list.value.append(score)
        return made
    labels = [label for ((label, _score),) in answer["results"]]
    return [Example.FromString(base64.urlsafe_b64decode(label + "=" * (-len(label) % 4))) for label in labels]


def features(example: Example) -> dict[str, tuple[str, list[Any]]]:
    return {
        name: (kind, list(getattr(feature, kind).value)) if (kind := feature.WhichOneof("kind") or "") else ("", [])
        for name, feature in example.features.feature.items()
    }


@METHODS
def test_request_no_context(model: Json, method: str) -> None:
    body = f"""{{"signature_name": "show_{method}", "examples": [
        {{"names": ["foo", "bar"], "ratings": [8.0, 9.0], "age": 10, "score": 1.5}},
        {{"names": ["baz"], "ratings": 1.0, "age": 20, "score": 2.5}}
    ]}}"""
    first, second = seen_by(model, method, body)
    assert features(first)["score"] == ("float_list", [1.5])
    assert features(second)["score"] == ("float_list", [2.5])
    if method == "classify":
        assert features(first) == {
            "names": ("bytes_list", [b"foo", b"bar"]),
            "ratings": ("float_list", [8.0, 9.0]),
            "age": ("int64_list", [10]),
            "score": ("float_list", [1.5]),
        }
        assert features(second)["names"] == ("bytes_list", [b"baz"])


@METHODS
def test_request_with_context_and_signature(model: Json, method: str) -> None:
    body = f"""{{"signature_name": "show_{method}", "context": {{"query": ["pizza"], "score": 3.5}}, "examples": [
        {{"names": ["foo", {{"b64": "YmFy"}}], "ratings": [NaN, Infinity, -Infinity], "flags": [true, 5]}},
        {{"score": 4.5}}
    ]}}"""
    first, second = seen_by(model, method, body)
    # The example's own feature wins over the context's.
    assert features(first)["score"] == ("float_list", [3.5])
    assert features(second)["score"] == ("float_list", [4.5])
    if method == "classify":
        seen = features(first)
        assert seen["query"] == ("bytes_list", [b"pizza"])
        assert seen["names"] == ("bytes_list", [b"foo", b"bar"])
        assert seen["flags"] == ("int64_list", [1, 5])
        assert str(seen["ratings"][1]) == "[nan, inf, -inf]"


@METHODS
@pytest.mark.parametrize(
    ("rest", "text"),
    [
        ('"signature_name": 5, "examples": [{}]', "'signature_name' key must be a string value."),
        ('"context": 1, "examples": [{"a": 1}]', "Example must be JSON object but got JSON Number"),
        ('"examples": 1', "Expecting 'examples' value to be an list/array"),
        ('"examples": []', "'examples' value is an empty array"),
        ('"examples": [1]', "Example must be JSON object but got JSON Number"),
        ('"examples": [{"a": null}]', "Feature: a has element with unexpected JSON type: Null"),
        ('"examples": [{"a": [10, 10.0]}]', "Unexpected element type in feature: a expecting type: int64"),
        ('"examples": [{"a": {"b": 1}}]', "Feature: a has element with unexpected JSON type: Object"),
        ('"examples": [{"a": [[1]]}]', "Feature: a has element with unexpected JSON type: Array"),
        ('"examples": [{"a": 18446744073709551603}]', "Feature: a has uint64_t element. Only int64_t is supported."),
        ('"nothing": 1', "key 'examples' is expected and was not found"),
    ],
)
def test_json_errors(model: Json, method: str, rest: str, text: str) -> None:
    signature = "" if "signature_name" in rest else f'"signature_name": "show_{method}", '
    assert text in model.error_of(f"{{{signature}{rest}}}", method)


def test_json_from_classification_result(model: Json) -> None:
    body = '{"signature_name": "show_classify", "examples": [{"score": 1.5}, {"score": 2.0}]}'
    status, answer = model.post(body, "classify")
    assert status == 200
    assert [[score for _label, score in each] for each in answer["results"]] == [[1.5], [2.0]]


def test_json_from_regression_result(model: Json) -> None:
    body = '{"signature_name": "show_regress", "examples": [{"score": 1.5}, {"score": 2.0}]}'
    assert model.post(body, "regress") == (200, {"results": [1.5, 2.0]})


def test_json_from_regression_result_with_non_finite(model: Json) -> None:
    scores = ", ".join(f'{{"score": {number}}}' for number in ("NaN", "Infinity", "3.0", "-Infinity"))
    status, answer = model.post(f'{{"signature_name": "show_regress", "examples": [{scores}]}}', "regress")
    assert (status, str(answer["results"])) == (200, "[nan, inf, 3.0, -inf]")


@METHODS
def test_json_from_result_errors(model: Json, method: str) -> None:
    """Upstream's empty result cannot come from a real run: without examples none is begun."""
    error = model.error_of(f'{{"signature_name": "show_{method}", "examples": []}}', method)
    assert "'examples' value is an empty array" in error


# --- statuses ---------------------------------------------------------------------------------------------------------


def test_status_ok(model: Json) -> None:
    status, answer = model.post('{"signature_name": "int32", "instances": [1]}')
    assert (status, "error" in answer) == (200, False)


def test_status_error(model: Json) -> None:
    """Quotes are escaped, so that the answer is JSON, and apostrophes are left alone."""
    name = 'it\'s "quoted"'
    assert model.error_of(json.dumps({"signature_name": name, "instances": [1]})) == (
        f'Serving signature name: "{name}" not found in signature def'
    )
