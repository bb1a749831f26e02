"""The supervisor with a real child process: up, killed, respawned, hung, stopped; nothing is left behind."""

import asyncio
import logging
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import uvloop
import zmq

from tensorgate.gateway.cgroup import OomKills
from tensorgate.gateway.core.clock import SystemClock
from tensorgate.gateway.dispatch.run_directory import RunDirectory
from tensorgate.gateway.dispatch.supervisor import Supervisor, WorkerOptions
from tensorgate.gateway.dispatch.worker_client import LoadOptions, WorkerClient
from tensorgate.protos.status_codes import Code, ServingError
from tests.fakes.fake_worker_options import FAKE_WORKER
from tests.fakes.fake_worker_options import FAKE_WORKER_OPTIONS as OPTIONS


def flags(*more: str) -> WorkerOptions:
    return replace(OPTIONS, command=(*OPTIONS.command, *more))


class Watched:
    """A supervisor and what its listeners have heard."""

    def __init__(self, supervisor: Supervisor, folder: pathlib.Path) -> None:
        self.supervisor = supervisor
        self.folder = folder
        self.ups: asyncio.Queue[WorkerClient] = asyncio.Queue()
        self.downs: asyncio.Queue[tuple[WorkerClient, ServingError]] = asyncio.Queue()
        supervisor.subscribe(self.ups.put_nowait, lambda *down: self.downs.put_nowait(down))


@asynccontextmanager
async def supervised(options: WorkerOptions = OPTIONS, oom_kills: OomKills | None = None) -> AsyncIterator[Watched]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    run_directory = RunDirectory()
    supervisor = Supervisor(options, context, asyncio.get_running_loop(), run_directory, SystemClock(), oom_kills)
    try:
        yield Watched(supervisor, run_directory.path)
    finally:
        await supervisor.stop(5.0)
        assert os.listdir(run_directory.path) == []
        run_directory.remove()
        assert not run_directory.path.exists()
        context.term()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(scenario(), 60)

    asyncio.run(limited())


def open_files(pid: int) -> list[str]:
    folder = f"/proc/{pid}/fd"
    return [os.readlink(f"{folder}/{fd}") for fd in os.listdir(folder)]


