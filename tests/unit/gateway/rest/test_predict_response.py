"""From PredictResponse to JSON: both forms, white space included."""

import math
from collections.abc import Mapping

import pytest

from tensorgate.gateway.rest.predict_request import RequestForm
from tensorgate.gateway.rest.predict_response import predict_response_json, predict_response_json_exactly
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2
from tensorgate.protos.tensorflow_serving.apis import predict_pb2

DT = types_pb2
ROWS, COLUMNS = RequestForm.ROWS, RequestForm.COLUMNS


def tensor(dtype: int, shape: list[int], **values: object) -> tensor_pb2.TensorProto:
    dims = [tensor_shape_pb2.TensorShapeProto.Dim(size=size) for size in shape]
    made = tensor_pb2.TensorProto(tensor_shape=tensor_shape_pb2.TensorShapeProto(dim=dims), **values)  # type: ignore[arg-type]
    made.dtype = dtype  # type: ignore[assignment]
    return made


def write(form: RequestForm, outputs: Mapping[str, tensor_pb2.TensorProto]) -> str:
    response = predict_pb2.PredictResponse()
    for name, each in outputs.items():
        response.outputs[name].CopyFrom(each)
    # The dispatcher hands over either kind of buffer.
    written = predict_response_json(memoryview(response.SerializeToString()), form)
    assert written == predict_response_json(response.SerializeToString(), form)
    assert written == predict_response_json_exactly(response.SerializeToString(), form)
    return written.decode("utf-8", errors="surrogateescape")


def error_of(form: RequestForm, outputs: Mapping[str, tensor_pb2.TensorProto]) -> ServingError:
    with pytest.raises(ServingError) as caught:
        write(form, outputs)
    return caught.value


def floats(*values: float) -> tensor_pb2.TensorProto:
    return tensor(DT.DT_FLOAT, [len(values)], float_val=values)


def test_from_json_single_tensor() -> None:
    outputs = {"y": tensor(DT.DT_INT32, [2, 2, 1], int_val=[1, 2, 3, 4])}
    assert write(ROWS, outputs) == '{\n    "predictions": [[[1], [2]], [[3], [4]]\n    ]\n}'
    assert write(COLUMNS, outputs) == (
        '{\n    "outputs": [\n        [\n            [\n                1\n            ],\n'
        "            [\n                2\n            ]\n        ],\n"
        "        [\n            [\n                3\n            ],\n            [\n                4\n            ]\n"
        "        ]\n    ]\n}"
    )


def test_from_json_single_scalar_tensor() -> None:
    outputs = {"y": floats(2.5, 3, 4.5)}
    assert write(ROWS, outputs) == '{\n    "predictions": [2.5, 3.0, 4.5\n    ]\n}'
    assert write(COLUMNS, outputs) == '{\n    "outputs": [\n        2.5,\n        3.0,\n        4.5\n    ]\n}'


def test_a_scalar_output_is_bare_in_column_form() -> None:
    assert write(COLUMNS, {"y": tensor(DT.DT_FLOAT, [], float_val=[5])}) == '{\n    "outputs": 5.0\n}'


def test_from_json_single_bytes_tensor() -> None:
    outputs = {"y_bytes": tensor(DT.DT_STRING, [2], string_val=[b"a", b"\x00\xff"])}
    assert write(ROWS, outputs) == (
        '{\n    "predictions": [{\n            "b64": "YQ=="\n        }, '
        '{\n            "b64": "AP8="\n        }\n    ]\n}'
    )
    assert write(COLUMNS, outputs) == (
        '{\n    "outputs": [\n        {\n            "b64": "YQ=="\n        },\n'
        '        {\n            "b64": "AP8="\n        }\n    ]\n}'
    )


def test_from_json_single_float_tensor_six_digit_precision() -> None:
    outputs = {"y": floats(9000000, 999999, 0.5, 0.0003, 3e-05, 555557.5)}
    assert write(ROWS, outputs) == '{\n    "predictions": [9e+06, 999999.0, 0.5, 0.0003, 3e-05, 555557.5\n    ]\n}'


def test_from_json_single_float_tensor_non_finite() -> None:
    outputs = {"y": floats(math.nan, math.inf, 3, -math.inf)}
    assert write(ROWS, outputs) == '{\n    "predictions": [NaN, Infinity, 3.0, -Infinity\n    ]\n}'


