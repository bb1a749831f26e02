"""What one value of a tensor is, by dtype: which JSON may become it, which field of a TensorProto holds it.

Used by both directions of the REST line (json_to_tensors, predict_response); pure, any thread.
Source: TensorFlow's framework/tensor.proto (which field) and TensorFlow Serving's util/json_tensor.cc (which JSON).
"""

import binascii
import math
import re
import struct
from collections.abc import Sequence
from types import MappingProxyType
from typing import TypeAlias, cast

from tensorgate.gateway.rest.json_value import JsonValue, RepeatedKeysObject, debug_string, json_type_name
from tensorgate.protos.data_types import DATA_TYPES, data_type_name
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow.core.framework import tensor_pb2, types_pb2

TensorValue: TypeAlias = bool | int | float | bytes

_INT32 = range(-(2**31), 2**31)
# The narrow integers are checked against int32 only, since its field is where they travel; the model's side wraps them.
_INTEGERS = MappingProxyType(
    {
        int(types_pb2.DT_INT32): _INT32,
        int(types_pb2.DT_INT16): _INT32,
        int(types_pb2.DT_INT8): _INT32,
        int(types_pb2.DT_UINT8): _INT32,
        int(types_pb2.DT_INT64): range(-(2**63), 2**63),
        int(types_pb2.DT_UINT32): range(2**32),
        int(types_pb2.DT_UINT64): range(2**64),
    }
)
_FLOATS = frozenset({int(types_pb2.DT_FLOAT), int(types_pb2.DT_DOUBLE)})
# The dtypes that JSON can carry, but for strings, and how tensor_content is laid out, in struct's letters.
_CONTENT_FORMATS = MappingProxyType(
    {
        int(types_pb2.DT_FLOAT): "f",
        int(types_pb2.DT_DOUBLE): "d",
        int(types_pb2.DT_INT32): "i",
        int(types_pb2.DT_INT16): "h",
        int(types_pb2.DT_INT8): "b",
        int(types_pb2.DT_UINT8): "B",
        int(types_pb2.DT_INT64): "q",
        int(types_pb2.DT_UINT32): "I",
        int(types_pb2.DT_UINT64): "Q",
        int(types_pb2.DT_BOOL): "?",
    }
)

_BASE64_KEY = "b64"
_BASE64_SPACE = str.maketrans({" ": None, "\t": None, "\n": None, "\v": None, "\f": None, "\r": None, ".": "="})
_BASE64 = re.compile(r"([A-Za-z0-9+/]*)(={0,2})")


def is_json_dtype(dtype: int) -> bool:
    """Whether JSON can carry this dtype."""
    return dtype == types_pb2.DT_STRING or dtype in _CONTENT_FORMATS


def is_base64_object(value: JsonValue) -> bool:
    """Whether a value is `{"b64": "…"}`: one member, this name, a string."""
    return (
        isinstance(value, dict)
        and len(value) == 1
        and not isinstance(value, RepeatedKeysObject)
        and isinstance(value.get(_BASE64_KEY), str)
    )


def convert_values(values: Sequence[JsonValue], dtype: int) -> list[TensorValue] | None:
    """The values as the dtype holds them; None if any of them needs a closer look (convert_value takes it)."""
    kinds = set(map(type, values))
    if dtype in _FLOATS:
        return list(cast(Sequence[float], values)) if kinds <= {float, int} else None
    if dtype in _INTEGERS:
        if not kinds <= {int}:
            return None
        allowed, numbers = _INTEGERS[dtype], cast(Sequence[int], values)
        return list(numbers) if not numbers or (min(numbers) in allowed and max(numbers) in allowed) else None
    if dtype == types_pb2.DT_BOOL:
        return list(cast(Sequence[bool], values)) if kinds <= {bool} else None
    if dtype == types_pb2.DT_STRING and kinds <= {str}:
        return [_utf8(text) for text in cast(Sequence[str], values)]
    return None if values else []


