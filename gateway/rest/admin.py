"""The admin API over REST: /v1/admin/config and /v1/admin/models.

Beside the handlers of the API on the REST loop; what is asked for happens on the edge loop. Bodies are the JSON forms
of ModelConfig and ModelServerConfig, answers those of protos/tensorgate/apis/model_admin.proto.

Source: tensorgate's own; nothing upstream corresponds to it.
"""

import asyncio
from typing import TypeVar
from urllib.parse import unquote_to_bytes

from google.protobuf import json_format
from google.protobuf.message import Message

from tensorgate.gateway.model_admin import ModelAdmin
from tensorgate.gateway.rest.http_messages import JSON_TYPE, Answer, RequestHead
from tensorgate.gateway.rest.status_codes import http_status
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig
from tensorgate.protos.tensorgate.apis.model_admin_pb2 import ChangeResponse

PREFIX = b"/v1/admin"
_MODELS = PREFIX + b"/models"
_CONFIG = PREFIX + b"/config"

_Message = TypeVar("_Message", bound=Message)


def is_admin_path(raw_path: bytes) -> bool:
    """Whether the path belongs to the admin API; compared with its case."""
    return raw_path == PREFIX or raw_path.startswith(PREFIX + b"/")


class AdminPages:
    """GET and PUT of the configuration, GET and POST of models, DELETE of one."""

    def __init__(self, admin: ModelAdmin, edge_loop: asyncio.AbstractEventLoop) -> None:
        self._admin = admin
        self._edge_loop = edge_loop

    async def answer(self, head: RequestHead, body: bytes) -> Answer:
        """The whole of a request; a change is answered when it is done, and goes on when its client leaves.

        Raises ServingError.
        """
        if head.has_http_origin:
            # Browsers send the origin of the page: nobody's page may administer the servers that its reader can reach.
            raise ServingError(Code.PERMISSION_DENIED, "The admin API takes no requests of web pages.")
        message = await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._do(head, body), self._edge_loop))
        status = 200
        if isinstance(message, ChangeResponse) and message.status.error_code:
            status = http_status(Code(message.status.error_code))
        text = json_format.MessageToJson(
            message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        return Answer(status, f"{text}\n".encode("utf-8", "replace"), JSON_TYPE)

    async def _do(self, head: RequestHead, body: bytes) -> Message:
        verb, path = head.verb, head.raw_path
        if (verb, path) == ("GET", _CONFIG):
            return self._admin.get_config()
        if (verb, path) == ("PUT", _CONFIG):
            return await self._admin.reload(_parsed(ModelServerConfig, body))
        if (verb, path) == ("GET", _MODELS):
            return self._admin.list_models()
        if (verb, path) == ("POST", _MODELS):
            return await self._admin.add_model(_parsed(ModelConfig, body))
        if verb == "DELETE" and path.startswith(_MODELS + b"/"):
            name = unquote_to_bytes(path[len(_MODELS) + 1 :]).decode("utf-8", "replace")
            return await self._admin.remove_model(name)
        self._admin.check_enabled()
        raise ServingError(
            Code.INVALID_ARGUMENT,
            f"Malformed request: {verb} {path.decode('utf-8', 'replace')}. The admin API has GET and PUT of"
            f" {_CONFIG.decode()}, GET and POST of {_MODELS.decode()}, and DELETE of {_MODELS.decode()}/NAME.",
        )


def _parsed(kind: type[_Message], body: bytes) -> _Message:
    message = kind()
    try:
        json_format.Parse(body, message)
    except (json_format.ParseError, UnicodeDecodeError) as error:
        text = f"The body is not the JSON of a {message.DESCRIPTOR.full_name}: {error}"
        raise ServingError(Code.INVALID_ARGUMENT, text) from error
    return message
