"""``tensorgate config check``: what a server would say of its flags and files, without starting one.

Beside a version's line: reads files only.
"""

import os
from collections.abc import Sequence

from tensorgate.gateway import flag_parser, options


def problems_of(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names of the models, and what is wrong or will not act, in sentences.

    Raises ServingError for what the server would refuse to start with.
    """
    parsed = flag_parser.parse(arguments)
    problems = [str(error) for error in parsed.errors]
    problems += [f"unknown argument: {argument}" for argument in parsed.unknown_arguments]
    problems += [f"--{name} is known but does not act yet" for name in flag_parser.not_acting(parsed)]
    server_options = options.from_flags(parsed)
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
