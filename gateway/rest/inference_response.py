"""Writes a ClassificationResponse or a RegressionResponse as the JSON a client expects, down to the white space.

Last step of a classify or regress on the REST line; pure, any thread; needs time in proportion to the number of values.
Source: TensorFlow Serving's util/json_tensor.cc (MakeJsonFromClassificationResult, MakeJsonFromRegressionResult).
"""

from functools import cache
from json.encoder import encode_basestring
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from tensorgate.gateway.rest.float_format import format_float32
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.apis import classification_pb2, regression_pb2


def classification_response_json(response: bytes | memoryview) -> bytes:
    """The JSON of a serialized ClassificationResponse: for each example a list of [label, score].

    Raises ServingError(INVALID_ARGUMENT) if there is nothing to write.
    """
    classifications = _raw_response_class().FromString(bytes(response)).result.classifications
    if not classifications:
        raise _empty("ClassificationResults")
    written = ", ".join(f"[{_classes(each.classes)}]" for each in classifications)
    # Bytes that are not UTF-8 were read as surrogate escapes and leave as they were.
    return f'{{\n    "results": [{written}\n    ]\n}}'.encode("utf-8", errors="surrogateescape")


def regression_response_json(response: bytes | memoryview) -> bytes:
    """The JSON of a serialized RegressionResponse: one value for each example.

    Raises ServingError(INVALID_ARGUMENT) if there is nothing to write.
    """
    regressions = regression_pb2.RegressionResponse.FromString(bytes(response)).result.regressions
    if not regressions:
        raise _empty("RegressionResults")
    written = ", ".join(format_float32([each.value for each in regressions]))
    return f'{{\n    "results": [{written}]\n}}'.encode()


def _classes(classes: Any) -> str:
    scores = format_float32([each.score for each in classes])
    labels = [encode_basestring(each.label.decode("utf-8", errors="surrogateescape")) for each in classes]
    return ", ".join(f"[{label}, {score}]" for label, score in zip(labels, scores, strict=True))


@cache
def _raw_response_class() -> Any:
    """ClassificationResponse with labels of type bytes, and without its model_spec.

    A model may have labels that are not UTF-8. They travel as they are, but the message's own class does not parse
    them; on the wire, string and bytes are the same.
    """
    file = descriptor_pb2.FileDescriptorProto()
    classification_pb2.DESCRIPTOR.CopyToProto(file)
    file.name = "raw_classification.proto"
    file.ClearField("dependency")
    for name in ("Class", "ClassificationRequest", "ClassificationResponse"):
        [message] = [each for each in file.message_type if each.name == name]
        if name == "ClassificationRequest":
            file.message_type.remove(message)
            continue
        for field in list(message.field):
            if field.name == "label":
                field.type = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
            elif field.name == "model_spec":
                message.field.remove(field)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.serving.ClassificationResponse"))


def _empty(what: str) -> ServingError:
    return ServingError(Code.INVALID_ARGUMENT, f"Cannot convert empty {what} to JSON")
