"""The files of docker/: what can be said of them without an engine, and that they fit the server they are for."""

import contextlib
import http.server
import importlib.util
import json
import os
import pathlib
import re
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import ModuleType

import pytest
import trustme

from tensorgate._native.data_plane import DataPlane
from tensorgate.gateway.monitoring.metrics import MetricsPage, ServerCollector
from tests.harness.model_server import free_port

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
DOCKERFILES = ["Dockerfile.cpu", "Dockerfile.gpu"]
EDGE_COUNTERS = (
    "accepted", "closed", "protocol_errors", "rapid_resets", "keepalive_deaths", "tls_failures", "succeeded", "failed",
    "cancelled", "refused_for_memory", "received_bytes", "sent_bytes",
)  # fmt: skip


def program(name: str) -> ModuleType:
    """One of docker/'s programs, as a module."""
    spec = importlib.util.spec_from_file_location(name, DOCKER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", DOCKERFILES)
def test_a_dockerfile_says_only_what_the_trial_without_an_engine_carries_out(name: str) -> None:
    stages = program("try_images").read_dockerfile((DOCKER / name).read_text(encoding="utf-8"))
    assert [stage.name for stage in stages] == ["build", "code", "server-packages", "gateway", "worker", "server"]
    for stage in stages:
        for instruction, rest in stage.steps:
            if instruction == "COPY" and "--from=" not in rest:
                for source in rest.split()[:-1]:
                    assert (ROOT / source).exists(), f"{name} copies {source}"
    with pytest.raises(ValueError, match="unknown instruction"):
        program("try_images").read_dockerfile("FROM a AS b\nVOLUME /x\n")


def test_the_image_for_gpus_is_that_for_cpus_with_another_tensorflow() -> None:
    cpu, gpu = (
        [line for line in (DOCKER / name).read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
        for name in DOCKERFILES
    )
    extra = [line for line in gpu if line not in cpu]
    assert extra == [
        "    python3 /source/requirements.py /source/pyproject.toml gpu > /tmp/server.txt \\",
        *2 * ["ENV NVIDIA_VISIBLE_DEVICES=all", "ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility"],
    ]
    assert [line.replace(" gpu >", " cpu >") for line in gpu if line not in extra[1:]] == cpu


def test_the_packages_are_those_of_pyproject() -> None:
    if sys.version_info < (3, 11):
        pytest.skip("tomllib came with Python 3.11, which the images have")
    done = subprocess.run(
        [sys.executable, DOCKER / "requirements.py", ROOT / "pyproject.toml", "cpu"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("tensorflow")] == lines[-1:]
    assert any(line.startswith("pyzmq") for line in lines)


@pytest.mark.parametrize(
    ("environment", "flags", "told"),
    [
        (
            {"MODEL_NAME": "mnist", "MODEL_BASE_PATH": "/models"},
            ["--enable_batching", "--port=9 9"],
            [
                "--port=8500", "--rest_api_port=8501", "--model_name=mnist", "--model_base_path=/models/mnist",
                "--enable_batching", "--port=9 9",
            ],
        ),
        (
            {"MODEL_NAME": "a b", "MODEL_BASE_PATH": "gs://x"},
            [],
            ["--port=8500", "--rest_api_port=8501", "--model_name=a b", "--model_base_path=gs://x/a b"],
        ),
    ],
)  # fmt: skip
def test_the_entrypoint_starts_the_server_as_the_official_images_does(
    tmp_path: pathlib.Path, environment: dict[str, str], flags: list[str], told: list[str]
) -> None:
    server = tmp_path / "tensorflow_model_server"
    server.write_text('#!/bin/sh\nfor each in "$@"; do printf "%s\\n" "$each"; done\n', encoding="ascii")
    server.chmod(0o755)
    done = subprocess.run(
        [DOCKER / "entrypoint.sh", *flags],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", **environment},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == told


@contextlib.contextmanager
def answering(status: int, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """The port of an HTTP server, over TLS with a context, that gives every request the status."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(self.path.encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def health(port: int, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, DOCKER / "healthcheck.py"],
        env={**os.environ, "HEALTHCHECK_REST_PORT": str(port), **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout.strip()


def test_the_health_check_is_readyz() -> None:
    with answering(200) as port:
        assert health(port) == (0, "/readyz")
    with answering(503) as port:
        assert health(port) == (1, "/readyz")
    assert health(free_port())[0] == 1


def test_the_health_check_speaks_tls_where_the_server_does(tmp_path: pathlib.Path) -> None:
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("model-server.example").configure_cert(context)
    with answering(200, context) as port:
        assert health(port) == (0, "/readyz")
    with answering(503, context) as port:
        assert health(port) == (1, "/readyz")
    context.verify_mode = ssl.CERT_REQUIRED
    ca.configure_trust(context)
    own = tmp_path / "own.pem"
    ca.issue_cert("health-check").private_key_and_cert_chain_pem.write_to_path(own)
    with answering(200, context) as port:
        # What is said of it depends on whether the alert comes before the end.
        assert health(port)[0] == 1
        assert health(port, HEALTHCHECK_CLIENT_CERT=str(own)) == (0, "/readyz")


def test_compose_and_grafana_name_files_and_ports_that_are_there() -> None:
    yaml = pytest.importorskip("yaml", reason='PyYAML is not installed: pip install -e ".[dev]"')
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))["services"]
    assert set(services) == {"tensorgate", "prometheus", "grafana"}
    for service in services.values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert not source.startswith("./") or (DOCKER / source).is_file(), source
    build = services["tensorgate"]["build"]
    assert (DOCKER / build["context"] / build["dockerfile"]).is_file()
    scrape = yaml.safe_load((DOCKER / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    assert [each["static_configs"][0]["targets"] for each in scrape] == [["tensorgate:8501"]]
    assert yaml.safe_load((DOCKER / "grafana" / "datasource.yml").read_text(encoding="utf-8"))["datasources"]
    assert yaml.safe_load((DOCKER / "grafana" / "boards.yml").read_text(encoding="utf-8"))["providers"]


def test_compose_has_the_gateway_find_workers_by_their_service_and_gives_all_of_them_the_key() -> None:
    yaml = pytest.importorskip("yaml", reason='PyYAML is not installed: pip install -e ".[dev]"')
    document = yaml.safe_load((DOCKER / "compose.workers.yaml").read_text(encoding="utf-8"))
    services = document["services"]
    stages = {stage.name: stage for stage in program("try_images").read_dockerfile(
        (DOCKER / "Dockerfile.cpu").read_text(encoding="utf-8")
    )}  # fmt: skip
    entrypoint = dict(stages["worker"].steps)["ENTRYPOINT"]
    port = re.search(r"--listen=tcp://0\.0\.0\.0:(\d+)", entrypoint)
    assert port is not None
    assert set(services) == {"gateway", "worker"}
    assert services["gateway"]["command"][0] == f"--workers=dns://worker:{port[1]}"
    # A name of its own would keep it from having several containers.
    assert "container_name" not in services["worker"]
    for service in services.values():
        assert service["build"]["target"] in stages
        assert "--worker_key_file=/run/secrets/workers_key" in service["command"]
        assert service["secrets"] == list(document["secrets"])
    assert services["worker"]["restart"] == "always"


def test_the_board_shows_metrics_that_the_server_has() -> None:
    board = json.loads((DOCKER / "grafana" / "tensorgate.json").read_text(encoding="utf-8"))
    plane = DataPlane(1)
    page = MetricsPage(
        ServerCollector(
            "native", "native", lambda: dict.fromkeys(EDGE_COUNTERS, 0), plane.counters, lambda: 0, plane.shared_memory
        )
    )
    there = set(re.findall(r"^([a-z_]+)(?=[ {])", page.text().decode(), re.MULTILINE))
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    wanted = {name for each in expressions for name in re.findall(r"\b(?:tensorgate|process)_[a-z_]+", each)}
    assert len(wanted) >= 10
    assert wanted <= there


def test_systemd_accepts_the_unit(tmp_path: pathlib.Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    text = (DOCKER / "tensorgate.service").read_text(encoding="utf-8")
    assert "/usr/local/bin/tensorflow_model_server" in text
    unit = tmp_path / "tensorgate.service"
    unit.write_text(text.replace("/usr/local/bin/tensorflow_model_server", "/bin/true"), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if "tensorgate" in line]
    assert (done.returncode, complaints) == (0, []), done.stderr
