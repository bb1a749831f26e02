"""The command line's tools where a server speaks TLS, on one edge or the other, and where the two disagree.

Each server has one edge that asks for a client's certificate and one in the clear.
"""

import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import trustme
from click.testing import CliRunner, Result

from tensorgate.gateway.cli.access import read_tls
from tensorgate.gateway.cli.connection_trouble import trouble_with
from tensorgate.gateway.cli.main import main
from tests.harness.certificates import issue, write_config
from tests.harness.model_server import START_TIMEOUT_S, ModelServer, running_servers, wait_until

pytest.importorskip("numpy", reason="numpy is not installed: the extra client brings it")

TIMEOUT_S = 30.0


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@dataclasses.dataclass(frozen=True)
class Files:
    """Options that name PEM files; ``x`` is an input."""

    x: str
    ca: str
    other_ca: str
    client: tuple[str, str]
    other_client: tuple[str, str]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, ca: trustme.CA) -> Files:
    folder = tmp_path_factory.mktemp("pem")
    other_ca = trustme.CA()

    def authority(name: str, of: trustme.CA) -> str:
        of.cert_pem.write_to_path(folder / name)
        return f"--ca_cert={folder / name}"

    def client(name: str, of: trustme.CA) -> tuple[str, str]:
        shown = issue(of, "client")
        (folder / f"{name}.pem").write_bytes(shown.chain)
        (folder / f"{name}.key").write_bytes(shown.key)
        return f"--client_cert={folder / name}.pem", f"--client_key={folder / name}.key"

    (folder / "x.json").write_text('{"x": [4, 6]}', encoding="ascii")
    return Files(
        str(folder / "x.json"), authority("ca.pem", ca), authority("other_ca.pem", other_ca), client("client", ca),
        client("other", other_ca),
    )  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("TENSORGATE_TOKEN", "SSL_CERT_FILE", "SSL_CERT_DIR"):
            patch.delenv(name, raising=False)
        # A command sets it otherwise, for good.
        patch.setenv("GRPC_VERBOSITY", "NONE")
        yield


def start_with(
    flag: str, tmp_path_factory: pytest.TempPathFactory, saved_models: pathlib.Path, ca: trustme.CA
) -> Iterator[ModelServer]:
    folder = tmp_path_factory.mktemp(flag)
    write_config(folder / "ssl", issue(ca, "localhost"), client_ca=ca)
    logging = (
        f'logging_config {{ log_collector_config {{ filename_prefix: "{folder / "log" / "requests"}" }} '
        "sampling_config { sampling_rate: 1 } }"
    )
    (folder / "models.config").write_text(
        f'model_config_list {{ config {{ name: "half_plus_two" base_path: "{saved_models / "half_plus_two"}" '
        f'model_platform: "tensorflow" {logging} }} }}',
        encoding="utf-8",
    )
    with running_servers(folder) as start:
        yield start(f"--{flag}={folder / 'ssl'}", f"--model_config_file={folder / 'models.config'}", wait=False)


@pytest.fixture(scope="module")
def grpc_secure(
    tmp_path_factory: pytest.TempPathFactory, saved_models: pathlib.Path, ca: trustme.CA
) -> Iterator[ModelServer]:
    """Ready, with REST in the clear."""
    for server in start_with("ssl_config_file", tmp_path_factory, saved_models, ca):
        wait_until(server.is_ready, "ready", START_TIMEOUT_S)
        yield server


@pytest.fixture(scope="module")
def rest_secure(
    tmp_path_factory: pytest.TempPathFactory, saved_models: pathlib.Path, ca: trustme.CA, files: Files
) -> Iterator[ModelServer]:
    """Ready, with gRPC in the clear."""
    for server in start_with("rest_api_ssl_config_file", tmp_path_factory, saved_models, ca):

        def is_ready(server: ModelServer = server) -> bool:
            assert server.process.poll() is None, server.log
            return tool("status", rest(server), files.ca, *files.client).exit_code == 0

        wait_until(is_ready, "ready over TLS", START_TIMEOUT_S)
        yield server


