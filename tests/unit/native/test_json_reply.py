"""Replies written without Python objects against the exact way: what workers write, and what they never would."""

import json
import struct
import threading
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tensorgate._native.json_reply import write_reply
from tensorgate.gateway.rest.predict_request import RequestForm
from tensorgate.gateway.rest.predict_response import predict_response_json_exactly
from tensorgate.protos.data_types import DATA_TYPES
from tensorgate.protos.status_codes import ServingError
from tensorgate.protos.tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2
from tensorgate.protos.tensorflow_serving.apis import predict_pb2

DT = types_pb2
FORMS = list(RequestForm)

VALUES: dict[int, st.SearchStrategy[object]] = {
    DT.DT_FLOAT: st.floats(width=32),
    DT.DT_DOUBLE: st.floats(),
    DT.DT_BOOL: st.booleans(),
    DT.DT_STRING: st.binary(max_size=12),
    DT.DT_INT8: st.integers(-128, 127),
    DT.DT_UINT8: st.integers(0, 255),
    DT.DT_INT16: st.integers(-(2**15), 2**15 - 1),
    DT.DT_INT32: st.integers(-(2**31), 2**31 - 1),
    DT.DT_INT64: st.integers(-(2**63), 2**63 - 1),
    DT.DT_UINT32: st.integers(0, 2**32 - 1),
    DT.DT_UINT64: st.integers(0, 2**64 - 1),
}
LETTERS = {
    DT.DT_FLOAT: "f",
    DT.DT_DOUBLE: "d",
    DT.DT_BOOL: "?",
    DT.DT_INT8: "b",
    DT.DT_UINT8: "B",
    DT.DT_INT16: "h",
    DT.DT_INT32: "i",
    DT.DT_INT64: "q",
    DT.DT_UINT32: "I",
    DT.DT_UINT64: "Q",
}


def typed_tensor(dtype: int, shape: list[int], values: list[object]) -> tensor_pb2.TensorProto:
    dims = [tensor_shape_pb2.TensorShapeProto.Dim(size=size) for size in shape]
    tensor = tensor_pb2.TensorProto(tensor_shape=tensor_shape_pb2.TensorShapeProto(dim=dims))
    tensor.dtype = dtype  # type: ignore[assignment]
    field = DATA_TYPES[dtype].value_field
    assert field is not None
    getattr(tensor, field).extend(values)
    return tensor


def content_tensor(dtype: int, shape: list[int], values: list[object]) -> tensor_pb2.TensorProto:
    tensor = typed_tensor(dtype, shape, [])
    tensor.tensor_content = struct.pack(f"<{len(values)}{LETTERS[dtype]}", *values)
    return tensor


def response_of(outputs: dict[str, tensor_pb2.TensorProto]) -> bytes:
    response = predict_pb2.PredictResponse()
    for name, tensor in outputs.items():
        response.outputs[name].CopyFrom(tensor)
    response.model_spec.name = "m"
    response.model_spec.version.value = 1
    return response.SerializeToString()


def exactly(response: bytes, form: RequestForm) -> bytes | None:
    """The exact way's text, None for an error."""
    try:
        return predict_response_json_exactly(response, form)
    except ServingError:
        return None


def size_of(shape: list[int]) -> int:
    size = 1
    for dim in shape:
        size *= dim
    return size


@st.composite
def tensors(draw: st.DrawFn, first_dim: int) -> tensor_pb2.TensorProto:
    dtype = draw(st.sampled_from(sorted(VALUES)))
    shape = draw(st.sampled_from([[first_dim]] * 6 + [[], [first_dim + 1]]))
    shape = shape + draw(st.lists(st.integers(0, 3), max_size=3)) if shape else shape
    values = draw(st.lists(VALUES[dtype], min_size=size_of(shape), max_size=size_of(shape)))
    if dtype != DT.DT_STRING and draw(st.booleans()):
        return content_tensor(dtype, shape, values)
    return typed_tensor(dtype, shape, values)


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    first_dim = draw(st.integers(0, 3))
    names = st.sampled_from(["y", "z", "z_bytes", "_bytes", 'é"\n', ""])
    return response_of(draw(st.dictionaries(names, tensors(first_dim), min_size=1, max_size=4)))


