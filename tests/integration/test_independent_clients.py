"""Clients that share no code with ours or with gRPC's C core get from the server what they should.

grpc-js (on Node's HTTP/2, which is nghttp2), grpclib (on h2), nghttp and curl. What is not installed, or cannot be had
from npm, makes its tests skip.
"""

import base64
import gzip
import importlib.util
import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tensorgate._native import nghttp2_api
from tensorgate._native.shared_library import LibraryError
from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tests.harness.model_server import (
    ModelServer,
    config_flag,
    floats,
    free_port,
    predict_request,
    running_servers,
)

HARNESS = pathlib.Path(__file__).parents[1] / "harness"
PATH = "/tensorflow.serving.PredictionService/Predict"
GRPC_JS = "@grpc/grpc-js@^1.12"
LARGE = 10 * (1 << 20)
# The first one makes the models.
pytestmark = pytest.mark.timeout(300)
# Seconds at least, and not for ever: a run that nobody waits for any more goes on to its end.
SLOW_ROUNDS = 4000
MODELS = ("half_plus_two", "echo", "slow")
OK, CANCELLED, DEADLINE_EXCEEDED, NOT_FOUND, RESOURCE_EXHAUSTED = 0, 1, 4, 5, 8
NO_MODEL = "Servable not found for request: Latest(nobody)"


@dataclass
class Served:
    """A server on a port of its own, which can be stopped and started again there."""

    start: Callable[[], ModelServer]
    port: int
    server: ModelServer

    def restart(self) -> None:
        assert self.server.stop() == 0
        self.server = self.start()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, saved_models: pathlib.Path) -> Iterator[Served]:
    try:
        nghttp2_api.load_library()
    except LibraryError as error:
        pytest.skip(f"the native gRPC edge cannot run here: {error}")
    folder = tmp_path_factory.mktemp("independent")
    config = config_flag(folder, {name: saved_models / name for name in MODELS})
    port = free_port()
    with running_servers(folder) as start_any:

        def start() -> ModelServer:
            return start_any(config, f"--port={port}", "--grpc_channel_arguments=grpc.default_compression_algorithm=2")

        yield Served(start, port, start())


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with a serialized request a case."""
    folder = tmp_path_factory.mktemp("requests")
    large = PredictRequest()
    large.model_spec.name = "echo"
    large.model_spec.signature_name = "uint8"
    large.inputs["x"].dtype = types_pb2.DT_UINT8
    large.inputs["x"].tensor_shape.dim.add(size=LARGE)
    large.inputs["x"].tensor_content = os.urandom(1000) * (LARGE // 1000) + bytes(LARGE % 1000)
    messages = {
        "predict": predict_request("half_plus_two", x=floats(1, 2, 5)),
        "unknown": predict_request("nobody", x=floats(1)),
        "slow": predict_request("slow", rounds=TensorProto(dtype=types_pb2.DT_INT32, int_val=[SLOW_ROUNDS])),
        "large": large,
    }
    for name, message in messages.items():
        (folder / name).write_bytes(message.SerializeToString())
    return folder


def is_right(message: bytes) -> bool:
    """The answer to "predict", from version 2 of the model."""
    return list(PredictResponse.FromString(message).outputs["y"].float_val) == [2.5, 3.0, 4.5]


def is_echo(message: bytes, folder: pathlib.Path) -> bool:
    """The answer to "large"."""
    sent = PredictRequest.FromString((folder / "large").read_bytes()).inputs["x"].tensor_content
    tensor = PredictResponse.FromString(message).outputs["y"]
    return (tensor.tensor_content or np.array(tensor.int_val, np.uint8).tobytes()) == sent


# --- clients of gRPC --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder in which npm has installed grpc-js."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("node")
    installed = subprocess.run(
        ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", folder, GRPC_JS],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    if installed.returncode != 0:
        pytest.skip(f"npm cannot install {GRPC_JS}: {installed.stderr[-300:]}")
    return folder / "node_modules"


def results_of(command: list[str], served: Served, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """Runs a client through its cases, and the server through a restart where the client asks for it."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    ) as client:
        try:
            assert client.stdin is not None
            assert client.stdout is not None
            assert client.stdout.readline() == "restart?\n"
            served.restart()
            client.stdin.write("\n")
            client.stdin.flush()
            results: dict[str, Any] = json.loads(client.stdout.readline())
            return results
        finally:
            client.kill()


