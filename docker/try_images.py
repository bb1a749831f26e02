"""Builds the images of a Dockerfile as plain folders and runs them by chroot, where there is no container engine.

  python3 docker/try_images.py [--dockerfile docker/Dockerfile.cpu] [--folder DIR] [--base TARBALL_OR_FOLDER] [TARGET …]

The Dockerfile is the one list of what is done: this program reads it and carries out the same commands, in clean roots
that debootstrap makes. Needs root, unshare, debootstrap and a network, for the distribution's packages and for PyPI's.
What an engine does beyond that is not tried: layers and their cache, overlay file systems, networks, cgroups, signals
by way of an engine, and health checks at intervals (the check itself is run).
"""

import argparse
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field

ROOT = pathlib.Path(__file__).resolve().parents[1]
DEBIAN_OF = {"debian:12-slim": "bookworm"}
MIRROR = "http://deb.debian.org/debian"
# What a build is told of this machine's way to package indexes, as engines pass on proxies.
PASSED_ON = re.compile(r"PIP_(?!CERT|FIND_LINKS).*|(?:https?|no)_proxy", re.IGNORECASE)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
INSTRUCTIONS = {"FROM", "RUN", "COPY", "ENV", "EXPOSE", "USER", "HEALTHCHECK", "ENTRYPOINT"}


@dataclass
class Stage:
    """One FROM and what follows it."""

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Image:
    """A root folder, and what an engine keeps beside it."""

    root: pathlib.Path
    environment: dict[str, str] = field(default_factory=dict)
    user: str = "root"
    entrypoint: list[str] = field(default_factory=list)
    health_check: list[str] = field(default_factory=list)


def read_dockerfile(text: str) -> list[Stage]:
    """The stages. Raises ValueError for what this program does not know."""
    stages: list[Stage] = []
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in filter(None, (each.strip() for each in lines.replace("\\\n", " ").splitlines())):
        instruction, _, rest = line.partition(" ")
        if instruction not in INSTRUCTIONS:
            raise ValueError(f"unknown instruction: {line}")
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            stages.append(Stage(name, base))
        else:
            stages[-1].steps.append((instruction, " ".join(rest.split())))
    return stages


class Builder:
    """Makes the images of stages, each once, in a folder."""

    def __init__(self, stages: list[Stage], folder: pathlib.Path, debian: pathlib.Path | None) -> None:
        self._stages = {stage.name: stage for stage in stages}
        self._folder = folder
        self._debian = debian
        self._images: dict[str, Image] = {}

    def image(self, name: str) -> Image:
        if name not in self._images:
            stage = self._stages[name]
            print(f"== {name}", flush=True)
            root = self._folder / name
            shutil.rmtree(root, ignore_errors=True)
            if stage.base in self._stages:
                base = self.image(stage.base)
                image = Image(root, dict(base.environment), base.user, base.entrypoint, base.health_check)
                copy(base.root, root)
            else:
                image = Image(root)
                copy(self._distribution(DEBIAN_OF[stage.base]), root)
            self._images[name] = image
            for instruction, rest in stage.steps:
                began_s = time.monotonic()
                self._step(image, instruction, rest)
                print(f"   {time.monotonic() - began_s:6.1f} s  {instruction} {rest[:90]}", flush=True)
        return self._images[name]

    def reuse(self, name: str) -> None:
        """Takes a stage's folder as an earlier run left it; only what is kept beside the folder is made again."""
        stage = self._stages[name]
        if not (self._folder / name).exists():
            return
        image = Image(self._folder / name)
        if stage.base in self._stages:
            self.reuse(stage.base)
            base = self._images[stage.base]
            image = Image(image.root, dict(base.environment), base.user, base.entrypoint, base.health_check)
        for instruction, rest in stage.steps:
            if instruction not in {"RUN", "COPY"}:
                self._step(image, instruction, rest)
        self._images[name] = image

    def _distribution(self, suite: str) -> pathlib.Path:
        if self._debian is not None:
            return self._debian
        root = self._folder / suite
        if not (root / "etc/debian_version").exists():
            subprocess.run(["debootstrap", "--variant=minbase", suite, root, MIRROR], check=True)
            make_slim(root)
        return root

    def _step(self, image: Image, instruction: str, rest: str) -> None:
        match instruction:
            case "RUN":
                caches = re.findall(r"--mount=type=cache,target=(\S+)", rest)
                command = re.sub(r"--mount=\S+\s*", "", rest)
                run(image, ["sh", "-ec", command], caches=[(self._folder / "cache", each) for each in caches])
            case "COPY":
                *sources, target = [each for each in rest.split() if not each.startswith("--")]
                stage = re.match(r"--from=(\S+)", rest)
                for source in sources:
                    if stage is not None:
                        copy(self.image(stage[1]).root / source.lstrip("/"), image.root / target.lstrip("/"))
                    else:
                        copy_context(source, image.root / target.lstrip("/"), into=target.endswith("/"))
            case "ENV":
                name, _, value = rest.partition("=")
                image.environment[name] = value
            case "USER":
                image.user = rest
            case "ENTRYPOINT":
                image.entrypoint = json.loads(rest)
            case "HEALTHCHECK":
                image.health_check = json.loads(rest.partition("CMD ")[2])


