"""Reading a command line: every type's forms, and what is said about a line that cannot be used."""

import io
import math
from importlib import metadata

import pytest

from tensorgate.gateway.flag_parser import ParsedFlags, not_acting, parse, report, usage, version_text
from tensorgate.gateway.flags import FLAGS


def outcome(parsed: ParsedFlags, **options: int) -> tuple[int | None, str, str]:
    output, error_output = io.StringIO(), io.StringIO()
    code = report(parsed, "tensorflow_model_server", output, error_output, **options)
    return code, output.getvalue(), error_output.getvalue()


def test_an_empty_line_gives_every_default() -> None:
    parsed = parse([])
    assert dict(parsed.values) == {flag.name: flag.default_value() for flag in FLAGS}
    assert parsed.errors == ()
    assert parsed.unknown_arguments == ()


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("--enable_batching", True),
        ("--enable_batching=true", True),
        ("--enable_batching=TRUE", True),
        ("--enable_batching=1", True),
        ("--enable_batching=false", False),
        ("--enable_batching=False", False),
        ("--enable_batching=0", False),
        ("--port=9000", 9000),
        ("--port=-1", -1),
        ("--port=+7", 7),
        ("--port= 7", 7),
        ("--port=007", 7),
        ("--port=2147483647", 2147483647),
        ("--port=-2147483648", -2147483648),
        ("--load_retry_interval_micros=9223372036854775807", 9223372036854775807),
        ("--load_retry_interval_micros=-9223372036854775808", -9223372036854775808),
        ("--per_process_gpu_memory_fraction=0.25", 0.25),
        ("--per_process_gpu_memory_fraction=.5", 0.5),
        ("--per_process_gpu_memory_fraction=1.", 1.0),
        ("--per_process_gpu_memory_fraction=-1e-3", -0.001),
        ("--per_process_gpu_memory_fraction= 3", 3.0),
        ("--per_process_gpu_memory_fraction=inf", math.inf),
        ("--model_name=a=b", "a=b"),
        ("--model_name=", ""),
        ("--model_name= x ", " x "),
        ("--model_name=--port=3", "--port=3"),
    ],
)
def test_a_value_is_read_in_the_forms_of_its_type(argument: str, value: object) -> None:
    parsed = parse([argument])
    name = argument[2:].partition("=")[0]
    assert (parsed.values[name], type(parsed.values[name])) == (value, type(value))
    assert (parsed.errors, parsed.unknown_arguments) == ((), ())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("enable_batching", ""),
        ("enable_batching", "yes"),
        ("enable_batching", "2"),
        ("enable_batching", "true "),
        ("port", ""),
        ("port", "x"),
        ("port", "80x"),
        ("port", "80 "),
        ("port", "8_0"),
        ("port", "1.0"),
        ("port", "0x10"),
        ("port", "٣"),
        ("port", "2147483648"),
        ("port", "-2147483649"),
        ("port", "9" * 5000),
        ("load_retry_interval_micros", "9223372036854775808"),
        ("load_retry_interval_micros", "-9223372036854775809"),
        ("per_process_gpu_memory_fraction", ""),
        ("per_process_gpu_memory_fraction", "0.5x"),
        ("per_process_gpu_memory_fraction", "1_0"),
        ("per_process_gpu_memory_fraction", "."),
        ("per_process_gpu_memory_fraction", "1e"),
    ],
)
def test_a_value_that_is_none_of_its_type_is_an_error_and_leaves_the_default(name: str, text: str) -> None:
    parsed = parse([f"--{name}={text}"])
    (error,) = parsed.errors
    assert error.startswith(f"Couldn't interpret value {text} for flag {name}")
    assert parsed.values[name] == parse([]).values[name]
    assert parsed.unknown_arguments == ()


@pytest.mark.parametrize(
    "argument",
    [
        "--port",
        "--model_name",
        "-port=1",
        "port=1",
        "--no_such_flag=1",
        "--enable_batchingx",
        "--Port=1",
        "",
        "-",
        "/m",
    ],
)
def test_what_is_no_flag_in_an_accepted_form_is_unknown(argument: str) -> None:
    parsed = parse([argument])
    assert parsed.unknown_arguments == (argument,)
    assert parsed.errors == ()


