"""The model config file: reading it, upstream's rules for it, and what comes out."""

import os
from pathlib import Path

import pytest
from google.protobuf import text_format

from tensorgate.gateway.config_files import (
    ModelConfig,
    models_of,
    read_model_server_config,
    single_model,
)
from tensorgate.gateway.sources.file_system_storage_path_source import AllVersions, LatestVersions, SpecificVersions
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig


def config_of(*models: str) -> ModelServerConfig:
    text = "\n".join(f"config {{ {model} }}" for model in models)
    return text_format.Parse(f"model_config_list {{ {text} }}", ModelServerConfig())


def refusal_of(*models: str) -> str:
    with pytest.raises(ServingError) as caught:
        models_of(config_of(*models))
    assert caught.value.code is Code.INVALID_ARGUMENT
    return caught.value.message


TENSORFLOW = 'model_platform: "tensorflow"'


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("", LatestVersions(1)),
        ("model_version_policy { }", LatestVersions(1)),
        ("model_version_policy { latest { } }", LatestVersions(1)),
        ("model_version_policy { latest { num_versions: 0 } }", LatestVersions(1)),
        ("model_version_policy { latest { num_versions: 3 } }", LatestVersions(3)),
        ("model_version_policy { all { } }", AllVersions()),
        ("model_version_policy { specific { versions: 124 versions: 123 } }", SpecificVersions((124, 123))),
        ("model_version_policy { specific { versions: [5, 6] } }", SpecificVersions((5, 6))),
        ("model_version_policy { specific { } }", SpecificVersions(())),
    ],
)
def test_a_version_policy_is_read_and_the_newest_version_is_the_default(text: str, policy: object) -> None:
    (model,) = models_of(config_of(f'name: "m" base_path: "/m" {TENSORFLOW} {text}'))
    assert model == ModelConfig("m", "/m", policy)


def test_models_keep_the_order_of_the_file_and_their_labels() -> None:
    models = models_of(
        config_of(
            f'name: "b" base_path: "/b" {TENSORFLOW} version_labels {{ key: "stable" value: 2 }}',
            'name: "a" base_path: "s3://bucket/a" model_type: TENSORFLOW',
        )
    )
    assert [model.name for model in models] == ["b", "a"]
    assert dict(models[0].version_labels) == {"stable": 2}


def test_a_config_that_lists_nothing_has_no_models() -> None:
    assert models_of(ModelServerConfig()) == ()
    assert models_of(config_of()) == ()


def test_a_name_may_be_listed_once_only() -> None:
    model = f'name: "m" base_path: "/m" {TENSORFLOW}'
    assert refusal_of(model, model) == "Illegal to list model m multiple times in config list"


@pytest.mark.parametrize("path", ["", "models/m", "./m", "c:/m"])
def test_a_base_path_must_be_absolute_or_a_uri(path: str) -> None:
    assert (
        refusal_of(f'name: "m" base_path: "{path}" {TENSORFLOW}')
        == f"Expected model m to have an absolute path or URI; got base_path()={path}"
    )


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            "",
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform, "
            "model name is m",
        ),
        (
            f"{TENSORFLOW} model_type: TENSORFLOW",
            "Illegal setting both ModelServerConfig::model_type (deprecated) and ModelServerConfig::model_platform, "
            "model name is m",
        ),
        ("model_type: OTHER", "ModelServerConfig::model_type choice 2 not supported."),
        ('model_platform: "caffe"', "Model m requests unsupported platform caffe"),
    ],
)
def test_what_upstream_refuses_of_a_model_is_refused_in_its_words(settings: str, text: str) -> None:
    assert refusal_of(f'name: "m" base_path: "/m" {settings}') == text


