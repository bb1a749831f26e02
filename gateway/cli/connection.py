"""Connections to a server, over gRPC and REST: made as an Access says, and failing in words that say what to do.

On the client's side of both edges. Everything blocks, and everything that waits has a deadline.
"""

import contextlib
import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc

from tensorgate.gateway.cli.access import Access, Tls
from tensorgate.gateway.cli.connection_trouble import trouble_with
from tensorgate.protos.status_codes import Code, ServingError

_UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
_HEALTH_CHECK = "/grpc.health.v1.Health/Check"


def split_address(address: str, default_port: int) -> tuple[str, int]:
    """Host and port of ``HOST:PORT`` or ``HOST``. Raises ServingError INVALID_ARGUMENT for what is none."""
    if "://" in address:
        raise ServingError(
            Code.INVALID_ARGUMENT, f"{address!r} is a URL; give HOST:PORT alone, and --tls where it is encrypted"
        )
    host, colon, port = address.rpartition(":")
    if not colon or "]" in port:
        return address.strip("[]"), default_port
    if not port.isdigit() or int(port) > 65535:
        raise ServingError(Code.INVALID_ARGUMENT, f"{address!r} has no port number behind its colon")
    return host.strip("[]") or "localhost", int(port)


def bearer(token: str) -> dict[str, str]:
    """The header that shows the token; none for an empty one."""
    return {"authorization": f"Bearer {token}"} if token else {}


@dataclass(frozen=True, slots=True)
class _CallDetails(grpc.ClientCallDetails):  # type: ignore[misc]
    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _ShowToken(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    def __init__(self, token: str) -> None:
        self._metadata = tuple(bearer(token).items())

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        metadata = (*(details.metadata or ()), *self._metadata)
        shown = _CallDetails(
            details.method,
            details.timeout,
            metadata,
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )
        return continuation(shown, request)


@contextlib.contextmanager
def open_channel(address: str, access: Access, timeout_s: float = 10) -> Iterator[grpc.Channel]:
    """A channel without limits on sizes, connected, whose calls show the token.

    Raises ServingError UNAVAILABLE where nobody answers, or not as the access says.
    """
    host, port = split_address(address, 8500)
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if access.tls is None:
        channel = grpc.insecure_channel(target, options=_UNLIMITED)
    else:
        name = access.tls.server_name
        options = (*_UNLIMITED, *((("grpc.ssl_target_name_override", name),) if name else ()))
        channel = grpc.secure_channel(target, access.tls.channel_credentials(), options)
    with channel:
        try:
            # Open to all; a server that has no such service says so, and is there too.
            channel.unary_unary(_HEALTH_CHECK)(b"", timeout=timeout_s)
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise _unreachable(host, port, access, "gRPC", error.details()) from error
        yield grpc.intercept_channel(channel, _ShowToken(access.token)) if access.token else channel


class _TlsConnection(http.client.HTTPConnection):
    """http.client.HTTPSConnection, but for the server's name, which that takes from the address alone."""

    def __init__(self, host: str, port: int, timeout: float, tls: Tls) -> None:
        super().__init__(host, port, timeout=timeout)
        self._tls = tls

    def connect(self) -> None:
        super().connect()
        self.sock = self._tls.context.wrap_socket(self.sock, server_hostname=self._tls.server_name or self.host)


def rest_connection(address: str, access: Access, timeout_s: float) -> http.client.HTTPConnection:
    """Connects with its first request; the caller shows the token, and closes it."""
    host, port = split_address(address, 8501)
    if access.tls is None:
        return http.client.HTTPConnection(host, port, timeout=timeout_s)
    return _TlsConnection(host, port, timeout_s, access.tls)


def rest(
    address: str, verb: str, path: str, access: Access, body: bytes | None = None, timeout_s: float = 30
) -> tuple[int, bytes]:
    """Status and body of one REST request. Raises ServingError UNAVAILABLE where there is no answer."""
    with contextlib.closing(rest_connection(address, access, timeout_s)) as connection:
        try:
            connection.request(verb, path, body, bearer(access.token))
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            problem = str(error)
            if type(error) is http.client.BadStatusLine:
                # Its text is what came: binary, as a rule.
                problem = "what answers speaks no HTTP/1.1; is it the port of gRPC?"
            raise _unreachable(connection.host, connection.port, access, "REST", problem) from error


def rest_json(
    address: str, path: str, access: Access, verb: str = "GET", body: bytes | None = None, timeout_s: float = 30
) -> Any:
    """The JSON at a path. Raises ServingError: UNAVAILABLE without an answer, UNKNOWN for one that is no JSON or OK."""
    status, answer = rest(address, verb, path, access, body, timeout_s)
    if status != http.client.OK:
        raise ServingError(Code.UNKNOWN, f"{address}{path} answers {status}: {answer[:500].decode(errors='replace')}")
    try:
        return json.loads(answer)
    except ValueError as error:
        raise ServingError(Code.UNKNOWN, f"{address}{path} is no JSON: {error}") from error


def _unreachable(host: str, port: int, access: Access, api: str, problem: str) -> ServingError:
    found = trouble_with(host, port, access.tls, speaks_grpc=api == "gRPC")
    return ServingError(Code.UNAVAILABLE, found or f"No {api} server answers at {host}:{port}: {problem}")
