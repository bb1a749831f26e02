"""ServerOptions: everything the server is told at start, checked, in the units that the code works in.

Stands on the model-version line between the flags and the composition root, which passes its fields on. Built once on
the main thread, immutable after that, read by any thread.

Source: tensorflow_serving/model_servers/server.cc (the checks, their order and texts) and server_core.cc.
"""

import shlex
from dataclasses import dataclass

from tensorgate.gateway.batching import Batching, BatchingMode, batching_of
from tensorgate.gateway.config_files import (
    ModelConfig,
    models_of,
    read_model_server_config,
    read_monitoring_config,
    single_model,
)
from tensorgate.gateway.flag_checks import choice_of, count_of, invalid, port_of, seconds_of, share_of
from tensorgate.gateway.flag_parser import ParsedFlags
from tensorgate.gateway.log_lines import LOG_FORMATS
from tensorgate.gateway.model_settings import SettingsOfModels, read_model_settings
from tensorgate.gateway.monitoring.readiness import ReadinessPolicy, parse_readiness_policy
from tensorgate.gateway.monitoring.serving_metrics import DEFAULT_PATH
from tensorgate.gateway.platform_options import platform_options
from tensorgate.gateway.python_command import python_command
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig
from tensorgate.protos.tensorgate.config.model_settings_pb2 import BATCHING_AUTO

LOG_LEVELS = ("debug", "info", "warning", "error")
GRPC_EDGES = ("native", "grpcio")
WORKER_TRANSPORTS = ("stream", "zmq")
WORKER_ISOLATIONS = ("device", "model", "version")

# How a worker is started unless --worker_command says otherwise.
BUILT_IN_WORKER_COMMAND = python_command("tensorgate.workers.main")


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What the server is told. Names are upstream's where it has one; a unit stands in the name of what has one."""

    models: tuple[ModelConfig, ...]
    """The models to serve, names unique; empty where a config file names none."""
    model_server_config: ModelServerConfig
    """The same as a message, not to be modified."""
    model_config_file: str
    """Empty: there is none."""
    model_config_file_poll_wait_s: float
    """0 or less: it is not read again."""
    models_ready_timeout_s: float
    """How long the start, or a reload, waits for its models to become available or to fail."""
    allow_version_labels_for_unavailable_models: bool
    enable_model_admin: bool

    grpc_port: int
    """0: no TCP listener; there is a socket path then."""
    grpc_socket_path: str
    """Empty: no UNIX socket."""
    grpc_channel_arguments: tuple[tuple[str, int | str], ...]
    enable_profiler: bool
    grpc_edge: str
    """One of ``GRPC_EDGES``."""
    grpc_edge_threads: int
    """At least 1."""

    ssl_config_file: str
    """Of gRPC; empty: in the clear."""
    rest_api_ssl_config_file: str
    """Likewise of REST."""
    auth_token_file: str
    """Empty: nobody is asked for a token."""
    rest_api_port: int
    """As given; whether REST is served is ``serves_rest``."""
    rest_api_socket_path: str
    """Empty: no UNIX socket."""
    rest_api_timeout_s: float | None
    """Bound of one REST request's run; None: none."""
    rest_api_enable_cors_support: bool

    console_port: int
    """0: no console."""
    console_address: str
    """Never empty."""

    num_load_threads: int
    """Loads at a time after the initial ones, at least 1."""
    max_num_load_retries: int
    """Attempts after the first one failed, at least 0."""
    load_retry_interval_s: float
    """Wait between two attempts, at least 0."""
    file_system_poll_wait_s: float
    """0: look once; negative: never look."""

    saved_model_tags: tuple[str, ...]
    session_config: bytes
    """A serialized tensorflow.ConfigProto for every session."""
    enable_signature_method_name_check: bool
    enable_serialization_as_tensor_content: bool
    num_warmup_iterations: int
    """How often each warm-up request of a version is run; 0: warm-up is off."""
    prefer_tflite_model: bool
    num_tflite_pools: int
    """At least 1."""
    model_settings: SettingsOfModels
    model_settings_file: str
    """Empty: there is none."""
    batching: Batching

    num_workers: int
    """On each device, at least 1."""
    devices: str
    """A comma list, as given."""
    worker_isolation: str
    """One of ``WORKER_ISOLATIONS``."""
    model_memory_budget_bytes: int
    """0: no bound."""
    worker_stuck_timeout_s: float
    """0: never."""
    workers: tuple[str, ...]
    """Addresses of workers on the network; empty: they are started here."""
    workers_start_wait_s: float
    worker_key_file: str
    """Empty: there is none."""
    worker_command: tuple[str, ...]
    """Program and first arguments of a worker; never empty."""
    worker_transport: str
    """One of ``WORKER_TRANSPORTS``."""
    op_libraries: tuple[str, ...]
    """Paths and names of Python distributions, as given."""
    shared_memory_bytes: int
    """For requests, and of each worker for replies; 0: none is shared."""
    shared_memory_threshold_bytes: int
    num_execution_threads: int
    """0: one for each core granted to the worker."""
    worker_heartbeat_timeout_s: float
    drain_timeout_s: float
    log_level: str
    """One of ``LOG_LEVELS``."""
    log_format: str
    """One of ``LOG_FORMATS``."""
    access_log: str
    """File of the access log; ``stderr``: the log itself; empty: none."""
    access_log_sample: float
    """Share of the requests that it has, 0 to 1."""
    tracing: bool
    readiness: ReadinessPolicy
    serving_metrics_paths: tuple[str, ...]
    """Where REST shows TensorFlow Serving's metrics; empty: nowhere."""
    run_dir: str
    """Parent of the private folder that the server makes for the workers' sockets; empty: it chooses."""
    warnings: tuple[str, ...] = ()
    """What is to be logged at start: of settings that do nothing."""

    @property
    def may_batch(self) -> bool:
        """Whether requests for any model may be merged into batches."""
        settings = (self.model_settings.defaults, *self.model_settings.named.values())
        return self.batching.mode is not BatchingMode.OFF or any(each.batching == BATCHING_AUTO for each in settings)

    @property
    def rest_port(self) -> int | None:
        """REST's port, if it has one: not 0, and not where that is gRPC's (upstream goes on without)."""
        return None if self.rest_api_port in (0, self.grpc_port) else self.rest_api_port

    @property
    def serves_rest(self) -> bool:
        """Whether REST gets a listener."""
        return self.rest_port is not None or bool(self.rest_api_socket_path)

    @property
    def rest_port_is_grpc_port(self) -> bool:
        """Whether REST goes without a listener because its port is gRPC's: to be logged as an error."""
        return self.rest_api_port != 0 and self.rest_api_port == self.grpc_port