def test_a_running_model_may_not_change_its_platform_and_that_is_said_before_the_platform_is_looked_at() -> None:
    config = config_of('name: "m" base_path: "/m" model_platform: "caffe"')
    with pytest.raises(ServingError) as caught:
        models_of(config, {"m": "tensorflow"})
    assert caught.value.message == (
        "Illegal to change a model's platform. For model m platform was tensorflow and new platform requested is caffe"
    )
    with pytest.raises(ServingError, match="unsupported platform caffe"):
        models_of(config, {"other": "tensorflow"})


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ("", "needs a filename_prefix"),
        (
            'log_collector_config { filename_prefix: "/l" } sampling_config { sampling_rate: 1.5 }',
            "sampling_rate that is not 0 to 1: 1.5",
        ),
    ],
)
def test_request_logging_that_cannot_be_is_refused(settings: str, text: str) -> None:
    assert text in refusal_of(f'name: "m" base_path: "/m" {TENSORFLOW} logging_config {{ {settings} }}')


def test_a_log_collector_that_there_is_none_of_is_not_found() -> None:
    logging = 'log_collector_config { type: "kafka" filename_prefix: "/l" }'
    with pytest.raises(ServingError, match="Cannot find LogCollector::Factory for type: kafka") as caught:
        models_of(config_of(f'name: "m" base_path: "/m" {TENSORFLOW} logging_config {{ {logging} }}'))
    assert caught.value.code is Code.NOT_FOUND


def test_request_logging_is_taken_as_it_stands() -> None:
    logging = 'log_collector_config { filename_prefix: "/l" } sampling_config { sampling_rate: 0.5 }'
    (model,) = models_of(config_of(f'name: "m" base_path: "/m" {TENSORFLOW} logging_config {{ {logging} }}'))
    assert model.logging_config is not None
    assert model.logging_config.sampling_config.sampling_rate == 0.5


def test_names_are_checked_before_paths_and_paths_before_platforms() -> None:
    assert "multiple times" in refusal_of('name: "m" base_path: "x"', 'name: "m"')
    assert "absolute path" in refusal_of('name: "m" base_path: "/m"', 'name: "n" base_path: "x"')


def test_a_custom_config_is_refused() -> None:
    config = text_format.Parse("custom_model_config { }", ModelServerConfig())
    with pytest.raises(ServingError, match="custom_model_config is not supported"):
        models_of(config)


def test_one_model_named_by_flags_obeys_the_same_rules() -> None:
    assert models_of(single_model("mnist", "/models/mnist")) == (
        ModelConfig("mnist", "/models/mnist", LatestVersions(1)),
    )
    with pytest.raises(ServingError, match="Expected model mnist to have an absolute path or URI"):
        models_of(single_model("mnist", "models/mnist"))


def test_a_file_is_read_with_its_comments(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    path.write_text(
        '# ours\nmodel_config_list: { config: { name: "é", base_path: "/m", model_platform: "tensorflow" } }\n'
    )
    assert read_model_server_config(str(path)) == config_of(f'name: "é" base_path: "/m" {TENSORFLOW}')


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"model_config_list {\n  config { nam: 'm' }\n}", "2:12"),
        (b"model_config_list { config { name: 'm' name: 'n' } }", "1:"),
        (b"model_config_list {", ""),
        (b"\xff\xfe", ""),
    ],
)
def test_a_text_that_is_no_such_message_is_refused_with_its_path_and_place(
    tmp_path: Path, content: bytes, place: str
) -> None:
    path = tmp_path / "models.config"
    path.write_bytes(content)
    with pytest.raises(ServingError) as caught:
        read_model_server_config(str(path))
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert caught.value.message.startswith(f"Invalid protobuf file: '{path}'")
    assert place in caught.value.message


def test_a_file_that_cannot_be_read_gives_the_file_systems_reason(tmp_path: Path) -> None:
    path = tmp_path / "none.config"
    with pytest.raises(ServingError) as caught:
        read_model_server_config(str(path))
    assert caught.value == ServingError(Code.NOT_FOUND, f"{path}; No such file or directory")
    with pytest.raises(ServingError) as caught:
        read_model_server_config(os.fspath(tmp_path))
    assert caught.value.code is Code.FAILED_PRECONDITION
