"""TensorFlow Serving's own tests of its REST handler, case by case under their names.

Source: model_servers/http_rest_api_handler_test.cc (its 9 cases, which tfrt_http_rest_api_handler_test.cc repeats) and
http_rest_api_util_test.cc. As there, the handler is asked without a socket; the model is half_plus_two in versions 5
and 99, with label "good" for 5. Here the worker's part is played by a fake that computes x/2 + 2.
"""

import asyncio
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.servable_state import ManagerState, ServableState
from tensorgate.gateway.dispatch.call import Method
from tensorgate.gateway.rest.app import RestApp
from tensorgate.gateway.rest.handlers import Handlers
from tensorgate.gateway.rest.http_messages import Answer, RequestHead
from tensorgate.gateway.rest.url_grammar import (
    InferenceMethod,
    InferenceRoute,
    MetadataRoute,
    ModelAddress,
    SilentRefusal,
    StatusRoute,
    is_api_path,
    parse_route,
)
from tensorgate.protos.status_codes import ServingError
from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow_serving.apis import classification_pb2, predict_pb2, regression_pb2
from tests.fakes.fake_dispatcher import FakeDispatcher, make_signature, make_signatures

MODEL = "/v1/models/saved_model_half_plus_two_2_versions"
NAME = MODEL.removeprefix("/v1/models/")
VERSION, LATEST = 5, 99
JSON = ((b"content-type", b"application/json"),)


class Monitor:
    """Both versions are available."""

    def versions(self, name: str) -> Sequence[ServableState]:
        if name != NAME:
            return []
        return [ServableState(ServableId(name, each), ManagerState.AVAILABLE, None, 0) for each in (LATEST, VERSION)]


def predict(request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
    response = predict_pb2.PredictResponse()
    response.outputs["y"].CopyFrom(request.inputs["x"])
    response.outputs["y"].float_val[:] = [value / 2 + 2 for value in request.inputs["x"].float_val]
    return response


def classify(payload: bytes) -> bytes:
    response = classification_pb2.ClassificationResponse()
    for example in classification_pb2.ClassificationRequest.FromString(payload).input.example_list.examples:
        x = example.features.feature["x"].float_list.value[0]
        response.result.classifications.add().classes.add(score=x / 2 + 2)
    return response.SerializeToString()


def regress(payload: bytes) -> bytes:
    response = regression_pb2.RegressionResponse()
    for example in regression_pb2.RegressionRequest.FromString(payload).input.example_list.examples:
        response.result.regressions.add(value=example.features.feature["x"].float_list.value[0] / 2 + 2)
    return response.SerializeToString()


@pytest.fixture
def dispatcher() -> FakeDispatcher:
    made = FakeDispatcher(predict)
    made.answers.update({Method.CLASSIFY: classify, Method.REGRESS: regress})
    for version in (VERSION, LATEST):
        made.add(NAME, version, make_signatures(serving_default=make_signature({"x": types_pb2.DT_FLOAT})))
    made.routes.set_labels({NAME: {"good": VERSION}})
    return made


@pytest.fixture
def app(dispatcher: FakeDispatcher) -> Iterator[RestApp]:
    with ThreadPoolExecutor(1) as pool:
        made = RestApp(Handlers(dispatcher, Monitor(), pool, None, 1 << 20), enable_cors=False, max_body_bytes=1 << 20)
        made.set_ready(True)
        yield made


def ask(app: RestApp, verb: str, path: str, body: str = "") -> Answer:
    begun = app.begin(RequestHead(verb, path.encode()))
    if isinstance(begun, Answer):
        return begun

    async def answer() -> Answer:
        return await begun([body.encode()])

    return asyncio.run(answer())


def error_of(answer: Answer) -> tuple[int, str]:
    return answer.status, json.loads(answer.body)["error"]


def result_of(answer: Answer) -> Any:
    """What a good answer says; its headers are one, the content type."""
    assert (answer.status, answer.content_type, answer.headers) == (200, b"application/json", ())
    return json.loads(answer.body)


def test_k_path_regex() -> None:
    assert is_api_path(b"/v1/models")
    assert not is_api_path(b"/statuspage")
    assert not is_api_path(b"/index")


@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("GET", "/v1/foo"),
        ("POST", "/v1/foo"),
        ("GET", "/v1/models/debug/model_name"),
        ("POST", "/v1/models"),
        ("GET", f"{MODEL}:predict"),
        ("GET", f"{MODEL}/version/50:predict"),
        ("POST", f"{MODEL}/version/50:predict"),
        ("POST", f"{MODEL}/versions/HELLO:regress"),
        ("POST", f"{MODEL}/metadata"),
        ("POST", f"{MODEL}/label/some_label:regress"),
        ("POST", f"{MODEL}/versions/50/labels/some_label:regress"),
        ("POST", f"{MODEL}/versions/some_label:regress"),
    ],
)
def test_unsupported_api_calls(app: RestApp, verb: str, path: str) -> None:
    assert error_of(ask(app, verb, path)) == (400, f"Malformed request: {verb} {path}")