def check(results: dict[str, Any], folder: pathlib.Path) -> None:
    for case in ("predict", "metadata", "reconnect"):
        assert results[case]["code"] == OK, (case, results[case])
        assert is_right(base64.b64decode(results[case]["answer"])), case
    for case in {"large", "gzip"} & set(results):
        assert results[case]["code"] == OK, (case, results[case])
        assert is_echo(base64.b64decode(results[case]["answer"]), folder), case
    assert results["error"] == {"code": NOT_FOUND, "details": NO_MODEL}
    assert results["deadline"]["code"] == DEADLINE_EXCEEDED
    assert results["cancel"]["code"] == CANCELLED
    assert results["oversized"]["code"] == RESOURCE_EXHAUSTED
    assert len(results["parallel"]) == 200
    assert all(each["code"] == OK and is_right(base64.b64decode(each["answer"])) for each in results["parallel"])


@pytest.mark.leaks("the server that it restarts stays for the other tests")
def test_grpc_js(served: Served, requests: pathlib.Path, node_modules: pathlib.Path) -> None:
    results = results_of(
        ["node", str(HARNESS / "grpc_js_client.js"), f"127.0.0.1:{served.port}", str(requests)],
        served,
        {"NODE_PATH": str(node_modules)},
    )
    assert "gzip" in results
    check(results, requests)


@pytest.mark.leaks("the server that it restarts stays for the other tests")
def test_grpclib(served: Served, requests: pathlib.Path) -> None:
    if importlib.util.find_spec("grpclib") is None:
        pytest.skip("grpclib is not installed")
    script = str(HARNESS / "grpclib_client.py")
    check(results_of([sys.executable, script, "127.0.0.1", str(served.port), str(requests)], served), requests)


# --- clients of HTTP/2 ------------------------------------------------------------------------------------------------


@dataclass
class Answer:
    fields: dict[str, str]  # trailers too
    body: bytes

    @property
    def message(self) -> bytes:
        flag, size = struct.unpack_from(">BI", self.body)
        assert len(self.body) == size + 5
        return gzip.decompress(self.body[5:]) if flag else self.body[5:]


Ask = Callable[..., Answer]  # (body, *headers, timeout_s)


