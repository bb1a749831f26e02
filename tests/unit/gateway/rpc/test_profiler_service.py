"""ProfilerService: whom it traces, for how long, where the traces go, and what ends them."""

import asyncio
import pathlib
import time
from collections.abc import Sequence

import pytest

from tensorgate.gateway.dispatch.worker_client import WorkerTrace
from tensorgate.gateway.rpc.profiler_service import ProfilerService
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tsl.profiler.protobuf.profiler_service_pb2 import (
    MonitorRequest,
    ProfileRequest,
    ProfileResponse,
    TerminateRequest,
)
from tensorgate.protos.tsl.profiler.protobuf.xplane_pb2 import XPlane, XSpace


class TracedWorker:
    """Answers a trace when it is ended, or at once where its duration is 0."""

    def __init__(self, name: str, has_events: bool = True, error: ServingError | None = None) -> None:
        self.name = name
        self.has_events = has_events
        self.error = error
        self.durations_ms: list[int] = []
        self.tracing = asyncio.Event()
        self.ended = asyncio.Event()

    async def profile(self, duration_ms: int, timeout_s: float) -> WorkerTrace:
        assert timeout_s > duration_ms / 1e3
        self.durations_ms.append(duration_ms)
        self.tracing.set()
        if self.error is not None:
            raise self.error
        if duration_ms:
            await asyncio.wait_for(self.ended.wait(), 30)
        return WorkerTrace(XSpace(planes=[XPlane(name=self.name)]).SerializeToString(), self.has_events)

    async def end_profile(self, timeout_s: float) -> None:
        self.ended.set()


def asked(root: pathlib.Path | str, duration_ms: int = 0, **fields: object) -> bytes:
    request = ProfileRequest(repository_root=str(root), session_id="run", host_name="host:8500", **fields)
    request.opts.duration_ms = duration_ms
    return request.SerializeToString()


def refusal(workers: Sequence[TracedWorker], request: bytes) -> ServingError:
    with pytest.raises(ServingError) as caught:
        asyncio.run(ProfilerService(lambda: workers).profile(request))
    return caught.value


def test_a_trace_of_one_worker_is_where_upstream_puts_it(tmp_path: pathlib.Path) -> None:
    service = ProfilerService(lambda: [TracedWorker("worker-0")])
    response = ProfileResponse.FromString(asyncio.run(service.profile(asked(tmp_path))))
    assert response == ProfileResponse(empty_trace=False)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["host_8500.xplane.pb"]
    space = XSpace.FromString((tmp_path / "run" / "host_8500.xplane.pb").read_bytes())
    assert [plane.name for plane in space.planes] == ["worker-0"]


def test_several_workers_are_traced_at_the_same_time_and_told_apart(tmp_path: pathlib.Path) -> None:
    workers = [TracedWorker("worker-0", has_events=False), TracedWorker("worker-1", has_events=False)]

    async def run() -> bytes:
        service = ProfilerService(lambda: workers)
        profiling = asyncio.ensure_future(service.profile(asked(tmp_path, 1000)))
        for worker in workers:
            await asyncio.wait_for(worker.tracing.wait(), 30)
        for worker in workers:
            worker.ended.set()
        return await profiling

    assert ProfileResponse.FromString(asyncio.run(run())).empty_trace
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["host_8500_worker-0.xplane.pb", "host_8500_worker-1.xplane.pb"]
    assert [worker.durations_ms for worker in workers] == [[1000], [1000]]


def test_a_trace_may_come_with_the_response() -> None:
    workers = [TracedWorker("worker-0"), TracedWorker("worker-1")]
    request = asked("", emit_xspace=True)
    response = ProfileResponse.FromString(asyncio.run(ProfilerService(lambda: workers).profile(request)))
    assert [plane.name for plane in response.xspace.planes] == ["worker-0", "worker-1"]


def test_terminate_ends_the_trace_of_its_session_only(tmp_path: pathlib.Path) -> None:
    worker = TracedWorker("worker-0")

    async def run() -> None:
        service = ProfilerService(lambda: [worker])
        profiling = asyncio.ensure_future(service.profile(asked(tmp_path, 60_000)))
        await asyncio.wait_for(worker.tracing.wait(), 30)
        service.terminate(TerminateRequest(session_id="another").SerializeToString())
        await asyncio.sleep(0)
        assert not worker.ended.is_set()
        service.terminate(TerminateRequest(session_id="run").SerializeToString())
        await asyncio.wait_for(profiling, 30)

    asyncio.run(run())
    assert (tmp_path / "run" / "host_8500.xplane.pb").exists()


