"""A TensorFlow Lite model: its signature, and the interpreters that run it.

On a request's line in the worker, under tflite: decoded inputs → an interpreter → outputs. Interpreters are not for
several threads at a time, so there is a pool of them; a run waits for one that is free, without the GIL.

Source: tensorflow_serving/servables/tensorflow/tflite_session.cc (what becomes of a model's tensors and SignatureDefs,
and the texts), tensorflow/lite/tools/signature/signature_def_util.cc (where the latter are). ai-edge-litert is what
TensorFlow Lite is published as by itself.
"""

import queue
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from flatbuffers import flexbuffers
from google.protobuf.message import DecodeError

from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef, TensorInfo

DEFAULT_SIGNATURE = "serving_default"
PREDICT_METHOD = "tensorflow/serving/predict"
_SIGNATURES_METADATA = b"signature_defs_metadata"

# An interpreter's type of a tensor, and TensorFlow's. Strings are bytes objects.
DTYPES: Mapping[Any, types_pb2.DataType] = {
    numpy.float32: types_pb2.DT_FLOAT,
    numpy.int32: types_pb2.DT_INT32,
    numpy.uint8: types_pb2.DT_UINT8,
    numpy.int16: types_pb2.DT_INT16,
    numpy.int8: types_pb2.DT_INT8,
    numpy.bytes_: types_pb2.DT_STRING,
    numpy.object_: types_pb2.DT_STRING,
    numpy.complex64: types_pb2.DT_COMPLEX64,
    numpy.int64: types_pb2.DT_INT64,
    numpy.bool_: types_pb2.DT_BOOL,
}

Array = Any  # numpy.ndarray, whose element type is known at run time only


class TfliteModel:
    """A model with its pool of interpreters; methods may be called from any thread."""

    def __init__(self, content: bytes, num_interpreters: int) -> None:
        """Blocks. Raises ServingError for a model that is none, or has tensors or signatures that cannot be served."""
        self._content = content
        first = self._new_interpreter()
        self._free: queue.SimpleQueue[Interpreter] = queue.SimpleQueue()
        self._free.put(first)
        for _ in range(num_interpreters - 1):
            self._free.put(self._new_interpreter())
        self._inputs = {_plain_name(each["name"]): each["index"] for each in first.get_input_details()}
        self._outputs = {_plain_name(each["name"]): each["index"] for each in first.get_output_details()}
        self.signature: SignatureDef = _signature(content, first)
        """The one signature there is, DEFAULT_SIGNATURE; its TensorInfos bear the names of the model's tensors."""

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Runs the model on tensors by their names; the outputs asked for, as copies. Blocks.

        Raises ServingError INTERNAL for whatever the interpreter refuses: shapes, types, or the run itself.
        """
        interpreter = self._free.get()
        try:
            results = self._run(interpreter, inputs, outputs)
        except (ValueError, RuntimeError) as error:
            # One that has failed half-way may be left without memory for its tensors.
            interpreter = self._new_interpreter()
            raise ServingError(Code.INTERNAL, str(error)) from error
        finally:
            self._free.put(interpreter)
        return results

    def _run(self, interpreter: Interpreter, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        shapes = {each["index"]: tuple(each["shape"]) for each in interpreter.get_input_details()}
        resized = False
        for name, array in inputs.items():
            index = self._inputs[_plain_name(name)]
            if shapes[index] != array.shape:
                interpreter.resize_tensor_input(index, array.shape)
                resized = True
        if resized:
            interpreter.allocate_tensors()
        for name, array in inputs.items():
            interpreter.set_tensor(self._inputs[_plain_name(name)], array)
        interpreter.invoke()
        return [interpreter.get_tensor(self._outputs[_plain_name(name)]) for name in outputs]

    def _new_interpreter(self) -> Interpreter:
        try:
            interpreter = Interpreter(model_content=self._content, num_threads=1)
        except ValueError as error:
            raise ServingError(Code.INVALID_ARGUMENT, f"Cannot build FlatBufferModel from buffer. ({error})") from error
        try:
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ServingError(Code.INTERNAL, f"Cannot allocate tensors in Interpreter. ({error})") from error
        return interpreter


def _plain_name(name: str) -> str:
    """A tensor's name without the index that TensorFlow puts behind it."""
    return name.partition(":")[0]


def _signature(content: bytes, interpreter: Interpreter) -> SignatureDef:
    embedded = _embedded_signature(content)
    aliases: dict[str, str] = {}
    if embedded is not None:
        for side in (embedded.inputs, embedded.outputs):
            aliases.update((_plain_name(info.name), alias) for alias, info in side.items())
    signature = SignatureDef(method_name=PREDICT_METHOD if embedded is None else embedded.method_name)
    for what, side, details in (
        ("input", signature.inputs, interpreter.get_input_details()),
        ("output", signature.outputs, interpreter.get_output_details()),
    ):
        for each in details:
            name = _plain_name(each["name"])
            alias = name if embedded is None else aliases.get(name)
            if alias is None:
                raise ServingError(
                    Code.INTERNAL, f"Cannot find signature def {what} name from tflite {what} tensor {name}"
                )
            side[alias].CopyFrom(_tensor_info(each))
    return signature


def _embedded_signature(content: bytes) -> SignatureDef | None:
    """The SignatureDef in the model's metadata; None where there is none. Raises ServingError for a broken one."""
    try:
        model = schema.Model.GetRootAs(content)
        for i in range(model.MetadataLength()):
            if model.Metadata(i).Name() == _SIGNATURES_METADATA:
                data = bytes(model.Buffers(model.Metadata(i).Buffer()).DataAsNumpy())
                signatures = [each.AsStringBytes for each in flexbuffers.GetRoot(data).AsMap.Values]
                break
        else:
            return None
        if len(signatures) != 1:
            raise ServingError(Code.INVALID_ARGUMENT, "Multiple SignatureDefs found in TfLite model: ")
        return SignatureDef.FromString(signatures[0])
    except (DecodeError, AttributeError, IndexError, TypeError, ValueError, struct.error) as error:
        raise ServingError(
            Code.INVALID_ARGUMENT,
            "Invalid SignatureDefs found in TfLite model: Cannot parse signature def found in flatbuffer.",
        ) from error


def _tensor_info(details: Mapping[str, Any]) -> TensorInfo:
    if details["dtype"] not in DTYPES:
        raise ServingError(Code.INTERNAL, f"Unknown TfLite type: {details['dtype'].__name__}")
    info = TensorInfo(name=details["name"], dtype=DTYPES[details["dtype"]])
    info.tensor_shape.SetInParent()
    # What may vary is -1 there. Of a tensor without variable sizes it is the shape, or empty.
    sizes = details["shape_signature"] if len(details["shape_signature"]) else details["shape"]
    for size in sizes:
        info.tensor_shape.dim.add(size=int(size))
    return info
