"""Reads a command line by the table of flags, in exactly the forms that upstream's parser takes.

Stands at the head of the model-version line, between ``flags`` and ``options``; runs on the main thread before anything
is started. ``parse`` is pure; only ``report`` writes, and to the streams it is given.

Source: TensorFlow's util/command_line_flags.cc (the forms) and tensorflow_serving/model_servers/main.cc (what is
printed, and the exit codes).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from types import MappingProxyType
from typing import TextIO, TypeVar

from tensorgate.gateway.flags import FLAGS, Flag, FlagType, FlagValue

# What upstream's process exits with after printing its usage: -1, seen by a shell as 255.
USAGE_EXIT_CODE = 255

# The distributions that carry TensorFlow's library, the likeliest first.
TENSORFLOW_DISTRIBUTIONS = ("tensorflow", "tensorflow-cpu", "tf-nightly", "tf-nightly-cpu")

_Value = TypeVar("_Value", bool, int, float, str)

_FLAG_BY_NAME: Mapping[str, Flag] = MappingProxyType({flag.name: flag for flag in FLAGS})

# scanf's numbers: white space may lead, nothing may trail. Unlike scanf, a number beyond the type's range is refused
# rather than wrapped.
_INTEGER = re.compile(r"\s*([+-]?[0-9]+)", re.ASCII)
_REAL = re.compile(
    r"\s*([+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|inf(?:inity)?|nan))", re.ASCII | re.IGNORECASE
)
_INTEGER_BITS = {FlagType.INT32: 32, FlagType.INT64: 64}
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class ParsedFlags:
    """What a command line said.

    ``values`` holds every flag's value: its default where it was not given or could not be read. ``errors`` has a line
    for each value that could not be read; ``unknown_arguments`` is what is no flag, in order.
    """

    values: Mapping[str, FlagValue]
    errors: tuple[str, ...] = ()
    unknown_arguments: tuple[str, ...] = ()

    @property
    def help_requested(self) -> bool:
        """Whether ``--help`` is the first argument that is no flag; after another one it is merely unknown."""
        return self.unknown_arguments[:1] == ("--help",)

    def get_bool(self, name: str) -> bool:
        return self._get(name, bool)

    def get_int(self, name: str) -> int:
        return self._get(name, int)

    def get_float(self, name: str) -> float:
        return self._get(name, float)

    def get_string(self, name: str) -> str:
        return self._get(name, str)

    def _get(self, name: str, kind: type[_Value]) -> _Value:
        value = self.values[name]
        if type(value) is not kind:
            raise TypeError(f"--{name} is a {type(value).__name__}, not a {kind.__name__}")
        return value


def parse(arguments: Sequence[str]) -> ParsedFlags:
    """Reads ``arguments``, a command line without the program's name; never raises.

    A flag is ``--name=value``; a bool may also stand bare. A later duplicate overrides an earlier one. From a bare
    ``--`` on, everything is unknown.
    """
    values = {flag.name: flag.default_value() for flag in FLAGS}
    errors: list[str] = []
    unknown_arguments: list[str] = []
    for position, argument in enumerate(arguments):
        if argument == "--":
            unknown_arguments += arguments[position:]
            break
        name, equals, text = argument.removeprefix("--").partition("=")
        flag = _FLAG_BY_NAME.get(name) if argument.startswith("--") else None
        if flag is None or not (equals or flag.type is FlagType.BOOL):
            unknown_arguments.append(argument)
            continue
        value = _read(flag.type, text) if equals else True
        if value is None:
            errors.append(f"Couldn't interpret value {text} for flag {name}: it takes {_WANTED[flag.type]}.")
        else:
            values[name] = value
    return ParsedFlags(MappingProxyType(values), tuple(errors), tuple(unknown_arguments))


_WANTED = {
    FlagType.BOOL: "true, false, 1 or 0",
    FlagType.INT32: "a whole number from -2147483648 to 2147483647",
    FlagType.INT64: "a whole number of 64 bits",
    FlagType.FLOAT: "a number",
    FlagType.STRING: "any text",
}


def _read(kind: FlagType, text: str) -> FlagValue | None:
    """The value that ``text`` is in a flag of this type; None where it is none."""
    if kind is FlagType.STRING:
        return text
    if kind is FlagType.BOOL:
        return _TRUTH.get(text.lower())
    if kind is FlagType.FLOAT:
        real = _REAL.fullmatch(text)
        return float(real[1]) if real else None
    # The length comes first: Python refuses to convert integers of thousands of digits.
    integer = _INTEGER.fullmatch(text) if len(text) < 100 else None
    if integer is None:
        return None
    value = int(integer[1])
    limit = 1 << (_INTEGER_BITS[kind] - 1)
    return value if -limit <= value < limit else None


def not_acting(parsed: ParsedFlags) -> list[str]:
    """Names the flags that were given a value other than their default and change nothing yet, in the table's order."""
    return [
        flag.name
        for flag in FLAGS
        if (flag.not_acting or flag.no_meaning) and parsed.values[flag.name] != flag.default_value()
    ]


def usage(program: str) -> str:
    """The usage text, one line for each flag with its default in the form in which it would be given."""
    lines = [f"usage: {program} [--name=value ...]", "Flags:"]
    for flag in FLAGS:
        setting = f"--{flag.name}={shown_default(flag)}"
        remark = " (Not acting yet.)" if flag.not_acting else " (Without meaning here.)" if flag.no_meaning else ""
        lines.append(f"\t{setting:<48}\t{flag.type.value}\t{flag.help}{remark}")
    return "\n".join(lines) + "\n"


def shown_default(flag: Flag) -> str:
    """The default of ``flag`` as it would be written on a command line; a string in quotes."""
    value = flag.default_value()
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else f"{value}"


def version_text() -> str:
    """The two lines of ``--version``; TensorFlow's is read from what is installed here, without importing it."""
    library = next((version for name in TENSORFLOW_DISTRIBUTIONS if (version := _installed_version(name))), None)
    return (
        f"TensorFlow ModelServer: {_installed_version('tensorgate') or 'unknown'}\n"
        f"TensorFlow Library: {library or 'not installed'}\n"
    )


def _installed_version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def report(
    parsed: ParsedFlags, program: str, output: TextIO, error_output: TextIO, help_exit_code: int = USAGE_EXIT_CODE
) -> int | None:
    """Tells the user what upstream tells, and returns the code to exit with, or None where the start goes on.

    A value that could not be read: the errors and the usage, 255. ``--help`` first: the usage, ``help_exit_code``.
    ``--version``: both versions, 0. Unknown arguments are named, with the usage, and do not stop the start.
    """
    if parsed.errors:
        error_output.write("\n".join(parsed.errors) + "\n" + usage(program))
        return USAGE_EXIT_CODE
    if parsed.help_requested:
        output.write(usage(program))
        return help_exit_code
    if parsed.get_bool("version"):
        output.write(version_text())
        return 0
    if parsed.unknown_arguments:
        error_output.writelines(f"unknown argument: {argument}\n" for argument in parsed.unknown_arguments)
        error_output.write(usage(program))
    return None
