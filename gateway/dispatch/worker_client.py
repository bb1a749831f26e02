"""The gateway's end of one incarnation of one worker: its sockets, its frames, its control commands.

Third stage of a request's line, where the gateway ends: dispatcher → frames ‖ worker loop. Owned by the edge loop's
thread, which alone touches the three sockets: DEALER for requests and replies, PUSH for cancels, DEALER for commands.
A respawned worker gets a new WorkerClient with new endpoints and a new epoch, so nothing meant for one incarnation can
reach the next.

The message layouts are those of tensorgate._native.frame_header and tensorgate.protos.control_messages.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import zmq

from tensorgate._native import frame_header
from tensorgate.gateway.dispatch.socket_reader import SocketReader
from tensorgate.gateway.dispatch.worker import ReplyHandler, WorkerEndpoints
from tensorgate.protos import control_messages
from tensorgate.protos.status_codes import Code, ServingError

logger = logging.getLogger("tensorgate.worker_client")

# Plain ints: arithmetic on pyzmq's flag enums costs more than the call they are passed to.
NOBLOCK = int(zmq.NOBLOCK)
NOBLOCK_SNDMORE = int(zmq.NOBLOCK | zmq.SNDMORE)

# A reply below this is copied out of its frame: cheaper than keeping the frame, which pins what it was received with.
COPY_BELOW_BYTES = 32 * 1024

# A worker binds its endpoints some time after it was started; connecting is tried this often.
RECONNECT_INTERVAL_MS = 10


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


@dataclass(frozen=True, slots=True)
class LoadedServable:
    """A worker's answer to ``load``: a serialized tensorflow.serving.SignatureDefMap, and the time it took."""

    signature_def_map: bytes
    load_us: int


