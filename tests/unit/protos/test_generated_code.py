"""The committed code is what protoc makes of the .proto files, and they say what upstream's say."""

import importlib
import importlib.util
import pathlib
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

import tensorgate.protos as protos_package

PROTOS = pathlib.Path(next(iter(protos_package.__path__)))
# The descriptors of the official client package, where the recordings are at hand.
OFFICIAL = pathlib.Path(__file__).resolve().parents[4] / "shared" / "recordings" / "descriptors.pb"


def generate_module() -> Any:
    spec = importlib.util.spec_from_file_location("generate", PROTOS / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_code_is_fresh() -> None:
    pytest.importorskip("grpc_tools", reason='grpcio-tools is not installed: pip install "tensorgate[dev]"')
    assert generate_module().stale_files() == []


def our_files() -> list[str]:
    return sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))


def fields_of(message: descriptor_pb2.DescriptorProto) -> dict[str, tuple[Any, ...]]:
    oneofs = [each.name for each in message.oneof_decl]
    return {
        field.name: (
            field.number,
            field.label,
            field.type,
            field.type_name,
            field.json_name,
            field.proto3_optional,
            oneofs[field.oneof_index] if field.HasField("oneof_index") else None,
        )
        for field in message.field
    }


def assert_within(ours: descriptor_pb2.DescriptorProto, theirs: descriptor_pb2.DescriptorProto) -> None:
    """Every field, nested message and enum of ours is theirs, number for number."""
    their_fields = fields_of(theirs)
    assert {name: their_fields.get(name) for name in fields_of(ours)} == fields_of(ours), ours.name
    their_enums = {enum.name: enum for enum in theirs.enum_type}
    for enum in ours.enum_type:
        assert list(enum.value) == list(their_enums[enum.name].value)
    nested = {message.name: message for message in theirs.nested_type}
    for message in ours.nested_type:
        assert_within(message, nested[message.name])


@pytest.mark.skipif(not OFFICIAL.exists(), reason="the official descriptors are not at hand (../shared/recordings)")
@pytest.mark.parametrize("name", our_files())
def test_every_field_has_upstreams_number_type_and_json_name(name: str) -> None:
    official = descriptor_pb2.FileDescriptorSet.FromString(OFFICIAL.read_bytes())
    messages = {f"{file.package}.{message.name}": message for file in official.file for message in file.message_type}
    services = {f"{file.package}.{service.name}": service for file in official.file for service in file.service}
    if name == "tensorflow/core/protobuf/config.proto":
        pytest.skip("session settings are not part of the client package's descriptors")
    importlib.import_module(f"tensorgate.protos.{name.removesuffix('.proto').replace('/', '.')}_pb2")
    ours = descriptor_pb2.FileDescriptorProto()
    descriptor_pool.Default().FindFileByName(name).CopyToProto(ours)
    for message in ours.message_type:
        assert_within(message, messages[f"{ours.package}.{message.name}"])
    for service in ours.service:
        assert list(service.method) == list(services[f"{ours.package}.{service.name}"].method)
