"""Control groups: processors granted and kills for want of memory, from folders like the kernel's."""

import os
from pathlib import Path

import pytest

from tensorgate.gateway.cgroup import OomKills, granted_cpus


class Groups:
    """A folder like /sys/fs/cgroup and a file like /proc/self/cgroup."""

    def __init__(self, folder: Path, *lines: str) -> None:
        self.root = folder / "cgroup"
        self.root.mkdir()
        self.membership = folder / "membership"
        self.membership.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")

    def cpus(self) -> int:
        return granted_cpus(self.root, self.membership)


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("max 100000\n", 8),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("10000 100000\n", 1),
        ("6400000 100000\n", 8),
        ("nonsense\n", 8),
        ("", 8),
    ],
)
def test_a_quota_of_version_2_bounds_the_processors(tmp_path: Path, text: str, cpus: int) -> None:
    groups = Groups(tmp_path, "0::/service")
    groups.write("service/cpu.max", text)
    assert groups.cpus() == cpus


@pytest.mark.usefixtures("eight_cores")
def test_the_tightest_group_on_the_way_up_counts(tmp_path: Path) -> None:
    groups = Groups(tmp_path, "0::/pod/container")
    groups.write("pod/container/cpu.max", "max 100000")
    groups.write("pod/cpu.max", "300000 100000")
    assert groups.cpus() == 3


@pytest.mark.usefixtures("eight_cores")
def test_a_container_whose_own_group_is_mounted_as_the_root_is_found_there(tmp_path: Path) -> None:
    groups = Groups(tmp_path, "0::/docker/0123")
    groups.write("cpu.max", "400000 100000")
    assert groups.cpus() == 4


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize(("quota_us", "cpus"), [(-1, 8), (250000, 3)])
def test_a_quota_of_version_1_bounds_the_processors(tmp_path: Path, quota_us: int, cpus: int) -> None:
    groups = Groups(tmp_path, "5:memory:/m", "4:cpu,cpuacct:/docker/1", "0::/")
    groups.write("cpu/docker/1/cpu.cfs_quota_us", f"{quota_us}\n")
    groups.write("cpu/docker/1/cpu.cfs_period_us", "100000\n")
    groups.write("cpu.max", "100000 100000")  # of another version, which does not have the controller
    assert groups.cpus() == cpus


def test_without_control_groups_the_affinity_counts(tmp_path: Path) -> None:
    assert granted_cpus(tmp_path, tmp_path / "none") == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("line", "name", "text"),
    [
        ("0::/a", "a/memory.events", "low 0\nhigh 3\nmax 9\noom 4\noom_kill {}\n"),
        ("4:memory:/a", "memory/a/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"),
    ],
    ids=["version 2", "version 1"],
)
def test_each_kill_explains_one_death(tmp_path: Path, line: str, name: str, text: str) -> None:
    groups = Groups(tmp_path, line)
    groups.write(name, text.format(5))
    kills = OomKills(groups.root, groups.membership)
    assert not kills.explains_a_kill()
    groups.write(name, text.format(7))
    assert [kills.explains_a_kill() for _ in range(3)] == [True, True, False]
    groups.write(name, text.format(8))
    kills.forget()
    assert not kills.explains_a_kill()


def test_where_the_kernel_does_not_count_kills_none_is_seen(tmp_path: Path) -> None:
    assert not OomKills(tmp_path, tmp_path / "none").explains_a_kill()
    groups = Groups(tmp_path, "0::/a")
    groups.write("a/memory.events", "oom_kill many\n")
    assert OomKills(groups.root, groups.membership).count() == 0
