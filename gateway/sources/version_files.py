"""Tells whether the files of a version are all there, or still being written.

Beside the file-system source. Looking blocks on the file system; judging is a pure function of two looks. TensorFlow
writes an export straight into its final folder, and people copy models with cp, so a version that is found may well be
half a version.

Source: the layout of a SavedModel (tensorflow/cc/saved_model/constants.h).
"""

import os
import re
import stat
from collections.abc import Collection
from dataclasses import dataclass

from tensorgate.gateway.sources.checkpoint_need import CheckpointNeed, read_checkpoint_need

SAVED_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt")
TFLITE_MODEL_FILE = "model.tflite"
_SHARD = re.compile(r"variables\.data-(\d{5})-of-(\d{5})")

# A complete layout that has not changed for this long is taken to be finished.
QUIET_US = 1_000_000
# An incomplete one that has not changed for this long will not be finished: loading it says what is wrong. One whose
# graph has variables is waited for without end: without them it loads, and then fails every request.
GIVEN_UP_US = 10_000_000


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A folder at one moment: (relative path, size in bytes, modification time in ns) of what is in it, sorted.

    Folders are in it too, with a slash at the end and size 0: they change when a file is added, whatever time the
    file itself was given. A version that is a file, as a lookup table's is, is there as ".". ``need`` is what the graph
    says of its checkpoint, asked where that is not all there.
    """

    files: tuple[tuple[str, int, int], ...]
    need: CheckpointNeed | None = None


def look_at(path: str, last: Fingerprint | None = None) -> Fingerprint | None:
    """Walks the folder; blocks. None: there is nothing of that name (any more).

    ``last`` is what was seen there before, if anything: a graph that has not changed since is not read again.

    What vanishes meanwhile is left out, and shows in the next look. A name that is no folder, or one that cannot be
    read, counts as a version all the same, as upstream: loading it says what is wrong with it. Raises OSError when
    even the name cannot be looked at.
    """
    files = []
    for folder, _, names in os.walk(path):
        for name in ["", *names]:
            full = os.path.join(folder, name)
            try:
                status = os.stat(full)
            except OSError:  # vanished, or a dangling link: not a file of the model
                continue
            relative = os.path.relpath(full, path)
            files.append(
                (relative, status.st_size, status.st_mtime_ns) if name else (f"{relative}/", 0, status.st_mtime_ns)
            )
    if not files:
        try:
            # Not through a link: a version that is one is there for as long as the link is.
            status = os.lstat(path)
        except FileNotFoundError:
            return None
        is_file = stat.S_ISREG(status.st_mode)
        files.append((".", status.st_size, status.st_mtime_ns) if is_file else ("./", 0, status.st_mtime_ns))
    seen = tuple(sorted(files))
    return Fingerprint(seen, _checkpoint_need(path, seen, last))


def _checkpoint_need(
    path: str, files: tuple[tuple[str, int, int], ...], last: Fingerprint | None
) -> CheckpointNeed | None:
    graph = next((file for file in files if file[0] in SAVED_MODEL_FILES), None)
    if graph is None or not _missing_variables([name for name, _, _ in files]):
        return None
    if last is not None and last.need is not None and graph in last.files:
        return last.need
    try:
        return read_checkpoint_need(os.path.join(path, graph[0]))
    except OSError:  # vanished, or unreadable: loading it says so
        return None


def missing_files(fingerprint: Fingerprint, done_marker: str = "") -> list[str]:
    """What a SavedModel with these files lacks, the done-marker included if there is to be one; empty: nothing.

    Complete are also a version that is a file, and one that holds a TensorFlow Lite model and no SavedModel.
    """
    names = {name for name, _, _ in fingerprint.files}
    missing = _missing_model_files(fingerprint, names)
    return missing if not done_marker or done_marker in names else [*missing, done_marker]


def _missing_model_files(fingerprint: Fingerprint, names: Collection[str]) -> list[str]:
    if set(names) == {"."}:
        return []
    missing = [] if any(name in names for name in SAVED_MODEL_FILES) else ["saved_model.pb"]
    if missing and TFLITE_MODEL_FILE in names:
        return []
    # A folder for variables that is empty, as TensorFlow 1 makes for a graph without any, promises none.
    has_begun = any(name.startswith("variables/") and name != "variables/" for name in names)
    if has_begun or fingerprint.need not in (None, CheckpointNeed.NONE):
        missing += _missing_variables(names)
    return missing


def _missing_variables(names: Collection[str]) -> list[str]:
    """What a checkpoint lacks; of one that has not been begun, the least that it will have."""
    variables = {name.removeprefix("variables/") for name in names if name.startswith("variables/")}
    missing = [] if "variables.index" in variables else ["variables/variables.index"]
    shards = [match for name in variables if (match := _SHARD.fullmatch(name))]
    count = max((int(match[2]) for match in shards), default=1)
    present = {int(match[1]) for match in shards if int(match[2]) == count}
    return missing + [f"variables/variables.data-{i:05}-of-{count:05}" for i in range(count) if i not in present]


def is_settled(now: Fingerprint, last: Fingerprint | None, now_us: int, done_marker: str = "") -> bool:
    """Whether a version may be loaded, judged by this look and the last one (None: this is the first).

    A complete layout may when it is unchanged since the last look, or for QUIET_US; any other after GIVEN_UP_US, unless
    it lacks values of variables that its graph has. Where there is to be a done-marker, a file that whoever writes
    versions writes last, that alone decides.
    """
    if done_marker:
        return any(name == done_marker for name, _, _ in now.files)
    newest_us = max((modified_ns for _, _, modified_ns in now.files), default=0) // 1000
    quiet_us = now_us - newest_us
    if missing_files(now):
        if now.need is CheckpointNeed.VARIABLES:
            return False
        return quiet_us >= GIVEN_UP_US
    return now == last or quiet_us >= QUIET_US
