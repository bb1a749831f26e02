"""The folder of the workers' sockets: private, short enough, gone at the end."""

import os
import pathlib
import tempfile

import pytest

from tensorgate.gateway.dispatch.run_directory import MAX_SOCKET_PATH_BYTES, RunDirectory
from tensorgate.protos.status_codes import Code, ServingError


def test_it_lies_in_the_users_runtime_folder_and_only_the_owner_may_enter(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path.parent if len(str(tmp_path)) < 30 else pathlib.Path("/tmp")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    made = RunDirectory()
    assert made.path.parent == folder
    assert made.path.stat().st_mode & 0o777 == 0o700
    (made.path / "left over").touch()
    made.remove()
    made.remove()
    assert not made.path.exists()


@pytest.mark.parametrize("parent", ["", "/no/such/folder", "/tmp/" + "x" * 80])
def test_it_falls_back_to_tmp(parent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if parent.startswith("/tmp/"):
        os.makedirs(parent, exist_ok=True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", parent)
    made = RunDirectory()
    made.remove()
    if parent.startswith("/tmp/"):
        os.rmdir(parent)
    assert str(made.path.parent) == "/tmp"


def test_it_is_made_in_the_parent_that_is_asked_for(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = pathlib.Path(tempfile.mkdtemp(dir="/tmp"))
    monkeypatch.chdir(parent.parent)
    for name in (str(parent), parent.name):
        made = RunDirectory(name)
        assert made.path.parent == parent
        made.remove()
    parent.rmdir()


@pytest.mark.parametrize(
    ("name", "trouble"),
    [
        ("none", "is no folder"),
        ("file", "is no folder"),
        ("closed", "is not writable"),
        ("x" * 80, "is too long for the path of a socket: at most "),
    ],
)
def test_a_parent_that_does_not_fit_is_refused_by_name(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str, trouble: str
) -> None:
    (tmp_path / "file").touch()
    for folder in ("closed", "x" * 80):
        (tmp_path / folder).mkdir()
    # Root may write anywhere, whatever the mode says.
    monkeypatch.setattr(os, "access", lambda path, _mode: not path.endswith("closed"))
    with pytest.raises(ServingError, match=f"--run_dir={tmp_path / name} {trouble}") as caught:
        RunDirectory(str(tmp_path / name))
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_a_place_that_takes_no_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_arguments: str) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(ServingError, match=r"in /tmp \(No space left on device\); choose another --run_dir"):
        RunDirectory()


def test_two_folders_are_never_the_same() -> None:
    one, other = RunDirectory(), RunDirectory()
    assert one.path != other.path
    one.remove()
    other.remove()


def test_a_socket_path_that_the_system_cannot_take_is_refused() -> None:
    made = RunDirectory()
    made.remove()
    assert made.socket_path("worker-1000-1000000-control").parent == made.path
    with pytest.raises(ValueError, match=f"longer than {MAX_SOCKET_PATH_BYTES} bytes"):
        made.socket_path("x" * 100)
