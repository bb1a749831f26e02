"""Generated requests, valid and broken, as JSON and as protobuf: the same numbers to the last bit, and the same codes.

TENSORGATE_GENERATED_REQUESTS says how many (2,000); TENSORGATE_GENERATED_SEED which ones (0).
"""

import base64
import collections
import contextlib
import dataclasses
import http.client
import json
import math
import os
import pathlib
import random
import struct
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from tensorgate.gateway.rest.status_codes import http_status
from tensorgate.protos.data_types import DATA_TYPES
from tensorgate.protos.status_codes import Code
from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictRequest
from tests.harness.model_server import ModelServer, StartServer

NUM_REQUESTS = int(os.environ.get("TENSORGATE_GENERATED_REQUESTS", "2000"))
SEED = int(os.environ.get("TENSORGATE_GENERATED_SEED", "0"))

# The dtypes that JSON can carry, by the echo model's signatures, with the dtype of a TensorProto and the range.
INTEGERS = {
    "int8": (types_pb2.DT_INT8, -(2**7), 2**7),
    "int16": (types_pb2.DT_INT16, -(2**15), 2**15),
    "int32": (types_pb2.DT_INT32, -(2**31), 2**31),
    "int64": (types_pb2.DT_INT64, -(2**63), 2**63),
    "uint8": (types_pb2.DT_UINT8, 0, 2**8),
    "uint32": (types_pb2.DT_UINT32, 0, 2**32),
    "uint64": (types_pb2.DT_UINT64, 0, 2**64),
}
FLOATS = {"float32": (types_pb2.DT_FLOAT, "f"), "float64": (types_pb2.DT_DOUBLE, "d")}
OTHERS = {"bool": types_pb2.DT_BOOL, "string": types_pb2.DT_STRING}
SIGNATURES = [*INTEGERS, *FLOATS, *OTHERS]


@dataclasses.dataclass
class Pair:
    """One request in both forms."""

    kind: str
    path: str
    body: bytes
    message: PredictRequest


@dataclasses.dataclass
class Outcome:
    """An HTTP status, and the shape and values of the output where it is 200."""

    status: int
    shape: list[int] | None = None
    values: list[Any] | None = None


