"""GetModelMetadata: the signatures of a loaded version.

On the control plane; called by the gRPC edge on the edge loop.

Source: tensorflow_serving/servables/tensorflow/get_model_metadata_impl.cc (order of the checks, texts).
"""

from typing import Protocol

from google.protobuf.message import DecodeError

from tensorgate.gateway.core.model_spec import ModelSpec
from tensorgate.gateway.dispatch.route_table import Pin
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.apis.get_model_metadata_pb2 import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
)

SIGNATURE_DEF = "signature_def"
SIGNATURE_DEF_TYPE = "type.googleapis.com/tensorflow.serving.SignatureDefMap"


class Resolver(Protocol):
    """The part of the dispatcher that is needed here."""

    def resolve(self, model_spec: ModelSpec) -> Pin: ...


def get_model_metadata(resolver: Resolver, request: bytes) -> bytes:
    """A serialized GetModelMetadataRequest to a serialized response, with the signatures as the model has them.

    Raises ServingError: INTERNAL with an empty message for bytes that are no message, INVALID_ARGUMENT without a
    model_spec or with other fields than ``signature_def``, and the errors of a lookup.
    """
    try:
        message = GetModelMetadataRequest.FromString(request)
    except DecodeError as error:
        raise ServingError(Code.INTERNAL, "") from error
    if not message.HasField("model_spec"):
        raise ServingError(Code.INVALID_ARGUMENT, "Missing ModelSpec")
    if not message.metadata_field:
        raise ServingError(Code.INVALID_ARGUMENT, "GetModelMetadataRequest must specify at least one metadata_field")
    for field in message.metadata_field:
        if field != SIGNATURE_DEF:
            raise ServingError(Code.INVALID_ARGUMENT, f"Metadata field {field} is not supported")
    spec = message.model_spec
    pin = resolver.resolve(
        ModelSpec(
            spec.name,
            spec.version.value if spec.HasField("version") else None,
            spec.version_label if spec.HasField("version_label") else None,
        )
    )
    response = GetModelMetadataResponse()
    try:
        response.model_spec.name = pin.servable_id.name
        response.model_spec.version.value = pin.servable_id.version
        signatures = response.metadata[SIGNATURE_DEF]
        signatures.type_url = SIGNATURE_DEF_TYPE
        signatures.value = pin.signature_def_map
    finally:
        pin.release()
    return response.SerializeToString()
