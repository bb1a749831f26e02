"""The gRPC edge on grpcio's asyncio server.

First stage of a request's line: clients → edge → model_spec → route → dispatcher. Owned by the edge loop's thread. Its
handlers are generic and get raw bytes, so no message is parsed or built here, and a request costs no task but grpcio's.

Source: the services of tensorflow_serving/apis; server options of tensorflow_serving/model_servers/server.cc.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

import grpc
import grpc.aio

from tensorgate._native import admission
from tensorgate.gateway.access_tokens import Access
from tensorgate.gateway.core.clock import Clock
from tensorgate.gateway.dispatch.call import NO_METADATA, PRIORITY_HEADER, Method, RequestMetadata
from tensorgate.gateway.rpc.grpc_options import GrpcOptions
from tensorgate.gateway.rpc.incoming_call import UNEXPECTED_TEXT, Handler, Metadata
from tensorgate.gateway.rpc.prediction_service import PredictionService
from tensorgate.gateway.rpc.services import DATA_PLANE_METHODS, needed_role
from tensorgate.gateway.rpc.status_codes import GRPC_STATUS_CODES, truncated_message
from tensorgate.gateway.tls import TlsConfig
from tensorgate.protos.status_codes import Code, ServingError

logger = logging.getLogger("tensorgate.grpc")


class GrpcioEdge:
    """Listens from ``start`` to ``stop``. ``handlers``: path to what serves the methods that no worker runs."""

    def __init__(
        self, options: GrpcOptions, prediction_service: PredictionService, handlers: Mapping[str, Handler], clock: Clock
    ) -> None:
        self._options = options
        self._prediction_service = prediction_service
        self._handlers = handlers
        self._clock = clock
        self._server: Any = None
        self._port: int | None = None
        self._tls = options.tls

    @property
    def port(self) -> int | None:
        """The TCP port it listens on; None before ``start``, or without TCP."""
        return self._port

    @property
    def name(self) -> str:
        """What --grpc_edge calls it."""
        return "grpcio"

    @property
    def counters(self) -> Mapping[str, int]:
        """Empty: it does not count."""
        return {}

    async def start(self) -> None:
        """Binds and serves. Raises ServingError UNAVAILABLE naming an address that cannot be bound."""
        server = grpc.aio.server(options=self._channel_arguments())
        methods = {
            path: grpc.unary_unary_rpc_method_handler(self._prediction_handler(method, spec_in_tasks))
            for path, (method, spec_in_tasks) in DATA_PLANE_METHODS.items()
        }
        for path, handler in self._handlers.items():
            methods[path] = grpc.stream_stream_rpc_method_handler(self._streaming_handler(path, handler))
        server.add_generic_rpc_handlers((_Methods(methods, self._options.access),))
        options = self._options
        if options.port is not None:
            self._port = _bind(server, f"{options.host}:{options.port}", self._credentials())
        if options.socket_path:
            _bind(server, f"unix:{options.socket_path}", self._credentials())
        await server.start()
        self._server = server
        if self._port is not None:
            logger.info("gRPC listens on %s:%d%s", options.host, self._port, options.in_what)
        if options.socket_path:
            logger.info("gRPC listens on unix:%s%s", options.socket_path, options.in_what)

    def set_tls(self, config: TlsConfig) -> None:
        """GrpcEdge.set_tls of the edges."""
        self._tls = config

    def _credentials(self) -> Any:
        """For one address; None: in the clear. Asked for certificates at every handshake, on another thread."""
        if self._tls is None:
            return None
        last = self._tls

        def newer_certificates() -> Any:
            nonlocal last
            if self._tls is last or self._tls is None:
                return None
            last = self._tls
            return _certificates(last)

        return grpc.dynamic_ssl_server_credentials(
            _certificates(last), newer_certificates, require_client_authentication=last.client_verify
        )

    async def stop(self, grace_s: float) -> None:
        """Stops accepting at once, and returns when what is in flight has ended, cancelled after ``grace_s`` seconds.

        Idempotent; nothing on an edge that never started.
        """
        server, self._server = self._server, None
        if server is None:
            return
        await server.stop(grace_s)
        if self._options.socket_path:
            _remove_socket(self._options.socket_path)

    def _channel_arguments(self) -> list[tuple[str, int | str]]:
        merged: dict[str, int | str] = {
            "grpc.max_receive_message_length": self._options.max_receive_message_bytes,
            "grpc.max_send_message_length": -1,
            # Two servers on one port would each get some of the connections; the second one is to fail instead.
            "grpc.so_reuseport": 0,
        }
        merged.update(self._options.channel_arguments)
        return list(merged.items())

    def _prediction_handler(self, method: Method, spec_in_tasks: bool) -> Callable[[bytes, Any], Awaitable[bytes]]:
        run = self._prediction_service.run
        clock = self._clock

        async def handle(request: bytes, context: Any) -> bytes:
            remaining_s = context.time_remaining()
            deadline_s = None if remaining_s is None else clock.monotonic_s() + remaining_s
            try:
                return await run(method, spec_in_tasks, request, _read_metadata(context), deadline_s)
            except ServingError as error:
                await _abort(context, error)

        return handle

    def _streaming_handler(self, path: str, handler: Handler) -> Callable[[Any, Any], Awaitable[None]]:
        clock = self._clock

        async def handle(requests: Any, context: Any) -> None:
            try:
                await handler(_Call(path, requests, context, clock))
            except ServingError as error:
                await _abort(context, error)
            except Exception:
                logger.exception("serving %s failed", path)
                await _abort(context, ServingError(Code.INTERNAL, UNEXPECTED_TEXT))

        return handle


class _Call:
    """An IncomingCall on grpcio's streams."""

    def __init__(self, path: str, requests: Any, context: Any, clock: Clock) -> None:
        self.path = path
        self.metadata: Metadata = [(key, value) for key, value in context.invocation_metadata()]
        remaining_s = context.time_remaining()
        self.deadline_s = None if remaining_s is None else clock.monotonic_s() + remaining_s
        self._requests = aiter(requests)
        self._context = context

    async def read(self) -> bytes | None:
        """IncomingCall.read."""
        message: bytes | None = await anext(self._requests, None)
        return message

    async def write(self, message: bytes) -> None:
        """IncomingCall.write."""
        try:
            await self._context.write(message)
        except grpc.aio.InternalError:
            # The client has gone, and grpcio is about to cancel the handler.
            raise asyncio.CancelledError from None


