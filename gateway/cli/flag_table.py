"""Prints the server's flags as a table, for ``tensorgate serve --help``."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tensorgate.gateway.flag_parser import shown_default
from tensorgate.gateway.flags import OWN_FLAGS, UPSTREAM_FLAGS, Flag


def print_flag_table(console: Console | None = None) -> None:
    """Prints all flags, those of TensorFlow Serving first, with type, default and what they do."""
    console = console or Console()
    console.print("Usage: tensorgate serve --name=value ...", highlight=False)
    for title, flags in (("Flags of TensorFlow Serving", UPSTREAM_FLAGS), ("Flags of tensorgate", OWN_FLAGS)):
        table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("flag", no_wrap=True)
        table.add_column("type")
        table.add_column("default", overflow="fold")
        table.add_column("meaning", ratio=1)
        for flag in flags:
            table.add_row(
                Text(f"--{flag.name}", style="bold"), flag.type.value, Text(shown_default(flag)), Text(_meaning(flag))
            )
        console.print()
        console.print(table)


def _meaning(flag: Flag) -> str:
    if flag.no_meaning:
        return f"{flag.help} Without meaning here: {flag.no_meaning}."
    return f"{flag.help} Not acting yet: {flag.not_acting}." if flag.not_acting else flag.help
