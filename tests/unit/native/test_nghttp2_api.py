"""Which libnghttp2 is opened: the one that a wheel brought, or else the system's."""

import pathlib
import subprocess
import sys

LOAD = """
import sys
from tensorgate._native import nghttp2_api
from tensorgate._native.shared_library import LibraryError
nghttp2_api.BUNDLED_LIBRARY = sys.argv[1]
try:
    print(nghttp2_api.load_library())
except LibraryError as error:
    print(error)
"""


def load(bundled: pathlib.Path) -> str:
    """In a process of its own: a library is opened once."""
    done = subprocess.run([sys.executable, "-c", LOAD, bundled], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def test_the_one_that_came_with_the_package_is_taken_and_no_other(tmp_path: pathlib.Path) -> None:
    bundled = tmp_path / "libnghttp2.so.14"
    bundled.write_bytes(b"no library")
    assert load(bundled).startswith(f"cannot open {bundled}: ")


def test_without_one_the_systems_is(tmp_path: pathlib.Path) -> None:
    said = load(tmp_path / "none")
    assert said[0].isdigit() or said.startswith("cannot open libnghttp2.so.14: ")
