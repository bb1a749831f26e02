"""Tells from a SavedModel's graph whether it is of use without its checkpoint, the files in variables/.

Beside the file-system source, under version_files; blocks on the file system. TensorFlow loads a graph whose checkpoint
is missing without a word, and every request then fails on a variable that was never set: what is half copied must not
be taken for a model without variables. TensorFlow is not at hand here, and a graph may be large, so its bytes are
searched for nodes of certain ops instead of being parsed.

Source: tensorflow/core/framework/node_def.proto; RestoreSession in tensorflow/cc/saved_model/loader.cc.
"""

from collections.abc import Iterable, Iterator
from enum import Enum

_READ_BYTES = 1 << 20

# What a checkpoint fills, and what fills it.
_STATE_OPS = (
    "VarHandleOp",
    "VariableV2",
    "Variable",
    "MutableHashTable",
    "MutableHashTableV2",
    "MutableHashTableOfTensors",
    "MutableHashTableOfTensorsV2",
    "MutableDenseHashTable",
    "MutableDenseHashTableV2",
)
_RESTORE_OPS = ("RestoreV2", "Restore")


class CheckpointNeed(Enum):
    """What becomes of a graph that is loaded without its checkpoint."""

    NONE = "none"  # it restores nothing
    UNUSED = "unused"  # it restores, but keeps nothing: exported by TensorFlow 2, which always writes a checkpoint
    VARIABLES = "variables"  # its variables are unset, and requests fail


def read_checkpoint_need(path: str) -> CheckpointNeed:
    """Searches the file ``path``, a saved_model.pb or saved_model.pbtxt, once from its beginning; raises OSError."""
    form = _text_form if path.endswith(".pbtxt") else _binary_form
    has_restore, has_state = _find_any(path, [list(map(form, ops)) for ops in (_RESTORE_OPS, _STATE_OPS)])
    if not has_restore:
        return CheckpointNeed.NONE
    return CheckpointNeed.VARIABLES if has_state else CheckpointNeed.UNUSED


def _binary_form(op: str) -> bytes:
    """How a NodeDef says its op: field 2, a string. (The ops listed elsewhere in a MetaGraph are in field 1.)"""
    return b"\x12" + bytes([len(op)]) + op.encode()


def _text_form(op: str) -> bytes:
    return f'op: "{op}"'.encode()


def _find_any(path: str, groups: list[list[bytes]]) -> list[bool]:
    """Per group whether any of its patterns is in the file; reading ends when all groups are found."""
    found = [False] * len(groups)
    for part in _overlapping_parts(path, max(len(pattern) for group in groups for pattern in group) - 1):
        found = [known or _contains_any(part, group) for known, group in zip(found, groups, strict=True)]
        if all(found):
            break
    return found


def _contains_any(part: bytes, patterns: Iterable[bytes]) -> bool:
    return any(pattern in part for pattern in patterns)


def _overlapping_parts(path: str, overlap_bytes: int) -> Iterator[bytes]:
    """The file in parts, each with the end of the one before: what lies across a border is whole in one of them."""
    with open(path, "rb") as file:
        end = b""
        while part := file.read(_READ_BYTES):
            part = end + part
            yield part
            end = part[-overlap_bytes:]
