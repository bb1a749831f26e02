"""PlatformOptions: how versions are loaded, by the platform config file where there is one, else by flags.

At the head of a version's line, between the flags and ServerOptions, whose part it is. Reading blocks on the file
system.

Source: tensorflow_serving/model_servers/server.cc (which flags the file takes the place of).
"""

from dataclasses import dataclass

from tensorgate.gateway.flag_parser import ParsedFlags
from tensorgate.gateway.platform_config import read_platform_config, settings_without_effect
from tensorgate.gateway.session_config import (
    mixed_precision_warning,
    session_config_of_flags,
    with_mixed_precision,
    with_xla,
)
from tensorgate.protos.tensorflow.core.protobuf.config_pb2 import ConfigProto
from tensorgate.protos.text_proto import read_text_proto


@dataclass(frozen=True, slots=True)
class PlatformOptions:
    """The part of ServerOptions that a platform config file can say in place of the flags; its fields are there."""

    saved_model_tags: tuple[str, ...]
    session_config: bytes
    num_warmup_iterations: int
    prefer_tflite_model: bool
    num_tflite_pools: int
    warnings: tuple[str, ...]


def platform_options(parsed: ParsedFlags) -> PlatformOptions:
    """Reads the files that the flags name. Raises ServingError: what ``read_platform_config`` and ``read_text_proto``
    do, and INVALID_ARGUMENT for flags that contradict each other.
    """
    path = parsed.get_string("platform_config_file")
    if not path:
        base = parsed.get_string("tensorflow_session_config_file")
        session_config = read_text_proto(base, ConfigProto) if base else ConfigProto()
        warning = mixed_precision_warning(parsed.get_string("mixed_precision"))
        iterations = max(parsed.get_int("num_request_iterations_for_warmup"), 1)
        return PlatformOptions(
            saved_model_tags=tuple(tag for tag in parsed.get_string("saved_model_tags").split(",") if tag),
            session_config=session_config_of_flags(parsed, session_config).SerializeToString(deterministic=True),
            num_warmup_iterations=iterations if parsed.get_bool("enable_model_warmup") else 0,
            prefer_tflite_model=parsed.get_bool("prefer_tflite_model"),
            num_tflite_pools=max(parsed.get_int("num_tflite_pools"), 1),
            warnings=(warning,) if warning else (),
        )
    bundle = read_platform_config(path)
    session_config = with_mixed_precision(with_xla(bundle.session_config, parsed), bundle.mixed_precision)
    without_effect = settings_without_effect(bundle)
    warnings = (
        mixed_precision_warning(bundle.mixed_precision),
        f"in '{path}' these have no effect: {', '.join(without_effect)}" if without_effect else "",
    )
    options = bundle.model_warmup_options
    iterations = options.num_request_iterations.value if options.HasField("num_request_iterations") else 1
    return PlatformOptions(
        saved_model_tags=tuple(bundle.saved_model_tags) or ("serve",),
        session_config=session_config.SerializeToString(deterministic=True),
        num_warmup_iterations=max(iterations, 1) if bundle.enable_model_warmup else 0,
        prefer_tflite_model=bundle.prefer_tflite_model,
        num_tflite_pools=max(bundle.num_tflite_pools, 1),
        warnings=tuple(filter(None, warnings)),
    )
