"""Runs the gateway with a resolver of the test's: ``python scripted_names.py FILE FLAGS…``.

The system's resolver answers for all names but WORKERS, whose addresses are the words in the file at that moment; with
none the name is not known. Names are resolved more often than in earnest, so that tests take less time.
"""

import pathlib
import socket
import sys
from typing import Any

from tensorgate.gateway import main as gateway
from tensorgate.gateway.dispatch import worker_discovery

NAME = "workers.test"
RESOLVE_INTERVAL_S = 0.2


def main() -> int:
    """As the gateway's, after the first argument."""
    path = pathlib.Path(sys.argv[1])
    system = socket.getaddrinfo

    def resolve(host: str | None, *arguments: Any, **named: Any) -> Any:
        if host != NAME:
            return system(host, *arguments, **named)
        hosts = path.read_text(encoding="ascii").split()
        if not hosts:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [found for each in hosts for found in system(each, *arguments, **named)]

    socket.getaddrinfo = resolve  # type: ignore[assignment]
    worker_discovery.RESOLVE_INTERVAL_S = RESOLVE_INTERVAL_S
    return gateway.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