def test_unsupported_api_calls_without_a_name_or_with_a_version_too_large(app: RestApp) -> None:
    assert error_of(ask(app, "GET", "/v1/models")) == (400, "Missing model name in request.")
    too_large = ask(app, "GET", f"{MODEL}/versions/18446744073709551615")
    # Where upstream's status says "Failed to convert version", its answer has no body.
    assert (too_large.status, too_large.body) == (400, b"")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/v1/models/foo:predict", "Servable not found for request: Latest(foo)"),
        ("/v1/models/foo/versions/50:predict", "Servable not found for request: Specific(foo, 50)"),
        (f"{MODEL}/versions/50:predict", f"Servable not found for request: Specific({NAME}, 50)"),
    ],
)
def test_predict_model_name_version_errors(app: RestApp, path: str, text: str) -> None:
    assert error_of(ask(app, "POST", path, '{ "instances": [1] }')) == (404, text)


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        (f"{MODEL}:predict", "", "JSON Parse error: The document is empty"),
        (f"{MODEL}:predict", "this is not json", "JSON Parse error: Invalid value"),
        (f"{MODEL}:predict", '{ "instances": ["x", "y"] }', "not of expected type: float"),
        (f"{MODEL}/labels/bogus:predict", '{ "instances": ["x"] }', "Unrecognized servable version label"),
        (
            f"{MODEL}:predict",
            '{ "signature_name": 5, "instances": [1] }',
            "'signature_name' key must be a string value.",
        ),
    ],
)
def test_predict_request_errors(app: RestApp, path: str, body: str, text: str) -> None:
    status, error = error_of(ask(app, "POST", path, body))
    assert status == 400
    assert text in error


@pytest.mark.parametrize(
    ("path", "body", "result", "version"),
    [
        (
            f"{MODEL}:predict",
            '{"instances": [[[1.0, 2.0], [3.0, 4.0]]]}',
            {"predictions": [[[2.5, 3.0], [3.5, 4.0]]]},
            LATEST,
        ),
        (f"{MODEL}/versions/{VERSION}:predict", '{"instances": [1.0, 2.0]}', {"predictions": [2.5, 3.0]}, VERSION),
        (f"{MODEL}/labels/good:predict", '{"instances": [1.0, 2.0]}', {"predictions": [2.5, 3.0]}, VERSION),
        (
            f"{MODEL}:predict",
            '{"signature_name": "serving_default", "instances": [1.0, 2.0]}',
            {"predictions": [2.5, 3.0]},
            LATEST,
        ),
        (f"{MODEL}:predict", '{"inputs": [1.0, 2.0]}', {"outputs": [2.5, 3.0]}, LATEST),
    ],
)
def test_predict(
    app: RestApp, dispatcher: FakeDispatcher, path: str, body: str, result: dict[str, Any], version: int
) -> None:
    assert result_of(ask(app, "POST", path, body)) == result
    assert dispatcher.submitted[0].servable_id.version == version


@pytest.mark.parametrize(
    ("path", "version"),
    [(MODEL, LATEST), (f"{MODEL}/versions/{VERSION}", VERSION), (f"{MODEL}/labels/good", VERSION)],
)
def test_regress(app: RestApp, dispatcher: FakeDispatcher, path: str, version: int) -> None:
    body = '{"signature_name": "regress_x_to_y", "examples": [ { "x": 80.0 } ] }'
    assert result_of(ask(app, "POST", f"{path}:regress", body)) == {"results": [42.0]}
    assert dispatcher.submitted[0].servable_id.version == version