@settings(max_examples=400, deadline=None)
@given(responses(), st.sampled_from(FORMS))
def test_what_workers_write_is_taken_and_written_as_the_exact_way_writes_it(response: bytes, form: RequestForm) -> None:
    assert write_reply(response, form is RequestForm.ROWS) == exactly(response, form)


@settings(max_examples=300, deadline=None)
@given(responses(), st.sampled_from(FORMS), st.data())
def test_a_damaged_response_is_survived(response: bytes, form: RequestForm, data: st.DataObject) -> None:
    damaged = bytearray(response)
    at = data.draw(st.integers(0, len(damaged) - 1))
    damaged[at] = data.draw(st.integers(0, 255))
    write_reply(bytes(damaged[: data.draw(st.sampled_from([len(damaged), at]))]), form is RequestForm.ROWS)


@given(st.binary(max_size=60), st.booleans())
@example(b"", True)
@example(b"\x0a", False)
def test_any_bytes_are_survived(response: bytes, is_row_form: bool) -> None:
    written = write_reply(response, is_row_form)
    if written is not None:
        json.loads(written)


def test_what_is_no_ordinary_output_is_left_to_the_exact_way() -> None:
    float32 = DT.DT_FLOAT
    good = typed_tensor(float32, [2], [1.0, 2.0])
    assert write_reply(response_of({"y": good}), True) is not None
    too_few, too_many = typed_tensor(float32, [3], [1.0]), typed_tensor(float32, [1], [1.0, 2.0])
    half = typed_tensor(DT.DT_HALF, [1], [1])
    short_content = content_tensor(float32, [2], [1.0, 2.0])
    short_content.tensor_content = short_content.tensor_content[:-1]
    string_content = typed_tensor(DT.DT_STRING, [1], [])
    string_content.tensor_content = b"\x01a"
    for odd in (too_few, too_many, half, short_content, string_content, typed_tensor(float32, [-1], [])):
        assert write_reply(response_of({"y": odd}), True) is None
        assert write_reply(response_of({"a": good, "y": odd}), False) is None
    # Two pieces of one list, and the same output twice.
    tensor = good.SerializeToString() + typed_tensor(float32, [], [3.0]).SerializeToString()
    entry = b"\x0a\x01y\x12" + bytes([len(tensor)]) + tensor
    assert write_reply(b"\x0a" + bytes([len(entry)]) + entry, True) is None
    assert write_reply(response_of({"y": good}) * 2, True) is None
    # Rows that do not agree, or are none.
    scalar = typed_tensor(float32, [], [1.0])
    for outputs in ({"y": scalar}, {"y": good, "z": typed_tensor(float32, [1], [1.0])}, {}):
        assert write_reply(response_of(outputs), True) is None


def test_a_shape_of_254_dimensions_is_written() -> None:
    response = response_of({"y": typed_tensor(DT.DT_INT32, [1] * 254, [7])})
    for form in FORMS:
        assert write_reply(response, form is RequestForm.ROWS) == exactly(response, form)


def test_other_threads_run_while_a_large_reply_is_written() -> None:
    response = response_of({"y": typed_tensor(DT.DT_FLOAT, [2, 500_000], [0.1234567] * 1_000_000)})
    turns = 0
    done = threading.Event()

    def work() -> None:
        try:
            for _ in range(3):
                assert write_reply(memoryview(response), True)
        finally:
            done.set()

    thread = threading.Thread(target=work)
    thread.start()
    # Each turn needs the GIL: while it is held there are none.
    while not done.is_set():
        turns += 1
        time.sleep(0)
    thread.join()
    assert turns > 100


@pytest.mark.parametrize("not_bytes", ["text", None, 5])
def test_only_buffers_are_taken(not_bytes: object) -> None:
    with pytest.raises(TypeError):
        write_reply(not_bytes, True)  # type: ignore[arg-type]
