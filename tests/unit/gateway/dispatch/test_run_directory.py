"""The folder of the workers' sockets: private, short enough, gone at the end."""

import os
import pathlib

import pytest

from tensorgate.gateway.dispatch.run_directory import MAX_SOCKET_PATH_BYTES, RunDirectory


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
