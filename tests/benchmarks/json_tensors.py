"""What the JSON of a REST predict costs the gateway: bodies to PredictRequests, PredictResponses to JSON.

  python tests/benchmarks/json_tensors.py [--rounds 20]

One thread; the least time of all rounds, in which everything takes its turn. `native` is what requests take, `exact`
the way in Python that takes over for unusual ones. Beside them, where they are installed: simdjson's own tensor buffer
(pysimdjson), which gives doubles and no message, and orjson with numpy.
"""

import argparse
import array
import importlib
import json
import random
import time
from collections.abc import Callable
from typing import Any

from tensorgate.gateway.core.model_spec import ModelSpec
from tensorgate.gateway.rest.predict_request import (
    RequestForm,
    build_predict_request,
    parse_predict_request,
    parse_request,
)
from tensorgate.gateway.rest.predict_response import predict_response_json, predict_response_json_exactly
from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow.core.protobuf import meta_graph_pb2
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictResponse

NUM_VALUES = (784, 150_528)  # an MNIST digit; 224 × 224 × 3
EXACT_ROUNDS = 3
SPEC = ModelSpec("m")

Task = Callable[[], object]


def optional(module: str) -> Any:
    """The module, None where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def decoders(texts: list[str]) -> dict[str, Task]:
    body = f'{{"instances": [[{", ".join(texts)}]]}}'.encode()
    signature = meta_graph_pb2.SignatureDef()
    signature.inputs["x"].dtype = types_pb2.DT_FLOAT
    tasks: dict[str, Task] = {
        "native": lambda: build_predict_request(parse_predict_request(body), body, signature, SPEC),
        "exact": lambda: build_predict_request(parse_request(body), body, signature, SPEC),
    }
    if simdjson := optional("simdjson"):
        parser = simdjson.Parser()
        tasks["simdjson"] = lambda: parser.parse(body).at_pointer("/instances/0").as_buffer(of_type="d")
    orjson, numpy = optional("orjson"), optional("numpy")
    if orjson and numpy:
        tasks["orjson"] = lambda: numpy.array(orjson.loads(body)["instances"], dtype=numpy.float32).tobytes()
    return tasks


def encoders(values: list[float], *, is_double: bool) -> dict[str, Task]:
    response = PredictResponse()
    tensor = response.outputs["y"]
    tensor.dtype = types_pb2.DT_DOUBLE if is_double else types_pb2.DT_FLOAT
    tensor.tensor_shape.dim.add(size=1)
    tensor.tensor_shape.dim.add(size=len(values))
    (tensor.double_val if is_double else tensor.float_val).extend(values)
    payload = response.SerializeToString()
    tasks: dict[str, Task] = {
        "native": lambda: predict_response_json(payload, RequestForm.ROWS),
        "exact": lambda: predict_response_json_exactly(payload, RequestForm.ROWS),
    }
    orjson, numpy = optional("orjson"), optional("numpy")
    if orjson and numpy:
        rows = numpy.array([values], dtype=numpy.float64 if is_double else numpy.float32)
        tasks["orjson"] = lambda: orjson.dumps({"predictions": rows}, option=orjson.OPT_SERIALIZE_NUMPY)
    return tasks


def least_times_us(tasks: dict[str, Task], rounds: int) -> dict[str, float]:
    times = dict.fromkeys(tasks, float("inf"))
    for number in range(rounds):
        for name, task in tasks.items():
            if name == "exact" and number >= EXACT_ROUNDS:
                continue
            began = time.perf_counter_ns()
            task()
            times[name] = min(times[name], (time.perf_counter_ns() - began) / 1000)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    generator = random.Random(1)
    names = ["native", "exact", "simdjson", "orjson"]
    print(f"{'µs':22} {'values':>7} " + " ".join(f"{name:>9}" for name in names) + "  ns/value  exact/native")
    for num_values in NUM_VALUES:
        values = array.array("f", [generator.random() for _ in range(num_values)]).tolist()
        rows = {
            "decode, 8-9 digits": decoders([f"{value:.9g}" for value in values]),
            "decode, 17 digits": decoders([json.dumps(value) for value in values]),
            "decode, integers": decoders([str(int(256 * value)) for value in values]),
            "encode, float32": encoders(values, is_double=False),
            "encode, float64": encoders([generator.random() for _ in values], is_double=True),
        }
        for title, tasks in rows.items():
            times = least_times_us(tasks, arguments.rounds * (10 if num_values < 1000 else 1))
            cells = " ".join(f"{times[name]:9.1f}" if name in times else f"{'-':>9}" for name in names)
            per_value = 1000 * times["native"] / num_values
            print(f"{title:22} {num_values:7} {cells}  {per_value:8.1f}  {times['exact'] / times['native']:12.1f}")


if __name__ == "__main__":
    main()
