"""The application with a dispatcher that needs no worker: pages, verbs, errors, CORS, and whole requests."""

import asyncio
import contextlib
import gzip
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import pytest

from tensorgate._native.access_tokens import AccessTokens
from tensorgate.gateway.access_tokens import Access, parse_tokens
from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.servable_state import ManagerState, ServableState
from tensorgate.gateway.dispatch.call import Method
from tensorgate.gateway.monitoring.request_counts import RequestCounts
from tensorgate.gateway.rest.app import NOT_READY_TEXT, RestApp
from tensorgate.gateway.rest.exact_reader import ExactReader
from tensorgate.gateway.rest.handlers import INFLATE_HERE_BYTES, OFFLOAD_BYTES, Handlers
from tensorgate.gateway.rest.http_messages import Answer, RequestHead
from tensorgate.gateway.rest.operator_pages import OperatorPages
from tensorgate.gateway.rest.quick_predict import QuickPredict
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow_serving.apis import classification_pb2, predict_pb2, regression_pb2
from tests.fakes.fake_dispatcher import FakeDispatcher, make_signature, make_signatures

MAX_INFLATED_BYTES = 1_000_000
MAX_BODY_BYTES = 10_000_000
PREDICT_PATH = "/v1/models/half_plus_two:predict"
GZIPPED = (b"content-encoding", b"gzip")
INSTANCES = b'{"instances": [1.0, 2.0, 5.0]}'
PREDICTIONS = b'{\n    "predictions": [2.5, 3.0, 4.5\n    ]\n}'


