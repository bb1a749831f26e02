"""From JSON to PredictRequest: row and column form, base64, shapes, and what is wrong in which words."""

import json
import math
from collections.abc import Mapping

import pytest

from tensorgate.gateway.core.model_spec import ModelSpec
from tensorgate.gateway.rest.predict_request import (
    RequestForm,
    build_predict_request,
    find_signature,
    parse_predict_request,
    parse_request,
)
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow.core.framework import tensor_pb2, types_pb2
from tensorgate.protos.tensorflow_serving.apis import predict_pb2
from tests.fakes.fake_dispatcher import make_signature, make_signatures
from tests.harness.decoded_requests import decoded_request

DT = types_pb2
SPEC = ModelSpec("m", None, None, "")
FLOAT = {"x": DT.DT_FLOAT}
INT = {"x": DT.DT_INT32}
STRING = {"x": DT.DT_STRING}
TWO = {"a": DT.DT_FLOAT, "b": DT.DT_INT64}


def build(
    body: str | bytes, inputs: Mapping[str, int], spec: ModelSpec = SPEC
) -> tuple[predict_pb2.PredictRequest, RequestForm]:
    """What the exact way makes of a body; the quick way, where it takes the body, makes the same."""
    raw = body.encode() if isinstance(body, str) else body
    signature = make_signature(inputs)
    payload, form = build_predict_request(parse_request(raw), raw, signature, spec)
    other_payload, other_form = build_predict_request(parse_predict_request(raw), raw, signature, spec)
    assert other_form is form
    assert decoded_request(other_payload) == decoded_request(payload)
    return predict_pb2.PredictRequest.FromString(payload), form


def tensor_of(body: str | bytes, inputs: Mapping[str, int], name: str = "x") -> tensor_pb2.TensorProto:
    return build(body, inputs)[0].inputs[name]


def shape_of(tensor: tensor_pb2.TensorProto) -> list[int]:
    assert tensor.HasField("tensor_shape")
    return [dim.size for dim in tensor.tensor_shape.dim]


def error_of(body: str | bytes, inputs: Mapping[str, int]) -> ServingError:
    raw = body.encode() if isinstance(body, str) else body
    signature = make_signature(inputs)
    with pytest.raises(ServingError) as caught:
        build_predict_request(parse_request(raw), raw, signature, SPEC)
    with pytest.raises(ServingError) as other:
        build_predict_request(parse_predict_request(raw), raw, signature, SPEC)
    assert other.value == caught.value
    return caught.value


def invalid(message: str) -> ServingError:
    return ServingError(Code.INVALID_ARGUMENT, message)


# ---- row form ----


def test_single_unnamed_tensor() -> None:
    request, form = build('{"instances": [[1, 2], [3, 4], [5, 6]]}', INT)
    assert form is RequestForm.ROWS
    assert list(request.inputs) == ["x"]
    assert request.inputs["x"].dtype == DT.DT_INT32
    assert shape_of(request.inputs["x"]) == [3, 2]
    assert list(request.inputs["x"].int_val) == [1, 2, 3, 4, 5, 6]


def test_single_unnamed_tensor_with_signature() -> None:
    request, _ = build('{"signature_name": "s", "instances": [1]}', INT)
    assert request.model_spec.signature_name == "s"
    assert request.model_spec.name == "m"
    assert not request.model_spec.HasField("version")


@pytest.mark.parametrize(
    ("spec", "version", "label"),
    [(ModelSpec("m", 0, None, ""), 0, ""), (ModelSpec("m", None, "l", ""), None, "l")],
)
def test_the_model_spec_goes_along_as_given(spec: ModelSpec, version: int | None, label: str) -> None:
    sent = build('{"instances": [1]}', FLOAT, spec)[0].model_spec
    assert (sent.version.value if sent.HasField("version") else None, sent.version_label) == (version, label)


@pytest.mark.parametrize("dtype", [DT.DT_FLOAT, DT.DT_DOUBLE])
def test_mixed_input_for_float_tensor(dtype: int) -> None:
    tensor = tensor_of('{"instances": [1, 2.0, 3, 4.5, -0, -0.0]}', {"x": dtype})
    values = list(tensor.float_val if dtype == DT.DT_FLOAT else tensor.double_val)
    assert values == [1, 2, 3, 4.5, 0, 0]
    assert [math.copysign(1, value) for value in values[4:]] == [1, -1]


def test_float_tensor_with_precision_loss() -> None:
    tensor = tensor_of('{"instances": [1435774380, 1435774380.0]}', FLOAT)
    assert list(tensor.float_val) == [1435774336.0, 1435774336.0]


