"""How a command's failure reaches whoever called it."""

import contextlib
import sys
from collections.abc import Iterator

import click

from tensorgate.protos.status_codes import ServingError


@contextlib.contextmanager
def errors_shown() -> Iterator[None]:
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
