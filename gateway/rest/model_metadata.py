"""Writes a version's signatures as GetModelMetadata shows them over REST.

Pure; any thread.
Source: TensorFlow Serving's model_servers/http_rest_api_handler.cc (two protobuf JSON dumps put into one object).
"""

import json

from google.protobuf.json_format import MessageToDict

from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.protos.tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap


def model_metadata_json(servable_id: ServableId, signatures: SignatureDefMap) -> bytes:
    """The JSON: names as in the .proto files, fields without a value shown, ``signature_def`` twice, as upstream."""
    document = {
        "model_spec": {"name": servable_id.name, "signature_name": "", "version": str(servable_id.version)},
        "metadata": {
            "signature_def": MessageToDict(
                signatures, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
            )
        },
    }
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode("utf-8", errors="surrogateescape")
