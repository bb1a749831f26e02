"""The model_spec scan against protobuf's own parser."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorgate._native.proto_scan import (
    ScanError,
    may_run_long,
    scan_model_spec,
    scan_task_model_spec,
    signature_def_map,
)
from tensorgate.protos.tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorgate.protos.tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap
from tensorgate.protos.tensorflow_serving.apis.inference_pb2 import InferenceTask, MultiInferenceRequest
from tensorgate.protos.tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictRequest

TEXT = st.text(max_size=20)
MODEL_SPECS = st.one_of(
    st.builds(lambda n, s: ModelSpec(name=n, signature_name=s), TEXT, TEXT),
    st.builds(lambda n, v: ModelSpec(name=n, version={"value": v}), TEXT, st.integers(-(2**63), 2**63 - 1)),
    st.builds(lambda n, label: ModelSpec(name=n, version_label=label), TEXT, TEXT),
)
Scanned = tuple[str | None, int | None, str | None, str]


def as_scanned(request: PredictRequest | InferenceTask) -> Scanned:
    """What protobuf's parser makes of the same bytes."""
    spec = request.model_spec
    choice = spec.WhichOneof("version_choice")
    return (
        spec.name if request.HasField("model_spec") else None,
        spec.version.value if choice == "version" else None,
        spec.version_label if choice == "version_label" else None,
        spec.signature_name,
    )


def as_scanned_task(tasks: Sequence[InferenceTask]) -> Scanned:
    """Where there is no task, or no model_spec in it, there is an empty one."""
    name, version, label, signature = as_scanned(tasks[0] if tasks else InferenceTask())
    return name or "", version, label, signature


@given(st.lists(MODEL_SPECS, max_size=4), st.binary(max_size=40), st.booleans())
def test_repeated_specs_anywhere_in_the_message_merge_as_protobuf_merges_them(
    specs: list[ModelSpec], content: bytes, inputs_first: bool
) -> None:
    inputs = PredictRequest(inputs={"x": {"dtype": "DT_STRING", "tensor_content": content}}).SerializeToString()
    pieces = [PredictRequest(model_spec=spec).SerializeToString() for spec in specs]
    message = b"".join([inputs, *pieces] if inputs_first else [*pieces, inputs])
    assert scan_model_spec(message) == as_scanned(PredictRequest.FromString(message))


def test_a_version_that_is_set_to_zero_is_zero_and_not_absent() -> None:
    request = PredictRequest(model_spec=ModelSpec(name="m", version={"value": 0}))
    assert scan_model_spec(request.SerializeToString()) == ("m", 0, None, "")


def test_no_spec_at_all_is_told_from_an_empty_one() -> None:
    assert scan_model_spec(b"") == (None, None, None, "")
    assert scan_model_spec(PredictRequest(model_spec=ModelSpec()).SerializeToString()) == ("", None, None, "")


def test_another_field_can_be_scanned_for() -> None:
    spec = ModelSpec(name="m").SerializeToString()
    assert scan_model_spec(bytes([3 << 3 | 2, len(spec)]) + spec, 3) == ("m", None, None, "")


@pytest.mark.parametrize(
    "message",
    [
        b"\x0a",  # no length
        b"\x0a\x05abc",  # body cut short
        b"\x0a\xff\xff\xff\xff\x0f",  # a length of 4 GiB
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x00\x00",  # field number 0
        b"\x0c",  # a group's end without its start
        b"\x13\x14" * 2 + b"\x13",  # a group left open
        b"\x0e",  # wire type 6
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # a varint of eleven bytes
        b"\x0a\x03\x0a\x01\xff",  # a name that is not UTF-8
        b"\x0a\x05\x0a\x03\xed\xa0\x80",  # a surrogate
        b"\x0a\x04\x12\x02\x08\x80",  # a version cut short
    ],
)
def test_malformed_bytes_are_refused_by_the_scan_and_by_protobuf_alike(message: bytes) -> None:
    with pytest.raises(ScanError):
        scan_model_spec(message)
    with pytest.raises(Exception):  # noqa: B017, PT011 - DecodeError's home depends on protobuf's implementation
        PredictRequest.FromString(message)


