"""The REST server: a listener and its connections, with an event loop of their own in a thread of its own.

First stage of the REST line. The composition root makes, starts and stops it from the edge loop's thread; all else in
this package runs in the thread it starts.

Source: TensorFlow Serving's util/net_http (listens on IPv6 and IPv4, plain HTTP).
"""

import asyncio
import contextlib
import errno
import logging
import os
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import uvloop

from tensorgate.gateway.access_tokens import Access
from tensorgate.gateway.model_status import StateMonitor
from tensorgate.gateway.monitoring.request_counts import RequestCounts
from tensorgate.gateway.monitoring.traces import Traces
from tensorgate.gateway.rest.admin import AdminPages
from tensorgate.gateway.rest.app import RestApp
from tensorgate.gateway.rest.exact_reader import ExactReader
from tensorgate.gateway.rest.handlers import Handlers
from tensorgate.gateway.rest.http_arrival import ArrivalLimits
from tensorgate.gateway.rest.http_connection import HttpConnection
from tensorgate.gateway.rest.http_head import DateHeader
from tensorgate.gateway.rest.operator_pages import OperatorPages
from tensorgate.gateway.rest.quick_predict import QuickDispatcher, QuickPredict
from tensorgate.gateway.rpc.listening_sockets import listen_on_unix
from tensorgate.protos.status_codes import Code, ServingError

logger = logging.getLogger("tensorgate.rest")

_BACKLOG = 2048
_START_TIMEOUT_S = 30.0
# What the end may take beyond its grace: cancelled requests are answered, and answers sent.
_STOP_MARGIN_S = 5.0
# So often connections are looked at that may have stalled.
_LOOK_INTERVAL_S = 1.0
_STOP_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class RestOptions:
    """What can be set about the REST server."""

    run_timeout_s: float | None = 30.0
    """--rest_api_timeout_in_ms: bound of one request's run in seconds; None is no bound."""
    enable_cors: bool = False
    """--rest_api_enable_cors_support."""
    num_json_threads: int = 2
    """Threads that read and write the JSON of large bodies."""
    max_inflated_bytes: int = 100 * 1024 * 1024
    """Largest content of a gzip body, upstream's bound."""
    max_body_bytes: int = 2**31 - 1
    """Largest body as it is sent: the bound that gRPC messages have."""
    arrival_limits: ArrivalLimits = field(default_factory=ArrivalLimits)
    socket_path: str = ""
    """--rest_api_socket_path: a unix socket to listen on as well; empty: none."""
    ssl_context: ssl.SSLContext | None = None
    """Of TLS, on TCP and the unix socket; None: in the clear."""


