"""Drives the receiving side of a ZeroMQ socket from an asyncio loop.

Under WorkerClient's control socket, on the edge loop's thread. The descriptor behind zmq.FD is edge-triggered: it
becomes readable when the socket's state may have changed, once, and both sending and receiving consume that signal. So
ZMQ_EVENTS is asked again after every send and after every drain; a socket that is not asked again sits on messages for
ever.

Source: zmq_getsockopt(3), ZMQ_FD and ZMQ_EVENTS.
"""

import asyncio
from collections.abc import Callable

import zmq

# Plain ints: arithmetic on pyzmq's flag enums costs more than the call they are passed to.
POLLIN = int(zmq.POLLIN)
EVENTS = int(zmq.EVENTS)

# Messages taken before the loop's other work gets its turn.
MAX_MESSAGES_PER_TURN = 64


class SocketReader:
    """Calls ``receive`` whenever the socket has a message; ``receive`` takes exactly one off it, without blocking."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, socket: "zmq.Socket[bytes]", receive: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._socket = socket
        self._receive = receive
        self._fd = int(socket.get(zmq.FD))
        self._is_scheduled = False
        self._is_stopped = False
        loop.add_reader(self._fd, self._on_readable)

    def after_send(self) -> None:
        """To be called after every send on the socket; one look serves all sends of a turn of the loop."""
        self._schedule()

    def drain(self) -> None:
        """Takes everything that has arrived by now."""
        while not self._is_stopped and int(self._socket.get(EVENTS)) & POLLIN:
            self._receive()

    def stop(self) -> None:
        """No further calls; the socket may be closed after this. Idempotent."""
        if not self._is_stopped:
            self._is_stopped = True
            self._loop.remove_reader(self._fd)

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._on_scheduled)

    def _on_scheduled(self) -> None:
        self._is_scheduled = False
        self._on_readable()

    def _on_readable(self) -> None:
        for _ in range(MAX_MESSAGES_PER_TURN):
            # ``receive`` may lead to ``stop``, after which the socket may be closed.
            if self._is_stopped or not int(self._socket.get(EVENTS)) & POLLIN:
                return
            try:
                self._receive()
            except BaseException:
                # The loop reports it. The messages behind this one must not wait for the next signal.
                self._schedule()
                raise
        self._schedule()
