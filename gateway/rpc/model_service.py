"""tensorflow.serving.ModelService: what GetModelStatus answers.

On the control plane; called by the gRPC edge on the edge loop.

Source: tensorflow_serving/model_servers/get_model_status_impl.cc.
"""

from google.protobuf.message import DecodeError

from tensorgate.gateway.core.servable_state import ServableState
from tensorgate.gateway.model_status import StateMonitor, version_states
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.apis.get_model_status_pb2 import (
    GetModelStatusRequest,
    GetModelStatusResponse,
    ModelVersionStatus,
)
from tensorgate.protos.tensorflow_serving.apis.status_pb2 import StatusProto


class ModelService:
    """Reads the state monitor; thread-safe, never blocks."""

    def __init__(self, monitor: StateMonitor) -> None:
        self._monitor = monitor

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

    def model_status(self, name: str, version: int | None) -> GetModelStatusResponse:
        """The states of one version, or of all known ones in descending order, ended ones included.

        Raises ServingError NOT_FOUND when there is none.
        """
        states = version_states(self._monitor, name, version)
        return GetModelStatusResponse(model_version_status=[_describe(state) for state in states])


def _describe(state: ServableState) -> ModelVersionStatus:
    # Both enums go by name. The status is always there; without an error it says OK.
    error = state.error if state.error is not None else ServingError(Code.OK, "")
    return ModelVersionStatus(
        version=state.id.version,
        state=state.state.name,
        status=StatusProto(error_code=error.code.name, error_message=error.message),
    )
