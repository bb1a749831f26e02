"""Turns the JSON body of a predict into a PredictRequest, with TensorFlow Serving's checks in their order.

Second and third step of a predict on the REST line; pure functions, any thread. They are two steps because the model is
looked up between them: a body that is no JSON is reported before an unknown model, everything else after it.

There are two ways. Bodies with nothing unusual in them go through _native/json_request, where no number becomes a
Python object and large bodies leave the GIL to others. It says nothing but no: then the exact way, which is the rest of
this module, reads the body again and decides. Both make the same tensors of what both accept, only that the quick way
writes integers into tensor_content.

Source: TensorFlow Serving's util/json_tensor.cc (FillPredictRequestFromJson), model_servers/http_rest_api_handler.cc.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from tensorgate._native.json_request import JsonRequest, read_request
from tensorgate.gateway.core.model_spec import ModelSpec
from tensorgate.gateway.rest.json_parse import parse_json
from tensorgate.gateway.rest.json_to_tensors import RowTensor, tensor_from_json, tensor_from_rows
from tensorgate.gateway.rest.json_value import JsonValue, debug_string
from tensorgate.gateway.rest.tensor_values import is_base64_object
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow.core.framework import tensor_pb2
from tensorgate.protos.tensorflow.core.protobuf import meta_graph_pb2
from tensorgate.protos.tensorflow_serving.apis import get_model_metadata_pb2, model_pb2, predict_pb2

DEFAULT_SIGNATURE = "serving_default"
_SIGNATURE_KEY = "signature_name"
_ROWS_KEY = "instances"
_COLUMNS_KEY = "inputs"
_SEVERAL_INPUTS = "as multiple input tensors required as per tensorinfo_map"


class RequestForm(Enum):
    """How a request's JSON lays out its tensors; the response is laid out in the same way."""

    ROWS = "instances"
    COLUMNS = "inputs"


@dataclass(frozen=True, slots=True)
class RequestDocument:
    """A request's JSON once it is known to be an object, and the signature it names ("" if it names none)."""

    root: dict[str, JsonValue]
    signature_name: str


def parse_predict_request(body: bytes) -> JsonRequest | RequestDocument:
    """The checks that need no model, quickly where that is possible. Raises ServingError(INVALID_ARGUMENT)."""
    return read_request(body) or parse_request(body)


def parse_request(body: bytes) -> RequestDocument:
    """The checks that need no model, for any body. Raises ServingError(INVALID_ARGUMENT)."""
    root = parse_json(body)
    if not isinstance(root, dict):
        raise _invalid(f"JSON Value: {debug_string(root)} Is not object")
    signature_name = root.get(_SIGNATURE_KEY, "")
    if not isinstance(signature_name, str):
        raise _invalid(
            f"JSON Value: {debug_string(root)} not formatted correctly. '{_SIGNATURE_KEY}' key must be a string value."
        )
    return RequestDocument(root, signature_name)


def find_signature(
    signatures: get_model_metadata_pb2.SignatureDefMap, signature_name: str
) -> meta_graph_pb2.SignatureDef:
    """The signature of that name, "" being the default one. Raises ServingError(INVALID_ARGUMENT) if there is none."""
    name = signature_name or DEFAULT_SIGNATURE
    # A name with surrogate escapes (bytes that were not UTF-8) cannot even be asked for.
    if name.isascii() or _is_unicode(name):
        signature = signatures.signature_def.get(name)
        if signature is not None:
            return signature
    raise _invalid(f'Serving signature name: "{name}" not found in signature def')


def input_dtypes(signature: meta_graph_pb2.SignatureDef, signature_name: str) -> dict[str, int]:
    """The dtypes of the inputs by their aliases. Raises ServingError(INVALID_ARGUMENT) where there are none."""
    if not signature.inputs:
        raise _invalid(f"Failed to get input map for signature: {signature_name or 'DEFAULT'}")
    return {name: int(info.dtype) for name, info in signature.inputs.items()}


def model_spec_bytes(model_spec: ModelSpec, signature_name: str) -> bytes:
    """The serialized message, with what the client gave and nothing else."""
    message = model_pb2.ModelSpec(
        name=model_spec.name, version_label=model_spec.version_label, signature_name=signature_name
    )
    if model_spec.version is not None:
        message.version.value = model_spec.version
    return message.SerializeToString()


def build_predict_request(
    document: JsonRequest | RequestDocument,
    body: bytes,
    signature: meta_graph_pb2.SignatureDef,
    model_spec: ModelSpec,
) -> tuple[bytes, RequestForm]:
    """The serialized PredictRequest, and the form to answer in.

    document is what parse_predict_request (or parse_request) made of the body; model_spec goes into the request as the
    client gave it. Raises ServingError: INVALID_ARGUMENT, or UNIMPLEMENTED for a dtype that JSON cannot carry.
    """
    dtypes = input_dtypes(signature, document.signature_name)
    spec = model_spec_bytes(model_spec, document.signature_name)
    if isinstance(document, JsonRequest):
        return build_quickly(document, dtypes, spec) or build_exactly(parse_request(body), dtypes, spec)
    return build_exactly(document, dtypes, spec)


def build_quickly(document: JsonRequest, dtypes: dict[str, int], model_spec: bytes) -> tuple[bytes, RequestForm] | None:
    """As build_exactly; None for a body that native code does not take. Releases the GIL for large bodies."""
    payload = document.serialize(model_spec, dtypes)
    if payload is None:
        return None
    return payload, RequestForm.ROWS if document.is_row_form else RequestForm.COLUMNS


