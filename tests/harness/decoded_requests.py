"""Requests as what they say and not as how they say it, to compare those that two writers have made."""

import struct
from typing import TypeAlias

from tensorgate.protos.data_types import DATA_TYPES
from tensorgate.protos.tensorflow.core.framework import tensor_pb2, types_pb2
from tensorgate.protos.tensorflow_serving.apis import predict_pb2

DT = types_pb2
_WIDTHS = {
    DT.DT_INT8: 1,
    DT.DT_UINT8: 1,
    DT.DT_INT16: 2,
    DT.DT_HALF: 2,
    DT.DT_INT32: 4,
    DT.DT_UINT32: 4,
    DT.DT_INT64: 8,
    DT.DT_UINT64: 8,
    DT.DT_BOOL: 1,
}

# dtype, shape, and the values: little-endian bytes of numbers, a list of strings.
DecodedTensor: TypeAlias = tuple[int, list[int], bytes | list[bytes]]


def decoded_tensor(tensor: tensor_pb2.TensorProto) -> DecodedTensor:
    """The tensor a worker would make of it; the typed field, if it is not in tensor_content, must be complete."""
    assert tensor.HasField("tensor_shape")
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    field = DATA_TYPES[tensor.dtype].value_field
    assert field is not None
    values = getattr(tensor, field)
    if tensor.dtype == DT.DT_STRING:
        return tensor.dtype, shape, list(values)
    if tensor.tensor_content:
        assert not values
        return tensor.dtype, shape, tensor.tensor_content
    if tensor.dtype in {DT.DT_FLOAT, DT.DT_DOUBLE}:
        letter = "f" if tensor.dtype == DT.DT_FLOAT else "d"
        return tensor.dtype, shape, struct.pack(f"<{len(values)}{letter}", *values)
    width = _WIDTHS[tensor.dtype]
    # What does not fit wraps in the worker.
    return tensor.dtype, shape, b"".join((value % 256**width).to_bytes(width, "little") for value in values)


def decoded_request(payload: bytes) -> tuple[bytes, dict[str, DecodedTensor]]:
    """The serialized model_spec, and the tensor of each input."""
    request = predict_pb2.PredictRequest.FromString(payload)
    tensors = {name: decoded_tensor(tensor) for name, tensor in request.inputs.items()}
    return request.model_spec.SerializeToString(deterministic=True), tensors
