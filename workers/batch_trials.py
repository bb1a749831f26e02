"""What runs of a version take, by their number of rows: tried out as it loads, so that auto knows before clients come.

Last stage of a version's line in the worker, after warm-up, where --batching=auto merges its requests: load → warm-up →
trials. Runs on a loader thread and blocks there, for seconds at most. A trial never fails a load.

The rows are those of the version's warm-up requests where there are any for a signature. For others they are zeros, if
the signature says what a row of each input looks like.
"""

import logging
import math
import os
import time
from collections.abc import Callable, Iterator

from google.protobuf.message import DecodeError

from tensorgate._native.batching_options import BatchingOptions
from tensorgate._native.execution_pool import PREDICT, run_once
from tensorgate._native.session import Session
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorgate.protos.tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorgate.protos.tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorgate.protos.tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
from tensorgate.protos.tf_record import read_records
from tensorgate.workers.batching import is_batchable
from tensorgate.workers.warmup import WARMUP_REQUESTS

logger = logging.getLogger("tensorgate.worker.batching")

# Of all trials of a version, and of one size: the shortest counts, since others' work only ever adds.
BUDGET_S = 3.0
NUM_RUNS = 3
# Beyond that many bytes of input a batch is not tried.
MAX_BYTES = 32 << 20

# Of a zero, the field that holds it.
_ZERO_FIELDS = {
    types_pb2.DT_FLOAT: "float_val",
    types_pb2.DT_DOUBLE: "double_val",
    types_pb2.DT_HALF: "half_val",
    types_pb2.DT_BFLOAT16: "half_val",
    types_pb2.DT_INT8: "int_val",
    types_pb2.DT_INT16: "int_val",
    types_pb2.DT_INT32: "int_val",
    types_pb2.DT_INT64: "int64_val",
    types_pb2.DT_UINT8: "int_val",
    types_pb2.DT_UINT16: "int_val",
    types_pb2.DT_BOOL: "bool_val",
}


def try_batches(
    session: Session,
    path: str,
    options: BatchingOptions,
    teach: Callable[[bytes, int], bool],
    budget_s: float = BUDGET_S,
) -> int:
    """Runs batches of 1, 2, 4, … rows for each signature that can be merged, and tells ``teach`` what they took.

    ``teach``: DataLoop.teach_batching of the version. Sizes go up to the options' own, or until a run takes longer than
    a request may. The number of sizes that were tried; 0 unless the options are those of auto.
    """
    if not options.auto_latency_target_us:
        return 0
    end_s = time.monotonic() + budget_s
    signatures = SignatureDefMap.FromString(session.signature_def_map).signature_def
    batchable = {name: signature for name, signature in signatures.items() if is_batchable(signature)}
    requests = {name: zeros for name, signature in batchable.items() if (zeros := _zeros(signature)) is not None}
    requests.update({name: request for name, request in _warmup_requests(path) if name in batchable})
    return sum(_try_sizes(session, name, request, options, teach, end_s) for name, request in requests.items())


def _try_sizes(
    session: Session,
    name: str,
    request: PredictRequest,
    options: BatchingOptions,
    teach: Callable[[bytes, int], bool],
    end_s: float,
) -> int:
    num_tried, num_rows = 0, 1
    while num_rows <= options.max_execution_batch_size and time.monotonic() < end_s:
        if num_rows * _row_bytes(request) > MAX_BYTES:
            break
        payload = with_rows(request, name, num_rows).SerializeToString()
        # The first ones optimise the graph, and find out which thread to run in.
        num_first = 12 if num_rows == 1 else 1
        outcomes = [run_once(session, PREDICT, payload) for _ in range(num_first + NUM_RUNS)]
        if any(code != Code.OK for code, *_ in outcomes):
            logger.debug("a trial of %s with %d rows failed: %s", name, num_rows, outcomes[0][1])
            break
        run_us = min(run_us for *_, run_us in outcomes[num_first:])
        if not teach(payload, run_us):
            break
        num_tried += 1
        if run_us > options.auto_latency_target_us:
            break
        num_rows *= 2
    return num_tried


# --- requests ---------------------------------------------------------------------------------------------------------


def with_rows(request: PredictRequest, signature_name: str, num_rows: int) -> PredictRequest:
    """The first row of each input as often as that."""
    made = PredictRequest()
    made.model_spec.name = request.model_spec.name or "trial"
    made.model_spec.signature_name = signature_name
    for alias, tensor in request.inputs.items():
        made.inputs[alias].CopyFrom(_tiled(tensor, num_rows))
    return made


def _tiled(tensor: TensorProto, num_rows: int) -> TensorProto:
    old_rows = tensor.tensor_shape.dim[0].size
    made = TensorProto(dtype=tensor.dtype, tensor_shape=tensor.tensor_shape)
    made.tensor_shape.dim[0].size = num_rows
    if tensor.tensor_content:
        made.tensor_content = tensor.tensor_content[: len(tensor.tensor_content) // old_rows] * num_rows
    for field, values in tensor.ListFields():
        if field.name.endswith("_val"):
            # Fewer values than rows: the last one stands for all that follow.
            row = list(values[: len(values) // old_rows]) * num_rows if len(values) >= old_rows else values
            getattr(made, field.name).extend(row)
    return made


def _row_bytes(request: PredictRequest) -> int:
    """What a row of all inputs has in memory, or more; strings count as they are sent."""
    total = 0
    for tensor in request.inputs.values():
        shape = [dim.size for dim in tensor.tensor_shape.dim]
        total += max(16 * math.prod(shape[1:]), tensor.ByteSize() // max(shape[0], 1))
    return total


def _zeros(signature: SignatureDef) -> PredictRequest | None:
    """One row; None where the signature does not say enough, or takes other things than numbers."""
    request = PredictRequest()
    for alias, info in signature.inputs.items():
        shape = [dim.size for dim in info.tensor_shape.dim]
        if info.dtype not in _ZERO_FIELDS or any(size < 0 for size in shape[1:]):
            return None
        tensor = request.inputs[alias]
        tensor.dtype = info.dtype
        for size in (1, *shape[1:]):
            tensor.tensor_shape.dim.add(size=size)
        getattr(tensor, _ZERO_FIELDS[info.dtype]).append(0)
    return request


def _warmup_requests(path: str) -> Iterator[tuple[str, PredictRequest]]:
    """Those whose inputs have rows, by the signature's name."""
    try:
        with open(os.path.join(path, WARMUP_REQUESTS), "rb") as file:
            for record in read_records(file):
                log = PredictionLog.FromString(record)
                request = log.predict_log.request
                sizes = {
                    tensor.tensor_shape.dim[0].size if tensor.tensor_shape.dim else 0
                    for tensor in request.inputs.values()
                }
                if len(sizes) == 1 and min(sizes) > 0:
                    yield request.model_spec.signature_name or "serving_default", request
    except (OSError, ServingError, DecodeError) as error:
        # That a file which should be there is not fit is warm-up's to say.
        logger.debug("no trials with warm-up requests: %s", error)
