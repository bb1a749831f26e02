"""tensorflow.ProfilerService: a client has the server traced while it runs, and the trace put into a file.

On the control plane; called by the gRPC edge on the edge loop. The traces are taken in the workers, where TensorFlow
is, all at the same time; here they are asked for and written.

Source: xla/tsl/profiler/rpc/profiler_service_impl.cc, client/save_profile.cc (the files' names).
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from google.protobuf.message import DecodeError, Message

from tensorgate.gateway.dispatch.worker_client import WorkerTrace
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tsl.profiler.protobuf.profiler_options_pb2 import ProfileOptions
from tensorgate.protos.tsl.profiler.protobuf.profiler_service_pb2 import (
    MonitorRequest,
    ProfileRequest,
    ProfileResponse,
    TerminateRequest,
    TerminateResponse,
)

logger = logging.getLogger("tensorgate.profiler")

# A trace grows with every op that runs: of a busy server by tens of megabytes a second.
MAX_DURATION_MS = 60_000
# A start that clients agree upon, so that several servers are traced at the same time, is not far off.
MAX_DELAY_S = 60.0
# What a worker gets beyond the trace's duration, to collect it.
COLLECT_TIMEOUT_S = 120.0
END_TIMEOUT_S = 10.0

_Message = TypeVar("_Message", bound=Message)


class TracedWorker(Protocol):
    """What is needed of a WorkerClient."""

    @property
    def name(self) -> str: ...

    async def profile(self, duration_ms: int, timeout_s: float) -> WorkerTrace: ...

    async def end_profile(self, timeout_s: float) -> None: ...


class ProfilerService:
    """Serialized requests to serialized responses; one trace at a time. ``workers``: those that are up."""

    def __init__(self, workers: Callable[[], Sequence[TracedWorker]]) -> None:
        self._workers = workers
        self._session_id: str | None = None
        self._terminated = asyncio.Event()
        self._ending: set[asyncio.Task[None]] = set()

    async def profile(self, request: bytes) -> bytes:
        """Takes a trace of every worker and writes it, or answers with it, as the request says.

        Raises ServingError: INVALID_ARGUMENT for a duration or a delay of more than a minute, UNAVAILABLE without
        workers, else as upstream INTERNAL, with the text of what went wrong. Cancelled, it ends the traces.
        """
        asked = _parsed(ProfileRequest, request)
        _check(asked)
        workers = list(self._workers())
        if not workers:
            raise ServingError(Code.UNAVAILABLE, "no worker is up that could be traced")
        if self._session_id is not None:
            raise ServingError(Code.INTERNAL, "Another profiling session active.")
        self._session_id = asked.session_id
        self._terminated.clear()
        try:
            traces = await self._traces(workers, asked.opts)
        finally:
            self._session_id = None
        # Writing may take a while.
        return await asyncio.to_thread(_respond, asked, traces)

    def terminate(self, request: bytes) -> bytes:
        """Ends the trace of that session before its time, if it is being taken; its client gets what there is."""
        if _parsed(TerminateRequest, request).session_id == self._session_id:
            self._terminated.set()
            self._end()
        return TerminateResponse().SerializeToString()

    def monitor(self, request: bytes) -> bytes:
        """As upstream: raises ServingError UNIMPLEMENTED."""
        _parsed(MonitorRequest, request)
        raise ServingError(Code.UNIMPLEMENTED, "unimplemented.")

    async def _traces(self, workers: Sequence[TracedWorker], options: ProfileOptions) -> Mapping[str, WorkerTrace]:
        """By worker's name. Raises ServingError of the first worker that has none."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._terminated.wait(), _delay_s(options))
        duration_ms = 0 if self._terminated.is_set() else options.duration_ms
        timeout_s = duration_ms / 1e3 + COLLECT_TIMEOUT_S
        tracing = [asyncio.ensure_future(worker.profile(duration_ms, timeout_s)) for worker in workers]
        try:
            traces = await asyncio.gather(*tracing)
        except BaseException as error:
            self._end()
            for each in tracing:
                each.cancel()
            if isinstance(error, ServingError):
                raise ServingError(Code.INTERNAL, error.message) from error
            raise
        return {worker.name: trace for worker, trace in zip(workers, traces, strict=True)}

    def _end(self) -> None:
        for worker in self._workers():
            task = asyncio.get_running_loop().create_task(_end_trace(worker))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)


async def _end_trace(worker: TracedWorker) -> None:
    try:
        await worker.end_profile(END_TIMEOUT_S)
    except ServingError as error:
        logger.warning("the trace of %s could not be ended: %s", worker.name, error.message)


def _check(request: ProfileRequest) -> None:
    if request.opts.duration_ms > MAX_DURATION_MS:
        raise ServingError(
            Code.INVALID_ARGUMENT,
            f"opts.duration_ms is {request.opts.duration_ms}; at most {MAX_DURATION_MS} are traced",
        )
    if _delay_s(request.opts) > MAX_DELAY_S:
        raise ServingError(
            Code.INVALID_ARGUMENT, f"opts.start_timestamp_ns is more than {MAX_DELAY_S:g} s ahead of the server's clock"
        )
    if not (request.repository_root or request.emit_xspace):
        raise ServingError(Code.INVALID_ARGUMENT, "repository_root is empty: it says where the trace is to be written")


def _delay_s(options: ProfileOptions) -> float:
    return max(0.0, options.start_timestamp_ns / 1e9 - time.time()) if options.start_timestamp_ns else 0.0


def _respond(request: ProfileRequest, traces: Mapping[str, WorkerTrace]) -> bytes:
    """Writes the traces, or takes them into the response; blocks. Raises ServingError INTERNAL."""
    response = ProfileResponse(empty_trace=not any(trace.has_events for trace in traces.values()))
    host = request.opts.override_hostname or request.host_name
    for name, trace in traces.items():
        if request.emit_xspace:
            response.xspace.MergeFromString(trace.xspace)
            continue
        # One worker's file is upstream's; several are as several hosts, to whoever reads the traces.
        whose = host if len(traces) == 1 else f"{host}_{name}"
        folder = os.path.join(request.repository_root, request.session_id)
        _write(folder, f"{whose}.xplane.pb".replace(":", "_"), trace.xspace)
    return response.SerializeToString()


def _write(folder: str, name: str, trace: bytes) -> None:
    path = os.path.join(folder, name)
    try:
        os.makedirs(folder, exist_ok=True)
        with open(path, "wb") as file:
            file.write(trace)
    except (OSError, ValueError) as error:
        raise ServingError(Code.INTERNAL, f"the trace could not be written to {path}: {error}") from error
    logger.info("a trace of %d bytes is in %s", len(trace), path)


def _parsed(kind: type[_Message], request: bytes) -> _Message:
    try:
        return kind.FromString(request)
    except DecodeError as error:
        raise ServingError(Code.INTERNAL, "") from error
