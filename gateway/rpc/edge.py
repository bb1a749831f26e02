"""Which gRPC edge serves: the native one, or grpcio's where that cannot be.

On the composition root's side of the edges.
"""

import logging
from collections.abc import Mapping
from typing import Protocol

from tensorgate._native import nghttp2_api, openssl_api
from tensorgate._native.data_plane import DataPlane
from tensorgate._native.shared_library import LibraryError
from tensorgate.gateway.core.clock import Clock
from tensorgate.gateway.rpc.grpc_options import GrpcOptions
from tensorgate.gateway.rpc.grpcio_edge import GrpcioEdge
from tensorgate.gateway.rpc.incoming_call import Handler
from tensorgate.gateway.rpc.native_edge import NativeEdge
from tensorgate.gateway.rpc.prediction_service import PredictionService
from tensorgate.gateway.rpc.services import DATA_PLANE_METHODS
from tensorgate.gateway.tls import TlsConfig

logger = logging.getLogger("tensorgate.grpc")


class GrpcEdge(Protocol):
    """Listens from ``start`` to ``stop``."""

    @property
    def name(self) -> str:
        """What --grpc_edge calls it."""
        ...

    @property
    def counters(self) -> Mapping[str, int]:
        """Totals since the start; empty unless it runs, and for an edge that does not count. From any thread."""
        ...

    @property
    def port(self) -> int | None:
        """The TCP port it listens on; None before ``start``, or without TCP."""
        ...

    async def start(self) -> None:
        """Binds and serves. Raises ServingError UNAVAILABLE naming an address that cannot be bound."""
        ...

    def set_tls(self, config: TlsConfig) -> None:
        """Connections that come from now on get these certificates; for an edge that was made with some."""
        ...

    async def stop(self, grace_s: float) -> None:
        """Stops accepting at once; returns when what is in flight has ended, cancelled after ``grace_s`` seconds."""
        ...


def make_grpc_edge(
    wanted: str,
    options: GrpcOptions,
    data_plane: DataPlane,
    prediction_service: PredictionService,
    handlers: Mapping[str, Handler],
    clock: Clock,
) -> GrpcEdge:
    """``wanted`` is ``native`` or ``grpcio``; without libnghttp2 it is grpcio's in any case, and the log says so."""
    if wanted == "native":
        missing = _missing_library(needs_tls=options.tls is not None)
        if not missing:
            return NativeEdge(options, data_plane, DATA_PLANE_METHODS, handlers)
        logger.warning("gRPC is served by grpcio, several times slower: %s", missing)
    return GrpcioEdge(options, prediction_service, handlers, clock)


def _missing_library(*, needs_tls: bool) -> str:
    """Why the native edge cannot be, and what to do; empty where it can."""
    try:
        nghttp2_api.load_library()
    except LibraryError as error:
        return f"{error}. Install libnghttp2 (Debian: libnghttp2-14)."
    try:
        if needs_tls:
            openssl_api.load_library()
    except LibraryError as error:
        return f"OpenSSL is needed for TLS, and {error}."
    return ""
