"""Writes the TensorFlow Lite models that the tests serve; run in a child process, since it imports TensorFlow.

  python make_tflite_models.py OUT_DIR

Made, each as OUT_DIR/NAME/00000123/model.tflite: half_plus_two (y = x/2 + 2), with_signature (the same, its tensors
"taken" and "given", which a SignatureDef in the metadata calls x and y), strings (the elements of "text" in the "order"
asked for).
"""

import os
import pathlib
import sys
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import flatbuffers
import tensorflow as tf
from flatbuffers import flexbuffers
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow.lite.python import schema_py_generated as schema

v1 = tf.compat.v1


def save(path: pathlib.Path, model: bytes) -> None:
    (path / "00000123").mkdir(parents=True)
    (path / "00000123" / "model.tflite").write_bytes(model)


def half_plus_two() -> bytes:
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], name="x")
        y = tf.add(x * 0.5, 2.0, name="y")
        return bytes(v1.lite.TFLiteConverter.from_session(session, [x], [y]).convert())


def strings() -> bytes:
    with tf.Graph().as_default(), v1.Session() as session:
        text, order = v1.placeholder(tf.string, [None], name="text"), v1.placeholder(tf.int32, [None], name="order")
        chosen = tf.gather(text, order, name="chosen")
        return bytes(v1.lite.TFLiteConverter.from_session(session, [text, order], [chosen]).convert())


def with_signature(model: bytes) -> bytes:
    """The model with other names for its tensors, and a SignatureDef where TensorFlow's own C++ tool puts it."""
    tree = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model))
    for tensor in tree.subgraphs[0].tensors:
        tensor.name = {b"x": b"taken", b"y": b"given"}.get(tensor.name, tensor.name)
    signature: Any = SignatureDef(method_name="tensorflow/serving/predict")
    signature.inputs["x"].name, signature.outputs["y"].name = "taken:0", "given:0"
    data = schema.BufferT()
    # As text: the C++ tool writes it so, too.
    data.data = list(flexbuffers.Dumps({"serving_default": signature.SerializeToString().decode("ascii")}))
    metadata = schema.MetadataT()
    metadata.name, metadata.buffer = "signature_defs_metadata", len(tree.buffers)
    tree.buffers.append(data)
    tree.metadata.append(metadata)
    builder = flatbuffers.Builder(1024)
    builder.Finish(tree.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def main(out: pathlib.Path) -> None:
    plain = half_plus_two()
    save(out / "half_plus_two", plain)
    save(out / "with_signature", with_signature(plain))
    save(out / "strings", strings())


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