class Generator:
    """Makes pairs; the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def pair(self) -> Pair:
        pick = self._random
        signature = pick.choice(SIGNATURES)
        shape = [pick.randint(1, 4) for _ in range(pick.randint(0, 3))]
        values = [self._value(signature) for _ in range(math.prod(shape))]
        message = PredictRequest()
        message.model_spec.name = "echo"
        message.model_spec.signature_name = signature
        self._fill(message.inputs["x"], signature, shape, values)
        leaves = [self._leaf(signature, value) for value in values]
        nested = nest(leaves, shape)
        # Rows need a first dimension to be cut along.
        as_rows = bool(shape) and pick.random() < 0.5
        document: dict[str, Any] = {"signature_name": signature}
        if as_rows:
            document["instances"] = [{"x": row} for row in nested] if pick.random() < 0.3 else nested
        else:
            document["inputs"] = {"x": nested} if pick.random() < 0.5 else nested
        pair = Pair("valid", "/v1/models/echo:predict", b"", message)
        if pick.random() < 0.25:
            self._break(pair, document, shape, signature)
        pair.body = json.dumps(document, ensure_ascii=pick.random() < 0.5).encode()
        return pair

    def _value(self, signature: str) -> Any:
        pick = self._random
        if signature in INTEGERS:
            _, low, high = INTEGERS[signature]
            return pick.choice([low, high - 1, 0, 1, pick.randrange(low, high)])
        if signature == "float32":
            (value,) = struct.unpack("f", pick.getrandbits(32).to_bytes(4, "little"))
            return pick.choice([value, value, pick.uniform(-10, 10), 0.1, -0.0, math.inf, 1e-45])
        if signature == "float64":
            (value,) = struct.unpack("d", pick.getrandbits(64).to_bytes(8, "little"))
            return pick.choice([value, value, pick.uniform(-10, 10), 0.1, -0.0, -math.inf, 5e-324])
        if signature == "bool":
            return pick.random() < 0.5
        return "".join(
            chr(pick.choice([pick.randint(32, 126), pick.randint(0, 0xD7FF)])) for _ in range(pick.randint(0, 9))
        )

    def _leaf(self, signature: str, value: Any) -> Any:
        if signature == "string" and self._random.random() < 0.3:
            return {"b64": base64.b64encode(value.encode()).decode()}
        return value

    def _fill(self, tensor: Any, signature: str, shape: list[int], values: list[Any]) -> None:
        tensor.dtype = {**{name: each[0] for name, each in INTEGERS.items()}, "float32": types_pb2.DT_FLOAT,
                        "float64": types_pb2.DT_DOUBLE, **OTHERS}[signature]  # fmt: skip
        for size in shape:
            tensor.tensor_shape.dim.add(size=size)
        if signature in FLOATS and self._random.random() < 0.5:
            tensor.tensor_content = b"".join(struct.pack(FLOATS[signature][1], value) for value in values)
            return
        field = DATA_TYPES[tensor.dtype].value_field
        assert field is not None
        getattr(tensor, field).extend(value.encode() if signature == "string" else value for value in values)

    def _break(self, pair: Pair, document: dict[str, Any], shape: list[int], signature: str) -> None:
        message = pair.message
        tensor = message.inputs["x"]
        ways: dict[str, Callable[[], None]] = {}

        def unknown_signature() -> None:
            document["signature_name"] = message.model_spec.signature_name = "nobody"

        def unknown_model() -> None:
            message.model_spec.name = "nobody"
            pair.path = "/v1/models/nobody:predict"

        def unknown_version() -> None:
            message.model_spec.version.value = 77
            pair.path = "/v1/models/echo/versions/77:predict"

        def unknown_input() -> None:
            document.pop("instances", None)
            document["inputs"] = {"z": 1}
            message.inputs["z"].CopyFrom(tensor)
            del message.inputs["x"]

        def one_input_more() -> None:
            # In columns what the signature does not know is passed over, as it is upstream.
            document.pop("inputs", None)
            document["instances"] = [{"x": 1, "z": 1}]
            message.inputs["z"].CopyFrom(tensor)

        def no_input() -> None:
            document.pop("instances", None)
            document["inputs"] = {}
            del message.inputs["x"]

        def another_type() -> None:
            document.pop("instances", None)
            document["inputs"] = [1.5] if signature in {"string", "bool"} else ["text"]
            tensor.Clear()
            tensor.dtype = types_pb2.DT_DOUBLE if signature == "string" else types_pb2.DT_STRING
            tensor.tensor_shape.dim.add(size=1)
            if signature == "string":
                tensor.double_val.append(1.5)
            else:
                tensor.string_val.append(b"text")

        def not_enough_values() -> None:
            """Ragged on one side, content that is too short on the other."""
            document.pop("instances", None)
            document["inputs"] = [[1, 2], [3]]
            tensor.Clear()
            tensor.dtype = types_pb2.DT_FLOAT
            tensor.tensor_shape.dim.add(size=4)
            tensor.tensor_content = b"12345678"

        for way in (
            unknown_signature, unknown_model, unknown_version, unknown_input, one_input_more, no_input, another_type,
            not_enough_values,
        ):  # fmt: skip
            ways[way.__name__] = way
        pair.kind = self._random.choice(list(ways))
        ways[pair.kind]()


def nest(values: list[Any], shape: list[int]) -> Any:
    if not shape:
        return values[0]
    step = len(values) // shape[0]
    return [nest(values[at * step : (at + 1) * step], shape[1:]) for at in range(shape[0])]


def shape_of(nested: Any) -> list[int]:
    return [len(nested), *shape_of(nested[0])] if isinstance(nested, list) else []


def flat(nested: Any) -> list[Any]:
    return [leaf for each in nested for leaf in flat(each)] if isinstance(nested, list) else [nested]


def bits(signature: str, values: list[Any]) -> list[Any]:
    """Floats by their bits, every NaN as the same one."""
    if signature not in FLOATS:
        return values
    layout = FLOATS[signature][1]
    return ["nan" if math.isnan(value) else struct.pack(layout, value) for value in values]


def by_rest(connection: http.client.HTTPConnection, pair: Pair) -> Outcome:
    connection.request("POST", pair.path, pair.body)
    response = connection.getresponse()
    answer = json.loads(response.read())
    if response.status != 200:
        return Outcome(response.status)
    (nested,) = answer.values()
    return Outcome(200, shape_of(nested), flat(nested))


def by_grpc(server: ModelServer, pair: Pair) -> Outcome:
    try:
        response = server.prediction.Predict(pair.message, timeout=30)
    except grpc.RpcError as error:
        return Outcome(http_status(Code(error.code().value[0])))
    tensor = response.outputs["y"]
    field = DATA_TYPES[tensor.dtype].value_field
    assert field is not None
    values = list(getattr(tensor, field))
    if tensor.dtype == types_pb2.DT_STRING:
        values = [value.decode() for value in values]
    return Outcome(200, [dim.size for dim in tensor.tensor_shape.dim], values)


@pytest.mark.timeout(900)
def test_generated_requests_get_the_same_numbers_and_codes_both_ways(
    start_server: StartServer, saved_models: pathlib.Path
) -> None:
    server = start_server("--model_name=echo", f"--model_base_path={saved_models / 'echo'}")
    generator = Generator(SEED)
    kinds: collections.Counter[str] = collections.Counter()
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=30)) as connection:
        for number in range(NUM_REQUESTS):
            pair = generator.pair()
            rest, rpc = by_rest(connection, pair), by_grpc(server, pair)
            what = f"request {number} ({pair.kind}): {pair.path} {pair.body!r}"
            assert rest.status == rpc.status, what
            assert (rest.status == 200) == (pair.kind == "valid"), what
            kinds[pair.kind] += 1
            if rest.values is not None and rpc.values is not None:
                signature = pair.message.model_spec.signature_name
                assert rest.shape == rpc.shape, what
                assert bits(signature, rest.values) == bits(signature, rpc.values), what
    assert set(kinds) >= {"valid", "unknown_model", "another_type", "not_enough_values"}
    assert kinds["valid"] > NUM_REQUESTS // 2
