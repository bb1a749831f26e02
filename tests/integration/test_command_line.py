"""The command line's tools against a running server, as processes."""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

import pytest

from tests.harness.model_server import ModelServer, config_flag, floats, predict_request, running_servers

numpy = pytest.importorskip("numpy", reason="numpy is not installed: the extra client brings it")

Tool = Callable[..., subprocess.CompletedProcess[str]]


def tensorgate(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tensorgate.gateway.cli.main", *arguments],
        capture_output=True,
        text=True,
        input=text,
        check=False,
        timeout=100,
        env={**os.environ, "COLUMNS": "160"},
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, saved_models: pathlib.Path) -> Iterator[ModelServer]:
    folder = tmp_path_factory.mktemp("command_line")
    flag = config_flag(folder, {"half_plus_two": saved_models / "half_plus_two"})
    config = folder / "models.config"
    platform = 'model_platform: "tensorflow"'
    logging = (
        f'logging_config {{ log_collector_config {{ filename_prefix: "{folder / "log" / "requests"}" }} '
        "sampling_config { sampling_rate: 1 } }"
    )
    config.write_text(config.read_text().replace(platform, f"{platform} {logging}"))
    with running_servers(folder) as start:
        yield start(flag)


def addresses(server: ModelServer) -> Sequence[str]:
    return f"--server=127.0.0.1:{server.port}", f"--rest=127.0.0.1:{server.rest_port}"


def test_predict_takes_json_and_arrays_by_the_names_of_inputs(server: ModelServer, tmp_path: pathlib.Path) -> None:
    grpc_address, _ = addresses(server)
    array = tmp_path / "x.npy"
    numpy.save(array, numpy.array([4.0, 6.0]))
    for source, text in (
        ("-", '{"inputs": {"x": [4, 6]}}'),
        ("-", '{"instances": [4, 6]}'),
        ("x=-", "[4, 6]"),
        (str(array), None),
        (f"x={array}", None),
    ):
        done = tensorgate("predict", "half_plus_two", source, grpc_address, text=text)
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        assert document["outputs"] == {"y": [4.0, 5.0]}, source
        assert document["model"] == "half_plus_two"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["nobody", "-"], "NOT_FOUND"),
        (["half_plus_two", "z=-"], "no input 'z'"),
        (["half_plus_two", "-", "--signature=none"], "no signature 'none'"),
        (["half_plus_two", "missing.npy"], "NOT_FOUND: missing.npy"),
        (["half_plus_two", "-", "--version=99"], "NOT_FOUND"),
    ],
)
def test_predict_says_what_is_wrong_and_exits_with_1(server: ModelServer, arguments: list[str], error: str) -> None:
    done = tensorgate("predict", *arguments, addresses(server)[0], text="[1]")
    assert done.returncode == 1
    assert error in done.stderr
    assert "Traceback" not in done.stderr


def test_status_shows_models_and_workers(server: ModelServer) -> None:
    _, rest_address = addresses(server)
    done = tensorgate("status", rest_address)
    assert done.returncode == 0, done.stderr
    assert "ready" in done.stdout
    assert "half_plus_two" in done.stdout
    assert "AVAILABLE" in done.stdout
    assert "worker-0" in done.stdout
    document = json.loads(tensorgate("status", rest_address, "--json").stdout)
    assert document["ready"] is True
    assert document["models"][0]["name"] == "half_plus_two"


def test_status_of_nobody_is_an_error() -> None:
    done = tensorgate("status", "--rest=127.0.0.1:1")
    assert done.returncode == 1
    assert "No REST server answers at 127.0.0.1:1" in done.stderr


@pytest.mark.parametrize("api", ["grpc", "rest"])
def test_bench_measures_a_closed_loop(server: ModelServer, api: str) -> None:
    done = tensorgate(
        "bench", "half_plus_two", *addresses(server), f"--api={api}", "--num_requests=50", "--duration_s=60",
        "--concurrency=3", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)
    assert run["statuses"] == {"OK": 50}
    assert 0 < run["p50_ms"] <= run["p99_ms"]


