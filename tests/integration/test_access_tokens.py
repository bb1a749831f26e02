"""Bearer tokens at a real server: gRPC by both edges, REST, the command line, and a file that changes."""

import contextlib
import http.client
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from tensorgate.protos.grpc.health.v1 import health_pb2, health_pb2_grpc
from tensorgate.protos.grpc.reflection.v1 import reflection_pb2, reflection_pb2_grpc
from tensorgate.protos.tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorgate.protos.tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest
from tests.harness.model_server import (
    ModelServer,
    config_flag,
    floats,
    predict_request,
    running_servers,
    wait_until,
)

PREDICT, ADMIN, METRICS = "predict-0123456789", "admin-0123456789", "metrics-0123456789"
BOTH = "both-0123456789abc"
TOKENS = f"predict {PREDICT}\nadmin {ADMIN}\nmetrics {METRICS}\npredict,metrics {BOTH}\n"
TIMEOUT_S = 30.0
UNAUTHENTICATED, PERMISSION_DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED


def write_tokens(path: pathlib.Path, text: str) -> None:
    """Replaced whole, as an operator should."""
    new = path.with_suffix(".new")
    new.write_text(text, encoding="ascii")
    new.chmod(0o600)
    os.replace(new, path)


@pytest.fixture(scope="module", params=["native", "grpcio"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, saved_models: pathlib.Path
) -> Iterator[ModelServer]:
    folder = tmp_path_factory.mktemp("tokens")
    write_tokens(folder / "tokens", TOKENS)
    models = config_flag(folder, {"half_plus_two": saved_models / "half_plus_two"})
    with running_servers(folder) as start:
        yield start(
            models,
            f"--grpc_edge={request.param}",
            f"--auth_token_file={folder / 'tokens'}",
            "--enable_model_admin",
        )


def shown(*tokens: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}") for token in tokens]


def outcome(call: Callable[..., Any], request: Any, *tokens: str) -> grpc.StatusCode | None:
    """None: it succeeded."""
    try:
        call(request, timeout=TIMEOUT_S, metadata=shown(*tokens))
    except grpc.RpcError as error:
        return error.code()  # type: ignore[no-any-return]
    return None


def rest(server: ModelServer, method: str, path: str, token: str = "", body: bytes | None = None) -> tuple[int, str]:
    """Status and challenge."""
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=TIMEOUT_S)
    with contextlib.closing(connection):
        connection.request(method, path, body, {"Authorization": f"Bearer {token}"} if token else {})
        response = connection.getresponse()
        response.read()
        return response.status, response.headers.get("www-authenticate", "")


def test_inference_and_questions_about_models_need_a_token_to_predict(server: ModelServer) -> None:
    request = predict_request("half_plus_two", x=floats(1.0))
    status_request = GetModelStatusRequest()
    status_request.model_spec.name = "half_plus_two"
    for call, message in (
        (server.prediction.Predict, request),
        (server.model_service.GetModelStatus, status_request),
    ):
        assert outcome(call, message) is UNAUTHENTICATED
        assert outcome(call, message, "nobody-0123456789") is UNAUTHENTICATED
        assert outcome(call, message, PREDICT, PREDICT) is UNAUTHENTICATED
        assert outcome(call, message, ADMIN) is PERMISSION_DENIED
        assert outcome(call, message, PREDICT) is None
        assert outcome(call, message, BOTH) is None


def test_reloading_needs_a_token_of_administrators_and_is_not_done_without(server: ModelServer) -> None:
    reload = server.model_service.HandleReloadConfigRequest
    nothing = ReloadConfigRequest()
    nothing.config.model_config_list.SetInParent()
    assert outcome(reload, nothing) is UNAUTHENTICATED
    assert outcome(reload, nothing, BOTH) is PERMISSION_DENIED
    models = server.channel.unary_unary("/tensorgate.ModelAdmin/ListModels")
    assert outcome(models, b"", PREDICT) is PERMISSION_DENIED
    assert outcome(models, b"", ADMIN) is None
    assert outcome(server.prediction.Predict, predict_request("half_plus_two", x=floats(1.0)), PREDICT) is None


def test_health_is_open_and_reflection_takes_any_token(server: ModelServer) -> None:
    health = health_pb2_grpc.HealthStub(server.channel)
    assert health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S).status == 1
    asked = [reflection_pb2.ServerReflectionRequest(list_services="")]
    reflect = reflection_pb2_grpc.ServerReflectionStub(server.channel).ServerReflectionInfo
    with pytest.raises(grpc.RpcError) as refused:
        list(reflect(iter(asked), timeout=TIMEOUT_S))
    assert refused.value.code() is UNAUTHENTICATED
    (answer,) = reflect(iter(asked), timeout=TIMEOUT_S, metadata=shown(METRICS))
    assert answer.list_services_response.service


def test_a_method_that_nobody_serves_is_unimplemented_with_and_without_a_token(server: ModelServer) -> None:
    assert outcome(server.channel.unary_unary("/no.Such/Method"), b"") is grpc.StatusCode.UNIMPLEMENTED