@dataclass(frozen=True)
class Response:
    """What a client gets."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class FakeMonitor:
    """Knows half_plus_two, version 124."""

    def versions(self, name: str) -> Sequence[ServableState]:
        if name != "half_plus_two":
            return []
        return [ServableState(ServableId(name, 124), ManagerState.AVAILABLE, None, 0)]


def half_plus_two(request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
    response = predict_pb2.PredictResponse()
    response.outputs["y"].CopyFrom(request.inputs["x"])
    response.outputs["y"].float_val[:] = [value / 2 + 2 for value in request.inputs["x"].float_val]
    return response


@pytest.fixture
def dispatcher() -> FakeDispatcher:
    made = FakeDispatcher(half_plus_two)
    signatures = make_signatures(
        serving_default=make_signature({"x": types_pb2.DT_FLOAT}), half=make_signature({"x": types_pb2.DT_HALF})
    )
    made.add("half_plus_two", 123, signatures)
    made.add("half_plus_two", 124, signatures)
    made.routes.set_labels({"half_plus_two": {"stable": 123}})
    return made


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1, thread_name_prefix="rest-json") as made:
        yield made


@pytest.fixture
def exact_reader() -> Iterator[ExactReader]:
    with contextlib.closing(ExactReader()) as made:
        yield made


def make_app(
    dispatcher: FakeDispatcher,
    executor: ThreadPoolExecutor,
    exact_reader: ExactReader,
    *,
    enable_cors: bool = False,
    run_timeout_s: float | None = None,
    readiness_trouble: Callable[[], str] = str,
    access: Access | None = None,
) -> RestApp:
    handlers = Handlers(dispatcher, FakeMonitor(), executor, exact_reader, run_timeout_s, MAX_INFLATED_BYTES)
    made = RestApp(
        handlers,
        enable_cors=enable_cors,
        max_body_bytes=MAX_BODY_BYTES,
        quick_predict=partial(QuickPredict, dispatcher, executor, run_timeout_s),
        pages=OperatorPages(readiness_trouble, models_json=lambda: b'{"models": []}'),
        access=access,
    )
    made.set_ready(True)
    return made


@pytest.fixture
def app(dispatcher: FakeDispatcher, executor: ThreadPoolExecutor, exact_reader: ExactReader) -> RestApp:
    return make_app(dispatcher, executor, exact_reader)


async def exchange(
    app: RestApp, verb: str, path: str, body: bytes = b"", headers: Sequence[tuple[bytes, bytes]] = ()
) -> Response:
    raw_path, _, query_string = path.encode().partition(b"?")
    head = RequestHead(verb, raw_path, query_string)
    for name, value in headers:
        head.add_header(name, value)
    begun = app.begin(head)
    answer = begun if isinstance(begun, Answer) else await begun([body])
    names = {name.decode(): value.decode() for name, value in answer.headers}
    if answer.content_type is not None:
        names["content-type"] = answer.content_type.decode()
    return Response(answer.status, names, answer.body)


def ask(app: RestApp, verb: str, path: str, body: bytes = b"", headers: Sequence[tuple[bytes, bytes]] = ()) -> Response:
    return asyncio.run(exchange(app, verb, path, body, headers))


def error_body(message: str) -> bytes:
    return f'{{\n    "error": "{message}"\n}}'.encode()


# ---- predict ----


@pytest.mark.parametrize(
    ("path", "version"),
    [
        ("/v1/models/half_plus_two:predict", 124),
        ("/v1/models/half_plus_two/versions/123:predict", 123),
        ("/v1/models/half_plus_two/labels/stable:predict", 123),
        ("/v1/models/half%5Fplus_two:predict?trace=1", 124),
    ],
)
def test_predict_runs_on_the_version_asked_for(
    app: RestApp, dispatcher: FakeDispatcher, path: str, version: int
) -> None:
    response = ask(app, "POST", path, INSTANCES)
    assert response == Response(200, {"content-type": "application/json"}, PREDICTIONS)
    [submitted] = dispatcher.submitted
    assert submitted.servable_id == ServableId("half_plus_two", version)
    assert submitted.method is Method.PREDICT
    assert submitted.deadline_s is None
    assert dispatcher.num_pins("half_plus_two", version) == 0


def test_column_form_is_answered_in_column_form(app: RestApp) -> None:
    response = ask(app, "POST", PREDICT_PATH, b'{"inputs": 1}')
    assert response.body == b'{\n    "outputs": 2.5\n}'


def test_the_run_has_a_deadline_from_its_beginning(
    dispatcher: FakeDispatcher, executor: ThreadPoolExecutor, exact_reader: ExactReader
) -> None:
    ask(make_app(dispatcher, executor, exact_reader, run_timeout_s=30.0), "POST", PREDICT_PATH, INSTANCES)
    deadline_s = dispatcher.submitted[0].deadline_s
    assert deadline_s is not None
    assert 0 < deadline_s - time.monotonic() <= 30.0


def test_large_bodies_are_read_and_written_by_the_pool(
    app: RestApp, executor: ThreadPoolExecutor, exact_reader: ExactReader
) -> None:
    num_values = OFFLOAD_BYTES
    response = ask(app, "POST", PREDICT_PATH, b'{"instances": [' + b"1," * (num_values - 1) + b"1]}")
    assert response.status == 200
    assert response.body.count(b"2.5") == num_values


@pytest.mark.parametrize("part_bytes", [1, 5, 1000])
def test_a_body_in_parts_is_one_body(app: RestApp, part_bytes: int) -> None:
    parts = [INSTANCES[begin : begin + part_bytes] for begin in range(0, len(INSTANCES), part_bytes)]
    begun = app.begin(RequestHead("POST", PREDICT_PATH.encode()))
    assert not isinstance(begun, Answer)

    async def answer() -> Answer:
        return await begun(parts)

    assert asyncio.run(answer()).body == PREDICTIONS


def test_gzip_bodies_are_inflated(app: RestApp) -> None:
    response = ask(app, "POST", PREDICT_PATH, gzip.compress(INSTANCES), [(b"content-encoding", b"gzip")])
    assert (response.status, response.body) == (200, PREDICTIONS)


def test_a_small_gzip_body_may_be_large(app: RestApp) -> None:
    body = gzip.compress(b'{"instances": [' + b"1," * (INFLATE_HERE_BYTES // 2) + b"1]}")
    assert len(body) < OFFLOAD_BYTES
    response = ask(app, "POST", PREDICT_PATH, body, [GZIPPED])
    assert response.status == 200
    assert response.body.count(b"2.5") == INFLATE_HERE_BYTES // 2 + 1


@pytest.mark.parametrize("encoding", [b"identity", b"GZIP", b"br", b"deflate"])
def test_bodies_of_another_encoding_are_taken_as_they_are(app: RestApp, encoding: bytes) -> None:
    assert ask(app, "POST", PREDICT_PATH, INSTANCES, [(b"content-encoding", encoding)]).status == 200


def test_an_error_of_the_worker_reaches_the_client(app: RestApp, dispatcher: FakeDispatcher) -> None:
    def fail(request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        raise ServingError(Code.DEADLINE_EXCEEDED, "Timed out waiting for notification")

    dispatcher.answer = fail
    response = ask(app, "POST", PREDICT_PATH, INSTANCES)
    assert response == Response(
        504, {"content-type": "application/json"}, error_body("Timed out waiting for notification")
    )


def test_a_request_that_is_cancelled_cancels_its_call(app: RestApp, dispatcher: FakeDispatcher) -> None:
    dispatcher.answer = None

    async def cancel_in_flight() -> Response:
        task = asyncio.ensure_future(exchange(app, "POST", PREDICT_PATH, INSTANCES))
        await asyncio.sleep(0)  # lets it run up to its call, which is never answered
        task.cancel()
        return await task

    response = asyncio.run(cancel_in_flight())
    assert (response.status, response.body) == (503, error_body("The server is shutting down."))
    assert dispatcher.submitted[0].cancelled == [True]


# ---- classify and regress ----


def classify_by_x(payload: bytes) -> bytes:
    request = classification_pb2.ClassificationRequest.FromString(payload)
    response = classification_pb2.ClassificationResponse()
    for example in request.input.example_list.examples:
        classes = response.result.classifications.add().classes
        classes.add(label=request.model_spec.signature_name, score=example.features.feature["x"].float_list.value[0])
    return response.SerializeToString()


def regress_by_context(payload: bytes) -> bytes:
    request = regression_pb2.RegressionRequest.FromString(payload)
    given = request.input.example_list_with_context
    response = regression_pb2.RegressionResponse()
    for _ in given.examples:
        response.result.regressions.add(value=given.context.features.feature["c"].int64_list.value[0])
    return response.SerializeToString()


def test_classify_runs_on_the_version_asked_for(app: RestApp, dispatcher: FakeDispatcher) -> None:
    dispatcher.answers[Method.CLASSIFY] = classify_by_x
    body = b'{"signature_name": "half", "examples": [{"x": 1.5}, {"x": [2.0]}]}'
    response = ask(app, "POST", "/v1/models/half_plus_two/labels/stable:classify", body)
    assert response == Response(
        200,
        {"content-type": "application/json"},
        b'{\n    "results": [[["half", 1.5]], [["half", 2.0]]\n    ]\n}',
    )
    [submitted] = dispatcher.submitted
    assert (submitted.servable_id, submitted.method) == (ServableId("half_plus_two", 123), Method.CLASSIFY)


def test_regress_runs_with_its_context(app: RestApp, dispatcher: FakeDispatcher) -> None:
    dispatcher.answers[Method.REGRESS] = regress_by_context
    body = b'{"context": {"c": 7}, "examples": [{}, {}]}'
    response = ask(app, "POST", "/v1/models/half_plus_two:regress", body)
    assert (response.status, response.body) == (200, b'{\n    "results": [7.0, 7.0]\n}')
    assert dispatcher.submitted[0].method is Method.REGRESS


def test_an_error_of_a_classify_in_the_worker_reaches_the_client(app: RestApp, dispatcher: FakeDispatcher) -> None:
    def fail(payload: bytes) -> bytes:
        raise ServingError(Code.INVALID_ARGUMENT, "Expected one input Tensor.")

    dispatcher.answers[Method.CLASSIFY] = fail
    response = ask(app, "POST", "/v1/models/half_plus_two:classify", b'{"examples": [{}]}')
    assert (response.status, response.body) == (400, error_body("Expected one input Tensor."))


@pytest.mark.parametrize("method", ["classify", "regress"])
@pytest.mark.parametrize(
    ("model", "body", "status", "message"),
    [
        ("nobody", b'{"examples": [1]}', 400, "Example must be JSON object but got JSON Number"),
        ("nobody", b'{"examples": [{}]}', 404, "Servable not found for request: Latest(nobody)"),
    ],
)
def test_the_examples_are_judged_before_the_model(
    app: RestApp, dispatcher: FakeDispatcher, method: str, model: str, body: bytes, status: int, message: str
) -> None:
    response = ask(app, "POST", f"/v1/models/{model}:{method}", body)
    assert (response.status, response.body) == (status, error_body(message))
    assert dispatcher.submitted == []


def test_a_classify_that_is_refused_holds_no_version(app: RestApp, dispatcher: FakeDispatcher) -> None:
    body = b'{"signature_name": "\xff", "examples": [{}]}'
    assert ask(app, "POST", "/v1/models/half_plus_two:classify", body).status == 400
    assert dispatcher.num_pins("half_plus_two", 124) == 0


# ---- messages as bodies, and answers in gzip ----

PROTOBUF = (b"content-type", b"application/x-protobuf")


def predict_message(name: str = "half_plus_two", version: int | None = None) -> bytes:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    if version is not None:
        request.model_spec.version.value = version
    request.inputs["x"].dtype = types_pb2.DT_FLOAT
    request.inputs["x"].float_val[:] = [1.0, 2.0, 5.0]
    return request.SerializeToString()


@pytest.mark.parametrize(
    ("path", "body", "version"),
    [
        (PREDICT_PATH, predict_message(), 124),
        (PREDICT_PATH, predict_message(""), 124),
        (PREDICT_PATH, predict_message(version=123), 123),
        ("/v1/models/half_plus_two/labels/stable:predict", predict_message(""), 123),
    ],
)
def test_a_predict_request_is_answered_by_a_predict_response(
    app: RestApp, dispatcher: FakeDispatcher, path: str, body: bytes, version: int
) -> None:
    response = ask(app, "POST", path, body, [PROTOBUF])
    assert (response.status, response.headers) == (200, {"content-type": "application/x-protobuf"})
    assert list(predict_pb2.PredictResponse.FromString(response.body).outputs["y"].float_val) == [2.5, 3.0, 4.5]
    [submitted] = dispatcher.submitted
    assert submitted.servable_id == ServableId("half_plus_two", version)
    assert submitted.request.model_spec.name == "half_plus_two"


@pytest.mark.parametrize("verb", ["predict", "classify", "regress"])
@pytest.mark.parametrize("is_message", [False, True])
def test_a_request_has_the_priority_of_its_header(
    app: RestApp, dispatcher: FakeDispatcher, verb: str, is_message: bool
) -> None:
    body = b'{"instances": [1.0]}' if verb == "predict" else b'{"examples": [{"x": 1.0}]}'
    if is_message:
        body = predict_message()
    headers = [(b"X-Priority", b"high"), *([PROTOBUF] if is_message else [])]
    for method in (Method.CLASSIFY, Method.REGRESS):
        dispatcher.answers[method] = lambda _payload: b""
    ask(app, "POST", f"/v1/models/half_plus_two:{verb}", body, headers)
    assert [submitted.metadata.priority for submitted in dispatcher.submitted] == [1]


@pytest.mark.parametrize(("verb", "method"), [("classify", Method.CLASSIFY), ("regress", Method.REGRESS)])
def test_classify_and_regress_take_messages_too(
    app: RestApp, dispatcher: FakeDispatcher, verb: str, method: Method
) -> None:
    dispatcher.answers[method] = lambda payload: payload[::-1]
    body = classification_pb2.ClassificationRequest(model_spec={"name": "half_plus_two"}).SerializeToString()
    response = ask(app, "POST", f"/v1/models/half_plus_two:{verb}", gzip.compress(body), [PROTOBUF, GZIPPED])
    assert (response.status, response.body) == (200, body[::-1])


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        (PREDICT_PATH, predict_message("other"), 400, "The URL names model"),
        ("/v1/models/half_plus_two/versions/124:predict", predict_message(version=123), 400, "The URL names version"),
        ("/v1/models/nobody:predict", predict_message(""), 404, "Servable not found for request: Latest(nobody)"),
        (PREDICT_PATH, INSTANCES, 400, "is not a serialized tensorflow.serving.PredictRequest"),
    ],
)
def test_errors_of_messages_are_json(
    app: RestApp, dispatcher: FakeDispatcher, path: str, body: bytes, status: int, message: str
) -> None:
    response = ask(app, "POST", path, body, [PROTOBUF])
    assert (response.status, response.headers) == (status, {"content-type": "application/json"})
    assert message.encode() in response.body
    assert dispatcher.num_pins("half_plus_two", 124) == 0


def test_a_message_that_only_the_worker_finds_broken_is_a_bad_request(app: RestApp, dispatcher: FakeDispatcher) -> None:
    def fail(request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        raise ServingError(Code.INTERNAL, "")

    dispatcher.answer = fail
    response = ask(app, "POST", PREDICT_PATH, predict_message(), [PROTOBUF])
    assert response.status == 400
    assert b"is not a serialized tensorflow.serving.PredictRequest." in response.body


def test_long_answers_are_compressed_for_those_who_take_gzip(app: RestApp) -> None:
    body = b'{"instances": [' + b"1," * 2000 + b"1]}"
    plain = ask(app, "POST", PREDICT_PATH, body)
    response = ask(app, "POST", PREDICT_PATH, body, [(b"accept-encoding", b"gzip, deflate")])
    assert response.headers == {**plain.headers, "content-encoding": "gzip", "vary": "accept-encoding"}
    assert gzip.decompress(response.body) == plain.body
    short = ask(app, "POST", PREDICT_PATH, INSTANCES, [(b"accept-encoding", b"gzip, deflate")])
    assert short == Response(200, {"content-type": "application/json"}, PREDICTIONS)


# ---- what is wrong with a predict, in the order it is found ----


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("nobody:predict", b"", 400, "JSON Parse error: The document is empty"),
        ("nobody:predict", b"{]", 400, "JSON Parse error: Missing a name for object member. at offset: 1"),
        ("nobody:predict", b"{}", 404, "Servable not found for request: Latest(nobody)"),
        ("half_plus_two/versions/3:predict", b"{}", 404, "Servable not found for request: Specific(half_plus_two, 3)"),
        ("half_plus_two/labels/l:predict", b"{}", 400, "Unrecognized servable version label: l"),
        ("half_plus_two/labels/l:predict", b'{"inputs": "x"}', 400, "Unrecognized servable version label: l"),
        ("half_plus_two:predict", b"{}", 400, "Missing 'inputs' or 'instances' key"),
        (
            "half_plus_two:predict",
            b'{"signature_name": "s"}',
            400,
            'Serving signature name: \\"s\\" not found in signature def',
        ),
        (
            "half_plus_two:predict",
            b'{"inputs": ["x"]}',
            400,
            'JSON Value: \\"x\\" Type: String is not of expected type: float',
        ),
        (
            "half_plus_two:predict",
            b'{"signature_name": "half", "inputs": [1]}',
            501,
            "Conversion of JSON Value: 1 to type: half",
        ),
    ],
)
def test_errors_of_predict_requests(app: RestApp, path: str, body: bytes, status: int, message: str) -> None:
    response = ask(app, "POST", f"/v1/models/{path}", body)
    assert response == Response(status, {"content-type": "application/json"}, error_body(message))


def test_a_refused_request_holds_no_version(app: RestApp, dispatcher: FakeDispatcher) -> None:
    for body in (b"{}", b'{"signature_name": "s"}', b'{"inputs": ["x"]}', b'{"instances": [[1], 2]}'):
        assert ask(app, "POST", PREDICT_PATH, body).status == 400
    assert dispatcher.submitted == []
    assert dispatcher.num_pins("half_plus_two", 124) == 0


def test_a_name_that_is_not_utf8_is_repeated_as_it_came(app: RestApp) -> None:
    response = ask(app, "POST", "/v1/models/%FF:predict", b"{}")
    assert response.body == b'{\n    "error": "Servable not found for request: Latest(\xff)"\n}'


def test_broken_gzip_is_named_as_such(app: RestApp) -> None:
    response = ask(app, "POST", PREDICT_PATH, INSTANCES, [(b"content-encoding", b"gzip")])
    assert response.status == 400
    assert b"not valid gzip" in response.body


def test_bodies_beyond_a_limit_are_413(app: RestApp) -> None:
    bomb = gzip.compress(bytes(MAX_INFLATED_BYTES + 1))
    assert ask(app, "POST", PREDICT_PATH, bomb, [(b"content-encoding", b"gzip")]).status == 413
    for num_bytes, text in ((10_000_001, "10000001 bytes, more than"), (None, "more bytes than")):
        answer = app.refuse_body(RequestHead("POST", PREDICT_PATH.encode()), num_bytes)
        assert (answer.status, answer.content_type) == (413, b"application/json")
        assert answer.body == error_body(f"The request body has {text} the limit of 10000000.")


def test_a_fault_of_ours_is_a_logged_500(
    app: RestApp, dispatcher: FakeDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        raise ZeroDivisionError("a bug")

    dispatcher.answer = fail
    response = ask(app, "POST", PREDICT_PATH, INSTANCES)
    assert response.status == 500
    assert b"bug" not in response.body
    assert "a bug" in caplog.text


# ---- the other routes ----


def test_status_lists_the_versions(app: RestApp) -> None:
    response = ask(app, "GET", "/v1/models/half_plus_two")
    assert (response.status, response.headers) == (200, {"content-type": "application/json"})
    assert b'"version": "124"' in response.body
    missing = ask(app, "GET", "/v1/models/half_plus_two/versions/3")
    assert (missing.status, missing.body) == (404, error_body("Could not find version 3 of model half_plus_two"))


@pytest.mark.parametrize("verb", ["PUT", "DELETE", "HEAD", "PATCH"])
def test_other_verbs_on_the_api_are_malformed_requests(app: RestApp, verb: str) -> None:
    response = ask(app, verb, PREDICT_PATH)
    assert (response.status, response.body) == (400, error_body(f"Malformed request: {verb} {PREDICT_PATH}"))


@pytest.mark.parametrize("verb", ["TRACE", "PROPFIND", "LOCK"])
@pytest.mark.parametrize("path", ["/v1/models/m", "/"])
def test_verbs_the_server_does_not_know_are_not_implemented(app: RestApp, verb: str, path: str) -> None:
    assert ask(app, verb, path).status == 501


def test_a_version_beyond_int64_is_answered_without_a_body(app: RestApp) -> None:
    response = ask(app, "GET", "/v1/models/m/versions/9223372036854775808")
    assert (response.status, response.body) == (400, b"")


@pytest.mark.parametrize("path", ["/", "/v1", "/v2/models/m", "//v1/models/m", "/index.html"])
def test_paths_outside_the_api_are_not_found(app: RestApp, path: str) -> None:
    response = ask(app, "GET", path)
    assert (response.status, response.headers) == (404, {"content-type": "text/plain; charset=utf-8"})


def test_a_broken_escape_is_a_bad_request(app: RestApp) -> None:
    assert ask(app, "GET", "/v1/models/%zz").status == 400


# ---- readiness ----


def test_until_it_is_ready_the_api_answers_503(app: RestApp, dispatcher: FakeDispatcher) -> None:
    app.set_ready(False)
    for verb, path in (("POST", PREDICT_PATH), ("GET", "/v1/models/half_plus_two"), ("GET", "/v1/foo")):
        response = ask(app, verb, path, INSTANCES)
        assert (response.status, response.body) == (503, error_body(NOT_READY_TEXT))
    assert [ask(app, "GET", path).status for path in ("/healthz", "/livez", "/readyz")] == [200, 200, 503]
    app.set_ready(True)
    assert ask(app, "GET", "/readyz") == Response(200, {"content-type": "text/plain; charset=utf-8"}, b"ok\n")
    assert ask(app, "POST", PREDICT_PATH, INSTANCES).status == 200


def test_readiness_tells_of_the_workers_trouble_and_the_api_goes_on(
    dispatcher: FakeDispatcher, executor: ThreadPoolExecutor, exact_reader: ExactReader
) -> None:
    trouble = ["No worker is up."]
    app = make_app(dispatcher, executor, exact_reader, readiness_trouble=lambda: trouble[0])
    ready = ask(app, "GET", "/readyz")
    assert (ready.status, ready.body) == (503, b"No worker is up.\n")
    assert ask(app, "GET", "/livez").status == 200
    assert ask(app, "POST", PREDICT_PATH, INSTANCES).status == 200
    trouble[0] = ""
    assert ask(app, "GET", "/readyz").status == 200


@pytest.mark.parametrize("is_ready", [False, True])
def test_the_list_of_models_and_the_inference_protocols_health_are_there_from_the_first_moment(
    app: RestApp, is_ready: bool
) -> None:
    app.set_ready(is_ready)
    assert ask(app, "GET", "/v1/models") == Response(200, {"content-type": "application/json"}, b'{"models": []}')
    assert ask(app, "GET", "/v2/health/live").status == 200
    assert ask(app, "GET", "/v2/health/ready").status == (200 if is_ready else 503)


def test_requests_are_counted_as_upstream_counts_them(
    dispatcher: FakeDispatcher, executor: ThreadPoolExecutor, exact_reader: ExactReader
) -> None:
    counts = RequestCounts()
    handlers = Handlers(dispatcher, FakeMonitor(), executor, exact_reader, None, MAX_INFLATED_BYTES)
    app = RestApp(
        handlers,
        enable_cors=False,
        max_body_bytes=MAX_BODY_BYTES,
        quick_predict=partial(QuickPredict, dispatcher, executor, None),
        counts=counts,
    )
    app.set_ready(True)
    for verb, path in (
        ("POST", PREDICT_PATH),
        ("POST", "/v1/models/nobody:predict"),
        ("GET", "/v1/models/half_plus_two"),
        ("GET", "/v1/models/nobody"),
        ("DELETE", "/v1/models/half_plus_two"),
        ("OPTIONS", "/v1/models/half_plus_two"),
        ("GET", "/livez"),
    ):
        ask(app, verb, path, INSTANCES)
    assert counts.by_status == {
        ("half_plus_two", "OK"): 2,
        ("nobody", "NOT_FOUND"): 2,
        ("", "INVALID_ARGUMENT"): 1,
        ("", "FAILED_PRECONDITION"): 1,
    }
    assert {key: sum(latency.buckets) for key, latency in counts.latencies.items()} == {
        ("half_plus_two", "predict"): 1,
        ("half_plus_two", ""): 1,
    }


def test_during_the_servers_end_new_requests_are_told_so(app: RestApp) -> None:
    app.begin_shutdown()
    response = ask(app, "POST", PREDICT_PATH, INSTANCES)
    assert (response.status, response.body) == (503, error_body("The server is shutting down."))
    ready, live = ask(app, "GET", "/readyz"), ask(app, "GET", "/livez")
    assert (ready.status, ready.body) == (503, b"The server is shutting down.\n")
    assert live.status == 200


# ---- CORS ----

CORS_HEADERS = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "POST, GET",
    "access-control-allow-headers": "Content-Type",
}


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (b"http://example.com", 200),
        (b"https://example.com:8080", 200),
        (b"xhttp://y", 200),
        (b"HTTP://EXAMPLE.COM", 400),
        (b"ftp://example.com", 400),
        (b"null", 400),
    ],
)
@pytest.mark.parametrize("path", [PREDICT_PATH, "/v1/models/half_plus_two", "/v1/anything"])
def test_a_preflight_is_answered_by_its_origin_without_a_body(
    app: RestApp, origin: bytes, status: int, path: str
) -> None:
    response = ask(app, "OPTIONS", path, b"", [(b"origin", origin)])
    assert (response.status, response.body) == (status, b"")


def test_cors_headers_are_on_every_answer_of_the_api_if_enabled(
    dispatcher: FakeDispatcher, executor: ThreadPoolExecutor, exact_reader: ExactReader
) -> None:
    app = make_app(dispatcher, executor, exact_reader, enable_cors=True)
    for verb, path in (
        ("POST", PREDICT_PATH),
        ("DELETE", PREDICT_PATH),
        ("GET", "/v1/models/m/versions/9223372036854775808"),
        ("OPTIONS", PREDICT_PATH),
    ):
        response = ask(app, verb, path, INSTANCES)
        assert {**response.headers, "content-type": ""} == {**CORS_HEADERS, "content-type": ""}
    assert "access-control-allow-origin" not in ask(app, "GET", "/healthz").headers


# --- tokens -----------------------------------------------------------------------------------------------------------

PREDICT_TOKEN, ADMIN_TOKEN, METRICS_TOKEN = "p" * 16, "a" * 16, "m" * 16


def shown(token: str | None) -> Sequence[tuple[bytes, bytes]]:
    return () if token is None else ((b"Authorization", f"Bearer {token}".encode()),)


@pytest.fixture
def access() -> Access:
    text = f"predict {PREDICT_TOKEN}\nadmin {ADMIN_TOKEN}\nmetrics {METRICS_TOKEN}"
    return Access(AccessTokens(parse_tokens(text.encode())))


@pytest.fixture
def locked_app(
    dispatcher: FakeDispatcher, executor: ThreadPoolExecutor, exact_reader: ExactReader, access: Access
) -> RestApp:
    return make_app(dispatcher, executor, exact_reader, enable_cors=True, access=access)


@pytest.mark.parametrize(
    ("verb", "path", "token", "status"),
    [
        ("POST", PREDICT_PATH, None, 401),
        ("POST", PREDICT_PATH, "x" * 16, 401),
        ("POST", PREDICT_PATH, ADMIN_TOKEN, 403),
        ("POST", PREDICT_PATH, PREDICT_TOKEN, 200),
        ("POST", PREDICT_PATH.replace("v1", "V1"), None, 401),
        ("GET", "/v1/models/half_plus_two", None, 401),
        ("GET", "/v1/models/half_plus_two", PREDICT_TOKEN, 200),
        ("GET", "/v1/models/half_plus_two/metadata", METRICS_TOKEN, 403),
        ("GET", "/v1/models", None, 401),
        ("GET", "/v1/models", PREDICT_TOKEN, 200),
        ("HEAD", "/v1/models", None, 401),
        ("GET", "/v1/admin/models", None, 401),
        ("GET", "/v1/admin/models", PREDICT_TOKEN, 403),
        ("GET", "/v1/%zz", None, 401),
        ("GET", "/metrics", None, 401),
        ("GET", "/metrics", PREDICT_TOKEN, 403),
        ("GET", "/metrics", METRICS_TOKEN, 200),
        ("GET", "/some/new/page", None, 401),
        ("GET", "/healthz", None, 200),
        ("GET", "/livez", None, 200),
        ("GET", "/readyz", None, 200),
        ("GET", "/v2/health/ready", None, 200),
    ],
)
def test_where_there_are_tokens_a_request_needs_one_of_the_role_it_is_for(
    locked_app: RestApp, verb: str, path: str, token: str | None, status: int
) -> None:
    response = ask(locked_app, verb, path, INSTANCES, shown(token))
    assert response.status == status
    assert (response.headers.get("www-authenticate") == "Bearer") == (status == 401)
    if status in (401, 403):
        assert response.body.startswith(b'{\n    "error": "')


def test_two_tokens_in_a_request_are_none(locked_app: RestApp) -> None:
    headers = [*shown(PREDICT_TOKEN), *shown(PREDICT_TOKEN)]
    assert ask(locked_app, "POST", PREDICT_PATH, INSTANCES, headers).status == 401


def test_browsers_may_ask_without_a_token_whether_they_may_send_one(locked_app: RestApp) -> None:
    response = ask(locked_app, "OPTIONS", PREDICT_PATH, b"", [(b"Origin", b"https://example.com")])
    assert response.status == 200
    assert "Authorization" in response.headers["access-control-allow-headers"]


def test_the_quick_way_is_closed_to_a_token_that_is_withdrawn(locked_app: RestApp, access: Access) -> None:
    head = RequestHead("POST", PREDICT_PATH.encode())
    for name, value in shown(PREDICT_TOKEN):
        head.add_header(name, value)

    async def begin() -> bool:
        quick = locked_app.quick(head)
        assert quick is not None
        answers: list[Answer] = []
        is_taken = quick(INSTANCES, answers.append) is not None
        while is_taken and not answers:  # noqa: ASYNC110 - the answer comes by a plain call
            await asyncio.sleep(0.001)
        return is_taken

    assert asyncio.run(begin())
    access.change(AccessTokens(parse_tokens(f"predict {'q' * 16}".encode())))
    assert not asyncio.run(begin())
    assert ask(locked_app, "POST", PREDICT_PATH, INSTANCES, shown(PREDICT_TOKEN)).status == 401