class WorkerClient:
    """A Worker (see worker.py) and its control commands.

    Connects on construction, which does not wait for the worker. ``close`` must be called, once the process is known to
    be dead or is to be left alone. ``foreign_replies`` counts replies of another epoch and frames that were no reply.
    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        loop: asyncio.AbstractEventLoop,
        name: str,
        epoch: int,
        endpoints: WorkerEndpoints,
    ) -> None:
        self._name = name
        self._epoch = epoch
        self._loop = loop
        self._info: WorkerInfo | None = None
        self._reply_handler: ReplyHandler | None = None
        self._closed_by: ServingError | None = None
        self._last_command_id = 0
        self._commands: dict[int, asyncio.Future[control_messages.ControlReply]] = {}
        self.foreign_replies = 0
        self.health: WorkerHealth | None = None
        self._data = _connect(context, zmq.DEALER, endpoints.data)
        self._control = _connect(context, zmq.DEALER, endpoints.control)
        self._cancels = _connect(context, zmq.PUSH, endpoints.cancel)
        self._data_reader = SocketReader(loop, self._data, self._receive_reply)
        self._control_reader = SocketReader(loop, self._control, self._receive_control_reply)

    @property
    def name(self) -> str:
        return self._name

    @property
    def epoch(self) -> int:
        return self._epoch

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

    def drain(self) -> None:
        """Handles every reply that has arrived: a worker that died may have answered just before."""
        if self._closed_by is None:
            self._data_reader.drain()
            self._control_reader.drain()

    def close(self, cause: ServingError) -> None:
        """Closes the sockets and fails the commands under way with ``cause``. Idempotent, never blocks."""
        if self._closed_by is not None:
            return
        self._closed_by = cause
        self._data_reader.stop()
        self._control_reader.stop()
        for socket in (self._data, self._control, self._cancels):
            # What has not been sent must not wait for a worker that is gone.
            socket.close(linger=0)
        commands = list(self._commands.values())
        self._commands.clear()
        for answer in commands:
            if not answer.done():
                answer.set_exception(cause)

    # --- data plane ---------------------------------------------------------------------------------------------------

    def set_reply_handler(self, handler: ReplyHandler) -> None:
        """Worker.set_reply_handler."""
        self._reply_handler = handler

    def send_request(
        self,
        request_id: int,
        method: int,
        servable_handle: int,
        remaining_deadline_us: int,
        priority: int,
        sampled: bool,
        traceparent: bytes,
        payload: bytes | memoryview,
    ) -> None:
        """Worker.send_request: frames ``[request header][payload]``.

        A large payload goes without a copy, ZeroMQ's thread reading it where it lies; below pyzmq's copy_threshold
        (64 KiB) pyzmq copies it into the message, which costs less than tracking it.
        """
        if self._closed_by is not None:
            raise self._closed_by
        header = frame_header.pack_request(
            self._epoch, request_id, method, servable_handle, remaining_deadline_us, priority, sampled, traceparent
        )
        try:
            self._data.send(header, NOBLOCK_SNDMORE)
            self._data.send(payload, NOBLOCK, copy=False)
        except zmq.ZMQError as error:
            raise ServingError(Code.UNAVAILABLE, f"{self._name} cannot be reached: {error}") from error
        self._data_reader.after_send()

    def send_cancel(self, request_id: int) -> None:
        """Worker.send_cancel: frame ``[cancel header]`` on its own socket, so that it overtakes queued requests."""
        if self._closed_by is not None:
            return
        try:
            self._cancels.send(frame_header.pack_cancel(self._epoch, request_id), NOBLOCK)
        except zmq.ZMQError as error:
            # Cancelling only saves work: the worker replies in any case, or dies.
            logger.warning("cancelling request %d at %s failed: %s", request_id, self._name, error)

    def _receive_reply(self) -> None:
        """Takes one message ``[reply header][payload]`` off the data socket."""
        header = self._data.recv(NOBLOCK)
        # Asking the socket for RCVMORE costs as much as receiving; the second frame tells by itself. What cannot come
        # from a worker of this wire version, a message of one frame, takes the beginning of the next one with it.
        try:
            frame = self._data.recv(NOBLOCK, copy=False)
        except zmq.Again:
            self._refuse(f"a message of one frame, {len(header)} bytes")
            return
        if frame.more:
            self._data.recv_multipart(NOBLOCK)
            self._refuse("a message that has not two frames")
            return
        try:
            epoch, request_id, code, message, queue_us, run_us, batch_rows, padding_rows = frame_header.unpack_reply(
                header
            )
        except frame_header.FrameError as error:
            self._refuse(str(error))
            return
        if epoch != self._epoch or self._reply_handler is None:
            self._refuse(f"a reply of epoch {epoch}, its own is {self._epoch}")
            return
        payload = frame.bytes if len(frame) < COPY_BELOW_BYTES else frame.buffer
        self._reply_handler(request_id, code, message, queue_us, run_us, batch_rows, padding_rows, payload)

    def _refuse(self, what: str) -> None:
        self.foreign_replies += 1
        logger.warning("dropped what %s sent: %s", self._name, what)

    # --- control plane ------------------------------------------------------------------------------------------------

    async def hello(self, timeout_s: float) -> WorkerInfo:
        """Waits until the worker is up; raises ServingError, FAILED_PRECONDITION if it speaks another wire version."""
        reply = await self.command("hello", {}, timeout_s)
        if reply["wire_version"] != frame_header.WIRE_VERSION or reply["epoch"] != self._epoch:
            raise ServingError(
                Code.FAILED_PRECONDITION,
                f"{self._name} speaks wire version {reply['wire_version']} with epoch {reply['epoch']}, this gateway"
                f" {frame_header.WIRE_VERSION} with epoch {self._epoch}; install the same tensorgate for both.",
            )
        self._info = WorkerInfo(reply["pid"], reply["tensorflow_version"], reply["num_execution_threads"])
        return self._info

    async def load(
        self, servable_handle: int, name: str, version: int, path: str, tags: Sequence[str], session_config: bytes
    ) -> LoadedServable:
        """Loads a SavedModel; takes as long as it takes, but ends with the worker. Raises ServingError."""
        reply = await self.command(
            "load",
            {
                "handle": servable_handle,
                "name": name,
                "version": version,
                "path": path,
                "tags": list(tags),
                "session_config": session_config,
            },
            None,
        )
        return LoadedServable(reply["signature_def_map"], reply["load_us"])

    async def unload(self, servable_handle: int) -> None:
        """Unloads; returns when the worker has freed the session, after its runs on it. Raises ServingError."""
        await self.command("unload", {"handle": servable_handle}, None)

    async def ping(self, timeout_s: float) -> WorkerHealth:
        """The worker's health, kept in ``health`` too. Raises ServingError, DEADLINE_EXCEEDED if it does not answer."""
        reply = await self.command("ping", {}, timeout_s)
        self.health = WorkerHealth(reply["in_flight"], reply["completed"], reply["rss_bytes"])
        return self.health

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
            self._refuse(f"a malformed control reply, {error}")
            return
        answer = self._commands.get(reply.id)
        # An answer that comes after its timeout has nobody waiting.
        if answer is not None and not answer.done():
            answer.set_result(reply)


def _connect(context: "zmq.Context[zmq.Socket[bytes]]", kind: zmq.SocketType, endpoint: str) -> "zmq.Socket[bytes]":
    socket = context.socket(kind)
    socket.set(zmq.LINGER, 0)
    # No high-water marks: the dispatcher's credit bounds what is under way, and ZeroMQ must never refuse or drop.
    socket.set(zmq.SNDHWM, 0)
    socket.set(zmq.RCVHWM, 0)
    socket.set(zmq.RECONNECT_IVL, RECONNECT_INTERVAL_MS)
    socket.connect(endpoint)
    return socket
