"""Where and how a gRPC edge listens, and what the channel arguments mean to the native one.

Source: grpc/impl/channel_arg_names.h of gRPC's C core (names, units, defaults).
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tensorgate.gateway.access_tokens import Access
from tensorgate.gateway.tls import TlsConfig

logger = logging.getLogger("tensorgate.grpc")

INT32_MAX = 2**31 - 1

# grpc_compression_algorithm: 2 is gzip.
_GZIP = 2


@dataclass(frozen=True, slots=True)
class GrpcOptions:
    """``port`` None: no TCP; 0: a free one, see the edge's ``port``. ``socket_path``: a unix socket too, or empty.

    ``channel_arguments`` come last and win, e.g. ``("grpc.max_connection_age_ms", 2000)``. ``max_held_bytes`` bounds
    the requests that have come and the replies that have not gone, of all clients (native edge).
    """

    port: int | None = 8500
    host: str = "0.0.0.0"  # noqa: S104 - as upstream
    socket_path: str = ""
    channel_arguments: tuple[tuple[str, int | str], ...] = ()
    max_receive_message_bytes: int = INT32_MAX
    max_held_bytes: int = 4 << 30
    tls: TlsConfig | None = None
    """None: in the clear."""
    access: Access | None = None
    """None: nobody is asked for a token."""

    @property
    def in_what(self) -> str:
        """For the log."""
        if self.tls is None:
            return ""
        return ", with TLS and client certificates" if self.tls.client_verify else ", with TLS"


@dataclass(frozen=True, slots=True)
class NativeLimits:
    """GrpcEdge's keyword arguments, and the channel arguments that mean nothing to it."""

    arguments: Mapping[str, Any]
    ignored: tuple[str, ...] = field(default=())


# Channel argument to (GrpcEdge's argument, units a unit); -1 and INT32_MAX mean without a limit where times are meant.
_TIMES_MS = {
    "grpc.max_connection_age_ms": "max_connection_age_us",
    "grpc.max_connection_age_grace_ms": "max_connection_age_grace_us",
    "grpc.max_connection_idle_ms": "max_connection_idle_us",
    "grpc.keepalive_time_ms": "keepalive_time_us",
    "grpc.keepalive_timeout_ms": "keepalive_timeout_us",
}
_NUMBERS = {
    "grpc.max_receive_message_length": "max_message_size",
    "grpc.max_concurrent_streams": "max_concurrent_streams",
    "grpc.absolute_max_metadata_size": "max_header_list_size",
    "grpc.max_metadata_size": "max_header_list_size",
    "grpc.http2.lookahead_bytes": "stream_window",
}
# They hold here whatever they are set to, or speak of the other side.
_WITHOUT_EFFECT = {"grpc.so_reuseport", "grpc.max_send_message_length"}
_WINDOW_RANGE = (65535, INT32_MAX)


def native_limits(options: GrpcOptions) -> NativeLimits:
    """The limits of the native edge: gRPC's defaults where it has them, then what the channel arguments say."""
    arguments: dict[str, Any] = {
        "max_message_size": options.max_receive_message_bytes,
        "max_held_bytes": options.max_held_bytes,
        "max_unsent_bytes": 256 << 20,
        # Without a limit in gRPC; a connection with more than this at a time is no client of ours.
        "max_concurrent_streams": 10_000,
        "max_header_list_size": 16 << 10,
        "stream_window": 1 << 20,
        "connection_window": 16 << 20,
        "max_connection_age_us": -1,
        "max_connection_age_grace_us": -1,
        "max_connection_idle_us": -1,
        # gRPC's default for servers: after two hours of silence.
        "keepalive_time_us": 7_200_000_000,
        "keepalive_timeout_us": 20_000_000,
        "compress_replies": False,
    }
    ignored = []
    for key, value in options.channel_arguments:
        if key in _TIMES_MS and isinstance(value, int):
            arguments[_TIMES_MS[key]] = -1 if value < 0 or value == INT32_MAX else value * 1000
        elif key in _NUMBERS and isinstance(value, int):
            arguments[_NUMBERS[key]] = INT32_MAX if value < 0 else value
        elif key == "grpc.default_compression_algorithm" and isinstance(value, int):
            arguments["compress_replies"] = value == _GZIP
        elif key not in _WITHOUT_EFFECT:
            ignored.append(key)
    lowest, highest = _WINDOW_RANGE
    arguments["stream_window"] = min(max(arguments["stream_window"], lowest), highest)
    return NativeLimits(arguments, tuple(ignored))
