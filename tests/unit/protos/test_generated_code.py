"""The committed code is what protoc makes of the .proto files, and it can be imported under our package's name only."""

import importlib.util
import pathlib
from types import ModuleType

import pytest

import tensorgate.protos as protos_package

PROTOS = pathlib.Path(next(iter(protos_package.__path__)))


def generate_module() -> ModuleType:
    """generate.py as a module: it is a program beside the package, never imported by it."""
    spec = importlib.util.spec_from_file_location("generate", PROTOS / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_code_is_fresh() -> None:
    pytest.importorskip("grpc_tools", reason='grpcio-tools is not installed: pip install "tensorgate[dev]"')
    assert generate_module().stale_files() == [], "run python protos/generate.py"


def test_generated_code_never_imports_the_official_packages() -> None:
    module = generate_module()
    for name, text in module.generated_files(PROTOS).items():
        assert not module.IMPORT.search(text), name


def test_every_package_of_messages_says_what_it_is() -> None:
    for folder in {path.parent for path in PROTOS.rglob("*.proto")}:
        for package in [folder, *folder.parents]:
            if package == PROTOS.parent:
                break
            assert (package / "__init__.py").read_text(encoding="utf-8").startswith('"""'), package


def test_only_services_have_grpc_code() -> None:
    with_grpc_code = {path.name.removesuffix("_pb2_grpc.py") for path in PROTOS.rglob("*_pb2_grpc.py")}
    with_services = {path.stem for path in PROTOS.rglob("*.proto") if "\nservice " in path.read_text(encoding="utf-8")}
    assert (
        with_grpc_code
        == with_services
        == {
            "prediction_service",
            "model_service",
            "profiler_service",
            "session_service",
            "model_admin",
            "health",
            "reflection",
        }
    )
