"""What the kernel's control groups grant this process: processors, and how often memory ran out.

Beside both lines: thread counts follow the processors, and the supervisor tells a worker that the kernel killed for
want of memory from one that was killed otherwise. Reads files only; any thread. Versions 1 and 2 of control groups, and
processes in a container, whose own group may look like the root.

Source: the kernel's admin-guide/cgroup-v2.rst (cpu.max, memory.events), cgroup-v1/memory.rst (memory.oom_control),
scheduler/sched-bwc.rst (cpu.cfs_quota_us), cgroups(7) on /proc/self/cgroup.
"""

import contextlib
import math
import os
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def granted_cpus(root: Path = ROOT, membership: Path = MEMBERSHIP) -> int:
    """Processors that this process may use: its affinity, or less where a control group gives it less time. At least 1.

    A part of a processor counts as a whole one.
    """
    limits = [_cpu_limit(folder) for folder in _folders("cpu", root, membership)]
    num_cpus = len(os.sched_getaffinity(0))
    return max(1, min(num_cpus, math.ceil(min([num_cpus, *limits]))))


class OomKills:
    """How many processes of our control group the kernel has killed for want of memory, and which are explained.

    One object for all workers: each kill explains one death.
    """

    def __init__(self, root: Path = ROOT, membership: Path = MEMBERSHIP) -> None:
        self._root = root
        self._membership = membership
        self._explained = self.count()

    def count(self) -> int:
        """Since the group was made; 0 where the kernel does not say."""
        for folder in _folders("memory", self._root, self._membership):
            for name in ("memory.events", "memory.oom_control"):
                found = _field(folder / name, "oom_kill")
                if found is not None:
                    return found
        return 0

    def forget(self) -> None:
        """A worker begins: what was killed before is none of its business."""
        self._explained = self.count()

    def explains_a_kill(self) -> bool:
        """Whether there was a kill that explains the death at hand and has not explained another one."""
        if self.count() <= self._explained:
            return False
        self._explained += 1
        return True


def _folders(controller: str, root: Path, membership: Path) -> list[Path]:
    """The groups that this process is in for the controller, the innermost first; in a container perhaps not all."""
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    paths = dict(line.split(":", 2)[1:] for line in lines if line.count(":") >= 2)
    # Version 1 has a line for each controller, or a few of them; version 2 one line without names.
    named = [path for names, path in paths.items() if controller in names.split(",")]
    mount, path = (root / controller, named[0]) if named else (root, paths.get("", "/"))
    inner = Path(path.lstrip("/"))
    return [folder for part in (inner, *inner.parents) if (folder := mount / part).is_dir()]


def _cpu_limit(folder: Path) -> float:
    """In processors; infinite where there is none."""
    with contextlib.suppress(OSError, ValueError, IndexError, ZeroDivisionError):
        quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        return math.inf if quota == "max" else int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota_us = int((folder / "cpu.cfs_quota_us").read_text(encoding="ascii"))
        period_us = int((folder / "cpu.cfs_period_us").read_text(encoding="ascii"))
        return quota_us / period_us if quota_us > 0 else math.inf
    return math.inf


def _field(path: Path, name: str) -> int | None:
    """The number beside a name in a file of lines "name number"; None where there is none."""
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text(encoding="ascii").splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return None
