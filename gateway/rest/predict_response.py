"""Writes a PredictResponse as the JSON a client expects, down to the white space.

Last step of a predict on the REST line; pure, any thread; needs time in proportion to the number of values.

What a worker writes in the ordinary way goes through _native/json_reply, where no number becomes a Python object and
large replies leave the GIL to others. It says nothing but no: then the rest of this module, which has the same text for
everything, decides.

Source: TensorFlow Serving's util/json_tensor.cc (MakeJsonFromPredictResponse), which writes with RapidJSON's
PrettyWriter and puts arrays on one line wherever it writes a value of row form.
"""

import binascii
import math
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring

from tensorgate._native.json_reply import write_reply
from tensorgate.gateway.rest.float_format import format_float32, format_float64
from tensorgate.gateway.rest.predict_request import RequestForm
from tensorgate.gateway.rest.tensor_values import is_json_dtype, read_values
from tensorgate.protos.data_types import data_type_name
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow.core.framework import tensor_pb2, types_pb2
from tensorgate.protos.tensorflow_serving.apis import predict_pb2

# String outputs whose alias ends like this are written as base64.
BYTES_SUFFIX = "_bytes"


def predict_response_json(response: bytes | memoryview, form: RequestForm) -> bytes:
    """The JSON of a serialized PredictResponse, in the form of its request.

    Raises ServingError: INVALID_ARGUMENT for outputs that this form, or JSON at all, cannot carry.
    """
    text = write_reply(response, form is RequestForm.ROWS)
    return predict_response_json_exactly(response, form) if text is None else text


def predict_response_json_exactly(response: bytes | memoryview, form: RequestForm) -> bytes:
    """The same for any response, slowly."""
    # A sorted order is as good as the hash order upstream has, and the same every time.
    outputs = sorted(predict_pb2.PredictResponse.FromString(bytes(response)).outputs.items())
    if not outputs:
        raise _invalid("Cannot convert empty tensor map to JSON")
    text = _rows_json(dict(outputs)) if form is RequestForm.ROWS else _columns_json(dict(outputs))
    # Bytes that are not UTF-8 were read as surrogate escapes and leave as they were.
    return text.encode("utf-8", errors="surrogateescape")


def _columns_json(outputs: Mapping[str, tensor_pb2.TensorProto]) -> str:
    if len(outputs) == 1:
        [(name, tensor)] = outputs.items()
        written = _column(name, tensor, 1)
    else:
        members = (
            f"{_indent(2)}{encode_basestring(name)}: {_column(name, tensor, 2)}" for name, tensor in outputs.items()
        )
        written = f"{{{','.join(members)}{_indent(1)}}}"
    return f'{{{_indent(1)}"outputs": {written}\n}}'


def _rows_json(outputs: Mapping[str, tensor_pb2.TensorProto]) -> str:
    num_rows = _num_rows(outputs)
    if num_rows == 0:
        return f'{{{_indent(1)}"predictions": []\n}}'
    if len(outputs) == 1:
        [(name, tensor)] = outputs.items()
        written = ", ".join(_rows(name, tensor, 2))
    else:
        columns = {name: _rows(name, tensor, 3) for name, tensor in outputs.items()}
        keys = [f"{_indent(3)}{encode_basestring(name)}: " for name in columns]
        written = ",".join(
            f"{_indent(2)}{{{','.join(key + value for key, value in zip(keys, values, strict=True))}{_indent(2)}}}"
            for values in zip(*columns.values(), strict=True)
        )
    return f'{{{_indent(1)}"predictions": [{written}{_indent(1)}]\n}}'


def _num_rows(outputs: Mapping[str, tensor_pb2.TensorProto]) -> int:
    """The size of dimension 0, which all outputs must have and share."""
    num_rows = None
    for name, tensor in outputs.items():
        shape = _shape(tensor)
        if not shape:
            # The blank at the end is part of the text.
            raise _invalid(f"Tensor name: {name} has no shape information ")
        if num_rows is None:
            num_rows = shape[0]
        elif shape[0] != num_rows:
            raise _invalid(f"Tensor name: {name} has inconsistent batch size: {shape[0]} expecting: {num_rows}")
    return num_rows or 0


def _rows(name: str, tensor: tensor_pb2.TensorProto, depth: int) -> list[str]:
    """One text for each entry of dimension 0, written on one line; depth is how many containers enclose an entry."""
    shape = _shape(tensor)
    texts = _value_texts(name, tensor, depth + len(shape) - 1)
    for axis in range(len(shape) - 1, 0, -1):
        texts = _grouped(texts, shape, axis, opening="[", separator=", ", closing="]")
    return texts


def _column(name: str, tensor: tensor_pb2.TensorProto, depth: int) -> str:
    """A whole tensor with every element on a line of its own; depth is how many containers enclose the tensor."""
    shape = _shape(tensor)
    texts = _value_texts(name, tensor, depth + len(shape))
    for axis in range(len(shape) - 1, -1, -1):
        inner, outer = _indent(depth + axis + 1), _indent(depth + axis)
        texts = _grouped(texts, shape, axis, opening=f"[{inner}", separator=f",{inner}", closing=f"{outer}]")
    return texts[0]


def _grouped(
    texts: list[str], shape: Sequence[int], axis: int, *, opening: str, separator: str, closing: str
) -> list[str]:
    """The texts of all lists along one axis, from the texts of all their elements."""
    size = shape[axis]
    num_lists = math.prod(shape[:axis])
    if size == 0:
        return ["[]"] * num_lists
    return [f"{opening}{separator.join(texts[at : at + size])}{closing}" for at in range(0, num_lists * size, size)]


def _value_texts(name: str, tensor: tensor_pb2.TensorProto, depth: int) -> list[str]:
    """The text of every single value, in row-major order; depth is how many containers enclose a value."""
    if not math.prod(_shape(tensor)):
        return []
    dtype = tensor.dtype
    if not is_json_dtype(dtype):
        raise _invalid(f"Failed to write JSON value for tensor type: {data_type_name(dtype)}")
    values = read_values(tensor)
    if dtype == types_pb2.DT_FLOAT:
        return format_float32(values)  # type: ignore[arg-type]  # the dtype says what the values are
    if dtype == types_pb2.DT_DOUBLE:
        return format_float64(values)  # type: ignore[arg-type]
    if dtype == types_pb2.DT_BOOL:
        return ["true" if value else "false" for value in values]
    if dtype == types_pb2.DT_STRING:
        return _string_texts(name, values, depth)  # type: ignore[arg-type]
    return list(map(str, values))


def _string_texts(name: str, values: Sequence[bytes], depth: int) -> list[str]:
    if name.endswith(BYTES_SUFFIX):
        opening, closing = f'{{{_indent(depth + 1)}"b64": "', f'"{_indent(depth)}}}'
        return [f"{opening}{binascii.b2a_base64(value, newline=False).decode()}{closing}" for value in values]
    return [encode_basestring(value.decode("utf-8", errors="surrogateescape")) for value in values]


def _shape(tensor: tensor_pb2.TensorProto) -> list[int]:
    return [dim.size for dim in tensor.tensor_shape.dim]


def _indent(depth: int) -> str:
    return "\n" + "    " * depth


def _invalid(message: str) -> ServingError:
    return ServingError(Code.INVALID_ARGUMENT, message)
