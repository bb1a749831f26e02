"""Predict in the worker on real models: values, checks in upstream's order and with its texts, memory kept apart."""

import os
import pathlib
from collections.abc import Iterator

import pytest

from tensorgate._native.execution_pool import PREDICT, run_once
from tensorgate._native.session import Session
from tensorgate._native.tensor_decode import decode_tensor_proto
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorgate.protos.tensorflow.core.framework.tensor_shape_pb2 import TensorShapeProto
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorgate.workers.saved_model import open_saved_model

pytestmark = pytest.mark.usefixtures("libtensorflow")


class Models:
    """Sessions by model name, opened when first asked for."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._sessions: dict[str, Session] = {}

    def __getitem__(self, name: str) -> Session:
        if name not in self._sessions:
            self._sessions[name] = open_saved_model(str(self._folder / name / "1"), 1, ["serve"], b"")
        return self._sessions[name]

    def close(self) -> None:
        for session in self._sessions.values():
            session.close()


@pytest.fixture(scope="module")
def models(saved_models: pathlib.Path, libtensorflow: str) -> Iterator[Models]:
    opened = Models(saved_models)
    yield opened
    opened.close()


def floats(*values: float) -> TensorProto:
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=len(values))])
    return TensorProto(dtype=types_pb2.DT_FLOAT, tensor_shape=shape, float_val=values)


def request(name: str, signature: str = "", output_filter: tuple[str, ...] = (), **inputs: TensorProto) -> bytes:
    message = PredictRequest(inputs=inputs, output_filter=output_filter)
    message.model_spec.name = name
    message.model_spec.signature_name = signature
    return message.SerializeToString()


def predict(session: Session, payload: bytes, remaining_us: int = -1) -> PredictResponse:
    code, message, response, _ = run_once(session, PREDICT, payload, remaining_us)
    if code:
        raise ServingError(Code.of(code), message.decode())
    return PredictResponse.FromString(bytes(response))


def refusal(session: Session, payload: bytes) -> ServingError:
    with pytest.raises(ServingError) as refused:
        predict(session, payload)
    return refused.value


def test_a_prediction_is_right_and_echoes_what_was_used(models: Models) -> None:
    response = predict(models["half_plus_two"], request("as the client calls it", x=floats(1, 2, 5)))
    assert list(response.outputs["y"].float_val) == [1.5, 2.0, 3.5]
    assert response.outputs["y"].tensor_content == b""
    assert [dim.size for dim in response.outputs["y"].tensor_shape.dim] == [3]
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("as the client calls it", 1, "serving_default")
    assert spec.WhichOneof("version_choice") == "version"


ECHOED = {
    "float32": {"float_val": [1.5, float("inf")]},
    "float64": {"double_val": [1.5, -0.0]},
    "half": {"half_val": [0x3C00, 0x7C00]},
    "bfloat16": {"half_val": [0x3F80, 0xFF80]},
    "int8": {"int_val": [-128, 127]},
    "int16": {"int_val": [-32768, 5]},
    "int32": {"int_val": [-(2**31), 2**31 - 1]},
    "int64": {"int64_val": [-(2**63), 2**63 - 1]},
    "uint8": {"int_val": [0, 255]},
    "uint16": {"int_val": [0, 65535]},
    "uint32": {"uint32_val": [0, 2**32 - 1]},
    "uint64": {"uint64_val": [0, 2**64 - 1]},
    "bool": {"bool_val": [True, False]},
    "string": {"string_val": [b"", b"\xff\0long enough for the heap, surely"]},
    "complex64": {"scomplex_val": [1, 2, 3, 4]},
    "complex128": {"dcomplex_val": [1, 2, 3, 4]},
    "qint8": {"int_val": [-1, 1]},
    "quint8": {"int_val": [1, 255]},
    "qint32": {"int_val": [-5, 5]},
    "float8_e5m2": {"float8_val": b"\x01\x7f"},
    "float8_e4m3fn": {"float8_val": b"\x01\x7e"},
}


@pytest.mark.parametrize("dtype", ECHOED)
def test_every_dtype_goes_through_tensorflow_unchanged(models: Models, dtype: str) -> None:
    name = f"DT_{'FLOAT' if dtype == 'float32' else 'DOUBLE' if dtype == 'float64' else dtype.upper()}"
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=2), TensorShapeProto.Dim(size=1)])
    sent = TensorProto(dtype=types_pb2.DataType.Value(name), tensor_shape=shape, **ECHOED[dtype])  # type: ignore[arg-type]
    assert predict(models["echo"], request("echo", dtype, x=sent)).outputs["y"] == sent


def test_outputs_as_content_say_the_same_as_typed_values(models: Models, saved_models: pathlib.Path) -> None:
    session = open_saved_model(str(saved_models / "echo" / "1"), 1, ["serve"], b"", outputs_as_content=True)
    for dtype, values in ECHOED.items():
        name = f"DT_{'FLOAT' if dtype == 'float32' else 'DOUBLE' if dtype == 'float64' else dtype.upper()}"
        shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=2), TensorShapeProto.Dim(size=1)])
        sent = TensorProto(dtype=types_pb2.DataType.Value(name), tensor_shape=shape, **values)  # type: ignore[arg-type]
        (content,) = predict(session, request("echo", dtype, x=sent)).outputs.values()
        assert {field.name for field, _ in content.ListFields()} == {"dtype", "tensor_shape", "tensor_content"}
        assert decode_tensor_proto(content.SerializeToString()) == decode_tensor_proto(sent.SerializeToString())
    empty = TensorProto(dtype=types_pb2.DT_STRING, tensor_shape={"dim": [{"size": 0}]})
    assert predict(session, request("echo", "string", x=empty)).outputs["y"] == empty
    session.close()


def test_method_names_count_where_they_are_minded(saved_models: pathlib.Path) -> None:
    strict = Session(str(saved_models / "half_plus_two" / "1"), 1, ["serve"])
    method_names = [
        "tensorflow/serving/predict",
        "tensorflow/serving/classify",
        "tensorflow/serving/regress",
        "own",
        "",
    ]
    strict.bind_signatures(
        [(name or "none", name, "", [("x", "x:0", None)], [("y", "y:0")]) for name in method_names],
        checks_method_names=True,
    )
    for name in method_names[:3]:
        assert list(predict(strict, request("h", name, x=floats(4))).outputs["y"].float_val) == [3]
    for name in ("own", ""):
        assert refusal(strict, request("h", name or "none", x=floats(4))) == ServingError(
            Code.INTERNAL,
            "Expected prediction signature method_name to be one of {tensorflow/serving/predict,"
            f" tensorflow/serving/classify, tensorflow/serving/regress}}. Was: {name}",
        )
    strict.close()


def test_a_resource_cannot_be_fed(models: Models) -> None:
    handle = TensorProto(dtype=types_pb2.DT_RESOURCE)
    refused = refusal(models["half_plus_two"], request("h", x=handle))
    assert refused.code is Code.INVALID_ARGUMENT
    assert refused.message.startswith("Invalid resource type hash code: 0(name:  type: ). Perhaps a resource tensor")


def test_empty_and_scalar_tensors_go_through(models: Models) -> None:
    empty = TensorProto(dtype=types_pb2.DT_FLOAT)
    empty.tensor_shape.dim.add(size=0)
    empty.tensor_shape.dim.add(size=3)
    assert predict(models["echo"], request("echo", "float32", x=empty)).outputs["y"] == empty
    scalar = TensorProto(dtype=types_pb2.DT_STRING, string_val=[b"s"])
    scalar.tensor_shape.SetInParent()
    assert predict(models["echo"], request("echo", "string", x=scalar)).outputs["y"] == scalar


def test_the_output_filter_chooses_outputs(models: Models) -> None:
    response = predict(models["pair"], request("pair", "", ("product",), a=floats(2), b=floats(3)))
    assert {alias: list(value.float_val) for alias, value in response.outputs.items()} == {"product": [6.0]}


def test_a_default_of_the_signature_stands_in_for_a_missing_input(models: Models) -> None:
    assert list(predict(models["pair"], request("pair", "with_default", a=floats(1))).outputs["sum"].float_val) == [11]


@pytest.mark.parametrize(
    ("signature", "output_filter", "inputs", "code", "message"),
    [
        ("nope", (), {}, Code.FAILED_PRECONDITION, 'Serving signature key "nope" not found.'),
        (
            "",
            (),
            {"c": 1, "a": 1, "b": 1},
            Code.INVALID_ARGUMENT,
            "input size does not match signature: 3!=2 len({a,b,c}) != len({a,b})."
            " Sent extra: {c}. Missing but required: {}.",
        ),
        (
            "",
            ("no such output",),
            {"a": 1},
            Code.INVALID_ARGUMENT,
            "input size does not match signature: 1!=2 len({a}) != len({a,b})."
            " Sent extra: {}. Missing but required: {b}.",
        ),
        (
            "",
            (),
            {"z": 1, "a": 1},
            Code.INVALID_ARGUMENT,
            "Signature input alias: b(feed name: b:0) not found in request and no default value provided."
            " Inputs expected to be in the request {a,z}, or default input alias set: ",
        ),
        (
            "with_default",
            (),
            {"z": 1, "a": 1},
            Code.INVALID_ARGUMENT,
            "Inputs contains invalid name. Used request inputs: a, request input: a,z",
        ),
        (
            "with_default",
            (),
            {},
            Code.INVALID_ARGUMENT,
            "Signature input alias: a(feed name: a:0) not found in request and no default value provided."
            " Inputs expected to be in the request {}, or default input alias set: b",
        ),
        (
            "",
            ("sum", "no"),
            {"a": 1, "b": 1},
            Code.INVALID_ARGUMENT,
            "output tensor alias not found in signature: no Outputs expected to be in the set {product,sum}.",
        ),
        ("", ("sum", "sum"), {"a": 1, "b": 1}, Code.INVALID_ARGUMENT, "duplicate output tensor alias: sum"),
        (
            "odd",
            (),
            {"a": 1, "b": 1},
            Code.INVALID_ARGUMENT,
            "Tensor no_such_tensor:0, specified in either feed_devices or fetch_devices was not found in the Graph",
        ),
    ],
)
def test_refusals_carry_upstreams_codes_and_texts(
    models: Models, signature: str, output_filter: tuple[str, ...], inputs: dict[str, float], code: Code, message: str
) -> None:
    payload = request("pair", signature, output_filter, **{alias: floats(v) for alias, v in inputs.items()})
    assert refusal(models["pair"], payload) == ServingError(code, message)


def test_input_errors_are_reported_before_filter_errors(models: Models) -> None:
    broken = floats(1)
    broken.tensor_content = b"123"
    payload = request("pair", "", ("nope",), a=floats(1), b=broken)
    assert refusal(models["pair"], payload) == ServingError(Code.INVALID_ARGUMENT, "tensor parsing error: b")


def test_a_wrong_dtype_and_a_wrong_shape_are_the_sessions_own_errors(models: Models) -> None:
    doubles = TensorProto(dtype=types_pb2.DT_DOUBLE, double_val=[1])
    wrong = refusal(models["half_plus_two"], request("h", x=doubles))
    assert wrong == ServingError(Code.INVALID_ARGUMENT, "Expects arg[0] to be float but double is provided")
    shapes = refusal(models["pair"], request("pair", a=floats(1, 2), b=floats(1, 2, 3)))
    assert shapes.code is Code.INVALID_ARGUMENT
    assert "Incompatible shapes" in shapes.message


def test_every_truncation_of_a_request_is_refused_and_garbage_is_internal_with_an_empty_message(models: Models) -> None:
    payload = request("pair", a=floats(1), b=floats(2))
    for size in range(len(payload)):
        refusal(models["pair"], payload[:size])
    assert refusal(models["pair"], payload[:-1]) == ServingError(Code.INTERNAL, "")
    assert refusal(models["pair"], b"\x12\x04\x0a\x02\xff\xff") == ServingError(Code.INTERNAL, "")


def test_a_repeated_map_key_counts_once_with_its_last_value(models: Models) -> None:
    payload = request("h", x=floats(1)) + PredictRequest(inputs={"x": floats(4)}).SerializeToString()
    assert list(predict(models["half_plus_two"], payload).outputs["y"].float_val) == [3.0]


def test_a_flood_of_inputs_is_refused_and_bounded(models: Models) -> None:
    many = b"".join(PredictRequest(inputs={str(i): TensorProto()}).SerializeToString() for i in range(5000))
    assert refusal(models["pair"], many).code is Code.INVALID_ARGUMENT


def test_repeats_of_one_input_count_too_since_each_is_looked_up(models: Models) -> None:
    one = PredictRequest(inputs={"x": floats(4)}).SerializeToString()
    assert list(predict(models["half_plus_two"], one * 4096).outputs["y"].float_val) == [3.0]
    assert "more inputs" in refusal(models["half_plus_two"], one * 4097).message
    assert (
        "more inputs"
        in refusal(
            models["half_plus_two"], one + PredictRequest(output_filter=["y"] * 4097).SerializeToString()
        ).message
    )


def test_an_error_text_has_an_end_however_long_the_names_in_it(models: Models) -> None:
    name = "é" * 1_500_000
    message = refusal(models["pair"], request("pair", **{name: floats(1)})).message
    assert len(message.encode()) <= 1 << 20
    assert message.startswith("input size does not match signature: 1!=2 len({éé")
    assert refusal(models["pair"], request("pair", name)).code is Code.FAILED_PRECONDITION


def resident_bytes() -> int:
    pages = pathlib.Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def test_a_request_that_fails_on_any_step_keeps_no_memory(models: Models) -> None:
    large, broken = floats(1), floats(1)
    large.tensor_shape.dim[0].size = 1 << 20  # 4 MiB each
    broken.tensor_content = b"123"
    wrong = TensorProto(dtype=types_pb2.DT_STRING, string_val=[b"x" * 64])
    wrong.tensor_shape.dim.add(size=1 << 15)
    failing = [
        request("pair", a=large, b=broken),  # decoding
        request("pair", "", ("nope",), a=large, b=large),  # the filter
        request("pair", "odd", a=large, b=large),  # the graph
        request("pair", a=large, b=wrong),  # the run
        request("pair", a=large, z=large),  # names
    ]
    for payload in failing:
        for _ in range(3):
            refusal(models["pair"], payload)
    before = resident_bytes()
    for _ in range(60):
        for payload in failing:
            refusal(models["pair"], payload)
    assert resident_bytes() - before < 100 << 20  # a leak would be 240 MiB or more


def test_a_deadline_ends_a_slow_run(models: Models) -> None:
    rounds = TensorProto(dtype=types_pb2.DT_INT32, int_val=[10**7])
    with pytest.raises(ServingError) as expired:
        predict(models["slow"], request("slow", rounds=rounds), remaining_us=200_000)
    assert expired.value == ServingError(Code.DEADLINE_EXCEEDED, "Timed out waiting for notification")


def test_a_deadline_ends_a_slow_run_of_a_model_that_was_fast_so_far(models: Models) -> None:
    """A loop's time hangs on its input: having been fast must not take it where a deadline does not hold."""
    none = TensorProto(dtype=types_pb2.DT_INT32)
    for _ in range(50):
        predict(models["slow"], request("slow", rounds=none))
    rounds = TensorProto(dtype=types_pb2.DT_INT32, int_val=[10**7])
    with pytest.raises(ServingError) as expired:
        predict(models["slow"], request("slow", rounds=rounds), remaining_us=200_000)
    assert expired.value.code is Code.DEADLINE_EXCEEDED


