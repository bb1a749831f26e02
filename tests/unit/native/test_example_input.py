"""The Input of Classify, Regress and MultiInference: what becomes of its bytes, and which bytes are refused."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from tensorgate._native.example_input import examples_of
from tensorgate.protos.tensorflow.core.example.example_pb2 import Example
from tensorgate.protos.tensorflow.core.example.feature_pb2 import Feature
from tensorgate.protos.tensorflow_serving.apis.input_pb2 import ExampleList, ExampleListWithContext, Input

pytestmark = pytest.mark.usefixtures("libtensorflow")

FLOATS = st.floats(width=32, allow_nan=False)
FEATURES = st.one_of(
    st.just(Feature()),
    st.lists(st.binary(max_size=30), max_size=3).map(lambda values: Feature(bytes_list={"value": values})),
    st.lists(FLOATS, max_size=3).map(lambda values: Feature(float_list={"value": values})),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3).map(lambda values: Feature(int64_list={"value": values})),
)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
EXAMPLES = st.dictionaries(NAMES, FEATURES, max_size=3).map(lambda features: Example(features={"feature": features}))


@st.composite
def inputs(draw: st.DrawFn) -> Input:
    examples = draw(st.lists(EXAMPLES, min_size=1, max_size=3))
    if draw(st.booleans()):
        return Input(example_list=ExampleList(examples=examples))
    return Input(example_list_with_context=ExampleListWithContext(examples=examples, context=draw(EXAMPLES)))


def merged(message: Input) -> list[Example]:
    """What the examples are to a model: each merged into a copy of the context."""
    found = []
    for example in message.example_list.examples or message.example_list_with_context.examples:
        one = Example()
        one.CopyFrom(message.example_list_with_context.context)
        one.MergeFrom(example)
        found.append(one)
    return found


def example(**values: float) -> Example:
    return Example(features={"feature": {name: Feature(float_list={"value": [v]}) for name, v in values.items()}})


@given(inputs())
def test_each_example_comes_out_with_the_context_merged_into_it(message: Input) -> None:
    found = [Example.FromString(each) for each in examples_of(message.SerializeToString())]
    # A feature of the example's replaces the context's of that name, kind and all, as protobuf merges maps.
    assert found == merged(message)


@given(inputs(), inputs())
def test_two_inputs_in_one_merge_as_protobuf_merges_them(first: Input, second: Input) -> None:
    message = first.SerializeToString() + second.SerializeToString()
    assert [Example.FromString(each) for each in examples_of(message)] == merged(Input.FromString(message))


@given(inputs(), st.data())
def test_damaged_bytes_are_refused_exactly_when_protobuf_refuses_them(message: Input, data: st.DataObject) -> None:
    damaged = bytearray(message.SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        parsed = Input.FromString(bytes(damaged))
    except DecodeError:
        with pytest.raises(ValueError, match="malformed"):
            examples_of(damaged)
        return
    try:
        found = examples_of(damaged)
    except ValueError as error:
        assert str(error) == "Input is empty."  # noqa: PT017 - some damage takes the examples away
        assert merged(parsed) == []
    else:
        # By bytes, since a damaged float may be a NaN.
        again = [Example.FromString(each).SerializeToString(deterministic=True) for each in found]
        assert again == [each.SerializeToString(deterministic=True) for each in merged(parsed)]


@given(st.binary(max_size=60))
def test_garbage_never_crashes(garbage: bytes) -> None:
    for message in (garbage, b"\x0a" + bytes([len(garbage)]) + garbage):
        try:
            examples_of(message)
        except ValueError as error:
            assert str(error) in {"malformed", "Input is empty."}  # noqa: PT017 - either will do


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x0a\x00",  # a list without examples
        b"\x12\x00",
        b"\x12\x02\x12\x00",  # a context alone
        b"\x0a\x02\x0a\x00\x12\x00",  # examples, and then the other member of the oneof
        b"\x1a\x02\x0a\x00",  # a field that is unknown
    ],
)
def test_an_input_without_examples_is_empty(message: bytes) -> None:
    with pytest.raises(ValueError, match=r"^Input is empty\.$"):
        examples_of(message)


def test_an_example_keeps_its_own_bytes_unknown_fields_and_all() -> None:
    odd = example(x=1).SerializeToString() + b"\x98\x06\x05"
    assert examples_of(b"\x0a" + bytes([len(odd) + 2]) + b"\x0a" + bytes([len(odd)]) + odd) == [odd]


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xff",  # no Example
        b"\x0a\x02\xff\xff",  # no Features
        b"\x0a\x04\x0a\x02\xff\xff",  # no entry of their map
        b"\x0a\x05\x0a\x03\x0a\x01\xff",  # a name that is not UTF-8
        b"\x0a\x06\x0a\x04\x12\x02\xff\xff",  # no Feature
        b"\x0a\x08\x0a\x06\x12\x04\x0a\x02\xff\xff",  # no BytesList
        b"\x0a\x09\x0a\x07\x12\x05\x12\x03\x0a\x01\x00",  # floats of one byte
        b"\x0a\x09\x0a\x07\x12\x05\x1a\x03\x0a\x01\x80",  # a varint cut short
    ],
)
def test_an_example_that_is_malformed_at_any_depth_is_refused(body: bytes) -> None:
    message = b"\x0a" + bytes([len(body) + 2]) + b"\x0a" + bytes([len(body)]) + body
    with pytest.raises(DecodeError):
        Input.FromString(message)
    with pytest.raises(ValueError, match="malformed"):
        examples_of(message)
    in_context = b"\x12" + bytes([len(body) + 2]) + b"\x12" + bytes([len(body)]) + body
    with pytest.raises(ValueError, match="malformed"):
        examples_of(in_context)


def test_a_context_times_its_examples_is_bounded() -> None:
    """A megabyte of context for each of a hundred thousand examples would be a hundred gigabytes."""
    context = Example(features={"feature": {"x": Feature(bytes_list={"value": [b"c" * 1_000_000]})}})
    small = Input(example_list_with_context=ExampleListWithContext(examples=[Example()] * 3, context=context))
    assert [len(each) for each in examples_of(small.SerializeToString())] == [len(context.SerializeToString())] * 3
    many = Input(example_list_with_context=ExampleListWithContext(examples=[Example()] * 100_000, context=context))
    with pytest.raises(ValueError, match="larger than a tensor may be"):
        examples_of(many.SerializeToString())
