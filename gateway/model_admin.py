"""The admin API: reads the configuration back, lists models, adds and removes one. Off unless it is asked for.

Between both edges (rpc/services, rest/admin) and the ModelConfigManager, on the edge loop; answers are the messages of
protos/tensorgate/apis/model_admin.proto, which also says what they mean.

Source: tensorgate's own; upstream has HandleReloadConfigRequest and GetModelStatus only.
"""

from collections.abc import Mapping

from tensorgate.gateway.core.servable_state import ServableState
from tensorgate.gateway.core.servable_state_monitor import ServableStateMonitor
from tensorgate.gateway.model_config_manager import ModelConfigManager
from tensorgate.gateway.reload_outcome import ReloadOutcome
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus
from tensorgate.protos.tensorflow_serving.apis.status_pb2 import StatusProto
from tensorgate.protos.tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig
from tensorgate.protos.tensorgate.apis import model_admin_pb2 as admin_pb2

OFF_TEXT = "The admin API is off. Start the server with --enable_model_admin to have it."


class ModelAdmin:
    """Every method raises ServingError PERMISSION_DENIED where the API is off. On the edge loop."""

    def __init__(self, model_config: ModelConfigManager, monitor: ServableStateMonitor, *, is_enabled: bool) -> None:
        self._model_config = model_config
        self._monitor = monitor
        self._is_enabled = is_enabled

    def get_config(self) -> admin_pb2.GetConfigResponse:
        """The configuration that runs."""
        self.check_enabled()
        return admin_pb2.GetConfigResponse(config=self._model_config.current.config)

    def list_models(self) -> admin_pb2.ListModelsResponse:
        """Configured models in their order, then others that there have been."""
        self.check_enabled()
        base_paths = {model.name: model.base_path for model in self._model_config.current.models}
        return admin_pb2.ListModelsResponse(
            model=[self._entry(name, base_paths) for name in dict.fromkeys([*base_paths, *self._monitor.names()])]
        )

    async def add_model(self, model: ModelConfig) -> admin_pb2.ChangeResponse:
        """Answered when the model is available, or has failed. Raises ServingError where it is refused as it stands."""
        self.check_enabled()
        return _change_response(await self._model_config.add_model(model))

    async def remove_model(self, name: str) -> admin_pb2.ChangeResponse:
        """Answered when no new request reaches the model. Raises ServingError NOT_FOUND."""
        self.check_enabled()
        return _change_response(await self._model_config.remove_model(name))

    async def reload(self, config: ModelServerConfig) -> admin_pb2.ChangeResponse:
        """As HandleReloadConfigRequest. Raises ServingError where the configuration is refused as it stands."""
        self.check_enabled()
        return _change_response(await self._model_config.reload(config))

    def check_enabled(self) -> None:
        """Raises what every method does where the API is off."""
        if not self._is_enabled:
            raise ServingError(Code.PERMISSION_DENIED, OFF_TEXT)

    def _entry(self, name: str, base_paths: Mapping[str, str]) -> admin_pb2.ModelEntry:
        return admin_pb2.ModelEntry(
            name=name,
            configured=name in base_paths,
            base_path=base_paths.get(name, ""),
            model_version_status=[version_status(state) for state in self._monitor.versions(name)],
            version_labels=self._model_config.labels_of(name),
            source_error=self._model_config.source_error(name),
        )


def version_status(state: ServableState) -> ModelVersionStatus:
    """A state as the API has it: both enums by name, and a status that is always there; without an error it is OK."""
    return ModelVersionStatus(version=state.id.version, state=state.state.name, status=_status(state.error))


def _status(error: ServingError | None) -> StatusProto:
    error = error or ServingError(Code.OK, "")
    return StatusProto(error_code=error.code.name, error_message=error.message)


def _change_response(outcome: ReloadOutcome) -> admin_pb2.ChangeResponse:
    if outcome.error is not None and not outcome.models:
        raise outcome.error
    return admin_pb2.ChangeResponse(
        status=_status(outcome.error),
        model=[
            admin_pb2.ModelOutcome(name=model.name, change=model.change.name, status=_status(model.error))
            for model in outcome.models
        ],
    )
