"""Writes TFRecord files, and files of warm-up and golden requests into a version's folder."""

import pathlib
from collections.abc import Iterable

from tensorgate.protos.tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
from tensorgate.protos.tf_record import framed_record
from tensorgate.workers.golden_requests import GOLDEN_REQUESTS
from tensorgate.workers.warmup import WARMUP_REQUESTS


def write_warmup_requests(version_path: pathlib.Path, *logs: PredictionLog) -> pathlib.Path:
    """The file it made."""
    return _write_logs(version_path / WARMUP_REQUESTS, logs)


def write_golden_requests(version_path: pathlib.Path, *logs: PredictionLog) -> pathlib.Path:
    """The file it made."""
    return _write_logs(version_path / GOLDEN_REQUESTS, logs)


def _write_logs(path: pathlib.Path, logs: Iterable[PredictionLog]) -> pathlib.Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(framed_record(log.SerializeToString()) for log in logs))
    return path
