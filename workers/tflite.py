"""TensorFlow Lite versions: Predict on a model.tflite, checked and answered as a SavedModel's.

On the line of a model version, behind servables, and on a request's line: data loop → PythonServable → here → back.
Runs on execution threads with the GIL, which the model's run itself gives up. Of the methods there is Predict.

Source: tensorflow_serving/servables/tensorflow/predict_util.cc (the checks, their order and texts), tflite_session.cc.
"""

import os
from collections.abc import Mapping, Sequence

import numpy
from google.protobuf.message import DecodeError

from tensorgate._native.python_servable import PythonServable
from tensorgate._native.tensor_decode import decode_tensor_proto
from tensorgate.protos.data_types import DATA_TYPES, data_type_name
from tensorgate.protos.status_codes import Code, ServingError, of_os_error
from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorgate.protos.tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorgate.protos.tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorgate.workers.saved_model import TFLITE_MODEL_FILE
from tensorgate.workers.tflite_model import DEFAULT_SIGNATURE, DTYPES, Array, TfliteModel
from tensorgate.workers.warmup import WarmupMethod

_METHOD_PREDICT = 1
_NUMPY_TYPES: Mapping[int, Array] = {number: kind for kind, number in DTYPES.items() if number != types_pb2.DT_STRING}


class TfliteServable:
    """A Servable over one model.tflite in the version's folder.

    ``num_interpreters`` requests run at a time. Raises ServingError: the file system's error, or the model's.
    """

    def __init__(self, path: str, version: int, num_interpreters: int) -> None:
        file_path = os.path.join(path, TFLITE_MODEL_FILE)
        try:
            with open(file_path, "rb") as file:
                content = file.read()
        except OSError as error:
            raise of_os_error(error, file_path) from error
        self._model: TfliteModel | None = TfliteModel(content, num_interpreters)
        self._signature = self._model.signature
        self._version = version
        self.runner = PythonServable(self._answer)
        self.batching = None

    @property
    def signature_def_map(self) -> bytes:
        return SignatureDefMap(signature_def={DEFAULT_SIGNATURE: self._signature}).SerializeToString()

    @property
    def warmup_methods(self) -> Mapping[str, WarmupMethod]:
        return {"predict_log": lambda payload: (*self._answer(_METHOD_PREDICT, payload, -1), 0)}

    def close(self) -> None:
        self._model = None

    def _answer(self, method: int, payload: bytes, _remaining_us: int) -> tuple[int, bytes, bytes]:
        try:
            if method != _METHOD_PREDICT:
                raise ServingError(Code.UNIMPLEMENTED, "TensorFlow Lite models answer Predict only")
            return Code.OK, b"", self._predict(payload).SerializeToString()
        except ServingError as error:
            return error.code, error.message.encode(), b""

    def _predict(self, payload: bytes) -> PredictResponse:
        assert self._model is not None, "a version that is closed takes no requests"
        try:
            request = PredictRequest.FromString(payload)
        except DecodeError as error:
            raise ServingError(Code.INTERNAL, "") from error
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        if name != DEFAULT_SIGNATURE:
            raise ServingError(Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
        inputs = _inputs(request, self._signature)
        aliases = _output_aliases(request.output_filter, self._signature)
        outputs = self._model.run(inputs, [self._signature.outputs[alias].name for alias in aliases])
        response = PredictResponse()
        for alias, array in zip(aliases, outputs, strict=True):
            response.outputs[alias].CopyFrom(_tensor_proto(array, self._signature.outputs[alias].dtype))
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = self._version
        response.model_spec.signature_name = name
        return response


def _inputs(request: PredictRequest, signature: SignatureDef) -> dict[str, Array]:
    """The request's tensors by the names of the model's. Raises ServingError INVALID_ARGUMENT."""
    given, wanted = sorted(request.inputs), sorted(signature.inputs)
    if len(given) != len(wanted):
        extra, missing = sorted(set(given) - set(wanted)), sorted(set(wanted) - set(given))
        raise _invalid(
            f"input size does not match signature: {len(given)}!={len(wanted)} len({{{','.join(given)}}}) !="
            f" len({{{','.join(wanted)}}}). Sent extra: {{{','.join(extra)}}}."
            f" Missing but required: {{{','.join(missing)}}}."
        )
    inputs = {}
    for alias in wanted:
        info = signature.inputs[alias]
        if alias not in request.inputs:
            raise _invalid(
                f"Signature input alias: {alias}(feed name: {info.name}) not found in request and no default value"
                f" provided. Inputs expected to be in the request {{{','.join(given)}}}, or default input alias set: "
            )
        inputs[info.name] = _array(request.inputs[alias], alias, info.dtype)
    return inputs


def _output_aliases(output_filter: Sequence[str], signature: SignatureDef) -> list[str]:
    chosen: list[str] = []
    for alias in output_filter:
        if alias not in signature.outputs:
            raise _invalid(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set"
                f" {{{','.join(sorted(signature.outputs))}}}."
            )
        if alias in chosen:
            raise _invalid(f"duplicate output tensor alias: {alias}")
        chosen.append(alias)
    return chosen or sorted(signature.outputs)


def _array(tensor: TensorProto, alias: str, wanted: int) -> Array:
    try:
        dtype, shape, values = decode_tensor_proto(tensor.SerializeToString())
    except ValueError as error:
        raise _invalid(f"tensor parsing error: {alias}") from error
    if dtype != wanted:
        raise _invalid(f"Expects {alias} to be {data_type_name(wanted)} but {data_type_name(dtype)} is provided")
    if isinstance(values, list):
        array = numpy.empty(len(values), dtype=object)
        array[:] = values
    else:
        array = numpy.frombuffer(values, _NUMPY_TYPES[dtype])
    return array.reshape(shape)


def _tensor_proto(array: Array, dtype: types_pb2.DataType) -> TensorProto:
    tensor = TensorProto(dtype=dtype)
    tensor.tensor_shape.SetInParent()
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if dtype == types_pb2.DT_STRING:
        tensor.string_val.extend(bytes(value) for value in array.ravel())
    else:
        data_type = DATA_TYPES[dtype]
        flat = numpy.ascontiguousarray(array).ravel()
        values = flat.view(numpy.float32) if data_type.values_per_element == 2 else flat
        getattr(tensor, str(data_type.value_field)).extend(values.tolist())
    return tensor


def _invalid(message: str) -> ServingError:
    return ServingError(Code.INVALID_ARGUMENT, message)