def test_rest_asks_for_the_same_roles(server: ModelServer) -> None:
    predict = "/v1/models/half_plus_two:predict"
    body = json.dumps({"instances": [1.0]}).encode()
    assert rest(server, "POST", predict, "", body) == (401, "Bearer")
    assert rest(server, "POST", predict, ADMIN, body) == (403, "")
    assert rest(server, "POST", predict, PREDICT, body) == (200, "")
    assert rest(server, "GET", "/v1/admin/models", PREDICT) == (403, "")
    assert rest(server, "GET", "/v1/admin/models", ADMIN) == (200, "")
    assert rest(server, "GET", "/monitoring/prometheus/metrics") == (401, "Bearer")
    assert rest(server, "GET", "/metrics", METRICS) == (200, "")
    assert rest(server, "GET", "/readyz") == (200, "")


def test_the_log_warns_of_tokens_in_the_clear_and_shows_none(server: ModelServer) -> None:
    for edge in ("gRPC", "REST"):
        assert f"tokens that come over {edge} can be read on their way: there is no TLS there" in server.log
    assert not [token for token in (PREDICT, ADMIN, METRICS, BOTH) if token in server.log]


def tensorgate(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tensorgate.gateway.cli.main", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env={**os.environ, "COLUMNS": "160", **environment},
    )


def test_tools_show_the_token_of_a_file_or_of_the_environment(server: ModelServer, tmp_path: pathlib.Path) -> None:
    (tmp_path / "token").write_text(BOTH + "\n", encoding="ascii")
    (tmp_path / "x.json").write_text("[4, 6]", encoding="ascii")
    grpc_address, rest_address = f"--server=127.0.0.1:{server.port}", f"--rest=127.0.0.1:{server.rest_port}"
    predict = ("predict", "half_plus_two", str(tmp_path / "x.json"), grpc_address)
    assert "UNAUTHENTICATED" in tensorgate(*predict).stderr
    assert json.loads(tensorgate(*predict, TENSORGATE_TOKEN=PREDICT).stdout)["outputs"] == {"y": [4.0, 5.0]}
    with_file = tensorgate(*predict, f"--token_file={tmp_path / 'token'}", TENSORGATE_TOKEN="nonsense")
    assert json.loads(with_file.stdout)["outputs"] == {"y": [4.0, 5.0]}
    assert tensorgate("status", rest_address, TENSORGATE_TOKEN=BOTH).returncode == 0
    assert "answers 401" in tensorgate("status", rest_address).stderr
    for api in ("grpc", "rest"):
        measured = ("bench", "half_plus_two", f"--api={api}", "--num_requests=5", "--concurrency=1")
        done = tensorgate(*measured, grpc_address, rest_address, TENSORGATE_TOKEN=BOTH)
        assert done.returncode == 0, done.stderr
    (tmp_path / "models.config").write_text("model_config_list {}", encoding="ascii")
    refused = tensorgate("reload", str(tmp_path / "models.config"), grpc_address, TENSORGATE_TOKEN=BOTH)
    assert "PERMISSION_DENIED" in refused.stderr


def test_a_file_that_changes_counts_at_once_and_one_that_is_broken_never(server: ModelServer) -> None:
    """Last: the server has other tokens then."""
    path = pathlib.Path(server.log_path.parent / "tokens")
    request = predict_request("half_plus_two", x=floats(1.0))

    def is_let_in(token: str) -> bool:
        over_rest = rest(server, "GET", "/v1/models/half_plus_two", token)[0]
        over_grpc = outcome(server.prediction.Predict, request, token)
        return (over_rest, over_grpc) == (200, None)

    write_tokens(path, "predict too_short\n")
    wait_until(lambda: "the tokens in use stay in use: Token file" in server.log, "the broken file is told of")
    assert is_let_in(PREDICT)
    new = "new-0123456789abcdef"
    write_tokens(path, f"predict {new}\n")
    wait_until(lambda: is_let_in(new), "the new token counts")
    assert outcome(server.prediction.Predict, request, PREDICT) is UNAUTHENTICATED
    path.unlink()
    wait_until(lambda: server.log.count("the tokens in use stay in use") == 2, "the missing file is told of")
    assert is_let_in(new)


@pytest.mark.parametrize(("text", "complaint"), [("", "there is no token in it"), (None, "No such file")])
def test_a_file_that_cannot_be_used_refuses_the_start(
    start_server: Callable[..., ModelServer], tmp_path: pathlib.Path, text: str | None, complaint: str
) -> None:
    if text is not None:
        (tmp_path / "tokens").write_text(text, encoding="ascii")
    server = start_server(
        "--model_name=m", "--model_base_path=/nowhere", f"--auth_token_file={tmp_path / 'tokens'}", wait=False
    )
    assert server.process.wait(TIMEOUT_S) != 0
    assert complaint in server.log