def test_from_json_multiple_named_tensors() -> None:
    outputs = {
        "sum": floats(6, 2.5),
        "product": tensor(DT.DT_FLOAT, [2, 2], float_val=[3, 6, 1, 2]),
        "raw_bytes": tensor(DT.DT_STRING, [2], string_val=[b"a", b"b"]),
    }
    row = (
        '        {{\n            "product": [{}],\n            "raw_bytes": {{\n                "b64": "{}"\n'
        '            }},\n            "sum": {}\n        }}'
    )
    rows = f"{row.format('3.0, 6.0', 'YQ==', '6.0')},\n{row.format('1.0, 2.0', 'Yg==', '2.5')}"
    assert write(ROWS, outputs) == f'{{\n    "predictions": [\n{rows}\n    ]\n}}'
    del outputs["raw_bytes"]
    assert write(COLUMNS, outputs) == (
        '{\n    "outputs": {\n        "product": [\n'
        "            [\n                3.0,\n                6.0\n            ],\n"
        "            [\n                1.0,\n                2.0\n            ]\n        ],\n"
        '        "sum": [\n            6.0,\n            2.5\n        ]\n    }\n}'
    )


def test_strings_are_escaped_and_pass_as_they_are() -> None:
    outputs = {
        "y": tensor(DT.DT_STRING, [3], string_val=[b'q"\\/\n\x01\x7f', "é😀\u2028".encode(), b"\xff\xed\xa0\x80"])
    }
    assert write(ROWS, outputs).encode("utf-8", errors="surrogateescape") == (
        b'{\n    "predictions": ["q\\"\\\\/\\n\\u0001\x7f", "'
        + "é😀\u2028".encode()
        + b'", "\xff\xed\xa0\x80"\n    ]\n}'
    )


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (tensor(DT.DT_BOOL, [2], bool_val=[True, False]), "true, false"),
        (tensor(DT.DT_INT8, [2], int_val=[-1, 1]), "-1, 1"),
        (tensor(DT.DT_INT64, [1], int64_val=[-(2**63)]), "-9223372036854775808"),
        (tensor(DT.DT_UINT64, [1], uint64_val=[2**64 - 1]), "18446744073709551615"),
        (tensor(DT.DT_DOUBLE, [1], double_val=[1 / 3]), "0.33333333333333331"),
    ],
)
def test_every_dtype_json_can_carry_is_written(output: tensor_pb2.TensorProto, text: str) -> None:
    assert write(ROWS, {"y": output}) == f'{{\n    "predictions": [{text}\n    ]\n}}'


@pytest.mark.parametrize("outputs", [["y"], ["y", "z"]])
def test_from_json_zero_batch_tensors(outputs: list[str]) -> None:
    empty = {name: tensor(DT.DT_FLOAT, [0, 3]) for name in outputs}
    assert write(ROWS, empty) == '{\n    "predictions": []\n}'


def test_empty_inner_dimensions_are_empty_lists() -> None:
    outputs = {"y": tensor(DT.DT_FLOAT, [2, 0, 3])}
    assert write(ROWS, outputs) == '{\n    "predictions": [[], []\n    ]\n}'
    assert write(COLUMNS, outputs) == '{\n    "outputs": [\n        [],\n        []\n    ]\n}'
    assert write(COLUMNS, {"y": tensor(DT.DT_FLOAT, [0])}) == '{\n    "outputs": []\n}'


@pytest.mark.parametrize("form", [ROWS, COLUMNS])
def test_from_json_single_tensor_errors(form: RequestForm) -> None:
    assert error_of(form, {}) == ServingError(Code.INVALID_ARGUMENT, "Cannot convert empty tensor map to JSON")
    unsupported = {"y": tensor(DT.DT_COMPLEX64, [1], scomplex_val=[1, 2])}
    text = "Failed to write JSON value for tensor type: complex64"
    assert error_of(form, unsupported) == ServingError(Code.INVALID_ARGUMENT, text)


def test_row_form_needs_a_batch_dimension() -> None:
    text = "Tensor name: y has no shape information "
    scalar = {"y": tensor(DT.DT_FLOAT, [], float_val=[1])}
    assert error_of(ROWS, scalar) == ServingError(Code.INVALID_ARGUMENT, text)


@pytest.mark.parametrize("rows", [1, 0])
def test_from_json_multiple_named_tensors_errors(rows: int) -> None:
    outputs = {"a": tensor(DT.DT_FLOAT, [rows], float_val=[1] * rows), "b": floats(1, 2)}
    text = f"Tensor name: b has inconsistent batch size: 2 expecting: {rows}"
    assert error_of(ROWS, outputs) == ServingError(Code.INVALID_ARGUMENT, text)
