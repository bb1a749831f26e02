"""The seam between the worker's commands and its platforms: what a loaded version is, and who loads which kind.

On the line of a model version: commands → the platform's opener → Servable → warmup → data loop. A platform is a module
with such an opener and a line in PLATFORMS.

Source: tensorflow_serving/core/source_adapter.h and loader.h; upstream's platforms are source adapters.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from tensorgate._native.batching_options import BatchingOptions
from tensorgate._native.python_servable import PythonServable
from tensorgate._native.session import Session
from tensorgate.protos.control_messages import HASHMAP_PLATFORM, TENSORFLOW_PLATFORM
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorgate.config.model_settings_pb2 import ModelSettings
from tensorgate.workers.batching import batching_options, set_batching
from tensorgate.workers.hashmap import HashmapServable
from tensorgate.workers.saved_model import TFLITE_MODEL_FILE, SavedModelServable, open_saved_model
from tensorgate.workers.warmup import WarmupMethod


@dataclass(frozen=True, slots=True)
class VersionToLoad:
    """One version, and how it is to be loaded; the fields of the ``load`` command."""

    path: str
    version: int
    tags: tuple[str, ...]
    session_config: bytes
    checks_method_names: bool
    outputs_as_content: bool
    prefer_tflite_model: bool = False
    num_tflite_pools: int = 1
    batching_mode: str = "off"
    batching_parameters: bytes = b""
    model_settings: bytes = b""


class Servable(Protocol):
    """One loaded version, whatever its platform. Methods may be called from any thread, ``close`` once."""

    @property
    def signature_def_map(self) -> bytes:
        """A serialized tensorflow.serving.SignatureDefMap; empty where there are no signatures."""
        ...

    @property
    def runner(self) -> Session | PythonServable:
        """What the data loop gives the requests to."""
        ...

    @property
    def batching(self) -> BatchingOptions | None:
        """How its requests are merged; None: they are not."""
        ...

    @property
    def warmup_methods(self) -> Mapping[str, WarmupMethod]:
        """What warm-up can replay, by the kind of log; each runs on the calling thread."""
        ...

    def close(self) -> None:
        """Gives the version's memory back, once no request runs on it any more; blocks. Raises ServingError."""
        ...


def _open_tensorflow(version: VersionToLoad) -> Servable:
    if version.prefer_tflite_model and os.path.exists(os.path.join(version.path, TFLITE_MODEL_FILE)):
        return _open_tflite(version)
    settings = ModelSettings.FromString(version.model_settings)
    batching = batching_options(version.batching_mode, version.batching_parameters, version.path, settings)
    session = open_saved_model(
        version.path,
        version.version,
        version.tags,
        version.session_config,
        version.checks_method_names,
        version.outputs_as_content,
    )
    try:
        set_batching(session, settings)
    except BaseException:
        session.close()
        raise
    return SavedModelServable(session, batching)


def _open_tflite(version: VersionToLoad) -> Servable:
    try:
        # Only now: it brings numpy, and is not there unless it is asked for.
        from tensorgate.workers.tflite import TfliteServable  # noqa: PLC0415
    except ImportError as error:
        raise ServingError(
            Code.UNIMPLEMENTED,
            f'TensorFlow Lite models need a package that is not here ({error}): pip install "tensorgate[tflite]"',
        ) from error
    return TfliteServable(version.path, version.version, version.num_tflite_pools)


def _open_hashmap(version: VersionToLoad) -> Servable:
    return HashmapServable(version.path)


# By the name that a model's configuration calls it. An opener blocks, and raises ServingError with nothing left behind.
PLATFORMS: Mapping[str, Callable[[VersionToLoad], Servable]] = {
    TENSORFLOW_PLATFORM: _open_tensorflow,
    HASHMAP_PLATFORM: _open_hashmap,
}


def open_servable(platform: str, version: VersionToLoad) -> Servable:
    """Loads a version; blocks. Raises ServingError: the platform's, or INVALID_ARGUMENT for one that is not here."""
    opener = PLATFORMS.get(platform)
    if opener is None:
        raise ServingError(Code.INVALID_ARGUMENT, f"this worker has no platform {platform}")
    return opener(version)
