"""What the commands that talk to a server share: signatures, requests, tensors.

On the client's side of both edges, above connection; needs grpcio and tensorgate.protos, no TensorFlow. numpy is needed
where tensors are made, and comes with the extra ``client``.

Source: the services of tensorflow_serving/apis.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import json_format

from tensorgate.protos.data_types import DATA_TYPES
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorgate.protos.tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef, TensorInfo
from tensorgate.protos.tensorflow_serving.apis import get_model_metadata_pb2, prediction_service_pb2_grpc
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

INSTALL_CLIENT = "install tensorgate with its extra client: pip install 'tensorgate[client]', or in a clone '.[client]'"

# What a dimension of any size becomes where data is made up.
FREE_DIMENSION = 1


@dataclass(frozen=True, slots=True)
class ModelName:
    """Which model a request is for; at most one of version and label."""

    name: str
    signature: str = "serving_default"
    version: int | None = None
    label: str = ""


def serving_error(error: grpc.RpcError) -> ServingError:
    """A failed call's code and message."""
    code: grpc.StatusCode = error.code()
    return ServingError(Code.of(code.value[0]), error.details() or code.name)


def fetch_signature(channel: grpc.Channel, model: ModelName, timeout_s: float = 10) -> SignatureDef:
    """The signature of the model, asked of the server. Raises ServingError, NOT_FOUND where there is none."""
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    fill_spec(request.model_spec, model)
    request.model_spec.signature_name = ""
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)  # type: ignore[no-untyped-call]
    try:
        response = stub.GetModelMetadata(request, timeout=timeout_s)
    except grpc.RpcError as error:
        raise serving_error(error) from error
    found = get_model_metadata_pb2.SignatureDefMap.FromString(response.metadata["signature_def"].value)
    return _signature_in(found, model)


def signature_of_json(document: Any, model: ModelName) -> SignatureDef:
    """The signature of the model in REST's answer about its metadata. Raises ServingError, as fetch_signature."""
    try:
        found = json_format.ParseDict(
            document["metadata"]["signature_def"], get_model_metadata_pb2.SignatureDefMap(), ignore_unknown_fields=True
        )
    except (KeyError, TypeError, json_format.ParseError) as error:
        raise ServingError(Code.UNKNOWN, f"no metadata of {model.name} were answered: {error!r}") from error
    return _signature_in(found, model)


def _signature_in(signatures: get_model_metadata_pb2.SignatureDefMap, model: ModelName) -> SignatureDef:
    found = signatures.signature_def
    if model.signature not in found:
        raise ServingError(
            Code.NOT_FOUND, f"{model.name} has no signature {model.signature!r}; it has {', '.join(sorted(found))}"
        )
    return found[model.signature]


def fill_spec(spec: Any, model: ModelName) -> None:
    """Fills in a request's model_spec."""
    spec.name = model.name
    spec.signature_name = model.signature
    if model.version is not None:
        spec.version.value = model.version
    elif model.label:
        spec.version_label = model.label


def predict_request(model: ModelName, inputs: Mapping[str, TensorProto]) -> PredictRequest:
    """A request; tensors are copied."""
    request = PredictRequest(inputs=inputs)
    fill_spec(request.model_spec, model)
    return request


def predict(channel: grpc.Channel, request: PredictRequest, timeout_s: float = 60) -> PredictResponse:
    """Sends it and waits. Raises ServingError."""
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)  # type: ignore[no-untyped-call]
    try:
        response: PredictResponse = stub.Predict(request, timeout=timeout_s)
    except grpc.RpcError as error:
        raise serving_error(error) from error
    return response


# --- tensors ----------------------------------------------------------------------------------------------------------


def numpy_dtype(number: int) -> "np.dtype[Any]":
    """The numpy type of a DataType; strings are objects. Raises ServingError UNIMPLEMENTED for one that has none."""
    import numpy as np  # noqa: PLC0415  (comes with an extra)

    if number == types_pb2.DT_STRING:
        return np.dtype(object)
    name = {"float": "float32", "double": "float64", "half": "float16"}.get(
        DATA_TYPES[number].name if number in DATA_TYPES else "", DATA_TYPES[number].name if number in DATA_TYPES else ""
    )
    try:
        return np.dtype(name)
    except TypeError as error:
        raise ServingError(
            Code.UNIMPLEMENTED, f"tensors of type {types_pb2.DataType.Name(number)} cannot be made here"
        ) from error


