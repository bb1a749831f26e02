"""ServerOptions: what the flags become, and what is refused at start."""

import os
from pathlib import Path

import pytest

from tensorgate.gateway.batching import Batching, BatchingMode
from tensorgate.gateway.config_files import ModelConfig, single_model
from tensorgate.gateway.flag_parser import parse
from tensorgate.gateway.model_settings import SettingsOfModels
from tensorgate.gateway.monitoring.readiness import ReadinessPolicy
from tensorgate.gateway.options import ServerOptions, from_flags, parse_channel_arguments
from tensorgate.gateway.python_command import python_command
from tensorgate.gateway.sources.file_system_storage_path_source import LatestVersions
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow.core.protobuf.config_pb2 import ConfigProto, OptimizerOptions
from tensorgate.protos.tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig


def options_of(*arguments: str) -> ServerOptions:
    parsed = parse(["--model_base_path=/m", *arguments])
    assert (parsed.errors, parsed.unknown_arguments) == ((), ())
    return from_flags(parsed)


def refusal_of(*arguments: str) -> str:
    with pytest.raises(ServingError) as caught:
        options_of(*arguments)
    assert caught.value.code is Code.INVALID_ARGUMENT
    return caught.value.message


def test_the_defaults_are_upstreams_in_the_units_of_the_code() -> None:
    assert options_of() == ServerOptions(
        models=(ModelConfig("default", "/m", LatestVersions(1)),),
        model_server_config=single_model("default", "/m"),
        model_config_file="",
        model_config_file_poll_wait_s=0.0,
        models_ready_timeout_s=900.0,
        allow_version_labels_for_unavailable_models=False,
        enable_model_admin=False,
        grpc_port=8500,
        grpc_socket_path="",
        grpc_channel_arguments=(),
        ssl_config_file="",
        rest_api_ssl_config_file="",
        auth_token_file="",
        rest_api_port=0,
        rest_api_socket_path="",
        rest_api_timeout_s=30.0,
        rest_api_enable_cors_support=False,
        num_load_threads=1,
        max_num_load_retries=5,
        load_retry_interval_s=60.0,
        file_system_poll_wait_s=1.0,
        saved_model_tags=("serve",),
        session_config=ConfigProto(
            gpu_options={}, graph_options={"optimizer_options": {"global_jit_level": "OFF"}}
        ).SerializeToString(),
        enable_signature_method_name_check=False,
        enable_serialization_as_tensor_content=False,
        num_warmup_iterations=1,
        prefer_tflite_model=False,
        num_tflite_pools=len(os.sched_getaffinity(0)),
        model_settings=SettingsOfModels(),
        model_settings_file="",
        num_workers=1,
        devices="",
        worker_isolation="device",
        model_memory_budget_bytes=0,
        worker_stuck_timeout_s=0.0,
        batching=Batching(),
        workers=(),
        workers_start_wait_s=20.0,
        worker_key_file="",
        worker_command=python_command("tensorgate.workers.main"),
        op_libraries=(),
        num_execution_threads=0,
        worker_heartbeat_timeout_s=30.0,
        drain_timeout_s=30.0,
        log_level="info",
        log_format="text",
        access_log="",
        access_log_sample=0.01,
        tracing=False,
        readiness=ReadinessPolicy(),
        serving_metrics_paths=("/monitoring/prometheus/metrics",),
        enable_profiler=True,
        grpc_edge="native",
        worker_transport="stream",
        shared_memory_bytes=256 << 20,
        shared_memory_threshold_bytes=32768,
        grpc_edge_threads=1,
        console_port=0,
        console_address="127.0.0.1",
        run_dir="",
    )


def test_the_tutorials_line_serves_its_one_model() -> None:
    parsed = parse(["--port=9000", "--model_name=mnist", "--model_base_path=/tmp/mnist_model/"])
    options = from_flags(parsed)
    assert options.grpc_port == 9000
    assert options.models == (ModelConfig("mnist", "/tmp/mnist_model/", LatestVersions(1)),)