def make_slim(root: pathlib.Path) -> None:
    """What the slim image of Debian is without, and its way not to keep downloaded packages."""
    for place in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"):
        shutil.rmtree(root / place, ignore_errors=True)
        (root / place).mkdir(parents=True)
    (root / "var/cache/apt/archives/partial").mkdir()
    (root / "etc/apt/apt.conf.d/docker-clean").write_text('APT::Keep-Downloaded-Packages "false";\n', encoding="ascii")
    (root / "etc/dpkg/dpkg.cfg.d").mkdir(exist_ok=True)
    (root / "etc/dpkg/dpkg.cfg.d/slim").write_text(
        "".join(f"path-exclude=/usr/share/{each}/*\n" for each in ("doc", "man", "locale")), encoding="ascii"
    )


def copy(source: pathlib.Path, target: pathlib.Path) -> None:
    """A folder's content into a folder, or a file onto a file; with owners, modes and links, as COPY --from does."""
    target.parent.mkdir(parents=True, exist_ok=True)
    content = str(source)
    if source.is_dir():
        target.mkdir(exist_ok=True)
        content += "/."
    subprocess.run(["cp", "-a", "--reflink=auto", content, target], check=True)


def copy_context(source: str, target: pathlib.Path, *, into: bool) -> None:
    """From the repository, as git knows it: nearer to an engine's context than what happens to lie about."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", source],
        cwd=ROOT, capture_output=True, check=True,
    ).stdout.decode()  # fmt: skip
    names = [each for each in listed.split("\0") if each and (ROOT / each).exists()]
    for name in names:
        place = target / name if source == "." else target / pathlib.Path(name).name if into else target
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, place)


def chroot_command(
    image: Image, command: list[str], mounts: list[tuple[pathlib.Path, str]], more: dict[str, str] | None = None
) -> list[str]:
    """The command in the image's root, as its user, with processes and mounts of its own that end with it.

    It sees the image's environment, and ``more``, and nothing else of this program's.
    """
    pairs = [f"{name}={value}" for name, value in {"PATH": PATH, **image.environment, **(more or {})}.items()]
    script = [
        f"mount -t proc proc {image.root}/proc",
        *(f"mount --bind /dev/{name} {image.root}/dev/{name}" for name in ("null", "zero", "random", "urandom")),
        f"mount -t tmpfs tmpfs {image.root}/tmp -o mode=1777",
        *(f"mkdir -p {image.root}{place} && mount --bind {folder} {image.root}{place}" for folder, place in mounts),
        f"exec chroot --userspec={image.user} {image.root} {shlex.join(['env', '-i', *pairs, *command])}",
    ]
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "sh", "-ec", "\n".join(script)]


def run(image: Image, command: list[str], caches: list[tuple[pathlib.Path, str]]) -> None:
    """RUN: with the network of this machine, as engines have it."""
    environment = {
        "DEBIAN_FRONTEND": "noninteractive",
        "HOME": "/root",
        **{name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)},
    }
    for name in ("resolv.conf", "hosts"):
        # Where the distribution has a link there, it leads out of the root.
        (image.root / "etc" / name).unlink(missing_ok=True)
        shutil.copy(f"/etc/{name}", image.root / "etc" / name)
    mounts = list(caches)
    for folder, _ in caches:
        folder.mkdir(parents=True, exist_ok=True)
    if certificate := os.environ.get("PIP_CERT"):
        folder = caches[0][0] if caches else image.root / "root"
        shutil.copy(certificate, folder / "ca.crt")
        environment["PIP_CERT"] = f"{caches[0][1] if caches else '/root'}/ca.crt"
    subprocess.run(chroot_command(image, command, mounts, environment), check=True)


def size_mib(folder: pathlib.Path) -> int:
    told = subprocess.run(["du", "-sxm", folder], capture_output=True, text=True, check=True)
    return int(told.stdout.split()[0])


def try_apart(gateway: Image, worker: Image, models: pathlib.Path) -> None:
    """``try_server`` of a gateway without TensorFlow, or even Python; its worker has a root of its own, and a key."""
    with tempfile.TemporaryDirectory() as folder:
        making = chroot_command(worker, ["tensorgate", "worker-key"], [])
        key = subprocess.run(making, capture_output=True, check=True).stdout
        (pathlib.Path(folder) / "key").write_bytes(key)
        os.chmod(folder, 0o755)  # the images' user is not ours
        flag = "--worker_key_file=/opt/key/key"
        mounts = [(models, "/models"), (pathlib.Path(folder), "/opt/key")]
        with subprocess.Popen(chroot_command(worker, [*worker.entrypoint, flag], mounts)) as process:
            try:
                try_server(gateway, mounts, ["--workers=tcp://127.0.0.1:9900", flag], client=worker)
                print(f"   its worker has ended: exit {process.wait(60)}")
            finally:
                process.kill()


def try_server(
    image: Image, mounts: list[tuple[pathlib.Path, str]], flags: list[str], client: Image | None = None
) -> None:
    """Starts the image on a model, waits for its health check, asks it over REST, and stops it by SIGTERM.

    ``client``: in whose root the checks run, by default the image's own.
    """
    client = client or image
    environment = {"MODEL_NAME": "half_plus_two"}
    began_s = time.monotonic()
    command = chroot_command(image, [*image.entrypoint, *flags], mounts, environment)
    check_health = chroot_command(client, image.health_check, [])
    # The server has the number 1 in a namespace of its own; unshare passes no signal on to it.
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            while True:
                check = subprocess.run(check_health, capture_output=True, text=True, check=False)
                if check.returncode == 0:
                    break
                if server.poll() is not None or time.monotonic() - began_s > 120:
                    raise RuntimeError(f"not ready: {check.stdout} {server.stderr.read() if server.stderr else ''}")
                time.sleep(0.1)
            print(f"   ready after {time.monotonic() - began_s:.1f} s")
            ask = (
                "import urllib.request; print(urllib.request.urlopen(urllib.request.Request("
                "'http://127.0.0.1:8501/v1/models/half_plus_two:predict', b'{\"instances\": [4]}')).read().decode())"
            )
            asking = chroot_command(client, ["python3", "-c", ask], [])
            done = subprocess.run(asking, capture_output=True, text=True, check=True)
            print(f"   answer: {' '.join(done.stdout.split())}")
            child = pathlib.Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()[0]
            user = re.search(r"^Uid:\s+(\d+)", pathlib.Path(f"/proc/{child}/status").read_text(), re.MULTILINE)
            print(f"   runs as user {user[1] if user else '?'}")
            os.kill(int(child), 15)
            print(f"   SIGTERM: exit {server.wait(60)}")
        finally:
            server.kill()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dockerfile", type=pathlib.Path, default=ROOT / "docker" / "Dockerfile.cpu")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("/var/tmp/tensorgate-images"))
    parser.add_argument("--base", type=pathlib.Path, help="a folder with a clean Debian, instead of debootstrap's")
    parser.add_argument(
        "--models", type=pathlib.Path, help="a folder with the model half_plus_two, to run the server on"
    )
    parser.add_argument("--reuse", action="append", default=[], help="a stage whose folder an earlier run has made")
    parser.add_argument("--wheel", type=pathlib.Path, help="installed in place of compiling the code, which takes long")
    parser.add_argument("targets", nargs="*")
    arguments = parser.parse_args()
    text = arguments.dockerfile.read_text(encoding="utf-8")
    if arguments.wheel is not None:
        # Into the cache, which is mounted where packages are installed.
        (arguments.folder / "cache").mkdir(parents=True, exist_ok=True)
        shutil.copy(arguments.wheel, arguments.folder / "cache")
        compiling, installing = "-code /source\n", f"-code /root/.cache/pip/{arguments.wheel.name}\n"
        if compiling not in text:
            raise ValueError("the Dockerfile does not install /source")
        text = text.replace(compiling, installing)
    stages = read_dockerfile(text)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    builder = Builder(stages, arguments.folder, arguments.base)
    for name in arguments.reuse:
        builder.reuse(name)
    for name in arguments.targets or ["gateway", "worker", "server"]:
        image = builder.image(name)
        parts = {
            "distribution and Python": size_mib(image.root / "usr"),
            "packages": size_mib(image.root / "opt/tensorgate"),
            "tensorgate": size_mib(image.root / "opt/tensorgate-code"),
        }
        print(f"{name}: {size_mib(image.root)} MiB; {', '.join(f'{part} {size} MiB' for part, size in parts.items())}")
        if name == "server" and arguments.models is not None:
            try_server(image, [(arguments.models, "/models")], [])
        elif name == "worker" and arguments.models is not None:
            try_apart(builder.image("gateway"), image, arguments.models)
    return 0


if __name__ == "__main__":
    sys.exit(main())
