"""TLS of both gRPC edges and of REST: who is let in, who is not, and certificates that change while it runs."""

import contextlib
import datetime
import http.client
import json
import pathlib
import re
import socket
import ssl
from collections.abc import Iterator

import grpc
import pytest
import trustme

from tensorgate.protos.tensorflow_serving.apis import prediction_service_pb2_grpc
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictRequest
from tests.harness.certificates import Shown, issue, write_config
from tests.harness.model_server import START_TIMEOUT_S, ModelServer, StartServer, floats, predict_request, wait_until

TIMEOUT_S = 30.0
BODY = json.dumps({"signature_name": "float32", "instances": [1.5]}).encode()


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def other_ca() -> trustme.CA:
    return trustme.CA()


@contextlib.contextmanager
def channel_to(
    server: ModelServer, ca: trustme.CA, client: Shown | None = None, name: str | None = None
) -> Iterator[grpc.Channel]:
    credentials = grpc.ssl_channel_credentials(
        ca.cert_pem.bytes(), None if client is None else client.key, None if client is None else client.chain
    )
    # Each channel a connection of its own.
    options: list[tuple[str, int | str]] = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", -1),
    ]
    options += [] if name is None else [("grpc.ssl_target_name_override", name)]
    with grpc.secure_channel(f"localhost:{server.port}", credentials, options) as channel:
        yield channel


def float_request(*values: float) -> PredictRequest:
    request = predict_request("echo", x=floats(*values))
    request.model_spec.signature_name = "float32"
    return request


def predict(channel: grpc.Channel, *values: float, timeout_s: float = TIMEOUT_S) -> list[float]:
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    response = stub.Predict(float_request(*(values or (1.5,))), timeout=timeout_s)
    return list(response.outputs["y"].float_val)


def is_refused(server: ModelServer, ca: trustme.CA, client: Shown | None = None, name: str | None = None) -> bool:
    """Whether no call gets through; grpcio tries again and again until the call's time is over."""
    with channel_to(server, ca, client, name) as channel:
        try:
            predict(channel, timeout_s=3)
        except grpc.RpcError as error:
            return error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    return False


