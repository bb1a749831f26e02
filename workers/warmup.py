"""Warm-up: replays the requests that a version carries along, so that its first clients do not wait for what is lazy.

Last stage of a version's line in the worker: load → warm-up → data loop. Runs on a loader thread and blocks there; the
version is reported AVAILABLE only after it, and a request that fails fails the load.

Source: tensorflow_serving/servables/tensorflow/saved_model_warmup_util.cc and saved_model_warmup.cc.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO

from google.protobuf.message import DecodeError

from tensorgate.protos.status_codes import Code, ServingError, of_os_error
from tensorgate.protos.tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
from tensorgate.protos.tf_record import read_records

logger = logging.getLogger("tensorgate.worker.warmup")

WARMUP_REQUESTS = os.path.join("assets.extra", "tf_serving_warmup_requests")
MAX_NUM_RECORDS = 1000

# How much of a record that is no message its error shows: the text goes to every client that asks for the state.
_MAX_SHOWN_BYTES = 1024

# Runs a serialized request on one version: (code, message, response, …). A version has a method for each kind of log
# that it can replay, by the kind's name in PredictionLog.
WarmupMethod = Callable[[bytes], tuple[int, bytes, bytes, int]]


def warm_up(methods: Mapping[str, WarmupMethod], path: str, num_iterations: int) -> tuple[int, int]:
    """Runs each request of the version in folder ``path``, in their order, ``num_iterations`` times; blocks.

    How many records there were, and the microseconds it took; zeros where the version has no such file. The model that
    a record names is not looked at, only its signature. Raises ServingError: what a request ends with, UNIMPLEMENTED
    for a kind of log without a method, INVALID_ARGUMENT for too many records or one that is no PredictionLog, DATA_LOSS
    for a file that is no TFRecord file, and the file system's error.
    """
    requests_path = os.path.join(path, WARMUP_REQUESTS)
    if not os.path.exists(requests_path):
        return 0, 0
    began = time.monotonic()
    try:
        with open(requests_path, "rb") as file:
            num_records = _replay(methods, requests_path, file, num_iterations)
    except OSError as error:
        raise of_os_error(error, requests_path) from error
    took_s = time.monotonic() - began
    logger.info("warmed up with %d requests of %s in %.3f s", num_records, requests_path, took_s)
    return num_records, round(took_s * 1e6)


def _replay(methods: Mapping[str, WarmupMethod], path: str, file: BinaryIO, num_iterations: int) -> int:
    num_records = 0
    for record in _records(file):
        log = _parse(record, path)
        for _ in range(num_iterations):
            _run(methods, log)
        num_records += 1
        if num_records > MAX_NUM_RECORDS:
            raise ServingError(
                Code.INVALID_ARGUMENT, f"Number of warmup records exceeds the maximum ({MAX_NUM_RECORDS}) at {path}"
            )
    return num_records


def _records(file: BinaryIO) -> Iterator[bytes]:
    try:
        yield from read_records(file)
    except ServingError as error:
        raise ServingError(
            error.code, f"{error.message}. Please verify your warmup data is in TFRecord format."
        ) from error


def _parse(record: bytes, path: str) -> PredictionLog:
    try:
        return PredictionLog.FromString(record)
    except DecodeError as error:
        shown = record[:_MAX_SHOWN_BYTES].decode(errors="replace")
        raise ServingError(Code.INVALID_ARGUMENT, f"Failed to parse warmup record: {shown} from {path}") from error


def _run(methods: Mapping[str, WarmupMethod], log: PredictionLog) -> None:
    kind = log.WhichOneof("log_type")
    if kind is None:  # upstream passes over it too
        return
    method = methods.get(kind)
    if method is None:
        number = PredictionLog.DESCRIPTOR.fields_by_name[kind].number
        raise ServingError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {number}")
    code, message, *_ = method(getattr(log, kind).request.SerializeToString())
    if code != Code.OK:
        raise ServingError(Code.of(code), message.decode(errors="replace"))
