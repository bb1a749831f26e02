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
from tensorgate._native.reply_memory import SharedReplies
from tensorgate._native.request_memory import SharedRequests
from tensorgate._native.tf_c_api import LibraryError, load_library
from tensorgate.workers.commands import CommandServer
from tensorgate.workers.op_libraries import load_op_libraries

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
    parser.add_argument("--op_libraries", default="", help="comma list of libraries of ops, or of Python distributions")
    parser.add_argument("--request_memory_fd", type=int, default=-1, help="memory with large requests; -1: none")
    parser.add_argument("--reply_memory_fd", type=int, default=-1, help="memory for large replies; -1: none")
    parser.add_argument("--shared_memory_threshold_bytes", type=int, default=1 << 62, help="smaller replies are sent")
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


def map_shared_memory(arguments: argparse.Namespace) -> tuple[SharedRequests | None, SharedReplies | None]:
    """What the gateway shares, both or none; its descriptors are closed."""
    fds = (arguments.request_memory_fd, arguments.reply_memory_fd)
    if -1 in fds:
        return None, None
    try:
        shared = SharedRequests(fds[0]), SharedReplies(fds[1], arguments.shared_memory_threshold_bytes)
    except (OSError, MemoryError) as error:
        # Whatever these descriptors are, they are not what they should be: not ours to close.
        logger.warning("no memory is shared with the gateway, which sends everything: %s", error)
        return None, None
    for fd in fds:
        os.close(fd)
    return shared


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
        load_op_libraries([name for name in arguments.op_libraries.split(",") if name])
    except LibraryError as error:
        logger.error("%s", error)
        return EXIT_CANNOT_WORK
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    requests, replies = map_shared_memory(arguments)
    data_loop = DataLoop(
        context,
        arguments.data_endpoint,
        arguments.cancel_endpoint,
        arguments.epoch,
        arguments.num_execution_threads or len(os.sched_getaffinity(0)),
        stream_path=arguments.stream_path,
        requests=requests,
        replies=replies,
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
