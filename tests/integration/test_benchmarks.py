"""The benchmarks run and print their tables; what they say is for people to judge."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"


def run(script: str, *arguments: str, models: pathlib.Path | None = None) -> list[list[str]]:
    """The words of each line that a benchmark prints."""
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
        env={**os.environ, **({"TENSORGATE_SAVED_MODELS": str(models)} if models else {})},
    )
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


@pytest.mark.skipif(
    not (shutil.which("h2load") and shutil.which("nghttpd")), reason="h2load and nghttpd are not installed"
)
def test_the_data_plane_is_measured_beside_servers_that_echo(saved_models: pathlib.Path) -> None:
    """Which also holds every answer's size against the right one."""
    arguments = ["--rounds=1", "--run_s=0.05", "--concurrency=1,16", "--bodies=1", "--models=2"]
    _, *rows = run("data_plane.py", *arguments, models=saved_models)
    servers = ["native", "grpcio", "echo", "nghttpd"]
    assert [(row[2], row[3]) for row in rows if row[0] == "2"] == [(c, name) for c in ("1", "16") for name in servers]
    assert all(float(row[4]) > 0 for row in rows if row[0] == "2")


def test_the_workers_cost_is_measured(saved_models: pathlib.Path) -> None:
    assert any("median" in row for row in run("worker_cost.py", "--runs=200", models=saved_models))


@pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")
def test_rest_is_measured_beside_a_server_that_echoes(saved_models: pathlib.Path) -> None:
    """Which also holds that no request fails."""
    _, *rows = run("rest.py", "--rounds=1", "--run_s=1", "--concurrency=4", "--images=1", models=saved_models)
    assert [(row[0], row[3]) for row in rows] == [("784", name) for name in ("json", "protobuf", "echo")]
    assert all(float(row[4]) > 0 for row in rows)


def test_the_json_of_tensors_is_measured() -> None:
    _, *rows = run("json_tensors.py", "--rounds=1")
    assert [row[0] for row in rows] == 2 * (3 * ["decode,"] + 2 * ["encode,"])
