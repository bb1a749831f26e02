"""Batching from the flags to the answers, over a real server: merged, told in the log, refused where it cannot be."""

import pathlib
from collections.abc import Callable

import pytest

from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictResponse
from tests.harness.model_server import ModelServer, StartServer, floats, predict_request, wait_until

ModelConfig = Callable[..., str]


def ask_at_once(server: ModelServer, model: str, count: int) -> list[PredictResponse]:
    calls = [server.prediction.Predict.future(predict_request(model, x=floats(i)), timeout=30) for i in range(count)]
    return [call.result() for call in calls]


def parameters_flag(folder: pathlib.Path, text: str) -> str:
    path = folder / "batching.config"
    path.write_text(text, encoding="ascii")
    return f"--batching_parameters_file={path}"


@pytest.mark.parametrize("flags", [("--enable_batching",), ("--batching=auto",)], ids=["parameters", "auto"])
def test_requests_that_come_together_get_their_own_answers(
    start_server: StartServer, model_config: ModelConfig, flags: tuple[str, ...]
) -> None:
    server = start_server(model_config("half_plus_two"), *flags)
    for _ in range(5):
        answers = ask_at_once(server, "half_plus_two", 40)
        assert [list(answer.outputs["y"].float_val) for answer in answers] == [[i / 2 + 2] for i in range(40)]
    assert server.stop() == 0
    assert "batching of half_plus_two version 2, serving_default: 200 requests, 200 rows in " in server.log


def test_a_full_batch_does_not_wait_for_its_timeout(
    start_server: StartServer, model_config: ModelConfig, tmp_path: pathlib.Path
) -> None:
    text = "max_batch_size { value: 4 } batch_timeout_micros { value: 3600000000 }"
    server = start_server(model_config("half_plus_two"), "--enable_batching", parameters_flag(tmp_path, text))
    assert len(ask_at_once(server, "half_plus_two", 4)) == 4
    server.stop()
    assert "4 requests, 4 rows in 1 batches (4.0 rows each, 0 of padding)" in server.log


def test_parameters_that_cannot_be_fail_the_load(
    start_server: StartServer, model_config: ModelConfig, tmp_path: pathlib.Path
) -> None:
    text = "max_batch_size { value: 8 } allowed_batch_sizes: [2, 4]"
    flags = ("--enable_batching", parameters_flag(tmp_path, text), "--max_num_load_retries=0")
    server = start_server(model_config("half_plus_two"), *flags, wait=False)
    assert server.process.wait(60) == 255
    assert (
        "INVALID_ARGUMENT: Last entry in allowed_batch_sizes must match max_batch_size; last entry was 4; expected 8"
        in server.log
    )


def test_only_a_version_with_parameters_of_its_own_is_batched_when_they_are_per_model(
    start_server: StartServer, own_model: Callable[..., pathlib.Path]
) -> None:
    base_path = own_model("half_plus_two", 1, 2)
    (base_path / "2" / "batching_params.pbtxt").write_text("max_batch_size { value: 1 }", encoding="ascii")
    server = start_server(
        f"--model_base_path={base_path}", "--model_name=half", "--enable_batching",
        "--enable_per_model_batching_parameters",
    )  # fmt: skip
    # It was written to a moment ago, so that version 1 may be served first.
    wait_until(lambda: "AVAILABLE" in str(server.rest("GET", "/v1/models/half/versions/2")), "version 2 available")
    code, body = server.predict_rest("half", {"inputs": [1.0, 2.0]})
    assert (code, body) == (400, {"error": "Task size 2 is larger than maximum input batch size 1"})
