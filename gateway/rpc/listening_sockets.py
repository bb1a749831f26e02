"""Listening sockets of the native gRPC edge, and REST's unix socket.

Source: socket(7), unix(7); gRPC's C core for what is bound and when a unix socket's file is removed.
"""

import os
import socket
import stat

from tensorgate.protos.status_codes import Code, ServingError

BACKLOG = 4096


def listen_on_tcp(host: str, port: int) -> socket.socket:
    """A non-blocking listening socket; ``port`` 0 takes a free one. Raises ServingError UNAVAILABLE."""
    try:
        listener = socket.create_server((host, port), backlog=BACKLOG)
    except OSError as error:
        raise _cannot_listen(f"{host}:{port}", error) from error
    listener.setblocking(False)
    return listener


def listen_on_unix(path: str, service: str = "gRPC") -> socket.socket:
    """The same on a unix socket, over the file of a server that has gone. Raises ServingError UNAVAILABLE.

    ``service`` is what the error's text calls us.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        listener.bind(path)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _cannot_listen(f"unix:{path}", error, service) from error
    listener.setblocking(False)
    return listener


def _remove_stale(path: str) -> None:
    """Unlinks a socket that nobody listens on; one that somebody does stays, and binding says so."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # A full queue is a listener too.
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except BlockingIOError:
            return


def _cannot_listen(address: str, error: OSError, service: str = "gRPC") -> ServingError:
    return ServingError(
        Code.UNAVAILABLE,
        f"{service} cannot listen on {address}: it is in use or not permitted ({error.strerror or error}); choose"
        " another port or socket path.",
    )