def test_float_tensor_that_exceeds_max_returns_inf() -> None:
    tensor = tensor_of('{"instances": [1.7976931348623157e308, -1.7976931348623157e308, 3.4028235677973366e38]}', FLOAT)
    assert list(tensor.float_val) == [math.inf, -math.inf, math.inf]


def test_float_tensor_that_exceeds_min_returns_zero() -> None:
    tensor = tensor_of('{"instances": [2.2250738585072014e-308, -2.2250738585072014e-308]}', FLOAT)
    assert list(tensor.float_val) == [0, 0]
    assert [math.copysign(1, value) for value in tensor.float_val] == [1, -1]


def test_non_finite_numbers_are_floats() -> None:
    tensor = tensor_of('{"instances": [NaN, Infinity, -Infinity, -Inf]}', {"x": DT.DT_DOUBLE})
    assert math.isnan(tensor.double_val[0])
    assert list(tensor.double_val[1:]) == [math.inf, -math.inf, -math.inf]


def test_single_unnamed_tensor_base64_scalars() -> None:
    tensor = tensor_of('{"instances": [{"b64": "aGVsbG8="}, {"b64": "d29ybGQ="}]}', STRING)
    assert shape_of(tensor) == [2]
    assert list(tensor.string_val) == [b"hello", b"world"]


def test_single_unnamed_tensor_base64_lists() -> None:
    tensor = tensor_of('{"instances": [[{"b64": "aGVsbG8="}], ["plain"]]}', STRING)
    assert shape_of(tensor) == [2, 1]
    assert list(tensor.string_val) == [b"hello", b"plain"]


def test_single_named_tensor_base64() -> None:
    tensor = tensor_of('{"instances": [{"x": [[{"b64": "aGVsbG8="}], [{"b64": "d29ybGQ="}]]}]}', STRING)
    assert shape_of(tensor) == [1, 2, 1]
    assert list(tensor.string_val) == [b"hello", b"world"]


def test_multiple_named_tensor() -> None:
    inputs = {"i": DT.DT_INT32, "s": DT.DT_STRING, "f": DT.DT_FLOAT, "d": DT.DT_DOUBLE}
    request, _ = build(
        '{"instances": [{"i": [[1, 2]], "s": "foo", "f": 1.0, "d": [NaN]},'
        ' {"d": [Infinity], "f": -Infinity, "s": {"b64": "YmFy"}, "i": [[3, 4]]}]}',
        inputs,
    )
    tensors = request.inputs
    assert sorted(tensors) == sorted(inputs)
    assert (shape_of(tensors["i"]), list(tensors["i"].int_val)) == ([2, 1, 2], [1, 2, 3, 4])
    assert (shape_of(tensors["s"]), list(tensors["s"].string_val)) == ([2], [b"foo", b"bar"])
    assert (shape_of(tensors["f"]), list(tensors["f"].float_val)) == ([2], [1, -math.inf])
    assert shape_of(tensors["d"]) == [2, 1]
    assert math.isnan(tensors["d"].double_val[0])


@pytest.mark.parametrize(
    ("dtype", "field"),
    [
        (DT.DT_INT8, "int_val"),
        (DT.DT_UINT8, "int_val"),
        (DT.DT_INT16, "int_val"),
        (DT.DT_INT64, "int64_val"),
        (DT.DT_UINT32, "uint32_val"),
        (DT.DT_UINT64, "uint64_val"),
    ],
)
def test_integers_travel_in_their_typed_field(dtype: int, field: str) -> None:
    tensor = tensor_of('{"instances": [1, 200]}', {"x": dtype})
    assert (tensor.dtype, list(getattr(tensor, field)), tensor.tensor_content) == (dtype, [1, 200], b"")


def test_booleans_travel_in_bool_val() -> None:
    assert list(tensor_of('{"instances": [true, false]}', {"x": DT.DT_BOOL}).bool_val) == [True, False]


def test_empty_inner_lists_are_dimensions_of_size_zero() -> None:
    assert shape_of(tensor_of('{"instances": [[[]], [[]]]}', FLOAT)) == [2, 1, 0]


def test_a_tensor_may_be_nested_deeper_than_python_recurses() -> None:
    tensor = tensor_of('{"instances": ' + "[" * 3000 + "1" + "]" * 3000 + "}", FLOAT)
    assert shape_of(tensor) == [1] * 3000


def test_of_equal_keys_in_a_row_the_first_counts() -> None:
    request, _ = build('{"instances": [{"a": [1, 2], "a": [5, 6], "b": 1}]}', TWO)
    assert list(request.inputs["a"].float_val) == [1, 2]


