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


# What makes the folders of models that fixtures of these names are.
MAKERS = {
    "saved_models": "make_models.py",
    "model_kinds": "make_model_kinds.py",
    "tflite_models": "make_tflite_models.py",
}


@pytest.fixture(scope="session")
def makers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> "dict[str, Maker]":
    """Those of MAKERS that the session's tests ask for, which have run at the same time: each keeps one core busy."""
    asked_for = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    started = {
        name: Maker(program, tmp_path_factory.mktemp(name)) for name, program in MAKERS.items() if name in asked_for
    }
    for maker in started.values():
        maker.wait()
    return started


@pytest.fixture(scope="session")
def saved_models(request: pytest.FixtureRequest) -> pathlib.Path:
    """The folder of SavedModels made by tests/saved_models/make_models.py, with real TensorFlow in a child process."""
    return made("saved_models", request)


@pytest.fixture(scope="session")
def model_kinds(request: pytest.FixtureRequest) -> pathlib.Path:
    """The folder of SavedModels of every kind, made by tests/saved_models/make_model_kinds.py in the same way."""
    return made("model_kinds", request)


@pytest.fixture(scope="session")
def tflite_models(request: pytest.FixtureRequest) -> pathlib.Path:
    """The folder of TensorFlow Lite models made by tests/saved_models/make_tflite_models.py."""
    if importlib.util.find_spec("ai_edge_litert") is None:
        pytest.skip('TensorFlow Lite is not installed: pip install "tensorgate[tflite]"')
    return made("tflite_models", request)


def made(name: str, request: pytest.FixtureRequest) -> pathlib.Path:
    """The folder of one of MAKERS."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip('TensorFlow is not installed: pip install "tensorgate[cpu]"')
    makers: dict[str, Maker] = request.getfixturevalue("makers")
    if name not in makers:  # a test asks in its middle, which nobody could know
        makers[name] = Maker(MAKERS[name], request.getfixturevalue("tmp_path_factory").mktemp(name))
        makers[name].wait()
    return makers[name].made()


def made_by(program: str, out: pathlib.Path, *arguments: str) -> pathlib.Path:
    """Runs a program of tests/saved_models, which writes models into the folder; the folder."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip('TensorFlow is not installed: pip install "tensorgate[cpu]"')
    maker = Maker(program, out, *arguments)
    maker.wait()
    return maker.made()


class Maker:
    """A program of tests/saved_models that writes models into the folder, from its start on."""

    def __init__(self, program: str, out: pathlib.Path, *arguments: str) -> None:
        self._out = out
        self._errors = ""
        self._process = subprocess.Popen(
            [sys.executable, str(TESTS / "saved_models" / program), str(out), *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            # Under sanitizers (tests/sanitize.sh) too it runs without them: nothing of ours is in it.
            env={name: value for name, value in os.environ.items() if name not in ("LD_PRELOAD", "PYTHONMALLOC")},
        )

    def wait(self) -> None:
        with self._process:
            try:
                _, self._errors = self._process.communicate(timeout=300)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._errors = "not done after 300 s"

    def made(self) -> pathlib.Path:
        """The folder; fails the test if the program has failed."""
        assert self._process.returncode == 0, self._errors
        return self._out
