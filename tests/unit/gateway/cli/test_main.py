"""The command line: what each command is given, and what it answers."""

import sys
import types
from collections.abc import Callable

import pytest
from click.testing import CliRunner

from tensorgate.gateway.cli.main import main
from tensorgate.gateway.flag_parser import version_text
from tensorgate.protos.status_codes import Code, ServingError


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The argument lists that a stand-in for the server's main was called with; it returns 3."""
    calls: list[list[str]] = []
    module = types.ModuleType("tensorgate.gateway.main")
    module.main = lambda arguments: calls.append(arguments) or 3
    monkeypatch.setitem(sys.modules, "tensorgate.gateway.main", module)
    return calls


def test_serve_passes_its_arguments_through_and_exits_with_the_servers_code(served: list[list[str]]) -> None:
    arguments = ["--port=9000", "--enable_batching", "--no_such_flag=1", "--model_base_path=/m", "-x", "word"]
    result = CliRunner().invoke(main, ["serve", *arguments])
    assert result.exit_code == 3
    assert served == [arguments]


def test_serve_help_shows_the_flags_and_exits_with_0(served: list[list[str]]) -> None:
    result = CliRunner().invoke(main, ["serve", "--port=1", "--help"])
    assert result.exit_code == 0
    assert "--tensorflow_session_parallelism" in result.output
    assert served == []


def test_serve_help_beside_a_value_that_cannot_be_read_is_left_to_the_server(served: list[list[str]]) -> None:
    assert CliRunner().invoke(main, ["serve", "--port=x", "--help"]).exit_code == 3
    assert served == [["--port=x", "--help"]]


def test_version_prints_both_versions() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert (result.exit_code, result.output) == (0, version_text())


@pytest.fixture
def demo_runs(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[object], None]], None]:
    """Sets what stands in for the demo."""

    def set_run(run: Callable[[object], None]) -> None:
        monkeypatch.setattr("tensorgate.gateway.cli.demo.run_demo", run)
        monkeypatch.setattr("tensorgate.gateway.cli.main.find_spec", lambda _name: object())

    return set_run


def test_demo_turns_its_arguments_into_options(demo_runs, tmp_path) -> None:
    runs: list[object] = []
    demo_runs(runs.append)
    given = ["--keep", f"--data_dir={tmp_path}", "--num_tests=7", "--training_iteration=8", "--concurrency=9"]
    assert CliRunner().invoke(main, ["demo", *given, "--port=1234", "--rest_api_port=1235"]).exit_code == 0
    assert CliRunner().invoke(main, ["demo"]).exit_code == 0
    from tensorgate.gateway.cli.demo import DemoOptions

    assert runs == [DemoOptions(True, str(tmp_path), 7, 8, 9, 1234, 1235), DemoOptions()]


@pytest.mark.parametrize(
    "argument",
    [
        "--num_tests=0",
        "--num_tests=x",
        "--training_iteration=0",
        "--concurrency=0",
        "--port=70000",
        "--data_dir=/no/dir",
    ],
)
def test_demo_refuses_a_value_that_cannot_be_before_it_starts_anything(demo_runs, argument: str) -> None:
    runs: list[object] = []
    demo_runs(runs.append)
    result = CliRunner().invoke(main, ["demo", argument])
    assert result.exit_code == 2
    assert argument.partition("=")[0] in result.output
    assert runs == []


@pytest.mark.parametrize(
    ("missing", "named"),
    [({"tensorflow"}, "tensorflow"), ({"numpy", "tensorflow", "mlxtend"}, "numpy and tensorflow and mlxtend")],
)
def test_demo_without_its_packages_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, missing: set[str], named: str
) -> None:
    monkeypatch.setattr("tensorgate.gateway.cli.main.find_spec", lambda name: None if name in missing else object())
    result = CliRunner().invoke(main, ["demo"])
    assert result.exit_code == 1
    assert f"needs {named}, not installed here; install tensorgate with its extras cpu and examples: " in result.output
    assert "pip install '.[cpu,examples]'" in result.output


def test_demo_with_the_original_files_does_not_need_the_embedded_images(
    demo_runs, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    demo_runs(lambda _options: None)
    monkeypatch.setattr("tensorgate.gateway.cli.main.find_spec", lambda name: None if name == "mlxtend" else object())
    assert CliRunner().invoke(main, ["demo", f"--data_dir={tmp_path}"]).exit_code == 0
    assert CliRunner().invoke(main, ["demo"]).exit_code == 1


def test_a_failure_of_the_demo_is_shown_as_a_message_with_exit_code_1(demo_runs) -> None:
    def fail(_options: object) -> None:
        raise ServingError(Code.UNAVAILABLE, "The server ended at start with exit code 1")

    demo_runs(fail)
    result = CliRunner().invoke(main, ["demo"])
    assert result.exit_code == 1
    assert "Error: The server ended at start with exit code 1" in result.output


def test_an_interrupted_demo_exits_with_130(demo_runs) -> None:
    def interrupt(_options: object) -> None:
        raise KeyboardInterrupt

    demo_runs(interrupt)
    assert CliRunner().invoke(main, ["demo"]).exit_code == 130
