"""Bodies of predicts read without Python objects against the exact way, for right, odd and broken ones."""

import base64
import json
import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tensorgate._native.json_request import read_request
from tensorgate.gateway.core.model_spec import ModelSpec
from tensorgate.gateway.rest.predict_request import RequestForm, build_predict_request, parse_request
from tensorgate.protos.status_codes import ServingError
from tensorgate.protos.tensorflow.core.framework import types_pb2
from tests.fakes.fake_dispatcher import make_signature
from tests.harness.decoded_requests import DecodedTensor, decoded_request

DT = types_pb2
SPEC = ModelSpec("m", 3)
FLOAT = {"x": int(DT.DT_FLOAT)}
INTEGERS = [DT.DT_INT8, DT.DT_UINT8, DT.DT_INT16, DT.DT_INT32, DT.DT_INT64, DT.DT_UINT32, DT.DT_UINT64]
DTYPES = [DT.DT_FLOAT, DT.DT_DOUBLE, DT.DT_BOOL, DT.DT_STRING, DT.DT_HALF, *INTEGERS]


def quickly(body: bytes, inputs: Mapping[str, int]) -> tuple[RequestForm, Any] | None:
    """The form and the decoded request, with a model_spec as the exact way writes it; None where it is left to that."""
    request = read_request(body)
    if request is None:
        return None
    spec = _model_spec(request.signature_name)
    payload = request.serialize(spec, dict(inputs))
    if payload is None:
        return None
    return RequestForm.ROWS if request.is_row_form else RequestForm.COLUMNS, decoded_request(payload)


def _model_spec(signature_name: str) -> bytes:
    body = json.dumps({"signature_name": signature_name, "inputs": 1}).encode()
    payload, _ = build_predict_request(parse_request(body), body, make_signature(FLOAT), SPEC)
    return decoded_request(payload)[0]


def exactly(body: bytes, inputs: Mapping[str, int]) -> tuple[RequestForm, Any] | ServingError:
    try:
        payload, form = build_predict_request(parse_request(body), body, make_signature(inputs), SPEC)
    except ServingError as error:
        return error
    return form, decoded_request(payload)


def tensor_of(body: str, dtype: int) -> DecodedTensor:
    """The one tensor that the quick way makes, which is the exact way's."""
    quick = quickly(body.encode(), {"x": dtype})
    assert quick is not None
    assert quick == exactly(body.encode(), {"x": dtype})
    tensor: DecodedTensor = quick[1][1]["x"]
    return tensor


# ---- generated documents ----

space = st.sampled_from(["", "", "", " ", "\n", "\t \r\n"])
integers = st.one_of(
    st.integers(-3, 300),
    st.integers(-(2**31) - 1, 2**32 + 1),
    st.integers(-(2**63) - 1, 2**64 + 1),
    st.sampled_from([2**31 - 1, 2**31, -(2**31), 2**32 - 1, 2**63 - 1, 2**63, -(2**63)]),
).map(str)
reals = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(lambda value: f"{value:.9g}"),
    st.floats(0, 1).map(lambda value: f"{value:.17f}"),
    st.sampled_from(["-0", "-0.0", "1e5", "1E+5", "2.5e-3", "3.5e38"]),
)
odd_reals = st.sampled_from(["NaN", "Infinity", "-Infinity", "-NaN", "Inf", "1e400", "0.0e400", "01", "1.", ".5", "1e"])
texts = st.one_of(
    st.text(max_size=8).map(json.dumps),
    st.text(max_size=8).map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.binary(max_size=8).map(lambda data: json.dumps({"b64": base64.b64encode(data).decode()})),
    st.sampled_from(['{"b64": "aGk="}', '"\\ud83d\\ude00"']),
)
odd_texts = st.sampled_from(
    ['{"b64": "AA"}', '{"b64": "*"}', '{"b64": "AA==", "b64": ""}', '"\\ud800"', '{"b64": "a\\/b="}', '"\t"']
)
bools = st.sampled_from(["true", "false"])
small_integers = st.integers(0, 300).map(str)


