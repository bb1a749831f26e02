"""The gateway's main: what it says before the server starts."""

from collections.abc import Coroutine
from typing import Any

import pytest

from tensorgate.gateway import main as gateway_main


@pytest.fixture
def without_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(serving: Coroutine[Any, Any, int]) -> int:
        serving.close()
        return 0

    monkeypatch.setattr(gateway_main.uvloop, "run", run)


@pytest.mark.usefixtures("without_server")
def test_unknown_arguments_are_named_once_more_below_the_usage(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gateway_main.main(["--model_base_path=/m", "--modle_name=mnist", "extra"]) == 0
    assert capsys.readouterr().err.startswith("unknown argument: --modle_name=mnist\nunknown argument: extra\nusage: ")
    assert caplog.messages == ["unknown arguments are ignored: --modle_name=mnist extra"]


@pytest.mark.usefixtures("without_server")
def test_a_command_line_that_is_understood_is_passed_over_in_silence(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gateway_main.main(["--model_base_path=/m"]) == 0
    assert (capsys.readouterr(), caplog.messages) == (("", ""), [])
