"""The REST server: uvicorn with an event loop of its own in a thread of its own.

First stage of the REST line. The composition root makes, starts and stops it from the edge loop's thread; all else in
this package runs in the thread it starts. uvicorn's signal handlers and logging stay off: both are the process's.

Sources: uvicorn's Config and Server; TensorFlow Serving's util/net_http (listens on IPv6 and IPv4, plain HTTP).
"""

import asyncio
import errno
import logging
import math
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import uvicorn
import uvloop

from tensorgate.gateway.model_status import StateMonitor
from tensorgate.gateway.rest.app import RestApp
from tensorgate.gateway.rest.handlers import Handlers, RequestDispatcher
from tensorgate.gateway.rest.http_protocol import ArrivalLimits, RestProtocol
from tensorgate.protos.status_codes import Code, ServingError

logger = logging.getLogger("tensorgate.rest")

_SILENT = 1000  # a log level above every level there is
_BACKLOG = 2048
_START_TIMEOUT_S = 30.0
# uvicorn looks for the order to stop ten times a second and cancels what outlives its grace; little is left then.
_STOP_MARGIN_S = 5.0
# At as many of these ticks, so once a second, connections are looked at that may have stalled.
_TICKS_PER_LOOK = 10


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
    keep_alive_s: int = 60
    """How long a connection may idle between two requests."""
    arrival_limits: ArrivalLimits = field(default_factory=ArrivalLimits)


class RestServer:
    """Owns the REST thread, its loop, the listening socket and the pool for large JSON."""

    def __init__(
        self,
        host: str,
        port: int,
        dispatcher: RequestDispatcher,
        monitor: StateMonitor,
        options: RestOptions,
        worker_trouble: Callable[[], str] = str,
    ) -> None:
        """Opens nothing yet. host "" is every address, IPv6 and IPv4; port 0 is any free port.

        worker_trouble is called in the REST thread: what is wrong with the workers, empty for nothing.
        """
        self._host = host
        self._port = port
        self._options = options
        self._executor = ThreadPoolExecutor(options.num_json_threads, thread_name_prefix="rest-json")
        handlers = Handlers(dispatcher, monitor, self._executor, options.run_timeout_s, options.max_inflated_bytes)
        self._app = RestApp(
            handlers,
            enable_cors=options.enable_cors,
            max_body_bytes=options.max_body_bytes,
            worker_trouble=worker_trouble,
        )
        self._listener: socket.socket | None = None
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port it listens on, once started."""
        return self._port

    def set_ready(self, is_ready: bool) -> None:
        """Opens the API: until then it answers 503. From any thread."""
        self._app.set_ready(is_ready)

    def start(self) -> None:
        """Listens and starts the thread; returns when it answers. Blocks for a moment, to be called once.

        Raises ServingError(UNAVAILABLE) naming the address if it cannot be listened on.
        """
        self._listener = _listen(self._host, self._port)
        self._port = int(self._listener.getsockname()[1])
        config = uvicorn.Config(
            self._app,
            http=RestProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            proxy_headers=False,
            server_header=False,
            access_log=False,
            log_config=None,
            log_level=_SILENT,
            timeout_keep_alive=self._options.keep_alive_s,
        )
        self._server = _Server(config, self._options.arrival_limits)
        self._thread = threading.Thread(
            target=self._serve, args=(self._server, self._listener), name="rest", daemon=True
        )
        self._thread.start()
        if not self._server.answers.wait(_START_TIMEOUT_S):
            self.stop(0.0)
            raise ServingError(Code.INTERNAL, f"The REST server did not start within {_START_TIMEOUT_S:g} seconds.")

    def stop(self, grace_s: float) -> None:
        """Stops listening, lets what is in flight finish for grace_s seconds, cancels the rest, ends the thread.

        A request that is not complete is not in flight: it is answered 503 at once, as is every new one.
        Blocks for as long, so not to be called on the dispatcher's loop, which has yet to answer what is in flight.
        Idempotent, and fine for a server that was never started or failed to.
        """
        self._app.begin_shutdown()
        thread, server = self._thread, self._server
        if thread is not None and server is not None:
            server.config.timeout_graceful_shutdown = math.ceil(grace_s)
            server.should_exit = True
            thread.join(grace_s + _STOP_MARGIN_S)
            if thread.is_alive():
                logger.warning("the REST thread did not stop within %g seconds; it is left behind", grace_s)
            self._thread = None
        if self._listener is not None:
            self._listener.close()
        self._executor.shutdown(wait=False, cancel_futures=True)

    @staticmethod
    def _serve(server: "_Server", listener: socket.socket) -> None:
        """The REST thread."""
        loop = uvloop.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(server.serve(sockets=[listener]))
            # Requests that outlived the grace have been cancelled, but not yet ended.
            cancelled = asyncio.all_tasks(loop)
            if cancelled:
                loop.run_until_complete(asyncio.wait(cancelled, timeout=_STOP_MARGIN_S / 2))
        finally:
            asyncio.set_event_loop(None)
            loop.close()


class _Server(uvicorn.Server):
    """uvicorn's server, which tells when it answers, and looks after connections that stall.

    It leaves signals alone by itself outside the main thread.
    """

    def __init__(self, config: uvicorn.Config, arrival_limits: ArrivalLimits) -> None:
        super().__init__(config)
        self.answers = threading.Event()
        self._arrival_limits = arrival_limits

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.answers.set()

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS_PER_LOOK == 0:
            now_s = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, RestProtocol):
                    connection.close_if_stalled(now_s, self._arrival_limits)
        return await super().on_tick(counter)


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
