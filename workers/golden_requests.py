"""Golden requests: a version goes live only if it answers the requests that it carries along as they say.

Last stage of a version's line in the worker: load → warm-up → golden requests → data loop. Runs on a loader thread and
blocks there. The file is one of PredictionLogs, as for warm-up, but with the responses that are expected.

Source: tensorgate's own; of the file's form, tensorflow_serving/apis/prediction_log.proto.
"""

import logging
import math
import os
import struct
from collections.abc import Iterator, Mapping, Sequence

from google.protobuf.message import DecodeError

from tensorgate._native.tensor_decode import decode_tensor_proto
from tensorgate.protos.data_types import data_type_name
from tensorgate.protos.status_codes import Code, ServingError, of_os_error
from tensorgate.protos.tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictResponse
from tensorgate.protos.tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
from tensorgate.protos.tf_record import read_records
from tensorgate.workers.warmup import WarmupMethod

logger = logging.getLogger("tensorgate.worker.golden_requests")

GOLDEN_REQUESTS = os.path.join("assets.extra", "tensorgate_golden_requests")
MAX_NUM_RECORDS = 1000

# struct's letters for the element types that have a tolerance; all others must be equal.
_UPPER_HALF_OF_FLOAT = "H"
_FLOATS = {"float": "f", "double": "d", "half": "e", "bfloat16": _UPPER_HALF_OF_FLOAT}
_COMPLEX = {"complex64": "f", "complex128": "d"}


def check_golden_requests(methods: Mapping[str, WarmupMethod], path: str, tolerance: float) -> None:
    """Runs each golden request of the version in folder ``path`` and compares its outputs; blocks.

    Floating point values may differ by ``tolerance * (1 + |golden|)``, everything else not at all; outputs that the
    golden response does not have are not looked at. Does nothing where the version has no such file. Raises
    ServingError: FAILED_PRECONDITION that names the request, the output and the difference; what a request ends with;
    INVALID_ARGUMENT for a file of something else or of too many records; DATA_LOSS; the file system's error.
    """
    requests_path = os.path.join(path, GOLDEN_REQUESTS)
    if not os.path.exists(requests_path):
        return
    number = 0
    for number, log in enumerate(_logs(requests_path), 1):
        where = f"golden request {number} of {requests_path}"
        method = methods.get("predict_log")
        if method is None:
            raise ServingError(Code.UNIMPLEMENTED, f"{where}: a version of this kind answers no Predict")
        code, message, response, *_ = method(log.predict_log.request.SerializeToString())
        if code != Code.OK:
            raise ServingError(Code.of(code), f"{where} fails: {message.decode(errors='replace')}")
        difference = _difference(PredictResponse.FromString(response), log.predict_log.response, tolerance)
        if difference:
            raise ServingError(Code.FAILED_PRECONDITION, f"{where} is answered differently: {difference}")
    logger.info("%d golden requests of %s are answered as they say", number, requests_path)


def _logs(path: str) -> Iterator[PredictionLog]:
    try:
        with open(path, "rb") as file:
            for number, record in enumerate(read_records(file), 1):
                if number > MAX_NUM_RECORDS:
                    raise _invalid(f"{path} has more than {MAX_NUM_RECORDS} golden requests")
                try:
                    log = PredictionLog.FromString(record)
                except DecodeError as error:
                    raise _invalid(f"record {number} of {path} is no PredictionLog") from error
                if log.WhichOneof("log_type") != "predict_log" or not log.predict_log.response.outputs:
                    raise _invalid(f"record {number} of {path} is no predict_log with a response that has outputs")
                yield log
    except OSError as error:
        raise of_os_error(error, path) from error


def _difference(answer: PredictResponse, golden: PredictResponse, tolerance: float) -> str:
    """What is different, for people to read; empty where nothing is."""
    for alias in sorted(golden.outputs):
        if alias not in answer.outputs:
            return f"output '{alias}' is missing"
        found = _tensor_difference(answer.outputs[alias], golden.outputs[alias], tolerance)
        if found:
            return f"output '{alias}' {found}"
    return ""


def _tensor_difference(answer: TensorProto, golden: TensorProto, tolerance: float) -> str:
    try:
        dtype, shape, values = decode_tensor_proto(answer.SerializeToString())
        golden_dtype, golden_shape, golden_values = decode_tensor_proto(golden.SerializeToString())
    except ValueError as error:
        return f"cannot be compared ({error})"
    if dtype != golden_dtype:
        return f"is of type {data_type_name(dtype)}, not {data_type_name(golden_dtype)}"
    if list(shape) != list(golden_shape):
        return f"is of shape {list(shape)}, not {list(golden_shape)}"
    name = data_type_name(dtype)
    if isinstance(values, list) or isinstance(golden_values, list):
        for place, (one, other) in enumerate(zip(values, golden_values, strict=True)):
            if one != other:
                return f"is {one!r} and not {other!r} at {_index(place, shape)}"
        return ""
    letter = _FLOATS.get(name) or _COMPLEX.get(name)
    if letter is None:
        return "" if values == golden_values else f"differs; type {name} has no tolerance"
    return _number_difference(
        _numbers(values, letter), _numbers(golden_values, letter), shape, 2 if name in _COMPLEX else 1, tolerance
    )


def _numbers(values: bytes, letter: str) -> Sequence[float]:
    count = len(values) // struct.calcsize(f"<{letter}")
    numbers = struct.unpack(f"<{count}{letter}", values)
    if letter == _UPPER_HALF_OF_FLOAT:
        return struct.unpack(f"<{count}f", struct.pack(f"<{count}I", *(number << 16 for number in numbers)))
    return numbers


def _number_difference(
    values: Sequence[float], golden: Sequence[float], shape: Sequence[int], parts: int, tolerance: float
) -> str:
    """Of the value that is furthest away."""
    worst, at = 0.0, -1
    for place, (one, other) in enumerate(zip(values, golden, strict=True)):
        if one == other or (math.isnan(one) and math.isnan(other)):
            continue
        distance = abs(one - other)
        # Whatever is infinite or no number on one side only is as far away as can be.
        excess = distance / (1 + abs(other)) if math.isfinite(distance) else math.inf
        if not excess <= tolerance and excess > worst:
            worst, at = excess, place
    if at < 0:
        return ""
    return (
        f"differs by {abs(values[at] - golden[at]):.6g} at {_index(at // parts, shape)}: it is {values[at]:.9g} and not"
        f" {golden[at]:.9g}, with a tolerance of {tolerance:g} * (1 + |golden|)"
    )


def _index(place: int, shape: Sequence[int]) -> list[int]:
    index: list[int] = []
    for size in reversed(shape):
        index.insert(0, place % size)
        place //= size
    return index


def _invalid(message: str) -> ServingError:
    return ServingError(Code.INVALID_ARGUMENT, message)
