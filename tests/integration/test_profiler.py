"""Traces of a running server: of every worker, one at a time, beside requests; and none where the flag says no."""

import concurrent.futures
import pathlib
from collections.abc import Callable

import grpc
import pytest

from tensorgate.protos.tsl.profiler.protobuf.profiler_service_pb2 import (
    ProfileRequest,
    ProfileResponse,
    TerminateRequest,
)
from tensorgate.protos.tsl.profiler.protobuf.profiler_service_pb2_grpc import ProfilerServiceStub
from tests.harness.model_server import ModelServer, StartServer, floats, predict_request, wait_until


def asked(duration_ms: int, session_id: str = "run") -> ProfileRequest:
    request = ProfileRequest(session_id=session_id, emit_xspace=True)
    request.opts.duration_ms = duration_ms
    return request


def event_names(response: ProfileResponse) -> set[str]:
    return {event.name for plane in response.xspace.planes for event in plane.event_metadata.values()}


def is_busy(error: grpc.RpcError) -> bool:
    return (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "Another profiling session active.")


def predict_until(server: ModelServer, is_done: Callable[[], bool]) -> None:
    while not is_done():
        response = server.prediction.Predict(predict_request("half_plus_two", x=floats(2.0)), timeout=30)
        assert list(response.outputs["y"].float_val) == [3.0]


def test_every_worker_is_traced_while_it_serves_and_one_trace_at_a_time(
    start_server: StartServer, model_kinds: pathlib.Path
) -> None:
    server = start_server(
        "--model_name=half_plus_two", f"--model_base_path={model_kinds / 'half_plus_two'}", "--num_workers=2"
    )
    workers = server.live_workers
    stub = ProfilerServiceStub(server.channel)

    def trace() -> ProfileResponse:
        """The long trace, which may come while a short one is being taken."""
        while True:
            try:
                return stub.Profile(asked(60_000), timeout=180)
            except grpc.RpcError as error:
                if not is_busy(error):
                    raise

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        tracing = pool.submit(trace)

        def second_is_refused() -> bool:
            try:
                stub.Profile(asked(0, "second"), timeout=120)
            except grpc.RpcError as error:
                if not is_busy(error):
                    raise
                return True
            return False

        wait_until(second_is_refused, "a trace is being taken")

        def terminate() -> bool:
            stub.Terminate(TerminateRequest(session_id="run"), timeout=30)
            return tracing.done()

        for _ in range(50):
            predict_until(server, iter([False, True]).__next__)
        wait_until(terminate, "the trace has been ended")
        response = tracing.result()
    assert not response.empty_trace
    assert len([plane for plane in response.xspace.planes if plane.name == "/host:CPU"]) == 2
    assert server.live_workers == workers
    # What follows another trace is a trace as any.
    again = stub.Profile(asked(0, "again"), timeout=120)
    assert len(again.xspace.planes) >= 2


def test_a_trace_holds_the_runs_of_models(start_server: StartServer, model_kinds: pathlib.Path) -> None:
    server = start_server("--model_name=half_plus_two", f"--model_base_path={model_kinds / 'half_plus_two'}")
    stub = ProfilerServiceStub(server.channel)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        tracing = pool.submit(stub.Profile, asked(1000), timeout=120)
        predict_until(server, tracing.done)
    assert "SessionRun" in event_names(tracing.result())


def test_without_the_flag_there_is_no_profiler(start_server: StartServer, model_kinds: pathlib.Path) -> None:
    server = start_server(
        "--model_name=half_plus_two", f"--model_base_path={model_kinds / 'half_plus_two'}", "--enable_profiler=false"
    )
    with pytest.raises(grpc.RpcError) as caught:
        ProfilerServiceStub(server.channel).Profile(asked(0), timeout=30)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
