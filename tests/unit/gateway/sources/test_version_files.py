"""Whether a version's files are complete: what a look sees, and how two looks are judged."""

import os
import pathlib

import pytest

from tensorgate.gateway.sources import version_files
from tensorgate.gateway.sources.checkpoint_need import CheckpointNeed
from tensorgate.gateway.sources.version_files import (
    GIVEN_UP_US,
    QUIET_US,
    Fingerprint,
    is_settled,
    look_at,
    missing_files,
)

NOW_US = 1_700_000_000_000_000


INDEX = "variables/variables.index"
SHARD = "variables/variables.data-00000-of-00001"
GRAPH_WITH_VARIABLES = b"\x12\x09RestoreV2\x12\x0bVarHandleOp"


def fingerprint(*names: str, age_us: int = 0, need: CheckpointNeed | None = None) -> Fingerprint:
    """Files of these names, changed so long before NOW_US."""
    return Fingerprint(tuple((name, 10, (NOW_US - age_us) * 1000) for name in sorted(names)), need)


def names(path: pathlib.Path) -> list[str]:
    seen = look_at(str(path))
    assert seen is not None
    return [name for name, _, _ in seen.files]


COMPLETE = [
    ["saved_model.pb"],
    ["saved_model.pbtxt"],
    ["./", "saved_model.pb", "assets/", "assets/words.txt"],
    # As TensorFlow 1's builder leaves a graph without variables.
    ["saved_model.pb", "variables/"],
    ["saved_model.pb", "variables/", "variables/variables.index", "variables/variables.data-00000-of-00001"],
    [
        "saved_model.pb",
        "variables/variables.index",
        "variables/variables.data-00000-of-00002",
        "variables/variables.data-00001-of-00002",
    ],
    # Left over from an export in another number of shards.
    [
        "saved_model.pb",
        "variables/variables.index",
        "variables/variables.data-00000-of-00001",
        "variables/variables.data-00000-of-00002",
        "variables/variables.data-00001-of-00002",
    ],
]
INCOMPLETE = [
    ([], ["saved_model.pb"]),
    (["./"], ["saved_model.pb"]),
    (["assets/saved_model.pb"], ["saved_model.pb"]),
    (["saved_model.pb.part"], ["saved_model.pb"]),
    (["saved_model.pb", "variables/variables.index"], ["variables/variables.data-00000-of-00001"]),
    (["saved_model.pb", "variables/variables.data-00000-of-00001"], ["variables/variables.index"]),
    (
        ["saved_model.pb", "variables/variables.index", "variables/variables.data-00001-of-00003"],
        ["variables/variables.data-00000-of-00003", "variables/variables.data-00002-of-00003"],
    ),
    (
        ["variables/variables.index", "variables/variables.data-00000-of-00001"],
        ["saved_model.pb"],
    ),
]


@pytest.mark.parametrize("files", COMPLETE)
def test_a_complete_layout_lacks_nothing(files: list[str]) -> None:
    assert missing_files(fingerprint(*files)) == []


@pytest.mark.parametrize(("files", "missing"), INCOMPLETE)
def test_what_is_missing_is_named(files: list[str], missing: list[str]) -> None:
    assert missing_files(fingerprint(*files)) == missing


@pytest.mark.parametrize("need", [CheckpointNeed.VARIABLES, CheckpointNeed.UNUSED])
@pytest.mark.parametrize(
    ("files", "missing"),
    [([], [INDEX, SHARD]), (["variables/"], [INDEX, SHARD]), (["variables/", INDEX], [SHARD]), ([SHARD, INDEX], [])],
)
def test_a_graph_that_restores_something_lacks_the_checkpoint(
    need: CheckpointNeed, files: list[str], missing: list[str]
) -> None:
    assert missing_files(fingerprint("saved_model.pb", *files, need=need)) == missing


@pytest.mark.parametrize("files", [[], ["variables/"]])
def test_a_graph_that_restores_nothing_lacks_nothing(files: list[str]) -> None:
    assert missing_files(fingerprint("saved_model.pb", *files, need=CheckpointNeed.NONE)) == []


