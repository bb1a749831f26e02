"""The worker process: composition root of the data plane that runs models on one device.

Started by the gateway's supervisor with an explicit command, one process per device. Threads: native ones run the data
loop and execute, one serves commands, loaders load, the main thread waits for the end, and one watches the pipe whose
other end only the gateway holds: when it closes, the gateway is gone and so is this process, whatever it was doing.
"""

import argparse
import logging
import os
import queue
import signal
import sys
import threading
from types import FrameType

import zmq

from tensorgate._native.data_loop import DataLoop
from tensorgate._native.shared_library import LibraryError
from tensorgate._native.tf_c_api import load_library
from tensorgate.workers.commands import CommandServer

logger = logging.getLogger("tensorgate.worker")

# Exit status of a worker that cannot work on this machine, however often it is started (EX_CONFIG of sysexits.h).
EXIT_CANNOT_WORK = 78


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tensorgate-worker", description=__doc__)
    parser.add_argument("--name", default="worker-0", help="as the log calls it")
    parser.add_argument("--data_endpoint", required=True)
    parser.add_argument("--control_endpoint", required=True)
    parser.add_argument("--cancel_endpoint", required=True)
    parser.add_argument("--stream_path", default="", help="of a unix socket for requests of the same host; empty: none")
    parser.add_argument("--epoch", type=int, required=True, help="the incarnation; frames of another are refused")
    parser.add_argument("--parent_fd", type=int, required=True, help="end of file on it means that the gateway is gone")
    parser.add_argument("--num_execution_threads", type=int, default=0, help="0: the cores granted to the process")
    return parser.parse_args(argv)


def watch_parent(parent_fd: int, endpoints: list[str]) -> None:
    """Blocks until the gateway is gone, then ends this process at once, with its socket files."""
    while os.read(parent_fd, 1):
        logger.debug("a byte on the parent pipe means nothing")
    for endpoint in endpoints:
        path = endpoint.removeprefix("ipc://")
        if os.path.exists(path):
            os.unlink(path)
    # The private run directory goes with its last socket; while others still have theirs in it, it stays for them.
    try:
        os.rmdir(os.path.dirname(endpoints[0].removeprefix("ipc://")))
    except OSError as error:
        logger.debug("the run directory stays: %s", error)
    # No clean-up: nobody is left to hear of it, and a thread may be stuck inside TensorFlow.
    os._exit(1)


def told(data_loop: DataLoop) -> str:
    """What became of the requests, for the log."""
    dropped = {
        "malformed": data_loop.malformed,
        "of another incarnation": data_loop.foreign,
        "sent twice": data_loop.duplicates,
        "replies whose gateway had gone": data_loop.unsent,
    }
    return ", ".join(
        [f"{data_loop.completed} requests answered", *(f"{count} {what}" for what, count in dropped.items() if count)]
    )


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    endpoints = [arguments.data_endpoint, arguments.control_endpoint, arguments.cancel_endpoint]
    if arguments.stream_path:
        endpoints.append(arguments.stream_path)
    threading.Thread(
        target=watch_parent, args=(arguments.parent_fd, endpoints), name="parent-watch", daemon=True
    ).start()
    # TensorFlow's INFO lines (which CPU instructions it uses, …) drown what matters; set the variable to see them.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    try:
        version = load_library()
    except LibraryError as error:
        logger.error("%s", error)
        return EXIT_CANNOT_WORK
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    data_loop = DataLoop(
        context,
        arguments.data_endpoint,
        arguments.cancel_endpoint,
        arguments.epoch,
        arguments.num_execution_threads or len(os.sched_getaffinity(0)),
        stream_path=arguments.stream_path,
    )
    # A queue, since a signal handler may put something into it whatever the main thread holds just then.
    ends: queue.SimpleQueue[str] = queue.SimpleQueue()
    commands = CommandServer(
        context, arguments.control_endpoint, arguments.epoch, version, data_loop, lambda: ends.put("the gateway's word")
    )

    def stop(_signal: int, _frame: FrameType | None) -> None:
        ends.put("SIGTERM")

    signal.signal(signal.SIGTERM, stop)
    # A terminal's Ctrl-C is for the gateway, which then stops its workers in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    data_loop.start()
    commands.start()
    why = ends.get()
    data_loop.drain()
    data_loop.stop()
    commands.stop()
    commands.unload_all()
    logger.info("%s ends by %s: %s", arguments.name, why, told(data_loop))
    context.term()
    return 0


if __name__ == "__main__":
    sys.exit(main())
