"""The worker process: composition root of the data plane that runs models on one device.

Started by the gateway's supervisor with an explicit command, one process per device. Threads: native ones run the data
loop and execute, one serves commands, loaders load, the main thread waits for the end, and one watches the pipe whose
other end only the gateway holds: when it closes, the gateway is gone and so is this process, whatever it was doing.

With --listen somebody else starts it, on any machine, and starts it again when it ends: a lease takes the pipe's place.
"""

import argparse
import contextlib
import hmac
import logging
import os
import queue
import secrets
import signal
import sys
import threading
import time
from types import FrameType

import zmq
from zmq.auth.thread import ThreadAuthenticator

from tensorgate._native.data_loop import DataLoop
from tensorgate._native.reply_memory import SharedReplies
from tensorgate._native.request_memory import SharedRequests
from tensorgate._native.shared_library import LibraryError
from tensorgate._native.tf_c_api import load_library
from tensorgate.protos.status_codes import ServingError
from tensorgate.protos.worker_network import check_key, parse_address, read_worker_key
from tensorgate.workers.commands import CommandServer
from tensorgate.workers.lease import Lease
from tensorgate.workers.op_libraries import load_op_libraries

logger = logging.getLogger("tensorgate.worker")

# Exit status of a worker that cannot work on this machine, however often it is started (EX_CONFIG of sysexits.h).
EXIT_CANNOT_WORK = 78

# How long a gateway may take, after SIGTERM, to have everything answered that it has sent and to send nothing more.
LEAVE_TIMEOUT_S = 20.0
SIGNAL_INTERVAL_S = 0.5


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tensorgate-worker", description=__doc__)
    parser.add_argument("--name", default="worker-0", help="as the log calls it")
    parser.add_argument(
        "--listen",
        default="",
        metavar="tcp://HOST:PORT",
        help="serve a gateway on the network (its --workers), at PORT and the two ports behind it; needs no gateway to"
        " start it, and is to be started again whenever it ends",
    )
    parser.add_argument("--worker_key_file", default="", help="of --listen: the key that the gateway has too")
    parser.add_argument(
        "--gateway_timeout_s",
        type=float,
        default=10.0,
        help="of --listen: it ends when its gateway is silent",
    )
    parser.add_argument("--data_endpoint")
    parser.add_argument("--control_endpoint")
    parser.add_argument("--cancel_endpoint")
    parser.add_argument("--stream_path", default="", help="of a unix socket for requests of the same host; empty: none")
    parser.add_argument("--epoch", type=int, help="the incarnation; frames of another are refused")
    parser.add_argument("--parent_fd", type=int, help="end of file on it means that the gateway is gone")
    parser.add_argument("--num_execution_threads", type=int, default=0, help="0: the cores granted to the process")
    parser.add_argument("--op_libraries", default="", help="comma list of libraries of ops, or of Python distributions")
    parser.add_argument("--request_memory_fd", type=int, default=-1, help="memory with large requests; -1: none")
    parser.add_argument("--reply_memory_fd", type=int, default=-1, help="memory for large replies; -1: none")
    parser.add_argument("--shared_memory_threshold_bytes", type=int, default=1 << 62, help="smaller replies are sent")
    arguments = parser.parse_args(argv)
    by_gateway = ("data_endpoint", "control_endpoint", "cancel_endpoint", "epoch", "parent_fd")
    missing = [f"--{name}" for name in by_gateway if getattr(arguments, name) is None]
    if missing and not arguments.listen:
        parser.error(f"--listen is needed, or, as a gateway gives them, {', '.join(missing)}")
    return arguments


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


def end_at_once(why: str) -> None:
    """As when the gateway that started it is gone."""
    logger.error("ends: %s", why)
    os._exit(1)