def mostly(usual: st.SearchStrategy[str], unusual: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.integers(0, 40).flatmap(lambda number: unusual if number == 0 else usual)


def scalars_for(dtype: int) -> st.SearchStrategy[str]:
    if dtype in {DT.DT_FLOAT, DT.DT_DOUBLE, DT.DT_HALF}:
        return mostly(reals | small_integers, integers | odd_reals)
    if dtype == DT.DT_STRING:
        return mostly(texts, odd_texts)
    return mostly(bools, integers) if dtype == DT.DT_BOOL else mostly(small_integers, integers)


@st.composite
def values(draw: st.DrawFn, dtype: int, shape: list[int]) -> str:
    """A value of this shape, now and then with a fault in it."""
    fault = draw(st.integers(0, 60))
    if fault == 0:
        return draw(
            st.sampled_from(["null", "[]", "[[1]]", "1", "true", '"x"', "{}", "[1, ]", "nul", "[1", '{"a": 1}'])
        )
    if not shape:
        return draw(scalars_for(dtype))
    size = shape[0] + (fault == 1)
    gap = draw(space)
    return "[" + f",{gap}".join(draw(values(dtype, shape[1:])) for _ in range(size)) + gap + "]"


@st.composite
def objects(draw: st.DrawFn, members: list[tuple[str, str]]) -> str:
    gap = draw(space)
    return (
        "{" + ",".join(f'{gap}"{name}"{gap}:{gap}{value}' for name, value in draw(st.permutations(members))) + gap + "}"
    )


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[str, int]]:
    names = draw(st.lists(st.sampled_from(["x", "y", "b64", "é"]), min_size=1, max_size=3, unique=True))
    inputs = {name: int(draw(st.sampled_from(DTYPES))) for name in names}
    shapes = {name: draw(st.lists(st.integers(0, 3), max_size=3)) for name in names}
    given_names = draw(st.sampled_from([names] * 8 + [names[1:], [*names, "other"], [*names, names[0]]]))

    def members() -> list[tuple[str, str]]:
        return [(name, draw(values(inputs.get(name, DT.DT_FLOAT), shapes.get(name, [])))) for name in given_names]

    is_row_form = draw(st.booleans())
    is_named = draw(st.booleans()) if len(names) == 1 else draw(st.integers(0, 9)) > 0
    if is_row_form:
        num_rows = draw(st.integers(0 if draw(st.integers(0, 20)) == 0 else 1, 3))
        rows = [
            draw(objects(members())) if is_named else draw(values(inputs[names[0]], shapes[names[0]]))
            for _ in range(num_rows)
        ]
        tensors = ("instances", f"[{draw(space)}{', '.join(rows)}]")
    else:
        tensors = ("inputs", draw(objects(members())) if is_named else draw(values(inputs[names[0]], shapes[names[0]])))
    others = [("signature_name", '"s"'), ("signature_name", "5"), ("unknown", "[null]"), tensors, ("inputs", "1")]
    extra = draw(
        st.sampled_from([[], [], [], [], [], [], [], others[:1], others[:1], *([other] for other in others[1:])])
    )
    return draw(space) + draw(objects([tensors, *extra])) + draw(
        st.sampled_from(["", "", "", "", "", "\n", " x", "\0"])
    ), inputs


@settings(max_examples=600, deadline=None)
@given(documents())
def test_what_is_taken_is_what_the_exact_way_makes_of_it(document: tuple[str, dict[str, int]]) -> None:
    body, inputs = document
    quick = quickly(body.encode(), inputs)
    assert quick is None or quick == exactly(body.encode(), inputs)


@settings(max_examples=400, deadline=None)
@given(documents(), st.data())
def test_documents_with_a_byte_broken_are_right_still_or_left_to_the_exact_way(
    document: tuple[str, dict[str, int]], data: st.DataObject
) -> None:
    body, inputs = bytearray(document[0].encode()), document[1]
    at = data.draw(st.integers(0, len(body) - 1))
    kept = data.draw(st.sampled_from([at, at + 1]))
    body[at:kept] = data.draw(
        st.sampled_from([b"", b"[", b"]", b"{", b'"', b",", b"\\", b"-", b".", b"1", b"\0", b"\xff", b"e"])
    )
    quick = quickly(bytes(body), inputs)
    assert quick is None or quick == exactly(bytes(body), inputs)


@settings(deadline=None)
@given(st.binary(max_size=60))
@example(b"")
@example(b"{")
@example(b'{"inputs"')
@example(b'{"inputs": "')
@example(b'{"inputs": "\\')
@example(b'{"inputs": "\\u')
@example(b'{"inputs": tru')
@example(b'{"inputs": -')
@example(b'{"inputs": [1.5e')
@example(b'{"inputs": {"b64": "AAAA"')
def test_any_bytes_are_survived(body: bytes) -> None:
    quick = quickly(body, FLOAT)
    assert quick is None or quick == exactly(body, FLOAT)


# ---- what must not be left to the exact way ----


