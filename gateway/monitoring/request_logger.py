"""The request log: sampled requests with their answers, as PredictionLogs in TFRecord files that a warm-up can read.

Beside a request's line: the native threads keep copies of the sampled requests, and a log_thread comes round and writes
them. Files are rotated, so that each one can be put as it is into a version's
assets.extra/tf_serving_warmup_requests.

Source: tensorflow_serving/core/request_logger.h and server_request_logger.h (upstream's library; its stock server has
no collector); TensorFlow's file names of shards are not followed.
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import BinaryIO, Protocol

from tensorgate.gateway.dispatch.call import Method
from tensorgate.protos.tensorflow_serving.apis.logging_pb2 import LogMetadata
from tensorgate.protos.tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
from tensorgate.protos.tensorflow_serving.config.logging_config_pb2 import LoggingConfig
from tensorgate.protos.tf_record import framed_record

logger = logging.getLogger("tensorgate.request_log")

# Of one file: as many as a warm-up takes, and what can be handled with ease.
MAX_RECORDS_PER_FILE = 1000
MAX_BYTES_PER_FILE = 256 * 1024 * 1024
# Of the files with one prefix; the oldest ones are removed.
MAX_FILES = 16

# The field of PredictionLog that holds what a method was asked and answered.
_KINDS = {
    Method.PREDICT: "predict_log",
    Method.CLASSIFY: "classify_log",
    Method.REGRESS: "regress_log",
    Method.MULTI_INFERENCE: "multi_inference_log",
    Method.SESSION_RUN: "session_run_log",
}

LoggedRequest = tuple[int, str, int, int, bytes, bytes]


class LoggedRequests(Protocol):
    """The part of DataPlane that is read here."""

    def take_logged(self) -> tuple[list[LoggedRequest], int]:
        """DataPlane.take_logged."""
        ...


def sampling_rate(config: LoggingConfig) -> float:
    """Which share of a model's requests is logged: that of the first entry for this task, which has no number.

    Entries of per_task_sampling_configs hold for a data centre or a task; one that names neither holds here.
    """
    for entry in config.sampling_config.per_task_sampling_configs:
        if not entry.dc and not entry.HasField("task_index"):
            return entry.sampling_rate
    return config.sampling_config.sampling_rate


def prediction_log(method: Method, metadata: LogMetadata, request: bytes, response: bytes) -> bytes:
    """A serialized PredictionLog; request and response go in as they are, unparsed."""
    kind = PredictionLog.DESCRIPTOR.fields_by_name[_KINDS[method]]
    content = _field(1, request) + _field(2, response)
    return _field(1, metadata.SerializeToString()) + _field(kind.number, content)


class RequestLogger:
    """Writes what the data plane has kept; on one thread at a time, except for ``use``."""

    def __init__(
        self,
        plane: LoggedRequests,
        configs: Mapping[str, LoggingConfig],
        tags: Iterable[str],
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        """``configs``: of the models that log, by name. ``tags``: of the MetaGraphs that are served."""
        self._plane = plane
        self._configs = configs
        self._tags = list(tags)
        self._clock_s = clock_s
        self._files: dict[str, _RotatingFile] = {}
        self._num_dropped = 0
        self.counts: dict[tuple[str, str], int] = {}
        """(model, name of the status code of writing) to number."""

    def use(self, configs: Mapping[str, LoggingConfig]) -> None:
        """From now on these models log; any thread."""
        self._configs = dict(configs)

    def write(self) -> None:
        """Writes what there is now. An error of the file system is logged and counted."""
        logged, num_dropped = self._plane.take_logged()
        if num_dropped > self._num_dropped:
            logger.warning("%d requests were not logged: too much was waiting", num_dropped - self._num_dropped)
            self._num_dropped = num_dropped
        for ended_us, name, version, method, request, response in logged:
            config = self._configs.get(name)
            if config is None:  # the configuration has changed since
                continue
            metadata = LogMetadata(
                sampling_config=config.sampling_config,
                saved_model_tags=self._tags,
                timestamp_secs=int(self._clock_s() - (time.monotonic() - ended_us / 1e6)),
            )
            metadata.model_spec.name = name
            metadata.model_spec.version.value = version
            record = framed_record(prediction_log(Method(method), metadata, request, response))
            status = "OK"
            try:
                self._file_of(config.log_collector_config.filename_prefix).append(record)
            except OSError as error:
                status = "UNAVAILABLE"
                logger.error("requests of %s cannot be logged: %s", name, error)
            self.counts[name, status] = self.counts.get((name, status), 0) + 1
        for file in self._files.values():
            with contextlib.suppress(OSError):
                file.flush()

    def close(self) -> None:
        """Closes the files; what is written later begins new ones."""
        for file in self._files.values():
            file.close()

    def _file_of(self, prefix: str) -> "_RotatingFile":
        file = self._files.get(prefix)
        if file is None:
            file = self._files[prefix] = _RotatingFile(prefix)
        return file


class _RotatingFile:
    """Files named PREFIX-TIME-PID-NUMBER.tfrecord, one after the other."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._began = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        self._number = 0
        self._file: BinaryIO | None = None
        self._num_records = 0
        self._num_bytes = 0
        self._paths: list[str] = []

    def append(self, record: bytes) -> None:
        if (
            self._file is None
            or self._num_records >= MAX_RECORDS_PER_FILE
            or (self._num_records and self._num_bytes + len(record) > MAX_BYTES_PER_FILE)
        ):
            self._open_next()
        if self._file is None:
            raise OSError(f"no file for {self._prefix}")
        self._file.write(record)
        self._num_records += 1
        self._num_bytes += len(record)

    def _open_next(self) -> None:
        self.close()
        self._number += 1
        path = f"{self._prefix}-{self._began}-{os.getpid()}-{self._number:05d}.tfrecord"
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        self._file = open(path, "wb")  # noqa: SIM115 - closed when the next one is opened, and at the end
        self._num_records = self._num_bytes = 0
        self._paths.append(path)
        while len(self._paths) > MAX_FILES:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._paths.pop(0))

    def flush(self) -> None:
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _field(number: int, data: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