def from_flags(parsed: ParsedFlags) -> ServerOptions:
    """Checks what ``parsed`` says and converts it; reads the files they name, so it may block.

    Upstream's checks come first, in its order and words. Raises ServingError: INVALID_ARGUMENT for flags that
    contradict each other or say what cannot be, UNIMPLEMENTED for encryption, the file's own code where it cannot be
    read.
    """
    _check_listeners_and_paths(parsed)
    config_file = parsed.get_string("model_config_file")
    model_server_config = (
        read_model_server_config(config_file)
        if config_file
        else single_model(parsed.get_string("model_name"), parsed.get_string("model_base_path"))
    )
    batching = batching_of(
        enable_batching=parsed.get_bool("enable_batching"),
        parameters_file=parsed.get_string("batching_parameters_file"),
        per_model=parsed.get_bool("enable_per_model_batching_parameters"),
        batching=choice_of(parsed, "batching", (BatchingMode.OFF.value, BatchingMode.AUTO.value)),
    )
    platform = platform_options(parsed)
    models = models_of(model_server_config)
    retry_interval_s = parsed.get_int("load_retry_interval_micros") / 1e6
    rest_api_timeout_in_ms = parsed.get_int("rest_api_timeout_in_ms")
    return ServerOptions(
        models=models,
        model_server_config=model_server_config,
        model_config_file=config_file,
        model_config_file_poll_wait_s=float(parsed.get_int("model_config_file_poll_wait_seconds")),
        models_ready_timeout_s=seconds_of(parsed, "models_ready_timeout_s", zero_allowed=False),
        allow_version_labels_for_unavailable_models=parsed.get_bool("allow_version_labels_for_unavailable_models"),
        enable_model_admin=parsed.get_bool("enable_model_admin"),
        grpc_port=port_of(parsed, "port"),
        grpc_socket_path=parsed.get_string("grpc_socket_path"),
        grpc_channel_arguments=parse_channel_arguments(parsed.get_string("grpc_channel_arguments")),
        enable_profiler=parsed.get_bool("enable_profiler"),
        grpc_edge=choice_of(parsed, "grpc_edge", GRPC_EDGES),
        grpc_edge_threads=max(1, count_of(parsed, "grpc_edge_threads")),
        ssl_config_file=parsed.get_string("ssl_config_file"),
        rest_api_ssl_config_file=parsed.get_string("rest_api_ssl_config_file"),
        auth_token_file=parsed.get_string("auth_token_file"),
        rest_api_port=port_of(parsed, "rest_api_port"),
        rest_api_socket_path=parsed.get_string("rest_api_socket_path"),
        rest_api_timeout_s=rest_api_timeout_in_ms / 1e3 if rest_api_timeout_in_ms > 0 else None,
        rest_api_enable_cors_support=parsed.get_bool("rest_api_enable_cors_support"),
        console_port=port_of(parsed, "console_port"),
        console_address=parsed.get_string("console_address") or "127.0.0.1",
        num_load_threads=max(parsed.get_int("num_load_threads"), 1),
        max_num_load_retries=max(parsed.get_int("max_num_load_retries"), 0),
        load_retry_interval_s=max(retry_interval_s, 0.0),
        file_system_poll_wait_s=float(parsed.get_int("file_system_poll_wait_seconds")),
        saved_model_tags=platform.saved_model_tags,
        session_config=platform.session_config,
        enable_signature_method_name_check=parsed.get_bool("enable_signature_method_name_check"),
        enable_serialization_as_tensor_content=parsed.get_bool("enable_serialization_as_tensor_content"),
        num_warmup_iterations=platform.num_warmup_iterations,
        prefer_tflite_model=platform.prefer_tflite_model,
        num_tflite_pools=platform.num_tflite_pools,
        model_settings=read_model_settings(parsed.get_string("model_settings_file")),
        model_settings_file=parsed.get_string("model_settings_file"),
        num_workers=max(1, count_of(parsed, "num_workers")),
        devices=parsed.get_string("devices"),
        worker_isolation=choice_of(parsed, "worker_isolation", WORKER_ISOLATIONS),
        model_memory_budget_bytes=count_of(parsed, "model_memory_budget_mb") << 20,
        worker_stuck_timeout_s=seconds_of(parsed, "worker_stuck_timeout_s", zero_allowed=True),
        batching=batching,
        workers=tuple(filter(None, (each.strip() for each in parsed.get_string("workers").split(",")))),
        workers_start_wait_s=seconds_of(parsed, "workers_start_wait_s", zero_allowed=False),
        worker_key_file=parsed.get_string("worker_key_file"),
        worker_command=_worker_command(parsed.get_string("worker_command")),
        worker_transport=choice_of(parsed, "worker_transport", WORKER_TRANSPORTS),
        op_libraries=tuple(name for name in parsed.get_string("op_libraries").split(",") if name),
        shared_memory_bytes=_shared_memory_bytes(parsed),
        shared_memory_threshold_bytes=count_of(parsed, "shared_memory_threshold_bytes"),
        num_execution_threads=count_of(parsed, "num_execution_threads"),
        worker_heartbeat_timeout_s=seconds_of(parsed, "worker_heartbeat_timeout_s", zero_allowed=False),
        drain_timeout_s=seconds_of(parsed, "drain_timeout_s", zero_allowed=True),
        log_level=choice_of(parsed, "log_level", LOG_LEVELS),
        log_format=choice_of(parsed, "log_format", LOG_FORMATS),
        access_log=parsed.get_string("access_log"),
        access_log_sample=share_of(parsed, "access_log_sample"),
        tracing=parsed.get_bool("tracing"),
        readiness=parse_readiness_policy(parsed.get_string("readiness")),
        serving_metrics_paths=_serving_metrics_paths(parsed.get_string("monitoring_config_file")),
        run_dir=parsed.get_string("run_dir"),
        warnings=platform.warnings,
    )


