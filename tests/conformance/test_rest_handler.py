"""Upstream's cases of the REST handler (http_rest_api_handler_test.cc): paths, errors, the three methods, the GETs.

Each test bears the name of upstream's case.
"""

import http.client
import json
from typing import Any

import pytest

from tests.harness.model_server import ModelServer

JSON = {"content-type": "application/json"}
MODEL = "/v1/models/model"


def post(server: ModelServer, path: str, body: str = "") -> tuple[int, Any]:
    return server.rest("POST", path, body.encode())


def error(answer: tuple[int, Any]) -> tuple[int, str]:
    status, body = answer
    assert list(body) == ["error"]
    return status, body["error"]


def test_path_regex(two_versions: ModelServer) -> None:
    """Paths under /v1/models are the API's; others are not its business."""
    for path in ("/statuspage", "/index"):
        status, body = two_versions.rest("GET", path)
        assert status == 404
        assert not isinstance(body, dict)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/foo"),
        ("POST", "/v1/foo"),
        ("GET", "/v1/models/debug/model_name"),
        ("POST", "/v1/models"),
        ("GET", "/v1/models/model:predict"),
        ("GET", "/v1/models/model/version/50:predict"),
        ("POST", "/v1/models/model/version/50:predict"),
        ("POST", "/v1/models/model/versions/HELLO:regress"),
        ("POST", "/v1/models/model/metadata"),
        ("POST", "/v1/models/model/label/some_label:regress"),
        ("POST", "/v1/models/model/versions/50/labels/some_label:regress"),
        ("POST", "/v1/models/model/versions/some_label:regress"),
    ],
)
def test_unsupported_api_calls(two_versions: ModelServer, method: str, path: str) -> None:
    assert error(two_versions.rest(method, path, b"{}")) == (400, f"Malformed request: {method} {path}")


def test_unsupported_api_calls_version_out_of_range(two_versions: ModelServer) -> None:
    assert post(two_versions, f"{MODEL}/versions/{2**64 - 1}:predict", '{"instances": [1]}') == (400, "")


def test_predict_model_name_version_errors(two_versions: ModelServer) -> None:
    body = '{"instances": [1]}'
    for path, spec in (
        ("/v1/models/incorrect_model_name", "Latest(incorrect_model_name)"),
        (f"{MODEL}/versions/1234", "Specific(model, 1234)"),
        ("/v1/models/incorrect_model_name/versions/123", "Specific(incorrect_model_name, 123)"),
    ):
        assert error(post(two_versions, f"{path}:predict", body)) == (404, f"Servable not found for request: {spec}")


def test_predict_request_errors(two_versions: ModelServer) -> None:
    def refused(body: str, path: str = MODEL) -> str:
        status, text = error(post(two_versions, f"{path}:predict", body))
        assert status == 400
        return text

    assert refused("") == "JSON Parse error: The document is empty"
    assert refused("this is junk").startswith("JSON Parse error: Invalid value.")
    assert "not of expected type: float" in refused('{"instances": ["foo", "bar"]}')
    # Of a label that is not known and a body that is no JSON, the body is told first; a body of wrong types is not.
    label = f"{MODEL}/labels/some_label"
    assert refused('{"instances": ["x"]}', label) == "Unrecognized servable version label: some_label"
    assert refused('{"signature_name": 5, "instances": [1]}').endswith("'signature_name' key must be a string value.")
    assert refused('{"signature_name": "none", "instances": [1]}') == (
        'Serving signature name: "none" not found in signature def'
    )


@pytest.mark.parametrize("place", ["", "/versions/123", "/labels/A"])
def test_predict(two_versions: ModelServer, place: str) -> None:
    path = f"{MODEL}{place}:predict"
    assert post(two_versions, path, '{"instances": [[1.0], [2.0]]}') == (200, {"predictions": [[2.5], [3.0]]})
    named = '{"signature_name": "serving_default", "instances": [1.0, 2.0]}'
    assert post(two_versions, path, named) == (200, {"predictions": [2.5, 3.0]})
    assert post(two_versions, path, '{"inputs": [[1.0], [2.0]]}') == (200, {"outputs": [[2.5], [3.0]]})


def test_predict_has_one_header_of_its_own(two_versions: ModelServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", two_versions.rest_port, timeout=30)
    connection.request("POST", f"{MODEL}:predict", b'{"instances": [1.0]}')
    response = connection.getresponse()
    response.read()
    connection.close()
    headers = {name.lower(): value for name, value in response.getheaders()}
    transport = {"content-length", "date", "server", "connection", "transfer-encoding", "keep-alive"}
    assert {name: value for name, value in headers.items() if name not in transport} == JSON


@pytest.mark.parametrize("place", ["", "/versions/123", "/labels/A"])
def test_regress(two_versions: ModelServer, place: str) -> None:
    body = {"signature_name": "regress_x_to_y", "examples": [{"x": 80.0}]}
    assert post(two_versions, f"{MODEL}{place}:regress", json.dumps(body)) == (200, {"results": [42.0]})


@pytest.mark.parametrize("place", ["", "/labels/A"])
def test_classify(two_versions: ModelServer, place: str) -> None:
    body = {"signature_name": "classify_x_to_y", "examples": [{"x": 20.0}, {"x": 10.0}]}
    answer = {"results": [[["", 12.0]], [["", 7.0]]]}
    assert post(two_versions, f"{MODEL}{place}:classify", json.dumps(body)) == (200, answer)


@pytest.mark.parametrize(
    ("place", "versions"), [("", (124, 123)), ("/versions/123", (123,)), ("/labels/A", (124, 123))]
)
def test_get_status(two_versions: ModelServer, place: str, versions: tuple[int, ...]) -> None:
    """Upstream lists all versions for a label, too."""
    states = [
        {"version": str(version), "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        for version in versions
    ]
    assert two_versions.rest("GET", f"{MODEL}{place}") == (200, {"model_version_status": states})


@pytest.mark.parametrize(
    ("place", "version"), [("", 124), ("/versions/123", 123), ("/labels/A", 123), ("/labels/B", 124)]
)
def test_get_model_metadata(two_versions: ModelServer, place: str, version: int) -> None:
    status, answer = two_versions.rest("GET", f"{MODEL}{place}/metadata")
    assert status == 200
    assert answer["model_spec"] == {"name": "model", "signature_name": "", "version": str(version)}
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    assert signatures.keys() == {
        "serving_default", "regress_x_to_y", "classify_x_to_y", "regress_x2_to_y3", "classify_x2_to_y3"
    }  # fmt: skip
    rows = {"dim": [{"size": "-1", "name": ""}, {"size": "1", "name": ""}], "unknown_rank": False}
    assert signatures["serving_default"] == {
        "inputs": {"x": {"dtype": "DT_FLOAT", "tensor_shape": rows, "name": "x:0"}},
        "outputs": {"y": {"dtype": "DT_FLOAT", "tensor_shape": rows, "name": "y:0"}},
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    }
    assert signatures["regress_x_to_y"]["inputs"] == {
        "inputs": {
            "dtype": "DT_STRING",
            "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
            "name": "tf_example:0",
        }
    }
    assert signatures["regress_x_to_y"]["method_name"] == "tensorflow/serving/regress"
