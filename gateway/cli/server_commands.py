"""The commands that ask a running server, or load it: status, predict, bench, replay, reload.

Under the command ``tensorgate``, which takes them from SERVER_COMMANDS.
"""

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from tensorgate.gateway.cli.access_options import access_options

if TYPE_CHECKING:
    from tensorgate.gateway.cli.access import Access

_SERVER_OPTION = click.option(
    "--server", default="localhost:8500", show_default=True, metavar="HOST:PORT", help="Address of the gRPC API."
)
_REST_OPTION = click.option(
    "--rest", "rest_address", default="localhost:8501", show_default=True, metavar="HOST:PORT", help="Of the REST API."
)
_TIMEOUT_OPTION = click.option("--timeout_s", type=float, default=60.0, show_default=True, help="Bound of one request.")


def _model_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which model, version and signature."""
    for option in (
        click.option("--label", default="", help="Label of the version; default: the latest one."),
        click.option("--version", type=int, default=None, help="Number of the version; default: the latest one."),
        click.option("--signature", default="serving_default", show_default=True, help="The signature's name."),
    ):
        command = option(command)
    return command


@click.command()
@_REST_OPTION
@click.option("--watch", is_flag=True, help="Show it again every second, with rates, until Ctrl-C.")
@click.option("--interval_s", type=click.FloatRange(min=0.1), default=1.0, show_default=True, help="Of --watch.")
@click.option("--json", "as_json", is_flag=True, help="Print the models and why the server is not ready as JSON.")
@access_options
def status(*, access: "Access", rest_address: str, watch: bool, interval_s: float, as_json: bool) -> None:
    """Show a server's models, workers and requests.

    Exits with 0 if the server is ready, with 1 if not or if it does not answer.
    """
    from rich.console import Console  # noqa: PLC0415

    from tensorgate.gateway.cli.status import look, show_status  # noqa: PLC0415  (loads rich)

    if as_json:
        now = look(rest_address, access)
        click.echo(json.dumps({"ready": not now.trouble, "trouble": now.trouble, "models": now.models}, indent=1))
        sys.exit(1 if now.trouble else 0)
    sys.exit(show_status(rest_address, access, Console(), watch=watch, interval_s=interval_s))


@click.command()
@click.argument("model")
@click.argument("inputs", nargs=-1, required=True, metavar="[NAME=]FILE...")
@_model_options
@_SERVER_OPTION
@_TIMEOUT_OPTION
@access_options
def predict(
    *,
    access: "Access",
    model: str,
    inputs: tuple[str, ...],
    signature: str,
    version: int | None,
    label: str,
    server: str,
    timeout_s: float,
) -> None:
    """Send one request and print the answer as JSON.

    FILE is .json (values, or an object with inputs by name, or - for standard input), .npy, or a picture. NAME= may be
    left out where the signature has one input.
    """
    from tensorgate.gateway.cli.client import ModelName  # noqa: PLC0415  (loads grpc)
    from tensorgate.gateway.cli.predict import run_predict  # noqa: PLC0415

    sources = {}
    for each in inputs:
        name, equals, path = each.partition("=")
        sources[name if equals else ""] = path if equals else each
    of = ModelName(model, signature, version, label)
    click.echo(run_predict(server, access, of, sources, timeout_s))


@click.command()
@click.argument("model")
@_model_options
@_SERVER_OPTION
@_REST_OPTION
@click.option("--api", type=click.Choice(["grpc", "rest"]), default="grpc", show_default=True, help="Which edge.")
@click.option("--rows", type=click.IntRange(min=1), default=1, show_default=True, help="Rows a request, where free.")
@click.option("--concurrency", type=click.IntRange(1, 1000), default=8, show_default=True, help="Threads that send.")
@click.option("--sweep", default="", metavar="N,N,…", help="Measure these concurrencies, and recommend one.")
@click.option(
    "--serve",
    "base_path",
    type=click.Path(exists=True, file_okay=False, resolve_path=True),
    help="Compare batching: on servers of its own of the model in this base path, one for each --batching.",
)
@click.option(
    "--batching",
    multiple=True,
    metavar="SETTING",
    help="With --serve: off, auto, or such as max_batch_size=64,batch_timeout_micros=1000. Repeat it for several.",
)
@click.option("--rate", type=click.FloatRange(min=0), default=0.0, help="Open loop: requests a second.")
@click.option("--duration_s", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="Of each run.")
@click.option("--num_requests", type=click.IntRange(min=1), default=None, help="At most so many in each run.")
@click.option("--plot", default="", metavar="FILE", help="Plot the results: .html, .png, .svg or .pdf.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@_TIMEOUT_OPTION
@access_options
def bench(
    *,
    access: "Access",
    model: str,
    signature: str,
    version: int | None,
    label: str,
    server: str,
    rest_address: str,
    api: str,
    rows: int,
    concurrency: int,
    sweep: str,
    base_path: str | None,
    batching: tuple[str, ...],
    rate: float,
    duration_s: float,
    num_requests: int | None,
    plot: str,
    as_json: bool,
    timeout_s: float,
) -> None:
    """Measure how fast a server answers, with data made from the model's signature.

    A closed loop unless --rate is given. With --serve no server need run, and batching settings are compared. Exits
    with 1 if a request failed.
    """
    from pathlib import Path  # noqa: PLC0415

    from rich.console import Console  # noqa: PLC0415

    from tensorgate.gateway.cli.bench import BenchOptions, run_bench  # noqa: PLC0415  (loads rich and grpc)
    from tensorgate.gateway.cli.bench_batching import DEFAULT_SETTINGS, parse_setting, run_batching_bench  # noqa: PLC0415
    from tensorgate.gateway.cli.bench_load import Goal  # noqa: PLC0415
    from tensorgate.gateway.cli.client import ModelName  # noqa: PLC0415

    try:
        concurrencies = [int(each) for each in sweep.split(",")] if sweep else [concurrency]
    except ValueError as error:
        raise click.BadParameter(f"{sweep!r} is no list of numbers", param_hint="--sweep") from error
    if min(concurrencies) < 1 or max(concurrencies) > 1000:
        raise click.BadParameter("concurrencies are 1 to 1000", param_hint="--sweep")
    goals = [Goal(each, duration_s, num_requests, rate) for each in concurrencies]
    of = ModelName(model, signature, version, label)
    if batching and base_path is None:
        raise click.UsageError("--batching goes with --serve, which starts the servers that have it")
    options = BenchOptions(server, rest_address, of, api, rows, timeout_s, access)
    if base_path is None:
        sys.exit(run_bench(options, goals, Console(), plot, as_json=as_json))
    settings = [parse_setting(each) for each in batching or DEFAULT_SETTINGS]
    sys.exit(run_batching_bench(options, Path(base_path), settings, goals, Console(), plot, as_json=as_json))


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--model", default="", help="Send the requests to this model instead of the recorded one.")
@_SERVER_OPTION
@_TIMEOUT_OPTION
@access_options
def replay(*, access: "Access", files: tuple[str, ...], model: str, server: str, timeout_s: float) -> None:
    """Send the requests of request logs or warm-up files (TFRecord) again, and compare the answers.

    Exits with 1 if a request failed.
    """
    from rich.console import Console  # noqa: PLC0415

    from tensorgate.gateway.cli.replay import run_replay  # noqa: PLC0415  (loads rich)

    sys.exit(run_replay(server, access, files, Console(), model, timeout_s))


@click.command()
@click.argument("config_file", type=click.Path(exists=True, dir_okay=False))
@_SERVER_OPTION
@_TIMEOUT_OPTION
@access_options
def reload(*, access: "Access", config_file: str, server: str, timeout_s: float) -> None:
    """Have a server take a model config file for its own, and wait until its models are there."""
    from tensorgate.gateway.cli.reload import run_reload  # noqa: PLC0415

    run_reload(server, access, config_file, timeout_s)
    click.echo(f"{server} serves the models of {config_file}")


SERVER_COMMANDS = (status, predict, bench, replay, reload)
