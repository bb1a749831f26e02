"""Replays answers recorded from TensorFlow Serving, set-up by set-up, against this server.

The recordings lie beside the checkout, in shared/recordings, or where TENSORGATE_RECORDINGS says; their README tells
what they are. What is known to differ stands here with its reason, and has to differ: an entry that has come true is to
be taken out.
"""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping

import pytest

from tests.harness.model_server import ModelServer, running_servers

ROOT = pathlib.Path(__file__).parents[2]
RECORDINGS = pathlib.Path(os.environ.get("TENSORGATE_RECORDINGS") or ROOT.parent / "shared" / "recordings")
REPLAY_TIMEOUT_S = 100

pytestmark = pytest.mark.skipif(
    not (RECORDINGS / "replay.py").exists(),
    reason=f"no recordings in {RECORDINGS}; TENSORGATE_RECORDINGS names their folder",
)

# Cases whose answer is meant to be another one, or has to be; by id.
DIFFERENCES: Mapping[str, str] = {
    "rest_dtype/float64-tiny-inputs": "numbers are read exactly; upstream reads 1e-30 as the double below it",
    "rest_get/models": "answered by the list of all models",
    "rest_get/models-query": "answered by the list of all models",
    "grpc_wire/health-off": "health is served always, for tools that expect it; upstream needs a flag",
    "grpc_wire/session-run": "SessionRun is served",
    "reload/logging-config": "requests are logged; without the prefix of a file's name the reload is refused",
}

SETUPS = {
    "plain": ("cases_plain.jsonl", "cases_plain_rest.jsonl", "cases_plain_grpc.jsonl"),
    "content": ("cases_content.jsonl",),
    "single": ("cases_single.jsonl",),
    "timeout": ("cases_timeout.jsonl",),
    "reload": ("cases_reload.jsonl",),
    "reload_model_type": ("cases_reload_model_type.jsonl",),
    "reload_no_platform": ("cases_reload_no_platform.jsonl",),
    "reload_type_and_platform": ("cases_reload_type_and_platform.jsonl",),
    "extras": ("cases_extras.jsonl",),
    "batching": ("cases_batching.jsonl",),
    "batching_per_model": ("cases_batching_per_model.jsonl",),
    "batching_plain": ("cases_batching_plain.jsonl",),
    "batching_queue": ("cases_batching_queue.jsonl",),
    "batching_split": ("cases_batching_split.jsonl",),
}


# Cases whose requests have to arrive within the batch timeout of each other, which a stalling machine may not manage.
TOGETHER, NUM_TRIES_TOGETHER = "batching_together/", 3


def flags_of(setup: str, files: pathlib.Path) -> list[str]:
    """The set-up's flags but for the ports; writes its config files into the folder."""
    command = [sys.executable, "-B", str(RECORDINGS / "servers.py"), setup, f"--files={files}", "--port=0", "--rest=0"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    _server, *flags = shlex.split(printed)
    return [flag for flag in flags if not flag.startswith(("--port=", "--rest_api_port="))]


def replay(server: ModelServer, setup: str) -> tuple[list[tuple[str, str]], str]:
    """Of each case its id and outcome (pass, FAIL, deviates), and what was printed. Some ids are there twice."""
    files = [str(RECORDINGS / name) for name in SETUPS[setup]]
    addresses = [f"--grpc=127.0.0.1:{server.port}", f"--rest=127.0.0.1:{server.rest_port}"]
    outcomes: list[tuple[str, str]] = []
    printed = []
    command = ["timeout", str(REPLAY_TIMEOUT_S), sys.executable, "-Bu", str(RECORDINGS / "replay.py")]
    with subprocess.Popen([*command, *addresses, *files], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            printed.append(line)
            match = re.match(r"(pass|FAIL|deviates) +(.+?)  \(", line)
            if match is not None:
                outcomes.append((match[2], match[1]))
    return outcomes, "".join(printed)


def test_every_set_up_is_replayed() -> None:
    assert {path.name for path in RECORDINGS.glob("cases_*.jsonl")} == {
        name for each in SETUPS.values() for name in each
    }


@pytest.mark.parametrize("setup", SETUPS)
def test_the_server_answers_as_tensorflow_serving_did(setup: str, tmp_path: pathlib.Path) -> None:
    with running_servers(tmp_path) as start_server:
        server = start_server(*flags_of(setup, tmp_path))
        for _ in range(NUM_TRIES_TOGETHER):
            outcomes, printed = replay(server, setup)
            failed = [case for case, outcome in outcomes if outcome == "FAIL"]
            if not (failed and all(case.startswith(TOGETHER) for case in failed)):
                break
        server.is_ready()  # fails where the server has ended

    assert not set(failed) - set(DIFFERENCES), printed
    assert len(outcomes) == sum(count_cases(RECORDINGS / name) for name in SETUPS[setup]), printed
    settled = [case for case, outcome in outcomes if outcome == "pass" and case in DIFFERENCES]
    assert not settled, "known to differ, and yet these pass: they are to be taken out of the list"


def test_what_is_known_to_differ_is_recorded() -> None:
    ids = {
        json.loads(line)["id"]
        for path in RECORDINGS.glob("cases_*.jsonl")
        for line in path.read_text(encoding="utf-8").split("\n")
        if line.strip()
    }
    assert set(DIFFERENCES) <= ids


def count_cases(path: pathlib.Path) -> int:
    with path.open(encoding="utf-8") as lines:
        return sum(1 for line in lines if line.strip())
