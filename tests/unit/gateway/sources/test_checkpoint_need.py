"""What a graph says of its checkpoint: real SavedModels, and bytes made up at the borders of what is read at once."""

import os
import pathlib

import pytest

from tensorgate.gateway.sources import checkpoint_need
from tensorgate.gateway.sources.checkpoint_need import CheckpointNeed, read_checkpoint_need

RESTORE = b"\x12\x09RestoreV2"
VARIABLE = b"\x12\x0bVarHandleOp"


def need_of(path: pathlib.Path, content: bytes) -> CheckpointNeed:
    path.write_bytes(content)
    return read_checkpoint_need(str(path))


@pytest.mark.parametrize(
    ("model", "need"),
    [
        ("half_plus_two", CheckpointNeed.VARIABLES),
        ("counter", CheckpointNeed.VARIABLES),
        ("pair", CheckpointNeed.NONE),
    ],
)
def test_graphs_that_tensorflow_wrote_are_told_apart(
    saved_models: pathlib.Path, model: str, need: CheckpointNeed
) -> None:
    path = saved_models / model / "1"
    assert read_checkpoint_need(str(path / "saved_model.pb")) is need
    assert (path / "variables" / "variables.index").exists() == (need is CheckpointNeed.VARIABLES)


@pytest.mark.parametrize(
    ("content", "need"),
    [
        (b"", CheckpointNeed.NONE),
        (VARIABLE, CheckpointNeed.NONE),  # initialized by an op of its own
        (RESTORE, CheckpointNeed.UNUSED),
        (RESTORE + VARIABLE, CheckpointNeed.VARIABLES),
        (VARIABLE + RESTORE, CheckpointNeed.VARIABLES),
        # The list of ops that a MetaGraph uses, and names of nodes, say nothing.
        (RESTORE + b"\x0a\x0bVarHandleOp", CheckpointNeed.UNUSED),
        (RESTORE + b"\x12\x0cVarHandleOp2", CheckpointNeed.UNUSED),
    ],
)
def test_nodes_are_found_by_their_op(tmp_path: pathlib.Path, content: bytes, need: CheckpointNeed) -> None:
    assert need_of(tmp_path / "saved_model.pb", content) is need


def test_a_graph_in_text_form_is_read_too(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "saved_model.pbtxt"
    assert need_of(path, b'node { name: "a" op: "Const" }') is CheckpointNeed.NONE
    text = b'node { name: "a" op: "VariableV2" }\nnode { op: "RestoreV2" }'
    assert need_of(path, text) is CheckpointNeed.VARIABLES


@pytest.mark.parametrize("before_border", range(len(VARIABLE) + 1))
def test_what_lies_across_the_border_of_two_parts_is_found(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, before_border: int
) -> None:
    monkeypatch.setattr(checkpoint_need, "_READ_BYTES", 64)
    content = RESTORE + bytes(64 - len(RESTORE) - before_border) + VARIABLE + bytes(100)
    assert need_of(tmp_path / "saved_model.pb", content) is CheckpointNeed.VARIABLES


def test_a_file_that_is_not_there_raises(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_checkpoint_need(os.fspath(tmp_path / "saved_model.pb"))
