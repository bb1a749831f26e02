"""The model settings file: defaults, a model's own entry over them, and what is refused."""

from pathlib import Path

import pytest

from tensorgate.gateway.model_settings import SettingsOfModels, read_model_settings
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorgate.config.model_settings_pb2 import AVAILABILITY_PRESERVING, RESOURCE_PRESERVING


def settings_in(tmp_path: Path, text: str) -> SettingsOfModels:
    path = tmp_path / "settings.pbtxt"
    path.write_text(text, encoding="utf-8")
    return read_model_settings(str(path))


def test_without_a_file_nothing_is_set() -> None:
    assert not read_model_settings("").of("any").HasField("aspired_version_policy")


def test_the_entry_without_a_name_holds_for_models_without_one_and_where_theirs_says_nothing(tmp_path: Path) -> None:
    settings = settings_in(
        tmp_path,
        """
        model { aspired_version_policy: RESOURCE_PRESERVING }
        model { name: "silent" }
        model { name: "own" aspired_version_policy: AVAILABILITY_PRESERVING }
        """,
    )
    assert settings.of("unlisted").aspired_version_policy == RESOURCE_PRESERVING
    assert settings.of("silent").aspired_version_policy == RESOURCE_PRESERVING
    assert settings.of("own").aspired_version_policy == AVAILABILITY_PRESERVING


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('model { name: "m" } model { name: "m" }', "Model settings name 'm' twice"),
        ("model { } model { }", "Model settings have two defaults"),
        ("model {\n  colour: 1\n}", '2:3 : Message type "tensorgate.ModelSettings" has no field named "colour".'),
    ],
)
def test_what_contradicts_itself_or_is_unknown_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ServingError) as caught:
        settings_in(tmp_path, text)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert message in caught.value.message


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ServingError) as caught:
        read_model_settings("/no/such/settings")
    assert caught.value.code is Code.NOT_FOUND
    assert "/no/such/settings" in caught.value.message
