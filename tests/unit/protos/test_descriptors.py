"""Our message definitions say what upstream's say, field by field; what is left out is listed here.

Upstream's descriptors come from the recordings beside the repository and from the installed tensorflow and
tensorflow-serving-api packages, whichever are there. The packages are read, not imported: two definitions of one file
cannot live in one process.
"""

import ast
import functools
import importlib
import importlib.util
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, json_format, text_format
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)

import tensorgate.protos as protos_package
from tensorgate.protos.tensorflow.core.protobuf import error_codes_pb2
from tensorgate.protos.tensorflow_serving.apis import model_management_pb2, model_pb2, status_pb2
from tensorgate.protos.tensorflow_serving.config import monitoring_config_pb2, platform_config_pb2, ssl_config_pb2
from tensorgate.protos.tensorflow_serving.servables.tensorflow import (
    saved_model_bundle_source_adapter_pb2,
    session_bundle_config_pb2,
)

PROTOS = pathlib.Path(next(iter(protos_package.__path__)))
RECORDED = pathlib.Path(__file__).resolve().parents[4] / "shared" / "recordings" / "descriptors.pb"
# Where the wheels keep a file that is not at its own path.
MOVED = {
    "xla/tsl/protobuf/error_codes.proto": "tensorflow/compiler/xla/tsl/protobuf/error_codes_pb2.py",
    "tsl/profiler/protobuf/profiler_options.proto": "tensorflow/tsl/profiler/protobuf/profiler_options_pb2.py",
}

LEFT_OUT_FIELDS: Mapping[str, frozenset[str]] = {
    "tensorflow.ConfigProto": frozenset({"rpc_options", "cluster_def"}),
    "tensorflow.ConfigProto.Experimental": frozenset({"coordination_config"}),
    "tensorflow.RewriterConfig": frozenset(
        {"custom_optimizers", "inter_optimizer_verifier_config", "post_optimization_verifier_config"}
    ),
    "tensorflow.RunOptions": frozenset({"debug_options"}),
    "tensorflow.RunMetadata": frozenset({"step_stats", "cost_graph", "partition_graphs", "function_graphs"}),
    "tensorflow.MetaGraphDef": frozenset(
        {"graph_def", "saver_def", "collection_def", "asset_file_def", "object_graph_def"}
    ),
    "tensorflow.MetaGraphDef.MetaInfoDef": frozenset({"stripped_op_list"}),
}
LEFT_OUT_MESSAGES = frozenset({"tensorflow.CollectionDef", "tensorflow.AssetFileDef"})

# Files that no package holds; their numbers are here a second time, since a changed one would break nothing else.
UNPUBLISHED: Mapping[str, Mapping[str, str]] = {
    "tensorflow_serving/config/monitoring_config.proto": {
        "PrometheusConfig": "1 enable, 2 path",
        "MonitoringConfig": "1 prometheus_config",
    },
    "tensorflow_serving/config/ssl_config.proto": {
        "SSLConfig": "1 server_key, 2 server_cert, 3 custom_ca, 4 client_verify",
    },
    "tensorflow_serving/servables/tensorflow/saved_model_bundle_source_adapter.proto": {
        "SavedModelBundleSourceAdapterConfig": "1000 legacy_config",
    },
    "tensorflow_serving/servables/tensorflow/session_bundle_config.proto": {
        "ModelWarmupOptions": "1 num_request_iterations, 2 num_model_warmup_threads, 3 model_name, 4 model_version, "
        "5 enable_all_batch_sizes_warmup",
        "BatchingParameters": "1 max_batch_size, 2 batch_timeout_micros, 3 max_enqueued_batches, 4 num_batch_threads, "
        "5 thread_pool_name, 6 allowed_batch_sizes, 7 pad_variable_length_inputs, 8 enable_large_batch_splitting, "
        "9 max_execution_batch_size",
        "SessionBundleConfig": "1 session_target, 2 session_config, 3 batching_parameters, "
        "4 session_run_load_threadpool_index, 5 experimental_transient_ram_bytes_during_load, 6 saved_model_tags, "
        "7 in_graph_batching_parameters, 778 experimental_fixed_input_tensors, 779 enable_model_warmup, "
        "780 model_warmup_options, 781 enable_session_metadata, 782 remove_unused_fields_from_bundle_metagraph, "
        "783 prefer_tflite_model, 784 resource_estimation_uses_validation_result, 785 num_tflite_interpreters, "
        "786 num_tflite_interpreters_per_pool, 787 num_tflite_pools, 788 wrap_session_with_no_threading_params, "
        "789 enable_per_model_batching_params, 790 enable_saved_model_config, 791 mixed_precision",
    },
    "tsl/profiler/protobuf/profiler_service.proto": {
        "ToolRequestOptions": "2 output_formats, 3 save_to_repo",
        "ProfileRequest": "1 duration_ms, 2 max_events, 3 tools, 8 tool_options, 4 opts, 5 repository_root, "
        "6 session_id, 7 host_name, 9 emit_xspace",
        "ProfileToolData": "1 name, 2 data",
        "ProfileResponse": "6 tool_data, 7 empty_trace, 8 xspace",
        "TerminateRequest": "1 session_id",
        "TerminateResponse": "",
        "MonitorRequest": "1 duration_ms, 2 monitoring_level, 3 timestamp",
        "MonitorResponse": "1 data, 10 monitor_result",
        "GetSnapshotRequest": "",
        "ContinuousProfilingResponse": "",
        "StopContinuousProfilingRequest": "",
        "StopContinuousProfilingResponse": "",
    },
    "tsl/profiler/protobuf/profiler_service_monitor_result.proto": {
        "ProfilerServiceMonitorResult": "1 response_type, 2 device_idle_time_percent, "
        "3 matrix_unit_utilization_percent, 4 step_time_ms_avg, 5 step_time_ms_min, 6 step_time_ms_max, "
        "7 infeed_percent_avg, 8 infeed_percent_min, 9 infeed_percent_max",
    },
    "tsl/profiler/protobuf/xplane.proto": {
        "XSpace": "1 planes, 2 errors, 3 warnings, 4 hostnames",
        "XPlane": "1 id, 2 name, 3 lines, 4 event_metadata, 5 stat_metadata, 6 stats",
        "XLine": "1 id, 10 display_id, 2 name, 11 display_name, 3 timestamp_ns, 9 duration_ps, 4 events",
        "XEvent": "1 metadata_id, 2 offset_ps, 5 num_occurrences, 3 duration_ps, 4 stats",
        "XStat": "1 metadata_id, 2 double_value, 3 uint64_value, 4 int64_value, 5 str_value, 6 bytes_value, "
        "7 ref_value",
        "XEventMetadata": "1 id, 2 name, 4 display_name, 3 metadata, 5 stats, 6 child_id",
        "XStatMetadata": "1 id, 2 name, 3 description",
    },
}


