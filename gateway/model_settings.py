"""The model settings file: a text-format ModelSettingsList, tensorgate's own additions to the model config file.

Stands on the model-version line beside config_files. Reading blocks on the file system; everything else is pure and may
run on any thread.

Source: tensorgate's own (protos/tensorgate/config/model_settings.proto); nothing upstream corresponds to it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorgate.config.model_settings_pb2 import ModelSettings, ModelSettingsList
from tensorgate.protos.text_proto import read_text_proto


@dataclass(frozen=True, slots=True)
class SettingsOfModels:
    """``of(name)`` is what holds for one model; messages are shared and not to be modified."""

    defaults: ModelSettings = field(default_factory=ModelSettings)
    named: Mapping[str, ModelSettings] = field(default_factory=lambda: MappingProxyType({}))

    def of(self, name: str) -> ModelSettings:
        """The model's own entry over the defaults."""
        return self.named.get(name, self.defaults)


def read_model_settings(path: str) -> SettingsOfModels:
    """The settings in the file ``path``; an empty path: none. Blocks.

    Raises ServingError: INVALID_ARGUMENT with line and column where the text is no ModelSettingsList, and for a model
    that is named twice; the code of the file system's error where the file cannot be read.
    """
    if not path:
        return SettingsOfModels()
    return settings_of(read_text_proto(path, ModelSettingsList))


def whose(settings: ModelSettings) -> str:
    """What an error about settings begins with: whose they are."""
    return f"Model settings of {settings.name!r}" if settings.name else "Model settings for all models"


def settings_of(settings: ModelSettingsList) -> SettingsOfModels:
    """The list by name. Raises ServingError INVALID_ARGUMENT for a name listed twice."""
    entries: dict[str, ModelSettings] = {}
    for entry in settings.model:
        if entry.name in entries:
            raise ServingError(
                Code.INVALID_ARGUMENT,
                f"Model settings name {entry.name!r} twice" if entry.name else "Model settings have two defaults",
            )
        entries[entry.name] = entry
    defaults = entries.pop("", ModelSettings())
    named = {}
    for name, entry in entries.items():
        merged = ModelSettings()
        merged.CopyFrom(defaults)
        if entry.workers:  # in place of the defaults' list, not added to it
            merged.ClearField("workers")
        merged.MergeFrom(entry)
        named[name] = merged
    return SettingsOfModels(defaults, MappingProxyType(named))
