"""``tensorgate config check``: what a server would say of its flags and files, without starting one.

Beside a version's line: reads files only.
"""

import os
from collections.abc import Sequence

from tensorgate.gateway import flag_parser, options
from tensorgate.gateway.access_tokens import read_access_tokens
from tensorgate.gateway.options import ServerOptions
from tensorgate.gateway.tls import read_tls_config
from tensorgate.protos.worker_network import read_worker_key


def problems_of(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names of the models, and what is wrong or will not act, in sentences.

    Raises ServingError for what the server would refuse to start with.
    """
    parsed = flag_parser.parse(arguments)
    problems = [str(error) for error in parsed.errors]
    problems += [f"unknown argument: {argument}" for argument in parsed.unknown_arguments]
    problems += [f"--{name} is known but does not act yet" for name in flag_parser.not_acting(parsed)]
    server_options = options.from_flags(parsed)
    _read_secrets(server_options)
    for model in server_options.models:
        if "://" in model.base_path:
            continue
        if not os.path.isdir(model.base_path):
            problems.append(f"model {model.name}: there is no folder {model.base_path}")
        elif not any(entry.isdigit() for entry in os.listdir(model.base_path)):
            problems.append(f"model {model.name}: {model.base_path} has no version: no folder that is a number")
    known = {model.name for model in server_options.models}
    problems += [
        f"--model_settings_file has settings of {name}, which is no model here"
        for name in server_options.model_settings.named
        if name not in known
    ]
    return [model.name for model in server_options.models], problems


def _read_secrets(server_options: ServerOptions) -> None:
    """Certificates, tokens and keys, as the server reads them at its start. Raises ServingError."""
    for path in (server_options.ssl_config_file, server_options.rest_api_ssl_config_file):
        if path:
            read_tls_config(path)
    if server_options.auth_token_file:
        read_access_tokens(server_options.auth_token_file)
    if server_options.worker_key_file:
        read_worker_key(server_options.worker_key_file)
