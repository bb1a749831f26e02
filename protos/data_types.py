"""The element types of tensors: number, names, size, and the field of a TensorProto that holds the values.

Stands on the request line of both processes, wherever a dtype is named to a client or a tensor is written by Python;
pure, any thread. The native code has its own tables, since it reads them without the GIL.

Source: tensorflow/core/framework/types.proto and tensor.proto; the names are those of DataTypeString in types.cc, which
clients meet in error messages ("not of expected type: int32").
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

# A type's number plus this is the number of its reference type, which occurs inside graphs only.
REFERENCE_OFFSET = 100


@dataclass(frozen=True, slots=True)
class DataType:
    """One element type.

    ``size_bytes`` is the size of an element in memory and in tensor_content; 0 where elements have no fixed size.
    ``value_field`` is None where a TensorProto can carry the type in tensor_content at most. In float8_val, which is
    one bytes value, an element is a byte; in the other fields it is ``values_per_element`` values: 2, the real and the
    imaginary part, for complex numbers.
    """

    number: int
    name: str
    size_bytes: int
    value_field: str | None
    values_per_element: int = 1

    @property
    def enum_name(self) -> str:
        """The name in the DataType enum: ``DT_INT32`` for ``int32``."""
        return f"DT_{self.name.upper()}"


# DT_INVALID (0) is no type. Values below a byte still take one each.
_TYPES = (
    DataType(1, "float", 4, "float_val"),
    DataType(2, "double", 8, "double_val"),
    DataType(3, "int32", 4, "int_val"),
    DataType(4, "uint8", 1, "int_val"),
    DataType(5, "int16", 2, "int_val"),
    DataType(6, "int8", 1, "int_val"),
    DataType(7, "string", 0, "string_val"),
    DataType(8, "complex64", 8, "scomplex_val", 2),
    DataType(9, "int64", 8, "int64_val"),
    DataType(10, "bool", 1, "bool_val"),
    DataType(11, "qint8", 1, "int_val"),
    DataType(12, "quint8", 1, "int_val"),
    DataType(13, "qint32", 4, "int_val"),
    DataType(14, "bfloat16", 2, "half_val"),
    DataType(15, "qint16", 2, "int_val"),
    DataType(16, "quint16", 2, "int_val"),
    DataType(17, "uint16", 2, "int_val"),
    DataType(18, "complex128", 16, "dcomplex_val", 2),
    DataType(19, "half", 2, "half_val"),
    DataType(20, "resource", 0, "resource_handle_val"),
    DataType(21, "variant", 0, "variant_val"),
    DataType(22, "uint32", 4, "uint32_val"),
    DataType(23, "uint64", 8, "uint64_val"),
    DataType(24, "float8_e5m2", 1, "float8_val"),
    DataType(25, "float8_e4m3fn", 1, "float8_val"),
    DataType(26, "float8_e4m3fnuz", 1, "float8_val"),
    DataType(27, "float8_e4m3b11fnuz", 1, "float8_val"),
    DataType(28, "float8_e5m2fnuz", 1, "float8_val"),
    DataType(29, "int4", 1, "int_val"),
    DataType(30, "uint4", 1, "int_val"),
    DataType(31, "int2", 1, "int_val"),
    DataType(32, "uint2", 1, "int_val"),
    DataType(33, "float4_e2m1fn", 1, None),
)

DATA_TYPES: Mapping[int, DataType] = MappingProxyType({each.number: each for each in _TYPES})
"""By number. Neither DT_INVALID nor reference types are in it, as no tensor of a request may have them."""


def data_type_name(number: int) -> str:
    """The name of any dtype number as TensorFlow's messages have it: ``int32``, ``int32_ref``, ``INVALID``, …

    Never raises: for a number that is no dtype it is ``unknown dtype enum (<number>)``, since clients can send any. As
    in TensorFlow, whatever is above 100 counts as a reference, unknown ones included.
    """
    if number > REFERENCE_OFFSET:
        return f"{_value_type_name(number - REFERENCE_OFFSET)}_ref"
    return _value_type_name(number)


def _value_type_name(number: int) -> str:
    if number in DATA_TYPES:
        return DATA_TYPES[number].name
    return "INVALID" if number == 0 else f"unknown dtype enum ({number})"