def build_exactly(document: RequestDocument, dtypes: Mapping[str, int], model_spec: bytes) -> tuple[bytes, RequestForm]:
    """The serialized PredictRequest, and the form to answer in, of any document; model_spec is a serialized ModelSpec.

    Raises ServingError as build_predict_request does.
    """
    root = document.root
    if _ROWS_KEY in root and _COLUMNS_KEY in root:
        # The blank at the end is part of the text.
        raise _invalid(
            f"JSON Value: {debug_string(root)} Not formatted correctly expecting only one of "
            f"'{_COLUMNS_KEY}' or '{_ROWS_KEY}' keys to exist "
        )
    if _ROWS_KEY in root:
        rows = root[_ROWS_KEY]
        if not isinstance(rows, list):
            raise _invalid(f"JSON Value: {debug_string(root)} Expecting '{_ROWS_KEY}' to be an list/array")
        if not rows:
            raise _invalid(f"JSON Value: {debug_string(root)} No values in '{_ROWS_KEY}' array")
        form, tensors = RequestForm.ROWS, _tensors_from_rows(rows, dtypes)
    elif _COLUMNS_KEY in root:
        form, tensors = RequestForm.COLUMNS, _tensors_from_columns(root[_COLUMNS_KEY], dtypes)
    else:
        raise _invalid(f"Missing '{_COLUMNS_KEY}' or '{_ROWS_KEY}' key")
    request = predict_pb2.PredictRequest()
    request.model_spec.ParseFromString(model_spec)
    for name, tensor in tensors.items():
        request.inputs[name].CopyFrom(tensor)
    return request.SerializeToString(), form


def _tensors_from_columns(columns: JsonValue, dtypes: Mapping[str, int]) -> dict[str, tensor_pb2.TensorProto]:
    if isinstance(columns, dict) and not is_base64_object(columns):
        tensors = {}
        # Keys that are no inputs are ignored. Sorted, so that of several faults the same one is named every time.
        for name in sorted(dtypes):
            if name not in columns:
                raise _invalid(f"Missing named input: {name} in '{_COLUMNS_KEY}' object.")
            tensors[name] = tensor_from_json(columns[name], dtypes[name])
        return tensors
    if len(dtypes) > 1:
        raise _invalid(f"{_COLUMNS_KEY} is a plain value/list, but expecting an object {_SEVERAL_INPUTS}")
    return {name: tensor_from_json(columns, dtype) for name, dtype in dtypes.items()}


def _tensors_from_rows(rows: list[JsonValue], dtypes: Mapping[str, int]) -> dict[str, tensor_pb2.TensorProto]:
    if _is_named(rows[0]):
        return _quick_named_rows(rows, dtypes) or _careful_named_rows(rows, dtypes)
    if len(dtypes) > 1:
        raise _invalid(f"{_ROWS_KEY} is a plain list, but expecting list of objects {_SEVERAL_INPUTS}")
    [(name, dtype)] = dtypes.items()
    return {name: tensor_from_rows(rows, dtype) or _careful_plain_rows(rows, dtype)}


def _quick_named_rows(rows: list[JsonValue], dtypes: Mapping[str, int]) -> dict[str, tensor_pb2.TensorProto] | None:
    """All tensors, column by column; None if any row is not plainly right."""
    names = dtypes.keys()
    columns: dict[str, list[JsonValue]] = {name: [] for name in names}
    for row in rows:
        if not isinstance(row, dict) or row.keys() != names or is_base64_object(row):
            return None
        for name, values in columns.items():
            values.append(row[name])
    tensors = {}
    for name, dtype in dtypes.items():
        tensor = tensor_from_rows(columns[name], dtype)
        if tensor is None:
            return None
        tensors[name] = tensor
    return tensors


def _careful_named_rows(rows: list[JsonValue], dtypes: Mapping[str, int]) -> dict[str, tensor_pb2.TensorProto]:
    """All tensors, in the order of the document; raises ServingError for the first fault."""
    tensors = {name: RowTensor(dtype) for name, dtype in dtypes.items()}
    for index, row in enumerate(rows):
        if not isinstance(row, dict) or not _is_named(row):
            raise _invalid(f"Expecting object but got list at item {index} of input list")
        for name, value in row.items():
            try:
                if name not in tensors:
                    raise _invalid(f"JSON object: does not have named input: {name}")
                tensors[name].add(value)
            except ServingError as error:
                raise _in_row(f"{index} key: {name}", error) from error
        if row.keys() != tensors.keys():
            raise _invalid(
                f"Failed to process element: {index} of '{_ROWS_KEY}' list. JSON object: {debug_string(row)} "
                f"keys must be equal to: {','.join(sorted(tensors))}"
            )
    return {name: tensor.tensor() for name, tensor in tensors.items()}


def _careful_plain_rows(rows: list[JsonValue], dtype: int) -> tensor_pb2.TensorProto:
    """The one tensor, row by row; raises ServingError for the first fault."""
    tensor = RowTensor(dtype)
    for index, row in enumerate(rows):
        if _is_named(row):
            raise _invalid(f"Expecting value/list but got object at item {index} of input list")
        try:
            tensor.add(row)
        except ServingError as error:
            raise _in_row(str(index), error) from error
    return tensor.tensor()


def _is_named(row: JsonValue) -> bool:
    """Whether a row names its tensors; a base64 object is a value."""
    return isinstance(row, dict) and not is_base64_object(row)


def _in_row(place: str, error: ServingError) -> ServingError:
    """The error with its place in front; the inner code survives in the text only."""
    return _invalid(f"Failed to process element: {place} of '{_ROWS_KEY}' list. Error: {error}")


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _invalid(message: str) -> ServingError:
    return ServingError(Code.INVALID_ARGUMENT, message)
