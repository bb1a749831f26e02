"""TensorProto decoding: every dtype, both forms, upstream's rules for odd lists, and broken bytes."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorgate._native.tensor_decode import decode_tensor_proto
from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorgate.protos.tensorflow.core.framework.tensor_shape_pb2 import TensorShapeProto

pytestmark = pytest.mark.usefixtures("libtensorflow")

# dtype: its value field, three values in it, struct format of one element, the elements as numbers.
NUMBERS = {
    "DT_FLOAT": ("float_val", [1.5, -2.0, 3e38], "f", [1.5, -2.0, 3e38]),
    "DT_DOUBLE": ("double_val", [1.5, -2.0, 1e300], "d", [1.5, -2.0, 1e300]),
    "DT_INT32": ("int_val", [1, -2, 2**31 - 1], "i", [1, -2, 2**31 - 1]),
    "DT_QINT32": ("int_val", [1, -2, 3], "i", [1, -2, 3]),
    "DT_INT16": ("int_val", [1, -2, 32767], "h", [1, -2, 32767]),
    "DT_QINT16": ("int_val", [1, -2, 3], "h", [1, -2, 3]),
    "DT_INT8": ("int_val", [1, -2, 300], "b", [1, -2, 44]),  # 300 wraps
    "DT_QINT8": ("int_val", [1, -2, 3], "b", [1, -2, 3]),
    "DT_UINT8": ("int_val", [1, 255, -1], "B", [1, 255, 255]),  # -1 wraps
    "DT_QUINT8": ("int_val", [1, 2, 3], "B", [1, 2, 3]),
    "DT_UINT16": ("int_val", [1, 2, 65535], "H", [1, 2, 65535]),
    "DT_QUINT16": ("int_val", [1, 2, 3], "H", [1, 2, 3]),
    "DT_INT64": ("int64_val", [1, -2, 2**63 - 1], "q", [1, -2, 2**63 - 1]),
    "DT_UINT32": ("uint32_val", [1, 2, 2**32 - 1], "I", [1, 2, 2**32 - 1]),
    "DT_UINT64": ("uint64_val", [1, 2, 2**64 - 1], "Q", [1, 2, 2**64 - 1]),
    "DT_BOOL": ("bool_val", [True, False, True], "B", [1, 0, 1]),
    "DT_HALF": ("half_val", [0x3C00, 0xC000, 0x13C00], "H", [0x3C00, 0xC000, 0x3C00]),  # the low 16 bits
    "DT_BFLOAT16": ("half_val", [0x3F80, 0xC000, 1], "H", [0x3F80, 0xC000, 1]),
    "DT_INT4": ("int_val", [1, -2, 7], "b", [1, -2, 7]),
    "DT_UINT4": ("int_val", [1, 2, 15], "B", [1, 2, 15]),
}


def tensor(dtype: str, dims: list[int], **fields: object) -> TensorProto:
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in dims])
    return TensorProto(dtype=types_pb2.DataType.Value(dtype), tensor_shape=shape, **fields)  # type: ignore[arg-type]


def decode(message: TensorProto) -> tuple[tuple[int, ...], bytes | list[bytes]]:
    dtype, shape, values = decode_tensor_proto(message.SerializeToString())
    assert dtype == message.dtype
    return shape, values


@pytest.mark.parametrize("dtype", NUMBERS)
def test_values_and_content_decode_to_the_same_elements(dtype: str) -> None:
    field, values, form, elements = NUMBERS[dtype]
    raw = struct.pack(f"<3{form}", *elements)
    assert decode(tensor(dtype, [3], **{field: values})) == ((3,), raw)
    assert decode(tensor(dtype, [3, 1], tensor_content=raw)) == ((3, 1), raw)


@pytest.mark.parametrize("dtype", NUMBERS)
def test_a_short_list_repeats_its_last_value_and_an_empty_one_means_zeros(dtype: str) -> None:
    field, values, form, elements = NUMBERS[dtype]
    splat = struct.pack(f"<8{form}", *elements[:2], *[elements[1]] * 6)
    assert decode(tensor(dtype, [2, 4], **{field: values[:2]})) == ((2, 4), splat)
    assert decode(tensor(dtype, [2])) == ((2,), bytes(2 * struct.calcsize(form)))


@pytest.mark.parametrize("dtype", NUMBERS)
def test_surplus_values_and_values_of_another_dtype_are_ignored(dtype: str) -> None:
    field, values, form, elements = NUMBERS[dtype]
    other = "double_val" if field != "double_val" else "float_val"
    assert decode(tensor(dtype, [1], **{field: values, other: [9.0]})) == ((1,), struct.pack(f"<{form}", elements[0]))
    assert decode(tensor(dtype, [1], **{other: [9.0]})) == ((1,), bytes(struct.calcsize(form)))


def test_complex_values_are_pairs_and_an_incomplete_last_pair_is_dropped() -> None:
    assert decode(tensor("DT_COMPLEX64", [2], scomplex_val=[1, 2, 3])) == ((2,), struct.pack("<4f", 1, 2, 1, 2))
    assert decode(tensor("DT_COMPLEX64", [1], scomplex_val=[7])) == ((1,), bytes(8))
    assert decode(tensor("DT_COMPLEX128", [1], dcomplex_val=[1, 2])) == ((1,), struct.pack("<2d", 1, 2))


def test_float8_values_are_bytes() -> None:
    assert decode(tensor("DT_FLOAT8_E5M2", [4], float8_val=b"\x01\x02")) == ((4,), b"\x01\x02\x02\x02")


def test_strings_decode_short_long_splat_and_from_content() -> None:
    long = b"\0long" * 100
    assert decode(tensor("DT_STRING", [2], string_val=[b"", long])) == ((2,), [b"", long])
    assert decode(tensor("DT_STRING", [3], string_val=[long])) == ((3,), [long] * 3)
    assert decode(tensor("DT_STRING", [2])) == ((2,), [b"", b""])
    assert decode(tensor("DT_STRING", [2], tensor_content=b"\x02\x03abcde")) == ((2,), [b"ab", b"cde"])


def test_no_shape_is_a_scalar_and_unknown_rank_is_ignored() -> None:
    assert decode(TensorProto(dtype=types_pb2.DT_INT32, int_val=[5])) == ((), b"\x05\0\0\0")
    odd = tensor("DT_INT32", [1], int_val=[5])
    odd.tensor_shape.unknown_rank = True
    assert decode(odd) == ((1,), b"\x05\0\0\0")


def test_a_shape_without_elements_takes_any_content() -> None:
    assert decode(tensor("DT_FLOAT", [0, 3], tensor_content=b"xyz")) == ((0, 3), b"")
    assert decode(tensor("DT_STRING", [0], tensor_content=b"xyz")) == ((0,), [])
    assert decode(tensor("DT_FLOAT", [0, 2**62, 2**62], float_val=[1])) == ((0, 2**62, 2**62), b"")
    assert decode(tensor("DT_STRING", [0, 2**62, 2**62], string_val=[b"x"])) == ((0, 2**62, 2**62), [])


def test_unpacked_and_split_lists_are_one_list() -> None:
    packed_then_single = b"\x2a\x04" + struct.pack("<f", 1) + b"\x2d" + struct.pack("<f", 2)
    head = tensor("DT_FLOAT", [2]).SerializeToString()
    assert decode_tensor_proto(head + packed_then_single)[2] == struct.pack("<2f", 1, 2)
    ints = tensor("DT_INT32", [3]).SerializeToString() + b"\x38\x01" + b"\x3a\x02\x02\x03"
    assert decode_tensor_proto(ints)[2] == struct.pack("<3i", 1, 2, 3)


@pytest.mark.parametrize(
    "message",
    [
        TensorProto(),
        TensorProto(dtype=types_pb2.DT_RESOURCE),
        TensorProto(dtype=types_pb2.DT_VARIANT),
        TensorProto(dtype=types_pb2.DT_FLOAT_REF, float_val=[1]),
        tensor("DT_FLOAT", [-1], float_val=[1]),
        tensor("DT_FLOAT", [2**32, 2**32], float_val=[1]),
        tensor("DT_FLOAT", [1] * 255, float_val=[1]),
        tensor("DT_FLOAT", [2], tensor_content=b"1234567"),
        tensor("DT_FLOAT", [2], tensor_content=b"123456789"),
        tensor("DT_BOOL", [2], tensor_content=b"\x01\x02"),
        tensor("DT_STRING", [2], tensor_content=b"\x02\x03abcd"),
        tensor("DT_STRING", [2], tensor_content=b"\x02\x03abcdef"),
        tensor("DT_STRING", [2], tensor_content=b"\x02"),
        tensor("DT_STRING", [1], tensor_content=b"\xff" * 9 + b"\x01ab"),
        # A few bytes must not claim gigabytes.
        tensor("DT_FLOAT", [2**40], float_val=[1]),
        tensor("DT_STRING", [2**40], string_val=[b"x"]),
        tensor("DT_STRING", [2**20], string_val=[b"x" * 4096]),  # 4 GiB of repetitions
        tensor("DT_STRING", [2**26], tensor_content=b"\0" * 100),
        tensor("DT_FLOAT", [2**62, 2**62, 0]),  # TensorFlow would abort over the product
    ],
)
def test_what_tensorflow_refuses_is_invalid(message: TensorProto) -> None:
    with pytest.raises(ValueError, match="invalid"):
        decode_tensor_proto(message.SerializeToString())


def test_254_dimensions_are_accepted() -> None:
    assert decode(tensor("DT_UINT8", [1] * 254, int_val=[7])) == ((1,) * 254, b"\x07")


@pytest.mark.parametrize("dtype", [*NUMBERS, "DT_STRING"])
def test_every_truncation_is_refused_or_decodes_but_never_reads_beyond_the_end(dtype: str) -> None:
    values = {"string_val": [b"abc", b"d" * 40]} if dtype == "DT_STRING" else {NUMBERS[dtype][0]: NUMBERS[dtype][1]}
    message = tensor(dtype, [3], **values).SerializeToString()
    for size in range(len(message)):
        try:
            decode_tensor_proto(message[:size])
        except ValueError:
            continue


@given(st.binary(max_size=100), st.sampled_from([1, 3, 7, 10, 19, 30]), st.lists(st.integers(0, 3), max_size=3))
def test_garbage_behind_a_valid_head_never_crashes(garbage: bytes, dtype: int, dims: list[int]) -> None:
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in dims])
    head = TensorProto(dtype=dtype, tensor_shape=shape).SerializeToString()  # type: ignore[arg-type]
    try:
        decode_tensor_proto(head + garbage)
    except ValueError:
        with pytest.raises(ValueError, match=r"malformed|invalid"):
            decode_tensor_proto(head + garbage)
