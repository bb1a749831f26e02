"""Tells whether the files of a version are all there, or still being written.

Beside the file-system source. Looking blocks on the file system; judging is a pure function of two looks. TensorFlow
writes an export straight into its final folder, and people copy models with cp, so a version that is found may well be
half a version.

Source: the layout of a SavedModel (tensorflow/cc/saved_model/constants.h).
"""

import os
import re
from dataclasses import dataclass

SAVED_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt")
_SHARD = re.compile(r"variables\.data-(\d{5})-of-(\d{5})")

# A complete layout that has not changed for this long is taken to be finished.
QUIET_US = 1_000_000
# An incomplete one that has not changed for this long will not be finished: loading it says what is wrong.
GIVEN_UP_US = 10_000_000


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A folder at one moment: (relative path, size in bytes, modification time in ns) of what is in it, sorted.

    Folders are in it too, with a slash at the end and size 0: they change when a file is added, whatever time the
    file itself was given.
    """

    files: tuple[tuple[str, int, int], ...]


def look_at(path: str) -> Fingerprint | None:
    """Walks the folder; blocks. None: there is nothing of that name (any more).

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
        files.append(("./", 0, status.st_mtime_ns))
    return Fingerprint(tuple(sorted(files)))


def missing_files(fingerprint: Fingerprint) -> list[str]:
    """What a SavedModel with these files lacks; empty for a complete layout."""
    names = {name for name, _, _ in fingerprint.files}
    missing = []
    if not names.intersection(SAVED_MODEL_FILES):
        missing.append("saved_model.pb")
    variables = {name.removeprefix("variables/") for name in names if name.startswith("variables/")}
    if variables:
        if "variables.index" not in variables:
            missing.append("variables/variables.index")
        shards = [match for name in variables if (match := _SHARD.fullmatch(name))]
        count = max((int(match[2]) for match in shards), default=1)
        present = {int(match[1]) for match in shards if int(match[2]) == count}
        missing += [f"variables/variables.data-{i:05}-of-{count:05}" for i in range(count) if i not in present]
    return missing


def is_settled(now: Fingerprint, last: Fingerprint | None, now_us: int) -> bool:
    """Whether a version may be loaded, judged by this look and the last one (None: this is the first).

    A complete layout may when it is unchanged since the last look, or for QUIET_US; any other after GIVEN_UP_US.
    """
    newest_us = max((modified_ns for _, _, modified_ns in now.files), default=0) // 1000
    quiet_us = now_us - newest_us
    if missing_files(now):
        return quiet_us >= GIVEN_UP_US
    return now == last or quiet_us >= QUIET_US
