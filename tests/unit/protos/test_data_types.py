"""The table of element types agrees with the DataType enum and the fields of TensorProto."""

import pytest
from google.protobuf.descriptor import FieldDescriptor

from tensorgate.protos.data_types import DATA_TYPES, REFERENCE_OFFSET, data_type_name
from tensorgate.protos.tensorflow.core.framework import tensor_pb2, types_pb2

# Bytes of one value in the fields that hold elements as they are in memory.
FIXED_WIDTHS = {"float_val": 4, "double_val": 8, "scomplex_val": 4, "dcomplex_val": 8, "float8_val": 1}


def test_every_type_of_the_enum_is_in_the_table_under_its_name() -> None:
    in_enum = {
        value.number: value.name
        for value in types_pb2.DataType.DESCRIPTOR.values
        if 0 < value.number < REFERENCE_OFFSET
    }
    assert {number: data_type.enum_name for number, data_type in DATA_TYPES.items()} == in_enum


def test_every_value_field_is_a_field_of_tensor_proto_and_every_such_field_belongs_to_a_type() -> None:
    in_message = {field.name for field in tensor_pb2.TensorProto.DESCRIPTOR.fields if field.name.endswith("_val")}
    assert {each.value_field for each in DATA_TYPES.values()} - {None} == in_message


def test_sizes_agree_with_fields_whose_values_are_elements_as_they_are_in_memory() -> None:
    for each in DATA_TYPES.values():
        if each.value_field in FIXED_WIDTHS:
            assert each.size_bytes == each.values_per_element * FIXED_WIDTHS[each.value_field], each


def test_only_types_without_a_fixed_size_have_size_0() -> None:
    assert {each.name for each in DATA_TYPES.values() if each.size_bytes == 0} == {"string", "resource", "variant"}


def test_types_without_a_fixed_size_are_lists_of_bytes_or_messages() -> None:
    fields = tensor_pb2.TensorProto.DESCRIPTOR.fields_by_name
    for each in DATA_TYPES.values():
        if each.value_field and each.value_field != "float8_val":
            is_variable = fields[each.value_field].type in (FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_MESSAGE)
            assert is_variable == (each.size_bytes == 0), each


def test_every_reference_type_of_the_enum_is_named_after_its_type() -> None:
    for value in types_pb2.DataType.DESCRIPTOR.values:
        if value.number > REFERENCE_OFFSET:
            assert f"DT_{data_type_name(value.number)}".upper() == value.name


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (1, "float"),
        (3, "int32"),
        (18, "complex128"),
        (103, "int32_ref"),
        (0, "INVALID"),
        (-1, "unknown dtype enum (-1)"),
        (34, "unknown dtype enum (34)"),
        (100, "unknown dtype enum (100)"),
        (201, "unknown dtype enum (101)_ref"),
        (2**31 - 1, "unknown dtype enum (2147483547)_ref"),
    ],
)
def test_a_dtype_is_named_as_tensorflow_names_it_whatever_its_number(number: int, name: str) -> None:
    assert data_type_name(number) == name
