"""Keeps one worker process running: starts it, watches it, starts it again, stops it.

Beside both lines: who is up decides where requests and loads can go. Owned by the edge loop's thread. A worker is
started by an explicit command, never by forking this process, and each incarnation gets endpoints and an epoch of its
own.

Source: of the life cycle, tensorgate's own design; nothing upstream corresponds to it.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import zmq

from tensorgate.gateway.cgroup import OomKills
from tensorgate.gateway.core.clock import Clock
from tensorgate.gateway.dispatch.run_directory import RunDirectory
from tensorgate.gateway.dispatch.worker import WorkerEndpoints
from tensorgate.gateway.dispatch.worker_client import WorkerClient, WorkerHealth
from tensorgate.gateway.dispatch.worker_memory import WorkerMemory
from tensorgate.gateway.dispatch.worker_process import WorkerProcess
from tensorgate.gateway.python_command import python_command
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.worker_network import WorkerKey

logger = logging.getLogger("tensorgate.supervisor")

OnUp = Callable[[WorkerClient], None]
OnDown = Callable[[WorkerClient, ServingError], None]

# How long a worker may take from SIGTERM to its exit before SIGKILL, and from SIGKILL to being reaped.
TERMINATE_GRACE_S = 2.0
KILL_GRACE_S = 10.0


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How one worker is run. ``environment`` is added to ours; ``command`` gets the worker's flags appended, and with
    them ``op_libraries``, which it loads first.

    ``start_timeout_s`` bounds process start to ``hello``. A worker is pinged every ``heartbeat_interval_s`` and killed
    when an answer is missing for ``heartbeat_timeout_s``. Respawns wait ``min_backoff_s``, doubling to
    ``max_backoff_s``, and begin at the minimum again after ``backoff_reset_s`` of life. ``uses_stream``: requests go
    over a unix socket of their own; else over ZeroMQ. A worker that has requests and answers none of them for
    ``stuck_timeout_s`` is killed too, though it answers its heartbeat; 0: never. ``address``: of a worker on the
    network, which a RemoteSupervisor attends, with the ``key`` that they share, if any.
    """

    name: str
    num_execution_threads: int
    command: tuple[str, ...] = python_command("tensorgate.workers.main")
    environment: Mapping[str, str] = field(default_factory=dict)
    op_libraries: tuple[str, ...] = ()
    start_timeout_s: float = 60.0
    heartbeat_interval_s: float = 1.0
    heartbeat_timeout_s: float = 30.0
    min_backoff_s: float = 0.1
    max_backoff_s: float = 10.0
    backoff_reset_s: float = 60.0
    uses_stream: bool = True
    stuck_timeout_s: float = 0.0
    address: str = ""
    key: WorkerKey | None = None


class _Incarnation:
    """One life of the worker. ``verdict`` is why we killed it, if we did."""

    __slots__ = ("client", "endpoint_paths", "is_up", "process", "verdict")

    def __init__(self, client: WorkerClient, endpoint_paths: list[str]) -> None:
        self.client = client
        self.endpoint_paths = endpoint_paths
        self.process: WorkerProcess | None = None
        self.is_up = False
        self.verdict = ""


class _Progress:
    """Since when a worker has had requests without answering one of them."""

    def __init__(self) -> None:
        self._completed = -1
        self._since_s = 0.0

    def stuck_s(self, health: WorkerHealth, now_s: float) -> float:
        """Seconds, as far as its heartbeats tell; 0 for a worker that answers or has nothing to do."""
        if health.in_flight == 0 or health.completed != self._completed:
            self._completed = health.completed
            self._since_s = now_s
        return now_s - self._since_s


