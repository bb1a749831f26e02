"""Generates the Python code of the .proto files beside it, with imports that stay inside tensorgate.protos.

  python protos/generate.py           writes the generated files
  python protos/generate.py --check   exits 1, naming them, if committed files differ from fresh ones

protoc writes imports by the files' own paths (``from tensorflow_serving.apis import …``), which would take the official
client package where it is installed; they are rewritten to ``from tensorgate.protos.tensorflow_serving.apis import …``.
The descriptors keep upstream's file names, so reflection and Any see what they expect.
"""

import argparse
import importlib.metadata
import os
import pathlib
import re
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py")
# Each version writes other code, and the code refuses a protobuf or grpcio runtime older than its generator.
GRPCIO_TOOLS_VERSION = "1.75.1"
IMPORT = re.compile(
    r"^(from|import) (tensorflow|tensorflow_serving|tsl|tensorgate(?!\.protos)|grpc(?=\.(?:health|reflection)))([.\s])",
    re.MULTILINE,
)


def generate(out: pathlib.Path) -> None:
    """Writes all generated files below the existing folder ``out``.

    Raises SystemExit, with what to do, when grpcio-tools is of another version or protoc refuses a file.
    """
    # Here, since only developers have it.
    import grpc_tools  # noqa: PLC0415
    from grpc_tools import protoc  # noqa: PLC0415

    version = importlib.metadata.version("grpcio-tools")
    if version != GRPCIO_TOOLS_VERSION:
        raise SystemExit(
            f"grpcio-tools is {version}, the committed code is of {GRPCIO_TOOLS_VERSION}: "
            f"pip install grpcio-tools=={GRPCIO_TOOLS_VERSION}, or change GRPCIO_TOOLS_VERSION and regenerate"
        )
    sources = sorted(str(path.relative_to(HERE)) for path in HERE.rglob("*.proto"))
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    arguments = ["protoc", f"-I{HERE}", f"-I{well_known}"]
    arguments += [f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python")]
    if protoc.main([*arguments, *sources]) != 0:
        raise SystemExit("protoc refused a file; its message is above")
    for path in out.rglob("*_pb2*.py*"):
        text = path.read_text(encoding="utf-8")
        if path.name.endswith("_pb2_grpc.py") and "class " not in text:
            path.unlink()  # a file without services
            continue
        path.write_text(IMPORT.sub(r"\1 tensorgate.protos.\2\3", text), encoding="utf-8")


def generated_files(folder: pathlib.Path) -> dict[str, str]:
    """Relative path to text of the generated files below a folder."""
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for pattern in GENERATED
        for path in folder.rglob(pattern)
    }


def fresh_files() -> dict[str, str]:
    """Relative path to text of what the .proto files generate now. Raises SystemExit as ``generate`` does."""
    with tempfile.TemporaryDirectory() as fresh:
        generate(pathlib.Path(fresh))
        return generated_files(pathlib.Path(fresh))


def stale_files() -> list[str]:
    """The generated files that differ from fresh ones, are missing or should not be there."""
    wanted, found = fresh_files(), generated_files(HERE)
    return sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))


def write_files() -> None:
    """Brings the generated files up to date; each is replaced whole, so that nobody imports half of one."""
    wanted, found = fresh_files(), generated_files(HERE)
    for name, text in wanted.items():
        if found.get(name) != text:
            new = HERE / f"{name}.new"
            new.write_text(text, encoding="utf-8")
            os.replace(new, HERE / name)
    for name in found.keys() - wanted.keys():
        (HERE / name).unlink()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when files are stale")
    if parser.parse_args().check:
        stale = stale_files()
        print("\n".join(f"stale: {name}" for name in stale) or "generated code is fresh")
        return 1 if stale else 0
    write_files()
    return 0


if __name__ == "__main__":
    sys.exit(main())
