"""The exact way of reading large JSON, kept away from the gateway's own threads: asked of processes.

On the REST line, where handlers go with a large body that native code has not taken: one with an error in it, with
mixed or missing values, and every classify or regress. In Python, reading tens of megabytes takes seconds, and in a
thread of the gateway all of them with the GIL or in fight for it. Here a thread waits for a process (exact_process),
which ends by itself when it has nothing to do. Where no process can be started, the thread does the work.
"""

import asyncio
import logging
import socket
import subprocess
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tensorgate.gateway.python_command import python_command
from tensorgate.gateway.rest.exact_process import ExactWork, receive_message, send_message, text_of
from tensorgate.gateway.rest.inference_request import InferenceDocument
from tensorgate.gateway.rest.predict_request import RequestForm
from tensorgate.protos.status_codes import Code, ServingError

logger = logging.getLogger("tensorgate.rest")

# Processes at a time: more large bodies wait for one.
NUM_PROCESSES = 2


class _Job:
    """One question on its way. ``abandon`` may come from another thread, and ends the process that works on it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: _Process | None = None
        self._is_abandoned = False

    def taken_by(self, process: "_Process | None") -> None:
        with self._lock:
            self._process = process
            if process is not None and self._is_abandoned:
                process.kill()

    def abandoned(self) -> bool:
        return self._is_abandoned

    def abandon(self) -> None:
        with self._lock:
            self._is_abandoned = True
            if self._process is not None:
                self._process.kill()


class _Process:
    """A running exact_process. Raises OSError if it cannot be started, or ends before it has come up."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        command = python_command("tensorgate.gateway.rest.exact_process")
        with theirs:
            try:
                self._popen = subprocess.Popen(
                    [*command, f"--socket_fd={theirs.fileno()}"],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        self._socket = ours
        try:
            if receive_message(ours) is None:
                raise OSError(f"{command[0]} ended before it had come up")
        except BaseException:
            self.close()
            raise

    def ask(self, fields: Mapping[str, Any], body: bytes) -> tuple[Mapping[str, Any], bytes] | None:
        """Its answer; None if it has ended."""
        try:
            send_message(self._socket, fields, body)
            return receive_message(self._socket)
        except OSError:
            return None

    def kill(self) -> None:
        """From any thread: what waits for it hears of its end."""
        self._popen.kill()

    def close(self) -> None:
        """Ends it and waits for that."""
        self._popen.kill()
        self._popen.wait()
        self._socket.close()


class ExactReader:
    """Coroutines of any loop; ``close`` at the end, from any thread."""

    def __init__(self) -> None:
        """Starts nothing yet: a process starts with the first body that needs it."""
        self._executor = ThreadPoolExecutor(NUM_PROCESSES, thread_name_prefix="rest-exact")
        self._lock = threading.Lock()
        self._idle: list[_Process] = []
        self._busy: set[_Process] = set()
        self._is_closed = False
        self._works_here = False

    async def signature_name(self, body: bytes) -> str:
        """predict_request.parse_request's. Raises ServingError."""
        fields, _ = await self._ask({"asked": "signature"}, body)
        return text_of(fields["signature_name"])

    async def predict_request(
        self, body: bytes, dtypes: Mapping[str, int], model_spec: bytes
    ) -> tuple[bytes, RequestForm]:
        """predict_request.build_exactly of the body. Raises ServingError."""
        fields, payload = await self._ask({"asked": "predict", "dtypes": dict(dtypes), "model_spec": model_spec}, body)
        return payload, RequestForm.ROWS if fields["is_row_form"] else RequestForm.COLUMNS

    async def inference_document(self, body: bytes) -> InferenceDocument:
        """inference_request.parse_inference_request's. Raises ServingError."""
        fields, request = await self._ask({"asked": "inference"}, body)
        return InferenceDocument(request, text_of(fields["signature_name"]))

    def close(self) -> None:
        """Ends the processes; what waits for them fails. Idempotent."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
            for process in self._busy:
                process.kill()
        for process in idle:
            process.close()
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _ask(self, fields: Mapping[str, Any], body: bytes) -> tuple[Mapping[str, Any], bytes]:
        job = _Job()
        try:
            made, data = await asyncio.get_running_loop().run_in_executor(
                self._executor, self._answer, job, fields, body
            )
        except asyncio.CancelledError:
            job.abandon()
            raise
        if made["code"] != Code.OK:
            raise ServingError(Code.of(made["code"]), text_of(made["message"]))
        return made, data

    # --- in a thread of the pool --------------------------------------------------------------------------------------

    def _answer(self, job: _Job, fields: Mapping[str, Any], body: bytes) -> tuple[Mapping[str, Any], bytes]:
        if job.abandoned():
            raise ServingError(Code.CANCELLED, "The client has gone away.")
        idle = self._idle_process()
        made = None if idle is None else self._ask_process(idle, job, fields, body)
        if made is None and not (job.abandoned() or self._is_closed):
            # One that has had nothing to do may have been ending just then, and that was no fault of this body's.
            process = self._new_process()
            if process is None:
                return ExactWork().answer(fields, body)
            made = self._ask_process(process, job, fields, body)
        if made is None:
            raise ServingError(
                Code.RESOURCE_EXHAUSTED, "The process that read the request's JSON ended before it was done."
            )
        return made

    def _ask_process(
        self, process: _Process, job: _Job, fields: Mapping[str, Any], body: bytes
    ) -> tuple[Mapping[str, Any], bytes] | None:
        """The process's answer; None if it has ended. Afterwards it is idle, or closed."""
        job.taken_by(process)
        made = process.ask(fields, body)
        job.taken_by(None)
        self._give_back(process, is_alive=made is not None)
        return made

    def _idle_process(self) -> _Process | None:
        with self._lock:
            if not self._idle:
                return None
            process = self._idle.pop()
            self._busy.add(process)
            return process

    def _new_process(self) -> _Process | None:
        """None where none can be started, from then on."""
        if self._works_here:
            return None
        try:
            process = _Process()
        except OSError as error:
            self._works_here = True
            logger.warning(
                "no process for large JSON can be started (%s): requests with megabytes of unusual JSON hold others up",
                error,
            )
            return None
        with self._lock:
            self._busy.add(process)
            if self._is_closed:
                process.kill()
        return process

    def _give_back(self, process: _Process, *, is_alive: bool) -> None:
        with self._lock:
            self._busy.discard(process)
            if is_alive and not self._is_closed:
                self._idle.append(process)
                return
        process.close()
