"""The REST server as a client meets it: a real port, a real thread, and a dispatcher that needs no worker."""

import http.client
import json
import logging
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.servable_state import ManagerState, ServableState
from tensorgate.gateway.rest.http_arrival import ArrivalLimits
from tensorgate.gateway.rest.server import RestOptions, RestServer
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow_serving.apis import predict_pb2
from tests.fakes.fake_dispatcher import FakeDispatcher, make_signature, make_signatures

TIMEOUT_S = 20.0
PREDICT_PATH = "/v1/models/echo:predict"


class FakeMonitor:
    """Knows echo, version 1."""

    def versions(self, name: str) -> Sequence[ServableState]:
        return [ServableState(ServableId(name, 1), ManagerState.AVAILABLE, None, 0)] if name == "echo" else []


def echo(request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
    response = predict_pb2.PredictResponse()
    response.outputs["y"].CopyFrom(request.inputs["x"])
    return response


@pytest.fixture
def dispatcher() -> FakeDispatcher:
    made = FakeDispatcher(echo)
    made.add("echo", 1, make_signatures(serving_default=make_signature({"x": types_pb2.DT_FLOAT})))
    return made


@pytest.fixture
def server(dispatcher: FakeDispatcher) -> Iterator[RestServer]:
    made = RestServer("127.0.0.1", 0, dispatcher, FakeMonitor(), RestOptions(max_body_bytes=2_000_000))
    made.start()
    made.set_ready(True)
    yield made
    made.stop(1.0)


def connect(server: RestServer) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)


def ask(
    connection: http.client.HTTPConnection, verb: str, path: str, body: bytes | None = None
) -> tuple[int, bytes, str | None]:
    connection.request(verb, path, body)
    response = connection.getresponse()
    return response.status, response.read(), response.getheader("Content-Type")


def send_raw(server: RestServer, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT_S) as connection:
        connection.sendall(request)
        received = b""
        while part := connection.recv(65536):
            received += part
    return received


def test_a_connection_serves_requests_of_every_kind(server: RestServer) -> None:
    connection = connect(server)
    assert ask(connection, "GET", "/healthz") == (200, b"ok\n", "text/plain; charset=utf-8")
    assert ask(connection, "POST", PREDICT_PATH, b'{"instances": [1, 2.5]}') == (
        200,
        b'{\n    "predictions": [1.0, 2.5\n    ]\n}',
        "application/json",
    )
    status, body, _ = ask(connection, "GET", "/v1/models/echo?any=query")
    assert (status, json.loads(body)["model_version_status"][0]["version"]) == (200, "1")
    assert ask(connection, "POST", "/v1/models/nobody:predict", b"{}")[:2] == (
        404,
        b'{\n    "error": "Servable not found for request: Latest(nobody)"\n}',
    )
    assert ask(connection, "HEAD", PREDICT_PATH)[:2] == (400, b"")
    assert ask(connection, "GET", "/nothing")[0] == 404
    connection.close()


def test_a_large_request_comes_through_whole(server: RestServer) -> None:
    values = [float(value) for value in range(100_000)]
    connection = connect(server)
    status, body, _ = ask(connection, "POST", PREDICT_PATH, json.dumps({"instances": values}).encode())
    connection.close()
    assert (status, json.loads(body)) == (200, {"predictions": values})


def test_a_body_beyond_the_limit_is_answered_although_it_is_not_kept(server: RestServer) -> None:
    connection = connect(server)
    assert ask(connection, "POST", PREDICT_PATH, bytes(3_000_000))[0] == 413
    # What was sent has been read away, so that the connection is still of use.
    assert ask(connection, "GET", "/healthz")[0] == 200
    connection.close()


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v1/models/echo:predict HTTP/1.1\r\nConnection: close\r\nContent-Length: 18\r\n\r\n",
        b"POST http://somewhere/v1/models/echo:predict HTTP/1.1\r\nConnection: close\r\nContent-Length: 18\r\n\r\n",
        b"POST /v1/models/echo:predict HTTP/1.0\r\nContent-Length: 18\r\n\r\n",
        b"POST /V1/models/%65cho:predict?x=/y HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 18\r\n\r\n",
    ],
)
def test_unusual_but_legal_requests_are_served(server: RestServer, head: bytes) -> None:
    assert b'"predictions": [1.0' in send_raw(server, head + b'{"instances": [1]}')