def test_state_outlives_the_request_that_brought_it(models: Models) -> None:
    """A variable keeps what it was fed: its strings must not point into request bytes that are gone."""
    text = b"kept well beyond the life of the request " * 50
    fed = TensorProto(dtype=types_pb2.DT_STRING, string_val=[text])
    for _ in range(20):
        predict(models["counter"], request("counter", "keep", text=fed))
    noise = TensorProto(dtype=types_pb2.DT_STRING, string_val=[b"#" * len(text)])
    for _ in range(20):
        predict(models["echo"], request("echo", "string", x=noise))
    assert predict(models["counter"], request("counter")).outputs["kept"].string_val == [text]


def test_a_folder_without_a_model_fails_its_load_with_upstreams_text(saved_models: pathlib.Path) -> None:
    with pytest.raises(ServingError) as refused:
        open_saved_model(str(saved_models / "empty" / "1"), 1, ["serve"], b"")
    assert refused.value.code is Code.NOT_FOUND
    assert "does not appear to contain a SavedModel bundle" in refused.value.message


def test_a_graph_cut_short_fails_its_load_with_tensorflows_own_error(saved_models: pathlib.Path) -> None:
    with pytest.raises(ServingError) as refused:
        open_saved_model(str(saved_models / "corrupt" / "1"), 1, ["serve"], b"")
    assert refused.value.code is not Code.OK
    assert refused.value.message


def test_wrong_tags_are_named(saved_models: pathlib.Path) -> None:
    with pytest.raises(ServingError) as refused:
        open_saved_model(str(saved_models / "echo" / "1"), 1, ["gpu", "serve"], b"")
    assert refused.value.code is Code.NOT_FOUND
    assert "Could not find meta graph def matching supplied tags" in refused.value.message
