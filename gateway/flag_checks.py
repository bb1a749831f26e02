"""Single flags' values, checked, in the units that the code works in.

Between the parsed flags and ServerOptions; pure. All raise ServingError INVALID_ARGUMENT, naming flag and value.
"""

import math
from collections.abc import Sequence

from tensorgate.gateway.flag_parser import ParsedFlags
from tensorgate.protos.status_codes import Code, ServingError


def port_of(parsed: ParsedFlags, name: str) -> int:
    value = parsed.get_int(name)
    if not 0 <= value <= 65535:
        raise invalid(f"--{name} must be a TCP port, 0 to 65535; got {value}")
    return value


def count_of(parsed: ParsedFlags, name: str) -> int:
    value = parsed.get_int(name)
    if value < 0:
        raise invalid(f"--{name} must not be negative; got {value}")
    return value


def seconds_of(parsed: ParsedFlags, name: str, *, zero_allowed: bool) -> float:
    value = parsed.get_float(name)
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero_allowed):
        raise invalid(
            f"--{name} must be a number of seconds, {'0 or more' if zero_allowed else 'above 0'}; got {value}"
        )
    return value


def share_of(parsed: ParsedFlags, name: str) -> float:
    value = parsed.get_float(name)
    if not 0 <= value <= 1:
        raise invalid(f"--{name} must be a share, 0 to 1; got {value}")
    return value


def choice_of(parsed: ParsedFlags, name: str, choices: Sequence[str]) -> str:
    """One of the choices, which are in lower case, as it stands there; given in any case."""
    text = parsed.get_string(name)
    if text.lower() not in choices:
        raise invalid(f"--{name} must be one of {', '.join(choices)}; got {text!r}")
    return text.lower()


def invalid(message: str) -> ServingError:
    """What they raise."""
    return ServingError(Code.INVALID_ARGUMENT, message)
