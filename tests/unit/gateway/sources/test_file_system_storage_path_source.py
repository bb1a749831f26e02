"""The file-system source: which versions it finds, what it waits for, and what it leaves alone when it cannot look."""

import asyncio
import logging
import os
import pathlib
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence

import pytest

from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.servable_state import ManagerState, ServableState
from tensorgate.gateway.core.source import ServableData
from tensorgate.gateway.sources import file_system_storage_path_source
from tensorgate.gateway.sources.file_system_storage_path_source import (
    AllVersions,
    FileSystemStoragePathSource,
    LatestVersions,
    ServableToMonitor,
    SpecificVersions,
    VersionPolicy,
    aspired_children,
    look_for_versions,
    parse_version,
)
from tensorgate.gateway.sources.version_files import GIVEN_UP_US, Fingerprint, look_at
from tensorgate.protos.status_codes import Code, ServingError
from tests.fakes.manual_clock import ManualClock

LONG_AGO_S = 1_600_000_000


def make_version(base_path: pathlib.Path, child: str, *, modified_s: float = LONG_AGO_S) -> pathlib.Path:
    """A complete version, last written at that time."""
    path = base_path / child
    path.mkdir(parents=True)
    (path / "saved_model.pb").write_bytes(b"model")
    os.utime(path / "saved_model.pb", (modified_s, modified_s))
    os.utime(path, (modified_s, modified_s))
    return path


class Scene:
    """A source of models below one folder; its target, which records the folders' names; and the clock it reads."""

    def __init__(
        self,
        root: pathlib.Path,
        policies: dict[str, VersionPolicy] | VersionPolicy | None = None,
        *,
        poll_wait_s: float = 1.0,
    ) -> None:
        self.root = root
        self.clock = ManualClock(now_s=time.time())
        self.told: list[tuple[str, list[str]]] = []
        self.target_errors: list[Exception] = []
        self.on_told: Callable[[], None] = lambda: None
        if not isinstance(policies, dict):
            policies = {"m": policies or LatestVersions()}
        self.source = FileSystemStoragePathSource(
            [ServableToMonitor(name, str(root / name), policy) for name, policy in policies.items()],
            poll_wait_s,
            self,
            self.clock,
        )

    @property
    def base_path(self) -> pathlib.Path:
        return self.root / "m"

    def set_aspired_versions(self, name: str, versions: Sequence[ServableData]) -> None:
        if self.target_errors:
            raise self.target_errors.pop(0)
        assert [pathlib.Path(data.path).parent for data in versions] == [self.root / name] * len(versions)
        assert [data.id for data in versions] == [
            ServableId(name, int(pathlib.Path(data.path).name)) for data in versions
        ]
        self.told.append((name, [pathlib.Path(data.path).name for data in versions]))
        self.on_told()

    def new_version(self, child: str) -> pathlib.Path:
        """A complete version that was written this moment."""
        return make_version(self.base_path, child, modified_s=self.clock.now_s)

    def half_version(self, child: str) -> pathlib.Path:
        """A version whose graph has not been written yet."""
        (self.base_path / child / "variables").mkdir(parents=True)
        return self.base_path / child

    async def look(self) -> list[list[str]]:
        """One look; the wishes for model m it led to."""
        begin = len(self.told)
        await self.source.poll_once()
        return [children for name, children in self.told[begin:] if name == "m"]


def told_by_the_source(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """Severity and text of what it logged."""
    return [(record.levelno, record.getMessage()) for record in caplog.records if record.name == "tensorgate.source"]


def looking() -> list[asyncio.Task[None]]:
    """The tasks of a source that has been started."""
    return [task for task in asyncio.all_tasks() if "source" in task.get_name()]


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(scenario(), 10)

    asyncio.run(limited())


# --- names and policies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("child", "version"),
    [
        ("0", 0),
        ("7", 7),
        ("00000123", 123),
        ("20240229123456", 20240229123456),
        ("+7", 7),
        ("-5", -5),
        (" 7 ", 7),
        ("9223372036854775807", 9223372036854775807),
        ("-9223372036854775808", -9223372036854775808),
        ("9223372036854775808", None),
        ("-9223372036854775809", None),
        ("9" * 255, None),
        ("0" * 250 + "7", 7),
        ("", None),
        ("abc", None),
        ("2.denied", None),
        ("7a", None),
        ("v7", None),
        ("1_000", None),
        ("0x7", None),
        ("1e3", None),
        ("7.0", None),
        ("+", None),
        ("- 5", None),
        ("٣", None),
        (".7.swp", None),
    ],
)
def test_a_version_is_what_upstream_reads_as_a_number(child: str, version: int | None) -> None:
    assert parse_version(child) == version


