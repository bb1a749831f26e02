"""A request message as the body of a POST: which model it is for, and what the worker gets.

Second step of a request with Content-Type application/x-protobuf on the REST line; pure functions, any thread. Only the
model_spec is read out of the message; its tensors or examples are the worker's business, as they are over gRPC.

TensorFlow Serving has no such requests. The URL names the model here too, so the model_spec need not; where it does,
both must say the same.
"""

from tensorgate._native.proto_scan import ScanError, scan_model_spec
from tensorgate.gateway.core.model_spec import ModelSpec
from tensorgate.gateway.rest.inference_request import fill_model_spec
from tensorgate.gateway.rest.url_grammar import ModelAddress
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.apis import predict_pb2


def read_model_spec(body: bytes, model: ModelAddress, message_name: str) -> ModelSpec:
    """What URL and message ask for together. message_name: what the body should be, e.g. PredictRequest.

    Raises ServingError(INVALID_ARGUMENT) for a body that is no such message, and for one that contradicts the URL.
    """
    try:
        name, version, version_label, signature_name = scan_model_spec(body)
    except ScanError as error:
        raise _invalid(f"The request body is not a serialized tensorflow.serving.{message_name}: {error}") from error
    if name and name != model.name:
        raise _invalid(f'The URL names model "{model.name}", the model_spec of the request body "{name}".')
    if model.version is None and model.version_label is None:
        return ModelSpec(model.name, version, version_label, signature_name)
    if version is not None or version_label is not None:
        asked, named = _choice(version, version_label), _choice(model.version, model.version_label)
        if asked != named:
            raise _invalid(f"The URL names {named}, the model_spec of the request body {asked}.")
    return ModelSpec(model.name, model.version, model.version_label, signature_name)


def with_model_spec(body: bytes, model_spec: ModelSpec) -> bytes:
    """The message, whose model_spec says what ``model_spec`` says: the worker reads nothing else.

    ``model_spec`` is that of read_model_spec, of a model that exists. Copies the message if something was missing.
    """
    name, version, version_label, _ = scan_model_spec(body)
    if (name, version, version_label) == (model_spec.name, model_spec.version, model_spec.version_label):
        return body
    # A repeated field of message type is merged with what came before; field 1 is the same in all requests.
    added = predict_pb2.PredictRequest()
    fill_model_spec(added.model_spec, model_spec)
    return body + added.SerializeToString()


def _choice(version: int | None, version_label: str | None) -> str:
    return f"version {version}" if version is not None else f'label "{version_label}"'


def _invalid(message: str) -> ServingError:
    return ServingError(Code.INVALID_ARGUMENT, message)
