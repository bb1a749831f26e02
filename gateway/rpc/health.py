"""grpc.health.v1.Health: whether the server, a service or a model can serve, asked once or watched.

On the control plane; both edges hand its calls over, on the edge loop. A model goes by its name in the configuration.

Source: gRPC's doc/health-checking.md; of the services' short names, TensorFlow Serving's model_servers/server.cc.
"""

import asyncio
from typing import Protocol

from google.protobuf.message import DecodeError

from tensorgate.gateway.rpc.incoming_call import Handler, IncomingCall, unary
from tensorgate.protos.grpc.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from tensorgate.protos.status_codes import Code, ServingError

# Those that a client may ask about; upstream registers the short names.
SERVICES = frozenset(
    {
        "",
        "PredictionService",
        "ModelService",
        "tensorflow.serving.PredictionService",
        "tensorflow.serving.ModelService",
        "tensorflow.serving.SessionService",
    }
)

# A watch looks so often: a worker's end and its return are nobody's event here, and half a second is soon enough.
WATCH_INTERVAL_S = 0.25

_Status = HealthCheckResponse


class ReadinessView(Protocol):
    """The part of Readiness that is read here."""

    @property
    def trouble(self) -> str: ...

    @property
    def is_ending(self) -> bool: ...

    def model_trouble(self, name: str) -> str:
        """Empty while the model is served."""
        ...

    def knows_model(self, name: str) -> bool:
        """Whether the model is configured."""
        ...


class HealthService:
    """Check and Watch, as handlers for both edges."""

    def __init__(self, readiness: ReadinessView) -> None:
        self._readiness = readiness

    @property
    def handlers(self) -> dict[str, Handler]:
        """Path to handler."""
        return {
            "/grpc.health.v1.Health/Check": unary(self.check),
            "/grpc.health.v1.Health/Watch": self.watch,
        }

    def check(self, request: bytes) -> bytes:
        """A serialized HealthCheckRequest to a serialized response.

        Raises ServingError: NOT_FOUND for what is neither a service nor a configured model, INTERNAL with an empty
        message for bytes that are no message.
        """
        status = self._status(_service_of(request))
        if status == _Status.SERVICE_UNKNOWN:
            raise ServingError(Code.NOT_FOUND, "unknown service")
        return HealthCheckResponse(status=status).SerializeToString()

    async def watch(self, call: IncomingCall) -> None:
        """Handler of Watch: the status, and each that differs from the one before, until the client or we end."""
        request = await call.read()
        if request is None:
            raise ServingError(Code.INTERNAL, "")
        service = _service_of(request)
        told = None
        while True:
            is_ending = self._readiness.is_ending
            status = self._status(service)
            if status != told:
                await call.write(HealthCheckResponse(status=status).SerializeToString())
                told = status
            if is_ending:
                # Else the server could not drain.
                raise ServingError(Code.UNAVAILABLE, "The server is shutting down.")
            await asyncio.sleep(WATCH_INTERVAL_S)

    def _status(self, service: str) -> "HealthCheckResponse.ServingStatus":
        readiness = self._readiness
        if service in SERVICES:
            trouble = readiness.trouble
        elif readiness.knows_model(service):
            trouble = readiness.model_trouble(service)
        else:
            return _Status.SERVICE_UNKNOWN
        return _Status.NOT_SERVING if trouble else _Status.SERVING


def _service_of(request: bytes) -> str:
    try:
        return HealthCheckRequest.FromString(request).service
    except DecodeError as error:
        raise ServingError(Code.INTERNAL, "") from error
