"""The table of flags against upstream's, written down once more."""

import os
import pathlib
import re

import pytest

from tensorgate.gateway.flags import FLAGS, OWN_FLAGS, UPSTREAM_FLAGS, FlagType

CPUS = len(os.sched_getaffinity(0))

UPSTREAM = [
    ("port", "int32", 8500),
    ("grpc_socket_path", "string", ""),
    ("rest_api_port", "int32", 0),
    ("rest_api_num_threads", "int32", 4 * CPUS),
    ("rest_api_timeout_in_ms", "int32", 30000),
    ("rest_api_enable_cors_support", "bool", False),
    ("enable_batching", "bool", False),
    ("allow_version_labels_for_unavailable_models", "bool", False),
    ("batching_parameters_file", "string", ""),
    ("enable_per_model_batching_parameters", "bool", False),
    ("model_config_file", "string", ""),
    ("model_config_file_poll_wait_seconds", "int32", 0),
    ("model_name", "string", "default"),
    ("model_base_path", "string", ""),
    ("num_load_threads", "int32", 0),
    ("num_unload_threads", "int32", 0),
    ("max_num_load_retries", "int32", 5),
    ("load_retry_interval_micros", "int64", 60_000_000),
    ("file_system_poll_wait_seconds", "int32", 1),
    ("flush_filesystem_caches", "bool", True),
    ("tensorflow_session_parallelism", "int64", 0),
    ("tensorflow_session_config_file", "string", ""),
    ("tensorflow_intra_op_parallelism", "int64", 0),
    ("tensorflow_inter_op_parallelism", "int64", 0),
    ("use_alts_credentials", "bool", False),
    ("ssl_config_file", "string", ""),
    ("platform_config_file", "string", ""),
    ("per_process_gpu_memory_fraction", "float", 0.0),
    ("saved_model_tags", "string", "serve"),
    ("grpc_channel_arguments", "string", ""),
    ("grpc_max_threads", "int32", 4 * CPUS),
    ("enable_model_warmup", "bool", True),
    ("num_request_iterations_for_warmup", "int32", 0),
    ("version", "bool", False),
    ("monitoring_config_file", "string", ""),
    ("remove_unused_fields_from_bundle_metagraph", "bool", True),
    ("prefer_tflite_model", "bool", False),
    ("num_tflite_pools", "int32", CPUS),
    ("num_tflite_interpreters_per_pool", "int32", 1),
    ("enable_signature_method_name_check", "bool", False),
    ("xla_cpu_compilation_enabled", "bool", False),
    ("xla_gpu_compilation_enabled", "bool", False),
    ("enable_profiler", "bool", True),
    ("thread_pool_factory_config_file", "string", ""),
    ("mixed_precision", "string", ""),
    ("skip_initialize_tpu", "bool", False),
    ("enable_grpc_healthcheck_service", "bool", False),
    ("enable_serialization_as_tensor_content", "bool", False),
]

OWN = [
    ("rest_api_ssl_config_file", "string", ""),
    ("auth_token_file", "string", ""),
    ("model_settings_file", "string", ""),
    ("models_ready_timeout_s", "float", 900.0),
    ("enable_model_admin", "bool", False),
    ("batching", "string", "off"),
    ("rest_api_socket_path", "string", ""),
    ("grpc_edge", "string", "native"),
    ("worker_transport", "string", "stream"),
    ("shared_memory_mb", "int32", 256),
    ("shared_memory_threshold_bytes", "int32", 32768),
    ("grpc_edge_threads", "int32", 1),
    ("num_workers", "int32", 1),
    ("devices", "string", ""),
    ("worker_isolation", "string", "device"),
    ("model_memory_budget_mb", "int64", 0),
    ("worker_stuck_timeout_s", "float", 0.0),
    ("console_port", "int32", 0),
    ("console_address", "string", "127.0.0.1"),
    ("workers", "string", ""),
    ("workers_start_wait_s", "float", 20.0),
    ("worker_key_file", "string", ""),
    ("worker_command", "string", ""),
    ("op_libraries", "string", ""),
    ("num_execution_threads", "int32", 0),
    ("drain_timeout_s", "float", 30.0),
    ("worker_heartbeat_timeout_s", "float", 30.0),
    ("log_level", "string", "info"),
    ("log_format", "string", "text"),
    ("access_log", "string", ""),
    ("access_log_sample", "float", 0.01),
    ("tracing", "bool", False),
    ("readiness", "string", "all"),
    ("run_dir", "string", ""),
]

ACTING = {
    "enable_profiler",
    "port",
    "ssl_config_file",
    "enable_batching",
    "batching_parameters_file",
    "enable_per_model_batching_parameters",
    "grpc_socket_path",
    "rest_api_port",
    "rest_api_timeout_in_ms",
    "rest_api_enable_cors_support",
    "allow_version_labels_for_unavailable_models",
    "model_config_file",
    "model_config_file_poll_wait_seconds",
    "model_name",
    "model_base_path",
    "num_load_threads",
    "max_num_load_retries",
    "load_retry_interval_micros",
    "file_system_poll_wait_seconds",
    "tensorflow_session_parallelism",
    "tensorflow_session_config_file",
    "tensorflow_intra_op_parallelism",
    "tensorflow_inter_op_parallelism",
    "platform_config_file",
    "per_process_gpu_memory_fraction",
    "xla_cpu_compilation_enabled",
    "xla_gpu_compilation_enabled",
    "mixed_precision",
    "saved_model_tags",
    "grpc_channel_arguments",
    "enable_signature_method_name_check",
    "enable_serialization_as_tensor_content",
    "enable_model_warmup",
    "num_request_iterations_for_warmup",
    "prefer_tflite_model",
    "num_tflite_pools",
    "version",
    "monitoring_config_file",
    "enable_grpc_healthcheck_service",
}


def test_upstreams_48_flags_are_there_with_their_types_and_defaults_in_its_order() -> None:
    assert len(UPSTREAM) == 48
    assert [(flag.name, flag.type.value, flag.default_value()) for flag in UPSTREAM_FLAGS] == UPSTREAM


def test_our_own_flags_come_after_upstreams() -> None:
    assert [(flag.name, flag.type.value, flag.default_value()) for flag in OWN_FLAGS] == OWN
    assert FLAGS == UPSTREAM_FLAGS + OWN_FLAGS


def test_the_flags_that_act_are_these_and_all_of_our_own() -> None:
    assert {flag.name for flag in UPSTREAM_FLAGS if not (flag.not_acting or flag.no_meaning)} == ACTING
    assert not [flag.name for flag in OWN_FLAGS if flag.not_acting or flag.no_meaning]


def test_the_readme_lists_the_flags_without_meaning_with_the_reason() -> None:
    readme = (pathlib.Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `--(\w+)` \| (.+) \|$", readme, re.MULTILINE))
    assert listed == {flag.name: flag.no_meaning for flag in FLAGS if flag.no_meaning}


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_a_default_has_the_type_of_its_flag_and_every_flag_is_explained(flag) -> None:
    python_type = {
        FlagType.BOOL: bool,
        FlagType.INT32: int,
        FlagType.INT64: int,
        FlagType.FLOAT: float,
        FlagType.STRING: str,
    }[flag.type]
    assert type(flag.default_value()) is python_type
    assert flag.help.endswith(".")
    assert not flag.not_acting.endswith(".")
    assert not flag.no_meaning.endswith(".")
    assert not (flag.not_acting and flag.no_meaning)


def test_no_name_stands_for_two_flags() -> None:
    names = [flag.name for flag in FLAGS]
    assert len(set(names)) == len(names)