def test_bytes_that_are_not_utf8_pass_into_strings() -> None:
    assert list(tensor_of(b'{"instances": ["\xff\xfe"]}', STRING).string_val) == [b"\xff\xfe"]


# ---- column form ----


def test_single_unnamed_tensor_columnar_format() -> None:
    named, form = build('{"inputs": {"x": [[[1, 2], [3, 4], [5, 6]]]}}', INT)
    plain, _ = build('{"inputs": [[[1, 2], [3, 4], [5, 6]]]}', INT)
    assert form is RequestForm.COLUMNS
    assert named == plain
    assert shape_of(plain.inputs["x"]) == [1, 3, 2]


def test_multiple_named_tensor_columnar_format() -> None:
    request, _ = build(
        '{"inputs": {"a": [[1, 2], [3, 4]], "s": {"b64": "aGVsbG8="}, "ignored": {"x": [1, "y"]}}}',
        {"a": DT.DT_FLOAT, "s": DT.DT_STRING},
    )
    assert sorted(request.inputs) == ["a", "s"]
    assert (shape_of(request.inputs["a"]), list(request.inputs["a"].float_val)) == ([2, 2], [1, 2, 3, 4])
    assert (shape_of(request.inputs["s"]), list(request.inputs["s"].string_val)) == ([], [b"hello"])


@pytest.mark.parametrize(
    ("value", "shape"), [("5", []), ("[]", [0]), ("[[]]", [1, 0]), ("[[1], [2]]", [2, 1]), ("[[[1]]]", [1, 1, 1])]
)
def test_the_shape_is_that_of_the_nested_lists(value: str, shape: list[int]) -> None:
    assert shape_of(tensor_of(f'{{"inputs": {value}}}', FLOAT)) == shape


# ---- what is wrong ----


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "JSON Parse error: The document is empty"),
        ("garbage", "JSON Parse error: Invalid value. at offset: 0"),
        ("7", "JSON Value: 7 Is not object"),
        ("[1]", "JSON Value: [1] Is not object"),
        (
            '{"signature_name": 5, "instances": [1]}',
            'JSON Value: {\n    "signature_name": 5,\n    "instances": [1]\n} not formatted correctly. '
            "'signature_name' key must be a string value.",
        ),
    ],
)
def test_the_first_checks_need_no_model(body: str, message: str) -> None:
    with pytest.raises(ServingError) as caught:
        parse_predict_request(body.encode())
    assert caught.value == invalid(message)


