"""ServerOptions: what the flags become, and what is refused at start."""

import os
from pathlib import Path

import pytest

from tensorgate.gateway.batching import Batching, BatchingMode
from tensorgate.gateway.config_files import ModelConfig
from tensorgate.gateway.flag_parser import parse
from tensorgate.gateway.model_settings import SettingsOfModels
from tensorgate.gateway.options import ServerOptions, from_flags, parse_channel_arguments
from tensorgate.gateway.python_command import python_command
from tensorgate.gateway.sources.file_system_storage_path_source import LatestVersions
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow.core.protobuf.config_pb2 import ConfigProto


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
        grpc_port=8500,
        grpc_socket_path="",
        grpc_channel_arguments=(),
        rest_api_port=0,
        rest_api_socket_path="",
        rest_api_timeout_s=30.0,
        rest_api_enable_cors_support=False,
        num_load_threads=1,
        max_num_load_retries=5,
        load_retry_interval_s=60.0,
        file_system_poll_wait_s=1.0,
        saved_model_tags=("serve",),
        session_config=b"",
        enable_signature_method_name_check=False,
        enable_serialization_as_tensor_content=False,
        num_warmup_iterations=1,
        prefer_tflite_model=False,
        num_tflite_pools=len(os.sched_getaffinity(0)),
        model_settings=SettingsOfModels(),
        batching=Batching(),
        worker_command=python_command("tensorgate.workers.main"),
        num_execution_threads=0,
        worker_heartbeat_timeout_s=30.0,
        drain_timeout_s=30.0,
        log_level="info",
        grpc_edge="native",
        worker_transport="stream",
        grpc_edge_threads=1,
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
        ("--num_execution_threads=3", "num_execution_threads", 3),
        ("--drain_timeout_s=0", "drain_timeout_s", 0.0),
        ("--worker_heartbeat_timeout_s=2.5", "worker_heartbeat_timeout_s", 2.5),
        ("--log_level=DEBUG", "log_level", "debug"),
        ("--grpc_edge=grpcio", "grpc_edge", "grpcio"),
        ("--worker_transport=zmq", "worker_transport", "zmq"),
        ("--grpc_edge_threads=3", "grpc_edge_threads", 3),
        ("--run_dir=/run/x", "run_dir", "/run/x"),
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
        "--num_execution_threads=-1",
        "--drain_timeout_s=-1",
        "--drain_timeout_s=nan",
        "--drain_timeout_s=inf",
        "--worker_heartbeat_timeout_s=0",
        "--log_level=loud",
        "--grpc_edge=carrier_pigeon",
        "--worker_transport=horse",
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


@pytest.mark.parametrize("argument", ["--ssl_config_file=/x", "--use_alts_credentials"])
def test_encryption_that_cannot_be_given_stops_the_start_rather_than_serving_in_the_clear(argument: str) -> None:
    with pytest.raises(ServingError, match="ask for encryption") as caught:
        options_of(argument)
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
