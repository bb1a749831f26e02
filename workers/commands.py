"""The worker's control line: hello, load, unload, ping, traces and stop, asked by the gateway over a socket of its own.

A thread of its own owns the control socket and answers pings whatever else goes on; loads and unloads block in loader
threads, which hand the session to the data loop, or take it back, and answer through the mailbox.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import zmq

from tensorgate._native import frame_header
from tensorgate._native.data_loop import DataLoop
from tensorgate._native.session import Session
from tensorgate.protos import control_messages
from tensorgate.protos.control_messages import ControlRequest
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.workers.batch_trials import try_batches
from tensorgate.workers.golden_requests import check_golden_requests
from tensorgate.workers.lease import Lease
from tensorgate.workers.mailbox import Mailbox
from tensorgate.workers.profiler import Profiler, Trace
from tensorgate.workers.servables import Servable, VersionToLoad, open_servable
from tensorgate.workers.warmup import warm_up

logger = logging.getLogger("tensorgate.worker.commands")

# How many loads run at once is the gateway's choice; this only bounds the threads.
MAX_LOADER_THREADS = 32

Answer = Callable[[Mapping[str, Any] | ServingError], None]


class CommandServer:
    """Binds the control endpoint on construction and serves it on a thread of its own between start and stop.

    ``stop_worker`` is called, on that thread, when the gateway asks for the end of the process; it must not block.
    ``secret_key``: of CURVE, as text; empty: the endpoint is in the clear. ``lease``: of a worker on the network, which
    is one gateway's at a time.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        epoch: int,
        tensorflow_version: str,
        data_loop: DataLoop,
        stop_worker: Callable[[], None],
        secret_key: bytes = b"",
        lease: Lease | None = None,
    ) -> None:
        self._epoch = epoch
        self._tensorflow_version = tensorflow_version
        self._data_loop = data_loop
        self._stop_worker = stop_worker
        self._socket = context.socket(zmq.ROUTER)
        self._lease = lease
        self._socket.set(zmq.LINGER, 1000)
        if secret_key:
            self._socket.set(zmq.CURVE_SERVER, 1)
            self._socket.set(zmq.CURVE_SECRETKEY, secret_key)
        self._socket.bind(endpoint)
        self._mailbox = Mailbox()
        # By handle; written by loader threads, one handle by one thread.
        self._servables: dict[int, Servable] = {}
        self._names: dict[int, tuple[str, int]] = {}
        # Of models, by name. The lock: a version gets the newest, whether it or they come first.
        self._weights: Mapping[str, int] = {}
        self._weights_lock = threading.Lock()
        self._loaders = ThreadPoolExecutor(MAX_LOADER_THREADS, thread_name_prefix="loader")
        self._profiler = Profiler()
        self._stopping = False
        self._say_leaving: Answer | None = None
        self._thread = threading.Thread(target=self._run, name="commands", daemon=True)
        self._handlers: dict[str, Callable[[ControlRequest, Answer], None]] = {
            "hello": self._hello,
            "ping": self._ping,
            "weigh": self._weigh,
            "load": self._load,
            "unload": self._unload,
            "profile": self._profile,
            "end_profile": self._end_profile,
            "await_leaving": self._await_leaving,
            "stop": self._stop,
        }

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and closes the socket; loads under way are waited for. From another thread; blocks."""
        self._mailbox.post(self._end)
        self._thread.join()
        self._profiler.stop()
        self._loaders.shutdown(wait=True, cancel_futures=True)

    def say_leaving(self) -> bool:
        """Tells the gateway that the worker is to end; False if it has not asked to be told, and will not say stop.

        From any thread.
        """
        if self._say_leaving is None:
            return False
        self._say_leaving({})
        return True

    def unload_all(self) -> None:
        """Closes every version that is loaded; after ``stop``, and once the data loop runs nothing any more. Blocks."""
        for handle in self._data_loop.handles:
            self._tell_batching(handle)
            self._data_loop.withdraw(handle)
            self._servables.pop(handle).close()

    def _end(self) -> None:
        self._stopping = True

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._mailbox.event_fd, zmq.POLLIN)
        while not self._stopping:
            ready = dict(poller.poll())
            if self._mailbox.event_fd in ready:
                self._mailbox.run_posted()
            if self._socket in ready:
                self._take(self._socket.recv_multipart())
        self._mailbox.close()
        self._socket.close()

    def _send(self, frames: list[bytes]) -> None:
        self._socket.send_multipart(frames)

    def _take(self, frames: list[bytes]) -> None:
        peer, *rest = frames
        try:
            request = control_messages.unpack_request(rest[0] if rest else b"")
        except ValueError as error:
            logger.warning("dropped a malformed control message: %s", error)
            return

        def answer(outcome: Mapping[str, Any] | ServingError) -> None:
            """Sends the reply; from any thread."""
            if isinstance(outcome, ServingError):
                reply = control_messages.pack_reply(request.id, outcome.code, outcome.message)
            else:
                reply = control_messages.pack_reply(request.id, Code.OK, "", **outcome)
            self._mailbox.post(lambda: self._send([peer, reply]))

        if self._lease is not None and not self._lease.renew(peer, takes=request.command == "hello"):
            answer(ServingError(Code.FAILED_PRECONDITION, "this worker is another gateway's, or was when it left"))
            return
        handler = self._handlers.get(request.command)
        if handler is None:
            answer(ServingError(Code.UNIMPLEMENTED, f"this worker does not know the command {request.command!r}"))
            return
        handler(request, answer)

    # --- the commands -------------------------------------------------------------------------------------------------

    def _hello(self, _request: ControlRequest, answer: Answer) -> None:
        answer(
            {
                "pid": os.getpid(),
                "epoch": self._epoch,
                "wire_version": frame_header.WIRE_VERSION,
                "tensorflow_version": self._tensorflow_version,
                "num_execution_threads": self._data_loop.num_execution_threads,
            }
        )

    def _ping(self, _request: ControlRequest, answer: Answer) -> None:
        answer(
            {
                "in_flight": self._data_loop.in_flight,
                "completed": self._data_loop.completed,
                "rss_bytes": resident_bytes(),
                "queues": self._batch_queues(),
            }
        )

    def _batch_queues(self) -> list[str]:
        return [
            json.dumps({"handle": handle, "name": name, "version": version, **queue})
            for handle, (name, version) in list(self._names.items())  # loader threads add
            for queue in self._data_loop.batch_queues(handle)
        ]

    def _weigh(self, request: ControlRequest, answer: Answer) -> None:
        weights = request.fields["weights"]
        if not all(isinstance(weight, int) and weight >= 1 for weight in weights.values()):
            answer(ServingError(Code.INVALID_ARGUMENT, f"weights are positive numbers; they were {weights}"))
            return
        with self._weights_lock:
            self._weights = weights
            for handle, (name, _) in list(self._names.items()):
                self._data_loop.set_weight(handle, self._weights.get(name, 1))
        answer({})

    def _load(self, request: ControlRequest, answer: Answer) -> None:
        fields = request.fields

        def load() -> None:
            began = time.monotonic()
            try:
                servable, (num_warmup_records, warmup_us) = _open_warm(fields)
            except ServingError as error:
                answer(error)
                return
            except Exception as error:
                # Whatever a broken model provokes fails its own load, with the trace in the log, and nothing else.
                logger.exception("loading %s version %d failed", fields["name"], fields["version"])
                answer(ServingError(Code.INTERNAL, f"{type(error).__name__}: {error}"))
                return
            took_us = round((time.monotonic() - began) * 1e6)
            try:
                self._data_loop.register_servable(fields["handle"], servable.runner, servable.batching)
            except ValueError as error:
                servable.close()
                answer(ServingError(Code.INVALID_ARGUMENT, str(error)))
                return
            self._servables[fields["handle"]] = servable
            with self._weights_lock:
                self._names[fields["handle"]] = (fields["name"], fields["version"])
                self._data_loop.set_weight(fields["handle"], self._weights.get(fields["name"], 1))
            if isinstance(servable.runner, Session) and servable.batching is not None:
                try_batches(
                    servable.runner,
                    fields["path"],
                    servable.batching,
                    partial(self._data_loop.teach_batching, fields["handle"]),
                )
            answer(
                {
                    "signature_def_map": servable.signature_def_map,
                    "load_us": took_us,
                    "num_warmup_records": num_warmup_records,
                    "warmup_us": warmup_us,
                }
            )

        self._loaders.submit(load)

    def _unload(self, request: ControlRequest, answer: Answer) -> None:
        handle = request.fields["handle"]

        def unload() -> None:
            """Waits for the version's last run, and closing frees variables: both can take a while."""
            self._tell_batching(handle)
            if self._data_loop.withdraw(handle) is None:
                answer(ServingError(Code.NOT_FOUND, f"no servable has the handle {handle}"))
                return
            try:
                self._names.pop(handle, None)
                self._servables.pop(handle).close()
            except ServingError as error:
                answer(error)
            else:
                answer({})

        self._loaders.submit(unload)

    def _tell_batching(self, handle: int) -> None:
        """What became of a version's requests that were merged, for the log."""
        name, version = self._names.get(handle, ("", 0))
        for queue in self._data_loop.batch_queues(handle):
            if queue["batches"]:
                logger.info(
                    "batching of %s version %d, %s: %d requests, %d rows in %d batches (%.1f rows each, %d of padding),"
                    " %d refused, %d expired",
                    name,
                    version,
                    queue["signature"],
                    queue["requests"],
                    queue["rows"],
                    queue["batches"],
                    queue["rows"] / queue["batches"],
                    queue["padding_rows"],
                    queue["refused"],
                    queue["expired"],
                )

    def _profile(self, request: ControlRequest, answer: Answer) -> None:
        def tell(trace: Trace | ServingError) -> None:
            answer(
                trace if isinstance(trace, ServingError) else {"xspace": trace.content, "has_events": trace.has_events}
            )

        self._profiler.start(request.fields["duration_ms"] / 1e3, tell)

    def _end_profile(self, _request: ControlRequest, answer: Answer) -> None:
        self._profiler.end()
        answer({})

    def _await_leaving(self, _request: ControlRequest, answer: Answer) -> None:
        self._say_leaving = answer

    def _stop(self, _request: ControlRequest, answer: Answer) -> None:
        answer({})
        self._stop_worker()


def _open_warm(fields: Mapping[str, Any]) -> tuple[Servable, tuple[int, int]]:
    """What the fields of ``load`` ask for, loaded, warmed up and checked, and what its warm-up told.

    Raises ServingError.
    """
    warmed_up = (0, 0)
    servable = open_servable(
        fields["platform"],
        VersionToLoad(
            fields["path"],
            fields["version"],
            tuple(fields["tags"]),
            fields["session_config"],
            fields["checks_method_names"],
            fields["outputs_as_content"],
            fields["prefer_tflite_model"],
            fields["num_tflite_pools"],
            fields["batching_mode"],
            fields["batching_parameters"],
            fields["model_settings"],
        ),
    )
    try:
        if fields["num_warmup_iterations"] > 0:
            warmed_up = warm_up(servable.warmup_methods, fields["path"], fields["num_warmup_iterations"])
        check_golden_requests(servable.warmup_methods, fields["path"], fields["golden_tolerance"])
    except BaseException:
        servable.close()
        raise
    return servable, warmed_up


def resident_bytes() -> int:
    """Resident memory of this process in bytes, from /proc/self/statm."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
