"""tensorflow.serving.ModelService: what GetModelStatus and HandleReloadConfigRequest answer.

On the control plane; called by the gRPC edge on the edge loop.

Source: tensorflow_serving/model_servers/get_model_status_impl.cc, model_service_impl.cc.
"""

from collections.abc import Callable
from typing import Protocol

from google.protobuf.message import DecodeError

from tensorgate.gateway.model_admin import version_status
from tensorgate.gateway.model_status import StateMonitor, version_states
from tensorgate.gateway.reload_outcome import ReloadOutcome
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.apis.get_model_status_pb2 import (
    GetModelStatusRequest,
    GetModelStatusResponse,
)
from tensorgate.protos.tensorflow_serving.apis.model_management_pb2 import (
    Metric,
    ReloadConfigRequest,
    ReloadConfigResponse,
)
from tensorgate.protos.tensorflow_serving.apis.status_pb2 import StatusProto
from tensorgate.protos.tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig


class Reloader(Protocol):
    """The part of ModelConfigManager that is called here."""

    async def reload(self, config: ModelServerConfig) -> ReloadOutcome:
        """Puts a configuration in place of the current one; goes on when the caller is cancelled."""
        ...


class ModelService:
    """Reads the state monitor, and passes reloads on. The status may be asked for from any thread, and never blocks."""

    def __init__(self, monitor: StateMonitor, reloader: Reloader, first_point: Callable[[str], int]) -> None:
        """``first_point``: ServingMetrics.first_point, for those who ask how far a reload has moved a metric."""
        self._monitor = monitor
        self._reloader = reloader
        self._first_point = first_point

    def get_model_status(self, request: bytes) -> bytes:
        """A serialized GetModelStatusRequest to a serialized response; a version_label is ignored, as upstream.

        Raises ServingError: INTERNAL with an empty message for bytes that are no message, INVALID_ARGUMENT without a
        model_spec, and those of ``model_status``.
        """
        try:
            message = GetModelStatusRequest.FromString(request)
        except DecodeError as error:
            raise ServingError(Code.INTERNAL, "") from error
        if not message.HasField("model_spec"):
            raise ServingError(Code.INVALID_ARGUMENT, "Missing ModelSpec")
        spec = message.model_spec
        version = spec.version.value if spec.HasField("version") else None
        return self.model_status(spec.name, version).SerializeToString()

    async def handle_reload_config_request(self, request: bytes) -> bytes:
        """A serialized ReloadConfigRequest to a serialized response, once the new models are available.

        The response's status is OK always: what is not becomes the call's. Raises ServingError: INTERNAL with an empty
        message for bytes that are no message, INVALID_ARGUMENT for a configuration that is no list of models, and those
        of the reload.
        """
        try:
            message = ReloadConfigRequest.FromString(request)
        except DecodeError as error:
            raise ServingError(Code.INTERNAL, "") from error
        if message.config.WhichOneof("config") != "model_config_list":
            raise ServingError(
                Code.INVALID_ARGUMENT,
                "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently"
                " supported",
            )
        before = {name: self._first_point(name) for name in message.metric_names}
        outcome = await self._reloader.reload(message.config)
        if outcome.error is not None:
            raise outcome.error
        return ReloadConfigResponse(
            status=StatusProto(),
            metric=[
                Metric(name=name, int64_value_increase=self._first_point(name) - value)
                for name, value in before.items()
            ],
        ).SerializeToString()

    def model_status(self, name: str, version: int | None) -> GetModelStatusResponse:
        """The states of one version, or of all known ones in descending order, ended ones included.

        Raises ServingError NOT_FOUND when there is none.
        """
        states = version_states(self._monitor, name, version)
        return GetModelStatusResponse(model_version_status=[version_status(state) for state in states])
