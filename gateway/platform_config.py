"""The platform config file: a text-format PlatformConfigMap, which takes the place of the flags about sessions.

At the head of a version's line, between the flags and ServerOptions. Reading blocks on the file system.

Source: tensorflow_serving/model_servers/server.cc, config/platform_config.proto, servables/tensorflow/
session_bundle_config.proto.
"""

from tensorgate.protos.control_messages import TENSORFLOW_PLATFORM
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.config.platform_config_pb2 import PlatformConfigMap
from tensorgate.protos.tensorflow_serving.servables.tensorflow.saved_model_bundle_source_adapter_pb2 import (
    SavedModelBundleSourceAdapterConfig,
)
from tensorgate.protos.tensorflow_serving.servables.tensorflow.session_bundle_config_pb2 import SessionBundleConfig
from tensorgate.protos.text_proto import read_text_proto

# What a worker's session has no counterpart for; set, they are named in the log.
WITHOUT_EFFECT = (
    "session_run_load_threadpool_index",
    "experimental_transient_ram_bytes_during_load",
    "in_graph_batching_parameters",
    "experimental_fixed_input_tensors",
    "enable_session_metadata",
    "resource_estimation_uses_validation_result",
    "num_tflite_interpreters",
    "wrap_session_with_no_threading_params",
)


def read_platform_config(path: str) -> SessionBundleConfig:
    """The settings of the platform "tensorflow" in the file ``path``.

    Raises ServingError: INVALID_ARGUMENT where the text is no PlatformConfigMap, and for platforms or settings that
    there are none of here; UNIMPLEMENTED for what upstream does not have either; the file's own code where it cannot be
    read.
    """
    platforms = read_text_proto(path, PlatformConfigMap).platform_configs
    if set(platforms) != {TENSORFLOW_PLATFORM}:
        raise _invalid(
            f"'{path}' has to configure the platform \"{TENSORFLOW_PLATFORM}\" and no other one; it has"
            f" {', '.join(sorted(platforms)) or 'none'}"
        )
    packed = platforms[TENSORFLOW_PLATFORM].source_adapter_config
    adapter = SavedModelBundleSourceAdapterConfig()
    if not packed.Unpack(adapter):
        raise _invalid(f"Couldn't find factory for config proto message type {packed.TypeName()}")
    config = adapter.legacy_config
    if config.session_target:
        raise _invalid(f"'{path}': session_target is not supported; workers run sessions in their own process")
    if config.enable_saved_model_config:
        raise ServingError(Code.UNIMPLEMENTED, "Saved model config functionality is not implemented.")
    return config


def settings_without_effect(config: SessionBundleConfig) -> list[str]:
    """The names of what is set and does nothing here."""
    is_set = {field.name for field, _value in config.ListFields()}
    if config.model_warmup_options.HasField("num_model_warmup_threads"):
        is_set.add("num_model_warmup_threads")
    if config.model_warmup_options.enable_all_batch_sizes_warmup:
        is_set.add("enable_all_batch_sizes_warmup")
    return [
        name
        for name in (*WITHOUT_EFFECT, "num_model_warmup_threads", "enable_all_batch_sizes_warmup")
        if name in is_set
    ]


def _invalid(message: str) -> ServingError:
    return ServingError(Code.INVALID_ARGUMENT, message)
