"""Both gRPC edges over real connections, in front of a dispatcher whose worker the test plays: they behave alike."""

import asyncio
import pathlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest
import zmq

from tensorgate._native import nghttp2_api
from tensorgate._native.data_plane import DataPlane
from tensorgate._native.shared_library import LibraryError
from tensorgate.gateway.core.clock import SystemClock
from tensorgate.gateway.core.event_bus import EventBus
from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.servable_state import ManagerState, ServableState
from tensorgate.gateway.core.servable_state_monitor import ServableStateMonitor
from tensorgate.gateway.dispatch.call import Method
from tensorgate.gateway.dispatch.dispatcher import Dispatcher
from tensorgate.gateway.dispatch.route_table import RouteTable
from tensorgate.gateway.dispatch.worker import Replica
from tensorgate.gateway.monitoring.readiness import Readiness, ReadinessPolicy
from tensorgate.gateway.rpc.edge import make_grpc_edge
from tensorgate.gateway.rpc.grpc_options import GrpcOptions
from tensorgate.gateway.rpc.health import HealthService
from tensorgate.gateway.rpc.incoming_call import UNEXPECTED_TEXT, IncomingCall
from tensorgate.gateway.rpc.model_service import ModelService
from tensorgate.gateway.rpc.prediction_service import PredictionService
from tensorgate.gateway.rpc.reflection import ReflectionService
from tensorgate.gateway.rpc.services import make_handlers
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.apis.get_model_status_pb2 import (
    GetModelStatusRequest,
    GetModelStatusResponse,
)
from tensorgate.protos.tensorflow_serving.apis.inference_pb2 import InferenceTask, MultiInferenceRequest
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictRequest
from tests.fakes.recording_worker import RecordingWorker
from tests.fakes.scripted_reloader import ScriptedReloader
from tests.harness.model_server import wait_until

PREDICT = "/tensorflow.serving.PredictionService/Predict"
MULTI_INFERENCE = "/tensorflow.serving.PredictionService/MultiInference"
METHOD_NUMBERS = {
    PREDICT: Method.PREDICT,
    "/tensorflow.serving.PredictionService/Classify": Method.CLASSIFY,
    "/tensorflow.serving.PredictionService/Regress": Method.REGRESS,
    MULTI_INFERENCE: Method.MULTI_INFERENCE,
    "/tensorflow.serving.SessionService/SessionRun": Method.SESSION_RUN,
}
GET_MODEL_STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
CHAT = "/test.Service/Chat"
WATCH = "/test.Service/Watch"


@pytest.fixture(params=["native", "grpcio"], autouse=True)
def edge_name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs with each of the edges."""
    if request.param == "native":
        try:
            nghttp2_api.load_library()
        except LibraryError as error:
            pytest.skip(f"the native gRPC edge cannot run here: {error}")
    monkeypatch.setattr(Served, "edge_name", request.param)


class Worker(RecordingWorker):
    """Replies to a request when the test says so, or at once with ``answer``; while ``serve`` runs."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", folder: pathlib.Path) -> None:
        super().__init__(context, folder)
        self.answer: bytes | ServingError | None = b"answer"
        self.arrived = asyncio.Event()
        self.was_cancelled = asyncio.Event()

    async def serve(self) -> None:
        num_seen = 0
        while True:
            self.poll(0)
            while num_seen < len(self.handed):
                self.arrived.set()
                if isinstance(self.answer, ServingError):
                    self.reply_to(num_seen, b"", self.answer.code, self.answer.message.encode())
                elif self.answer is not None:
                    self.reply_to(num_seen, self.answer)
                num_seen += 1
            if self.cancelled:
                self.was_cancelled.set()
            await asyncio.sleep(0.001)


class Hosted:
    """A Hosting on one worker."""

    signature_def_map = b""

    def __init__(self, worker: Worker) -> None:
        self.replicas = [Replica(worker, 7)]

    def watch_replicas(self, on_change: Callable[[], None] | None) -> None:
        """They never change."""


