"""How one version's requests are merged: its parameters, its own file's or those of the server, checked as it loads.

On the line of a model version, behind the worker's ``load`` command, before the version's first request.

Source: upstream's bundle_factory_util.cc and session_bundle_util, batching_session.cc, shared_batch_scheduler.h (which
parameters count, the checks and their texts); auto is our own.
"""

import itertools
import os
import struct
from collections.abc import Mapping

from tensorgate._native.batching_options import BatchingOptions
from tensorgate._native.session import Session
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef, TensorInfo
from tensorgate.protos.tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap
from tensorgate.protos.tensorflow_serving.servables.tensorflow.session_bundle_config_pb2 import BatchingParameters
from tensorgate.protos.tensorgate.config import model_settings_pb2
from tensorgate.protos.tensorgate.config.model_settings_pb2 import ModelSettings, PadValue
from tensorgate.protos.text_proto import read_text_proto

PER_MODEL_FILE = "batching_params.pbtxt"

# TensorFlow's, where a parameter is not set.
DEFAULT_MAX_BATCH_SIZE = 1000
DEFAULT_MAX_ENQUEUED_BATCHES = 10

# Ours, for auto.
DEFAULT_LATENCY_TARGET_MS = 20
DEFAULT_AUTO_MAX_BATCH_SIZE = 256
_NO_BOUND = 1 << 40

# How an element of a dtype stands in memory, for struct.
_FORMATS: Mapping[int, str] = {
    types_pb2.DT_FLOAT: "<f",
    types_pb2.DT_DOUBLE: "<d",
    types_pb2.DT_HALF: "<e",
    types_pb2.DT_INT8: "<b",
    types_pb2.DT_INT16: "<h",
    types_pb2.DT_INT32: "<i",
    types_pb2.DT_INT64: "<q",
    types_pb2.DT_UINT8: "<B",
    types_pb2.DT_UINT16: "<H",
    types_pb2.DT_UINT32: "<I",
    types_pb2.DT_UINT64: "<Q",
    types_pb2.DT_BOOL: "<?",
}


def batching_options(mode: str, parameters: bytes, path: str, settings: ModelSettings) -> BatchingOptions | None:
    """How requests for the version in folder ``path`` are merged; None: they are not. Blocks.

    ``mode`` is one of the gateway's BatchingMode, ``parameters`` a serialized BatchingParameters. Raises ServingError
    INVALID_ARGUMENT for parameters that cannot be, and the file system's error.
    """
    if settings.batching == model_settings_pb2.BATCHING_OFF:
        return None
    common = BatchingParameters.FromString(parameters)
    num_threads = common.num_batch_threads.value if common.HasField("num_batch_threads") else os.cpu_count() or 1
    if mode == "auto" or settings.batching == model_settings_pb2.BATCHING_AUTO:
        return _auto(num_threads, settings)
    if mode == "per_model":
        own = _read(os.path.join(path, PER_MODEL_FILE))
        return None if own is None else _checked(own, num_threads, settings)
    return _checked(common, num_threads, settings) if mode == "common" else None


def set_batching(session: Session, settings: ModelSettings) -> None:
    """Tells an open session which of its signatures can be merged, and what their inputs are padded with.

    Raises ServingError INVALID_ARGUMENT for a pad value that its input cannot have.
    """
    signatures = SignatureDefMap.FromString(session.signature_def_map).signature_def
    pads = {
        (name, alias): _element(pad, info)
        for pad in settings.pad_value
        for name, signature in signatures.items()
        if pad.signature_name in ("", name)
        for alias, info in signature.inputs.items()
        if pad.input == alias
    }
    session.set_batching({name for name, each in signatures.items() if is_batchable(each)}, pads)


def _auto(num_threads: int, settings: ModelSettings) -> BatchingOptions:
    target_ms = settings.latency_target_ms if settings.HasField("latency_target_ms") else DEFAULT_LATENCY_TARGET_MS
    max_size = settings.max_auto_batch_size if settings.HasField("max_auto_batch_size") else DEFAULT_AUTO_MAX_BATCH_SIZE
    if target_ms < 1:
        raise _invalid(f"latency_target_ms must be positive; was {target_ms}")
    if max_size < 1:
        raise _invalid(f"max_auto_batch_size must be positive; was {max_size}")
    return BatchingOptions(
        num_batch_threads=num_threads,
        max_batch_size=_NO_BOUND,
        max_execution_batch_size=max_size,
        batch_timeout_micros=0,
        max_enqueued_batches=_NO_BOUND,
        auto_latency_target_us=1000 * target_ms,
    )