class Supervisor:
    """``start``, then listeners hear of every worker that comes up or goes down, until ``stop``.

    Each ``on_up(worker)`` is followed by one ``on_down(worker, cause)``; cause is UNAVAILABLE and its message, without
    a full stop, says which worker ended and how. Listeners are called on the edge loop, in the order of subscription,
    and must neither block nor raise.
    """

    def __init__(
        self,
        options: WorkerOptions,
        context: "zmq.Context[zmq.Socket[bytes]]",
        loop: asyncio.AbstractEventLoop,
        run_directory: RunDirectory,
        clock: Clock,
        oom_kills: OomKills | None = None,
        memory: WorkerMemory | None = None,
    ) -> None:
        """``oom_kills``: of all workers of this gateway; None: deaths for want of memory are not told from others.

        ``memory``: what the worker shares with the gateway; None: nothing, and everything is sent to it.
        """
        self._options = options
        self._oom_kills = oom_kills
        self._memory = memory
        self._context = context
        self._loop = loop
        self._run_directory = run_directory
        self._clock = clock
        self._output_logger = logging.getLogger(f"tensorgate.worker.{options.name}")
        self._listeners: list[tuple[OnUp, OnDown]] = []
        self._epoch = 0
        self._current: _Incarnation | None = None
        self._last_end = ""
        self._task: asyncio.Task[None] | None = None
        self._first_up: asyncio.Future[WorkerClient] = loop.create_future()
        self._stopping = asyncio.Event()

    @property
    def name(self) -> str:
        return self._options.name

    @property
    def worker(self) -> WorkerClient | None:
        """The worker while it is up."""
        current = self._current
        return current.client if current is not None and current.is_up else None

    @property
    def pid(self) -> int | None:
        """The process that is running or starting."""
        current = self._current
        return None if current is None or current.process is None else current.process.pid

    @property
    def is_up(self) -> bool:
        return self.worker is not None

    @property
    def num_starts(self) -> int:
        return self._epoch

    @property
    def last_end(self) -> str:
        """How its last process ended, or could not begin, without a full stop; empty if none has."""
        return self._last_end

    def subscribe(self, on_up: OnUp, on_down: OnDown) -> None:
        """Adds a listener; before ``start``."""
        self._listeners.append((on_up, on_down))

    async def start(self) -> WorkerClient:
        """Starts the worker and waits until it is up.

        Raises ServingError, with nothing left running, if the first incarnation does not come up: a wrong command or a
        broken installation will not heal by trying again. From then on failures lead to respawns.
        """
        self._task = self._loop.create_task(self._run(), name=f"supervise {self.name}")
        return await asyncio.shield(self._first_up)

    async def stop(self, timeout_s: float) -> None:
        """Ends the worker: asks it to finish what is in flight within ``timeout_s``, then SIGTERM, then SIGKILL.

        With a ``timeout_s`` of 0 it is killed at once: what is in flight has had its time, or is nobody's any more.
        Returns when it has been reaped and its sockets are gone; listeners have heard on_down. Idempotent; fine on a
        supervisor that never started or is starting.
        """
        self._stopping.set()
        if self._task is None:
            return
        current = self._current
        process = None if current is None else current.process
        if current is not None and process is not None:
            await self._stop_process(current, process, timeout_s)
        await asyncio.wait({self._task}, timeout=KILL_GRACE_S)
        self._task.cancel()  # for a process that hangs in the kernel; else it is done
        if self._first_up.done() and not self._first_up.cancelled():
            self._first_up.exception()  # asked for, so that asyncio does not report it as forgotten

    async def _stop_process(self, current: _Incarnation, process: WorkerProcess, timeout_s: float) -> None:
        if timeout_s <= 0:
            current.verdict = "was killed by the gateway, which is stopping"
            await self._kill(process)
            return
        deadline_s = self._clock.monotonic_s() + timeout_s
        if current.is_up:
            try:
                await current.client.stop(timeout_s)
            except ServingError as error:
                if not process.has_exited:
                    logger.warning("%s was asked to stop: %s", self.name, error)
            if await process.wait(max(0.0, deadline_s - self._clock.monotonic_s())):
                return
            current.verdict = f"did not stop within {timeout_s:g} s and was killed"
        process.terminate()
        if await process.wait(TERMINATE_GRACE_S):
            return
        logger.warning("%s does not end on SIGTERM; killing it", self.name)
        await self._kill(process)

    async def _kill(self, process: WorkerProcess) -> None:
        process.kill()
        if not await process.wait(KILL_GRACE_S):
            logger.error("%s (pid %d) cannot be killed: it hangs in the kernel", self.name, process.pid)

    # --- the life cycle -----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        backoff_s = self._options.min_backoff_s
        while not self._stopping.is_set():
            began_s = self._clock.monotonic_s()
            cause = await self._live_once()
            if self._stopping.is_set():
                break
            if not self._first_up.done():
                self._first_up.set_exception(cause)
                return
            if self._clock.monotonic_s() - began_s >= self._options.backoff_reset_s:
                backoff_s = self._options.min_backoff_s
            logger.info("starting %s again in %.1f s", self.name, backoff_s)
            try:
                await asyncio.wait_for(self._stopping.wait(), backoff_s)
            except asyncio.TimeoutError:
                backoff_s = min(2 * backoff_s, self._options.max_backoff_s)
        if not self._first_up.done():
            self._first_up.set_exception(ServingError(Code.UNAVAILABLE, f"{self.name} was stopped while starting"))

    async def _live_once(self) -> ServingError:
        """One incarnation from its start to its end; the cause of its end."""
        ended: asyncio.Future[ServingError] = self._loop.create_future()
        incarnation = self._spawn(ended)
        if incarnation is None:
            return await ended
        heartbeat = self._loop.create_task(self._raise_and_watch(incarnation), name=f"heartbeat {self.name}")
        try:
            return await ended
        finally:
            heartbeat.cancel()
            await asyncio.wait({heartbeat})

    def _spawn(self, ended: "asyncio.Future[ServingError]") -> _Incarnation | None:
        self._epoch += 1
        paths = {
            role: str(self._run_directory.socket_path(f"{self.name}-{self._epoch}-{role}"))
            for role in ("data", "control", "cancel", "stream")
        }
        # Large payloads go with frames on a stream only.
        offer = self._memory.offer() if self._memory is not None and self._options.uses_stream else None
        endpoints = WorkerEndpoints(
            f"ipc://{paths['data']}",
            f"ipc://{paths['control']}",
            f"ipc://{paths['cancel']}",
            paths["stream"] if self._options.uses_stream else "",
            None if offer is None else offer.replies,
        )
        command = [
            *self._options.command,
            f"--data_endpoint={endpoints.data}",
            f"--control_endpoint={endpoints.control}",
            f"--cancel_endpoint={endpoints.cancel}",
            f"--stream_path={endpoints.stream}",
            f"--epoch={self._epoch}",
            f"--num_execution_threads={self._options.num_execution_threads}",
            f"--name={self.name}",
            *(() if offer is None else offer.flags),
        ]
        if self._options.op_libraries:
            command.append(f"--op_libraries={','.join(self._options.op_libraries)}")
        client = WorkerClient(self._context, self._loop, self.name, self._epoch, endpoints)
        incarnation = _Incarnation(client, list(paths.values()))
        self._current = incarnation
        if self._oom_kills is not None:
            self._oom_kills.forget()
        try:
            incarnation.process = WorkerProcess(
                self._loop,
                command,
                {**os.environ, **self._options.environment},
                self._output_logger,
                lambda: self._on_exit(incarnation, ended),
                () if offer is None else offer.fds,
            )
        except OSError as error:
            cause = ServingError(
                Code.UNAVAILABLE,
                f"{self.name} could not be started by {self._options.command[0]!r}: {error.strerror or error};"
                " see --worker_command",
            )
            self._bury(incarnation, cause)
            ended.set_result(cause)
            return None
        finally:
            if offer is not None:
                offer.close()
        logger.info("%s started: pid %d, epoch %d", self.name, incarnation.process.pid, self._epoch)
        return incarnation

    async def _raise_and_watch(self, incarnation: _Incarnation) -> None:
        """Brings a worker up and watches it, until cancelled; a worker that nobody watches any more is killed."""
        try:
            await self._bring_up(incarnation)
        except Exception:
            logger.exception("watching %s failed", self.name)
            self._condemn(incarnation, "was killed, since the gateway failed to watch it (see its log)")

    async def _bring_up(self, incarnation: _Incarnation) -> None:
        """Waits for hello, reports the worker up, and pings it until this task is cancelled or the worker is killed."""
        client = incarnation.client
        try:
            info = await client.hello(self._options.start_timeout_s)
        except ServingError as error:
            self._condemn(incarnation, f"did not come up ({error.message}) and was killed")
            return
        logger.info(
            "%s is up: TensorFlow %s, %d execution threads",
            self.name,
            info.tensorflow_version,
            info.num_execution_threads,
        )
        incarnation.is_up = True
        for on_up, _ in self._listeners:
            on_up(client)
        if not self._first_up.done():
            self._first_up.set_result(client)
        progress = _Progress()
        while True:
            try:
                health = await client.ping(self._options.heartbeat_timeout_s)
            except ServingError as error:
                self._condemn(incarnation, f"does not answer its heartbeat ({error.message}) and was killed")
                return
            stuck_s = progress.stuck_s(health, self._clock.monotonic_s())
            if 0 < self._options.stuck_timeout_s <= stuck_s:
                self._condemn(
                    incarnation,
                    f"answers its heartbeat but none of its {health.in_flight} requests for {stuck_s:.1f} s and was"
                    " killed (see --worker_stuck_timeout_s)",
                )
                return
            await asyncio.sleep(self._options.heartbeat_interval_s)

    def _condemn(self, incarnation: _Incarnation, verdict: str) -> None:
        """Kills a worker that runs but does not serve; its exit does the rest."""
        process = incarnation.process
        if process is None or process.has_exited:
            return
        incarnation.verdict = verdict
        process.kill()

    def _on_exit(self, incarnation: _Incarnation, ended: "asyncio.Future[ServingError]") -> None:
        """The worker has exited and been reaped."""
        process = incarnation.process
        if process is None:
            raise RuntimeError("a worker without a process has exited")
        how = incarnation.verdict or process.describe_exit()
        is_foreign_kill = not incarnation.verdict and process.exit_signal is signal.SIGKILL
        if is_foreign_kill and self._oom_kills is not None and self._oom_kills.explains_a_kill():
            how = "was killed by the kernel for want of memory (the control group's oom_kill count rose)"
        if not incarnation.is_up and process.last_words:
            how += f" before it was up, its last words: {process.last_words}"
        cause = ServingError(Code.UNAVAILABLE, f"{self.name} (pid {process.pid}) {how}")
        # What it answered before it died is as good as any answer.
        incarnation.client.drain()
        self._bury(incarnation, cause)
        if not ended.done():
            ended.set_result(cause)

    def _bury(self, incarnation: _Incarnation, cause: ServingError) -> None:
        self._current = None
        self._last_end = cause.message
        # Before any client hears of it; a first start that fails is told by the exception of ``start`` alone.
        if self._first_up.done():
            logger.log(logging.INFO if self._stopping.is_set() else logging.ERROR, "%s", cause.message)
        if incarnation.is_up:
            for _, on_down in self._listeners:
                on_down(incarnation.client, cause)
        incarnation.client.close(cause)
        # Not left to whoever still knows this incarnation: it is much address space.
        if (replies := incarnation.client.endpoints.replies) is not None:
            replies.close()
        for path in incarnation.endpoint_paths:
            # ZeroMQ removes the files of a worker that closed its sockets itself.
            if os.path.exists(path):
                os.unlink(path)