def test_a_value_set_apart_by_a_space_is_not_taken() -> None:
    parsed = parse(["--port", "9000"])
    assert parsed.unknown_arguments == ("--port", "9000")
    assert parsed.get_int("port") == 8500


def test_a_later_duplicate_overrides_an_earlier_one() -> None:
    assert parse(["--port=1", "--model_name=m", "--port=2"]).get_int("port") == 2


def test_everything_from_two_dashes_on_is_unknown() -> None:
    parsed = parse(["--port=1", "--", "--port=2", "--help"])
    assert parsed.get_int("port") == 1
    assert parsed.unknown_arguments == ("--", "--port=2", "--help")
    assert not parsed.help_requested


def test_help_counts_only_as_the_first_unknown_argument() -> None:
    assert parse(["--port=1", "--help"]).help_requested
    assert not parse(["--other", "--help"]).help_requested


def test_a_flag_asked_for_as_another_type_is_a_mistake_in_the_code() -> None:
    parsed = parse([])
    assert parsed.get_bool("enable_profiler") is True
    assert parsed.get_float("drain_timeout_s") == 30.0
    assert parsed.get_string("model_name") == "default"
    with pytest.raises(TypeError, match="--enable_profiler is a bool, not a int"):
        parsed.get_int("enable_profiler")


def test_only_flags_that_change_nothing_and_were_given_another_value_are_named() -> None:
    parsed = parse(["--flush_filesystem_caches=false", "--num_unload_threads=2", "--port=1", "--enable_profiler=true"])
    assert not_acting(parsed) == ["num_unload_threads", "flush_filesystem_caches"]
    assert not_acting(parse([])) == []


def test_a_value_that_cannot_be_read_ends_with_the_usage_and_255() -> None:
    code, output, error_output = outcome(parse(["--port=x", "--enable_batching=y", "--version"]))
    assert (code, output) == (255, "")
    assert "value x for flag port" in error_output
    assert "value y for flag enable_batching" in error_output
    assert error_output.endswith(usage("tensorflow_model_server"))


def test_help_ends_with_the_usage_and_the_code_the_caller_wants() -> None:
    assert outcome(parse(["--help"])) == (255, usage("tensorflow_model_server"), "")
    assert outcome(parse(["--help"]), help_exit_code=0)[0] == 0


def test_version_is_printed_and_ends_with_0_before_unknown_arguments_are_named() -> None:
    assert outcome(parse(["--version", "--other"])) == (0, version_text(), "")


def test_unknown_arguments_are_named_and_the_start_goes_on() -> None:
    code, output, error_output = outcome(parse(["--port=1", "--other=1", "more"]))
    assert (code, output) == (None, "")
    assert error_output == "unknown argument: --other=1\nunknown argument: more\n" + usage("tensorflow_model_server")


def test_a_line_without_fault_says_nothing() -> None:
    assert outcome(parse(["--port=1"])) == (None, "", "")


def test_the_usage_shows_every_flag_with_its_default_in_the_form_it_takes() -> None:
    lines = usage("tensorgate serve").splitlines()
    assert lines[0].startswith("usage: tensorgate serve")
    assert [line.split("=")[0].strip() for line in lines[2:]] == [f"--{flag.name}" for flag in FLAGS]
    shown = "\n".join(lines)
    for setting in ("--port=8500 ", "--enable_profiler=true ", '--model_name="default" ', "--drain_timeout_s=30.0 "):
        assert setting in shown


def test_both_versions_are_read_from_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"tensorgate": "1.2", "tensorflow-cpu": "2.21.0"}

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "version", version)
    assert version_text() == "TensorFlow ModelServer: 1.2\nTensorFlow Library: 2.21.0\n"
    versions["tensorflow"] = "2.20.0"
    assert version_text().endswith("TensorFlow Library: 2.20.0\n")
    versions.clear()
    assert version_text() == "TensorFlow ModelServer: unknown\nTensorFlow Library: not installed\n"