def _checked(parameters: BatchingParameters, num_threads: int, settings: ModelSettings) -> BatchingOptions:
    splits = parameters.enable_large_batch_splitting.value
    max_size = parameters.max_batch_size.value if parameters.HasField("max_batch_size") else DEFAULT_MAX_BATCH_SIZE
    max_execution_size = max_size
    if splits:
        # Unset, it is upstream's max_batch_size as the message has it: 0 where that is not set, and nothing is served.
        max_execution_size = (
            parameters.max_execution_batch_size.value
            if parameters.HasField("max_execution_batch_size")
            else parameters.max_batch_size.value
        )
    timeout = parameters.batch_timeout_micros.value
    max_enqueued = (
        parameters.max_enqueued_batches.value
        if parameters.HasField("max_enqueued_batches")
        else DEFAULT_MAX_ENQUEUED_BATCHES
    )
    allowed = tuple(parameters.allowed_batch_sizes)
    if allowed and allowed[-1] != max_size:
        raise _invalid(
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry was "
            f"{allowed[-1]}; expected {max_size}"
        )
    if any(earlier >= later for earlier, later in itertools.pairwise(allowed)):
        raise _invalid(f"allowed_batch_sizes entries must be monotonically increasing; they are {list(allowed)}")
    if max_size <= 0:
        raise _invalid(f"input_batch_size_limit must be positive; was {max_size}")
    if timeout < 0:
        raise _invalid(f"batch_timeout_micros must be non-negative; was {timeout}")
    if max_enqueued < 0 or (splits and max_enqueued == 0):
        raise _invalid(f"max_enqueued_batches must be positive; was {max_enqueued}")
    if splits and max_execution_size > max_size:
        raise _invalid(
            "When enable_large_batch_splitting is true, input_batch_size_limit must be greater than or equal to "
            f"max_execution_batch_size.{splits:d}{max_size}{max_execution_size}"
        )
    return BatchingOptions(
        num_batch_threads=num_threads,
        max_batch_size=max_size,
        max_execution_batch_size=max_execution_size,
        batch_timeout_micros=timeout,
        max_enqueued_batches=max_enqueued,
        allowed_batch_sizes=allowed,
        pad_variable_length_inputs=parameters.pad_variable_length_inputs,
        enable_large_batch_splitting=splits,
        refuse_mixed_shapes=settings.refuse_mixed_shapes,
        crop_padded_outputs=settings.crop_padded_outputs,
    )


def _read(path: str) -> BatchingParameters | None:
    """None where there is no such file. Raises as read_text_proto does."""
    try:
        return read_text_proto(path, BatchingParameters)
    except ServingError as error:
        if error.code is Code.NOT_FOUND:
            return None
        raise


def is_batchable(signature: SignatureDef) -> bool:
    """Whether the model leaves the first dimension of every input and output open."""
    tensors = [*signature.inputs.values(), *signature.outputs.values()]
    return all(
        not info.tensor_shape.unknown_rank and bool(info.tensor_shape.dim) and info.tensor_shape.dim[0].size == -1
        for info in tensors
    )


def _element(pad: PadValue, info: TensorInfo) -> bytes:
    if info.dtype == types_pb2.DT_STRING:
        return pad.text
    try:
        if info.dtype == types_pb2.DT_BFLOAT16:
            return struct.pack("<f", pad.number)[2:]
        layout = _FORMATS[info.dtype]
        return struct.pack(layout, pad.number if layout in ("<f", "<d", "<e") else int(pad.number))
    except (KeyError, struct.error, OverflowError, ValueError) as error:
        raise _invalid(
            f"The input {pad.input} of dtype {types_pb2.DataType.Name(info.dtype)} cannot be padded with {pad.number:g}"
        ) from error


def _invalid(message: str) -> ServingError:
    return ServingError(Code.INVALID_ARGUMENT, message)