def convert_value(value: JsonValue, dtype: int) -> TensorValue:
    """One value as the dtype holds it.

    Raises ServingError: INVALID_ARGUMENT if the value does not fit, UNIMPLEMENTED if JSON cannot carry the dtype.
    """
    if dtype in _FLOATS:
        if isinstance(value, float | int) and not isinstance(value, bool):
            return value
    elif dtype in _INTEGERS:
        if isinstance(value, int) and not isinstance(value, bool) and value in _INTEGERS[dtype]:
            return value
    elif dtype == types_pb2.DT_BOOL:
        if isinstance(value, bool):
            return value
    elif dtype == types_pb2.DT_STRING:
        if isinstance(value, str):
            return _utf8(value)
        if isinstance(value, dict):
            return _decode_base64_object(value)
    else:
        text = f"Conversion of JSON Value: {debug_string(value)} to type: {data_type_name(dtype)}"
        raise ServingError(Code.UNIMPLEMENTED, text)
    kind = f"Type: {json_type_name(value)} is not of expected type: {data_type_name(dtype)}"
    raise _invalid(f"JSON Value: {debug_string(value)} {kind}")


def add_values(tensor: tensor_pb2.TensorProto, values: Sequence[TensorValue]) -> None:
    """Appends converted values to the field that the tensor's dtype has. A double beyond float32 becomes infinite."""
    if values:
        getattr(tensor, _value_field(tensor)).extend(values)


def read_values(tensor: tensor_pb2.TensorProto) -> list[TensorValue]:
    """All values of a tensor in row-major order, from its typed field or from tensor_content.

    Fewer values than elements: the last is repeated (zero if there is none); surplus is left out. The dtype must be one
    that JSON can carry. Raises ServingError(INTERNAL) if tensor_content does not have the length the shape asks for.
    """
    num_elements = math.prod(dim.size for dim in tensor.tensor_shape.dim)
    if tensor.tensor_content and num_elements:
        return _content_values(tensor, num_elements)
    values: list[TensorValue] = list(getattr(tensor, _value_field(tensor)))
    if len(values) < num_elements:
        filler = values[-1] if values else b"" if tensor.dtype == types_pb2.DT_STRING else 0
        values += [filler] * (num_elements - len(values))
        if tensor.dtype == types_pb2.DT_BOOL:
            values = [bool(value) for value in values]
    return values[:num_elements]


def _content_values(tensor: tensor_pb2.TensorProto, num_elements: int) -> list[TensorValue]:
    content = tensor.tensor_content
    if tensor.dtype == types_pb2.DT_STRING:
        values = _content_strings(content, num_elements)
    else:
        # TensorFlow writes the bytes of its host, which is little-endian wherever it runs.
        layout = f"<{num_elements}{_CONTENT_FORMATS[tensor.dtype]}"
        values = list(struct.unpack(layout, content)) if struct.calcsize(layout) == len(content) else []
    if len(values) != num_elements:
        text = f"A tensor of {num_elements} {data_type_name(tensor.dtype)} has a tensor_content of {len(content)} bytes"
        raise ServingError(Code.INTERNAL, text)
    return values


def _content_strings(content: bytes, num_elements: int) -> list[TensorValue]:
    """Strings: all their lengths, as varints, and then all their bytes. Too few come out if the bytes run short."""
    lengths: list[int] = []
    at = length = shift = 0
    while len(lengths) < num_elements and at < len(content):
        length |= (content[at] & 0x7F) << shift
        shift += 7
        if content[at] < 0x80:
            lengths.append(length)
            length = shift = 0
        at += 1
    strings: list[TensorValue] = []
    for length in lengths:
        if at + length > len(content):
            break
        strings.append(content[at : at + length])
        at += length
    return strings


def _decode_base64_object(value: dict[str, JsonValue]) -> bytes:
    text = value.get(_BASE64_KEY)
    if not is_base64_object(value) or not isinstance(text, str):
        raise _invalid(f"JSON Value: {debug_string(value)} not formatted correctly for base64 data")
    # White space is tolerated anywhere, a dot pads as "=" does; padding may be missing, but must be right if present.
    found = _BASE64.fullmatch(text.translate(_BASE64_SPACE))
    if found is not None:
        data, padding = found.groups()
        if (len(data) + len(padding)) % 4 == 0 if padding else len(data) % 4 != 1:
            return binascii.a2b_base64(data + "=" * (-len(data) % 4))
    raise _invalid("Unable to base64 decode")


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", errors="surrogateescape")


def _invalid(message: str) -> ServingError:
    return ServingError(Code.INVALID_ARGUMENT, message)


def _value_field(tensor: tensor_pb2.TensorProto) -> str:
    """The field of the tensor that holds the values of its dtype, which is one that JSON can carry."""
    field = DATA_TYPES[tensor.dtype].value_field
    assert field is not None
    return field