def grpc(server: ModelServer, host: str = "localhost") -> str:
    return f"--server={host}:{server.port}"


def rest(server: ModelServer, host: str = "localhost") -> str:
    return f"--rest={host}:{server.rest_port}"


def tool(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def predict(files: Files, *arguments: str) -> Result:
    return tool("predict", "half_plus_two", files.x, *arguments)


def bench(*arguments: str) -> Result:
    return tool("bench", "half_plus_two", "--num_requests=5", "--concurrency=2", "--json", *arguments)


def in_one_line(result: Result) -> str:
    """The message of a command that failed."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    (line,) = result.output.splitlines()
    return line


def test_tools_of_grpc_speak_tls_and_show_a_certificate(grpc_secure: ModelServer, files: Files) -> None:
    access = (grpc(grpc_secure), files.ca, *files.client)
    done = predict(files, *access)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["outputs"] == {"y": [4.0, 5.0]}
    (run,) = json.loads(bench(*access).stdout)
    assert run["statuses"] == {"OK": 5}
    folder = grpc_secure.log_path.parent
    logs = folder / "log"
    wait_until(lambda: logs.exists() and bool(list(logs.iterdir())), "a request log")
    config = folder / "models.config"
    done = tool("reload", str(config), *access)
    assert done.output == f"localhost:{grpc_secure.port} serves the models of {config}\n"
    done = tool("replay", str(next(logs.iterdir())), *access)
    assert done.exit_code == 0, done.output
    assert "of OK" in done.output


def test_tools_of_rest_speak_tls_and_show_a_certificate(rest_secure: ModelServer, files: Files) -> None:
    access = (rest(rest_secure), files.ca, *files.client)
    done = tool("status", *access)
    assert done.exit_code == 0, done.output
    assert "half_plus_two" in done.output
    # The other edge is in the clear, and is not asked.
    (run,) = json.loads(bench("--api=rest", *access).stdout)
    assert run["statuses"] == {"OK": 5}


def test_the_edge_in_the_clear_takes_no_options(
    grpc_secure: ModelServer, rest_secure: ModelServer, files: Files
) -> None:
    assert tool("status", rest(grpc_secure)).exit_code == 0
    assert predict(files, grpc(rest_secure)).exit_code == 0


def test_the_systems_authorities_count_for_both_edges(
    grpc_secure: ModelServer, rest_secure: ModelServer, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", files.ca.partition("=")[2])
    assert predict(files, "--tls", grpc(grpc_secure), *files.client).exit_code == 0
    assert tool("status", "--tls", rest(rest_secure), *files.client).exit_code == 0
    for message in (
        in_one_line(predict(files, "--tls", grpc(grpc_secure), files.other_ca, *files.client)),
        in_one_line(tool("status", "--tls", rest(rest_secure), files.other_ca, *files.client)),
    ):
        assert "its authority is none of those of --ca_cert" in message


def test_a_server_reached_by_another_name_is_named(
    grpc_secure: ModelServer, rest_secure: ModelServer, files: Files
) -> None:
    access = (files.ca, *files.client)
    by_grpc, by_rest = grpc(grpc_secure, "127.0.0.1"), rest(rest_secure, "127.0.0.1")
    for message in (in_one_line(predict(files, by_grpc, *access)), in_one_line(tool("status", by_rest, *access))):
        assert "it is for " in message
        assert "not for 127.0.0.1; name the one meant by --tls_server_name" in message
    assert predict(files, by_grpc, *access, "--tls_server_name=localhost").exit_code == 0
    assert tool("status", by_rest, *access, "--tls_server_name=localhost").exit_code == 0


def test_a_client_without_a_certificate_is_told_of_its_options(
    grpc_secure: ModelServer, rest_secure: ModelServer, files: Files
) -> None:
    for certificate, advice in (
        ((), "add --client_cert=FILE and --client_key=FILE"),
        (
            files.other_client,
            "it may not trust the certificate of --client_cert",
        ),
    ):
        for result in (
            predict(files, grpc(grpc_secure), files.ca, *certificate),
            tool("status", rest(rest_secure), files.ca, *certificate),
            bench("--api=rest", rest(rest_secure), files.ca, *certificate),
        ):
            message = in_one_line(result)
            assert "refuses the TLS connection" in message
            assert advice in message


def test_plain_text_to_a_server_of_tls_and_the_other_way_round(
    grpc_secure: ModelServer, rest_secure: ModelServer, files: Files
) -> None:
    for result in (
        predict(files, grpc(grpc_secure)),
        tool("reload", str(grpc_secure.log_path.parent / "models.config"), grpc(grpc_secure)),
        tool("status", rest(rest_secure)),
        bench("--api=rest", rest(rest_secure)),
    ):
        assert "speaks TLS: add --tls, or --ca_cert=FILE" in in_one_line(result)
    for result in (
        predict(files, grpc(rest_secure), files.ca),
        tool("status", rest(grpc_secure), files.ca),
        bench(grpc(rest_secure), "--tls"),
    ):
        assert "answers no TLS handshake: if it speaks plain text, leave out --tls" in in_one_line(result)


def test_the_other_edges_port_is_found_out(grpc_secure: ModelServer, rest_secure: ModelServer, files: Files) -> None:
    access = (files.ca, *files.client)
    to_rest = in_one_line(predict(files, f"--server=localhost:{rest_secure.rest_port}", *access))
    assert "speaks TLS, but no gRPC: is it the port of REST?" in to_rest
    for to_grpc in (
        in_one_line(tool("status", f"--rest=localhost:{grpc_secure.port}", *access)),
        in_one_line(tool("status", f"--rest=localhost:{rest_secure.port}")),
    ):
        assert "speaks no HTTP/1.1; is it the port of gRPC?" in to_grpc
    assert "No gRPC server answers" in in_one_line(predict(files, f"--server=localhost:{grpc_secure.rest_port}"))


def test_nothing_but_the_message_is_on_the_terminal(grpc_secure: ModelServer, files: Files) -> None:
    """As a process: what grpcio writes itself does not pass through Python's streams."""
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    done = subprocess.run(
        [sys.executable, "-m", "tensorgate.gateway.cli.main", "predict", "m", "-", grpc(grpc_secure), files.other_ca],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env=environment,
    )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: UNAVAILABLE: The server at localhost:")


@contextlib.contextmanager
def handshakes(context: ssl.SSLContext) -> Iterator[int]:
    """The port of a server that ends each connection after its handshake."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                with contextlib.suppress(OSError), listener.accept()[0] as plain:
                    plain.settimeout(TIMEOUT_S)
                    if stops.is_set():
                        return
                    context.wrap_socket(plain, server_side=True).close()

        stops = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stops.set()
            socket.create_connection(listener.getsockname(), TIMEOUT_S).close()
            thread.join()


@pytest.mark.parametrize(
    ("days_left", "trouble"),
    [
        (-1, "shows a certificate that cannot be trusted: certificate has expired; the server needs another one"),
        (1, "refuses the TLS connection (without a word): if it asks for a client's certificate"),
    ],
)
def test_certificates_that_expired_and_servers_that_hang_up_are_told_apart(
    ca: trustme.CA, files: Files, days_left: int, trouble: str
) -> None:
    not_after = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days_left)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2"])
    ca.issue_cert("localhost", not_after=not_after).configure_cert(context)
    tls = read_tls(files.ca.partition("=")[2])
    with handshakes(context) as port:
        found = trouble_with("localhost", port, tls, speaks_grpc=True)
    assert found.startswith(f"The server at localhost:{port} {trouble}")
