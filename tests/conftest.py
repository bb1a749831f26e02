"""What every test gets: a check that it leaks nothing, and the models that real TensorFlow makes for it."""

import contextlib
import gc
import importlib.util
import os
import pathlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says more of the machine than of the code.
settings.register_profile("any_machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any_machine")

TESTS = pathlib.Path(__file__).parent
# Threads that libraries start once and keep: gRPC's poller, and pools that idle.
LASTING_THREADS = ("grpc", "ThreadPoolExecutor", "asyncio_")


def open_files() -> dict[int, str]:
    """File descriptors of this process that tests open: files, sockets, pipes; not those of libraries' own."""
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
        found[int(fd)] = target
    return found


def children() -> set[int]:
    """Processes whose parent this one is, zombies included."""
    found = set()
    for task in os.listdir("/proc/self/task"):
        # A thread that has been joined may yet end between the listing and this.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            path = pathlib.Path(f"/proc/self/task/{task}/children")
            found.update(int(pid) for pid in path.read_text(encoding="ascii").split())
    return found


def lasting(thread: threading.Thread) -> bool:
    return thread.name.startswith(LASTING_THREADS)


@pytest.fixture(autouse=True)
def leaks_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves a thread, a child process or a file descriptor behind.

    ``@pytest.mark.leaks(reason)`` excuses one, with the reason. Clients of gRPC keep a few descriptors for the life of
    the process, so descriptors are compared with a margin that a leak per request or per connection overruns.
    """
    threads, processes, files = set(threading.enumerate()), children(), open_files()
    yield
    if request.node.get_closest_marker("leaks"):
        return
    deadline = time.monotonic() + 5
    while True:
        left_threads = [t.name for t in set(threading.enumerate()) - threads if t.is_alive() and not lasting(t)]
        left_processes = children() - processes
        now = open_files()
        left_files = {fd: target for fd, target in now.items() if files.get(fd) != target}
        if not left_threads and not left_processes and len(now) <= len(files) + 8:
            return
        if time.monotonic() > deadline:
            pytest.fail(f"leaked threads {left_threads}, processes {left_processes}, descriptors {left_files}")
        # Only now: collecting takes longer than most tests.
        gc.collect()
        time.sleep(0.05)


@pytest.fixture(scope="session")
def saved_models(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder of SavedModels made by tests/saved_models/make_models.py, with real TensorFlow in a child process."""
    return made_by("make_models.py", tmp_path_factory.mktemp("saved_models"))


@pytest.fixture(scope="session")
def model_kinds(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder of SavedModels of every kind, made by tests/saved_models/make_model_kinds.py in the same way."""
    return made_by("make_model_kinds.py", tmp_path_factory.mktemp("model_kinds"))


@pytest.fixture(scope="session")
def tflite_models(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder of TensorFlow Lite models made by tests/saved_models/make_tflite_models.py."""
    if importlib.util.find_spec("ai_edge_litert") is None:
        pytest.skip('TensorFlow Lite is not installed: pip install "tensorgate[tflite]"')
    return made_by("make_tflite_models.py", tmp_path_factory.mktemp("tflite_models"))


def made_by(program: str, out: pathlib.Path, *arguments: str) -> pathlib.Path:
    """Runs a program of tests/saved_models, which writes models into the folder; the folder."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip('TensorFlow is not installed: pip install "tensorgate[cpu]"')
    made = subprocess.run(
        [sys.executable, str(TESTS / "saved_models" / program), str(out), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        # Under sanitizers (tests/sanitize.sh) too it runs without them: nothing of ours is in it.
        env={name: value for name, value in os.environ.items() if name not in ("LD_PRELOAD", "PYTHONMALLOC")},
    )
    assert made.returncode == 0, made.stderr
    return out
