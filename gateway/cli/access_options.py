"""The options of every command that talks to a server: what token to show it, and how to speak TLS with it.

Under the command ``tensorgate``.
"""

import functools
import os
from collections.abc import Callable

import click

from tensorgate.gateway.cli.errors_shown import errors_shown

_FILE = click.Path(exists=True, dir_okay=False)


def access_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options to a command, which gets what they say as ``access``, and has its errors shown."""

    @click.option("--token_file", type=_FILE, help="The token to show, alone in a file; default: $TENSORGATE_TOKEN.")
    @click.option("--tls", is_flag=True, help="Speak TLS; so does each of the options below.")
    @click.option("--ca_cert", type=_FILE, help="PEM file of the authorities to trust; default: the system's.")
    @click.option("--client_cert", type=_FILE, help="PEM file of a certificate to show, with its chain.")
    @click.option("--client_key", type=_FILE, help="PEM file of its key, without a passphrase.")
    @click.option(
        "--tls_server_name", default="", metavar="NAME", help="Name in the server's certificate, if not its address's."
    )
    @functools.wraps(command)
    def with_access(
        *,
        token_file: str | None,
        tls: bool,
        ca_cert: str | None,
        client_cert: str | None,
        client_key: str | None,
        tls_server_name: str,
        **arguments: object,
    ) -> None:
        # Its own account of a failed handshake would stand before ours, and there is no other use for it here.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        from tensorgate.gateway.cli.access import Access, read_tls, read_token  # noqa: PLC0415  (loads grpc)

        if (client_cert is None) != (client_key is None):
            raise click.UsageError("--client_cert and --client_key go together")
        with errors_shown():
            its_tls = None
            if tls or ca_cert or client_cert or tls_server_name:
                its_tls = read_tls(ca_cert or "", client_cert or "", client_key or "", tls_server_name)
            command(access=Access(read_token(token_file), its_tls), **arguments)

    return with_access