class Served:
    """A listening edge with model ``m`` version 1, and a channel to it."""

    edge_name = "native"

    def __init__(self, options: GrpcOptions) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.worker = Worker(self.context, pathlib.Path(self.folder.name))
        self.serving = asyncio.ensure_future(self.worker.serve())
        data_plane = DataPlane()
        data_plane.start()
        table = RouteTable(data_plane)
        table.publish(ServableId("m", 1), Hosted(self.worker))
        clock = SystemClock()
        self.dispatcher = Dispatcher(table, data_plane)
        self.dispatcher.add_worker(self.worker)
        bus: EventBus[ServableState] = EventBus()
        monitor = ServableStateMonitor(bus)
        bus.publish(ServableState(ServableId("m", 1), ManagerState.AVAILABLE, None, 1))
        prediction_service = PredictionService(self.dispatcher)
        self.readiness = Readiness(
            ReadinessPolicy(), lambda: ["m"], lambda name: table.snapshot.versions.get(name, {}).values(), str
        )
        bus.subscribe(self.readiness.take)
        self.readiness.set_started()
        handlers = make_handlers(
            prediction_service,
            ModelService(monitor, ScriptedReloader(), lambda _name: 0),
            HealthService(self.readiness),
            ReflectionService(lambda: self.readiness.is_ending),
        )
        self.calls: list[IncomingCall] = []
        self.has_ended = asyncio.Event()
        handlers[CHAT] = self._chat
        handlers[WATCH] = self._watch
        self.edge = make_grpc_edge(self.edge_name, options, data_plane, prediction_service, handlers, clock)

    async def _chat(self, call: IncomingCall) -> None:
        """Answers each message before the next one has come."""
        self.calls.append(call)
        while (message := await call.read()) is not None:
            if message == b"fail":
                raise ServingError(Code.ABORTED, "as you wish: ü")
            if message == b"break":
                raise RuntimeError("a fault in a handler")
            await call.write(b"you said " + message)

    async def _watch(self, call: IncomingCall) -> None:
        """Sends megabytes for as long as anybody takes them."""
        try:
            assert await call.read() == b"watch"
            while True:
                await call.write(bytes(1_000_000))
                self.calls.append(call)
        finally:
            self.has_ended.set()

    async def close(self) -> None:
        await self.edge.stop(5.0)
        self.dispatcher.close()
        self.serving.cancel()
        await asyncio.wait({self.serving})
        self.worker.close()
        self.context.term()
        self.folder.cleanup()

    async def ask(
        self,
        request: bytes,
        method: str = PREDICT,
        timeout: float | None = 20.0,
        metadata: tuple[tuple[str, str], ...] = (),
        target: str = "",
    ) -> bytes:
        limits = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        async with grpc.aio.insecure_channel(target or f"127.0.0.1:{self.edge.port}", options=limits) as channel:
            return bytes(await channel.unary_unary(method)(request, timeout=timeout, metadata=metadata))

    async def error_of(self, request: bytes, method: str = PREDICT, timeout: float = 20.0) -> tuple[object, str]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.ask(request, method, timeout)
        return caught.value.code(), caught.value.details()


@asynccontextmanager
async def serving(options: GrpcOptions | None = None) -> AsyncIterator[Served]:
    served = Served(options if options is not None else GrpcOptions(port=0, host="127.0.0.1"))
    await served.edge.start()
    try:
        yield served
    finally:
        await served.close()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(scenario(), 60)

    asyncio.run(limited())


def predict_request(name: str = "m", label: str | None = None) -> bytes:
    request = PredictRequest()
    request.model_spec.name = name
    if label is not None:
        request.model_spec.version_label = label
    request.inputs["x"].tensor_content = b"content"
    return request.SerializeToString()


def test_request_bytes_reach_the_worker_unchanged_and_reply_bytes_the_client() -> None:
    async def scenario() -> None:
        async with serving() as served:
            request = predict_request()
            assert await served.ask(request) == b"answer"
            (handed,) = served.worker.handed
            assert (handed.payload, handed.method, handed.traceparent) == (request, 1, b"")
            assert 0 < handed.remaining_deadline_us < 21_000_000  # grpcio rounds up

    run(scenario)


