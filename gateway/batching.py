"""How requests are merged into batches: what the batching flags say, checked, in the form that workers take it.

Stands on the model-version line between the flags and a version's ``load`` command. Reading the file blocks; what
depends on a model or a version (its own parameters, their checks) is the worker's, as it loads.

Source: tensorflow_serving/model_servers/server.cc, servables/tensorflow/bundle_factory_util.cc (checks and texts).
"""

from dataclasses import dataclass
from enum import Enum

from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.servables.tensorflow.session_bundle_config_pb2 import BatchingParameters
from tensorgate.protos.text_proto import read_text_proto


class BatchingMode(str, Enum):
    """Where a version's parameters come from; the values go to workers."""

    OFF = "off"
    COMMON = "common"
    """The same for all models."""
    PER_MODEL = "per_model"
    """The version's own file; without one it is not batched."""
    AUTO = "auto"
    """Found out while serving."""


@dataclass(frozen=True, slots=True)
class Batching:
    """``parameters`` is a serialized BatchingParameters; of PER_MODEL only its number of threads counts."""

    mode: BatchingMode = BatchingMode.OFF
    parameters: bytes = b""


NO_BATCHING = Batching()


def batching_of(*, enable_batching: bool, parameters_file: str, per_model: bool, batching: str) -> Batching:
    """What the flags of these names ask for; blocks where there is a file.

    Raises ServingError: INVALID_ARGUMENT for flags that contradict each other, a file that is no text-format
    BatchingParameters or asks for no threads; the file system's error where it cannot be read.
    """
    if parameters_file and not enable_batching:
        raise _invalid(
            "server_options.batching_parameters_file is set without setting server_options.enable_batching to true."
        )
    if batching == BatchingMode.AUTO.value:
        if enable_batching:
            raise _invalid("--batching=auto finds its parameters itself; it goes without --enable_batching")
        return Batching(BatchingMode.AUTO)
    if not enable_batching:
        return NO_BATCHING
    parameters = read_text_proto(parameters_file, BatchingParameters) if parameters_file else BatchingParameters()
    if parameters.HasField("num_batch_threads") and parameters.num_batch_threads.value < 1:
        raise _invalid(f"num_batch_threads must be positive; was {parameters.num_batch_threads.value}")
    mode = BatchingMode.PER_MODEL if per_model else BatchingMode.COMMON
    return Batching(mode, parameters.SerializeToString(deterministic=True))


def _invalid(message: str) -> ServingError:
    return ServingError(Code.INVALID_ARGUMENT, message)