def test_deeply_nested_malformed() -> None:
    with pytest.raises(ServingError, match="'signature_name' key must be a string value"):
        parse_predict_request(b'{"signature_name": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")


def test_signatures_are_found_by_name_and_default() -> None:
    signatures = make_signatures(serving_default=make_signature(FLOAT), other=make_signature(INT))
    assert list(find_signature(signatures, "").inputs) == ["x"]
    assert find_signature(signatures, "serving_default") == find_signature(signatures, "")
    assert find_signature(signatures, "other").inputs["x"].dtype == DT.DT_INT32


@pytest.mark.parametrize("name", ["nothing", "é", 'a"b\n', "\udcff"])
def test_an_unknown_signature_is_an_invalid_argument(name: str) -> None:
    with pytest.raises(ServingError) as caught:
        find_signature(make_signatures(serving_default=make_signature(FLOAT)), name)
    assert caught.value == invalid(f'Serving signature name: "{name}" not found in signature def')


def test_a_missing_default_signature_is_named() -> None:
    with pytest.raises(ServingError, match=r'"serving_default" not found in signature def$'):
        find_signature(make_signatures(), "")


@pytest.mark.parametrize(("named", "text"), [("", "DEFAULT"), ("s", "s")])
def test_a_signature_without_inputs_cannot_be_called(named: str, text: str) -> None:
    error = error_of(json.dumps({"signature_name": named, "instances": []}), {})
    assert error == invalid(f"Failed to get input map for signature: {text}")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("{}", "Missing 'inputs' or 'instances' key"),
        ('{"Instances": [1]}', "Missing 'inputs' or 'instances' key"),
        (
            '{"instances": [1], "inputs": [1]}',
            'JSON Value: {\n    "instances": [1],\n    "inputs": [1]\n} Not formatted correctly expecting only one of '
            "'inputs' or 'instances' keys to exist ",
        ),
        ('{"instances": 1}', "JSON Value: {\n    \"instances\": 1\n} Expecting 'instances' to be an list/array"),
        ('{"instances": []}', "JSON Value: {\n    \"instances\": []\n} No values in 'instances' array"),
        ('{"inputs": null}', "JSON Value: null Type: Null is not of expected type: float"),
        ('{"inputs": "abc"}', 'JSON Value: "abc" Type: String is not of expected type: float'),
        ('{"inputs": [[1], 2]}', "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
        ('{"inputs": [1, [2]]}', "Encountered list at unexpected level: 1 expected < 1"),
        ('{"inputs": [[1, 2], [3]]}', "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        # The first fault of the document is the one reported.
        ('{"inputs": [[1, "x"], [3]]}', 'JSON Value: "x" Type: String is not of expected type: float'),
        ('{"inputs": {"y": 1}}', "Missing named input: x in 'inputs' object."),
        ('{"inputs": {"b64": null}}', "Missing named input: x in 'inputs' object."),
        (
            '{"inputs": {"b64": "AAAA"}}',
            'JSON Value: {\n    "b64": "AAAA"\n} Type: Object is not of expected type: float',
        ),
        (
            '{"instances": [[1, 2], [3]]}',
            "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
            "Expecting tensor size: 2 but got: 1",
        ),
        (
            '{"instances": [1, [2]]}',
            "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
            "Expecting shape [] but got: [1]",
        ),
        (
            '{"instances": [[[1], [2]], [1, 2]]}',
            "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
            "Expecting shape [2,1] but got: [2]",
        ),
        (
            '{"instances": [1, null]}',
            "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
            "JSON Value: null Type: Null is not of expected type: float",
        ),
        ('{"instances": [{"x": 1}, 2]}', "Expecting object but got list at item 1 of input list"),
        ('{"instances": [1, {"x": 2}]}', "Expecting value/list but got object at item 1 of input list"),
        (
            '{"instances": [{"y": 1}]}',
            "Failed to process element: 0 key: y of 'instances' list. Error: INVALID_ARGUMENT: "
            "JSON object: does not have named input: y",
        ),
    ],
)
def test_single_unnamed_tensor_errors(body: str, message: str) -> None:
    assert error_of(body, FLOAT) == invalid(message)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            '{"instances": [1, 2]}',
            "instances is a plain list, but expecting list of objects as multiple input tensors required "
            "as per tensorinfo_map",
        ),
        (
            '{"instances": [{"b64": "AAAA"}]}',
            "instances is a plain list, but expecting list of objects as multiple input tensors required "
            "as per tensorinfo_map",
        ),
        (
            '{"inputs": [1]}',
            "inputs is a plain value/list, but expecting an object as multiple input tensors required "
            "as per tensorinfo_map",
        ),
        ('{"inputs": {"b": 1}}', "Missing named input: a in 'inputs' object."),
        (
            '{"instances": [{"a": 1}]}',
            "Failed to process element: 0 of 'instances' list. JSON object: {\n    \"a\": 1\n} "
            "keys must be equal to: a,b",
        ),
        (
            '{"instances": [{"a": [1, 2], "b": 1}, {"a": [1, 2]}]}',
            "Failed to process element: 1 of 'instances' list. JSON object: {\n    \"a\": [1, 2]\n} "
            "keys must be equal to: a,b",
        ),
        (
            '{"instances": [{"a": [1, 2], "b": 1}, {"a": ["x", 2], "b": 1}]}',
            "Failed to process element: 1 key: a of 'instances' list. Error: INVALID_ARGUMENT: "
            'JSON Value: "x" Type: String is not of expected type: float',
        ),
        (
            '{"instances": [{"a": [[1], [2]], "b": 1}, {"a": [1, 2], "b": 1}]}',
            "Failed to process element: 1 key: a of 'instances' list. Error: INVALID_ARGUMENT: "
            "Expecting shape [2,1] but got: [2]",
        ),
        (
            '{"instances": [{"a": [1, 2], "b": 1}, {"a": [1], "b": 1}]}',
            "Failed to process element: 1 key: a of 'instances' list. Error: INVALID_ARGUMENT: "
            "Expecting tensor size: 2 but got: 1",
        ),
        ('{"instances": [{"a": 1, "b": 1}, 2]}', "Expecting object but got list at item 1 of input list"),
    ],
)
def test_multiple_named_tensor_errors(body: str, message: str) -> None:
    assert error_of(body, TWO) == invalid(message)


def test_a_dtype_json_cannot_carry_keeps_its_code_in_column_form_only() -> None:
    text = "Conversion of JSON Value: 1 to type: half"
    assert error_of('{"inputs": [1]}', {"x": DT.DT_HALF}) == ServingError(Code.UNIMPLEMENTED, text)
    assert error_of('{"instances": [1]}', {"x": DT.DT_HALF}) == invalid(
        f"Failed to process element: 0 of 'instances' list. Error: UNIMPLEMENTED: {text}"
    )
