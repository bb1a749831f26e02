"""``tensorgate bench --serve``: which batching to take for a model, by serving it with one setting after the other.

Beside bench: for each setting a server of its own is started on the model's folder, warmed up, measured as any server
is, and stopped; a server that others use is not touched. Needs what workers need.
"""

import contextlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from google.protobuf import text_format
from rich.console import Console

from tensorgate.gateway.cli.access import Access
from tensorgate.gateway.cli.bench import BenchOptions, Run, finish, measure, report
from tensorgate.gateway.cli.bench_load import Goal
from tensorgate.gateway.cli.local_server import LocalServer, free_ports
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.servables.tensorflow.session_bundle_config_pb2 import BatchingParameters

OFF, AUTO = "off", "auto"
# Without a wait for others, which is for loads that come in at their own pace.
DEFAULT_SETTINGS = (OFF, AUTO, *(f"max_batch_size={size}" for size in (8, 32, 128)))
START_TIMEOUT_S = 120.0
# What the first requests of a server find cold does not count.
WARMUP_SHARE, MAX_WARMUP_S = 0.2, 2.0


@dataclass(frozen=True, slots=True)
class BatchingSetting:
    """How one server batches; ``parameters`` is a text-format BatchingParameters, empty for off and auto."""

    name: str
    parameters: str = ""

    def flags(self, folder: Path) -> list[str]:
        """The server's flags for it; the parameters are put into a file in the folder."""
        if self.name == OFF:
            return []
        if self.name == AUTO:
            return ["--batching=auto"]
        file = folder / "batching_parameters.txt"
        file.write_text(self.parameters, encoding="utf-8")
        return ["--enable_batching", f"--batching_parameters_file={file}"]


def parse_setting(text: str) -> BatchingSetting:
    """``off``, ``auto``, or fields of BatchingParameters: NAME=VALUE,… where a repeated field is named repeatedly.

    Raises ServingError INVALID_ARGUMENT for anything else.
    """
    if text in (OFF, AUTO):
        return BatchingSetting(text)
    lines = []
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        name, equals, value = part.partition("=")
        field = BatchingParameters.DESCRIPTOR.fields_by_name.get(name)
        if field is None or not equals:
            known = ", ".join(BatchingParameters.DESCRIPTOR.fields_by_name)
            raise ServingError(
                Code.INVALID_ARGUMENT,
                f"{part!r} is no batching parameter; --batching takes off, auto, or NAME=VALUE,… with {known}",
            )
        lines.append(f"{name} {{ value: {value} }}" if field.message_type is not None else f"{name}: {value}")
    parameters = "\n".join(lines) + "\n"
    try:
        text_format.Parse(parameters, BatchingParameters())
    except text_format.ParseError as error:
        raise ServingError(Code.INVALID_ARGUMENT, f"{text!r} are no batching parameters: {error}") from error
    return BatchingSetting(", ".join(parts), parameters)


def run_batching_bench(
    options: BenchOptions,
    base_path: Path,
    settings: Sequence[BatchingSetting],
    goals: Sequence[Goal],
    console: Console,
    plot_path: str = "",
    *,
    as_json: bool = False,
) -> int:
    """Measures each goal with each setting and prints what to take; 0 if every request succeeded, else 1.

    ``options`` says what is asked of the model; the servers' addresses are found here. Raises ServingError: NOT_FOUND
    for a base path without versions, what a server says that does not come up, and what keeps it from being asked.
    """
    if not any(child.name.isdigit() for child in base_path.iterdir()):
        # A server would wait for one to come.
        raise ServingError(Code.NOT_FOUND, f"{base_path} has no version: no folder whose name is a number")
    shown = Console(stderr=True, quiet=True) if as_json else console
    warmup_s = min(MAX_WARMUP_S, WARMUP_SHARE * max(goal.duration_s for goal in goals))
    runs: list[Run] = []
    for setting in settings:
        with tempfile.TemporaryDirectory(prefix="tensorgate-bench-") as name, contextlib.ExitStack() as stack:
            folder = Path(name)
            port, rest_port = free_ports(2)
            flags = setting.flags(folder)
            with shown.status(f"starting a server with batching {setting.name}"):
                server = stack.enter_context(
                    LocalServer(options.model.name, base_path, folder / "server.log", port, rest_port, flags)
                )
                server.wait_until_available(START_TIMEOUT_S)
            its_options = replace(
                options, grpc_address=server.grpc_address, rest_address=server.rest_address, access=Access()
            )
            runs += measure(its_options, goals, shown, runs, setting.name, warmup_s)
    if not as_json:
        best = report(options, runs, console)
        by_name = {setting.name: setting for setting in settings}
        if best is not None and (chosen := by_name[best.setting]).name != OFF:
            console.print(_how_to_set(chosen), highlight=False)
    return finish(options, runs, console, plot_path, as_json=as_json)


def _how_to_set(setting: BatchingSetting) -> str:
    if setting.name == AUTO:
        return "Set it with --batching=auto."
    return f"Set it with --enable_batching and --batching_parameters_file=FILE, where FILE has:\n\n{setting.parameters}"
