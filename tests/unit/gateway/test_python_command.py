"""Programs started by python_command: what they import, and what they are told."""

import pathlib
import subprocess
import sys

import pytest

from tensorgate.gateway.python_command import python_command

PROBE = """
import argparse, json, queue, sys
import msgpack

def main():
    print(json.dumps([msgpack.__file__, *sys.argv[1:]]))
    return 7
"""
TRAP = "raise SystemExit('a module of the current folder was run')"


def test_modules_of_the_current_folder_are_not_run_and_those_of_pythonpath_are(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, current = tmp_path / "path", tmp_path / "current"
    for folder in (path, current):
        folder.mkdir()
    (path / "probe.py").write_text(PROBE, encoding="ascii")
    (path / "msgpack.py").touch()
    for name in ("msgpack", "queue", "argparse", "json", "probe"):
        (current / f"{name}.py").write_text(TRAP, encoding="ascii")
    monkeypatch.setenv("PYTHONPATH", str(path))
    done = subprocess.run(
        [*python_command("probe"), "--a=b", "c d"], cwd=current, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (7, "")
    assert done.stdout == f'["{path / "msgpack.py"}", "--a=b", "c d"]\n'


def test_the_one_file_binary_which_is_no_interpreter_takes_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert python_command("probe")[0] == "python3"
