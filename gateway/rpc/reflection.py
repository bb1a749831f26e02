"""grpc.reflection, v1 and v1alpha: which services there are, and their messages, for grpcurl and the like.

On the control plane; both edges hand its calls over, on the edge loop. The two versions differ in their names only, so
one implementation on v1's messages serves both.

Source: gRPC's doc/server-reflection.md.
"""

import asyncio
from collections.abc import Callable, Sequence

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import DecodeError

from tensorgate.gateway.rpc.incoming_call import Handler, IncomingCall
from tensorgate.protos.grpc.health.v1 import health_pb2
from tensorgate.protos.grpc.reflection.v1 import reflection_pb2
from tensorgate.protos.grpc.reflection.v1.reflection_pb2 import (
    ErrorResponse,
    FileDescriptorResponse,
    ServerReflectionRequest,
    ServerReflectionResponse,
)
from tensorgate.protos.grpc.reflection.v1alpha import reflection_pb2 as alpha_pb2
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.apis import model_service_pb2, prediction_service_pb2, session_service_pb2

# The files of the services that are served: being imported puts them into protobuf's pool.
_FILES: Sequence[FileDescriptor] = (
    prediction_service_pb2.DESCRIPTOR,
    model_service_pb2.DESCRIPTOR,
    session_service_pb2.DESCRIPTOR,
    health_pb2.DESCRIPTOR,
    reflection_pb2.DESCRIPTOR,
    alpha_pb2.DESCRIPTOR,
)
SERVICES = tuple(sorted(service.full_name for file in _FILES for service in file.services_by_name.values()))

# How often an open call looks whether the server ends.
END_POLL_S = 0.25


class ReflectionService:
    """ServerReflectionInfo as a handler for both edges; ``is_ending`` ends calls that clients leave open."""

    def __init__(self, is_ending: Callable[[], bool]) -> None:
        self._is_ending = is_ending

    @property
    def handlers(self) -> dict[str, Handler]:
        """Path to handler."""
        return {
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo": self.reflect
            for version in ("v1", "v1alpha")
        }

    async def reflect(self, call: IncomingCall) -> None:
        """Answers each request of the stream with one response, until the client has sent its last."""
        while True:
            request = await self._read(call)
            if request is None:
                return
            await call.write(answer(request))

    async def _read(self, call: IncomingCall) -> bytes | None:
        reading = asyncio.ensure_future(call.read())
        try:
            while not reading.done():
                if self._is_ending():
                    raise ServingError(Code.UNAVAILABLE, "The server is shutting down.")
                await asyncio.wait({reading}, timeout=END_POLL_S)
            return reading.result()
        finally:
            reading.cancel()


def answer(request: bytes) -> bytes:
    """A serialized ServerReflectionRequest to a serialized response; what is not found is an error in the response.

    Raises ServingError INTERNAL with an empty message for bytes that are no message.
    """
    try:
        asked = ServerReflectionRequest.FromString(request)
    except DecodeError as error:
        raise ServingError(Code.INTERNAL, "") from error
    response = ServerReflectionResponse(valid_host=asked.host, original_request=asked)
    pool = descriptor_pool.Default()
    kind = asked.WhichOneof("message_request")
    try:
        if kind == "list_services":
            for name in SERVICES:
                response.list_services_response.service.add(name=name)
        elif kind == "file_by_filename":
            response.file_descriptor_response.CopyFrom(_with_imports(pool.FindFileByName(asked.file_by_filename)))
        elif kind == "file_containing_symbol":
            file = pool.FindFileContainingSymbol(asked.file_containing_symbol)
            response.file_descriptor_response.CopyFrom(_with_imports(file))
        elif kind == "file_containing_extension":
            wanted = asked.file_containing_extension
            message = pool.FindMessageTypeByName(wanted.containing_type)
            extension = pool.FindExtensionByNumber(message, wanted.extension_number)
            response.file_descriptor_response.CopyFrom(
                _with_imports(pool.FindFileContainingSymbol(extension.full_name))
            )
        elif kind == "all_extension_numbers_of_type":
            message = pool.FindMessageTypeByName(asked.all_extension_numbers_of_type)
            numbers = response.all_extension_numbers_response
            numbers.base_type_name = message.full_name
            numbers.extension_number.extend(sorted(each.number for each in pool.FindAllExtensions(message)))
        else:
            response.error_response.CopyFrom(
                ErrorResponse(error_code=Code.INVALID_ARGUMENT, error_message="the request asks for nothing")
            )
    except KeyError:
        response.error_response.CopyFrom(ErrorResponse(error_code=Code.NOT_FOUND, error_message="not found"))
    return response.SerializeToString()


def _with_imports(file: FileDescriptor) -> FileDescriptorResponse:
    """The file, and all that it imports directly or not, each once."""
    found: dict[str, bytes] = {}
    waiting = [file]
    while waiting:
        each = waiting.pop()
        if each.name not in found:
            found[each.name] = each.serialized_pb
            waiting.extend(each.dependencies)
    return FileDescriptorResponse(file_descriptor_proto=found.values())
