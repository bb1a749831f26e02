"""A worker in plain Python: it speaks the frames and control messages of a real one and echoes payloads.

Run as a process (``python tests/fakes/fake_worker.py --data_endpoint=… …``, the command line of a worker) or on a
thread of a test. What a payload or a model's name can ask for is listed at FakeWorker.
"""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import zmq

from tensorgate._native import frame_header
from tensorgate.protos import control_messages
from tensorgate.protos.status_codes import Code, ServingError

# Anywhere in a payload that has to be a real request.
HOLD_MARK = b"(hold)"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """ZeroMQ addresses to bind."""

    data: str
    control: str
    cancel: str


class FakeWorker:
    """Binds on construction; ``run`` serves until a stop command or ``stop``, which any thread may call.

    Payloads: ``hold``, or one with HOLD_MARK in it, is answered only when cancelled; ``fail CODE TEXT`` with that
    error; ``exit N`` and ``kill`` end the process; everything else is echoed. Models named ``missing`` fail to load,
    ``exit``, or with a file ``crash`` in their folder, end the process, ``greedy`` takes memory without end, ``slow``
    is loaded only when another load comes. Commands in ``mute`` are never answered.
    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        endpoints: Endpoints,
        epoch: int,
        num_execution_threads: int = 1,
        mute: Sequence[str] = (),
        signature_def_map: bytes = b"",
        num_stuck: int = 0,
    ) -> None:
        """``num_stuck``: requests that it claims to have, though nobody sent them, and never answers."""
        self.num_stuck = num_stuck
        self.epoch = epoch
        self.num_execution_threads = num_execution_threads
        self.mute = frozenset(mute)
        self.signature_def_map = signature_def_map
        self.handles: set[int] = set()
        self.commands: list[str] = []
        self.cancelled: list[int] = []
        self.requests: list[tuple[int, int, int, int, int, int, bool, bytes]] = []
        self.completed = 0
        self._held: dict[int, bytes] = {}
        self._slow_loads: list[Callable[[], None]] = []
        self._running = True
        self._data = context.socket(zmq.ROUTER)
        self._control = context.socket(zmq.ROUTER)
        self._cancels = context.socket(zmq.PULL)
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC)
        for socket, endpoint in (
            (self._data, endpoints.data),
            (self._control, endpoints.control),
            (self._cancels, endpoints.cancel),
        ):
            socket.set(zmq.LINGER, 1000)
            socket.set(zmq.SNDHWM, 0)
            socket.set(zmq.RCVHWM, 0)
            socket.bind(endpoint)

    def stop(self) -> None:
        self._running = False
        os.eventfd_write(self._wake_fd, 1)

    def close(self) -> None:
        """Once ``run`` has returned."""
        os.close(self._wake_fd)

    def run(self) -> None:
        poller = zmq.Poller()
        for source in (self._data, self._control, self._cancels, self._wake_fd):
            poller.register(source, zmq.POLLIN)
        while self._running:
            ready = dict(poller.poll())
            if self._control in ready:
                self._take_command()
            if self._cancels in ready:
                self._take_cancel()
            if self._data in ready:
                self._take_request()
        for socket in (self._data, self._control, self._cancels):
            socket.close()

    # --- data ---------------------------------------------------------------------------------------------------------

    def _take_request(self) -> None:
        peer, header, payload = self._data.recv_multipart()
        fields = frame_header.unpack_request(header)
        self.requests.append(fields)
        epoch, request_id, _method, handle, *_ = fields
        if epoch != self.epoch:
            return
        words = payload.split(b" ", 2) if len(payload) < 1000 else [b""]
        if handle not in self.handles:
            self.reply(peer, request_id, Code.UNAVAILABLE, b"the model version is no longer loaded here")
        elif words[0] == b"hold" or HOLD_MARK in payload[:1000]:
            if request_id in self.cancelled:  # the cancel has overtaken it
                self.reply(peer, request_id, Code.CANCELLED, b"skipped")
            else:
                self._held[request_id] = peer
        elif words[0] == b"fail":
            self.reply(peer, request_id, int(words[1]), words[2])
        elif words[0] == b"exit":
            os._exit(int(words[1]))
        elif words[0] == b"kill":
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            self.reply(peer, request_id, Code.OK, b"", payload)

    def reply(self, peer: bytes, request_id: int, code: int, message: bytes, payload: bytes = b"") -> None:
        header = frame_header.pack_reply(self.epoch, request_id, code, message, 11, 22, 0, 0)
        self._data.send_multipart([peer, header, payload])
        self.completed += 1

    def _take_cancel(self) -> None:
        epoch, request_id = frame_header.unpack_cancel(self._cancels.recv())
        if epoch == self.epoch:
            self.cancelled.append(request_id)
            peer = self._held.pop(request_id, None)
            if peer is not None:
                self.reply(peer, request_id, Code.CANCELLED, b"skipped")

    # --- control ------------------------------------------------------------------------------------------------------

    def _take_command(self) -> None:
        peer, message = self._control.recv_multipart()
        request = control_messages.unpack_request(message)
        self.commands.append(request.command)
        if request.command in self.mute:
            return
        if request.command == "load" and request.fields["name"] == "slow" and not self._slow_loads:
            self._slow_loads.append(lambda: self._answer(peer, request))
            return
        self._answer(peer, request)
        if request.command == "load" and self._slow_loads:
            self._slow_loads.pop()()

    def _answer(self, peer: bytes, request: control_messages.ControlRequest) -> None:
        try:
            fields = getattr(self, f"_do_{request.command}")(request.fields)
        except ServingError as error:
            reply = control_messages.pack_reply(request.id, error.code, error.message)
        else:
            reply = control_messages.pack_reply(request.id, Code.OK, "", **fields)
        self._control.send_multipart([peer, reply])

    def _do_hello(self, _fields: object) -> dict[str, object]:
        return {
            "pid": os.getpid(),
            "epoch": self.epoch,
            "wire_version": frame_header.WIRE_VERSION,
            "tensorflow_version": "none",
            "num_execution_threads": self.num_execution_threads,
        }

    def _do_load(self, fields: dict[str, object]) -> dict[str, object]:
        if fields["name"] == "missing":
            raise ServingError(Code.NOT_FOUND, f"no SavedModel in {fields['path']}")
        if fields["name"] == "exit" or os.path.exists(f"{fields['path']}/crash"):
            os._exit(5)
        if fields["name"] == "greedy":
            self.hoard()
        handle = fields["handle"]
        assert isinstance(handle, int)
        self.handles.add(handle)
        return {
            "signature_def_map": self.signature_def_map,
            "load_us": 1234,
            "num_warmup_records": 0,
            "warmup_us": 0,
        }

    def hoard(self) -> None:
        """Takes memory until there is none."""
        taken = []
        while True:
            taken.append(b"x" * (16 << 20))

    def _do_unload(self, fields: dict[str, object]) -> dict[str, object]:
        if fields["handle"] not in self.handles:
            raise ServingError(Code.NOT_FOUND, f"no servable has the handle {fields['handle']}")
        self.handles.remove(int(str(fields["handle"])))
        return {}

    def _do_ping(self, _fields: object) -> dict[str, object]:
        return {
            "in_flight": len(self._held) + self.num_stuck,
            "completed": self.completed,
            "rss_bytes": 4096,
            "queues": [],
        }

    def _do_stop(self, _fields: object) -> dict[str, object]:
        self._running = False
        return {}


def end_with_parent(parent_fd: int) -> None:
    """Ends the process when the pipe's other end closes."""
    os.read(parent_fd, 1)
    os._exit(0)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    for flag in ("data_endpoint", "control_endpoint", "cancel_endpoint", "name"):
        parser.add_argument(f"--{flag}", required=True)
    for flag in ("epoch", "parent_fd", "num_execution_threads"):
        parser.add_argument(f"--{flag}", type=int, required=True)
    parser.add_argument("--stream_path", default="", help="not listened on: requests come by ZeroMQ")
    for flag in ("request_memory_fd", "reply_memory_fd", "shared_memory_threshold_bytes"):
        parser.add_argument(f"--{flag}", help="not mapped: requests are sent")
    parser.add_argument("--mute", default="")
    parser.add_argument("--say", default="")
    parser.add_argument("--ignore_sigterm", action="store_true")
    parser.add_argument("--num_stuck", type=int, default=0)
    parser.add_argument("--exit_at_start", type=int, default=-1)
    flags = parser.parse_args(arguments)
    if flags.ignore_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if flags.say:
        print(flags.say, file=sys.stderr, flush=True)
    if flags.exit_at_start >= 0:
        sys.exit(flags.exit_at_start)
    threading.Thread(target=end_with_parent, args=(flags.parent_fd,), daemon=True).start()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    worker = FakeWorker(
        context,
        Endpoints(flags.data_endpoint, flags.control_endpoint, flags.cancel_endpoint),
        flags.epoch,
        flags.num_execution_threads,
        flags.mute.split(","),
        num_stuck=flags.num_stuck,
    )
    worker.run()
    context.term()


if __name__ == "__main__":
    main(sys.argv[1:])
