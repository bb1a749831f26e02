"""The gateway's end of one incarnation of one worker: who it is, and its control commands.

On a version's line: worker_loader ‖ the worker's commands. Owned by the edge loop's thread, which alone touches the
control socket; the sockets for requests, replies and cancels are the native dispatchers'. A respawned worker gets a new
WorkerClient with new endpoints and a new epoch, so nothing meant for one incarnation can reach the next.

The message layout is that of tensorgate.protos.control_messages.
"""

import asyncio
import itertools
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import zmq

from tensorgate._native import frame_header
from tensorgate.gateway.batching import NO_BATCHING, Batching
from tensorgate.gateway.dispatch.socket_reader import SocketReader
from tensorgate.gateway.dispatch.worker import WorkerEndpoints
from tensorgate.protos import control_messages
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.worker_network import WorkerKey

logger = logging.getLogger("tensorgate.worker_client")

# A plain int: arithmetic on pyzmq's flag enums costs more than the call they are passed to.
NOBLOCK = int(zmq.NOBLOCK)

# Beyond what machines and batch sizes differ in.
DEFAULT_GOLDEN_TOLERANCE = 1e-4

# A worker binds its endpoints some time after it was started; connecting is tried this often.
RECONNECT_INTERVAL_MS = 10

# Numbers of incarnations, of all workers of this process.
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker's answer to ``hello``."""

    pid: int
    tensorflow_version: str
    num_execution_threads: int


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """A worker's answer to ``ping``; ``completed`` counts replies since it started."""

    in_flight: int
    completed: int
    rss_bytes: int
    batch_queues: Sequence[Mapping[str, Any]] = ()
    """DataLoop.batch_queues of all versions, each with handle, name and version."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How versions are loaded, whichever they are; what a platform has no use for, it passes over."""

    tags: tuple[str, ...] = ("serve",)
    """Of the MetaGraph in a SavedModel."""
    session_config: bytes = b""
    """A serialized tensorflow.ConfigProto, or empty."""
    num_warmup_iterations: int = 0
    """How often each of the version's warm-up requests is run; 0: they are not looked at."""
    checks_method_names: bool = False
    """A signature serves only the API that its method_name is of."""
    outputs_as_content: bool = False
    """PredictResponses carry tensor_content rather than typed values."""
    prefer_tflite_model: bool = False
    """Where a version has a model.tflite, it is served, and not the SavedModel."""
    num_tflite_pools: int = 1
    """How many requests such a version runs at a time, at least 1."""
    golden_tolerance: float = DEFAULT_GOLDEN_TOLERANCE
    """How far answers may be from those of the version's golden requests: |answer - golden| <= it * (1 + |golden|)."""
    batching: Batching = NO_BATCHING
    model_settings: bytes = b""
    """A serialized tensorgate.ModelSettings, or empty."""
    on_loaded: Callable[[str, "LoadedServable"], None] = lambda _path, _loaded: None
    """Hears of each copy that a worker has loaded from a folder."""


@dataclass(frozen=True, slots=True)
class LoadedServable:
    """A worker's answer to ``load``: a serialized tensorflow.serving.SignatureDefMap, and the time it took."""

    signature_def_map: bytes
    load_us: int
    num_warmup_records: int = 0
    warmup_us: int = 0


@dataclass(frozen=True, slots=True)
class WorkerTrace:
    """A worker's answer to ``profile``: a serialized tensorflow.profiler.XSpace, and whether it has any event."""

    xspace: bytes
    has_events: bool