@pytest.mark.parametrize(
    ("path", "x", "score", "version"), [(MODEL, 20.0, 12.0, LATEST), (f"{MODEL}/labels/good", 10.0, 7.0, VERSION)]
)
def test_classify(app: RestApp, dispatcher: FakeDispatcher, path: str, x: float, score: float, version: int) -> None:
    body = f'{{"signature_name": "classify_x_to_y", "examples": [ {{ "x": {x} }} ] }}'
    assert result_of(ask(app, "POST", f"{path}:classify", body)) == {"results": [[["", score]]]}
    assert dispatcher.submitted[0].servable_id.version == version


@pytest.mark.parametrize(
    ("path", "versions"),
    [
        (MODEL, [LATEST, VERSION]),
        (f"{MODEL}/versions/{VERSION}", [VERSION]),
        (f"{MODEL}/labels/good", [LATEST, VERSION]),
    ],
)
def test_get_status(app: RestApp, path: str, versions: list[int]) -> None:
    status = {"error_code": "OK", "error_message": ""}
    assert result_of(ask(app, "GET", path)) == {
        "model_version_status": [{"version": str(each), "state": "AVAILABLE", "status": status} for each in versions]
    }


@pytest.mark.parametrize(
    ("path", "version"),
    [(MODEL, LATEST), (f"{MODEL}/versions/{VERSION}", VERSION), (f"{MODEL}/labels/good", VERSION)],
)
def test_get_model_metadata(app: RestApp, path: str, version: int) -> None:
    def tensor(alias: str) -> dict[str, Any]:
        return {"dtype": "DT_FLOAT", "name": f"{alias}:0"}

    metadata = result_of(ask(app, "GET", f"{path}/metadata"))
    assert metadata["model_spec"] == {"name": NAME, "signature_name": "", "version": str(version)}
    assert metadata["metadata"]["signature_def"]["signature_def"] == {
        "serving_default": {
            "inputs": {"x": tensor("x")},
            "outputs": {"y": tensor("y")},
            "method_name": "tensorflow/serving/predict",
            "defaults": {},
        }
    }


# ---- http_rest_api_util_test.cc ----

RESERVED = "!#$&'()*+,/:;=?@[]"
ENCODED = "".join(f"%{ord(character):02X}" for character in RESERVED)


def route_of(verb: str, path: str) -> Any:
    """The route, or None where upstream says that parsing was not successful."""
    try:
        return parse_route(verb, path.encode())
    except ServingError:
        return None


def test_parse_model_info_for_get() -> None:
    odd = f"model{RESERVED}"
    path = f"/v1/models/model{ENCODED}"
    assert route_of("GET", path) == StatusRoute(ModelAddress(odd))
    assert route_of("GET", f"{path}/versions/99") == StatusRoute(ModelAddress(odd, 99))
    assert route_of("GET", f"{path}/versions/99/metadata") == MetadataRoute(ModelAddress(odd, 99))
    assert route_of("GET", f"{path}/metadata") == MetadataRoute(ModelAddress(odd))
    assert route_of("GET", f"{path}/labels/l{ENCODED}") == StatusRoute(ModelAddress(odd, None, f"l{RESERVED}"))
    assert route_of("GET", f"{path}/labels/l/metadata") == MetadataRoute(ModelAddress(odd, None, "l"))
    assert route_of("GET", "/v1/models/metadata") == StatusRoute(ModelAddress("metadata"))
    for bad in ("/v1/models/foo/", "/v1/models/foo/versions/", "/v1/models/foo/versions/x", "/v1/models/foo/metadatas"):
        assert route_of("GET", bad) is None
    assert isinstance(route_of("GET", "/v1/models/foo/versions/9223372036854775808"), SilentRefusal)


def test_parse_model_info_for_post() -> None:
    odd = f"model{RESERVED}"
    path = f"/v1/models/model{ENCODED}"
    for method in InferenceMethod:
        name = method.value
        assert route_of("POST", f"{path}:{name}") == InferenceRoute(ModelAddress(odd), method)
        assert route_of("POST", f"{path}/versions/99:{name}") == InferenceRoute(ModelAddress(odd, 99), method)
        labelled = InferenceRoute(ModelAddress(odd, None, f"l{RESERVED}"), method)
        assert route_of("POST", f"{path}/labels/l{ENCODED}:{name}") == labelled
    for bad in (
        "/v1/models/foo:multi",
        "/v1/models/foo/versions/:predict",
        "/v1/models/:predict",
        "/v1/models/a/b:predict",
    ):
        assert route_of("POST", bad) is None
    assert isinstance(route_of("POST", "/v1/models/foo/versions/9223372036854775808:predict"), SilentRefusal)