class _Methods:
    """A grpc.GenericRpcHandler by path; what nobody serves is UNIMPLEMENTED without a text, as upstream."""

    def __init__(self, methods: Mapping[str, Any], access: Access | None) -> None:
        """access: None where nobody is asked for a token."""
        self._methods = methods
        self._access = access
        # A streaming handler is called before any message has come, and so fits calls of every kind.
        self._unknown = grpc.stream_stream_rpc_method_handler(_refuse_unknown_method)

    def service(self, call_details: Any) -> Any:
        """grpc.GenericRpcHandler.service."""
        path = call_details.method
        if self._access is not None and path in self._methods:
            error = self._access.refusal(_authorization(call_details.invocation_metadata), needed_role(path))
            if error is not None:
                return grpc.stream_stream_rpc_method_handler(partial(_refuse, error))
        return self._methods.get(path, self._unknown)


def _authorization(metadata: Sequence[tuple[str, str | bytes]]) -> bytes | None:
    values = [value for key, value in metadata if key == "authorization"]
    if len(values) > 1:
        return b""  # of two, nobody can say which one counts
    value = values[0] if values else None
    return value.encode("utf-8", "replace") if isinstance(value, str) else value


async def _refuse(error: ServingError, _requests: Any, context: Any) -> None:
    await _abort(context, error)


async def _refuse_unknown_method(_requests: Any, context: Any) -> None:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "")


def _read_metadata(context: Any) -> RequestMetadata:
    found = {
        key: value if isinstance(value, bytes) else value.encode("ascii", "replace")
        for key, value in context.invocation_metadata()
        if key in ("traceparent", PRIORITY_HEADER)
    }
    if not found:
        return NO_METADATA
    return RequestMetadata(
        priority=admission.priority(found.get(PRIORITY_HEADER, b"")), traceparent=found.get("traceparent", b"")
    )


async def _abort(context: Any, error: ServingError) -> NoReturn:
    """Ends the RPC with the error's status, by raising grpcio's own AbortError."""
    await context.abort(GRPC_STATUS_CODES[error.code], truncated_message(error.message))
    raise error  # abort has raised


def _certificates(config: TlsConfig) -> Any:
    return grpc.ssl_server_certificate_configuration(
        [(config.key, config.certificate)], config.custom_ca if config.client_verify and config.custom_ca else None
    )


def _bind(server: Any, address: str, credentials: Any) -> int:
    """``credentials`` None: in the clear."""
    try:
        if credentials is None:
            port = int(server.add_insecure_port(address))
        else:
            port = int(server.add_secure_port(address, credentials))
    except RuntimeError as error:
        raise ServingError(Code.UNAVAILABLE, _bind_text(address)) from error
    if port == 0:
        raise ServingError(Code.UNAVAILABLE, _bind_text(address))
    return port


def _remove_socket(path: str) -> None:
    if os.path.exists(path):
        os.unlink(path)


def _bind_text(address: str) -> str:
    return f"gRPC cannot listen on {address}: it is in use or not permitted; choose another port or socket path."