def test_a_session_that_is_terminated_before_its_start_is_not_traced_for_long(tmp_path: pathlib.Path) -> None:
    worker = TracedWorker("worker-0")

    async def run() -> None:
        service = ProfilerService(lambda: [worker])
        request = ProfileRequest.FromString(asked(tmp_path, 60_000))
        request.opts.start_timestamp_ns = time.time_ns() + 50 * 10**9
        profiling = asyncio.ensure_future(service.profile(request.SerializeToString()))
        await asyncio.sleep(0)
        assert not worker.tracing.is_set()
        service.terminate(TerminateRequest(session_id="run").SerializeToString())
        await asyncio.wait_for(profiling, 30)

    asyncio.run(run())
    assert worker.durations_ms == [0]


def test_a_client_that_goes_away_ends_the_trace_and_another_may_follow(tmp_path: pathlib.Path) -> None:
    worker = TracedWorker("worker-0")

    async def run() -> None:
        service = ProfilerService(lambda: [worker])
        profiling = asyncio.ensure_future(service.profile(asked(tmp_path, 60_000)))
        await asyncio.wait_for(worker.tracing.wait(), 30)
        profiling.cancel()
        await asyncio.wait([profiling])
        await asyncio.wait_for(worker.ended.wait(), 30)
        await service.profile(asked(tmp_path))

    asyncio.run(run())
    assert worker.durations_ms == [60_000, 0]


def test_one_trace_at_a_time(tmp_path: pathlib.Path) -> None:
    worker = TracedWorker("worker-0")

    async def run() -> ServingError:
        service = ProfilerService(lambda: [worker])
        first = asyncio.ensure_future(service.profile(asked(tmp_path, 60_000)))
        await asyncio.wait_for(worker.tracing.wait(), 30)
        with pytest.raises(ServingError) as caught:
            await service.profile(asked(tmp_path))
        worker.ended.set()
        await first
        return caught.value

    error = asyncio.run(run())
    assert (error.code, error.message) == (Code.INTERNAL, "Another profiling session active.")


def test_a_worker_that_fails_fails_the_trace_and_ends_the_others(tmp_path: pathlib.Path) -> None:
    workers = [TracedWorker("worker-0"), TracedWorker("worker-1", error=ServingError(Code.UNAVAILABLE, "it died"))]
    error = refusal(workers, asked(tmp_path, 60_000))
    assert (error.code, error.message) == (Code.INTERNAL, "it died")


@pytest.mark.parametrize(
    ("request_bytes", "code", "text"),
    [
        (asked("/t", 60_001), Code.INVALID_ARGUMENT, "opts.duration_ms is 60001; at most 60000 are traced"),
        (asked(""), Code.INVALID_ARGUMENT, "repository_root is empty: it says where the trace is to be written"),
        (asked("/proc/no"), Code.INTERNAL, "the trace could not be written to /proc/no/run/host_8500.xplane.pb: "),
        (asked("/t\0"), Code.INTERNAL, "the trace could not be written to "),
        (b"\xff", Code.INTERNAL, ""),
    ],
)
def test_what_cannot_be_traced_is_refused(request_bytes: bytes, code: Code, text: str) -> None:
    error = refusal([TracedWorker("worker-0")], request_bytes)
    assert error.code == code
    assert error.message.startswith(text)


def test_a_start_that_is_far_off_is_refused() -> None:
    request = ProfileRequest(repository_root="/t")
    request.opts.start_timestamp_ns = time.time_ns() + 3600 * 10**9
    assert refusal([TracedWorker("worker-0")], request.SerializeToString()).code == Code.INVALID_ARGUMENT


def test_without_workers_there_is_nothing_to_trace() -> None:
    assert refusal([], asked("/t")).code == Code.UNAVAILABLE


def test_monitor_is_not_implemented_as_upstream() -> None:
    with pytest.raises(ServingError) as caught:
        ProfilerService(list).monitor(MonitorRequest().SerializeToString())
    assert (caught.value.code, caught.value.message) == (Code.UNIMPLEMENTED, "unimplemented.")
