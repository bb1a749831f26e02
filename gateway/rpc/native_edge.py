"""The gRPC edge on the data plane's own threads: listening, draining, and the calls that Python serves.

First stage of a request's line: clients → edge → route → dispatcher, all native for the data plane's methods, which
this module only opens and closes. Calls of other methods come as events on the edge loop's thread and run as tasks.

Source: see grpc_edge in tensorgate._native.
"""

import asyncio
import base64
import binascii
import contextlib
import logging
import os
from collections import deque
from collections.abc import Mapping, Sequence

from tensorgate._native import grpc_edge, handled_call
from tensorgate._native.access_tokens import AccessTokens
from tensorgate._native.data_plane import DataPlane
from tensorgate._native.handled_call import HandledCall
from tensorgate.gateway.dispatch.call import Method
from tensorgate.gateway.rpc.grpc_options import GrpcOptions, native_limits
from tensorgate.gateway.rpc.incoming_call import UNEXPECTED_TEXT, Handler, Metadata
from tensorgate.gateway.rpc.listening_sockets import listen_on_tcp, listen_on_unix
from tensorgate.gateway.rpc.services import needed_role
from tensorgate.gateway.tls import TlsConfig, native_context
from tensorgate.protos.status_codes import Code, ServingError

logger = logging.getLogger("tensorgate.grpc")

# A handler that writes more than this waits for what it wrote before to leave.
WRITE_AHEAD_BYTES = 256 * 1024
DRAIN_POLL_S = 0.02


class NativeEdge:
    """Listens from ``start`` to ``stop``, which comes before the plane's end.

    ``methods``: path to Method, and whether the model_spec is inside the request's tasks: what the data plane serves.
    ``handlers``: path to what serves it in Python. Everything else is UNIMPLEMENTED.
    """

    def __init__(
        self,
        options: GrpcOptions,
        plane: DataPlane,
        methods: Mapping[str, tuple[Method, bool]],
        handlers: Mapping[str, Handler],
    ) -> None:
        self._options = options
        self._plane = plane
        self._methods = methods
        self._handled = list(handlers.items())
        self._edge: grpc_edge.GrpcEdge | None = None
        self._port: int | None = None
        self._calls: dict[HandledCall, _Call] = {}

    @property
    def port(self) -> int | None:
        """The TCP port it listens on; None before ``start``, or without TCP."""
        return self._port

    @property
    def name(self) -> str:
        """What --grpc_edge calls it."""
        return "native"

    @property
    def counters(self) -> Mapping[str, int]:
        """Totals since the start; empty unless it runs. From any thread."""
        edge = self._edge
        return {} if edge is None else edge.counters

    async def start(self) -> None:
        """Binds and serves. Raises ServingError UNAVAILABLE naming an address that cannot be bound."""
        options = self._options
        limits = native_limits(options)
        if limits.ignored:
            logger.warning(
                "channel arguments without a meaning for the native gRPC edge: %s", ", ".join(limits.ignored)
            )
        # In the order in which the edge numbers them: those of Python first.
        methods = [(path, 0, False, int(needed_role(path))) for path, _ in self._handled]
        methods += [
            (path, int(method), in_tasks, int(needed_role(path))) for path, (method, in_tasks) in self._methods.items()
        ]
        listeners = []
        try:
            if options.port is not None:
                listeners.append(listen_on_tcp(options.host, options.port))
                self._port = int(listeners[0].getsockname()[1])
            if options.socket_path:
                listeners.append(listen_on_unix(options.socket_path))
            edge = grpc_edge.GrpcEdge(self._plane, methods, **limits.arguments)
            if options.tls is not None:
                edge.set_tls(native_context(options.tls))
            if options.access is not None:
                edge.set_tokens(options.access.tokens)
                options.access.watch(self._set_tokens)
        except BaseException:
            for listener in listeners:
                listener.close()
            raise
        self._edge = edge
        asyncio.get_running_loop().add_reader(edge.event_fd, self._take_events)
        for listener in listeners:
            edge.listen(listener.detach())
        if self._port is not None:
            logger.info("gRPC listens on %s:%d%s", options.host, self._port, options.in_what)
        if options.socket_path:
            logger.info("gRPC listens on unix:%s%s", options.socket_path, options.in_what)

    def set_tls(self, config: TlsConfig) -> None:
        """GrpcEdge.set_tls of the edges; blocks for a turn of the native threads."""
        if self._edge is not None:
            self._edge.set_tls(native_context(config))

    def _set_tokens(self, tokens: AccessTokens) -> None:
        """Blocks as set_tls."""
        if self._edge is not None:
            self._edge.set_tokens(tokens)

    async def stop(self, grace_s: float) -> None:
        """Stops accepting at once, and returns when what is in flight has ended, cancelled after ``grace_s`` seconds.

        Idempotent; nothing on an edge that never started.
        """
        edge, self._edge = self._edge, None
        if edge is None:
            return
        loop = asyncio.get_running_loop()
        # Each waits for a turn of the native threads.
        await asyncio.to_thread(edge.stop_listening)
        await asyncio.to_thread(edge.drain)
        end_s = loop.time() + grace_s
        while edge.num_connections and loop.time() < end_s:  # noqa: ASYNC110 - the threads that know have no Python
            await asyncio.sleep(DRAIN_POLL_S)
        await asyncio.to_thread(edge.close)
        loop.remove_reader(edge.event_fd)
        self._deliver(edge)
        if self._options.socket_path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._options.socket_path)

    def _take_events(self) -> None:
        if self._edge is not None:
            self._deliver(self._edge)

    def _deliver(self, edge: grpc_edge.GrpcEdge) -> None:
        for kind, handled, message in edge.take_events():
            if kind == handled_call.EVENT_START:
                path, handler = self._handled[handled.method]
                self._calls[handled] = _Call(path, handled, handler)
                continue
            call = self._calls[handled]
            if kind == handled_call.EVENT_MESSAGE:
                call.take(message)
            elif kind == handled_call.EVENT_END:
                call.take(None)
            elif kind == handled_call.EVENT_DRAINED:
                call.drained.set()
            elif kind == handled_call.EVENT_CLOSED:
                del self._calls[handled]
                call.close()


