"""``tensorgate demo``: the tutorial from end to end, in one command.

Trains and exports the softmax model, serves it, asks it about test images over gRPC and about one over REST, says how
to go on, and stops. TensorFlow is imported by the training's process only. Runs on the main thread and blocks.
"""

import http.client
import json
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import click
import grpc
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tensorgate.gateway.cli.local_server import LOCAL_CHANNEL_OPTIONS, LocalServer, free_ports, tail
from tensorgate.gateway.cli.mnist_client import SIGNATURE_NAME, run_inference
from tensorgate.gateway.cli.mnist_data import Digits, load_mnist
from tensorgate.gateway.python_command import python_command
from tensorgate.protos.status_codes import Code, ServingError

MODEL_NAME = "mnist"

_TRAINING_TIMEOUT_S = 600.0
_START_TIMEOUT_S = 60.0
_REST_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What ``tensorgate demo`` was asked for; a port of 0 stands for one that is free."""

    keep: bool = False
    data_dir: str | None = None
    num_tests: int = 1000
    training_iteration: int = 1000
    concurrency: int = 16
    port: int = 0
    rest_api_port: int = 0


def run_demo(options: DemoOptions) -> None:
    """Runs the demo; returns when its server has stopped, with ``keep`` after Ctrl-C.

    Raises ServingError for whatever fails, with the end of the log of the process that did; KeyboardInterrupt when
    Ctrl-C, SIGTERM or SIGHUP comes before the end. All it started is stopped and removed in every case.
    """
    with _signals_as_interrupts(), tempfile.TemporaryDirectory(prefix="tensorgate-demo-") as folder:
        _Demo(options, Path(folder)).run()


class _Demo:
    """One run of the demo, with its files in ``folder``."""

    def __init__(self, options: DemoOptions, folder: Path) -> None:
        self._options = options
        self._folder = folder
        self._console = Console()

    def run(self) -> None:
        test = load_mnist(self._options.data_dir).test
        if self._options.num_tests > len(test):
            raise ServingError(
                Code.INVALID_ARGUMENT,
                f"--num_tests is {self._options.num_tests}, but there are {len(test)} test images",
            )
        model_base_path = self._folder / MODEL_NAME
        self._train(model_base_path)
        click.echo("Starting the server ...")
        started_s = time.monotonic()
        with self._start_server(model_base_path) as server:
            server.wait_until_available(_START_TIMEOUT_S)
            click.echo(f"  up after {time.monotonic() - started_s:.1f} s, process {server.pid}")
            click.echo(f"  gRPC  {server.grpc_address}")
            click.echo(f"  REST  http://{server.rest_address}/v1/models/{MODEL_NAME}")
            self._ask_over_grpc(server, test)
            self._ask_over_rest(server, test)
            if self._options.keep:
                self._keep(server)
            click.echo("Stopping the server ...")
            exit_code = server.stop()
        if exit_code != 0:
            log = tail(self._folder / "server.log")
            raise ServingError(
                Code.INTERNAL, f"The server stopped with exit code {exit_code}. The end of its log:\n{log}"
            )
        click.echo("  stopped, exit code 0")
        if not self._options.keep:
            click.echo("`tensorgate demo --keep` leaves it running, for the curl line above to be tried.")

    def _train(self, model_base_path: Path) -> None:
        num_steps = self._options.training_iteration
        click.echo(
            f"Training the tutorial's softmax model, {num_steps} steps; TensorFlow takes some seconds to load ..."
        )
        started_s = time.monotonic()
        with self._bar("training", num_steps) as show:
            error_rate = train_in_child(self._options, model_base_path, self._folder / "training.log", show)
        click.echo(
            f"  trained and exported in {time.monotonic() - started_s:.1f} s; "
            f"TensorFlow itself errs on {error_rate:.1%} of the test images"
        )

    def _start_server(self, model_base_path: Path) -> LocalServer:
        free = free_ports(2)
        return LocalServer(
            MODEL_NAME,
            model_base_path,
            self._folder / "server.log",
            self._options.port or free[0],
            self._options.rest_api_port or free[1],
        )

    def _ask_over_grpc(self, server: LocalServer, test: Digits) -> None:
        num_tests = self._options.num_tests
        click.echo(f"Sending {num_tests} test images over gRPC, up to {self._options.concurrency} at a time ...")
        digits = Digits(test.pixels[:num_tests], test.labels[:num_tests])
        answered = 0
        with (
            self._bar("images", num_tests) as show,
            grpc.insecure_channel(server.grpc_address, options=LOCAL_CHANNEL_OPTIONS) as channel,
        ):

            def count(_right: bool) -> None:
                nonlocal answered
                answered += 1
                show(answered)

            result = run_inference(channel, digits, concurrency=self._options.concurrency, on_reply=count)
        click.echo(f"Inference error rate: {result.error_rate:.1%}")
        click.echo(f"  {result.requests_per_s:.0f} requests/s, as fast as this Python client asks")

    def _ask_over_rest(self, server: LocalServer, test: Digits) -> None:
        click.echo("Sending one test image over REST ...")
        body = rest_body(test.pixels[0])
        body_path = self._folder / "image.json"
        body_path.write_text(body, encoding="ascii")
        digit = ask_over_rest(server.rest_address, body)
        click.echo(f"  it shows a {test.labels[0]}, the model says {digit}")
        click.echo(f"  curl -d @{body_path} http://{server.rest_address}/v1/models/{MODEL_NAME}:predict")

    def _keep(self, server: LocalServer) -> None:
        click.echo("The server runs on; Ctrl-C stops it and removes its files.")
        try:
            server.wait()
        except KeyboardInterrupt:
            click.echo()

    @contextmanager
    def _bar(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """A progress bar on a terminal, nothing elsewhere; yields what moves it to a number done, from any thread."""
        progress = Progress(
            TextColumn(f"  {what}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        with progress:
            task = progress.add_task(what, total=total)
            yield lambda done: progress.update(task, completed=done)


def train_in_child(
    options: DemoOptions, model_base_path: Path, log_path: Path, show_step: Callable[[int], None]
) -> float:
    """Runs ``mnist_export`` as a child process, version 1 into ``model_base_path``; returns TensorFlow's error rate.

    The child's stdout has one JSON object a line: ``{"step": n}`` while it trains, then ``{"error_rate": x}`` or
    ``{"error": text}``; its stderr goes to ``log_path``. Raises ServingError INTERNAL where it fails or takes more than
    ten minutes.
    """
    command = [
        *python_command("tensorgate.gateway.cli.mnist_export"),
        str(model_base_path),
        f"--training_iteration={options.training_iteration}",
    ]
    if options.data_dir:
        command.append(f"--data_dir={options.data_dir}")
    error_rate: float | None = None
    error = ""
    with (
        log_path.open("wb") as log,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True) as child,
    ):
        assert child.stdout is not None
        # Its lines are read without a deadline; one is kept by ending the child, which ends the lines.
        too_long = threading.Timer(_TRAINING_TIMEOUT_S, child.kill)
        too_long.start()
        try:
            for line in child.stdout:
                report = parse_report(line)
                if "step" in report:
                    show_step(int(report["step"]))
                if "error_rate" in report:
                    error_rate = float(report["error_rate"])
                error = str(report.get("error", error))
        except BaseException:
            child.kill()
            raise
        finally:
            too_long.cancel()
    if child.returncode != 0 or error_rate is None:
        raise ServingError(
            Code.INTERNAL, error or f"The training ended with exit code {child.returncode}:\n{tail(log_path)}"
        )
    return error_rate


def parse_report(line: str) -> dict[str, float | str]:
    """One line of the training's stdout; empty for a line that is no report (a library may print there as well)."""
    try:
        report = json.loads(line)
    except ValueError:
        return {}
    return report if isinstance(report, dict) else {}


def rest_body(image: npt.NDArray[np.float32]) -> str:
    """The body of a REST predict request for one image, float32 [784], in row form; six digits do for a pixel."""
    instance = [round(float(pixel), 6) for pixel in image]
    return json.dumps({"signature_name": SIGNATURE_NAME, "instances": [instance]}, separators=(",", ":"))


def ask_over_rest(address: str, body: str) -> int:
    """Posts ``body`` to the model's predict URL and returns the digit with the highest score.

    Raises ServingError: UNAVAILABLE where there is no answer, INTERNAL with the answer where it is not 200.
    """
    connection = http.client.HTTPConnection(address, timeout=_REST_TIMEOUT_S)
    try:
        connection.request("POST", f"/v1/models/{MODEL_NAME}:predict", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise ServingError(Code.UNAVAILABLE, f"No REST answer from {address}: {error!r}") from error
    finally:
        connection.close()
    if response.status != http.client.OK:
        text = answer.decode(errors="replace")
        raise ServingError(Code.INTERNAL, f"The REST API of {address} answered {response.status}: {text}")
    return int(np.argmax(json.loads(answer)["predictions"][0]))


@contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """Lets SIGTERM and SIGHUP end the demo as Ctrl-C does, so that it stops what it started."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