@given(st.binary(max_size=60))
def test_garbage_never_crashes_and_what_protobuf_parses_is_scanned_equal(garbage: bytes) -> None:
    try:
        expected = as_scanned(PredictRequest.FromString(garbage))
    except Exception:  # noqa: BLE001 - any refusal will do; the scan may be more lenient inside other fields
        expected = None
    try:
        scanned = scan_model_spec(garbage)
    except ScanError:
        assert expected is None
    else:
        assert expected is None or scanned == expected


@given(st.lists(st.none() | MODEL_SPECS, max_size=4), st.booleans())
def test_the_model_spec_of_the_first_task_is_found(specs: list[ModelSpec | None], input_first: bool) -> None:
    tasks = [InferenceTask(model_spec=spec, method_name="classify") for spec in specs]
    message = MultiInferenceRequest(tasks=tasks).SerializeToString()
    message = b"\x12\x02\x0a\x00" + message if input_first else message + b"\x12\x02\x0a\x00"
    assert scan_task_model_spec(message) == (as_scanned_task(tasks))


@given(st.binary(max_size=60))
def test_garbage_for_tasks_never_crashes_and_what_protobuf_parses_is_scanned_equal(garbage: bytes) -> None:
    for message in (garbage, b"\x0a" + bytes([len(garbage)]) + garbage):
        try:
            tasks = MultiInferenceRequest.FromString(message).tasks
            expected = as_scanned_task(tasks)
        except Exception:  # noqa: BLE001 - any refusal will do; the scan may be more lenient inside other fields
            expected = None
        try:
            scanned = scan_task_model_spec(message)
        except ScanError:
            assert expected is None
        else:
            assert expected is None or scanned == expected


def test_groups_nested_deeper_than_the_limit_are_refused_without_recursion() -> None:
    with pytest.raises(ScanError):
        scan_model_spec(b"\x13" * 200 + b"\x14" * 200)
    assert scan_model_spec(b"\x13" * 90 + b"\x14" * 90)[0] is None


def test_signatures_are_cut_out_of_a_meta_graph_whole() -> None:
    meta_graph = MetaGraphDef()
    for name in ("serving_default", "other"):
        signature = meta_graph.signature_def[name]
        signature.inputs["x"].name = "x:0"
        signature.method_name = "tensorflow/serving/predict"
    graph_def = b"\x12\x85\x02" + b"\x0a" * 261  # field 2, opaque here
    found = SignatureDefMap.FromString(signature_def_map(graph_def + meta_graph.SerializeToString()))
    assert dict(found.signature_def) == dict(meta_graph.signature_def)


def test_a_broken_meta_graph_is_refused() -> None:
    with pytest.raises(ScanError):
        signature_def_map(b"\x2a\x10abc")


def field(number: int, body: bytes) -> bytes:
    """A length-delimited field of a body shorter than 128 bytes."""
    return bytes([number << 3 | 2, len(body)]) + body


def node(op: bytes) -> bytes:
    """A NodeDef: name and op."""
    return field(1, b"name of the node") + field(2, op)


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        (b"MatMul", False),
        (b"Placeholder", False),
        (b"StatelessWhile", True),
        (b"While", True),
        (b"RefEnter", True),
        (b"EagerPyFunc", True),
        (b"QueueDequeueV2", True),
        (b"", False),
    ],
)
def test_loops_and_waits_are_found_in_the_graph_and_in_its_functions(op: bytes, expected: bool) -> None:
    in_graph = field(2, field(1, node(b"Const")) + field(1, node(op)))
    in_function = field(2, field(1, node(b"Const")) + field(2, field(1, field(3, node(b"Mul")) + field(3, node(op)))))
    assert may_run_long(in_graph) is expected
    assert may_run_long(in_function) is expected


@given(st.binary(max_size=60))
def test_garbage_for_a_meta_graph_never_crashes(garbage: bytes) -> None:
    for message in (garbage, field(2, garbage), field(2, field(2, field(1, field(3, garbage))))):
        try:
            may_run_long(message)
        except ScanError:
            continue
