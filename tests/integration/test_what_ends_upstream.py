"""Flags with which TensorFlow Serving crashes, hangs or answers zeros, as its recorded answers' notes have them."""

import pathlib

from tests.harness.model_server import StartServer


def test_outputs_as_content_are_read_by_rest_too(start_server: StartServer, saved_models: pathlib.Path) -> None:
    server = start_server(
        "--model_name=echo",
        f"--model_base_path={saved_models / 'echo'}",
        "--enable_serialization_as_tensor_content",
    )
    for signature, values in {
        "string": ["a", "", "snowman ☃"],
        "float32": [0.5, -2.0, 1e10],
        "int64": [2**63 - 1, -1],
        "int8": [-128, 127],
        "bool": [True, False],
    }.items():
        body = {"signature_name": signature, "instances": values}
        assert server.predict_rest("echo", body) == (200, {"predictions": values})
    assert server.is_ready()


def test_one_rest_thread_answers(start_server: StartServer, saved_models: pathlib.Path) -> None:
    server = start_server("--model_name=echo", f"--model_base_path={saved_models / 'echo'}", "--rest_api_num_threads=1")
    body = {"signature_name": "float32", "instances": [1.0]}
    assert server.predict_rest("echo", body) == (200, {"predictions": [1.0]})