@pytest.mark.parametrize(
    ("argument", "field", "value"),
    [
        ("--rest_api_timeout_in_ms=1500", "rest_api_timeout_s", 1.5),
        ("--rest_api_timeout_in_ms=0", "rest_api_timeout_s", None),
        ("--rest_api_timeout_in_ms=-1", "rest_api_timeout_s", None),
        ("--load_retry_interval_micros=250000", "load_retry_interval_s", 0.25),
        ("--load_retry_interval_micros=-1", "load_retry_interval_s", 0.0),
        ("--max_num_load_retries=-1", "max_num_load_retries", 0),
        ("--num_load_threads=4", "num_load_threads", 4),
        ("--num_load_threads=-4", "num_load_threads", 1),
        ("--file_system_poll_wait_seconds=0", "file_system_poll_wait_s", 0.0),
        ("--file_system_poll_wait_seconds=-1", "file_system_poll_wait_s", -1.0),
        ("--saved_model_tags=serve,gpu", "saved_model_tags", ("serve", "gpu")),
        ("--saved_model_tags=", "saved_model_tags", ()),
        ("--enable_model_warmup=false", "num_warmup_iterations", 0),
        ("--num_request_iterations_for_warmup=3", "num_warmup_iterations", 3),
        ("--num_request_iterations_for_warmup=-3", "num_warmup_iterations", 1),
        ("--worker_command=nice -n 5 'my worker' --x", "worker_command", ("nice", "-n", "5", "my worker", "--x")),
        ("--num_workers=2", "num_workers", 2),
        ("--num_workers=0", "num_workers", 1),
        ("--devices=gpu:0,gpu:1", "devices", "gpu:0,gpu:1"),
        ("--worker_isolation=Version", "worker_isolation", "version"),
        ("--model_memory_budget_mb=3", "model_memory_budget_bytes", 3 << 20),
        ("--worker_stuck_timeout_s=90", "worker_stuck_timeout_s", 90.0),
        ("--enable_profiler=false", "enable_profiler", False),
        ("--op_libraries=/ops/a.so,tensorflow-text,", "op_libraries", ("/ops/a.so", "tensorflow-text")),
        ("--num_execution_threads=3", "num_execution_threads", 3),
        ("--drain_timeout_s=0", "drain_timeout_s", 0.0),
        ("--worker_heartbeat_timeout_s=2.5", "worker_heartbeat_timeout_s", 2.5),
        ("--workers_start_wait_s=2.5", "workers_start_wait_s", 2.5),
        ("--log_level=DEBUG", "log_level", "debug"),
        ("--log_format=JSON", "log_format", "json"),
        ("--access_log=/tmp/access", "access_log", "/tmp/access"),
        ("--access_log_sample=1", "access_log_sample", 1.0),
        ("--tracing", "tracing", True),
        ("--readiness=any", "readiness", ReadinessPolicy(needs_all=False)),
        ("--readiness=models:a,b", "readiness", ReadinessPolicy(names=("a", "b"))),
        ("--grpc_edge=grpcio", "grpc_edge", "grpcio"),
        ("--worker_transport=zmq", "worker_transport", "zmq"),
        ("--shared_memory_mb=2", "shared_memory_bytes", 2 << 20),
        ("--shared_memory_mb=0", "shared_memory_bytes", 0),
        ("--shared_memory_threshold_bytes=5", "shared_memory_threshold_bytes", 5),
        ("--grpc_edge_threads=3", "grpc_edge_threads", 3),
        ("--console_port=8080", "console_port", 8080),
        ("--console_address=::1", "console_address", "::1"),
        ("--console_address=", "console_address", "127.0.0.1"),
        ("--run_dir=/run/x", "run_dir", "/run/x"),
        ("--models_ready_timeout_s=5", "models_ready_timeout_s", 5.0),
        ("--enable_model_admin", "enable_model_admin", True),
        ("--model_config_file_poll_wait_seconds=3", "model_config_file_poll_wait_s", 3.0),
        (
            "--allow_version_labels_for_unavailable_models",
            "allow_version_labels_for_unavailable_models",
            True,
        ),
    ],
)
def test_a_flag_is_converted_once(argument: str, field: str, value: object) -> None:
    assert getattr(options_of(argument), field) == value


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ("--model_base_path=",),
            "Both server_options.model_base_path and server_options.model_config_file are empty!",
        ),
        (
            ("--port=0",),
            "At least one of server_options.grpc_port or server_options.grpc_socket_path must be set.",
        ),
        (
            ("--use_alts_credentials", "--ssl_config_file=/x"),
            "Either use_alts_credentials must be false or ssl_config_file must be empty.",
        ),
        (
            ("--batching_parameters_file=/x",),
            "server_options.batching_parameters_file is set without setting server_options.enable_batching to true.",
        ),
        (
            (
                "--tensorflow_session_parallelism=1",
                "--tensorflow_intra_op_parallelism=1",
                "--tensorflow_inter_op_parallelism=1",
            ),
            "Either configure server_options.tensorflow_session_parallelism or "
            "(server_options.tensorflow_intra_op_parallelism, server_options.tensorflow_inter_op_parallelism) "
            "separately. You cannot configure all.",
        ),
        (
            ("--model_base_path=m",),
            "Expected model default to have an absolute path or URI; got base_path()=m",
        ),
    ],
)
def test_what_upstream_refuses_is_refused_in_its_words(arguments: tuple[str, ...], text: str) -> None:
    assert refusal_of(*arguments) == text


