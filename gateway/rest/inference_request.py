"""Turns the JSON of a classify or regress into its request message, with TensorFlow Serving's checks in their order.

Second step of a classify or regress on the REST line; pure functions, any thread. All of the JSON is read before the
model is looked up, since examples need no signature: a fault in them is reported before an unknown model.
Source: TensorFlow Serving's util/json_tensor.cc (FillClassifyRegressRequestFromJson, MakeExampleFromJsonObject).
"""

from dataclasses import dataclass

from tensorgate.gateway.core.model_spec import ModelSpec
from tensorgate.gateway.rest.json_value import JsonValue, RepeatedKeysObject, debug_string, json_type_name
from tensorgate.gateway.rest.predict_request import parse_request
from tensorgate.gateway.rest.tensor_values import convert_value, is_base64_object
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow.core.example import example_pb2, feature_pb2
from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow_serving.apis import classification_pb2, input_pb2, model_pb2

_CONTEXT_KEY = "context"
_EXAMPLES_KEY = "examples"
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
_UINT64_MAX = 2**64 - 1


@dataclass(frozen=True, slots=True)
class InferenceDocument:
    """What a request's JSON says, apart from the model, which its URL names."""

    request: bytes
    """A serialized ClassificationRequest that has the examples only."""
    signature_name: str


def parse_inference_request(body: bytes) -> InferenceDocument:
    """The examples, and the signature they are for. Raises ServingError(INVALID_ARGUMENT)."""
    document = parse_request(body)
    root = document.root
    made = input_pb2.Input()
    if _CONTEXT_KEY in root:
        _fill_example(made.example_list_with_context.context, root[_CONTEXT_KEY])
    if _EXAMPLES_KEY not in root:
        # The text says "classify" for a regress too.
        raise _invalid(
            f"JSON Value: {debug_string(root)} When method is classify, key '{_EXAMPLES_KEY}' is expected and was not "
            "found"
        )
    examples = root[_EXAMPLES_KEY]
    if not isinstance(examples, list):
        raise _invalid(f"JSON Value: {debug_string(root)} Expecting '{_EXAMPLES_KEY}' value to be an list/array")
    if not examples:
        raise _invalid(f"JSON Value: {debug_string(root)} '{_EXAMPLES_KEY}' value is an empty array")
    filled = made.example_list_with_context if _CONTEXT_KEY in root else made.example_list
    for example in examples:
        _fill_example(filled.examples.add(), example)
    request = classification_pb2.ClassificationRequest(input=made)
    return InferenceDocument(request.SerializeToString(), document.signature_name)


def inference_request(document: InferenceDocument, model_spec: ModelSpec) -> bytes:
    """The serialized ClassificationRequest; a RegressionRequest has the same fields, and so the same bytes.

    model_spec is of a model that exists. Raises ServingError(INVALID_ARGUMENT) for a signature name that is not UTF-8,
    which no signature has and no message can hold.
    """
    model = classification_pb2.ClassificationRequest()
    try:
        fill_model_spec(model.model_spec, model_spec)
    except UnicodeEncodeError:
        raise _invalid(f"No signature was found with the name: {model_spec.signature_name}") from None
    # Two messages behind each other are one that has the fields of both.
    return model.SerializeToString() + document.request


def fill_model_spec(message: model_pb2.ModelSpec, model_spec: ModelSpec) -> None:
    """Writes a model_spec as its client gave it. Raises UnicodeEncodeError for text that is not UTF-8."""
    message.name = model_spec.name
    if model_spec.version is not None:
        message.version.value = model_spec.version
    if model_spec.version_label is not None:
        message.version_label = model_spec.version_label
    message.signature_name = model_spec.signature_name


def _fill_example(example: example_pb2.Example, value: JsonValue) -> None:
    if not isinstance(value, dict):
        raise _invalid(f"Example must be JSON object but got JSON {json_type_name(value)}")
    # Of features with the same name the last counts, where elsewhere the first does; each of them is checked.
    members = value.pairs if isinstance(value, RepeatedKeysObject) else value.items()
    features = example.features.feature
    example.features.SetInParent()
    for name, content in members:
        feature = _feature(name, content)
        try:
            features[name].CopyFrom(feature)
        except UnicodeEncodeError:
            raise _invalid(f"Feature: {name} has a name that is not UTF-8") from None


def _feature(name: str, content: JsonValue) -> feature_pb2.Feature:
    """One feature from a value or a list of values, all of the kind of the first; no kind at all for an empty list."""
    feature = feature_pb2.Feature()
    values = content if isinstance(content, list) else [content]
    kind = ""
    converted = []
    for value in values:
        its_kind, element = _convert(name, value)
        kind = kind or its_kind
        if its_kind != kind:
            raise _invalid(f"Unexpected element type in feature: {name} expecting type: {kind}")
        converted.append(element)
    if converted:
        getattr(feature, f"{kind}_list").value.extend(converted)
    return feature


def _convert(name: str, value: JsonValue) -> tuple[str, bytes | int | float]:
    """The kind of one value, in the words of error texts and of Feature's fields, and the value as that kind has it."""
    if isinstance(value, str) or is_base64_object(value):
        return "bytes", convert_value(value, types_pb2.DT_STRING)
    if isinstance(value, float):
        return "float", value
    if isinstance(value, int):  # true and false among them
        if _INT64_MIN <= value <= _INT64_MAX:
            return "int64", int(value)
        if 0 < value <= _UINT64_MAX:
            raise _invalid(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
        # An integer that 64 bits cannot hold is a double to TensorFlow Serving's parser.
        return "float", float(value)
    raise _invalid(f"Feature: {name} has element with unexpected JSON type: {json_type_name(value)}")


def _invalid(message: str) -> ServingError:
    return ServingError(Code.INVALID_ARGUMENT, message)
