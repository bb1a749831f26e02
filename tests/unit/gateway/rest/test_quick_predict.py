"""The quick way of a predict: the answers of the long one, and what is left to that."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tensorgate.gateway.dispatch.call import Cancellable
from tensorgate.gateway.monitoring.traces import Traces
from tensorgate.gateway.rest.app import RestApp
from tensorgate.gateway.rest.handlers import OFFLOAD_BYTES, Handlers
from tensorgate.gateway.rest.http_messages import Answer, RequestHead
from tensorgate.gateway.rest.quick_predict import QuickPredict
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow_serving.apis import predict_pb2
from tests.fakes.fake_dispatcher import FakeDispatcher, make_signature, make_signatures

PATH = b"/v1/models/m:predict"
FLOATS = make_signature({"x": types_pb2.DT_FLOAT})


def echo(request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
    response = predict_pb2.PredictResponse()
    response.outputs["y"].CopyFrom(request.inputs["x"])
    return response


@pytest.fixture
def dispatcher() -> FakeDispatcher:
    made = FakeDispatcher(echo)
    made.add("m", 1, make_signatures(serving_default=FLOATS, none=make_signature({})))
    return made


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


def make_app(
    dispatcher: FakeDispatcher,
    executor: ThreadPoolExecutor,
    *,
    enable_cors: bool = False,
    traces: Traces | None = None,
) -> RestApp:
    app = RestApp(
        Handlers(dispatcher, None, executor, None, None, 1 << 20),  # type: ignore[arg-type]  # no status is asked for, and nothing large sent
        enable_cors=enable_cors,
        max_body_bytes=1 << 30,
        quick_predict=partial(QuickPredict, dispatcher, executor, None),
        traces=traces,
    )
    app.set_ready(True)
    return app


@pytest.fixture
def app(dispatcher: FakeDispatcher, executor: ThreadPoolExecutor) -> RestApp:
    return make_app(dispatcher, executor)


def begin(app: RestApp, head: RequestHead, body: bytes) -> "tuple[Cancellable | None, asyncio.Future[Answer]]":
    answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    begun = app.quick(head)
    return None if begun is None else begun(body, answered.set_result), answered


async def quick_answer(app: RestApp, head: RequestHead, body: bytes) -> Answer | None:
    call, answered = begin(app, head, body)
    return None if call is None else await asyncio.wait_for(answered, 10)


async def long_answer(app: RestApp, head: RequestHead, body: bytes) -> Answer:
    begun = app.begin(head)
    return begun if isinstance(begun, Answer) else await begun([body])


def head_of(path: bytes = PATH, *headers: tuple[bytes, bytes]) -> RequestHead:
    head = RequestHead("POST", path)
    for name, value in headers:
        head.add_header(name, value)
    return head


GZIP = (b"accept-encoding", b"gzip")


@pytest.mark.parametrize("enable_cors", [False, True])
@pytest.mark.parametrize(
    ("head", "body"),
    [
        (head_of(), b'{"instances": [1.5, 2]}'),
        (head_of(), b'{"inputs": [[1], [2]], "signature_name": "serving_default"}'),
        (head_of(b"/v1/models/m/versions/1:predict"), b'{"instances": [1]}'),
        (head_of(PATH, GZIP), b'{"instances": [1]}'),
        (head_of(PATH, GZIP), b'{"instances": [' + b"1," * 5000 + b"1]}"),
        # An answer that is written in the pool.
        (head_of(), b'{"inputs": [' + b"1," * (OFFLOAD_BYTES // 3) + b"1]}"),
        (head_of(), b'{"inputs": 1}'),
    ],
)
def test_the_answer_is_that_of_the_long_way(
    dispatcher: FakeDispatcher, executor: ThreadPoolExecutor, head: RequestHead, body: bytes, *, enable_cors: bool
) -> None:
    async def scenario() -> None:
        app = make_app(dispatcher, executor, enable_cors=enable_cors)
        answer = await quick_answer(app, head, body)
        assert answer is not None
        assert answer == await long_answer(app, head, body)
        assert answer.status == 200
        quick, long = dispatcher.submitted
        assert quick.payload == long.payload
        assert dispatcher.num_pins("m", 1) == 0

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (head_of(), b'{"instances": [1'),
        (head_of(), b'{"instances": [null]}'),
        (head_of(), b'{"instances": ["text"]}'),
        (head_of(), b'{"instances": [1], "signature_name": "other"}'),
        (head_of(), b'{"instances": [1], "signature_name": "none"}'),
        (head_of(), b'{"instances": [1], "signature_name": "\\ud800"}'),
        (head_of(), b'{"instances": [' + b"1," * OFFLOAD_BYTES + b"1]}"),
        (head_of(b"/v1/models/n:predict"), b'{"instances": [1]}'),
        (head_of(b"/v1/models/%ff:predict"), b'{"instances": [1]}'),
        (head_of(b"/v1/models/m/labels/none:predict"), b'{"instances": [1]}'),
        (head_of(b"/v1/models/m:classify"), b'{"examples": [{}]}'),
        (head_of(b"/v1/models/m:PREDICT"), b'{"instances": [1]}'),
        (head_of(b"/v1/models/m"), b""),
        (head_of(b"/readyz"), b""),
        (head_of(PATH, (b"content-type", b"application/x-protobuf")), b""),
        (head_of(PATH, (b"content-encoding", b"gzip")), b'{"instances": [1]}'),
    ],
)
def test_whatever_is_unusual_is_left_to_the_long_way(
    app: RestApp, dispatcher: FakeDispatcher, head: RequestHead, body: bytes
) -> None:
    assert asyncio.run(quick_answer(app, head, body)) is None
    assert not dispatcher.submitted
    assert dispatcher.num_pins("m", 1) == 0


def test_while_the_server_loads_or_ends_there_is_no_quick_way(app: RestApp) -> None:
    body = b'{"instances": [1]}'
    app.set_ready(False)
    assert asyncio.run(quick_answer(app, head_of(), body)) is None
    app.set_ready(True)
    assert asyncio.run(quick_answer(app, head_of(), body)) is not None
    app.begin_shutdown()
    assert asyncio.run(quick_answer(app, head_of(), body)) is None


def test_an_error_of_the_run_is_answered_as_ever(app: RestApp, dispatcher: FakeDispatcher) -> None:
    def fail(_request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        raise ServingError(Code.RESOURCE_EXHAUSTED, "too much")

    dispatcher.answer = fail

    async def scenario() -> None:
        body = b'{"instances": [1]}'
        answer = await quick_answer(app, head_of(), body)
        assert answer == await long_answer(app, head_of(), body)
        assert answer is not None
        assert answer.status == 429

    asyncio.run(scenario())


def test_a_cancelled_request_is_answered_once_and_its_worker_told(app: RestApp, dispatcher: FakeDispatcher) -> None:
    dispatcher.answer = None

    async def scenario() -> None:
        call, answered = begin(app, head_of(), b'{"instances": [1]}')
        assert call is not None
        call.cancel()
        call.cancel()
        answer = await asyncio.wait_for(answered, 10)
        assert answer.status == 503
        assert b"The server is shutting down." in answer.body
        await asyncio.sleep(0)
        [submitted] = dispatcher.submitted
        assert submitted.cancelled

    asyncio.run(scenario())


def test_each_versions_own_signature_counts(app: RestApp, dispatcher: FakeDispatcher) -> None:
    async def scenario() -> None:
        begun = app.quick(head_of())
        assert begun is not None

        async def ask() -> None:
            answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            assert begun(b'{"instances": [1]}', answered.set_result) is not None
            await asyncio.wait_for(answered, 10)

        await ask()
        dispatcher.add("m", 2, make_signatures(serving_default=make_signature({"x": types_pb2.DT_INT64})))
        await ask()
        dtypes = [submitted.request.inputs["x"].dtype for submitted in dispatcher.submitted]
        assert dtypes == [types_pb2.DT_FLOAT, types_pb2.DT_INT64]

    asyncio.run(scenario())


TRACEPARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_the_traceparent_goes_along_either_way(dispatcher: FakeDispatcher, app: RestApp) -> None:
    async def scenario() -> None:
        head = head_of(PATH, (b"Traceparent", TRACEPARENT))
        assert await quick_answer(app, head, b'{"instances": [1]}') == await long_answer(
            app, head, b'{"instances": [1]}'
        )
        assert [each.metadata.traceparent for each in dispatcher.submitted] == [TRACEPARENT] * 2

    asyncio.run(scenario())


def test_what_is_traced_goes_the_long_way_as_part_of_a_span(
    dispatcher: FakeDispatcher, executor: ThreadPoolExecutor
) -> None:
    pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed: the extra tracing brings it")
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    traces = Traces(exporter)
    app = make_app(dispatcher, executor, traces=traces)

    async def scenario() -> None:
        assert app.quick(head_of()) is not None
        head = head_of(PATH, (b"traceparent", TRACEPARENT))
        assert app.quick(head) is None
        assert (await long_answer(app, head, b'{"instances": [1]}')).status == 200

    asyncio.run(scenario())
    traces.close()
    (span,) = exporter.get_finished_spans()
    (submitted,) = dispatcher.submitted
    assert submitted.metadata.traceparent.split(b"-")[1:3] == [
        TRACEPARENT.split(b"-")[1],
        b"%016x" % span.context.span_id,
    ]