class RestServer:
    """Owns the REST thread, its loop, the listening socket and the pool for large JSON."""

    def __init__(
        self,
        host: str,
        port: int | None,
        dispatcher: QuickDispatcher,
        monitor: StateMonitor,
        options: RestOptions,
        pages: OperatorPages | None = None,
        counts: RequestCounts | None = None,
        admin_pages: AdminPages | None = None,
        traces: Traces | None = None,
        access: Access | None = None,
    ) -> None:
        """Opens nothing yet. host "" is every address, IPv6 and IPv4; port 0 is any free port, None is none."""
        self._host = host
        self._port = port
        self._options = options
        self._executor = ThreadPoolExecutor(options.num_json_threads, thread_name_prefix="rest-json")
        self._exact_reader = ExactReader()
        handlers = Handlers(
            dispatcher, monitor, self._executor, self._exact_reader, options.run_timeout_s, options.max_inflated_bytes
        )
        self._app = RestApp(
            handlers,
            enable_cors=options.enable_cors,
            max_body_bytes=options.max_body_bytes,
            quick_predict=partial(QuickPredict, dispatcher, self._executor, options.run_timeout_s),
            pages=pages,
            counts=counts,
            admin_pages=admin_pages,
            traces=traces,
            access=access,
        )
        self._listeners: list[socket.socket] = []
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._answers = threading.Event()
        self._connections: set[HttpConnection] = set()  # the REST thread's
        self._stops = asyncio.Event()  # likewise
        self._grace_s = 0.0

    @property
    def port(self) -> int | None:
        """The port it listens on, once started; None where it has none."""
        return self._port

    def set_ready(self, is_ready: bool) -> None:
        """Opens the API: until then it answers 503. From any thread."""
        self._app.set_ready(is_ready)

    def start(self) -> None:
        """Listens and starts the thread; returns when it answers. Blocks for a moment, to be called once.

        Raises ServingError(UNAVAILABLE) naming the address if it cannot be listened on.
        """
        try:
            if self._port is not None:
                self._listeners.append(_listen(self._host, self._port))
                self._port = int(self._listeners[0].getsockname()[1])
            if self._options.socket_path:
                self._listeners.append(listen_on_unix(self._options.socket_path, "The REST server"))
        except ServingError:
            self._close_listeners()
            raise
        self._thread = threading.Thread(target=self._run, name="rest", daemon=True)
        self._thread.start()
        if not self._answers.wait(_START_TIMEOUT_S):
            self.stop(0.0)
            raise ServingError(Code.INTERNAL, f"The REST server did not start within {_START_TIMEOUT_S:g} seconds.")

    def stop(self, grace_s: float) -> None:
        """Stops listening, lets what is in flight finish for grace_s seconds, cancels the rest, ends the thread.

        A request that is not complete is not in flight: it is answered 503 at once, as is every new one.
        Blocks for as long, so not to be called on the dispatcher's loop, which has yet to answer what is in flight.
        Idempotent, and fine for a server that was never started or failed to.
        """
        self._app.begin_shutdown()
        if self._thread is not None:
            self._grace_s = grace_s
            if self._loop is not None:
                with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                    self._loop.call_soon_threadsafe(self._stops.set)
            self._thread.join(grace_s + _STOP_MARGIN_S)
            if self._thread.is_alive():
                logger.warning("the REST thread did not stop within %g seconds; it is left behind", grace_s)
            self._thread = None
        self._close_listeners()
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._exact_reader.close()

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            if listener.family == socket.AF_UNIX:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._options.socket_path)
            listener.close()
        self._listeners.clear()

    # --- the REST thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._loop = loop = uvloop.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(self._serve())
        finally:
            self._loop = None
            asyncio.set_event_loop(None)
            loop.close()

    async def _serve(self) -> None:
        """From the first connection to the end of the last."""
        loop = asyncio.get_running_loop()
        date = DateHeader()
        limits = self._options.arrival_limits
        servers = []
        for listener in self._listeners:
            create = loop.create_unix_server if listener.family == socket.AF_UNIX else loop.create_server
            servers.append(
                await create(
                    lambda: HttpConnection(self._app, limits, date, self._connections, loop),
                    sock=listener,
                    backlog=_BACKLOG,
                    ssl=self._options.ssl_context,
                )
            )
        looking = loop.create_task(self._look(loop))
        self._answers.set()
        await self._stops.wait()
        for server in servers:
            server.close()
        looking.cancel()
        if not await self._end_of_connections(self._grace_s):
            for connection in list(self._connections):
                connection.cancel()
            if not await self._end_of_connections(_STOP_MARGIN_S / 2):
                for connection in list(self._connections):
                    connection.abort()
                await self._end_of_connections(_STOP_MARGIN_S / 4)

    async def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            await asyncio.sleep(_LOOK_INTERVAL_S)
            for connection in list(self._connections):
                connection.close_if_stalled(loop.time())

    async def _end_of_connections(self, timeout_s: float) -> bool:
        """Shuts all connections down; whether they have ended within the time."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while True:
            # Again and again: a connection may have been accepted just before the listener closed.
            for connection in list(self._connections):
                connection.shut_down()
            if not self._connections:
                return True
            if loop.time() >= deadline_s:
                return False
            await asyncio.sleep(_STOP_POLL_S)


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; host "" is every IPv6 and IPv4 address, or every IPv4 one where there is no IPv6."""
    try:
        if host:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return socket.create_server((host, port), family=family, backlog=_BACKLOG)
        if socket.has_dualstack_ipv6():
            try:
                return socket.create_server(("", port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True)
            except OSError as error:
                # Containers often have IPv6 sockets but no IPv6 address to bind them to.
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
        return socket.create_server(("", port), backlog=_BACKLOG)
    except OSError as error:
        address = f"{host or '[::]'}:{port}"
        text = f"The REST server cannot listen on {address}: {error.strerror or error}. Choose another --rest_api_port."
        raise ServingError(Code.UNAVAILABLE, text) from error
