"""The table of the model server's command-line flags: all of upstream's, then ours.

Stands at the head of the model-version line; flag_parser reads a command line by it, ServerOptions is built from the
outcome. Constant data, read by any thread.

Source: names, types and defaults from tensorflow_serving/model_servers/main.cc. The help texts are ours.
"""

from dataclasses import dataclass
from enum import Enum

from tensorgate.gateway.cgroup import granted_cpus

FlagValue = bool | int | float | str


class FlagType(str, Enum):
    """The type of a flag, under the name that upstream's usage prints."""

    BOOL = "bool"
    INT32 = "int32"
    INT64 = "int64"
    FLOAT = "float"
    STRING = "string"


@dataclass(frozen=True, slots=True)
class PerCpu:
    """A default that follows the machine: so many for each CPU this process may run on."""

    times: int

    def value(self) -> int:
        return self.times * granted_cpus()


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag. ``not_acting`` says why it is accepted but changes nothing yet, ``no_meaning`` why it never will.

    Both are empty for one that acts.
    """

    name: str
    type: FlagType
    default: FlagValue | PerCpu
    help: str
    not_acting: str = ""
    no_meaning: str = ""

    def default_value(self) -> FlagValue:
        return self.default.value() if isinstance(self.default, PerCpu) else self.default


_BOOL, _INT32, _INT64, _FLOAT, _STRING = FlagType

# Reasons that several flags share.
_NO_TFLITE_BATCHING = "requests for TensorFlow Lite models are not merged into batches"

UPSTREAM_FLAGS = (
    Flag("port", _INT32, 8500, "TCP port of the gRPC API, on all IPv4 addresses; 0 opens none."),
    Flag("grpc_socket_path", _STRING, "", "Path of a UNIX socket on which the gRPC API listens as well."),
    Flag("rest_api_port", _INT32, 0, "TCP port of the HTTP/REST API; 0 opens none. Must differ from --port."),
    Flag(
        "rest_api_num_threads",
        _INT32,
        PerCpu(4),
        "Threads that answer HTTP/REST requests.",
        no_meaning="one event loop answers HTTP/REST requests; native code does their work",
    ),
    Flag("rest_api_timeout_in_ms", _INT32, 30000, "Milliseconds a REST request's run may take; 0 or less: no limit."),
    Flag("rest_api_enable_cors_support", _BOOL, False, "Answer browsers of other origins (CORS headers)."),
    Flag("enable_batching", _BOOL, False, "Merge requests into batches."),
    Flag(
        "allow_version_labels_for_unavailable_models",
        _BOOL,
        False,
        "Let a new version label point at a version that is not available yet.",
    ),
    Flag(
        "batching_parameters_file",
        _STRING,
        "",
        "Text-format BatchingParameters; needs --enable_batching.",
    ),
    Flag(
        "enable_per_model_batching_parameters",
        _BOOL,
        False,
        "Look for batching_params.pbtxt in each version's folder; needs --enable_batching.",
    ),
    Flag(
        "model_config_file",
        _STRING,
        "",
        "Text-format ModelServerConfig: the models to serve. --model_name and --model_base_path are then ignored.",
    ),
    Flag(
        "model_config_file_poll_wait_seconds",
        _INT32,
        0,
        "Seconds between two readings of --model_config_file; 0 or less: read once.",
    ),
    Flag("model_name", _STRING, "default", "Name of the one model to serve (without --model_config_file)."),
    Flag(
        "model_base_path",
        _STRING,
        "",
        "Absolute path of the folder that holds the model's versions, each in a folder named by its number.",
    ),
    Flag("num_load_threads", _INT32, 0, "Versions loaded at a time once the first ones are up; 0 means one."),
    Flag(
        "num_unload_threads",
        _INT32,
        0,
        "Versions unloaded at a time; 0 means one.",
        no_meaning="versions to be unloaded never wait for one another, and take no thread meanwhile",
    ),
    Flag("max_num_load_retries", _INT32, 5, "Further attempts after a version failed to load."),
    Flag("load_retry_interval_micros", _INT64, 60_000_000, "Microseconds between two attempts to load a version."),
    Flag(
        "file_system_poll_wait_seconds",
        _INT32,
        1,
        "Seconds between two looks for new versions; 0: look once, at start; negative: never look.",
    ),
    Flag(
        "flush_filesystem_caches",
        _BOOL,
        True,
        "Drop file-system caches after loading.",
        no_meaning="upstream empties caches of TensorFlow's remote file systems; local files have the kernel's only",
    ),
    Flag(
        "tensorflow_session_parallelism",
        _INT64,
        0,
        "Threads within one op and across ops of a session, both; 0: TensorFlow chooses.",
    ),
    Flag(
        "tensorflow_session_config_file",
        _STRING,
        "",
        "Text-format ConfigProto to start each session with.",
    ),
    Flag("tensorflow_intra_op_parallelism", _INT64, 0, "Threads within one op; 0: TensorFlow chooses."),
    Flag("tensorflow_inter_op_parallelism", _INT64, 0, "Threads across the ops of a run; 0: TensorFlow chooses."),
    Flag(
        "use_alts_credentials",
        _BOOL,
        False,
        "Secure the gRPC API with ALTS.",
        "ALTS works on Google Cloud only and is not built in",
    ),
    Flag("ssl_config_file", _STRING, "", "Text-format SSLConfig: TLS for the gRPC API. Read again when it changes."),
    Flag(
        "platform_config_file",
        _STRING,
        "",
        "Text-format PlatformConfigMap, in place of the flags about sessions, tags, warm-up and TensorFlow Lite.",
    ),
    Flag(
        "per_process_gpu_memory_fraction",
        _FLOAT,
        0.0,
        "Share of a GPU's memory that a worker may take; 0: TensorFlow decides.",
    ),
    Flag("saved_model_tags", _STRING, "serve", "Comma-separated tags of the MetaGraph to load."),
    Flag(
        "grpc_channel_arguments",
        _STRING,
        "",
        "Comma-separated key=value arguments for the gRPC server (for instance grpc.max_connection_age_ms=2000).",
    ),
    Flag(
        "grpc_max_threads",
        _INT32,
        PerCpu(4),
        "Threads the gRPC server may use.",
        no_meaning="gRPC is served by --grpc_edge_threads event loops, and no thread waits for a request",
    ),
    Flag("enable_model_warmup", _BOOL, True, "Replay a version's warm-up requests before it serves."),
    Flag("num_request_iterations_for_warmup", _INT32, 0, "Times each warm-up request is replayed; 0 means once."),
    Flag("version", _BOOL, False, "Print the versions of the server and of TensorFlow, and exit."),
    Flag(
        "monitoring_config_file",
        _STRING,
        "",
        "Text-format MonitoringConfig: whether TensorFlow Serving's metrics are shown on the REST port, and where.",
    ),
    Flag(
        "remove_unused_fields_from_bundle_metagraph",
        _BOOL,
        True,
        "Keep nothing of a MetaGraph but its signatures.",
        no_meaning="workers never keep more of it",
    ),
    Flag("prefer_tflite_model", _BOOL, False, "Serve model.tflite where a version has one."),
    Flag("num_tflite_pools", _INT32, PerCpu(1), "Requests that a TensorFlow Lite model runs at a time."),
    Flag(
        "num_tflite_interpreters_per_pool",
        _INT32,
        1,
        "TensorFlow Lite interpreters in a pool.",
        _NO_TFLITE_BATCHING,
    ),
    Flag(
        "enable_signature_method_name_check",
        _BOOL,
        False,
        "Refuse a signature whose method name is not that of the API called.",
    ),
    Flag("xla_cpu_compilation_enabled", _BOOL, False, "Leave it to the session config whether XLA compiles."),
    Flag("xla_gpu_compilation_enabled", _BOOL, False, "The same as --xla_cpu_compilation_enabled."),
    Flag("enable_profiler", _BOOL, True, "Offer TensorFlow's ProfilerService."),
    Flag(
        "thread_pool_factory_config_file",
        _STRING,
        "",
        "Text-format ThreadPoolFactoryConfig.",
        no_meaning="upstream's own server has no thread pool factory either",
    ),
    Flag("mixed_precision", _STRING, "", "bfloat16: let TensorFlow compute in bfloat16."),
    Flag("skip_initialize_tpu", _BOOL, False, "Leave TPUs uninitialized.", no_meaning="TPUs are not supported"),
    Flag(
        "enable_grpc_healthcheck_service",
        _BOOL,
        False,
        "Offer the gRPC health service; it is offered in any case.",
    ),
    Flag(
        "enable_serialization_as_tensor_content",
        _BOOL,
        False,
        "Put Predict's outputs into tensor_content.",
    ),
)

OWN_FLAGS = (
    Flag(
        "rest_api_ssl_config_file",
        _STRING,
        "",
        "Text-format SSLConfig: TLS for the HTTP/REST API; may be the same file. Read again when it changes.",
    ),
    Flag(
        "auth_token_file",
        _STRING,
        "",
        "File of bearer tokens and their roles, which clients of gRPC and REST must show. Read again when it changes.",
    ),
    Flag(
        "model_settings_file",
        _STRING,
        "",
        "Text-format ModelSettingsList: what else holds for each model, such as the order in which versions change.",
    ),
    Flag(
        "models_ready_timeout_s",
        _FLOAT,
        900.0,
        "Seconds that the start, and a reload, wait for their models to become available or to fail.",
    ),
    Flag(
        "enable_model_admin",
        _BOOL,
        False,
        "Offer the admin API: read the configuration back, list models, add and remove one.",
    ),
    Flag(
        "batching",
        _STRING,
        "off",
        "auto: merge requests into batches, with parameters found while serving; off: as --enable_batching says.",
    ),
    Flag("rest_api_socket_path", _STRING, "", "Path of a UNIX socket on which the HTTP/REST API listens as well."),
    Flag(
        "grpc_edge",
        _STRING,
        "native",
        "Who serves gRPC: native (needs libnghttp2; without it grpcio takes over, with a warning) or grpcio.",
    ),
    Flag(
        "worker_transport",
        _STRING,
        "stream",
        "How requests go to workers of this host: stream (a unix socket, the fastest) or zmq (ZeroMQ).",
    ),
    Flag(
        "shared_memory_mb",
        _INT32,
        256,
        "Megabytes (2^20 bytes) shared with workers of this host for large requests, and with each for large replies;"
        " 0: none.",
    ),
    Flag(
        "shared_memory_threshold_bytes",
        _INT32,
        32768,
        "Requests and replies of at least so many bytes go by shared memory, smaller ones are sent.",
    ),
    Flag("grpc_edge_threads", _INT32, 1, "Native threads that serve gRPC and dispatch requests."),
    Flag(
        "num_workers", _INT32, 1, "Worker processes on each device; every model is on all of them unless it says less."
    ),
    Flag(
        "devices",
        _STRING,
        "",
        "Comma list of cpu, gpu:0, gpu:1, …: each gets workers that see no other GPU; empty: what TensorFlow finds.",
    ),
    Flag(
        "worker_isolation",
        _STRING,
        "device",
        "Who shares a worker process: all models of a device, the versions of a model, or no version with another.",
    ),
    Flag("model_memory_budget_mb", _INT64, 0, "Megabytes (2^20 bytes) that loaded versions may take; 0: no bound."),
    Flag(
        "worker_stuck_timeout_s",
        _FLOAT,
        0.0,
        "Seconds that a worker with requests may go without answering any before it is replaced; 0: for ever.",
    ),
    Flag("console_port", _INT32, 0, "Port of the operator's web page; 0: there is none."),
    Flag(
        "console_address",
        _STRING,
        "127.0.0.1",
        "Address on which the operator's web page listens; without --auth_token_file it asks nobody for anything.",
    ),
    Flag(
        "workers",
        _STRING,
        "",
        "Comma list of tcp://HOST:PORT, workers on the network (tensorgate-worker --listen) in place of own ones, and"
        " dns://NAME:PORT: each address of NAME is a worker, and NAME is resolved again and again.",
    ),
    Flag("workers_start_wait_s", _FLOAT, 20.0, "Seconds that the start waits for each of --workers."),
    Flag("worker_key_file", _STRING, "", "File with the key that this server and its workers on the network share."),
    Flag("worker_command", _STRING, "", "Command that starts a worker, split as a shell would; empty: the built-in."),
    Flag(
        "op_libraries",
        _STRING,
        "",
        "Comma list of libraries of custom ops that workers load: paths, or Python distributions (tensorflow-text).",
    ),
    Flag("num_execution_threads", _INT32, 0, "Threads of a worker that run models; 0: one for each core granted."),
    Flag("drain_timeout_s", _FLOAT, 30.0, "Seconds that requests in flight get to finish when the server is stopped."),
    Flag("worker_heartbeat_timeout_s", _FLOAT, 30.0, "Seconds of silence after which a worker is replaced."),
    Flag("log_level", _STRING, "info", "Least severity that is logged: debug, info, warning or error."),
    Flag("log_format", _STRING, "text", "Form of the log's lines: text or json."),
    Flag(
        "access_log",
        _STRING,
        "",
        "File that gets a line for each of a share of the requests; stderr: the log itself; empty: none.",
    ),
    Flag("access_log_sample", _FLOAT, 0.01, "Share of the requests that --access_log has, 0 to 1."),
    Flag(
        "tracing",
        _BOOL,
        False,
        "Send OpenTelemetry spans of requests whose traceparent is sampled; OTEL_EXPORTER_OTLP_ENDPOINT says where to.",
    ),
    Flag(
        "readiness",
        _STRING,
        "all",
        "Which models must be served for the server to be ready: all, any, or models:NAME,NAME.",
    ),
    Flag(
        "run_dir",
        _STRING,
        "",
        "Parent of the private folder for the sockets to workers; empty: $XDG_RUNTIME_DIR, or /tmp.",
    ),
)

FLAGS = UPSTREAM_FLAGS + OWN_FLAGS