def our_names() -> list[str]:
    return sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))


def our_file(name: str) -> FileDescriptorProto:
    module = importlib.import_module(f"tensorgate.protos.{name.removesuffix('.proto').replace('/', '.')}_pb2")
    return FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)


def installed_file(name: str) -> FileDescriptorProto | None:
    """Upstream's file out of the text of an installed wheel's module; None where there is none."""
    path = MOVED.get(name, f"{name.removesuffix('.proto')}_pb2.py")
    spec = importlib.util.find_spec(path.split("/")[0])
    for folder in (spec and spec.submodule_search_locations) or []:
        module = pathlib.Path(folder).parent / path
        if not module.exists():
            continue
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "AddSerializedFile"
            ):
                return FileDescriptorProto.FromString(ast.literal_eval(node.args[0]))
    return None


@functools.cache
def official_files() -> Mapping[str, FileDescriptorProto]:
    """Upstream's files by name: those that we have too, and the one that its error codes moved to."""
    found = {}
    if RECORDED.exists():
        recorded = descriptor_pb2.FileDescriptorSet.FromString(RECORDED.read_bytes())
        found = {file.name: file for file in recorded.file}
    for name in [*our_names(), *MOVED]:
        if name not in found and (file := installed_file(name)):
            found[name] = file
    return found


def messages_of(files: Iterable[FileDescriptorProto]) -> Iterator[tuple[str, DescriptorProto]]:
    """Every message with its full name, nested ones included."""
    waiting = [(f"{file.package}.{message.name}", message) for file in files for message in file.message_type]
    while waiting:
        name, message = waiting.pop()
        yield name, message
        waiting += [(f"{name}.{nested.name}", nested) for nested in message.nested_type]


def enums_of(files: Iterable[FileDescriptorProto]) -> Iterator[tuple[str, EnumDescriptorProto]]:
    """Every enum with its full name."""
    for file in files:
        yield from ((f"{file.package}.{enum.name}", enum) for enum in file.enum_type)
        for name, message in messages_of([file]):
            yield from ((f"{name}.{enum.name}", enum) for enum in message.enum_type)


