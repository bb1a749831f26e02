"""The worker's data loop: request frames in, execution, reply frames out.

Second half of a request's line (dispatcher ‖ data loop → execution pool → back). The main thread owns it, with its two
sockets (ROUTER for requests and replies, PULL for cancels), the pool and the table of servables; other threads reach
it through its mailbox. The loop only moves frames: decoding, running and encoding happen in the pool's native threads.

Replies are never dropped while the gateway lives: the high-water mark is off, since the gateway's credit bounds what
can be outstanding, and ROUTER_MANDATORY turns a vanished peer into an error that is counted.
"""

import logging

import zmq

from tensorgate._native import frame_header
from tensorgate._native.execution_pool import ExecutionPool, ResponseBuffer
from tensorgate.protos.status_codes import Code
from tensorgate.workers.mailbox import Mailbox
from tensorgate.workers.servables import Servable, Servables

logger = logging.getLogger("tensorgate.worker.data_loop")

# Messages taken from one socket before the others get their turn.
MAX_MESSAGES_PER_TURN = 64

# Plain ints: arithmetic on pyzmq's flag enums costs more than the call they are passed to.
NOBLOCK = int(zmq.NOBLOCK)
NOBLOCK_SNDMORE = int(zmq.NOBLOCK | zmq.SNDMORE)
EVENTS = int(zmq.EVENTS)
POLLIN = int(zmq.POLLIN)


class DataLoop:
    """Binds the endpoints on construction; ``run`` blocks until ``stop`` and until the last reply has left.

    ``completed``, ``malformed`` and ``unsent`` count requests answered, frames that were no request, and replies whose
    gateway had gone. They are read by other threads; a value read may be a moment old.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        data_endpoint: str,
        cancel_endpoint: str,
        epoch: int,
        num_execution_threads: int,
    ) -> None:
        self._epoch = epoch
        self._data = context.socket(zmq.ROUTER)
        self._data.set(zmq.ROUTER_MANDATORY, 1)
        self._cancels = context.socket(zmq.PULL)
        for socket in (self._data, self._cancels):
            socket.set(zmq.LINGER, 0)
            socket.set(zmq.SNDHWM, 0)
            socket.set(zmq.RCVHWM, 0)
        self._data.bind(data_endpoint)
        self._cancels.bind(cancel_endpoint)
        self._pool = ExecutionPool(num_execution_threads)
        self._peers: dict[int, tuple[bytes, Servable]] = {}
        self._stopping = False
        self.mailbox = Mailbox()
        self.servables = Servables()
        self.completed = 0
        self.malformed = 0
        self.unsent = 0

    @property
    def num_execution_threads(self) -> int:
        return self._pool.num_threads

    @property
    def in_flight(self) -> int:
        return len(self._peers)

    def stop(self) -> None:
        """Ends ``run`` once what is in flight has been answered; from any thread."""
        self.mailbox.post(self._begin_stop)

    def _begin_stop(self) -> None:
        self._stopping = True

    def run(self) -> None:
        """The loop itself; on the thread that made the object."""
        poller = zmq.Poller()
        poller.register(self._data, zmq.POLLIN)
        poller.register(self._cancels, zmq.POLLIN)
        poller.register(self._pool.event_fd, zmq.POLLIN)
        poller.register(self.mailbox.event_fd, zmq.POLLIN)
        try:
            while not (self._stopping and not self._peers):
                ready = dict(poller.poll())
                if self.mailbox.event_fd in ready:
                    self.mailbox.run_posted()
                if self._cancels in ready:
                    self._take_cancels()
                if self._data in ready:
                    self._take_requests()
                if self._pool.event_fd in ready:
                    self._send_replies()
        finally:
            self._pool.stop()
            self.mailbox.close()
            # Replies already handed to ZeroMQ leave before the context ends.
            self._data.close(linger=1000)
            self._cancels.close(linger=0)

    def _take_requests(self) -> None:
        data = self._data
        for _ in range(MAX_MESSAGES_PER_TURN):
            # Asking first is cheaper than an exception at the end of every turn.
            if not int(data.get(EVENTS)) & POLLIN:
                return
            # A frame knows whether more follow it; asking the socket costs more than the frame.
            frames = [data.recv(NOBLOCK, copy=False)]
            while frames[-1].more:
                frames.append(data.recv(NOBLOCK, copy=False))
            if len(frames) != 3:
                self._refuse_frames(f"{len(frames)} frames instead of 3")
                continue
            self._take_request(frames[0].bytes, frames[1].bytes, frames[2])

    def _take_request(self, peer: bytes, header: bytes, payload: zmq.Frame) -> None:
        try:
            epoch, request_id, method, handle, remaining_us, _priority, _sampled, _traceparent = (
                frame_header.unpack_request(header)
            )
        except frame_header.FrameError as error:
            self._refuse_frames(str(error))
            return
        if epoch != self._epoch or request_id in self._peers:
            # Meant for a dead incarnation, or sent twice: running it could only do harm.
            self._refuse_frames(f"request {request_id} of epoch {epoch}, here is epoch {self._epoch}")
            return
        servable = self.servables.acquire(handle)
        if servable is None:
            self._send(peer, request_id, Code.UNAVAILABLE, b"the model version is no longer loaded here", 0, 0, b"")
            return
        self._peers[request_id] = (peer, servable)
        if self._pool.submit(servable.session, request_id, method, payload.buffer, remaining_us):
            self._send_replies()

    def _refuse_frames(self, why: str) -> None:
        self.malformed += 1
        logger.warning("dropped a malformed request: %s", why)

    def _take_cancels(self) -> None:
        for _ in range(MAX_MESSAGES_PER_TURN):
            if not int(self._cancels.get(EVENTS)) & POLLIN:
                return
            frame = self._cancels.recv(NOBLOCK)
            try:
                epoch, request_id = frame_header.unpack_cancel(frame)
            except frame_header.FrameError as error:
                self._refuse_frames(str(error))
                continue
            if epoch == self._epoch:
                self._pool.cancel(request_id)

    def _send_replies(self) -> None:
        for request_id, code, message, queue_us, run_us, response, _session in self._pool.drain():
            peer, servable = self._peers.pop(request_id)
            self._send(peer, request_id, code, message, queue_us, run_us, response)
            self.completed += 1
            self.servables.release(servable)

    def _send(
        self,
        peer: bytes,
        request_id: int,
        code: int,
        message: bytes,
        queue_us: int,
        run_us: int,
        payload: ResponseBuffer | bytes,
    ) -> None:
        header = frame_header.pack_reply(self._epoch, request_id, code, message, queue_us, run_us, 0, 0)
        try:
            self._data.send(peer, NOBLOCK_SNDMORE)
            self._data.send(header, NOBLOCK_SNDMORE)
            # A large payload leaves without a copy, ZeroMQ's thread reading it where it lies.
            self._data.send(payload, NOBLOCK, copy=isinstance(payload, bytes))
        except zmq.ZMQError as error:
            # The gateway has gone (EHOSTUNREACH). It fails what it had outstanding by itself.
            self.unsent += 1
            logger.warning("reply %d could not be sent: %s", request_id, error)