@pytest.mark.parametrize(
    "argument",
    [
        "--port=65536",
        "--port=-1",
        "--rest_api_port=65536",
        "--console_port=65536",
        "--num_execution_threads=-1",
        "--drain_timeout_s=-1",
        "--drain_timeout_s=nan",
        "--drain_timeout_s=inf",
        "--worker_heartbeat_timeout_s=0",
        "--workers_start_wait_s=0",
        "--models_ready_timeout_s=0",
        "--log_level=loud",
        "--log_format=xml",
        "--access_log_sample=1.5",
        "--access_log_sample=nan",
        "--readiness=none",
        "--readiness=models:",
        "--grpc_edge=carrier_pigeon",
        "--worker_transport=horse",
        "--shared_memory_mb=-1",
        "--shared_memory_threshold_bytes=-1",
        "--batching=maybe",
        "--grpc_edge_threads=-1",
        "--worker_command='open",
        "--grpc_channel_arguments=a=1,b",
        "--tensorflow_intra_op_parallelism=2147483648",
    ],
)
def test_a_value_that_cannot_be_is_refused_with_the_flags_name_and_the_value(argument: str) -> None:
    name, _, value = argument.partition("=")
    message = refusal_of(argument)
    assert name in message
    assert value.rpartition(",")[2] in message


def test_encryption_that_cannot_be_given_stops_the_start_rather_than_serving_in_the_clear() -> None:
    with pytest.raises(ServingError, match="asks for Google Cloud's ALTS") as caught:
        options_of("--use_alts_credentials")
    assert caught.value.code is Code.UNIMPLEMENTED


def test_a_unix_socket_is_enough_to_listen_on() -> None:
    options = options_of("--port=0", "--grpc_socket_path=/run/s")
    assert (options.grpc_port, options.grpc_socket_path) == (0, "/run/s")


@pytest.mark.parametrize(
    ("arguments", "mode"),
    [
        ((), BatchingMode.OFF),
        (("--enable_batching",), BatchingMode.COMMON),
        (("--enable_batching", "--enable_per_model_batching_parameters"), BatchingMode.PER_MODEL),
        (("--enable_per_model_batching_parameters",), BatchingMode.OFF),
        (("--batching=AUTO",), BatchingMode.AUTO),
    ],
)
def test_the_batching_flags_say_where_parameters_come_from(arguments: tuple[str, ...], mode: BatchingMode) -> None:
    options = options_of(*arguments)
    assert options.batching.mode is mode
    assert options.may_batch == (mode is not BatchingMode.OFF)


def test_one_model_with_auto_is_enough_to_hand_workers_more(tmp_path: Path) -> None:
    path = tmp_path / "settings"
    path.write_text('model { name: "a" batching: BATCHING_AUTO }', encoding="ascii")
    assert options_of(f"--model_settings_file={path}").may_batch


@pytest.mark.parametrize(
    ("both", "intra_op", "inter_op", "expected"),
    [
        (0, 0, 0, (0, 0)),
        (4, 0, 0, (4, 4)),
        (0, 3, 0, (3, 0)),
        (0, 0, 2, (0, 2)),
        (0, 3, 2, (3, 2)),
        (4, 3, 0, (3, 0)),
        (4, 0, 2, (0, 2)),
        (4, -1, -1, (4, 4)),
    ],
)
def test_one_specific_parallelism_flag_makes_the_common_one_unused(
    both: int, intra_op: int, inter_op: int, expected: tuple[int, int]
) -> None:
    options = options_of(
        f"--tensorflow_session_parallelism={both}",
        f"--tensorflow_intra_op_parallelism={intra_op}",
        f"--tensorflow_inter_op_parallelism={inter_op}",
    )
    config = ConfigProto.FromString(options.session_config)
    assert (config.intra_op_parallelism_threads, config.inter_op_parallelism_threads) == expected


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("", ()),
        ("grpc.max_connection_age_ms=2000", (("grpc.max_connection_age_ms", 2000),)),
        ("a=1,b=-2,c= 3,d=x", (("a", 1), ("b", -2), ("c", 3), ("d", "x"))),
        ("a=2147483648,b=1.5,c=,d=1_0", (("a", "2147483648"), ("b", "1.5"), ("c", ""), ("d", "1_0"))),
        ("a=b=c,", (("a", "b=c"),)),
    ],
)
def test_a_channel_argument_is_an_int32_where_it_can_be_one(
    text: str, arguments: tuple[tuple[str, int | str], ...]
) -> None:
    assert parse_channel_arguments(text) == arguments


