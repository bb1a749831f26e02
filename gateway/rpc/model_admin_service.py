"""tensorgate.ModelAdmin: the admin API over gRPC.

On the control plane; called by the gRPC edge on the edge loop.

Source: tensorgate's own (protos/tensorgate/apis/model_admin.proto).
"""

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from tensorgate.gateway.model_admin import ModelAdmin
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorgate.apis import model_admin_pb2 as admin_pb2

_Message = TypeVar("_Message", bound=Message)


class ModelAdminService:
    """Serialized requests to serialized responses. Raises ServingError: the admin API's, or INTERNAL for no message."""

    def __init__(self, admin: ModelAdmin) -> None:
        self._admin = admin

    def get_config(self, request: bytes) -> bytes:
        _parsed(admin_pb2.GetConfigRequest, request)
        return self._admin.get_config().SerializeToString()

    def list_models(self, request: bytes) -> bytes:
        _parsed(admin_pb2.ListModelsRequest, request)
        return self._admin.list_models().SerializeToString()

    async def add_model(self, request: bytes) -> bytes:
        message = _parsed(admin_pb2.AddModelRequest, request)
        return (await self._admin.add_model(message.model)).SerializeToString()

    async def remove_model(self, request: bytes) -> bytes:
        message = _parsed(admin_pb2.RemoveModelRequest, request)
        return (await self._admin.remove_model(message.name)).SerializeToString()

    async def reload(self, request: bytes) -> bytes:
        message = _parsed(admin_pb2.ReloadRequest, request)
        return (await self._admin.reload(message.config)).SerializeToString()


def _parsed(kind: type[_Message], request: bytes) -> _Message:
    try:
        return kind.FromString(request)
    except DecodeError as error:
        raise ServingError(Code.INTERNAL, "") from error
