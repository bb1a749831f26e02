"""What a version has to pass before it serves: golden requests, a place in memory, and as much time as it takes."""

import pathlib
import shutil
from collections.abc import Callable

from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorgate.protos.tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
from tests.harness.model_server import ModelServer, StartServer, floats, predict_request, wait_until
from tests.harness.tf_records import write_golden_requests, write_warmup_requests

OwnModel = Callable[..., pathlib.Path]


def status_of(server: ModelServer, version: int) -> tuple[str, str, str]:
    """A version's state, error code and error text; empty before the version is known."""
    document = server.rest("GET", "/v1/models/m")[1]
    for each in document["model_version_status"]:
        if each["version"] == str(version):
            return each["state"], each["status"]["error_code"], each["status"]["error_message"]
    return "", "", ""


def golden(x: float, y: float) -> PredictionLog:
    log = PredictionLog()
    log.predict_log.request.CopyFrom(predict_request("m", x=floats(x)))
    log.predict_log.response.outputs["y"].CopyFrom(floats(y))
    return log


def add_version(source: pathlib.Path, base_path: pathlib.Path, *logs: PredictionLog) -> None:
    """A copy of the version beside the others, all at once, with golden requests."""
    unseen = base_path.parent / "unseen"
    shutil.copytree(source, unseen)
    write_golden_requests(unseen, *logs)
    unseen.rename(base_path / source.name)


def predicts(server: ModelServer, y: float) -> bool:
    return server.predict_rest("m", {"instances": [4]}) == (200, {"predictions": [y]})


def test_a_version_that_answers_its_golden_requests_otherwise_never_serves_and_the_old_one_does(
    start_server: StartServer, own_model: OwnModel, saved_models: pathlib.Path
) -> None:
    base_path = own_model("half_plus_two", 1)
    write_golden_requests(base_path / "1", golden(4, 3), golden(10, 6.0001))
    server = start_server("--model_name=m", f"--model_base_path={base_path}", "--max_num_load_retries=0")
    assert "2 golden requests of" in server.log
    add_version(saved_models / "half_plus_two" / "2", base_path, golden(4, 4), golden(4, 3))
    wait_until(lambda: status_of(server, 2)[0] == "END", "the end of version 2")
    assert status_of(server, 2)[1:] == (
        "FAILED_PRECONDITION",
        f"golden request 2 of {base_path}/2/assets.extra/tensorgate_golden_requests is answered differently: output 'y'"
        " differs by 1 at [0]: it is 4 and not 3, with a tolerance of 0.0001 * (1 + |golden|)",
    )
    assert predicts(server, 3)
    assert status_of(server, 1)[0] == "AVAILABLE"


def test_a_version_that_does_not_fit_is_refused_and_loaded_when_another_has_left(
    start_server: StartServer, own_model: OwnModel, saved_models: pathlib.Path
) -> None:
    base_path = own_model("half_plus_two", 1)
    ballast = bytes(1 << 20)
    (base_path / "1" / "ballast").write_bytes(ballast)
    unseen = base_path.parent / "unseen"
    shutil.copytree(saved_models / "half_plus_two" / "2", unseen)
    (unseen / "ballast").write_bytes(ballast)
    other = base_path.parent / "other"
    shutil.copytree(base_path / "1", other / "1")
    config = base_path.parent / "models.config"
    config.write_text(
        "model_config_list {"
        + "".join(
            f'config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" }}'
            for name, path in (("m", base_path), ("other", other))
        )
        + "}",
        encoding="utf-8",
    )
    # Two of them fit, with 1.2 MB and a bit each.
    server = start_server(f"--model_config_file={config}", "--model_memory_budget_mb=3")
    unseen.rename(base_path / "2")
    wait_until(lambda: status_of(server, 2)[0] == "END", "the refusal of version 2")
    _, code, text = status_of(server, 2)
    assert code == "RESOURCE_EXHAUSTED"
    assert text.startswith(
        "Insufficient resources to load servable {name: m version: 2}: it is expected to take 1.2 MB"
    )
    assert predicts(server, 3)
    assert server.log.count("{name: m version: 2} is not loaded") == 1
    shutil.rmtree(other / "1")
    wait_until(lambda: predicts(server, 4), "version 2 in use")
    wait_until(lambda: status_of(server, 1)[0] == "END", "version 1 unloaded")


def test_a_load_that_takes_longer_than_the_heartbeat_does_not_look_like_a_hang(
    start_server: StartServer, own_model: OwnModel
) -> None:
    base_path = own_model("slow", 1)
    log = PredictionLog()
    rounds = TensorProto(dtype=types_pb2.DT_INT32, int_val=[3000])
    log.predict_log.request.CopyFrom(predict_request("m", rounds=rounds))
    write_warmup_requests(base_path / "1", log)
    server = start_server("--model_name=m", f"--model_base_path={base_path}", "--worker_heartbeat_timeout_s=1")
    assert "warmed up with 1 requests" in server.log
    assert "heartbeat" not in server.log