@pytest.mark.parametrize(
    ("port", "rest_api_port", "serves_rest", "clash"),
    [(8500, 0, False, False), (8500, 8501, True, False), (8500, 8500, False, True), (0, 8501, True, False)],
)
def test_rest_goes_without_a_listener_on_port_0_and_on_grpcs_port(
    port: int, rest_api_port: int, serves_rest: bool, clash: bool
) -> None:
    options = options_of(f"--port={port}", f"--rest_api_port={rest_api_port}", "--grpc_socket_path=/run/s")
    assert (options.serves_rest, options.rest_port_is_grpc_port) == (serves_rest, clash)
    assert options.rest_port == (rest_api_port if serves_rest else None)


def test_rest_may_have_a_socket_and_no_port() -> None:
    options = options_of("--rest_api_socket_path=/run/rest")
    assert (options.serves_rest, options.rest_port, options.rest_api_socket_path) == (True, None, "/run/rest")


def test_a_config_file_names_the_models_and_the_single_model_flags_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    path.write_text(
        'model_config_list { config { name: "a" base_path: "/a" model_platform: "tensorflow" }'
        ' config { name: "b" base_path: "/b" model_platform: "tensorflow" } }'
    )
    options = options_of(f"--model_config_file={path}", "--model_name=ignored", "--model_base_path=relative")
    assert [(model.name, model.base_path) for model in options.models] == [("a", "/a"), ("b", "/b")]