@pytest.mark.parametrize(("path", "number"), METHOD_NUMBERS.items())
def test_every_method_of_the_data_plane_reaches_the_worker_under_its_own_number(path: str, number: int) -> None:
    async def scenario() -> None:
        async with serving() as served:
            if number == Method.MULTI_INFERENCE:
                # The first task's model counts, and may stand behind the input.
                tasks = [InferenceTask(model_spec={"name": "m"}), InferenceTask(model_spec={"name": "other"})]
                request = b"\x12\x00" + MultiInferenceRequest(tasks=tasks).SerializeToString()
            else:
                request = predict_request()
            assert await served.ask(request, path) == b"answer"
            (handed,) = served.worker.handed
            assert (handed.payload, handed.method) == (request, number)

    run(scenario)


def test_a_task_of_a_model_that_is_not_there_is_not_found() -> None:
    async def scenario() -> None:
        async with serving() as served:
            request = MultiInferenceRequest(tasks=[InferenceTask(model_spec={"name": "absent"})])
            assert await served.error_of(request.SerializeToString(), MULTI_INFERENCE) == (
                grpc.StatusCode.NOT_FOUND,
                "Servable not found for request: Latest(absent)",
            )
            assert await served.error_of(b"\x0a\x7f", MULTI_INFERENCE) == (grpc.StatusCode.INTERNAL, "")

    run(scenario)


def test_without_a_deadline_the_worker_is_told_so() -> None:
    async def scenario() -> None:
        async with serving() as served:
            await served.ask(predict_request(), timeout=None)
            assert served.worker.handed[0].remaining_deadline_us == -1

    run(scenario)


def test_a_reply_that_lies_in_a_frame_arrives_whole() -> None:
    async def scenario() -> None:
        async with serving() as served:
            served.worker.answer = bytes(range(256)) * 40_000
            assert await served.ask(predict_request()) == bytes(range(256)) * 40_000

    run(scenario)


def test_a_trace_travels_to_the_worker() -> None:
    async def scenario() -> None:
        async with serving() as served:
            await served.ask(predict_request(), metadata=(("x-other", "1"), ("traceparent", "00-abc-def-01")))
            assert served.worker.handed[0].traceparent == b"00-abc-def-01"

    run(scenario)


