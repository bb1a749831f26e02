"""Writes TFRecord files, and warm-up files into a version's folder."""

import pathlib

from tensorgate.protos.tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
from tensorgate.protos.tf_record import framed_record
from tensorgate.workers.warmup import WARMUP_REQUESTS


def write_warmup_requests(version_path: pathlib.Path, *logs: PredictionLog) -> pathlib.Path:
    """The file it made."""
    path = version_path / WARMUP_REQUESTS
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(framed_record(log.SerializeToString()) for log in logs))
    return path