CHILDREN = ["1", "3", "2", "00000010", "2.denied", "tmp", "-5", "9223372036854775808"]


@pytest.mark.parametrize(
    ("policy", "versions"),
    [
        (LatestVersions(), [10]),
        (LatestVersions(2), [10, 3]),
        (LatestVersions(99), [10, 3, 2, 1, -5]),
        (LatestVersions(0), [10]),
        (LatestVersions(-1), [10]),
        (AllVersions(), [10, 3, 2, 1, -5]),
        (SpecificVersions((2, 10)), [10, 2]),
        (SpecificVersions((2, 4)), [2]),
        (SpecificVersions((4,)), []),
        (SpecificVersions(()), []),
    ],
)
def test_the_policy_picks_by_number_largest_first(policy: VersionPolicy, versions: list[int]) -> None:
    assert [version for version, _ in aspired_children(CHILDREN, policy)] == versions
    assert [version for version, _ in aspired_children(CHILDREN[::-1], policy)] == versions


def test_of_two_names_for_one_version_the_last_in_sorted_order_counts() -> None:
    assert aspired_children(["1", "001", "2", "+2"], AllVersions()) == [(2, "2"), (1, "1")]


def test_nothing_is_picked_from_an_empty_folder() -> None:
    assert aspired_children([], LatestVersions()) == []


# --- looking ----------------------------------------------------------------------------------------------------------


def test_a_look_tells_the_target_what_the_policy_picks_with_the_full_paths(tmp_path: pathlib.Path) -> None:
    scene = Scene(tmp_path, AllVersions())
    for child in ("1", "002", "tmp", "3.part"):
        make_version(scene.base_path, child)

    async def scenario() -> None:
        assert await scene.look() == [["002", "1"]]

    run(scenario)


def test_each_look_tells_the_whole_wish_again(tmp_path: pathlib.Path) -> None:
    scene = Scene(tmp_path)
    make_version(scene.base_path, "1")

    async def scenario() -> None:
        assert await scene.look() == [["1"]]
        assert await scene.look() == [["1"]]
        make_version(scene.base_path, "2")
        assert await scene.look() == [["2"]]
        shutil.rmtree(scene.base_path / "2")
        assert await scene.look() == [["1"]]

    run(scenario)


def test_every_model_has_its_own_policy(tmp_path: pathlib.Path) -> None:
    scene = Scene(tmp_path, {"a": LatestVersions(), "b": AllVersions(), "c": SpecificVersions((1,))})
    for name in "abc":
        for child in ("1", "2"):
            make_version(tmp_path / name, child)

    async def scenario() -> None:
        await scene.source.poll_once()
        assert sorted(scene.told) == [("a", ["2"]), ("b", ["2", "1"]), ("c", ["1"])]

    run(scenario)


def test_a_file_named_by_a_number_is_a_version_as_upstream_has_it_once_it_is_old(tmp_path: pathlib.Path) -> None:
    scene = Scene(tmp_path)
    scene.base_path.mkdir()
    (scene.base_path / "7").write_bytes(b"not a folder")

    async def scenario() -> None:
        assert await scene.look() == []
        scene.clock.advance(GIVEN_UP_US / 1e6 + 5)
        assert await scene.look() == [["7"]]

    run(scenario)