@pytest.mark.parametrize(
    ("body", "dtype", "shape"),
    [
        ('{"instances": [1, 2.5, -3e2]}', DT.DT_FLOAT, [3]),
        ('{"instances": [[0.1, 0.2], [0.3, 0.4]]}', DT.DT_FLOAT, [2, 2]),
        ('{"instances": [{"x": [1, 2]}, {"x": [3, 4]}]}', DT.DT_DOUBLE, [2, 2]),
        ('{"instances": [{"x": 1}]}', DT.DT_INT64, [1]),
        ('{"inputs": 5}', DT.DT_INT32, []),
        ('{"inputs": [[[1], [2]]]}', DT.DT_UINT8, [1, 2, 1]),
        ('{"inputs": {"x": [[]], "extra": [1]}}', DT.DT_FLOAT, [1, 0]),
        ('{"inputs": []}', DT.DT_STRING, [0]),
        ('{"instances": ["a", "b\\n\\u00e9"]}', DT.DT_STRING, [2]),
        ('{"instances": [{"b64": "aGk="}]}', DT.DT_STRING, [1]),
        ('{"instances": [{"x": {"b64": "aGk="}}]}', DT.DT_STRING, [1]),
        ('{"inputs": {"b64": "aGk="}}', DT.DT_STRING, []),
        ('{"instances": [[true, false]]}', DT.DT_BOOL, [1, 2]),
        ('{"signature_name": "serving_default", "instances": [1]}', DT.DT_FLOAT, [1]),
        ('{"instances": [1], "signature_name": ""}', DT.DT_FLOAT, [1]),
    ],
)
def test_ordinary_bodies_are_taken(body: str, dtype: int, shape: list[int]) -> None:
    assert tensor_of(body, dtype)[:2] == (dtype, shape)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_up_to_the_limits_of_their_check_are_taken(dtype: int) -> None:
    most = {DT.DT_INT64: 2**63 - 1, DT.DT_UINT64: 2**63 - 1, DT.DT_UINT32: 2**32 - 1}.get(dtype, 2**31 - 1)  # type: ignore[call-overload]
    least = 0 if dtype in {DT.DT_UINT32, DT.DT_UINT64} else -(2**63) + 1 if dtype == DT.DT_INT64 else -(2**31)
    tensor_of(f'{{"inputs": [{least}, {most}]}}', dtype)
    assert quickly(f'{{"inputs": [{most + 1}]}}'.encode(), {"x": dtype}) is None
    assert quickly(f'{{"inputs": [{least - 2}]}}'.encode(), {"x": dtype}) is None
    assert quickly(b'{"inputs": [1.0]}', {"x": dtype}) is None


@pytest.mark.parametrize("dtype", [DT.DT_FLOAT, DT.DT_DOUBLE])
def test_numbers_that_are_not_finite_are_taken(dtype: int) -> None:
    tensor_of('{"instances": [[1.5, NaN], [-Infinity, Infinity]]}', dtype)
    assert quickly(b'{"instances": [-NaN]}', {"x": dtype}) is None


def test_a_message_takes_the_values_with_it() -> None:
    for body in (b'{"instances": [1]}', b'{"instances": [{"x": 1}]}'):
        request = read_request(body)
        assert request is not None
        # What does not fit leaves them as they are.
        assert request.serialize(b"", {"x": DT.DT_BOOL}) is None
        assert request.serialize(b"", {"y": DT.DT_FLOAT, "z": DT.DT_FLOAT}) is None
        assert request.serialize(b"", {}) is None
        assert request.serialize(b"", FLOAT) is not None
        assert request.serialize(b"", FLOAT) is None


def test_a_name_with_bytes_that_are_not_utf8_comes_as_the_exact_way_has_it() -> None:
    body = b'{"signature_name": "\xffs", "inputs": 1}'
    request = read_request(body)
    assert request is not None
    assert request.signature_name == parse_request(body).signature_name == "\udcffs"


@pytest.mark.parametrize("num_columns", [1, 5, 1000])
def test_many_inputs_in_any_order(num_columns: int) -> None:
    inputs = {f"input{index}": int(DT.DT_INT32) for index in range(num_columns)}
    rows = [{name: index + row for index, name in enumerate(inputs)} for row in range(2)]
    rows[1] = dict(reversed(rows[1].items()))
    body = json.dumps({"instances": rows}).encode()
    quick = quickly(body, inputs)
    assert quick is not None
    assert quick == exactly(body, inputs)


def test_thousands_of_inputs_and_levels_are_left_to_the_exact_way() -> None:
    body = json.dumps({"inputs": {f"input{index}": 1 for index in range(3000)}}).encode()
    assert read_request(body) is None
    assert read_request(b'{"inputs": ' + b"[" * 500_000 + b"]" * 500_000 + b"}") is None


def test_a_column_grows_with_what_comes() -> None:
    # Few values at first, and many more than they let expect; integers that become doubles late.
    numbers = [str(index) for index in range(70)] + ["7"] * 5000 + ["0.5"] + ["1"] * 5000
    body = '{"instances": [' + ",          ".join(numbers[:70]) + "," + ",".join(numbers[70:]) + "]}"
    assert tensor_of(body, DT.DT_FLOAT)[1] == [len(numbers)]
    assert tensor_of(f'{{"instances": [{",".join(["true"] * 1000)}]}}', DT.DT_BOOL)[1] == [1000]
    strings = ",".join(f'"{index}"' for index in range(1000))
    assert tensor_of(f'{{"instances": [{strings}]}}', DT.DT_STRING)[1] == [1000]


def test_other_threads_run_while_a_large_body_is_read() -> None:
    body = b'{"instances": [[' + b", ".join([b"0.12345678"] * 2_000_000) + b"]]}"
    turns = 0
    done = threading.Event()

    def work() -> None:
        try:
            for _ in range(3):
                assert quickly_serialized(body)
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


def quickly_serialized(body: bytes) -> bytes:
    request = read_request(body)
    assert request is not None
    payload = request.serialize(b"", FLOAT)
    assert payload is not None
    return payload