def test_a_config_file_that_cannot_be_parsed_is_named(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    path.write_text("model_config_list {\n  oops: 1\n}")
    assert refusal_of(f"--model_config_file={path}").startswith(f"Invalid protobuf file: '{path}': 2:")


# --- how versions are loaded ------------------------------------------------------------------------------------------


def session_config_of(*arguments: str) -> ConfigProto:
    return ConfigProto.FromString(options_of(*arguments).session_config)


def test_a_session_config_file_is_the_base_whose_threads_and_gpu_share_are_always_the_flags(tmp_path: Path) -> None:
    path = tmp_path / "session.config"
    path.write_text(
        "intra_op_parallelism_threads: 7 inter_op_parallelism_threads: 8 allow_soft_placement: true\n"
        "gpu_options { per_process_gpu_memory_fraction: 0.9 allow_growth: true"
        " experimental { virtual_devices { memory_limit_mb: 512 } } }\n"
        "graph_options { rewrite_options { constant_folding: OFF } }\n"
    )
    file = f"--tensorflow_session_config_file={path}"
    config = session_config_of(file)
    assert config.allow_soft_placement
    assert (config.intra_op_parallelism_threads, config.inter_op_parallelism_threads) == (0, 0)
    assert (config.gpu_options.per_process_gpu_memory_fraction, config.gpu_options.allow_growth) == (0.0, True)
    assert list(config.gpu_options.experimental.virtual_devices[0].memory_limit_mb) == [512]
    assert config.graph_options.rewrite_options.constant_folding == RewriterConfig.OFF
    config = session_config_of(file, "--tensorflow_session_parallelism=3", "--per_process_gpu_memory_fraction=0.25")
    assert (config.intra_op_parallelism_threads, config.inter_op_parallelism_threads) == (3, 3)
    assert config.gpu_options.per_process_gpu_memory_fraction == 0.25


def test_a_session_config_file_that_is_none_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "session.config"
    path.write_text("allow_soft_placement: true\n  oops: 1")
    assert refusal_of(f"--tensorflow_session_config_file={path}").startswith(f"Invalid protobuf file: '{path}': 2:3")


@pytest.mark.parametrize(
    ("mixed_precision", "toggle", "num_warnings"),
    [("", RewriterConfig.DEFAULT, 0), ("bfloat16", RewriterConfig.ON, 0), ("float16", RewriterConfig.DEFAULT, 1)],
)
def test_bfloat16_alone_acts_and_anything_else_is_warned_of(
    mixed_precision: str, toggle: int, num_warnings: int
) -> None:
    options = options_of(f"--mixed_precision={mixed_precision}")
    rewriting = ConfigProto.FromString(options.session_config).graph_options.rewrite_options
    assert rewriting.auto_mixed_precision_onednn_bfloat16 == toggle
    assert len(options.warnings) == num_warnings


@pytest.mark.parametrize(
    ("arguments", "level"),
    [
        ((), OptimizerOptions.OFF),
        (("--xla_cpu_compilation_enabled",), OptimizerOptions.ON_2),
        (("--xla_gpu_compilation_enabled",), OptimizerOptions.ON_2),
    ],
)
def test_xla_compiles_what_the_session_config_says_only_where_a_flag_lets_it(
    tmp_path: Path, arguments: tuple[str, ...], level: int
) -> None:
    path = tmp_path / "session.config"
    path.write_text("graph_options { optimizer_options { global_jit_level: ON_2 cpu_global_jit: true } }")
    optimizing = session_config_of(f"--tensorflow_session_config_file={path}", *arguments).graph_options
    assert optimizing.optimizer_options.global_jit_level == level
    assert optimizing.optimizer_options.cpu_global_jit == (level == OptimizerOptions.ON_2)


def platform_config(tmp_path: Path, settings: str, platform: str = "tensorflow") -> str:
    """Writes a platform config file; its flag."""
    path = tmp_path / "platforms.config"
    path.write_text(
        f'platform_configs {{ key: "{platform}" value {{ source_adapter_config {{'
        " [type.googleapis.com/tensorflow.serving.SavedModelBundleSourceAdapterConfig]"
        f" {{ legacy_config {{ {settings} }} }} }} }} }}"
    )
    return f"--platform_config_file={path}"


def test_a_platform_config_file_takes_the_place_of_the_flags_about_sessions(tmp_path: Path) -> None:
    flag = platform_config(
        tmp_path,
        'session_config { intra_op_parallelism_threads: 5 } saved_model_tags: "serve" saved_model_tags: "gpu"'
        " enable_model_warmup: true model_warmup_options { num_request_iterations { value: 4 } }"
        ' prefer_tflite_model: true num_tflite_pools: 3 mixed_precision: "bfloat16"',
    )
    options = options_of(
        flag,
        "--saved_model_tags=other",
        "--tensorflow_session_parallelism=9",
        "--enable_model_warmup=false",
        "--num_tflite_pools=8",
    )
    config = ConfigProto.FromString(options.session_config)
    assert config.intra_op_parallelism_threads == 5
    assert config.graph_options.rewrite_options.auto_mixed_precision_onednn_bfloat16 == RewriterConfig.ON
    assert options.saved_model_tags == ("serve", "gpu")
    assert options.num_warmup_iterations == 4
    assert (options.prefer_tflite_model, options.num_tflite_pools) == (True, 3)
    assert options.warnings == ()


def test_what_a_platform_config_file_leaves_out_has_the_messages_defaults(tmp_path: Path) -> None:
    options = options_of(platform_config(tmp_path, ""), "--saved_model_tags=other", "--prefer_tflite_model")
    assert options.saved_model_tags == ("serve",)
    assert options.num_warmup_iterations == 0
    assert (options.prefer_tflite_model, options.num_tflite_pools) == (False, 1)


def test_settings_of_a_platform_config_file_that_do_nothing_are_named(tmp_path: Path) -> None:
    flag = platform_config(
        tmp_path,
        "enable_session_metadata: true model_warmup_options { num_model_warmup_threads { value: 2 } }"
        ' mixed_precision: "half"',
    )
    precision, others = options_of(flag).warnings
    assert "'half'" in precision
    assert others.endswith("these have no effect: enable_session_metadata, num_model_warmup_threads")


@pytest.mark.parametrize(
    ("settings", "platform", "code", "text"),
    [
        ("", "pytorch", Code.INVALID_ARGUMENT, 'has to configure the platform "tensorflow" and no other one'),
        ('session_target: "grpc://x"', "tensorflow", Code.INVALID_ARGUMENT, "session_target is not supported"),
        (
            "enable_saved_model_config: true",
            "tensorflow",
            Code.UNIMPLEMENTED,
            "Saved model config functionality is not implemented.",
        ),
        ("oops: 1", "tensorflow", Code.INVALID_ARGUMENT, "Invalid protobuf file"),
    ],
)
def test_a_platform_config_file_that_asks_for_what_there_is_not_is_refused(
    tmp_path: Path, settings: str, platform: str, code: Code, text: str
) -> None:
    with pytest.raises(ServingError, match=text) as caught:
        options_of(platform_config(tmp_path, settings, platform))
    assert caught.value.code is code


def test_a_platform_of_another_adapter_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "platforms.config"
    path.write_text(
        'platform_configs { key: "tensorflow" value { source_adapter_config {'
        " [type.googleapis.com/tensorflow.serving.SessionBundleConfig] { } } } }"
    )
    assert refusal_of(f"--platform_config_file={path}") == (
        "Couldn't find factory for config proto message type tensorflow.serving.SessionBundleConfig"
    )