def is_alive(pid: int) -> bool:
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_worker_comes_up_in_a_private_folder_and_stops_when_asked(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def scenario() -> None:
        async with supervised() as watched:
            worker = await watched.supervisor.start()
            assert watched.ups.get_nowait() is worker
            assert watched.supervisor.worker is worker
            assert (worker.num_execution_threads, worker.epoch) == (2, 1)
            assert worker.info.pid == watched.supervisor.pid != os.getpid()
            assert watched.folder.stat().st_mode & 0o777 == 0o700
            assert os.getpgid(worker.info.pid) == worker.info.pid
            await watched.supervisor.stop(5.0)
            assert not is_alive(worker.info.pid)
            down, cause = watched.downs.get_nowait()
            assert (down, cause.code) == (worker, Code.UNAVAILABLE)
            assert cause.message == f"worker-0 (pid {worker.info.pid}) exited with code 0"
            assert watched.supervisor.worker is None
            await watched.supervisor.stop(5.0)

    loop = new_loop()
    try:
        loop.run_until_complete(asyncio.wait_for(scenario(), 60))
    finally:
        loop.close()


def test_without_time_to_stop_a_worker_is_killed_at_once() -> None:
    async def scenario() -> None:
        async with supervised() as watched:
            worker = await watched.supervisor.start()
            await watched.supervisor.stop(0.0)
            assert not is_alive(worker.info.pid)
            _, cause = watched.downs.get_nowait()
            assert cause.message == f"worker-0 (pid {worker.info.pid}) was killed by the gateway, which is stopping"

    run(scenario)


def test_a_killed_worker_is_reported_and_respawned_with_a_new_epoch_and_endpoints() -> None:
    async def scenario() -> None:
        async with supervised() as watched:
            first = await watched.supervisor.start()
            before = set(os.listdir(watched.folder))
            os.kill(first.info.pid, signal.SIGKILL)
            down, cause = await watched.downs.get()
            assert down is first
            assert cause.message == f"worker-0 (pid {first.info.pid}) was killed by signal 9 (SIGKILL)"
            assert first.is_closed
            watched.ups.get_nowait()
            second = await watched.ups.get()
            assert second is watched.supervisor.worker
            assert (second.epoch, watched.supervisor.num_starts) == (2, 2)
            assert second.info.pid != first.info.pid
            assert len(before) == 3
            assert before.isdisjoint(os.listdir(watched.folder))

    run(scenario)


def test_an_exit_code_is_told_apart_from_a_signal_and_commands_under_way_fail_with_it() -> None:
    async def scenario() -> None:
        async with supervised() as watched:
            worker = await watched.supervisor.start()
            with pytest.raises(ServingError, match="exited with code 5") as caught:
                await worker.load(1, "exit", 1, "/models/exit/1", "tensorflow", LoadOptions())
            assert caught.value.code == Code.UNAVAILABLE
            _, cause = await watched.downs.get()
            assert cause == caught.value

    run(scenario)


def test_a_worker_that_does_not_answer_its_heartbeat_is_killed_and_replaced() -> None:
    async def scenario() -> None:
        options = replace(flags("--mute=ping"), heartbeat_timeout_s=0.2)
        async with supervised(options) as watched:
            first = await watched.supervisor.start()
            _, cause = await watched.downs.get()
            assert "does not answer its heartbeat (worker-0 did not answer 'ping' within 0.2 s)" in cause.message
            assert not is_alive(first.info.pid)
            watched.ups.get_nowait()
            assert (await watched.ups.get()).epoch == 2

    run(scenario)


def test_a_stopped_worker_is_killed_and_replaced_and_what_waited_for_it_ends() -> None:
    async def scenario() -> None:
        async with supervised(replace(OPTIONS, heartbeat_timeout_s=0.5)) as watched:
            first = await watched.supervisor.start()
            os.kill(first.info.pid, signal.SIGSTOP)
            # Without a bound of its own: the heartbeat is what bounds it.
            with pytest.raises(ServingError, match="does not answer its heartbeat"):
                await first.unload(1)
            watched.ups.get_nowait()
            assert (await watched.ups.get()).epoch == 2

    run(scenario)


def test_a_stopped_worker_can_be_stopped_for_good() -> None:
    async def scenario() -> None:
        async with supervised() as watched:
            worker = await watched.supervisor.start()
            os.kill(worker.info.pid, signal.SIGSTOP)
            await watched.supervisor.stop(0.2)
            assert not is_alive(worker.info.pid)

    run(scenario)


def test_a_worker_that_answers_no_request_for_long_is_replaced_though_it_answers_its_heartbeat() -> None:
    async def scenario() -> None:
        async with supervised(replace(flags("--num_stuck=2"), stuck_timeout_s=0.3)) as watched:
            await watched.supervisor.start()
            _, cause = await watched.downs.get()
            assert "answers its heartbeat but none of its 2 requests for " in cause.message
            assert "(see --worker_stuck_timeout_s)" in cause.message
            watched.ups.get_nowait()
            assert (await watched.ups.get()).epoch == 2

    run(scenario)


def test_an_idle_worker_is_never_stuck() -> None:
    async def scenario() -> None:
        async with supervised(replace(OPTIONS, stuck_timeout_s=0.01)) as watched:
            worker = await watched.supervisor.start()
            for _ in range(5):
                await worker.ping(5.0)
                await asyncio.sleep(OPTIONS.heartbeat_interval_s)
            assert watched.downs.empty()

    run(scenario)


def test_a_worker_killed_for_want_of_memory_is_told_from_one_that_was_killed(tmp_path: pathlib.Path) -> None:
    (tmp_path / "membership").write_text("0::/\n", encoding="ascii")
    events = tmp_path / "memory.events"
    events.write_text("oom 0\noom_kill 0\n", encoding="ascii")

    async def scenario() -> None:
        async with supervised(oom_kills=OomKills(tmp_path, tmp_path / "membership")) as watched:
            for num_kills, end in (
                (1, "was killed by the kernel for want of memory (the control group's oom_kill count rose)"),
                (1, "was killed by signal 9 (SIGKILL)"),
            ):
                if watched.supervisor.num_starts == 0:
                    await watched.supervisor.start()
                worker = await watched.ups.get()
                events.write_text(f"oom 1\noom_kill {num_kills}\n", encoding="ascii")
                os.kill(worker.info.pid, signal.SIGKILL)
                _, cause = await watched.downs.get()
                assert cause.message == f"worker-0 (pid {worker.info.pid}) {end}"

    run(scenario)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (replace(OPTIONS, command=("/no/such/program",)), "could not be started by '/no/such/program'"),
        (flags("--exit_at_start=3", "--say=bad luck"), "exited with code 3 before it was up, its last words: bad luck"),
        (replace(flags("--mute=hello"), start_timeout_s=0.2), "did not come up (worker-0 did not answer 'hello'"),
    ],
    ids=["no program", "exits", "silent"],
)
def test_a_first_start_that_fails_is_raised_and_not_repeated(options: WorkerOptions, text: str) -> None:
    async def scenario() -> None:
        async with supervised(options) as watched:
            with pytest.raises(ServingError) as caught:
                await watched.supervisor.start()
            assert caught.value.code == Code.UNAVAILABLE
            assert text in caught.value.message
            assert (watched.ups.qsize(), watched.downs.qsize()) == (0, 0)
            assert watched.supervisor.num_starts == 1

    run(scenario)