def default_json_name(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


def is_packed(field: FieldDescriptorProto) -> bool:
    """Whether a writer packs the field: in proto3 repeated numbers are, unless an option says no."""
    unpackable = (field.TYPE_STRING, field.TYPE_BYTES, field.TYPE_MESSAGE)
    if field.label != field.LABEL_REPEATED or field.type in unpackable:
        return False
    return field.options.packed if field.options.HasField("packed") else True


def facts_of(message: DescriptorProto) -> dict[str, dict[str, Any]]:
    """By field name, all that binary form, JSON form and generated code depend on."""
    return {
        field.name: {
            "number": field.number,
            "label": field.label,
            "type": field.type,
            "type_name": field.type_name,
            "json_name": field.json_name or default_json_name(field.name),
            "optional": field.proto3_optional,
            "oneof": message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else None,
            "packed": is_packed(field),
            "lazy": field.options.lazy,
            "deprecated": field.options.deprecated,
        }
        for field in message.field
    }


def reserved_in(message: DescriptorProto) -> set[int]:
    return {number for each in message.reserved_range for number in range(each.start, each.end)}


@pytest.mark.parametrize("name", [name for name in our_names() if name not in UNPUBLISHED])
def test_a_file_says_what_upstreams_says(name: str) -> None:
    official, ours = official_files(), our_file(name)
    if name not in official:
        pytest.skip("no upstream descriptors: neither ../shared/recordings nor a package that holds this file")
    their_messages = dict(messages_of(official.values()))
    our_messages = dict(messages_of([ours]))
    for full_name, message in our_messages.items():
        wanted = facts_of(their_messages[full_name])
        for left_out in LEFT_OUT_FIELDS.get(full_name, ()):
            del wanted[left_out]
        assert facts_of(message) == wanted, full_name
        assert reserved_in(message) == reserved_in(their_messages[full_name]), full_name
        assert message.options.map_entry == their_messages[full_name].options.map_entry
    theirs_here = {f"{ours.package}.{message.name}" for message in official[name].message_type}
    assert theirs_here - our_messages.keys() <= LEFT_OUT_MESSAGES
    their_enums = dict(enums_of(official.values()))
    for full_name, enum in enums_of([ours]):
        found = {value.name: value.number for value in enum.value}
        assert found == {value.name: value.number for value in their_enums[full_name].value}, full_name
    assert list(ours.service) == list(official[name].service)


@pytest.mark.parametrize("name", UNPUBLISHED)
def test_a_file_that_no_package_holds_keeps_its_numbers(name: str) -> None:
    found = {
        message.name: ", ".join(f"{field.number} {field.name}" for field in message.field)
        for message in our_file(name).message_type
    }
    assert found == UNPUBLISHED[name]


def test_descriptors_have_upstreams_file_names() -> None:
    assert [our_file(name).name for name in our_names()] == our_names()


def test_a_batching_parameters_file_parses_with_unset_and_zero_told_apart() -> None:
    text = "max_batch_size { value: 128 } batch_timeout_micros { value: 0 } allowed_batch_sizes: [ 8, 128 ]"
    parameters = text_format.Parse(text, session_bundle_config_pb2.BatchingParameters())
    assert parameters.max_batch_size.value == 128
    assert parameters.HasField("batch_timeout_micros")
    assert not parameters.HasField("num_batch_threads")
    assert parameters.SerializeToString().hex() == "0a03088001" + "1200" + "3203088001"


def test_monitoring_and_ssl_files_parse() -> None:
    monitoring = text_format.Parse(
        'prometheus_config { enable: true path: "/metrics" }', monitoring_config_pb2.MonitoringConfig()
    )
    assert (monitoring.prometheus_config.enable, monitoring.prometheus_config.path) == (True, "/metrics")
    ssl = text_format.Parse("server_key: 'k' server_cert: 'c' client_verify: true", ssl_config_pb2.SSLConfig())
    assert (ssl.server_key, ssl.server_cert, ssl.custom_ca, ssl.client_verify) == ("k", "c", "", True)


def test_a_platform_config_file_parses_down_to_the_session_config() -> None:
    text = """
      platform_configs { key: "tensorflow" value { source_adapter_config {
        [type.googleapis.com/tensorflow.serving.SavedModelBundleSourceAdapterConfig] {
          legacy_config { session_config { gpu_options { allow_growth: true } } saved_model_tags: "serve" }
        } } } }
    """
    platforms = text_format.Parse(text, platform_config_pb2.PlatformConfigMap()).platform_configs
    config = saved_model_bundle_source_adapter_pb2.SavedModelBundleSourceAdapterConfig()
    assert platforms["tensorflow"].source_adapter_config.Unpack(config)
    assert config.legacy_config.session_config.gpu_options.allow_growth
    assert list(config.legacy_config.saved_model_tags) == ["serve"]


def test_a_status_keeps_its_field_names_in_json_and_other_messages_do_not() -> None:
    status = status_pb2.StatusProto(error_code=error_codes_pb2.NOT_FOUND, error_message="m")
    response = model_management_pb2.ReloadConfigResponse(status=status)
    assert json_format.MessageToDict(response) == {"status": {"error_code": "NOT_FOUND", "error_message": "m"}}
    assert json_format.MessageToDict(model_pb2.ModelSpec(signature_name="s")) == {"signatureName": "s"}