@pytest.mark.parametrize(
    ("need", "settled"), [(CheckpointNeed.VARIABLES, False), (CheckpointNeed.UNUSED, True), (CheckpointNeed.NONE, True)]
)
def test_variables_are_waited_for_without_end(need: CheckpointNeed, settled: bool) -> None:
    now = fingerprint("saved_model.pb", age_us=100 * GIVEN_UP_US, need=need)
    assert is_settled(now, now, NOW_US) is settled


@pytest.mark.parametrize(
    ("age_us", "seen_before", "settled"),
    [
        (0, False, False),
        (QUIET_US - 1, False, False),
        (QUIET_US, False, True),
        (0, True, True),
        # A clock that is behind the file server's: two equal looks are enough.
        (-GIVEN_UP_US, False, False),
        (-GIVEN_UP_US, True, True),
    ],
)
def test_a_complete_version_is_settled_when_it_is_quiet_or_was_seen_so_before(
    age_us: int, seen_before: bool, settled: bool
) -> None:
    now = fingerprint("saved_model.pb", age_us=age_us)
    assert is_settled(now, now if seen_before else None, NOW_US) is settled


@pytest.mark.parametrize(
    ("age_us", "seen_before", "settled"),
    [
        (0, True, False),
        (QUIET_US, True, False),
        (GIVEN_UP_US - 1, True, False),
        (GIVEN_UP_US, False, True),
    ],
)
def test_an_incomplete_version_is_settled_only_when_nobody_has_written_for_long(
    age_us: int, seen_before: bool, settled: bool
) -> None:
    now = fingerprint("variables/variables.index", age_us=age_us)
    assert is_settled(now, now if seen_before else None, NOW_US) is settled


@pytest.mark.parametrize(
    "last",
    [
        Fingerprint((("saved_model.pb", 9, NOW_US * 1000),)),
        Fingerprint((("saved_model.pb", 10, NOW_US * 1000 - 1),)),
        Fingerprint((("saved_model.pb", 10, NOW_US * 1000), ("assets/", 0, 0))),
    ],
    ids=["another size", "another time", "one file less now"],
)
def test_a_version_that_changed_since_the_last_look_is_not_settled(last: Fingerprint) -> None:
    assert not is_settled(fingerprint("saved_model.pb"), last, NOW_US)


def test_the_newest_file_says_how_long_it_has_been_quiet() -> None:
    old, new = fingerprint("saved_model.pb", age_us=GIVEN_UP_US), fingerprint("assets/words.txt")
    assert not is_settled(Fingerprint(old.files + new.files), None, NOW_US)


def test_a_look_lists_files_and_folders_with_sizes_and_times(tmp_path: pathlib.Path) -> None:
    (tmp_path / "variables").mkdir()
    (tmp_path / "saved_model.pb").write_bytes(b"12345")
    os.utime(tmp_path / "saved_model.pb", ns=(1, 7_000))
    seen = look_at(str(tmp_path))
    assert seen is not None
    assert ("saved_model.pb", 5, 7_000) in seen.files
    assert [(name, size) for name, size, _ in seen.files] == [("./", 0), ("saved_model.pb", 5), ("variables/", 0)]


def test_a_file_of_an_old_date_that_is_added_shows(tmp_path: pathlib.Path) -> None:
    (tmp_path / "saved_model.pb").touch()
    os.utime(tmp_path, ns=(0, 0))
    before = look_at(str(tmp_path))
    (tmp_path / "assets").mkdir()
    os.utime(tmp_path / "assets", ns=(0, 0))
    after = look_at(str(tmp_path))
    assert before is not None
    assert after is not None
    assert max(modified_ns for _, _, modified_ns in after.files) > 0
    assert before != after


def test_two_looks_at_an_unchanged_version_are_equal(tmp_path: pathlib.Path) -> None:
    for name in ("saved_model.pb", "b", "a"):
        (tmp_path / name).touch()
    assert look_at(str(tmp_path)) == look_at(str(tmp_path))


