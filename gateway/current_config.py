"""What runs: the configuration as a message, as values, and with the settings that stand beside it.

The value that ModelConfigManager replaces at a reload. Immutable, free of threads.

Source: tensorgate's own; upstream's ServerCore keeps the message.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tensorgate.gateway.config_files import ModelConfig
from tensorgate.gateway.model_settings import SettingsOfModels
from tensorgate.gateway.sources.file_system_storage_path_source import ServableToMonitor
from tensorgate.protos.tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig


@dataclass(frozen=True, slots=True)
class CurrentConfig:
    """What runs. ``config`` is shared and not to be modified."""

    config: ModelServerConfig
    models: tuple[ModelConfig, ...]
    settings: SettingsOfModels


def servables_of(models: Sequence[ModelConfig], settings: SettingsOfModels) -> list[ServableToMonitor]:
    """What the source has to look at."""
    return [
        ServableToMonitor(model.name, model.base_path, model.version_policy, settings.of(model.name).done_marker_file)
        for model in models
    ]
