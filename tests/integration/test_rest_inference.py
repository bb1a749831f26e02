"""Predict, classify and regress over REST against a real worker: in JSON, as messages, compressed, on a unix socket."""

import contextlib
import gzip
import http.client
import json
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tensorgate.protos.tensorflow.core.example.example_pb2 import Example
from tensorgate.protos.tensorflow_serving.apis.classification_pb2 import ClassificationRequest, ClassificationResponse
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorgate.protos.tensorflow_serving.apis.regression_pb2 import RegressionRequest, RegressionResponse
from tests.harness.model_server import ModelServer, StartServer, floats, predict_request

PROTOBUF = {"Content-Type": "application/x-protobuf"}
TIMEOUT_S = 30.0


@pytest.fixture
def server(start_server: StartServer, model_config: Callable[..., str], tmp_path: Path) -> Iterator[ModelServer]:
    """Serves half_plus_two and examples; the worker that it starts with is the one that it ends with."""
    started = start_server(model_config("half_plus_two", "examples"), f"--rest_api_socket_path={tmp_path / 'rest'}")
    worker = started.worker_pid
    yield started
    assert started.worker_pid == worker


def post(
    server: ModelServer, path: str, body: bytes, headers: Mapping[str, str] | None = None
) -> tuple[int, str | None, bytes]:
    """Status, content type and body of the answer to a POST below /v1/models."""
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=TIMEOUT_S)
    with contextlib.closing(connection):
        connection.request("POST", f"/v1/models/{path}", body, dict(headers or {}))
        response = connection.getresponse()
        return response.status, response.getheader("Content-Type"), response.read()


def example(x: float) -> Example:
    made = Example()
    made.features.feature["x"].float_list.value.append(x)
    return made


def test_examples_in_json_are_classified_and_regressed(server: ModelServer) -> None:
    body = b'{"examples": [{"x": 1.5, "s": "a"}, {"x": [2.0], "s": {"b64": "Yg=="}}, {}]}'
    assert post(server, "examples:classify", body)[::2] == (
        200,
        b'{\n    "results": [[["a", 4.0], ["other", -4.0]], [["b", 5.0], ["other", -5.0]], '
        b'[["none", 1.0], ["other", -1.0]]\n    ]\n}',
    )
    body = b'{"signature_name": "regress", "context": {"x": 20.5}, "examples": [{}, {"x": 1.0}]}'
    assert post(server, "examples/versions/1:regress", body) == (
        200,
        "application/json",
        b'{\n    "results": [42.0, 3.0]\n}',
    )


@pytest.mark.parametrize(
    ("verb", "body", "message"),
    [
        ("classify", b'{"signature_name": "nope", "examples": [{}]}', "No signature was found with the name: nope"),
        ("regress", b'{"examples": [{}]}', "Expected one output Tensor."),
        (
            "classify",
            b'{"signature_name": "flat_classes", "examples": [{}]}',
            "Expected Tensor shape: [batch_size num_classes] but got [1]",
        ),
        ("classify", b'{"examples": [{"x": [1, 1.0]}]}', "Unexpected element type in feature: x expecting type: int64"),
    ],
)
def test_errors_of_examples_come_from_where_they_are_found(
    server: ModelServer, verb: str, body: bytes, message: str
) -> None:
    status, _, answer = post(server, f"examples:{verb}", body)
    assert (status, json.loads(answer)) == (400, {"error": message})


def test_messages_are_answered_by_messages(server: ModelServer) -> None:
    # Not even the model's name: the URL has it.
    predict = PredictRequest(inputs={"x": floats(2.0, 4.0)})
    status, content_type, answer = post(
        server, "half_plus_two/versions/2:predict", predict.SerializeToString(), PROTOBUF
    )
    assert (status, content_type) == (200, "application/x-protobuf")
    predicted = PredictResponse.FromString(answer)
    assert list(predicted.outputs["y"].float_val) == [3.0, 4.0]
    assert (predicted.model_spec.name, predicted.model_spec.version.value) == ("half_plus_two", 2)

    classify = ClassificationRequest()
    classify.input.example_list.examples.append(example(1.5))
    gzipped = gzip.compress(classify.SerializeToString())
    status, _, answer = post(server, "examples:classify", gzipped, {**PROTOBUF, "Content-Encoding": "gzip"})
    assert status == 200
    [classes] = ClassificationResponse.FromString(answer).result.classifications
    assert [(each.label, each.score) for each in classes.classes] == [("none", 4.0), ("other", -4.0)]

    regress = RegressionRequest()
    regress.model_spec.signature_name = "regress"
    regress.input.example_list.examples.append(example(20.5))
    status, _, answer = post(server, "examples:regress", regress.SerializeToString(), PROTOBUF)
    assert (status, RegressionResponse.FromString(answer).result.regressions[0].value) == (200, 42.0)


def test_a_message_that_only_the_worker_can_find_broken_is_a_400(server: ModelServer) -> None:
    # An input that is no TensorProto.
    broken = predict_request("half_plus_two").SerializeToString() + b"\x12\x06\x0a\x01x\x12\x01\xff"
    status, content_type, answer = post(server, "half_plus_two:predict", broken, PROTOBUF)
    assert (status, content_type) == (400, "application/json")
    assert json.loads(answer).keys() == {"error"}


def test_long_answers_are_compressed_and_the_same(server: ModelServer) -> None:
    body = json.dumps({"instances": [float(value) for value in range(2000)]}).encode()
    plain = post(server, "half_plus_two:predict", body)
    compressed = post(server, "half_plus_two:predict", body, {"Accept-Encoding": "gzip"})
    assert plain[0] == compressed[0] == 200
    assert len(compressed[2]) < len(plain[2])
    assert gzip.decompress(compressed[2]) == plain[2]


def test_the_unix_socket_serves_the_same(server: ModelServer, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(TIMEOUT_S)
        client.connect(str(tmp_path / "rest"))
        client.sendall(b"GET /v1/models/examples HTTP/1.0\r\n\r\n")
        received = b""
        while part := client.recv(65536):
            received += part
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b'"AVAILABLE"' in received
