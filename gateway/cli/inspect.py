"""``tensorgate inspect``: what is in a model's folder, read without TensorFlow.

Beside both lines: reads files only.

Source: tensorflow/core/protobuf/saved_model.proto and meta_graph.proto (the fields that are read).
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tensorgate.gateway.cli.client import shape_text
from tensorgate.protos.status_codes import Code, ServingError, of_os_error
from tensorgate.protos.tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorgate.protos.tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
from tensorgate.protos.tf_record import read_records

_GRAPH_FILES = ("saved_model.pb", "model.tflite", "saved_model.pbtxt")
_WARMUP = os.path.join("assets.extra", "tf_serving_warmup_requests")
_BYTES_A_MB = 1e6


@dataclass(slots=True)
class MetaGraph:
    """One of a SavedModel's graphs."""

    tags: list[str] = field(default_factory=list)
    tensorflow_version: str = ""
    signatures: dict[str, SignatureDef] = field(default_factory=dict)


@dataclass(slots=True)
class ModelFolder:
    """One version's folder."""

    path: str
    graphs: list[MetaGraph]
    sizes: dict[str, int]
    """Bytes by the first part of the path."""
    num_warmup_requests: int | None
    """None: there is no such file."""
    warmup_error: str = ""
    note: str = ""


def version_folders(path: str) -> list[str]:
    """The folder itself if it holds a model, else those of its versions, smallest first.

    Raises ServingError NOT_FOUND where there is none, and the file system's errors.
    """
    try:
        if any(os.path.exists(os.path.join(path, name)) for name in _GRAPH_FILES):
            return [path]
        numbers = sorted((int(entry), entry) for entry in os.listdir(path) if entry.isascii() and entry.isdigit())
    except OSError as error:
        raise of_os_error(error, path) from error
    found = [os.path.join(path, entry) for _, entry in numbers]
    if not found:
        raise ServingError(Code.NOT_FOUND, f"{path} has neither a model ({', '.join(_GRAPH_FILES)}) nor versions")
    return found


def read_folder(path: str) -> ModelFolder:
    """Reads a version's folder. Raises ServingError: DATA_LOSS for a graph that is none, the file system's errors."""
    try:
        sizes: dict[str, int] = {}
        for folder, _, files in os.walk(path):
            for name in files:
                full = os.path.join(folder, name)
                top = os.path.relpath(full, path).split(os.sep)[0]
                sizes[top] = sizes.get(top, 0) + os.path.getsize(full)
        made = ModelFolder(path, [], sizes, None)
        graph_path = os.path.join(path, "saved_model.pb")
        if os.path.exists(graph_path):
            with open(graph_path, "rb") as file:
                made.graphs = read_saved_model(file.read(), graph_path)
        else:
            made.note = "no saved_model.pb: signatures are not shown"
        _count_warmup(made)
    except OSError as error:
        raise of_os_error(error, path) from error
    return made


def _count_warmup(folder: ModelFolder) -> None:
    path = os.path.join(folder.path, _WARMUP)
    if not os.path.exists(path):
        return
    folder.num_warmup_requests = 0
    try:
        with open(path, "rb") as file:
            for record in read_records(file):
                PredictionLog.FromString(record)
                folder.num_warmup_requests += 1
    except ServingError as error:
        folder.warmup_error = error.message
    except DecodeError as error:
        folder.warmup_error = f"record {folder.num_warmup_requests} is no PredictionLog: {error}"


def read_saved_model(data: bytes, path: str) -> list[MetaGraph]:
    """The graphs of a serialized SavedModel. Raises ServingError DATA_LOSS for bytes that are none."""
    try:
        return [_meta_graph(graph) for number, graph in _fields(memoryview(data)) if number == 2]
    except (ValueError, DecodeError, UnicodeDecodeError) as error:
        raise ServingError(Code.DATA_LOSS, f"{path} is no SavedModel: {error}") from error


def _meta_graph(data: memoryview) -> MetaGraph:
    made = MetaGraph()
    for number, content in _fields(data):
        if number == 1:  # meta_info_def
            for inner, value in _fields(content):
                if inner == 4:
                    made.tags.append(bytes(value).decode())
                elif inner == 5:
                    made.tensorflow_version = bytes(value).decode()
        elif number == 5:  # signature_def, a map's entry
            entry = dict(_fields(content))
            made.signatures[bytes(entry.get(1, b"")).decode()] = SignatureDef.FromString(bytes(entry.get(2, b"")))
    return made


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The length-delimited fields of a message; others are passed over. Raises ValueError for what is no message."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            _, at = _varint(data, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        elif kind == 2:
            size, at = _varint(data, at)
            if size > len(data) - at:
                raise ValueError("a field is longer than what there is")
            yield tag >> 3, data[at : at + size]
            at += size
        else:
            raise ValueError(f"a field of kind {kind}")
    if at > len(data):
        raise ValueError("a field is cut short")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("a number is cut short")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def show_folder(folder: ModelFolder, console: Console) -> None:
    """Prints what is in it."""
    total = sum(folder.sizes.values())
    parts = ", ".join(f"{name} {size / _BYTES_A_MB:.2f}" for name, size in sorted(folder.sizes.items()))
    console.print(Text(folder.path, style="bold"))
    console.print(f"size: {total / _BYTES_A_MB:.2f} MB ({parts})", highlight=False)
    if folder.warmup_error:
        console.print(Text(f"warm-up: cannot be read: {folder.warmup_error}", style="red"))
    else:
        count = folder.num_warmup_requests
        console.print("warm-up: " + ("none" if count is None else f"{count} requests"), highlight=False)
    if folder.note:
        console.print(Text(folder.note, style="yellow"))
    for graph in folder.graphs:
        tags = ",".join(graph.tags) or "no tags"
        table = Table(title=f"graph {tags}, TensorFlow {graph.tensorflow_version or '?'}", title_justify="left")
        for name in ("signature", "method", "inputs", "outputs"):
            table.add_column(name, overflow="fold")
        for name, signature in sorted(graph.signatures.items()):
            if name.startswith("__saved_model"):
                continue
            table.add_row(
                Text(name, style="bold"),
                signature.method_name.rpartition("/")[2],
                Text("\n".join(f"{each}: {shape_text(info)}" for each, info in sorted(signature.inputs.items()))),
                Text("\n".join(f"{each}: {shape_text(info)}" for each, info in sorted(signature.outputs.items()))),
            )
        console.print(table)
