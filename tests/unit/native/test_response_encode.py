"""Encoding of outputs that no request can ask for: what ops make, and clients never send."""

import pathlib

import pytest

from tensorgate._native.execution_pool import PREDICT, run_once
from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorgate.protos.tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorgate.workers.saved_model import open_saved_model

pytestmark = pytest.mark.usefixtures("libtensorflow")


def field(number: int, body: bytes) -> bytes:
    size, head = len(body), bytes([number << 3 | 2])
    while size >= 0x80:
        head, size = head + bytes([size & 0x7F | 0x80]), size >> 7
    return head + bytes([size]) + body


def node(name: bytes, op: bytes, attribute: bytes, dtype: int, *inputs: bytes) -> bytes:
    """A NodeDef with one attribute, a type."""
    attributes = field(5, field(1, attribute) + field(2, bytes([6 << 3, dtype])))
    return field(1, field(1, name) + field(2, op) + b"".join(field(3, each) for each in inputs) + attributes)


@pytest.fixture
def decode_raw(tmp_path: pathlib.Path) -> str:
    """A SavedModel that makes bools of a string's bytes, written without TensorFlow: it takes no variable."""
    graph = node(b"text", b"Placeholder", b"dtype", types_pb2.DT_STRING)
    graph += node(b"bools", b"DecodeRaw", b"out_type", types_pb2.DT_BOOL, b"text")
    signature = SignatureDef(method_name="tensorflow/serving/predict")
    signature.inputs["text"].name = "text:0"
    signature.outputs["bools"].name = "bools:0"
    signatures = field(5, field(1, b"serving_default") + field(2, signature.SerializeToString()))
    meta_graph = field(1, field(4, b"serve")) + field(2, graph) + signatures
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01" + field(2, meta_graph))
    return str(tmp_path)


def test_bools_of_any_byte_are_sent_as_true_or_false(decode_raw: str) -> None:
    session = open_saved_model(decode_raw, 1, ["serve"], b"")
    text = TensorProto(dtype=types_pb2.DT_STRING, string_val=[b"\0\1\2\x80\xff"])
    text.tensor_shape.SetInParent()
    code, message, response, _ = run_once(session, PREDICT, PredictRequest(inputs={"text": text}).SerializeToString())
    assert (code, message) == (0, b"")
    bools = PredictResponse.FromString(bytes(response)).outputs["bools"]
    assert list(bools.bool_val) == [False, True, True, True, True]
    session.close()
