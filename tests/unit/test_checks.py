"""Types, style, formatting and stubs: part of the test run, so that there is one command for everything."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
NATIVE = ROOT / "_native"


def start(module: str, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Starts a tool that the ``dev`` extra installs."""
    name = module.split(".", maxsplit=1)[0]
    if importlib.util.find_spec(name) is None:
        pytest.skip(f'{name} is not installed: pip install -e ".[dev]"')
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # The tools that tools call lie beside this interpreter, whether its environment is activated or not.
        env={
            **os.environ,
            "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}",
            **(environment or {}),
        },
    )


def finds_nothing(*tools: subprocess.Popen[str]) -> None:
    """Waits for tools that run at the same time; fails with what they say."""
    try:
        said = [tool.communicate(timeout=300)[0] for tool in tools]
    finally:
        for tool in tools:
            tool.kill()
            tool.wait()
    assert [tool.returncode for tool in tools] == [0] * len(tools), "".join(said)


def run(module: str, *arguments: str, environment: dict[str, str] | None = None) -> None:
    finds_nothing(start(module, *arguments, environment=environment))


def link_tree() -> pathlib.Path:
    """The tree of links that the editable install makes, in which the package has its import names."""
    tree = ROOT / "build" / "tree"
    if not tree.exists():
        pytest.skip("no build/tree: install with pip install -e")
    return tree


def test_ruff_finds_nothing() -> None:
    run("ruff", "check", ".")


def test_the_code_is_formatted() -> None:
    run("ruff", "format", "--check", ".")


@pytest.mark.timeout(300)
def test_cython_lint_finds_nothing() -> None:
    """In two processes, since one takes long; what declares a module and what defines it go to the same."""
    modules = sorted({path.stem for path in NATIVE.glob("*.p[xy][dx]")})
    halves = [
        [str(path) for module in half for path in sorted(NATIVE.glob(f"{module}.p[xy][dx]"))]
        for half in (modules[::2], modules[1::2])
    ]
    assert sum(map(len, halves)) == len([*NATIVE.rglob("*.pyx"), *NATIVE.rglob("*.pxd")])
    finds_nothing(*(start("cython_lint.cython_lint", "--max-line-length=120", *half) for half in halves))


@pytest.mark.timeout(300)
def test_types_are_right_strictly() -> None:
    link_tree()
    run("mypy")


@pytest.mark.timeout(300)
def test_stubs_match_the_compiled_modules() -> None:
    modules = [f"tensorgate._native.{path.stem}" for path in sorted(NATIVE.glob("*.pyx"))]
    assert sorted(path.stem for path in NATIVE.glob("*.pyi")) == [module.rpartition(".")[2] for module in modules]
    run(
        "mypy.stubtest",
        "--mypy-config-file=pyproject.toml",
        "--allowlist=tests/stubtest_allowlist.txt",
        "--ignore-unused-allowlist",
        *modules,
        environment={"MYPYPATH": str(link_tree())},
    )


def test_every_module_opens_with_a_sentence() -> None:
    for folder in ("gateway", "workers", "_native", "examples", "tests"):
        for path in (ROOT / folder).rglob("*.py*"):
            if path.suffix not in {".py", ".pyx", ".pxd"}:
                continue
            text = path.read_text(encoding="utf-8").lstrip()
            text = text.removeprefix("#!/usr/bin/env python\n").lstrip()
            assert not text or text.startswith('"""'), f"{path} has no module docstring"


def test_the_gateways_core_does_no_input_or_output() -> None:
    allowed = {"asyncio", "collections", "contextlib", "dataclasses", "enum", "logging", "time", "typing"}
    for path in (ROOT / "gateway" / "core").glob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            words = line.split()
            if len(words) > 1 and words[0] in {"from", "import"}:
                module = words[1]
                assert (
                    module.split(".")[0] in allowed
                    or module.startswith("tensorgate.gateway.core")
                    or module == "tensorgate.protos.status_codes"
                ), f"{path} imports {module}"