def test_a_dangling_link_among_the_files_is_left_out(tmp_path: pathlib.Path) -> None:
    (tmp_path / "saved_model.pb").touch()
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert names(tmp_path) == ["./", "saved_model.pb"]


def test_a_version_behind_a_link_is_seen_through_it(tmp_path: pathlib.Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "saved_model.pb").touch()
    (tmp_path / "1").symlink_to(tmp_path / "real")
    assert names(tmp_path / "1") == ["./", "saved_model.pb"]


def test_what_does_not_exist_is_none(tmp_path: pathlib.Path) -> None:
    assert look_at(str(tmp_path / "7")) is None


def test_a_version_that_is_a_file_lacks_nothing_and_changes_with_its_size(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "7"
    path.write_bytes(b"a,b")
    seen = look_at(str(path))
    assert seen is not None
    assert missing_files(seen) == []
    os.utime(path, ns=(0, seen.files[0][2]))
    assert look_at(str(path)) == seen
    path.write_bytes(b"a,bc")
    os.utime(path, ns=(0, seen.files[0][2]))
    assert look_at(str(path)) != seen


def test_a_tensorflow_lite_model_by_itself_is_complete_and_beside_a_graph_it_changes_nothing() -> None:
    assert missing_files(Fingerprint((("./", 0, 0), ("model.tflite", 4, 0)))) == []
    begun = (("./", 0, 0), ("model.tflite", 4, 0), ("saved_model.pb", 4, 0), ("variables/variables.index", 4, 0))
    assert missing_files(Fingerprint(begun)) == ["variables/variables.data-00000-of-00001"]


@pytest.mark.parametrize("kind", ["a dangling link", "an empty folder"])
def test_a_name_without_a_model_behind_it_is_a_version_that_lacks_its_files(tmp_path: pathlib.Path, kind: str) -> None:
    path = tmp_path / "7"
    if kind == "a dangling link":
        path.symlink_to(tmp_path / "nowhere")
    else:
        path.mkdir()
    seen = look_at(str(path))
    assert seen is not None
    assert missing_files(seen) == ["saved_model.pb"]
    ((_, _, modified_ns),) = seen.files
    assert not is_settled(seen, seen, modified_ns // 1000)


def test_a_folder_that_cannot_be_listed_is_a_version_that_lacks_its_files(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "saved_model.pb").touch()

    def refuse(_path: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    assert names(tmp_path) == ["./"]


def test_the_graph_is_asked_where_its_checkpoint_is_not_all_there(tmp_path: pathlib.Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(GRAPH_WITH_VARIABLES)
    (tmp_path / "variables").mkdir()
    for name in (INDEX, SHARD):
        seen = look_at(str(tmp_path))
        assert seen is not None
        assert seen.need is CheckpointNeed.VARIABLES
        assert name in missing_files(seen)
        (tmp_path / name).touch()
    seen = look_at(str(tmp_path))
    assert seen is not None
    assert seen.need is None
    assert missing_files(seen) == []


def test_a_graph_is_read_again_only_when_it_has_changed(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = tmp_path / "saved_model.pb"
    graph.write_bytes(GRAPH_WITH_VARIABLES)
    reads = []

    def read(path: str) -> CheckpointNeed:
        reads.append(path)
        return CheckpointNeed.VARIABLES

    monkeypatch.setattr(version_files, "read_checkpoint_need", read)
    last = look_at(str(tmp_path))
    (tmp_path / "assets").mkdir()
    assert look_at(str(tmp_path), last) != last
    assert reads == [str(graph)]
    graph.write_bytes(GRAPH_WITH_VARIABLES * 2)
    look_at(str(tmp_path), last)
    assert reads == [str(graph)] * 2


def test_a_graph_that_cannot_be_read_is_left_to_its_loading(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "saved_model.pb").touch()

    def refuse(path: str) -> CheckpointNeed:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(version_files, "read_checkpoint_need", refuse)
    seen = look_at(str(tmp_path))
    assert seen is not None
    assert missing_files(seen) == []
