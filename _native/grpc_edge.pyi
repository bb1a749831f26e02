from collections.abc import Mapping, Sequence

from typing_extensions import Self, disjoint_base

from tensorgate._native.access_tokens import AccessTokens
from tensorgate._native.data_plane import DataPlane
from tensorgate._native.handled_call import HandledCall
from tensorgate._native.tls_context import TlsContext

@disjoint_base
class GrpcEdge:
    """gRPC over HTTP/2 on the threads of a data plane; ``close`` it before the plane.

    ``methods``: (path, number, spec_in_tasks, roles); number is dispatch.call.Method, or 0 for a method that Python
    serves. Once there are tokens, a call needs one that has any of the roles, bits as AccessTokens has them; 0: none.
    Times are in microseconds, -1 for never; sizes in bytes. Raises shared_library.LibraryError without libnghttp2,
    ValueError for what cannot be, OSError when descriptors or memory run out.
    """

    event_fd: int  # readable while there are events; owned by the edge

    def __new__(
        cls,
        plane: DataPlane,
        methods: Sequence[tuple[str, int, bool, int]],
        *,
        max_message_size: int,
        compress_replies: bool = False,
        max_held_bytes: int,
        max_unsent_bytes: int,
        max_concurrent_streams: int,
        max_header_list_size: int,
        stream_window: int,
        connection_window: int,
        max_connection_age_us: int = -1,
        max_connection_age_grace_us: int = -1,
        max_connection_idle_us: int = -1,
        keepalive_time_us: int = -1,
        keepalive_timeout_us: int = 20000000,
    ) -> Self: ...
    def listen(self, fd: int) -> None:
        """Takes over a listening, non-blocking stream socket (TCP or unix). Raises OSError."""

    def set_tls(self, context: TlsContext) -> None:
        """Connections that come from now on speak TLS, by this context, which is kept; those that are there go on."""

    def set_tokens(self, tokens: AccessTokens) -> None:
        """Calls that begin from now on are judged by these tokens, which are kept; returns when that holds."""

    def stop_listening(self) -> None:
        """Closes the listening sockets; returns when they are closed. Idempotent."""

    def drain(self) -> None:
        """Tells all clients to go elsewhere (GOAWAY); each connection ends with its last call. Idempotent."""

    def close(self) -> None:
        """Cancels what runs and closes everything; returns when it is done. Idempotent."""

    def take_events(self) -> list[tuple[int, HandledCall, bytes]]:
        """What has happened to calls that Python serves: (EVENT_…, call, message), in order for each call."""

    @property
    def num_connections(self) -> int: ...
    @property
    def num_calls(self) -> int:
        """Streams that are open, of all threads."""

    @property
    def held_bytes(self) -> int:
        """Bytes of requests and replies, of all threads, as the budget counts them."""

    @property
    def counters(self) -> Mapping[str, int]:
        """Totals since the start; see Http2Counters and GrpcCounters."""
