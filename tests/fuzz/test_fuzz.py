"""Every fuzz target for a few seconds: its corpus, then inputs made from it.

Guided by coverage where clang is installed and TENSORGATE_FUZZ_DIR names a folder for the instrumented build (see
run.sh), which takes minutes to make; else the modules as they are installed, and mutations that know only the corpus,
which holds what the guided runs have found to matter. TENSORGATE_FUZZ_S: seconds for each target (5).
"""

import os
import pathlib
import random
import subprocess
import sys
import time

import pytest

from tensorgate._native import nghttp2_api, tf_c_api
from tensorgate._native.shared_library import LibraryError
from tests.fuzz.targets import TARGETS

FOLDER = pathlib.Path(__file__).parent
SECONDS = float(os.environ.get("TENSORGATE_FUZZ_S", "5"))
MAX_SIZE = 4096
# Numbers at which lengths and varints turn.
EDGES = (0, 1, 0x7F, 0x80, 0xFF)


def corpus(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((FOLDER / "corpus" / name).iterdir())]


def mutated(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """A few bytes set, put in, taken out or moved, or the half of another input behind this one's."""
    made = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        at = chance.randrange(len(made) + 1)
        size = chance.choice((1, 1, 2, 4, 16))
        kind = chance.randrange(6)
        if kind == 0:
            made[at : at + 1] = bytes([chance.choice(EDGES)])
        elif kind == 1:
            made[at : at + size] = chance.randbytes(size)
        elif kind == 2:
            made[at:at] = chance.randbytes(size)
        elif kind == 3:
            del made[at : at + size]
        elif kind == 4:
            source = chance.randrange(len(made) + 1)
            made[at:at] = made[source : source + size * 4]
        else:
            other = chance.choice(others)
            made[at:] = other[chance.randrange(len(other) + 1) :]
    return bytes(made[:MAX_SIZE])


@pytest.mark.timeout(300)
# protobuf's reader of text has Python decode escapes, which warns of unknown ones.
@pytest.mark.filterwarnings("ignore:.*invalid escape sequence:DeprecationWarning")
@pytest.mark.parametrize("name", TARGETS)
def test_a_target_takes_any_bytes(name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in ("tensor", "predict"):
        try:
            tf_c_api.load_library()
        except LibraryError as error:
            pytest.skip(f"TensorFlow is not installed: {error}")
    if name == "predict":
        monkeypatch.setenv("TENSORGATE_FUZZ_MODELS", str(request.getfixturevalue("saved_models")))
    if name == "http2":
        try:
            nghttp2_api.load_library()
        except LibraryError as error:
            pytest.skip(f"the native gRPC edge cannot run here: {error}")
    inputs = corpus(name)
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    with TARGETS[name]() as target:
        for data in inputs:
            target(data)
        end_s = time.monotonic() + SECONDS
        count = 0
        while time.monotonic() < end_s:
            data = mutated(chance.choice(inputs), inputs, chance)
            count += 1
            try:
                target(data)
            except Exception:
                print(f"seed {seed}, input {count}: {data!r}")
                raise
    assert count > 0
    print(f"{name}: {count} inputs beside the corpus' {len(inputs)}")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.skipif("TENSORGATE_FUZZ_DIR" not in os.environ, reason="TENSORGATE_FUZZ_DIR names no folder to build in")
def test_a_target_takes_what_coverage_finds(name: str) -> None:
    done = subprocess.run(
        [FOLDER / "run.sh", name, f"-max_total_time={SECONDS:.0f}"],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
        errors="replace",
    )
    assert done.returncode == 0, done.stderr[-5000:]
