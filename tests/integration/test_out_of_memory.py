"""A worker that the kernel kills for want of memory, in a real control group: skipped where none can be made."""

import contextlib
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.fakes.fake_worker_options import FAKE_WORKER

LIMIT_BYTES = 256 << 20

GATEWAY = """
import asyncio, os, sys, zmq
from pathlib import Path
Path(sys.argv[2], "cgroup.procs").write_text(str(os.getpid()))
from tensorgate.gateway.cgroup import OomKills
from tensorgate.gateway.core.clock import SystemClock
from tensorgate.gateway.dispatch.run_directory import RunDirectory
from tensorgate.gateway.dispatch.supervisor import Supervisor, WorkerOptions
from tensorgate.gateway.dispatch.worker_client import LoadOptions
from tensorgate.protos.status_codes import ServingError

async def main():
    run_directory, loop = RunDirectory(), asyncio.get_running_loop()
    options = WorkerOptions("worker-0", 1, (sys.executable, sys.argv[1]))
    supervisor = Supervisor(options, zmq.Context(), loop, run_directory, SystemClock(), OomKills())
    worker = await supervisor.start()
    try:
        await worker.load(1, "greedy", 1, "/models/greedy/1", "tensorflow", LoadOptions())
    except ServingError as error:
        print(error.message, flush=True)
    await supervisor.stop(5.0)
    run_directory.remove()

asyncio.run(main())
"""


def own_group() -> pathlib.Path:
    """The folder of the group that limits this process's memory, in whichever version of control groups."""
    lines = pathlib.Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    paths = dict(line.split(":", 2)[1:] for line in lines)
    root = pathlib.Path("/sys/fs/cgroup")
    if "memory" in paths:
        inner = root / "memory" / paths["memory"].lstrip("/")
        return inner if inner.is_dir() else root / "memory"
    return root / paths[""].lstrip("/")


@pytest.fixture
def small_group() -> Iterator[pathlib.Path]:
    group = own_group() / f"tensorgate-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        limits = [name for name in ("memory.max", "memory.limit_in_bytes") if (group / name).exists()]
        if not limits:
            pytest.skip("the memory controller is not there")
        (group / limits[0]).write_text(str(LIMIT_BYTES), encoding="ascii")
        for name in ("memory.swap.max", "memory.memsw.limit_in_bytes"):
            with contextlib.suppress(OSError):
                value = "0" if name == "memory.swap.max" else str(LIMIT_BYTES)
                (group / name).write_text(value, encoding="ascii")
        yield group
    finally:
        group.rmdir()


def test_a_worker_that_takes_more_memory_than_there_is_is_said_to_have_died_of_that(small_group: pathlib.Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", GATEWAY, str(FAKE_WORKER), str(small_group)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    assert "was killed by the kernel for want of memory (the control group's oom_kill count rose)" in ended.stdout