def test_bench_keeps_a_rate_and_sweeps_and_plots(server: ModelServer, tmp_path: pathlib.Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: the extra client brings it")
    plot = tmp_path / "plot.html"
    done = tensorgate(
        "bench", "half_plus_two", *addresses(server), "--duration_s=1", "--rate=20", "--sweep=1,2", f"--plot={plot}"
    )
    assert done.returncode == 0, done.stderr
    assert "Recommended: concurrency" in done.stdout
    assert "<svg" in plot.read_text()


@pytest.mark.timeout(300)
def test_bench_compares_batching_on_servers_of_its_own(saved_models: pathlib.Path, tmp_path: pathlib.Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: the extra client brings it")
    plot = tmp_path / "plot.png"
    serve = ("bench", "half_plus_two", f"--serve={saved_models / 'half_plus_two'}", "--num_requests=40")
    done = tensorgate(*serve, "--sweep=1,2", "--batching=off", "--batching=max_batch_size=8", f"--plot={plot}")
    assert done.returncode == 0, done.stderr
    assert "Recommended: batching" in done.stdout
    assert done.stdout.count("max_batch_size=8 ") >= 2
    assert plot.stat().st_size > 1000
    done = tensorgate(*serve, "--batching=auto", "--json")
    (run,) = json.loads(done.stdout)
    assert (run["batching"], run["statuses"]) == ("auto", {"OK": 40})


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--batching=auto"], "--batching goes with --serve"),
        (["--serve=.", "--batching=fast"], "'fast' is no batching parameter"),
        (["--serve=.", "--batching=off"], "has no version"),
    ],
)
def test_bench_says_why_it_cannot_compare(tmp_path: pathlib.Path, arguments: list[str], error: str) -> None:
    done = tensorgate("bench", "m", *(each.replace("=.", f"={tmp_path}") for each in arguments))
    assert done.returncode != 0
    assert error in done.stderr
    assert "Traceback" not in done.stderr


def test_a_failing_bench_exits_with_1(server: ModelServer) -> None:
    done = tensorgate("bench", "nobody", *addresses(server), "--duration_s=1")
    assert done.returncode == 1
    assert "NOT_FOUND" in done.stderr


def test_a_request_log_is_replayed_and_its_answers_compared(server: ModelServer) -> None:
    for value in range(3):
        server.prediction.Predict(predict_request("half_plus_two", x=floats(value)), timeout=10)
    assert server.stop() == 0
    logs = [str(path) for path in (server.log_path.parent / "log").iterdir()]
    with running_servers(server.log_path.parent) as start:
        again = start(f"--model_config_file={server.log_path.parent / 'models.config'}")
        done = tensorgate("replay", *logs, addresses(again)[0])
        assert done.returncode == 0, done.stderr
        assert "of OK" in done.stdout
        assert "others: 0" in done.stdout
        done = tensorgate("replay", *logs, addresses(again)[0], "--model=nobody")
        assert done.returncode == 1
        assert "of NOT_FOUND" in done.stdout


def test_inspect_shows_signatures_without_tensorflow(saved_models: pathlib.Path) -> None:
    done = tensorgate("inspect", str(saved_models / "half_plus_two"))
    assert done.returncode == 0, done.stderr
    assert "serving_default" in done.stdout
    assert "x: float" in done.stdout
    assert "warm-up: none" in done.stdout


def test_inspect_of_no_model_and_of_a_broken_one(tmp_path: pathlib.Path) -> None:
    assert tensorgate("inspect", str(tmp_path)).returncode == 1
    (tmp_path / "saved_model.pb").write_bytes(b"\x12\xff\xff\xff\xff\x0f")
    done = tensorgate("inspect", str(tmp_path))
    assert done.returncode == 1
    assert "is no SavedModel" in done.stderr


def test_config_check_names_problems_and_what_the_server_would_refuse(tmp_path: pathlib.Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    flag = config_flag(tmp_path, {"m": tmp_path / "m"})
    done = tensorgate("config", "check", flag)
    assert (done.returncode, done.stdout) == (0, "1 model(s): m\n"), done.stderr
    done = tensorgate("config", "check", config_flag(tmp_path, {"m": tmp_path / "none"}), "--no_such_flag=1")
    assert done.returncode == 1
    assert f"there is no folder {tmp_path / 'none'}" in done.stderr
    assert "--no_such_flag" in done.stderr
    (tmp_path / "tokens").write_text("predict short", encoding="ascii")
    done = tensorgate("config", "check", flag, f"--auth_token_file={tmp_path / 'tokens'}")
    assert (done.returncode, "line 1 has a token that is not" in done.stderr) == (1, True)
    done = tensorgate("config", "check", config_flag(tmp_path, {"m": pathlib.Path("relative")}))
    assert done.returncode == 1
    assert "Expected model m to have an absolute path" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_get_their_completion(shell: str) -> None:
    done = tensorgate("completion", shell)
    assert done.returncode == 0
    assert "_TENSORGATE_COMPLETE" in done.stdout


def test_every_command_explains_itself() -> None:
    listing = tensorgate("--help")
    for command in "bench completion config demo inspect predict reload replay serve status".split():  # noqa: SIM905
        assert f"  {command} " in listing.stdout