def _curl(served: Served, folder: pathlib.Path) -> Ask:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")

    def ask(body: bytes, *headers: str, timeout_s: float = 60) -> Answer:
        (folder / "body").write_bytes(body)
        command = ["curl", "-sS", "--http2-prior-knowledge", "--max-time", str(timeout_s)]
        for header in ("content-type: application/grpc", "te: trailers", "expect:", *headers):
            command += ["-H", header]
        command += ["--data-binary", f"@{folder / 'body'}", "-D", str(folder / "head"), "-o", str(folder / "out")]
        (folder / "out").write_bytes(b"")
        done = subprocess.run(
            [*command, f"http://127.0.0.1:{served.port}{PATH}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        if done.returncode == 28:
            raise TimeoutError
        assert done.returncode == 0, done.stderr
        fields = dict(re.findall(r"^([\w-]+): (.*?)\r?$", (folder / "head").read_text(encoding="latin-1"), re.M))
        return Answer(fields, (folder / "out").read_bytes())

    return ask


def _nghttp(served: Served, folder: pathlib.Path) -> Ask:
    if shutil.which("nghttp") is None:
        pytest.skip("nghttp (nghttp2-client) is not installed")

    def ask(body: bytes, *headers: str, timeout_s: float = 60) -> Answer:
        (folder / "body").write_bytes(body)
        command = [
            "nghttp",
            "--timeout",
            f"{int(timeout_s * 1000)}ms",
            "-w",
            "24",
            "-W",
            "24",
            "-d",
            str(folder / "body"),
        ]
        for header in (":method: POST", "content-type: application/grpc", "te: trailers", *headers):
            command += ["-H", header]
        url = f"http://127.0.0.1:{served.port}{PATH}"
        done = subprocess.run([*command, url], capture_output=True, check=False, timeout=100)
        if b"timeout" in done.stderr.lower():
            raise TimeoutError
        told = subprocess.run([*command, "-vn", url], capture_output=True, check=False, timeout=100)
        text = re.sub(r"\x1b\[[\d;]*m", "", told.stdout.decode("latin-1"))
        fields = dict(re.findall(r"recv \(stream_id=\d+(?:, sensitive)?\) ([\w-]+): (.*)$", text, re.M))
        return Answer(fields, done.stdout)

    return ask


@pytest.fixture(params=[_curl, _nghttp], ids=["curl", "nghttp"])
def ask(request: pytest.FixtureRequest, served: Served, tmp_path: pathlib.Path) -> Ask:
    made: Ask = request.param(served, tmp_path)
    return made


def framed(message: bytes, flag: int = 0) -> bytes:
    return struct.pack(">BI", flag, len(message)) + message


def test_a_predict_with_metadata_and_an_error(ask: Ask, requests: pathlib.Path) -> None:
    predict = framed((requests / "predict").read_bytes())
    for headers in ((), ("x-key: value", "x-key-bin: AAEC"), ("grpc-timeout: 50S", "user-agent: nobody/1")):
        answer = ask(predict, *headers)
        assert answer.fields["content-type"] == "application/grpc"
        assert answer.fields["grpc-status"] == str(OK)
        assert is_right(answer.message)
    answer = ask(framed((requests / "unknown").read_bytes()))
    assert (answer.fields["grpc-status"], answer.fields["grpc-message"]) == (str(NOT_FOUND), NO_MODEL)
    assert answer.body == b""
    # Without a body: a refusal resets the stream with NO_ERROR while it is sent, which curl 7.88 takes for an error.
    assert ask(b"", f"x-long: {'y' * 20000}").fields["grpc-status"] == str(RESOURCE_EXHAUSTED)


def test_a_deadline_and_a_client_that_gives_up(ask: Ask, requests: pathlib.Path, served: Served) -> None:
    slow = framed((requests / "slow").read_bytes())
    assert ask(slow, "grpc-timeout: 300m").fields["grpc-status"] == str(DEADLINE_EXCEEDED)
    with pytest.raises(TimeoutError):
        ask(slow, timeout_s=1)
    assert is_right(ask(framed((requests / "predict").read_bytes())).message)


def test_ten_megabytes_plain_and_in_gzip(ask: Ask, requests: pathlib.Path) -> None:
    large = (requests / "large").read_bytes()
    plain = ask(framed(large))
    assert plain.fields["grpc-status"] == str(OK)
    assert is_echo(plain.message, requests)
    packed = ask(framed(gzip.compress(large, 1), 1), "grpc-encoding: gzip", "grpc-accept-encoding: gzip")
    assert packed.fields["grpc-status"] == str(OK)
    assert packed.fields["grpc-encoding"] == "gzip"
    assert packed.body[0] == 1
    assert len(packed.body) < LARGE // 2
    assert is_echo(packed.message, requests)


@pytest.mark.leaks("the server that it restarts stays for the other tests")
def test_a_client_that_comes_back_after_a_restart(ask: Ask, requests: pathlib.Path, served: Served) -> None:
    predict = framed((requests / "predict").read_bytes())
    assert is_right(ask(predict).message)
    served.restart()
    assert is_right(ask(predict).message)