@pytest.fixture(scope="module", params=["native", "grpcio"])
def edge(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def start(
    start_server: StartServer, saved_models: pathlib.Path, config: pathlib.Path, edge: str, *flags: str
) -> ModelServer:
    """Ready; with REST in the clear."""
    return start_server(*flags_for(saved_models, config, edge), *flags)


def start_all_secure(
    start_server: StartServer, saved_models: pathlib.Path, config: pathlib.Path, edge: str, client: ssl.SSLContext
) -> ModelServer:
    """Ready; with REST in TLS as well."""
    flags = [*flags_for(saved_models, config, edge), f"--rest_api_ssl_config_file={config}"]
    server = start_server(*flags, wait=False)

    def is_ready() -> bool:
        assert server.process.poll() is None, server.log
        try:
            return rest(server, client, "GET", "/readyz")[0] == 200
        except OSError:
            return False

    wait_until(is_ready, "ready over TLS", START_TIMEOUT_S)
    return server


def flags_for(saved_models: pathlib.Path, config: pathlib.Path, edge: str) -> list[str]:
    return [
        "--model_name=echo",
        f"--model_base_path={saved_models / 'echo'}",
        f"--grpc_edge={edge}",
        f"--ssl_config_file={config}",
    ]


def rest(
    server: ModelServer, client: ssl.SSLContext, method: str, path: str, body: bytes | None = None
) -> tuple[int, bytes]:
    connection = http.client.HTTPSConnection("localhost", server.rest_port, timeout=TIMEOUT_S, context=client)
    with contextlib.closing(connection):
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read()


def client_context(ca: trustme.CA, client: trustme.LeafCert | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    if client is not None:
        client.configure_cert(context)
    return context


def test_grpc_speaks_tls_and_nothing_else(
    start_server: StartServer,
    saved_models: pathlib.Path,
    tmp_path: pathlib.Path,
    ca: trustme.CA,
    other_ca: trustme.CA,
    edge: str,
) -> None:
    write_config(tmp_path / "ssl", issue(ca, "localhost"))
    server = start(start_server, saved_models, tmp_path / "ssl", edge, f"--grpc_socket_path={tmp_path / 'grpc'}")
    assert f"gRPC listens on 0.0.0.0:{server.port}, with TLS" in server.log
    with channel_to(server, ca) as channel:
        assert predict(channel) == [1.5]
        # Both ways in many records.
        many = [float(i) for i in range(2_500_000)]
        assert predict(channel, *many) == many
        # A client in the clear, one that trusts others only, and one that wants another server meanwhile.
        with pytest.raises(grpc.RpcError):
            predict(server.channel, timeout_s=3)
        assert is_refused(server, other_ca)
        assert is_refused(server, ca, name="elsewhere")
        assert predict(channel) == [1.5]
    credentials = grpc.ssl_channel_credentials(ca.cert_pem.bytes())
    options = [("grpc.ssl_target_name_override", "localhost")]
    with grpc.secure_channel(f"unix:{tmp_path / 'grpc'}", credentials, options) as channel:
        assert predict(channel) == [1.5]


def test_clients_have_to_show_a_certificate_of_the_right_authority(
    start_server: StartServer,
    saved_models: pathlib.Path,
    tmp_path: pathlib.Path,
    ca: trustme.CA,
    other_ca: trustme.CA,
    edge: str,
) -> None:
    write_config(tmp_path / "ssl", issue(ca, "localhost"), client_ca=ca)
    server = start(start_server, saved_models, tmp_path / "ssl", edge)
    client = issue(ca, "client")
    past = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
    with channel_to(server, ca, client) as channel:
        assert predict(channel) == [1.5]
        assert is_refused(server, ca)
        assert is_refused(server, ca, issue(other_ca, "client"))
        assert is_refused(server, ca, issue(ca, "client", not_after=past))
        assert predict(channel) == [1.5]
    # Of two connections in a row the second may take up the session of the first.
    for _ in range(2):
        with channel_to(server, ca, client) as channel:
            assert predict(channel) == [1.5]


def serial_of(port: int, ca: trustme.CA, protocol: str) -> str:
    """Of the certificate that the server shows."""
    context = client_context(ca)
    context.set_alpn_protocols([protocol])
    with (
        socket.create_connection(("localhost", port), TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        assert connection.selected_alpn_protocol() == protocol
        return str((connection.getpeercert() or {})["serialNumber"])


def test_certificates_are_replaced_while_connections_last(
    start_server: StartServer, saved_models: pathlib.Path, tmp_path: pathlib.Path, ca: trustme.CA, edge: str
) -> None:
    config = tmp_path / "ssl"
    write_config(config, issue(ca, "localhost"))
    server = start_all_secure(start_server, saved_models, config, edge, client_context(ca))
    grpc_port, rest_port = (server.port, "h2"), (server.rest_port, "http/1.1")
    with channel_to(server, ca) as channel:
        assert predict(channel) == [1.5]
        first = serial_of(grpc_port[0], ca, grpc_port[1])
        assert serial_of(rest_port[0], ca, rest_port[1]) == first
        write_config(config, issue(ca, "localhost"))
        for port, protocol in (grpc_port, rest_port):
            wait_until(lambda at=port, by=protocol: serial_of(at, ca, by) != first, "the new certificate")  # type: ignore[misc]
        second = serial_of(grpc_port[0], ca, grpc_port[1])
        assert serial_of(rest_port[0], ca, rest_port[1]) == second
        config.write_text("server_key: 'none of that'", encoding="utf-8")
        wait_until(lambda: "the certificates in use stay in use" in server.log, "the refusal in the log")
        assert serial_of(grpc_port[0], ca, grpc_port[1]) == second
        assert predict(channel) == [1.5]


def test_rest_speaks_tls_and_asks_for_certificates(
    start_server: StartServer, saved_models: pathlib.Path, tmp_path: pathlib.Path, ca: trustme.CA, other_ca: trustme.CA
) -> None:
    write_config(tmp_path / "ssl", issue(ca, "localhost"), client_ca=ca)
    client = client_context(ca, ca.issue_cert("client"))
    server = start_all_secure(start_server, saved_models, tmp_path / "ssl", "native", client)
    status, answer = rest(server, client, "POST", "/v1/models/echo:predict", BODY)
    assert (status, json.loads(answer)) == (200, {"predictions": [1.5]})
    long = json.dumps({"signature_name": "float32", "instances": [i / 4 for i in range(300_000)]}).encode()
    status, answer = rest(server, client, "POST", "/v1/models/echo:predict", long)
    assert status == 200
    assert json.loads(answer)["predictions"] == [i / 4 for i in range(300_000)]
    for stranger in (client_context(ca), client_context(ca, other_ca.issue_cert("client")), client_context(other_ca)):
        with pytest.raises(OSError):  # noqa: PT011 - which one depends on when the client hears of it
            rest(server, stranger, "GET", "/readyz")
    with pytest.raises((OSError, http.client.HTTPException)):
        server.rest("GET", "/readyz")
    assert rest(server, client, "GET", "/readyz")[0] == 200


def test_what_is_no_handshake_or_no_http_2_harms_nobody(
    start_server: StartServer, saved_models: pathlib.Path, tmp_path: pathlib.Path, ca: trustme.CA
) -> None:
    write_config(tmp_path / "ssl", issue(ca, "localhost"))
    server = start(start_server, saved_models, tmp_path / "ssl", "native")
    with channel_to(server, ca) as channel:
        assert predict(channel) == [1.5]
        silent = socket.create_connection(("localhost", server.port), TIMEOUT_S)
        for said in (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 70_000, b"\0" * 1000):
            with (
                socket.create_connection(("localhost", server.port), TIMEOUT_S) as garbage,
                contextlib.suppress(ConnectionError),
            ):
                garbage.sendall(said)
                while garbage.recv(4096):
                    pass
        web = client_context(ca)
        web.set_alpn_protocols(["http/1.1"])
        with (
            socket.create_connection(("localhost", server.port), TIMEOUT_S) as plain,
            pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"),
        ):
            web.wrap_socket(plain, server_hostname="localhost")
        # HTTP/2 it says, and then speaks something else.
        web.set_alpn_protocols(["h2"])
        with (
            socket.create_connection(("localhost", server.port), TIMEOUT_S) as plain,
            web.wrap_socket(plain, server_hostname="localhost") as connection,
            contextlib.suppress(ConnectionError),
        ):
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            while connection.recv(4096):
                pass
        # Half a handshake byte by byte, and the client is gone.
        with socket.create_connection(("localhost", server.port), TIMEOUT_S) as slow:
            for _ in range(3):
                slow.sendall(b"\x16\x03\x01"[:1])
        assert predict(channel) == [1.5]
        silent.close()
    metrics = server.rest("GET", "/metrics")[1]
    assert isinstance(metrics, str)
    assert re.search(r"\ntensorgate_grpc_tls_failures_total [1-9]", metrics)


def test_many_clients_at_once(
    start_server: StartServer, saved_models: pathlib.Path, tmp_path: pathlib.Path, ca: trustme.CA
) -> None:
    write_config(tmp_path / "ssl", issue(ca, "localhost"))
    server = start(start_server, saved_models, tmp_path / "ssl", "native", "--grpc_edge_threads=2")
    values = [float(i) for i in range(20_000)]
    with contextlib.ExitStack() as stack:
        channels = [stack.enter_context(channel_to(server, ca)) for _ in range(16)]
        stubs = [prediction_service_pb2_grpc.PredictionServiceStub(channel) for channel in channels]
        calls = [stub.Predict.future(float_request(*values), timeout=TIMEOUT_S) for stub in stubs for _ in range(8)]
        for call in calls:
            assert list(call.result().outputs["y"].float_val) == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("server_kee: 'x'", 'has no field named "server_kee"'),
        ("server_key: 'x' server_cert: 'y'", "cannot be used"),
        ("", "cannot be used"),
    ],
)
@pytest.mark.parametrize("flag", ["ssl_config_file", "rest_api_ssl_config_file"])
def test_a_file_that_cannot_be_used_stops_the_start(
    start_server: StartServer, tmp_path: pathlib.Path, flag: str, text: str, message: str
) -> None:
    (tmp_path / "ssl").write_text(text, encoding="utf-8")
    server = start_server("--model_base_path=/none", f"--{flag}={tmp_path / 'ssl'}", wait=False)
    assert server.process.wait(TIMEOUT_S) == 255
    assert message in server.log
    assert str(tmp_path / "ssl") in server.log