def listen_on_network(arguments: argparse.Namespace, context: "zmq.Context[zmq.Socket[bytes]]") -> bytes:
    """Fills in what else a gateway gives, also for the context's sockets; the secret key, or nothing.

    Raises ServingError.
    """
    address = parse_address(arguments.listen)
    key = read_worker_key(arguments.worker_key_file) if arguments.worker_key_file else None
    check_key([address], key)
    context.set(zmq.IPV6, int(address.is_ipv6))
    arguments.control_endpoint, arguments.data_endpoint = address.control, address.data
    arguments.cancel_endpoint = address.cancel
    # Of this incarnation alone: what a gateway sent to another one is refused.
    arguments.epoch = secrets.randbits(62)
    return b"" if key is None else key.secret


class _SameKey:
    """Lets in who has our own key."""

    def __init__(self, public_key: bytes) -> None:
        self._public_key = public_key

    def callback(self, _domain: str, public_key: bytes) -> bool:
        """Authenticator.configure_curve_callback."""
        return hmac.compare_digest(public_key, self._public_key)


def start_gatekeeper(context: "zmq.Context[zmq.Socket[bytes]]", secret_key: bytes) -> ThreadAuthenticator:
    """Judges, on a thread of its own, every connection to the context's sockets; before they are bound."""
    gatekeeper = ThreadAuthenticator(context)
    gatekeeper.start()
    gatekeeper.configure_curve_callback("*", _SameKey(zmq.curve_public(secret_key)))
    return gatekeeper


def next_end(ends: "queue.SimpleQueue[str]", timeout_s: float | None) -> str:
    """Why the worker is to end now; on the main thread, which looks up now and then: Python runs handlers of signals on
    it alone, and the system may have given the signal to another thread, which wakes nobody."""
    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    while deadline_s is None or time.monotonic() < deadline_s:
        with contextlib.suppress(queue.Empty):
            return ends.get(timeout=SIGNAL_INTERVAL_S)
    return f"the gateway's silence for {timeout_s:g} s"


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
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    secret_key, lease = b"", None
    if arguments.listen:
        try:
            secret_key = listen_on_network(arguments, context)
        except ServingError as error:
            logger.error("%s", error.message)
            return EXIT_CANNOT_WORK
        lease = Lease(arguments.gateway_timeout_s, lambda: end_at_once("its gateway is silent"))
    else:
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
    requests, replies = map_shared_memory(arguments)
    gatekeeper = start_gatekeeper(context, secret_key) if secret_key else None
    data_loop = DataLoop(
        context,
        arguments.data_endpoint,
        arguments.cancel_endpoint,
        arguments.epoch,
        arguments.num_execution_threads or len(os.sched_getaffinity(0)),
        stream_path=arguments.stream_path,
        requests=requests,
        replies=replies,
        secret_key=secret_key,
    )
    # A queue, since a signal handler may put something into it whatever the main thread holds just then.
    ends: queue.SimpleQueue[str] = queue.SimpleQueue()
    commands = CommandServer(
        context,
        arguments.control_endpoint,
        arguments.epoch,
        version,
        data_loop,
        lambda: ends.put("the gateway's word"),
        secret_key,
        lease,
    )

    def stop(_signal: int, _frame: FrameType | None) -> None:
        ends.put("SIGTERM")

    signal.signal(signal.SIGTERM, stop)
    # A terminal's Ctrl-C is for the gateway, which then stops its workers in order.
    signal.signal(signal.SIGINT, stop if arguments.listen else signal.SIG_IGN)
    data_loop.start()
    commands.start()
    if arguments.listen:
        logger.info("%s waits for its gateway at %s", arguments.name, arguments.listen)
    why = next_end(ends, None)
    if why == "SIGTERM" and commands.say_leaving():
        # Else requests would be on their way that find nobody. A second signal does not wait.
        why = f"SIGTERM and {next_end(ends, LEAVE_TIMEOUT_S)}"
    data_loop.drain()
    data_loop.stop()
    commands.stop()
    commands.unload_all()
    logger.info("%s ends by %s: %s", arguments.name, why, told(data_loop))
    if gatekeeper is not None:
        gatekeeper.stop()
    context.term()
    return 0


if __name__ == "__main__":
    sys.exit(main())
