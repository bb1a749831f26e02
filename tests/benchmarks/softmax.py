"""The tutorial's softmax model and its requests, as the benchmarks use them."""

import os
import pathlib
import subprocess
import sys

from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

METHOD = "/tensorflow.serving.PredictionService/Predict"
MAKE_MODELS = pathlib.Path(__file__).parents[1] / "saved_models" / "make_models.py"


def make_softmax_model(folder: pathlib.Path) -> pathlib.Path:
    """Its base path, with untrained weights; takes seconds, in a process of its own.

    TENSORGATE_SAVED_MODELS names a folder that make_models.py has filled before, and no other is made.
    """
    if made := os.environ.get("TENSORGATE_SAVED_MODELS"):
        return pathlib.Path(made) / "softmax"
    subprocess.run([sys.executable, str(MAKE_MODELS), str(folder)], check=True, stderr=subprocess.DEVNULL)
    return folder / "softmax"


def softmax_request(num_images: int = 1, model_name: str = "softmax") -> bytes:
    """A PredictRequest, 3.2 KB an image."""
    request = PredictRequest()
    request.model_spec.name = model_name
    request.model_spec.signature_name = "predict_images"
    images = request.inputs["images"]
    images.dtype = types_pb2.DT_FLOAT
    images.tensor_shape.dim.add(size=num_images)
    images.tensor_shape.dim.add(size=784)
    images.float_val.extend(i / 784 for i in range(784 * num_images))
    return request.SerializeToString()


def answer_size(num_images: int = 1, model_name: str = "softmax") -> int:
    """Bytes of the right answer: ten scores an image and the echoed model_spec."""
    response = PredictResponse()
    scores = response.outputs["scores"]
    scores.dtype = types_pb2.DT_FLOAT
    scores.tensor_shape.dim.add(size=num_images)
    scores.tensor_shape.dim.add(size=10)
    scores.float_val.extend([0.1] * 10 * num_images)
    response.model_spec.name = model_name
    response.model_spec.version.value = 1
    response.model_spec.signature_name = "predict_images"
    return response.ByteSize()
