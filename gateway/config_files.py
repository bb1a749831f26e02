"""The model config file: a text-format ModelServerConfig, read, checked and turned into values.

Stands on the model-version line between the flags and the source, which is given each model's base path and version
policy. Reading blocks on the file system; everything else is pure and may run on any thread.

Source: tensorflow_serving/model_servers/server_core.cc (the rules, their order and texts), util/proto_util.h (reading).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from tensorgate.gateway.sources.file_system_storage_path_source import (
    AllVersions,
    LatestVersions,
    SpecificVersions,
    VersionPolicy,
)
from tensorgate.protos.control_messages import HASHMAP_PLATFORM, TENSORFLOW_PLATFORM
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.config import model_server_config_pb2 as config_pb2
from tensorgate.protos.tensorflow_serving.config.file_system_storage_path_source_pb2 import (
    FileSystemStoragePathSourceConfig,
)
from tensorgate.protos.tensorflow_serving.config.logging_config_pb2 import LoggingConfig
from tensorgate.protos.tensorflow_serving.config.monitoring_config_pb2 import MonitoringConfig
from tensorgate.protos.text_proto import read_text_proto

# Upstream's stock server has the first one only.
PLATFORMS = (TENSORFLOW_PLATFORM, HASHMAP_PLATFORM)

# What logs requests: TFRecord files. Upstream has none of its own, and its tests one without a name.
LOG_COLLECTORS = ("", "tfrecord")

_URI = re.compile(r"[a-zA-Z][0-9a-zA-Z.]*://")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One model to serve. ``base_path`` is absolute or a URI and holds a folder for each version."""

    name: str
    base_path: str
    version_policy: VersionPolicy
    platform: str = TENSORFLOW_PLATFORM
    """One of ``PLATFORMS``."""
    version_labels: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    logging_config: LoggingConfig | None = None
    """How its requests are logged; not to be modified. None: they are not."""


def read_model_server_config(path: str) -> config_pb2.ModelServerConfig:
    """The text-format ModelServerConfig in the file ``path``; blocks.

    Raises ServingError: INVALID_ARGUMENT with line and column where the text is no such message; the code of the file
    system's error where the file cannot be read.
    """
    return read_text_proto(path, config_pb2.ModelServerConfig)


def read_monitoring_config(path: str) -> MonitoringConfig:
    """The text-format MonitoringConfig in the file ``path``; blocks. Raises as read_model_server_config does."""
    return read_text_proto(path, MonitoringConfig)


def single_model(name: str, base_path: str) -> config_pb2.ModelServerConfig:
    """The configuration that ``--model_name`` and ``--model_base_path`` stand for."""
    config = config_pb2.ModelServerConfig()
    config.model_config_list.config.add(name=name, base_path=base_path, model_platform=TENSORFLOW_PLATFORM)
    return config


def models_of(
    config: config_pb2.ModelServerConfig, running_platforms: Mapping[str, str] = MappingProxyType({})
) -> tuple[ModelConfig, ...]:
    """The models that ``config`` lists, in its order; none where it lists none.

    ``running_platforms``: by name, of the models that the new configuration takes the place of.

    Raises ServingError INVALID_ARGUMENT for what upstream refuses, in its order: a name listed twice, a relative base
    path, another platform than the model has now, a platform that is missing, set twice or not ours; for a custom
    configuration, and for request logging that cannot be; NOT_FOUND for a log collector that there is none of.
    """
    if config.WhichOneof("config") == "custom_model_config":
        raise _invalid("custom_model_config is not supported; use model_config_list")
    configs = config.model_config_list.config
    names: set[str] = set()
    for model in configs:
        if model.name in names:
            raise _invalid(f"Illegal to list model {model.name} multiple times in config list")
        names.add(model.name)
    for model in configs:
        if not (model.base_path.startswith("/") or _URI.match(model.base_path)):
            raise _invalid(
                f"Expected model {model.name} to have an absolute path or URI; got base_path()={model.base_path}"
            )
    for model in configs:
        running = running_platforms.get(model.name)
        if running is not None and (platform := _platform_of(model)) != running:
            raise _invalid(
                f"Illegal to change a model's platform. For model {model.name} platform was {running} and new platform"
                f" requested is {platform}"
            )
    for model in configs:
        if (platform := _platform_of(model)) not in PLATFORMS:
            raise _invalid(f"Model {model.name} requests unsupported platform {platform}")
        if model.HasField("logging_config"):
            _check_logging(model.name, model.logging_config)
    return tuple(
        ModelConfig(
            name=model.name,
            base_path=model.base_path,
            version_policy=_version_policy(model.model_version_policy),
            platform=_platform_of(model),
            version_labels=MappingProxyType(dict(model.version_labels)),
            logging_config=model.logging_config if model.HasField("logging_config") else None,
        )
        for model in configs
    )


def _platform_of(model: config_pb2.ModelConfig) -> str:
    # model_type is deprecated, and still what old configuration files say.
    if model.model_type != config_pb2.MODEL_TYPE_UNSPECIFIED:
        if model.model_platform:
            raise _invalid(
                "Illegal setting both ModelServerConfig::model_type (deprecated) and "
                f"ModelServerConfig::model_platform, model name is {model.name}"
            )
        if model.model_type != config_pb2.TENSORFLOW:
            raise _invalid(f"ModelServerConfig::model_type choice {model.model_type} not supported.")
        return TENSORFLOW_PLATFORM
    if not model.model_platform:
        raise _invalid(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            f"ModelServerConfig::model_platform, model name is {model.name}"
        )
    return model.model_platform


def _check_logging(name: str, logging: LoggingConfig) -> None:
    collector = logging.log_collector_config
    if collector.type not in LOG_COLLECTORS:
        raise ServingError(Code.NOT_FOUND, f"Cannot find LogCollector::Factory for type: {collector.type}")
    if not collector.filename_prefix:
        raise _invalid(f"The logging_config of model {name} needs a filename_prefix in its log_collector_config")
    sampling = logging.sampling_config
    for rate in (sampling.sampling_rate, *(each.sampling_rate for each in sampling.per_task_sampling_configs)):
        if not 0 <= rate <= 1:
            raise _invalid(f"The logging_config of model {name} has a sampling_rate that is not 0 to 1: {rate:g}")


def _version_policy(policy: FileSystemStoragePathSourceConfig.ServableVersionPolicy) -> VersionPolicy:
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return AllVersions()
    if choice == "specific":
        return SpecificVersions(tuple(policy.specific.versions))
    # Unset, and zero, both mean the one newest version.
    return LatestVersions(max(policy.latest.num_versions, 1))


def _invalid(message: str) -> ServingError:
    return ServingError(Code.INVALID_ARGUMENT, message)
