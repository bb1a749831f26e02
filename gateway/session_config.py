"""Session settings: what flags and --tensorflow_session_config_file make of TensorFlow's ConfigProto.

At the head of a version's line, between the flags and ServerOptions; workers start every session with the outcome.
Pure.

Source: tensorflow_serving/model_servers/server.cc, servables/tensorflow/saved_model_bundle_factory.cc.
"""

from tensorgate.gateway.flag_parser import ParsedFlags
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow.core.protobuf.config_pb2 import ConfigProto, OptimizerOptions
from tensorgate.protos.tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

_PARALLELISM_FLAGS = (
    "tensorflow_session_parallelism",
    "tensorflow_intra_op_parallelism",
    "tensorflow_inter_op_parallelism",
)


def session_config_of_flags(parsed: ParsedFlags, base: ConfigProto) -> ConfigProto:
    """``base`` with what the flags say in it.

    Thread counts and the share of GPU memory are the flags' always, as upstream has it, also where they say nothing.
    Raises ServingError INVALID_ARGUMENT for flags that contradict each other.
    """
    config = ConfigProto()
    config.CopyFrom(base)
    config.intra_op_parallelism_threads, config.inter_op_parallelism_threads = _parallelism(parsed)
    config.gpu_options.per_process_gpu_memory_fraction = parsed.get_float("per_process_gpu_memory_fraction")
    return with_mixed_precision(with_xla(config, parsed), parsed.get_string("mixed_precision"))


def with_xla(config: ConfigProto, parsed: ParsedFlags) -> ConfigProto:
    """``config``, in which XLA takes up no graphs unless one of the flags allows it; then it is left as it is.

    Upstream turns XLA off as a whole; what a session can say is that nothing is compiled unless its function asks.
    """
    if not (parsed.get_bool("xla_cpu_compilation_enabled") or parsed.get_bool("xla_gpu_compilation_enabled")):
        config.graph_options.optimizer_options.global_jit_level = OptimizerOptions.OFF
        config.graph_options.optimizer_options.cpu_global_jit = False
    return config


def with_mixed_precision(config: ConfigProto, mixed_precision: str) -> ConfigProto:
    """``config``, with oneDNN's bfloat16 where that is asked for; nothing else acts."""
    if mixed_precision == "bfloat16":
        config.graph_options.rewrite_options.auto_mixed_precision_onednn_bfloat16 = RewriterConfig.ON
    return config


def mixed_precision_warning(mixed_precision: str) -> str:
    """What to say of a value that does not act; empty: nothing."""
    if mixed_precision in ("", "bfloat16"):
        return ""
    return f"mixed precision {mixed_precision!r} is not supported and does nothing; there is bfloat16"


def _parallelism(parsed: ParsedFlags) -> tuple[int, int]:
    for name in _PARALLELISM_FLAGS:
        if not -(1 << 31) <= parsed.get_int(name) < 1 << 31:
            raise _invalid(f"--{name} is beyond what a session takes (32 bits): {parsed.get_int(name)}")
    both, intra_op, inter_op = (parsed.get_int(name) for name in _PARALLELISM_FLAGS)
    if both > 0 and intra_op > 0 and inter_op > 0:
        raise _invalid(
            "Either configure server_options.tensorflow_session_parallelism or "
            "(server_options.tensorflow_intra_op_parallelism, server_options.tensorflow_inter_op_parallelism) "
            "separately. You cannot configure all."
        )
    # One of the specific flags is enough for both of them to win over the common one, whose value is then unused.
    return (both, both) if intra_op <= 0 and inter_op <= 0 else (intra_op, inter_op)


def _invalid(message: str) -> ServingError:
    return ServingError(Code.INVALID_ARGUMENT, message)
