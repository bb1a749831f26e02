"""Holds the gRPC edge's addresses while the models load: one that is taken is noticed at once, not minutes later.

Beside the edge, which opens when the models are available, as upstream does. Until then a client is to be refused, so a
port is bound here without listening: to other servers it is taken, and the edge can bind it too, since both allow the
address to be reused.

Source: bind(2), ip(7), unix(7).
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tensorgate.protos.status_codes import Code, ServingError

# sizeof(sockaddr_un.sun_path) is 108 with the closing zero byte.
MAX_SOCKET_PATH_BYTES = 107


@contextmanager
def reserved_addresses(
    port: int,
    socket_path: str,
    *,
    host: str = "0.0.0.0",  # noqa: S104 - as the edge
    shares_port: bool = False,
) -> Iterator[None]:
    """Holds an IPv4 address inside the ``with``; ``port`` 0 and an empty ``socket_path`` stand for none.

    ``shares_port``: other servers may listen on the port too (SO_REUSEPORT), so nothing is held. Raises ServingError
    UNAVAILABLE naming the address that is taken or not permitted, and the flag to change.
    """
    if socket_path:
        try:
            _check_socket_path(socket_path)
        except OSError as error:
            raise _cannot_listen(f"unix:{socket_path}", error, "grpc_socket_path") from error
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as holder:
        if port != 0 and not shares_port:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                holder.bind((host, port))
            except OSError as error:
                raise _cannot_listen(f"{host}:{port}", error, "port") from error
        yield


def _check_socket_path(path: str) -> None:
    """Raises OSError where no socket can be made, or another server answers; a file that one left behind is fine."""
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise OSError(f"the path has more than {MAX_SOCKET_PATH_BYTES} bytes")
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise OSError("its folder does not exist")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OSError("its folder is not writable")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return
        except BlockingIOError:  # a server, whose queue is full
            pass
    raise OSError("another server listens there")


def _cannot_listen(address: str, error: OSError, flag: str) -> ServingError:
    return ServingError(
        Code.UNAVAILABLE, f"gRPC cannot listen on {address}: {error.strerror or error}; choose another --{flag}"
    )
