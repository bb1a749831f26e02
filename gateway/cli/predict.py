"""``tensorgate predict``: one request from a file, its answer as JSON.

A client of the gRPC edge. Inputs are a JSON file, a .npy array or a picture; the model's signature says what they are
turned into.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

from tensorgate.gateway.cli import client
from tensorgate.gateway.cli.access import Access
from tensorgate.gateway.cli.client import ModelName, to_array, to_tensor
from tensorgate.gateway.cli.connection import open_channel
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorgate.protos.tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef, TensorInfo

_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp")
# A picture with a channel for each colour.
_PICTURE_RANK = 4


def run_predict(address: str, access: Access, model: ModelName, sources: Mapping[str, str], timeout_s: float) -> str:
    """Asks once; the outputs as JSON. ``sources``: input name, or empty for the only one, to a file's path.

    Raises ServingError: the server's, INVALID_ARGUMENT for files that do not fit, and the file system's.
    """
    with open_channel(address, access) as channel:
        signature = client.fetch_signature(channel, model, timeout_s)
        request = client.predict_request(model, read_inputs(sources, signature))
        response = client.predict(channel, request, timeout_s)
    spec = response.model_spec
    outputs = {name: _json_value(to_array(tensor).tolist()) for name, tensor in sorted(response.outputs.items())}
    return json.dumps({"model": spec.name, "version": spec.version.value, "outputs": outputs})


def read_inputs(sources: Mapping[str, str], signature: SignatureDef) -> dict[str, TensorProto]:
    """The tensors of the inputs. Raises ServingError."""
    tensors: dict[str, TensorProto] = {}
    for name, path in sources.items():
        try:
            if path.endswith(".json") or path == "-":
                tensors.update(_from_json(name, path, signature))
            else:
                known = name or _only_input(signature)
                tensors[known] = _from_file(path, _info(known, signature))
        except OSError as error:
            raise ServingError(Code.NOT_FOUND, f"{path}: {error.strerror or error}") from error
    return tensors


def _from_json(name: str, path: str, signature: SignatureDef) -> dict[str, TensorProto]:
    with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
        text = file.read()
    try:
        document: Any = json.loads(text)
    except ValueError as error:
        raise ServingError(Code.INVALID_ARGUMENT, f"{path} is no JSON: {error}") from error
    if not name and isinstance(document, dict):
        document = document.get("inputs", document.get("instances", document))
    if not name and isinstance(document, dict):
        return {each: to_tensor(values, _info(each, signature)) for each, values in document.items()}
    if not name and isinstance(document, list) and document and all(isinstance(each, dict) for each in document):
        # REST's row form.
        return {
            each: to_tensor([row[each] for row in document], _info(each, signature))
            for each in document[0]
            if all(each in row for row in document)
        }
    known = name or _only_input(signature)
    return {known: to_tensor(document, _info(known, signature))}


def _from_file(path: str, info: TensorInfo) -> TensorProto:
    import numpy as np  # noqa: PLC0415  (comes with an extra)

    if path.endswith(".npy"):
        try:
            # Without pickles: a file is data, not a program.
            return to_tensor(np.load(path, allow_pickle=False), info)
        except ValueError as error:
            raise ServingError(Code.INVALID_ARGUMENT, f"{path} cannot be read as an array: {error}") from error
    if os.path.splitext(path)[1].lower() in _PICTURES:
        return _from_picture(path, info)
    raise ServingError(Code.INVALID_ARGUMENT, f"{path} is neither .json nor .npy nor a picture, {', '.join(_PICTURES)}")


def _from_picture(path: str, info: TensorInfo) -> TensorProto:
    """A picture as the input wants it: its file for strings; else resized, grey or in colour, in 0 to 1 for floats."""
    if info.dtype == types_pb2.DT_STRING:
        with open(path, "rb") as file:
            return to_tensor([file.read()], info)
    import numpy as np  # noqa: PLC0415  (comes with an extra)
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415  (likewise)

    dims = [dim.size for dim in info.tensor_shape.dim]
    rank = len(dims)
    has_channels = rank == _PICTURE_RANK
    try:
        picture = Image.open(path).convert("RGB" if has_channels and dims[-1] != 1 else "L")
    except UnidentifiedImageError as error:
        raise ServingError(Code.INVALID_ARGUMENT, f"{path} is no picture that Pillow knows") from error
    if rank >= 3:
        height, width = (
            size if size > 0 else default for size, default in zip(dims[1:3], picture.size[::-1], strict=True)
        )
    else:
        # A row of pixels: of a square picture, as MNIST's are.
        side = int(dims[-1] ** 0.5) if dims and dims[-1] > 0 else picture.size[0]
        height = width = side
    pixels = np.asarray(picture.resize((width, height)))
    if client.numpy_dtype(info.dtype).kind == "f":
        pixels = pixels / 255.0
    if has_channels and dims[-1] == 1:
        pixels = pixels[..., np.newaxis]
    return to_tensor(pixels.reshape(1, -1) if rank == 2 else pixels[np.newaxis] if rank >= 3 else pixels.ravel(), info)


def _only_input(signature: SignatureDef) -> str:
    if len(signature.inputs) != 1:
        names = ", ".join(sorted(signature.inputs))
        raise ServingError(Code.INVALID_ARGUMENT, f"the signature has several inputs, say which: NAME=FILE of {names}")
    return next(iter(signature.inputs))


def _info(name: str, signature: SignatureDef) -> TensorInfo:
    if name not in signature.inputs:
        raise ServingError(
            Code.INVALID_ARGUMENT,
            f"there is no input {name!r}; the signature has {', '.join(sorted(signature.inputs))}",
        )
    return signature.inputs[name]


def _json_value(value: Any) -> Any:
    """JSON has no bytes: text where they are UTF-8, else REST's {"b64": …}; complex numbers are pairs."""
    if isinstance(value, list):
        return [_json_value(each) for each in value]
    if isinstance(value, complex):
        return [value.real, value.imag]
    if isinstance(value, bytes):
        import base64  # noqa: PLC0415  (seldom needed)

        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"b64": base64.b64encode(value).decode()}
    return value