@pytest.mark.parametrize(
    ("request_bytes", "code", "details"),
    [
        (predict_request("absent"), "NOT_FOUND", "Servable not found for request: Latest(absent)"),
        (predict_request(""), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        (predict_request(label="x"), "INVALID_ARGUMENT", "Unrecognized servable version label: x"),
        (b"", "INVALID_ARGUMENT", "Missing ModelSpec"),
        (b"\x0a\x7f", "INTERNAL", ""),
    ],
    ids=["no model", "no name", "no label", "no spec", "garbage"],
)
def test_requests_that_lead_nowhere_end_with_upstreams_code_and_text(
    request_bytes: bytes, code: str, details: str
) -> None:
    async def scenario() -> None:
        async with serving() as served:
            assert await served.error_of(request_bytes) == (grpc.StatusCode[code], details)
            assert await served.ask(predict_request()) == b"answer"

    run(scenario)


def test_a_workers_error_arrives_with_its_code_and_a_long_text_cut() -> None:
    async def scenario() -> None:
        async with serving() as served:
            served.worker.answer = ServingError(Code.FAILED_PRECONDITION, "ü" * 2000)
            assert await served.error_of(predict_request()) == (
                grpc.StatusCode.FAILED_PRECONDITION,
                "ü" * 512 + "...TRUNCATED",
            )

    run(scenario)


@pytest.mark.parametrize("method", ["/tensorflow.serving.PredictionService/NoSuchMethod", "/no.such.Service/Predict"])
def test_unknown_methods_and_services_are_unimplemented_without_a_text(method: str) -> None:
    async def scenario() -> None:
        async with serving() as served:
            assert await served.error_of(b"anything", method) == (grpc.StatusCode.UNIMPLEMENTED, "")

    run(scenario)


def test_get_model_status_is_served() -> None:
    async def scenario() -> None:
        async with serving() as served:
            request = GetModelStatusRequest(model_spec={"name": "m"})
            answer = await served.ask(request.SerializeToString(), GET_MODEL_STATUS)
            (status,) = GetModelStatusResponse.FromString(answer).model_version_status
            assert (status.version, status.state) == (1, 30)
            assert await served.error_of(b"", GET_MODEL_STATUS) == (
                grpc.StatusCode.INVALID_ARGUMENT,
                "Missing ModelSpec",
            )

    run(scenario)


@pytest.mark.leaks("a traceback that grpcio logs when its own deadline comes first keeps its server and thread")
def test_a_deadline_ends_the_call_while_the_worker_hangs_and_cancels_it_there() -> None:
    async def scenario() -> None:
        async with serving() as served:
            served.worker.answer = None
            code, _ = await served.error_of(predict_request(), timeout=0.3)
            assert code == grpc.StatusCode.DEADLINE_EXCEEDED
            await asyncio.wait_for(served.worker.was_cancelled.wait(), 10)
            served.worker.reply_to(0)
            await asyncio.to_thread(wait_until, lambda: served.dispatcher.counters.late_replies == 1, "a late reply")

    run(scenario)


def test_a_client_that_cancels_is_passed_on_to_the_worker() -> None:
    async def scenario() -> None:
        async with serving() as served:
            served.worker.answer = None
            asking = asyncio.ensure_future(served.ask(predict_request()))
            await asyncio.wait_for(served.worker.arrived.wait(), 10)
            asking.cancel()
            await asyncio.wait_for(served.worker.was_cancelled.wait(), 10)
            with pytest.raises(asyncio.CancelledError):
                await asking
            served.worker.reply_to(0)

    run(scenario)


def test_a_message_over_the_receive_limit_is_refused_and_the_next_one_served() -> None:
    async def scenario() -> None:
        options = GrpcOptions(port=0, host="127.0.0.1", max_receive_message_bytes=1000)
        async with serving(options) as served:
            code, _ = await served.error_of(predict_request() + bytes(2000))
            assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert await served.ask(predict_request()) == b"answer"

    run(scenario)


def test_channel_arguments_win_over_our_own() -> None:
    async def scenario() -> None:
        arguments = (("grpc.max_receive_message_length", 1000),)
        async with serving(GrpcOptions(port=0, host="127.0.0.1", channel_arguments=arguments)) as served:
            code, _ = await served.error_of(predict_request() + bytes(2000))
            assert code == grpc.StatusCode.RESOURCE_EXHAUSTED

    run(scenario)


def test_a_unix_socket_serves_beside_the_port_and_is_removed_at_the_end(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "grpc.sock"
        async with serving(GrpcOptions(port=0, host="127.0.0.1", socket_path=str(path))) as served:
            assert path.is_socket()
            assert await served.ask(predict_request(), target=f"unix:{path}") == b"answer"
            assert await served.ask(predict_request()) == b"answer"
        assert not path.exists()

    run(scenario)


def test_a_unix_socket_alone_is_enough(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "grpc.sock"
        async with serving(GrpcOptions(port=None, socket_path=str(path))) as served:
            assert served.edge.port is None
            assert await served.ask(predict_request(), target=f"unix:{path}") == b"answer"

    run(scenario)


def test_a_port_in_use_is_refused_by_name() -> None:
    async def scenario() -> None:
        async with serving() as served:
            second = Served(GrpcOptions(port=served.edge.port, host="127.0.0.1"))
            with pytest.raises(ServingError) as caught:
                await second.edge.start()
            assert caught.value.code == Code.UNAVAILABLE
            assert f"127.0.0.1:{served.edge.port}" in caught.value.message
            await second.close()

    run(scenario)


def test_stopping_lets_what_is_in_flight_finish() -> None:
    async def scenario() -> None:
        async with serving() as served:
            served.worker.answer = None
            asking = asyncio.ensure_future(served.ask(predict_request()))
            await asyncio.wait_for(served.worker.arrived.wait(), 10)
            stopping = asyncio.ensure_future(served.edge.stop(20.0))
            await asyncio.sleep(0)
            served.worker.reply_to(0, b"just in time")
            assert await asking == b"just in time"
            await stopping

    run(scenario)


def test_stopping_cancels_what_outlasts_the_grace() -> None:
    async def scenario() -> None:
        async with serving() as served:
            served.worker.answer = None
            asking = asyncio.ensure_future(served.error_of(predict_request()))
            await asyncio.wait_for(served.worker.arrived.wait(), 10)
            await served.edge.stop(0.1)
            code, _ = await asking
            assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
            await asyncio.wait_for(served.worker.was_cancelled.wait(), 10)

    run(scenario)


def test_a_handler_gets_metadata_and_deadline_and_answers_before_the_client_has_ended() -> None:
    async def scenario() -> None:
        async with serving() as served, grpc.aio.insecure_channel(f"127.0.0.1:{served.edge.port}") as channel:
            metadata = (("x-key", "value"), ("x-bytes-bin", b"\x00\xff"))
            call = channel.stream_stream(CHAT)(timeout=10, metadata=metadata)
            for message in (b"a", b"", b"c" * 100_000):
                await call.write(message)
                assert await call.read() == b"you said " + message
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
            assert await call.code() == grpc.StatusCode.OK
            (seen,) = served.calls
            assert set(metadata) <= {(key, value) for key, value in seen.metadata}
            assert seen.path == CHAT
            assert seen.deadline_s is not None
            assert 0 < seen.deadline_s - SystemClock().monotonic_s() < 11  # grpcio rounds up

    run(scenario)


@pytest.mark.leaks("the traceback in the captured log keeps grpcio's server and its thread")
def test_a_handlers_errors_reach_the_client(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with serving() as served:
            assert await served.error_of(b"fail", CHAT) == (grpc.StatusCode.ABORTED, "as you wish: ü")
            code, text = await served.error_of(b"break", CHAT)
            assert (code, text) == (grpc.StatusCode.INTERNAL, UNEXPECTED_TEXT)
            assert "a fault in a handler" in caplog.text
            assert await served.ask(predict_request()) == b"answer"

    run(scenario)


def test_a_handler_that_streams_waits_for_a_slow_client_and_ends_with_it() -> None:
    async def scenario() -> None:
        async with serving() as served, grpc.aio.insecure_channel(f"127.0.0.1:{served.edge.port}") as channel:
            call = channel.unary_stream(WATCH)(b"watch")
            assert await call.read() == bytes(1_000_000)
            # It has stopped by itself: the client reads no more.
            num_sent = -1
            while num_sent != len(served.calls):
                num_sent = len(served.calls)
                await asyncio.sleep(0.3)
            assert num_sent < 50
            call.cancel()
            await asyncio.wait_for(served.has_ended.wait(), 10)

    run(scenario)


def test_a_handler_whose_deadline_passes_is_cancelled() -> None:
    async def scenario() -> None:
        async with serving() as served, grpc.aio.insecure_channel(f"127.0.0.1:{served.edge.port}") as channel:
            call = channel.stream_stream(CHAT)(timeout=0.2)
            assert await call.code() == grpc.StatusCode.DEADLINE_EXCEEDED

    run(scenario)


def test_gzip_is_taken_and_given() -> None:
    async def scenario() -> None:
        arguments = (("grpc.default_compression_algorithm", 2),)
        async with serving(GrpcOptions(port=0, host="127.0.0.1", channel_arguments=arguments)) as served:
            served.worker.answer = b"answer" * 10_000
            target = f"127.0.0.1:{served.edge.port}"
            async with grpc.aio.insecure_channel(target, compression=grpc.Compression.Gzip) as channel:
                assert await channel.unary_unary(PREDICT)(predict_request()) == b"answer" * 10_000
            assert served.worker.handed[0].payload == predict_request()

    run(scenario)