def test_what_the_worker_writes_is_logged_under_its_name(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        with caplog.at_level(logging.INFO):
            async with supervised(flags("--say=hello from below\nand a second line")) as watched:
                await watched.supervisor.start()
        assert [r.message for r in caplog.records if r.name == "tensorgate.worker.worker-0"] == [
            "hello from below",
            "and a second line",
        ]

    run(scenario)


def test_stop_insists_step_by_step_on_a_worker_that_ignores_it() -> None:
    async def scenario() -> None:
        async with supervised(flags("--mute=stop", "--ignore_sigterm")) as watched:
            worker = await watched.supervisor.start()
            began_s = time.monotonic()
            await watched.supervisor.stop(0.2)
            assert 2.0 < time.monotonic() - began_s < 8.0
            assert not is_alive(worker.info.pid)

    run(scenario)


def test_stop_ends_a_worker_that_is_starting_and_the_start_fails() -> None:
    async def scenario() -> None:
        async with supervised(flags("--mute=hello")) as watched:
            starting = asyncio.ensure_future(watched.supervisor.start())
            for _ in range(3):  # the supervisor's task gets as far as waiting for hello
                await asyncio.sleep(0)
            pid = watched.supervisor.pid
            assert pid is not None
            await watched.supervisor.stop(5.0)
            assert not is_alive(pid)
            with pytest.raises(ServingError, match="stopped while starting"):
                await starting

    run(scenario)


def test_stop_during_the_back_off_starts_nothing_more() -> None:
    async def scenario() -> None:
        async with supervised(replace(OPTIONS, min_backoff_s=30.0)) as watched:
            worker = await watched.supervisor.start()
            os.kill(worker.info.pid, signal.SIGKILL)
            await watched.downs.get()
            await watched.supervisor.stop(5.0)
            assert watched.supervisor.num_starts == 1

    run(scenario)


def test_a_supervisor_that_never_started_can_be_stopped() -> None:
    async def scenario() -> None:
        async with supervised():
            pass

    run(scenario)


def test_workers_keep_the_pipe_of_no_other_worker_open() -> None:
    async def scenario() -> None:
        async with supervised() as one, supervised(replace(OPTIONS, name="worker-1")) as other:
            first, second = await one.supervisor.start(), await other.supervisor.start()
            for worker in (first, second):
                # stdout, stderr and the reading end of its own parent pipe.
                assert sum(link.startswith("pipe:") for link in open_files(worker.info.pid)) == 3

    run(scenario)


GATEWAY = """
import asyncio, sys, zmq
from tensorgate.gateway.core.clock import SystemClock
from tensorgate.gateway.dispatch.run_directory import RunDirectory
from tensorgate.gateway.dispatch.supervisor import Supervisor, WorkerOptions

async def main():
    run_directory = RunDirectory()
    options = WorkerOptions("worker-0", 1, (sys.executable, sys.argv[1]))
    supervisor = Supervisor(options, zmq.Context(), asyncio.get_running_loop(), run_directory, SystemClock())
    worker = await supervisor.start()
    print(worker.info.pid, run_directory.path, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def test_a_worker_ends_when_its_gateway_is_killed(tmp_path: pathlib.Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", GATEWAY, str(FAKE_WORKER)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
    ) as gateway:
        assert gateway.stdout is not None
        pid, folder = gateway.stdout.readline().split()
        worker_pid = int(pid)
        assert is_alive(worker_pid)
        gateway.kill()
    # Nobody is left to remove it, and it is in /tmp where the test's own folder is too deep for a socket's path.
    shutil.rmtree(folder)
    deadline_s = time.monotonic() + 10
    while is_alive(worker_pid):
        assert time.monotonic() < deadline_s, "the worker outlives its gateway"
        time.sleep(0.01)