def parse_channel_arguments(text: str) -> tuple[tuple[str, int | str], ...]:
    """Splits ``key=value,key=value``; a value that is an int32 becomes one.

    Raises ServingError INVALID_ARGUMENT for a part without ``=`` (upstream's process ends on it).
    """
    arguments: list[tuple[str, int | str]] = []
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not (key and equals):
            raise invalid(f"--grpc_channel_arguments takes key=value pairs separated by commas; got {part!r}")
        arguments.append((key, _int32_or_text(value)))
    return tuple(arguments)


def _int32_or_text(text: str) -> int | str:
    digits = text.strip().removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        return text
    number = int(text)
    return number if -(1 << 31) <= number < 1 << 31 else text


def _check_listeners_and_paths(parsed: ParsedFlags) -> None:
    if parsed.get_int("port") == 0 and not parsed.get_string("grpc_socket_path"):
        raise invalid("At least one of server_options.grpc_port or server_options.grpc_socket_path must be set.")
    if parsed.get_bool("use_alts_credentials") and parsed.get_string("ssl_config_file"):
        raise invalid("Either use_alts_credentials must be false or ssl_config_file must be empty.")
    # Every other flag that does not act is only named in the log; this one would leave traffic readable that the
    # operator wants encrypted.
    if parsed.get_bool("use_alts_credentials"):
        raise ServingError(
            Code.UNIMPLEMENTED,
            "--use_alts_credentials asks for Google Cloud's ALTS, which is not built in; --ssl_config_file gives TLS",
        )
    if not (parsed.get_string("model_base_path") or parsed.get_string("model_config_file")):
        raise invalid("Both server_options.model_base_path and server_options.model_config_file are empty!")


def _worker_command(text: str) -> tuple[str, ...]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise invalid(f"--worker_command cannot be split as a shell would ({error}): {text}") from error
    return tuple(words) or BUILT_IN_WORKER_COMMAND


def _shared_memory_bytes(parsed: ParsedFlags) -> int:
    """Payloads in it are told of on the stream only."""
    size_bytes = count_of(parsed, "shared_memory_mb") << 20
    return size_bytes if parsed.get_string("worker_transport").lower() == "stream" else 0


def _serving_metrics_paths(config_file: str) -> tuple[str, ...]:
    """At upstream's path unless a file says otherwise; one that names a path of its own adds that."""
    if not config_file:
        return (DEFAULT_PATH,)
    prometheus = read_monitoring_config(config_file).prometheus_config
    if not prometheus.enable:
        return ()
    return tuple(dict.fromkeys((prometheus.path or DEFAULT_PATH, DEFAULT_PATH)))
