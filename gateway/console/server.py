"""The console's listener, on the edge loop: its connections, and the clock that takes a sample of the traffic.

REST's HTTP connections serve it, and REST's API answers the page's form, on whatever port REST itself is, if anywhere.
"""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from tensorgate.gateway.access_tokens import Access
from tensorgate.gateway.console.app import ConsoleApp, is_loopback
from tensorgate.gateway.console.overview import Overview
from tensorgate.gateway.console.traffic import SAMPLE_INTERVAL_S, TrafficHistory
from tensorgate.gateway.core.clock import Clock
from tensorgate.gateway.model_status import StateMonitor
from tensorgate.gateway.rest.app import RestApp
from tensorgate.gateway.rest.exact_reader import ExactReader
from tensorgate.gateway.rest.handlers import Handlers
from tensorgate.gateway.rest.http_arrival import ArrivalLimits
from tensorgate.gateway.rest.http_connection import HttpConnection
from tensorgate.gateway.rest.http_head import DateHeader
from tensorgate.gateway.rest.quick_predict import QuickDispatcher, QuickPredict
from tensorgate.protos.status_codes import Code, ServingError

logger = logging.getLogger("tensorgate.console")

# What a form in a browser may send and get inflated.
MAX_BODY_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ConsoleOptions:
    """What can be set about the console."""

    port: int
    """0: any free one."""
    address: str = "127.0.0.1"
    run_timeout_s: float | None = 30.0
    """Bound of the run of one request that the form sends."""


class ConsoleServer:
    """``start`` once, then ``stop``, which also undoes a start that failed; all on the edge loop."""

    def __init__(
        self,
        options: ConsoleOptions,
        dispatcher: QuickDispatcher,
        monitor: StateMonitor,
        overview: Overview,
        traffic: TrafficHistory,
        clock: Clock,
        access: Access | None = None,
    ) -> None:
        """Opens nothing yet. access: None where nobody is asked for a token."""
        self._options = options
        self._traffic = traffic
        self._clock = clock
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="console-json")
        self._exact_reader = ExactReader()
        timeout_s = options.run_timeout_s
        self._rest = RestApp(
            Handlers(dispatcher, monitor, self._executor, self._exact_reader, timeout_s, MAX_BODY_BYTES),
            enable_cors=False,
            max_body_bytes=MAX_BODY_BYTES,
            quick_predict=partial(QuickPredict, dispatcher, self._executor, timeout_s),
            access=access,
        )
        self._app = ConsoleApp(
            self._rest,
            lambda after: overview.json(clock.time_us(), after),
            takes_any_host=not is_loopback(options.address),
            access=access,
        )
        self._server: asyncio.Server | None = None
        self._connections: set[HttpConnection] = set()
        self._ticking: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """Where a browser finds it, once started."""
        if self._server is None:
            return ""
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    def set_ready(self, is_ready: bool) -> None:
        """Opens the API to the form: until then it answers 503."""
        self._rest.set_ready(is_ready)

    async def start(self) -> None:
        """Returns when it listens. Raises ServingError UNAVAILABLE naming an address that cannot be listened on."""
        loop = asyncio.get_running_loop()
        options = self._options
        date = DateHeader()
        limits = ArrivalLimits()
        try:
            self._server = await loop.create_server(
                lambda: HttpConnection(self._app, limits, date, self._connections, loop), options.address, options.port
            )
        except OSError as error:
            text = (
                f"The console cannot listen on {options.address}:{options.port}: {error.strerror or error}. "
                "Choose another --console_port or --console_address."
            )
            raise ServingError(Code.UNAVAILABLE, text) from error
        self._ticking = loop.create_task(self._tick(loop), name="console")

    async def stop(self) -> None:
        """Closes everything at once: a page asks again, and what it asked a model for is nobody's. Idempotent."""
        self._rest.begin_shutdown()
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.wait({self._ticking})
            self._ticking = None
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self._connections):
            connection.cancel()
            connection.abort()
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._exact_reader.close()

    async def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            self._traffic.sample(self._clock.monotonic_s())
            for connection in list(self._connections):
                connection.close_if_stalled(loop.time())
            await asyncio.sleep(SAMPLE_INTERVAL_S)
