"""The source distribution holds all that a build needs, and the wheel all that a run needs and nothing else."""

import importlib.util
import pathlib
import subprocess
import sys
import tarfile
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with the sdist, and the wheel that was built from it.

    All of it is translated, compiled and linked, but not optimized, which takes long and has no part in what is tested.
    """
    if importlib.util.find_spec("build") is None:
        pytest.skip('build is not installed: pip install -e ".[dev]"')
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)),
            "--config-setting=cmake.define.CMAKE_C_FLAGS_RELEASE=-O0",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.mark.timeout(1200)
def test_the_wheel_has_the_four_packages_with_types_and_no_sources_of_extensions(distributions: pathlib.Path) -> None:
    (path,) = distributions.glob("*.whl")
    names = set(zipfile.ZipFile(path).namelist())
    for name in (
        "tensorgate/gateway/main.py",
        "tensorgate/gateway/py.typed",
        "tensorgate/gateway/console/page/index.html",
        "tensorgate/gateway/console/page/console.js",
        "tensorgate/workers/main.py",
        "tensorgate/protos/tensorflow_serving/apis/predict_pb2.py",
        "tensorgate/protos/tensorflow_serving/apis/predict.proto",
        "tensorgate/_native/frame_header.pyi",
        "tensorgate/_native/frame_header.pxd",
    ):
        assert name in names
    modules = {pathlib.Path(source).stem for source in (ROOT / "_native").glob("*.pyx")}
    assert {name.split("/")[-1].split(".")[0] for name in names if name.endswith(".so")} == modules
    strangers = [name for name in names if not name.startswith(("tensorgate/", "tensorgate-"))]
    assert strangers == []
    assert "tensorgate/_native/translate.py" not in names
    assert [name for name in names if name.endswith((".pyx", ".c")) or "/tests/" in name or "__pycache__" in name] == []
    text = zipfile.ZipFile(path).read("tensorgate-0.1.0.dist-info/entry_points.txt").decode()
    assert "tensorflow_model_server = tensorgate.gateway.main:main" in text
    assert "tensorgate = tensorgate.gateway.cli.main:main" in text
    assert "tensorgate-worker = tensorgate.workers.main:main" in text


def test_the_sdist_has_the_native_sources_tests_and_examples(distributions: pathlib.Path) -> None:
    (path,) = distributions.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    for name in ("_native/CMakeLists.txt", "_native/session.pyx", "protos/generate.py", "examples/mnist_client.py"):
        assert name in names
    assert "tests/conftest.py" in names
    assert [name for name in names if name.startswith(("build/", ".venv/", ".ci/"))] == []
