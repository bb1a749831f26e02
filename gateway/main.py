"""The gateway process: flags in, a server that runs until a signal, an exit status out.

Installed as ``tensorflow_model_server`` and run by ``tensorgate serve``.

Source: tensorflow_serving/model_servers/main.cc (messages and exit codes).
"""

import asyncio
import logging
import os
import signal
import sys

import uvloop

from tensorgate.gateway import flag_parser, options
from tensorgate.gateway.cgroup import granted_cpus
from tensorgate.gateway.core.clock import SystemClock
from tensorgate.gateway.log_lines import make_formatter
from tensorgate.gateway.server_core import ServerCore
from tensorgate.protos.status_codes import ServingError

logger = logging.getLogger("tensorgate.server")

PROGRAM = "tensorflow_model_server"

# Upstream returns -1 from main.
START_FAILED = 255
# What a shell reports of a process that SIGINT ended; the second signal does not wait.
FORCED_EXIT = 130


def main(argv: list[str] | None = None) -> int:
    """Runs the server; ``argv`` without the program's name, default the command line. Returns the exit status."""
    parsed = flag_parser.parse(sys.argv[1:] if argv is None else argv)
    exit_code = flag_parser.report(parsed, PROGRAM, sys.stdout, sys.stderr)
    if exit_code is not None:
        return exit_code
    try:
        server_options = options.from_flags(parsed)
    except ServingError as error:
        print(f"Failed to start server. Error: {error}", flush=True)
        return START_FAILED
    log_handler = logging.StreamHandler(sys.stderr)
    log_handler.setFormatter(make_formatter(server_options.log_format))
    logging.basicConfig(level=server_options.log_level.upper(), handlers=[log_handler])
    # Said before as upstream says it, but under a whole page of usage.
    if parsed.unknown_arguments:
        logger.warning("unknown arguments are ignored: %s", " ".join(parsed.unknown_arguments))
    not_acting = flag_parser.not_acting(parsed)
    if not_acting:
        logger.warning(
            "flags that are known but do not act here, or not yet: %s", ", ".join(f"--{name}" for name in not_acting)
        )
    for warning in server_options.warnings:
        logger.warning("%s", warning)
    return uvloop.run(serve(server_options))


async def serve(server_options: options.ServerOptions) -> int:
    """Starts, waits for SIGTERM or SIGINT, drains and stops; a second signal ends the process at once."""
    stopping = asyncio.Event()

    def on_signal(number: int) -> None:
        name = signal.Signals(number).name
        if stopping.is_set():
            logger.warning("%s again: ending at once", name)
            os._exit(FORCED_EXIT)
        logger.info("%s: draining for at most %g s; again to end at once", name, server_options.drain_timeout_s)
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)

    try:
        core = ServerCore(server_options, SystemClock(), granted_cpus())
    except ServingError as error:
        print(f"Failed to start server. Error: {error}", flush=True)
        return START_FAILED
    starting = asyncio.ensure_future(core.start())
    waiting = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            await waiting
        return 0
    except ServingError as error:
        print(f"Failed to start server. Error: {error}", flush=True)
        return START_FAILED
    finally:
        for task in (starting, waiting):
            task.cancel()
        await asyncio.wait({starting, waiting})
        await core.stop(server_options.drain_timeout_s)
        logger.info("stopped")


if __name__ == "__main__":
    sys.exit(main())
