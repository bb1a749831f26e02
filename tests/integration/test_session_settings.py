"""Session settings from files and flags, in a server that serves with them."""

import pathlib
from collections.abc import Callable

import pytest

from tests.harness.model_server import StartServer


@pytest.mark.parametrize("by", ["flags", "platform_config_file"])
def test_a_server_serves_with_session_settings_from_a_file(
    start_server: StartServer, model_config: Callable[..., str], tmp_path: pathlib.Path, by: str
) -> None:
    settings = tmp_path / "settings.config"
    session = (
        "graph_options { rewrite_options { constant_folding: OFF } } experimental { executor_type: 'DEFAULT' }"
        " device_count { key: 'CPU' value: 1 }"
    )
    if by == "flags":
        settings.write_text(session, encoding="utf-8")
        flags = [
            f"--tensorflow_session_config_file={settings}",
            "--mixed_precision=bfloat16",
            "--xla_cpu_compilation_enabled",
            "--per_process_gpu_memory_fraction=0.5",
        ]
    else:
        settings.write_text(
            'platform_configs { key: "tensorflow" value { source_adapter_config {'
            " [type.googleapis.com/tensorflow.serving.SavedModelBundleSourceAdapterConfig]"
            f" {{ legacy_config {{ session_config {{ {session} }} enable_session_metadata: true }} }} }} }} }}",
            encoding="utf-8",
        )
        flags = [f"--platform_config_file={settings}"]
    server = start_server(model_config("softmax"), *flags)
    status, answer = server.predict_rest("softmax", {"signature_name": "predict_images", "instances": [[0.0] * 784]})
    assert status == 200, answer
    assert len(answer["predictions"][0]) == 10
    assert ("these have no effect: enable_session_metadata" in server.log) == (by == "platform_config_file")