def shape_text(info: TensorInfo) -> str:
    """``float [?, 784]``; ``unknown rank`` where that is so."""
    name = types_pb2.DataType.Name(info.dtype).removeprefix("DT_").lower()
    if info.tensor_shape.unknown_rank:
        return f"{name} of unknown rank"
    return f"{name} [{', '.join('?' if dim.size < 0 else str(dim.size) for dim in info.tensor_shape.dim)}]"


def to_tensor(values: Any, info: TensorInfo) -> TensorProto:
    """Nested lists, or a numpy array, as a tensor of the input's type.

    Values that are a row of it get the first, free dimension, of size 1; other shapes go as they are, and the server
    judges. Raises ServingError INVALID_ARGUMENT for values that do not fit the type.
    """
    import numpy as np  # noqa: PLC0415  (comes with an extra)

    try:
        array = np.asarray(values, dtype=numpy_dtype(info.dtype))
    except (ValueError, TypeError) as error:
        raise ServingError(Code.INVALID_ARGUMENT, f"the values are no {shape_text(info)}: {error}") from error
    dims = [dim.size for dim in info.tensor_shape.dim]
    if (
        dims[:1] == [-1]
        and array.ndim == len(dims) - 1
        and all(want in (-1, got) for want, got in zip(dims[1:], array.shape, strict=True))
    ):
        array = array[np.newaxis]
    return array_to_tensor(array, info.dtype)


def array_to_tensor(array: "npt.NDArray[Any]", number: int) -> TensorProto:
    """An array of the type's numpy type as a tensor."""
    tensor = TensorProto(dtype=number)  # type: ignore[arg-type]
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if number == types_pb2.DT_STRING:
        tensor.string_val.extend(each if isinstance(each, bytes) else str(each).encode() for each in array.ravel())
    else:
        tensor.tensor_content = array.astype(array.dtype.newbyteorder("<")).tobytes()
    return tensor


def to_array(tensor: TensorProto) -> "npt.NDArray[Any]":
    """The tensor's values; strings are bytes objects. Raises ServingError UNIMPLEMENTED for types numpy has not."""
    import numpy as np  # noqa: PLC0415  (comes with an extra)

    shape = [dim.size for dim in tensor.tensor_shape.dim]
    dtype = numpy_dtype(tensor.dtype)
    if tensor.dtype == types_pb2.DT_STRING:
        made = np.empty(len(tensor.string_val), dtype=object)
        made[:] = list(tensor.string_val)
        return made.reshape(shape)
    if tensor.tensor_content:
        return np.frombuffer(tensor.tensor_content, dtype.newbyteorder("<")).reshape(shape)
    values = getattr(tensor, DATA_TYPES[tensor.dtype].value_field or "tensor_content")
    if tensor.dtype == types_pb2.DT_HALF:
        return np.array(values, np.uint16).view(np.float16).reshape(shape)
    if DATA_TYPES[tensor.dtype].values_per_element == 2:
        pairs = np.array(values, np.float64).reshape(-1, 2)
        return (pairs[:, 0] + 1j * pairs[:, 1]).astype(dtype).reshape(shape)
    return np.array(values, dtype).reshape(shape)


def made_up_tensor(info: TensorInfo, num_rows: int, seed: int = 0) -> TensorProto:
    """Data that fits an input: floats of [0, 1), small whole numbers, short strings; free dimensions are of size 1.

    A free first dimension is of size ``num_rows``. Raises ServingError for a type without a numpy type.
    """
    import numpy as np  # noqa: PLC0415  (comes with an extra)

    generator = np.random.default_rng(seed)
    dims = [FREE_DIMENSION if dim.size < 0 else dim.size for dim in info.tensor_shape.dim]
    if info.tensor_shape.unknown_rank or (info.tensor_shape.dim and info.tensor_shape.dim[0].size < 0):
        dims[:1] = [num_rows]
    dtype = numpy_dtype(info.dtype)
    if info.dtype == types_pb2.DT_STRING:
        array = np.full(dims, b"text", dtype=object)
    elif dtype.kind == "b":
        array = generator.random(dims) < 0.5
    elif dtype.kind in "iu":
        array = generator.integers(0, 2, dims).astype(dtype)
    else:
        array = np.asarray(generator.random(dims)).astype(dtype)
    return array_to_tensor(array, info.dtype)