class WorkerClient:
    """A Worker (see worker.py) and its control commands.

    Connects on construction, which does not wait for the worker. ``close`` must be called, once the process is known to
    be dead or is to be left alone. ``malformed_replies`` counts control messages that were no reply.
    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        loop: asyncio.AbstractEventLoop,
        name: str,
        epoch: int | None,
        endpoints: WorkerEndpoints,
    ) -> None:
        """epoch: None for a worker on the network, which says it in its answer to hello."""
        self._name = name
        self._number = next(_numbers)
        self._epoch = epoch
        self._endpoints = endpoints
        self._loop = loop
        self._info: WorkerInfo | None = None
        self._closed_by: ServingError | None = None
        self._last_command_id = 0
        self._commands: dict[int, asyncio.Future[control_messages.ControlReply]] = {}
        self.malformed_replies = 0
        self.health: WorkerHealth | None = None
        self._control = _connect(context, endpoints.control, endpoints.key)
        self._control_reader = SocketReader(loop, self._control, self._receive_control_reply)
        self._monitor: tuple[zmq.Socket[bytes], SocketReader] | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def number(self) -> int:
        return self._number

    @property
    def epoch(self) -> int:
        if self._epoch is None:
            raise RuntimeError(f"{self._name} has not answered hello yet")
        return self._epoch

    @property
    def endpoints(self) -> WorkerEndpoints:
        return self._endpoints

    @property
    def info(self) -> WorkerInfo:
        """What ``hello`` answered. Raises RuntimeError before that."""
        if self._info is None:
            raise RuntimeError(f"{self._name} has not answered hello yet")
        return self._info

    @property
    def num_execution_threads(self) -> int:
        return self.info.num_execution_threads

    @property
    def is_closed(self) -> bool:
        return self._closed_by is not None

    def watch_connection(self, on_lost: Callable[[], None]) -> None:
        """Has ``on_lost`` called, on the edge loop, when the worker's connection ends, which may be now."""
        monitor: zmq.Socket[bytes] = self._control.get_monitor_socket(int(zmq.EVENT_DISCONNECTED))

        def take() -> None:
            monitor.recv_multipart(NOBLOCK)
            on_lost()

        reader = SocketReader(self._loop, monitor, take)
        self._monitor = monitor, reader
        # Once a look has found nothing, the next event is signalled.
        reader.drain()

    def drain(self) -> None:
        """Handles every answer that has arrived: a worker that died may have given it just before."""
        if self._closed_by is None:
            self._control_reader.drain()

    def close(self, cause: ServingError) -> None:
        """Closes the socket and fails the commands under way with ``cause``. Idempotent, never blocks."""
        if self._closed_by is not None:
            return
        self._closed_by = cause
        self._control_reader.stop()
        if self._monitor is not None:
            monitor, reader = self._monitor
            reader.stop()
            self._control.disable_monitor()
            monitor.close(linger=0)
        # What has not been sent must not wait for a worker that is gone.
        self._control.close(linger=0)
        commands = list(self._commands.values())
        self._commands.clear()
        for answer in commands:
            if not answer.done():
                answer.set_exception(cause)

    # --- control plane ------------------------------------------------------------------------------------------------

    async def hello(self, timeout_s: float) -> WorkerInfo:
        """Waits until the worker is up; raises ServingError, FAILED_PRECONDITION if it speaks another wire version."""
        reply = await self.command("hello", {}, timeout_s)
        if self._epoch is None:
            self._epoch = reply["epoch"]
        if reply["wire_version"] != frame_header.WIRE_VERSION or reply["epoch"] != self._epoch:
            raise ServingError(
                Code.FAILED_PRECONDITION,
                f"{self._name} speaks wire version {reply['wire_version']} with epoch {reply['epoch']}, this gateway"
                f" {frame_header.WIRE_VERSION} with epoch {self._epoch}; install the same tensorgate for both.",
            )
        self._info = WorkerInfo(reply["pid"], reply["tensorflow_version"], reply["num_execution_threads"])
        return self._info

    async def load(
        self, servable_handle: int, name: str, version: int, path: str, platform: str, options: LoadOptions
    ) -> LoadedServable:
        """Loads a version and warms it up; takes as long as it takes, but ends with the worker. Raises ServingError."""
        reply = await self.command(
            "load",
            {
                "handle": servable_handle,
                "name": name,
                "version": version,
                "path": path,
                "platform": platform,
                "prefer_tflite_model": options.prefer_tflite_model,
                "num_tflite_pools": options.num_tflite_pools,
                "tags": list(options.tags),
                "session_config": options.session_config,
                "num_warmup_iterations": options.num_warmup_iterations,
                "checks_method_names": options.checks_method_names,
                "outputs_as_content": options.outputs_as_content,
                "golden_tolerance": options.golden_tolerance,
                "batching_mode": options.batching.mode.value,
                "batching_parameters": options.batching.parameters,
                "model_settings": options.model_settings,
            },
            None,
        )
        loaded = LoadedServable(
            reply["signature_def_map"], reply["load_us"], reply["num_warmup_records"], reply["warmup_us"]
        )
        options.on_loaded(path, loaded)
        return loaded

    async def unload(self, servable_handle: int) -> None:
        """Unloads; returns when the worker has freed the session, after its runs on it. Raises ServingError."""
        await self.command("unload", {"handle": servable_handle}, None)

    async def ping(self, timeout_s: float) -> WorkerHealth:
        """The worker's health, kept in ``health`` too. Raises ServingError, DEADLINE_EXCEEDED if it does not answer."""
        reply = await self.command("ping", {}, timeout_s)
        queues = tuple(json.loads(queue) for queue in reply["queues"])
        self.health = WorkerHealth(reply["in_flight"], reply["completed"], reply["rss_bytes"], queues)
        return self.health

    async def profile(self, duration_ms: int, timeout_s: float) -> WorkerTrace:
        """A trace of the worker, after ``duration_ms`` or ``end_profile``.

        ``timeout_s`` is for all of it. Raises ServingError, INTERNAL while another trace is taken.
        """
        reply = await self.command("profile", {"duration_ms": duration_ms}, timeout_s)
        return WorkerTrace(reply["xspace"], reply["has_events"])

    async def end_profile(self, timeout_s: float) -> None:
        """Ends the trace that is being taken, if one is, before its time. Raises ServingError."""
        await self.command("end_profile", {}, timeout_s)

    async def await_leaving(self) -> None:
        """Returns when whoever runs the worker wants it to end: it is to be told ``stop`` soon. Raises ServingError."""
        await self.command("await_leaving", {}, None)

    async def stop(self, timeout_s: float) -> None:
        """Asks the worker to finish what is in flight and exit; returns when it has agreed. Raises ServingError."""
        await self.command("stop", {}, timeout_s)

    async def command(self, command: str, fields: Mapping[str, Any], timeout_s: float | None) -> Mapping[str, Any]:
        """Sends one command and waits for its answer's fields.

        Raises ServingError: the worker's own, DEADLINE_EXCEEDED after ``timeout_s`` seconds, or the cause of the
        worker's end. ``timeout_s`` None is for commands without a bound of their own, which end with the worker; the
        supervisor's heartbeat is then what bounds the wait.
        """
        if self._closed_by is not None:
            raise self._closed_by
        self._last_command_id = command_id = self._last_command_id + 1
        answer: asyncio.Future[control_messages.ControlReply] = self._loop.create_future()
        self._commands[command_id] = answer
        try:
            self._control.send(control_messages.pack_request(command_id, command, **fields), NOBLOCK)
            self._control_reader.after_send()
            reply = await asyncio.wait_for(answer, timeout_s)
        except zmq.ZMQError as error:
            raise ServingError(Code.UNAVAILABLE, f"{self._name} cannot be reached: {error}") from error
        except asyncio.TimeoutError as error:
            raise ServingError(
                Code.DEADLINE_EXCEEDED, f"{self._name} did not answer {command!r} within {timeout_s:g} s"
            ) from error
        finally:
            self._commands.pop(command_id, None)
        if reply.code != Code.OK:
            raise ServingError(Code.of(reply.code), reply.message)
        try:
            control_messages.check_reply(command, reply)
        except ValueError as error:
            raise ServingError(Code.INTERNAL, f"{self._name} sent a malformed reply: {error}") from error
        return reply.fields

    def _receive_control_reply(self) -> None:
        frames = self._control.recv_multipart(NOBLOCK)
        try:
            reply = control_messages.unpack_reply(frames[-1])
        except ValueError as error:
            self.malformed_replies += 1
            logger.warning("dropped what %s sent: a malformed control reply, %s", self._name, error)
            return
        answer = self._commands.get(reply.id)
        # An answer that comes after its timeout has nobody waiting.
        if answer is not None and not answer.done():
            answer.set_result(reply)


def _connect(context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, key: WorkerKey | None) -> "zmq.Socket[bytes]":
    socket = context.socket(zmq.DEALER)
    if key is not None:
        socket.set(zmq.CURVE_SERVERKEY, key.public)
        socket.set(zmq.CURVE_PUBLICKEY, key.public)
        socket.set(zmq.CURVE_SECRETKEY, key.secret)
    socket.set(zmq.LINGER, 0)
    # No high-water marks: ZeroMQ must never refuse or drop.
    socket.set(zmq.SNDHWM, 0)
    socket.set(zmq.RCVHWM, 0)
    socket.set(zmq.RECONNECT_IVL, RECONNECT_INTERVAL_MS)
    # Only there: with it names stand for their IPv6 addresses alone.
    socket.set(zmq.IPV6, int("[" in endpoint))
    socket.connect(endpoint)
    return socket