def test_what_is_not_http_is_refused_and_not_logged(server: RestServer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        assert send_raw(server, b"this is not HTTP at all\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert caplog.records == []


def test_a_port_that_is_taken_is_named(server: RestServer, dispatcher: FakeDispatcher) -> None:
    second = RestServer("127.0.0.1", server.port, dispatcher, FakeMonitor(), RestOptions())
    with pytest.raises(
        ServingError, match=f"cannot listen on 127.0.0.1:{server.port}: Address already in use"
    ) as caught:
        second.start()
    assert caught.value.code is Code.UNAVAILABLE
    second.stop(0.0)


def test_a_unix_socket_serves_the_same_and_leaves_no_file(dispatcher: FakeDispatcher, tmp_path: Path) -> None:
    path = tmp_path / "rest.socket"
    made = RestServer("", None, dispatcher, FakeMonitor(), RestOptions(socket_path=str(path)))
    made.start()
    made.set_ready(True)
    assert made.port is None
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(TIMEOUT_S)
        client.connect(str(path))
        client.sendall(
            b"POST /v1/models/echo:predict HTTP/1.1\r\nConnection: close\r\nContent-Length: 18\r\n\r\n"
            b'{"instances": [1]}'
        )
        received = b""
        while part := client.recv(65536):
            received += part
    assert b'"predictions": [1.0' in received
    second = RestServer("", None, dispatcher, FakeMonitor(), RestOptions(socket_path=str(path)))
    with pytest.raises(ServingError, match="The REST server cannot listen on unix:"):
        second.start()
    made.stop(1.0)
    assert not path.exists()


def test_every_address_is_ipv4_too(dispatcher: FakeDispatcher) -> None:
    made = RestServer("", 0, dispatcher, FakeMonitor(), RestOptions())
    made.start()
    connection = connect(made)
    assert ask(connection, "GET", "/readyz")[0] == 503
    connection.close()
    made.stop(0.0)


def test_stopping_ends_what_outlives_the_grace_and_cancels_its_call(dispatcher: FakeDispatcher) -> None:
    dispatcher.answer = None
    made = RestServer("127.0.0.1", 0, dispatcher, FakeMonitor(), RestOptions())
    made.start()
    made.set_ready(True)
    connection = connect(made)
    connection.request("POST", PREDICT_PATH, b'{"instances": [1]}')
    assert dispatcher.has_submitted.wait(TIMEOUT_S)
    made.stop(0.0)
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())) == (503, {"error": "The server is shutting down."})
    connection.close()
    assert dispatcher.submitted[0].cancelled == [True]
    with pytest.raises(ConnectionRefusedError):
        connect(made).connect()


def test_a_request_that_never_becomes_complete_gets_its_answer_and_the_end(dispatcher: FakeDispatcher) -> None:
    limits = ArrivalLimits(headers_s=0.1, body_s=0.1)
    made = RestServer("127.0.0.1", 0, dispatcher, FakeMonitor(), RestOptions(arrival_limits=limits))
    made.start()
    made.set_ready(True)
    head = b"POST /v1/models/echo:predict HTTP/1.1\r\nContent-Length: 18\r\n\r\n"
    for part in (head[:20], head, head + b"{"):
        received = send_raw(made, part)
        assert received.startswith(b"HTTP/1.1 408 Request Timeout\r\n"), received
        assert b"within 0.1 s." in received
    assert send_raw(made, b"") == b""
    made.stop(1.0)


def test_an_upload_that_is_not_complete_does_not_hold_up_the_end(dispatcher: FakeDispatcher) -> None:
    made = RestServer("127.0.0.1", 0, dispatcher, FakeMonitor(), RestOptions())
    made.start()
    made.set_ready(True)
    with socket.create_connection(("127.0.0.1", made.port), timeout=TIMEOUT_S) as connection:
        # Once the server has asked for the body, it has the headers.
        head = b"POST /v1/models/echo:predict HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 100000\r\n\r\n"
        connection.sendall(head)
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"{" * 50_000)
        began = time.monotonic()
        made.stop(30.0)
        assert time.monotonic() - began < 10
        received = b""
        while part := connection.recv(65536):
            received += part
    assert received.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"\r\nconnection: close\r\n" in received
    assert b"The server is shutting down." in received


def test_a_server_that_never_started_can_be_stopped(dispatcher: FakeDispatcher) -> None:
    made = RestServer("127.0.0.1", 0, dispatcher, FakeMonitor(), RestOptions())
    made.stop(1.0)
    made.stop(1.0)