class _Call:
    """An IncomingCall on the native edge, and the task that serves it."""

    def __init__(self, path: str, handled: HandledCall, handler: Handler) -> None:
        self.path = path
        self.metadata: Metadata = _decode_metadata(handled.metadata)
        self.deadline_s = None if handled.deadline_us < 0 else handled.deadline_us / 1e6
        self._handled = handled
        self._messages: deque[bytes | None] = deque()
        self._arrived = asyncio.Event()
        self._has_ended = False
        self._written = 0
        # Set: what was reported has left.
        self.drained = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._serve(handler), name=f"gRPC call of {path}")

    async def _serve(self, handler: Handler) -> None:
        try:
            await handler(self)
        except ServingError as error:
            self._handled.finish(error.code, error.message.encode("utf-8", "replace"))
        except Exception:
            logger.exception("serving %s failed", self.path)
            self._handled.finish(Code.INTERNAL, UNEXPECTED_TEXT.encode())
        else:
            self._handled.finish(Code.OK)

    def take(self, message: bytes | None) -> None:
        self._messages.append(message)
        self._arrived.set()

    def close(self) -> None:
        """The call is over, or its status has been sent."""
        self._task.cancel()

    async def read(self) -> bytes | None:
        """IncomingCall.read."""
        if self._has_ended:
            return None
        while not self._messages:
            self._arrived.clear()
            await self._arrived.wait()
        message = self._messages.popleft()
        if message is None:
            self._has_ended = True
        else:
            self._handled.acknowledge(len(message))
        return message

    async def write(self, message: bytes) -> None:
        """IncomingCall.write."""
        self._written += len(message)
        if self._written < WRITE_AHEAD_BYTES:
            self._handled.send(message)
            return
        self._written = 0
        self.drained.clear()
        self._handled.send(message, reports=True)
        await self.drained.wait()


def _decode_metadata(raw: Sequence[tuple[bytes, bytes]]) -> Metadata:
    metadata: list[tuple[str, str | bytes]] = []
    for key, value in raw:
        name = key.decode("ascii", "replace")
        if not name.endswith("-bin"):
            metadata.append((name, value.decode("ascii", "replace")))
            continue
        # Several values of one key may come as one, and without their padding.
        for part in value.split(b","):
            try:
                metadata.append((name, base64.b64decode(part.strip() + b"=" * (-len(part.strip()) % 4), validate=True)))
            except binascii.Error:
                logger.debug("a value of %s is no base64", name)
    return metadata
