"""Values of tensors: base64, names of dtypes, and reading typed fields and tensor_content."""

import struct

import pytest

from tensorgate.gateway.rest.json_value import JsonValue, make_object
from tensorgate.gateway.rest.tensor_values import (
    TensorValue,
    convert_value,
    convert_values,
    is_base64_object,
    read_values,
)
from tensorgate.protos.data_types import data_type_name
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2

DT = types_pb2
INTEGERS = [
    (DT.DT_INT32, -(2**31), 2**31 - 1),
    (DT.DT_INT16, -(2**31), 2**31 - 1),
    (DT.DT_INT8, -(2**31), 2**31 - 1),
    (DT.DT_UINT8, -(2**31), 2**31 - 1),
    (DT.DT_INT64, -(2**63), 2**63 - 1),
    (DT.DT_UINT32, 0, 2**32 - 1),
    (DT.DT_UINT64, 0, 2**64 - 1),
]


def make_tensor(dtype: int, shape: list[int], **values: object) -> tensor_pb2.TensorProto:
    dims = [tensor_shape_pb2.TensorShapeProto.Dim(size=size) for size in shape]
    tensor = tensor_pb2.TensorProto(tensor_shape=tensor_shape_pb2.TensorShapeProto(dim=dims), **values)  # type: ignore[arg-type]
    tensor.dtype = dtype  # type: ignore[assignment]
    return tensor


@pytest.mark.parametrize(("dtype", "low", "high"), INTEGERS)
def test_integers_are_held_within_their_range(dtype: int, low: int, high: int) -> None:
    for value in (low, high):
        assert convert_values([value], dtype) == [value]
        assert convert_value(value, dtype) == value
    for value in (low - 1, high + 1):
        assert convert_values([value, 0], dtype) is None
        with pytest.raises(ServingError, match=f"Type: Number is not of expected type: {data_type_name(dtype)}$"):
            convert_value(value, dtype)


@pytest.mark.parametrize(
    ("dtype", "value", "kind"),
    [
        (DT.DT_INT32, 1.0, "Number"),
        (DT.DT_INT64, "1", "String"),
        (DT.DT_UINT32, True, "True"),
        (DT.DT_FLOAT, "1", "String"),
        (DT.DT_FLOAT, None, "Null"),
        (DT.DT_DOUBLE, False, "False"),
        (DT.DT_FLOAT, {"b64": "AAAA"}, "Object"),
        (DT.DT_BOOL, 1, "Number"),
        (DT.DT_BOOL, "true", "String"),
        (DT.DT_STRING, 1, "Number"),
        (DT.DT_STRING, True, "True"),
        (DT.DT_STRING, None, "Null"),
    ],
)
def test_a_value_of_another_kind_is_refused(dtype: int, value: JsonValue, kind: str) -> None:
    assert convert_values([value], dtype) is None
    with pytest.raises(ServingError) as caught:
        convert_value(value, dtype)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert caught.value.message.endswith(f" Type: {kind} is not of expected type: {data_type_name(dtype)}")


@pytest.mark.parametrize("dtype", [DT.DT_HALF, DT.DT_BFLOAT16, DT.DT_UINT16, DT.DT_COMPLEX64, DT.DT_QINT8])
def test_some_dtypes_cannot_be_carried_by_json(dtype: int) -> None:
    assert convert_values([1], dtype) is None
    assert convert_values([], dtype) == []
    with pytest.raises(ServingError) as caught:
        convert_value(1.5, dtype)
    assert caught.value == ServingError(
        Code.UNIMPLEMENTED, f"Conversion of JSON Value: 1.5 to type: {data_type_name(dtype)}"
    )


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("", b""),
        ("dGV4dA==", b"text"),
        ("dGV4dA", b"text"),
        ("dGV4dA..", b"text"),
        (" dGV4\n dA=\t= ", b"text"),
        ("dGV4dB==", b"text"),
        ("AP+A/w==", b"\x00\xff\x80\xff"),
    ],
)
def test_base64_objects_are_decoded(text: str, data: bytes) -> None:
    assert convert_value({"b64": text}, DT.DT_STRING) == data


@pytest.mark.parametrize("text", ["a", "dGV4dA=", "dGV4dA===", "dG==V4dA", "-_-_", "dGV4dA==x", "é", "=", "===="])
def test_bad_base64_is_refused(text: str) -> None:
    with pytest.raises(ServingError) as caught:
        convert_value({"b64": text}, DT.DT_STRING)
    assert caught.value == ServingError(Code.INVALID_ARGUMENT, "Unable to base64 decode")


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"B64": "AAAA"},
        {"b64": None},
        {"b64": "AAAA", "x": 1},
        make_object([("b64", "eA=="), ("b64", "eQ==")]),
    ],
)
def test_other_objects_are_no_base64(value: dict[str, JsonValue]) -> None:
    assert not is_base64_object(value)
    with pytest.raises(ServingError, match=r"not formatted correctly for base64 data$"):
        convert_value(value, DT.DT_STRING)


def test_strings_keep_their_bytes() -> None:
    assert convert_values(["é", "\udcff"], DT.DT_STRING) == ["é".encode(), b"\xff"]
    assert convert_value("\udcff", DT.DT_STRING) == b"\xff"


@pytest.mark.parametrize(
    ("tensor", "values"),
    [
        (make_tensor(DT.DT_FLOAT, [2], float_val=[1.5, 2.5]), [1.5, 2.5]),
        (make_tensor(DT.DT_FLOAT, [], float_val=[1.5]), [1.5]),
        (make_tensor(DT.DT_INT32, [4], int_val=[1, 2]), [1, 2, 2, 2]),
        (make_tensor(DT.DT_INT64, [1], int64_val=[1, 2]), [1]),
        (make_tensor(DT.DT_DOUBLE, [2]), [0, 0]),
        (make_tensor(DT.DT_STRING, [2]), [b"", b""]),
        (make_tensor(DT.DT_BOOL, [2]), [False, False]),
        (make_tensor(DT.DT_FLOAT, [0, 3]), []),
        (make_tensor(DT.DT_FLOAT, [0], tensor_content=b"surplus"), []),
        (make_tensor(DT.DT_FLOAT, [2], tensor_content=struct.pack("<2f", 1.5, -2), float_val=[9]), [1.5, -2.0]),
        (make_tensor(DT.DT_INT8, [2], tensor_content=b"\xff\x01"), [-1, 1]),
        (make_tensor(DT.DT_UINT64, [1], tensor_content=b"\xff" * 8), [2**64 - 1]),
        (make_tensor(DT.DT_BOOL, [2], tensor_content=b"\0\1"), [False, True]),
        (make_tensor(DT.DT_STRING, [3], tensor_content=b"\x01\x00\xc8\x01a" + b"b" * 200), [b"a", b"", b"b" * 200]),
    ],
)
def test_values_are_read_from_typed_fields_and_content(
    tensor: tensor_pb2.TensorProto, values: list[TensorValue]
) -> None:
    assert read_values(tensor) == values


@pytest.mark.parametrize(
    "tensor",
    [
        make_tensor(DT.DT_FLOAT, [2], tensor_content=b"\0" * 7),
        make_tensor(DT.DT_STRING, [2], tensor_content=b"\x01\x02ab"),
        make_tensor(DT.DT_STRING, [2], tensor_content=b"\x80"),
    ],
)
def test_content_of_a_wrong_length_is_an_internal_error(tensor: tensor_pb2.TensorProto) -> None:
    with pytest.raises(ServingError) as caught:
        read_values(tensor)
    assert caught.value.code is Code.INTERNAL
