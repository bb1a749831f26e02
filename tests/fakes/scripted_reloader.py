"""Stands in for ModelConfigManager where reloads are passed on: each is recorded and ends the same way."""

from tensorgate.gateway.reload_outcome import ReloadOutcome
from tensorgate.protos.status_codes import ServingError
from tensorgate.protos.tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig


class ScriptedReloader:
    """A Reloader."""

    def __init__(self, error: ServingError | None = None) -> None:
        self.outcome = ReloadOutcome((), error)
        self.configs: list[ModelServerConfig] = []

    async def reload(self, config: ModelServerConfig) -> ReloadOutcome:
        self.configs.append(config)
        return self.outcome