def test_a_base_path_without_versions_unloads_all_and_is_complained_about_once(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(tmp_path)
    make_version(scene.base_path, "1")

    async def scenario() -> None:
        await scene.look()
        shutil.rmtree(scene.base_path / "1")
        assert await scene.look() == [[]]
        assert await scene.look() == [[]]

    run(scenario)
    assert caplog.text.count("No versions of servable m found under base path") == 1


def test_versions_that_are_asked_for_but_missing_are_complained_about_once(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(tmp_path, SpecificVersions((1, 2, 3)))
    make_version(scene.base_path, "2")

    async def scenario() -> None:
        assert await scene.look() == [["2"]]
        assert await scene.look() == [["2"]]

    run(scenario)
    assert caplog.text.count("versions [1, 3] of servable m are asked for but not in") == 1


def test_a_trouble_that_comes_back_is_complained_about_again(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(tmp_path)

    async def scenario() -> None:
        for _ in range(2):
            await scene.look()
            make_version(scene.base_path, "1")
            await scene.look()
            shutil.rmtree(scene.base_path)

    run(scenario)
    assert caplog.text.count("Could not find base path") == 2


# --- what cannot be looked at -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["missing", "a file", "unreadable", "no path at all"])
def test_a_base_path_that_cannot_be_read_changes_nothing_for_its_model_and_nothing_for_others(
    tmp_path: pathlib.Path, trouble: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    name = "m\0" if trouble == "no path at all" else "m"
    scene = Scene(tmp_path, {name: LatestVersions(), "other": LatestVersions()})
    make_version(tmp_path / "other", "1")
    if trouble != "no path at all":
        make_version(scene.base_path, "1")

    async def scenario() -> None:
        await scene.source.poll_once()
        if trouble in ("missing", "a file"):
            shutil.rmtree(scene.base_path)
        if trouble == "a file":
            scene.base_path.touch()
        if trouble == "unreadable":
            real = os.listdir

            def listdir(path: str) -> list[str]:
                if path == str(scene.base_path):
                    raise PermissionError(13, "Permission denied", path)
                return real(path)

            monkeypatch.setattr(os, "listdir", listdir)
        scene.told.clear()
        await scene.source.poll_once()
        await scene.source.poll_once()
        assert scene.told == [("other", ["1"])] * 2

    run(scenario)
    assert len(caplog.records) == 1


def test_a_version_that_vanishes_between_listing_and_looking_gives_way_to_the_next(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(tmp_path)
    for child in ("1", "2", "3"):
        make_version(scene.base_path, child)

    def look(path: str, last: Fingerprint | None) -> Fingerprint | None:
        if path.endswith("3"):
            shutil.rmtree(path, ignore_errors=True)
        return look_at(path, last)

    async def scenario() -> None:
        monkeypatch.setattr(file_system_storage_path_source, "look_at", look)
        assert await scene.look() == [["2"]]

    run(scenario)


def test_a_version_whose_name_cannot_be_looked_at_changes_nothing(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(tmp_path)
    make_version(scene.base_path, "1")

    def look(path: str, _last: Fingerprint | None) -> Fingerprint | None:
        raise OSError(5, "Input/output error", path)

    async def scenario() -> None:
        await scene.look()
        monkeypatch.setattr(file_system_storage_path_source, "look_at", look)
        assert await scene.look() == []

    run(scenario)
    assert f"Input/output error: {scene.base_path / '1'}; what is loaded stays" in caplog.text


def test_a_version_that_is_a_link_stays_aspired_when_what_it_points_at_is_away(tmp_path: pathlib.Path) -> None:
    scene = Scene(tmp_path)
    real = make_version(tmp_path / "storage", "1")
    scene.base_path.mkdir()
    (scene.base_path / "1").symlink_to(real)

    async def scenario() -> None:
        assert await scene.look() == [["1"]]
        shutil.rmtree(tmp_path / "storage")
        assert await scene.look() == [["1"]]

    run(scenario)


def test_a_target_that_raises_does_not_end_the_looking(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(tmp_path, poll_wait_s=0.001)
    make_version(scene.base_path, "1")
    scene.target_errors = [RuntimeError("the target is broken")] * 2

    async def scenario() -> None:
        told = asyncio.Event()
        scene.on_told = told.set
        await scene.source.start()
        await told.wait()
        await scene.source.stop()

    run(scenario)
    assert scene.told[0] == ("m", ["1"])
    assert caplog.text.count("looking for versions of m failed") == 1


# --- versions that are still being written ----------------------------------------------------------------------------


def test_a_new_version_is_aspired_when_two_looks_see_the_same(tmp_path: pathlib.Path) -> None:
    scene = Scene(tmp_path)
    make_version(scene.base_path, "1")

    async def scenario() -> None:
        await scene.look()
        path = scene.new_version("2")
        assert await scene.look() == []
        (path / "assets").mkdir()
        assert await scene.look() == []
        assert await scene.look() == [["2"]]

    run(scenario)


def test_a_version_that_is_quiet_for_long_is_aspired_at_first_sight(tmp_path: pathlib.Path) -> None:
    scene = Scene(tmp_path)
    make_version(scene.base_path, "1", modified_s=scene.clock.now_s - 1.5)

    async def scenario() -> None:
        assert await scene.look() == [["1"]]

    run(scenario)


def test_an_incomplete_version_is_waited_for_and_said_so_once(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(tmp_path)
    make_version(scene.base_path, "1")
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        await scene.look()
        path = scene.half_version("2")
        for _ in range(3):
            assert await scene.look() == []
        (path / "variables").rmdir()
        (path / "saved_model.pb").touch()
        await scene.look()
        assert await scene.look() == [["2"]]

    run(scenario)
    assert told_by_the_source(caplog) == [
        (logging.INFO, f"waiting for the files of {scene.base_path / '2'} to be complete: it lacks saved_model.pb")
    ]


def test_a_version_without_the_values_of_its_variables_is_waited_for_until_they_come(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(tmp_path)
    make_version(scene.base_path, "1")
    caplog.set_level(logging.INFO)
    path = scene.base_path / "2"

    async def scenario() -> None:
        await scene.look()
        path.mkdir()
        (path / "saved_model.pb").write_bytes(b"\x12\x09RestoreV2\x12\x0bVarHandleOp")
        for _ in range(10):
            assert await scene.look() == []
            scene.clock.advance(GIVEN_UP_US / 1e6)
        (path / "variables").mkdir()
        (path / "variables" / "variables.data-00000-of-00001").touch()
        assert await scene.look() == []
        (path / "variables" / "variables.index").touch()
        await scene.look()
        assert await scene.look() == [["2"]]

    run(scenario)
    lacks = "it lacks variables/variables.index, variables/variables.data-00000-of-00001"
    assert told_by_the_source(caplog) == [
        (logging.INFO, f"waiting for the files of {path} to be complete: {lacks}"),
        (logging.WARNING, f"the files of {path} are still not complete after 60 s: {lacks}"),
    ]


def test_of_many_files_that_are_missing_some_are_named(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(tmp_path)
    caplog.set_level(logging.INFO)
    path = make_version(scene.base_path, "1")
    (path / "variables").mkdir()
    (path / "variables" / "variables.data-00007-of-00009").touch()

    async def scenario() -> None:
        assert await scene.look() == []

    run(scenario)
    shards = ", ".join(f"variables/variables.data-0000{i}-of-00009" for i in range(2))
    assert told_by_the_source(caplog)[0][1].endswith(f": it lacks variables/variables.index, {shards} and 6 more")


def test_an_incomplete_version_that_nobody_writes_is_aspired_in_the_end(tmp_path: pathlib.Path) -> None:
    scene = Scene(tmp_path)
    make_version(scene.base_path, "1")

    async def scenario() -> None:
        await scene.look()
        scene.half_version("2")
        assert await scene.look() == []
        scene.clock.advance(GIVEN_UP_US / 1e6 + 5)
        assert await scene.look() == [["2"]]

    run(scenario)


def test_a_server_that_starts_during_an_export_serves_the_version_before(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(tmp_path, LatestVersions(2))
    caplog.set_level(logging.INFO)
    for child in ("1", "2", "3"):
        make_version(scene.base_path, child)
    path = scene.half_version("4")

    async def scenario() -> None:
        assert await scene.look() == [["3", "2"]]
        assert await scene.look() == []
        (path / "variables").rmdir()
        (path / "saved_model.pb").touch()
        await scene.look()
        assert await scene.look() == [["4", "3"]]

    run(scenario)
    assert [message for _, message in told_by_the_source(caplog)] == [
        f"waiting for the files of {path} to be complete: it lacks saved_model.pb"
    ]


def test_with_nothing_but_an_incomplete_version_nothing_is_told(tmp_path: pathlib.Path) -> None:
    scene = Scene(tmp_path)
    scene.half_version("1")

    async def scenario() -> None:
        assert await scene.look() == []

    run(scenario)


def test_an_export_that_takes_long_does_not_keep_other_versions_from_being_added(tmp_path: pathlib.Path) -> None:
    scene = Scene(tmp_path, AllVersions())
    make_version(scene.base_path, "1")

    async def scenario() -> None:
        await scene.look()
        scene.half_version("3")
        make_version(scene.base_path, "2")
        assert await scene.look() == [["2", "1"]]

    run(scenario)


def test_nothing_is_taken_away_while_its_successor_is_still_being_written(tmp_path: pathlib.Path) -> None:
    scene = Scene(tmp_path)
    for child in ("1", "2"):
        make_version(scene.base_path, child)

    async def scenario() -> None:
        assert await scene.look() == [["2"]]
        shutil.rmtree(scene.base_path / "2")
        scene.half_version("3")
        assert await scene.look() == []
        shutil.rmtree(scene.base_path / "3")
        assert await scene.look() == [["1"]]

    run(scenario)


def test_an_aspired_version_stays_so_whatever_happens_to_its_files(tmp_path: pathlib.Path) -> None:
    scene = Scene(tmp_path)
    path = make_version(scene.base_path, "1")

    async def scenario() -> None:
        await scene.look()
        (path / "saved_model.pb").unlink()
        assert await scene.look() == [["1"]]

    run(scenario)


def test_a_version_that_comes_back_half_is_waited_for_again(tmp_path: pathlib.Path) -> None:
    scene = Scene(tmp_path, AllVersions())
    for child in ("1", "2"):
        make_version(scene.base_path, child)

    async def scenario() -> None:
        await scene.look()
        shutil.rmtree(scene.base_path / "2")
        assert await scene.look() == [["1"]]
        scene.half_version("2")
        assert await scene.look() == []

    run(scenario)


# --- when to look -----------------------------------------------------------------------------------------------------


def test_with_a_period_of_zero_there_is_one_look_and_what_is_there_counts(tmp_path: pathlib.Path) -> None:
    scene = Scene(tmp_path, poll_wait_s=0)
    scene.half_version("1")

    async def scenario() -> None:
        await scene.source.start()
        for task in looking():
            await task
        await scene.source.stop()

    run(scenario)
    assert scene.told == [("m", ["1"])]


def test_with_a_negative_period_there_is_no_look(tmp_path: pathlib.Path) -> None:
    scene = Scene(tmp_path, poll_wait_s=-1)
    make_version(scene.base_path, "1")

    async def scenario() -> None:
        await scene.source.start()
        assert looking() == []
        await scene.source.stop()

    run(scenario)
    assert scene.told == []


def test_with_a_period_the_looking_goes_on_until_it_is_stopped(tmp_path: pathlib.Path) -> None:
    scene = Scene(tmp_path, poll_wait_s=0.001)
    make_version(scene.base_path, "1")

    async def scenario() -> None:
        told = asyncio.Event()
        scene.on_told = told.set
        await scene.source.start()
        for _ in range(3):
            await told.wait()
            told.clear()
        await scene.source.stop()
        await scene.source.stop()
        assert looking() == []

    run(scenario)
    assert scene.told[:3] == [("m", ["1"])] * 3


def test_a_disk_that_hangs_delays_its_own_model_only(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(tmp_path, {"m": LatestVersions(), "other": LatestVersions()}, poll_wait_s=0.001)
    for name in ("m", "other"):
        make_version(tmp_path / name, "1")
    lets_go: list[asyncio.Event] = []

    async def to_thread(look: Callable[..., object], servable: ServableToMonitor, *arguments: object) -> object:
        if servable.name == "m":
            await lets_go[0].wait()
        return look(servable, *arguments)

    async def scenario() -> None:
        lets_go.append(asyncio.Event())
        told = asyncio.Event()
        scene.on_told = told.set
        monkeypatch.setattr(asyncio, "to_thread", to_thread)
        await scene.source.start()
        for _ in range(3):
            await told.wait()
            told.clear()
        assert scene.told == [("other", ["1"])] * 3
        lets_go[0].set()
        while ("m", ["1"]) not in scene.told:
            await told.wait()
            told.clear()
        await scene.source.stop()

    run(scenario)


def test_looking_may_leave_out_folders(tmp_path: pathlib.Path) -> None:
    for child in ("1", "2"):
        make_version(tmp_path, child)
    servable = ServableToMonitor("m", str(tmp_path))
    assert [data.id.version for data, _ in look_for_versions(servable).versions] == [2]
    found = look_for_versions(servable, [str(tmp_path / "2")])
    assert [data.id.version for data, _ in found.versions] == [1]


def test_a_version_that_was_away_is_looked_at_as_if_for_the_first_time(tmp_path: pathlib.Path) -> None:
    scene = Scene(tmp_path, AllVersions())
    make_version(scene.base_path, "1")
    path, away = scene.new_version("2"), scene.base_path / "away"

    async def scenario() -> None:
        await scene.look()
        assert await scene.look() == [["2", "1"]]
        path.rename(away)
        assert await scene.look() == [["1"]]
        away.rename(path)
        assert await scene.look() == []
        assert await scene.look() == [["2", "1"]]

    run(scenario)


# --- models that come and go while the source runs --------------------------------------------------------------------


def watched(scene: Scene, *names: str, policy: VersionPolicy | None = None) -> list[ServableToMonitor]:
    return [ServableToMonitor(name, str(scene.root / name), policy or LatestVersions()) for name in names]


def test_a_model_that_is_taken_out_is_un_aspired_at_once_and_never_looked_at_again(tmp_path: pathlib.Path) -> None:
    scene = Scene(tmp_path, {"a": LatestVersions(), "b": LatestVersions()}, poll_wait_s=0.001)
    for name in "ab":
        make_version(tmp_path / name, "1")

    async def scenario() -> None:
        await scene.source.start()
        await told_until(scene, lambda: {name for name, _ in scene.told} == {"a", "b"})
        scene.source.set_servables(watched(scene, "b"))
        assert scene.told[-1] == ("a", [])
        scene.told.clear()
        await told_until(scene, lambda: len(scene.told) >= 3)
        await scene.source.stop()
        assert {name for name, _ in scene.told} == {"b"}
        assert looking() == []

    run(scenario)


def test_a_model_that_stays_as_it_is_hears_nothing_and_one_that_changes_nothing_in_between(
    tmp_path: pathlib.Path,
) -> None:
    scene = Scene(tmp_path, {"a": LatestVersions(), "b": LatestVersions()}, poll_wait_s=1000)
    for name in "ab":
        for child in ("1", "2"):
            make_version(tmp_path / name, child)

    async def scenario() -> None:
        await scene.source.start()
        await told_until(scene, lambda: len(scene.told) == 2)
        scene.told.clear()
        scene.source.set_servables([*watched(scene, "a"), *watched(scene, "b", policy=AllVersions())])
        await told_until(scene, lambda: bool(scene.told))
        assert scene.told == [("b", ["2", "1"])]
        await scene.source.stop()

    run(scenario)


@pytest.mark.parametrize("poll_wait_s", [0.0, 1000.0])
def test_a_model_that_is_put_in_is_looked_at_at_once_also_where_there_is_one_look_only(
    tmp_path: pathlib.Path, poll_wait_s: float
) -> None:
    scene = Scene(tmp_path, {}, poll_wait_s=poll_wait_s)
    make_version(tmp_path / "a", "1")

    async def scenario() -> None:
        await scene.source.start()
        scene.source.set_servables(watched(scene, "a"))
        await told_until(scene, lambda: bool(scene.told))
        assert scene.told == [("a", ["1"])]
        await scene.source.stop()

    run(scenario)


def test_a_source_that_never_looks_does_not_look_for_new_models_either(tmp_path: pathlib.Path) -> None:
    scene = Scene(tmp_path, {}, poll_wait_s=-1)

    async def scenario() -> None:
        await scene.source.start()
        scene.source.set_servables(watched(scene, "a"))
        assert looking() == []
        await scene.source.stop()

    run(scenario)


async def told_until(scene: Scene, condition: Callable[[], bool]) -> None:
    while not condition():
        told = asyncio.Event()
        scene.on_told = told.set
        await told.wait()


def test_a_base_path_may_be_a_uri_of_the_local_file_system(tmp_path: pathlib.Path) -> None:
    make_version(tmp_path / "m", "1")
    found = look_for_versions(ServableToMonitor("m", f"file://{tmp_path}/m"))
    assert [data.path for data, _ in found.versions] == [str(tmp_path / "m" / "1")]


# --- what the status says of versions that wait -----------------------------------------------------------------------


class WaitingScene(Scene):
    """Keeps what the source says of versions that wait."""

    def __init__(self, root: pathlib.Path, done_marker: str = "", poll_wait_s: float = 1.0) -> None:
        super().__init__(root, poll_wait_s=poll_wait_s)
        self.waiting: list[ServableState] = []
        self.source = FileSystemStoragePathSource(
            [ServableToMonitor("m", str(root / "m"), done_marker=done_marker)],
            poll_wait_s,
            self,
            self.clock,
            self._take_waiting,
        )

    def _take_waiting(self, name: str, states: Sequence[ServableState]) -> None:
        assert name == "m"
        self.waiting = list(states)


def test_the_status_of_a_half_copied_version_says_what_is_missing_until_it_is_there(tmp_path: pathlib.Path) -> None:
    scene = WaitingScene(tmp_path)
    make_version(scene.base_path, "1")

    async def scenario() -> None:
        await scene.look()
        assert scene.waiting == []
        path = scene.half_version("2")
        began_us = scene.clock.time_us()
        scene.clock.advance(3)
        await scene.look()
        scene.clock.advance(3)
        await scene.look()
        (state,) = scene.waiting
        assert (state.id, state.state) == (ServableId("m", 2), ManagerState.START)
        assert state.time_us == began_us + 3_000_000
        assert state.error == ServingError(
            Code.UNAVAILABLE, f"waiting for the files of {path} to be complete: it lacks saved_model.pb"
        )
        (path / "variables").rmdir()
        (path / "saved_model.pb").touch()
        os.utime(path / "saved_model.pb", (scene.clock.now_s, scene.clock.now_s))
        await scene.look()
        assert [each.error.message for each in scene.waiting if each.error] == [
            f"waiting for the files of {path} to be complete"
        ]
        assert await scene.look() == [["2"]]
        assert scene.waiting == []

    run(scenario)


def test_nothing_is_said_any_more_of_a_version_or_a_model_that_has_gone(tmp_path: pathlib.Path) -> None:
    scene = WaitingScene(tmp_path)

    async def scenario() -> None:
        path = scene.half_version("2")
        await scene.look()
        assert len(scene.waiting) == 1
        shutil.rmtree(path)
        await scene.look()
        assert scene.waiting == []
        scene.half_version("2")
        await scene.look()
        assert len(scene.waiting) == 1
        scene.source.set_servables([])
        assert scene.waiting == []

    run(scenario)


@pytest.mark.parametrize("poll_wait_s", [0.0, 1.0])
def test_where_there_is_a_done_marker_it_alone_decides(tmp_path: pathlib.Path, poll_wait_s: float) -> None:
    scene = WaitingScene(tmp_path, done_marker="DONE", poll_wait_s=poll_wait_s)
    path = make_version(scene.base_path, "1")

    async def scenario() -> None:
        assert await scene.look() == []
        scene.clock.advance(GIVEN_UP_US / 1e6 + 5)
        assert await scene.look() == []
        assert [each.error.message for each in scene.waiting if each.error] == [
            f"waiting for the files of {path} to be complete: it lacks DONE"
        ]
        (path / "DONE").touch()
        assert await scene.look() == [["1"]]

    run(scenario)
