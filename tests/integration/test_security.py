"""What of a running server can be reached from where, and that no name leads out of the models' folders."""

import http.client
import os
import pathlib
import socket
import stat
import urllib.parse
from collections.abc import Callable, Iterator

import grpc
import pytest

from tensorgate.protos.tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictRequest
from tests.harness.model_server import ModelServer, config_flag, floats, predict_request, running_servers

# The first one makes the models.
pytestmark = pytest.mark.timeout(300)
SECRET = "a line that nobody is to see"
# Names that would lead from a base path, or from the run directory, to a file beside it, if they were put into a path.
NAMES = [
    "..",
    "../secret",
    "half_plus_two/../../secret",
    "/etc/passwd",
    "half_plus_two/1",
    "half_plus_two\0",
    ".",
    "%2e%2e/secret",
    "..\\secret",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("security")


@pytest.fixture(scope="module")
def server(folder: pathlib.Path, saved_models: pathlib.Path) -> Iterator[ModelServer]:
    (folder / "secret").mkdir()
    (folder / "secret" / "saved_model.pb").write_text(SECRET, encoding="ascii")
    (folder / "half_plus_two").symlink_to(saved_models / "half_plus_two")
    config = config_flag(folder, {"half_plus_two": folder / "half_plus_two"})
    sockets = [f"--{api}_socket_path={folder}/{api}" for api in ("grpc", "rest_api")]
    mask = os.umask(0o022)
    try:
        with running_servers(folder) as start:
            yield start(config, *sockets)
    finally:
        os.umask(mask)


def listening(pid: int) -> set[tuple[str, int]]:
    """The TCP addresses, as the kernel writes them, and ports that a process listens on."""
    inodes = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            inodes.add(os.readlink(f"/proc/{pid}/fd/{name}"))
        except FileNotFoundError:
            continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in pathlib.Path(f"/proc/{pid}/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                address, port = fields[1].split(":")
                found.add((address, int(port, 16)))
    return found


def test_nothing_but_the_two_ports_listens_on_tcp(server: ModelServer) -> None:
    assert {port for _, port in listening(server.process.pid)} == {server.port, server.rest_port}
    assert listening(server.worker_pid) == set()


def test_only_the_servers_user_reaches_the_worker(server: ModelServer) -> None:
    run_directory = server.run_directory
    status = run_directory.stat()
    assert stat.S_IMODE(status.st_mode) == 0o700
    assert status.st_uid == os.geteuid()
    sockets = [path for path in run_directory.iterdir() if path.is_socket()]
    assert len(sockets) >= 3  # requests, commands, cancels
    # Abstract sockets, which have no permissions, would be open to everybody on the host.
    abstract = pathlib.Path("/proc/net/unix").read_text(encoding="utf-8", errors="replace")
    assert not [line for line in abstract.splitlines() if "@" in line and "tensorgate" in line]


def test_others_may_not_connect_to_the_sockets_of_the_apis(server: ModelServer, folder: pathlib.Path) -> None:
    """Connecting needs the right to write, which the usual umask leaves to the owner."""
    for name in ("grpc", "rest_api"):
        path = folder / name
        assert path.is_socket()
        assert not path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    with grpc.insecure_channel(f"unix:{folder}/grpc") as channel:
        ask = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        assert ask(predict_request("half_plus_two", x=floats(1)).SerializeToString(), timeout=60)


@pytest.mark.parametrize("name", NAMES)
def test_names_of_models_and_labels_are_never_paths_over_grpc(server: ModelServer, name: str) -> None:
    predict = server.prediction.Predict
    metadata = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    metadata.model_spec.name = name
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = name
    labelled = PredictRequest()
    labelled.CopyFrom(predict_request("half_plus_two", x=floats(1)))
    labelled.model_spec.version_label = name
    for call, request in (
        (predict, predict_request(name, x=floats(1))),
        (predict, labelled),
        (server.prediction.GetModelMetadata, metadata),
        (server.model_service.GetModelStatus, status),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call(request, timeout=60)
        assert caught.value.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)
        assert SECRET not in caught.value.details()


def get(server: ModelServer, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=60)
    try:
        connection.putrequest("GET", path, skip_accept_encoding=True)  # sends the path as it is
        connection.endheaders()
        response = connection.getresponse()
        return response.status, response.read().decode("utf-8", "replace")
    finally:
        connection.close()


@pytest.mark.parametrize("name", NAMES)
def test_names_of_models_versions_and_labels_are_never_paths_over_rest(server: ModelServer, name: str) -> None:
    encoded = urllib.parse.quote(name, safe="")
    for path in (
        f"/v1/models/{encoded}",
        f"/v1/models/{encoded}/metadata",
        f"/v1/models/half_plus_two/versions/{encoded}",
        f"/v1/models/half_plus_two/labels/{encoded}/metadata",
        f"/v1/models/half_plus_two/labels/{encoded}",
    ):
        status, text = get(server, path)
        # The status of a model is that of all its versions, whatever label is asked for: upstream does not look at it.
        assert status in (400, 404) or path == f"/v1/models/half_plus_two/labels/{encoded}", (path, text)
        assert SECRET not in text
        assert "root:" not in text


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/v1/../../etc/passwd", "/v1/models/../../etc/passwd", "//etc/passwd"]
)
def test_the_rest_server_serves_no_files(server: ModelServer, path: str) -> None:
    status, text = get(server, path)
    assert status in (400, 404)
    assert "root:" not in text


def test_only_folders_named_by_a_number_are_versions(
    tmp_path: pathlib.Path, saved_models: pathlib.Path, own_model: Callable[..., pathlib.Path]
) -> None:
    base_path = own_model("half_plus_two", 1)
    for name in ("..5", "3..", "0x9", "8a", "٣"):
        (base_path / name).symlink_to(saved_models / "half_plus_two" / "2")
    with running_servers(tmp_path) as start:
        server = start(config_flag(tmp_path, {"half_plus_two": base_path}))
        status, answer = server.rest("GET", "/v1/models/half_plus_two")
        assert status == 200
        assert [each["version"] for each in answer["model_version_status"]] == ["1"]
