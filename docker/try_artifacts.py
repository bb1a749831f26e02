"""Tries the wheel and the one-file binary in clean roots: one with Python and nothing else, one without even that.

  python3 docker/try_artifacts.py --folder DIR --models DIR [--wheel WHEEL] [--binary FILE]

Needs what try_images.py needs, whose folder and whose server and worker images it uses: run that first. The roots have
no compiler and no libnghttp2 of their own.
"""

import argparse
import pathlib
import re
import shutil
import subprocess
import sys
import time

from try_images import ROOT, Builder, Image, chroot_command, read_dockerfile, run, size_mib, try_apart, try_server

BARE = "FROM debian:12-slim AS bare\n"
WITH_PYTHON = """
FROM debian:12-slim AS python
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*
ENV PATH=/opt/venv/bin:/usr/bin:/bin
"""
ENTRYPOINT = [
    "--port=8500", "--rest_api_port=8501", "--model_name=half_plus_two", "--model_base_path=/models/half_plus_two",
]  # fmt: skip
WORKER = "/opt/tensorgate/bin/python -c 'import sys; from tensorgate.workers.main import main; sys.exit(main())'"
HEALTH_CHECK = (ROOT / "docker" / "healthcheck.py").read_text(encoding="utf-8")


def output(image: Image, *command: str) -> str:
    """What a command in the root says; it may fail."""
    done = subprocess.run(chroot_command(image, list(command), []), capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def must_lack(image: Image, *programs: str) -> None:
    for each in programs:
        if output(image, "sh", "-c", f"command -v {each} || echo none").strip() != "none":
            raise RuntimeError(f"the root has {each}")
    if list(image.root.glob("usr/lib/*/libnghttp2*")):
        raise RuntimeError("the root has a libnghttp2")


def try_wheel(builder: Builder, wheel: pathlib.Path, folder: pathlib.Path, models: pathlib.Path) -> None:
    image = builder.image("python")
    must_lack(image, "gcc", "cc", "make")
    shutil.copy(wheel, image.root / "opt")
    cache = [(folder / "cache", "/root/.cache/pip")]
    run(
        image,
        ["sh", "-ec", f"python3 -m venv /opt/venv && /opt/venv/bin/pip install -q '/opt/{wheel.name}[cpu]'"],
        cache,
    )
    print(f"wheel: {wheel.stat().st_size / 2**20:.1f} MiB")
    load = "from tensorgate._native import nghttp2_api as n; print(n.load_library(), n.BUNDLED_LIBRARY)"
    print(f"   libnghttp2 {output(image, 'python', '-c', load).strip()}")
    image.entrypoint = ["tensorflow_model_server", *ENTRYPOINT]
    image.health_check = ["python", "-c", HEALTH_CHECK]
    try_server(image, [(models, "/models")], [])


def try_binary(builder: Builder, binary: pathlib.Path, models: pathlib.Path) -> None:
    print(f"binary: {binary.stat().st_size / 2**20:.1f} MiB")
    image = builder.image("bare")
    must_lack(image, "python3", "python", "gcc")
    shutil.copy(binary, image.root / "usr/bin/tensorflow_model_server")
    image.environment["PATH"] = "/usr/bin:/bin"
    for attempt in ("first", "second"):
        began_s = time.monotonic()
        said = output(image, "tensorflow_model_server", "--version")
        print(f"   {attempt} --version without Python: {time.monotonic() - began_s:.2f} s: {' '.join(said.split())}")
    said = output(image, "tensorflow_model_server", "--model_base_path=/x", "--run_dir=/tmp")
    (line,) = re.findall(r"Failed to start server.*", said) or [said]
    print(f"   without a worker to start: {line}")
    # Workers have a Python of their own: that of the server's image, which this program does not import from.
    server = builder.image("server")
    shutil.copy(binary, server.root / "usr/bin/tensorgate-gateway")
    server.entrypoint = ["/usr/bin/tensorgate-gateway", f"--worker_command={WORKER}", *ENTRYPOINT]
    try_server(server, [(models, "/models")], [])
    print("   without Python, its worker in another root:")
    image.entrypoint = ["tensorflow_model_server", *ENTRYPOINT]
    image.health_check = server.health_check
    try_apart(image, builder.image("worker"), models)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--models", type=pathlib.Path, required=True, help="has the model half_plus_two")
    parser.add_argument("--wheel", type=pathlib.Path)
    parser.add_argument("--binary", type=pathlib.Path)
    arguments = parser.parse_args()
    text = (ROOT / "docker" / "Dockerfile.cpu").read_text(encoding="utf-8")
    builder = Builder(read_dockerfile(f"{text}\n{BARE}{WITH_PYTHON}"), arguments.folder, None)
    for name in ("server", "worker", "python"):
        builder.reuse(name)
    if arguments.wheel is not None:
        try_wheel(builder, arguments.wheel, arguments.folder, arguments.models)
        print(f"   its root: {size_mib(builder.image('python').root)} MiB")
    if arguments.binary is not None:
        try_binary(builder, arguments.binary, arguments.models)
    return 0


if __name__ == "__main__":
    sys.exit(main())
