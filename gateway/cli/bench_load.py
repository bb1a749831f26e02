"""Load on a server, and what it took: requests sent by threads, in a closed loop or at a rate.

Under ``tensorgate bench`` and ``replay``. Closed loop: each thread sends its next request when it has its answer. Open
loop: requests are due at even intervals, whether answers have come or not, and a request's time counts from when it was
due, so that a server that stalls is charged for all that it kept waiting.

grpcio and http.client send, so one process reaches some thousand requests a second; h2load or wrk reach more.
"""

import contextlib
import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import grpc

from tensorgate.gateway.cli.access import Access
from tensorgate.gateway.cli.connection import bearer, rest_connection
from tensorgate.protos.status_codes import Code

# Sends one request and waits: the name of its status, OK for a success.
Send = Callable[[bytes], str]


@dataclass(frozen=True, slots=True)
class Goal:
    """When to stop, whichever comes first, and how fast to go. ``rate``: requests a second, 0 for a closed loop."""

    concurrency: int
    duration_s: float
    num_requests: int | None = None
    rate: float = 0.0


@dataclass(slots=True)
class Answers:
    """What came of requests: each one's time in seconds and when it ended, from the beginning; statuses by name."""

    latencies_s: list[float] = field(default_factory=list)
    ended_s: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    elapsed_s: float = 0.0

    @property
    def num_failed(self) -> int:
        """Those whose status was not OK."""
        return self.statuses.total() - self.statuses["OK"]

    @property
    def rate(self) -> float:
        """Successes a second."""
        return self.statuses["OK"] / self.elapsed_s if self.elapsed_s > 0 else 0.0

    def percentile_s(self, percent: float) -> float:
        """Of the successes' times; 0 without any."""
        return percentile(sorted(self.latencies_s), percent)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The value that ``percent`` of the ordered ones do not exceed; 0 for none."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


class Load:
    """One run; ``start``, then ``is_done`` becomes true, or is made so by ``stop``."""

    def __init__(self, make_send: Callable[[], Send], payloads: Sequence[bytes], goal: Goal) -> None:
        """``make_send`` is called in each thread. Payloads are sent in turn, again and again."""
        self._make_send = make_send
        self._payloads = payloads
        self._goal = goal
        self._lock = threading.Lock()  # guards _num_begun and answers
        self._num_begun = 0
        self._stops = threading.Event()
        self._began_s = 0.0
        self._threads: list[threading.Thread] = []
        self.answers = Answers()

    def start(self) -> None:
        """Starts the threads."""
        self._began_s = time.monotonic()
        for number in range(self._goal.concurrency):
            thread = threading.Thread(target=self._run, name=f"load-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    @property
    def is_done(self) -> bool:
        return not any(thread.is_alive() for thread in self._threads)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began_s

    def stop(self) -> None:
        """No further requests; those under way are waited for."""
        self._stops.set()
        for thread in self._threads:
            thread.join()

    def take(self) -> Answers:
        """A copy of what there is by now; whole once the run is done."""
        with self._lock:
            made = Answers(list(self.answers.latencies_s), list(self.answers.ended_s), self.answers.statuses.copy())
        made.elapsed_s = max(made.ended_s, default=0.0) if self.is_done else self.elapsed_s
        return made

    def _run(self) -> None:
        send = self._make_send()
        while (number := self._next()) is not None:
            due_s = time.monotonic()
            if self._goal.rate:
                due_s = self._began_s + number / self._goal.rate
                if self._stops.wait(max(0.0, due_s - time.monotonic())):
                    return
            status = send(self._payloads[number % len(self._payloads)])
            now_s = time.monotonic()
            with self._lock:
                self.answers.statuses[status] += 1
                if status == "OK":
                    self.answers.latencies_s.append(now_s - due_s)
                    self.answers.ended_s.append(now_s - self._began_s)

    def _next(self) -> int | None:
        """The number of the next request; None: there is none."""
        goal = self._goal
        with self._lock:
            number = self._num_begun
            due_s = number / goal.rate if goal.rate else self.elapsed_s
            if (
                self._stops.is_set()
                or due_s >= goal.duration_s
                or (goal.num_requests is not None and number >= goal.num_requests)
            ):
                return None
            self._num_begun += 1
            return number


def grpc_sender(channel: grpc.Channel, path: str, timeout_s: float) -> Callable[[], Send]:
    """Sends serialized requests to a method; the channel is shared by all threads."""
    call = channel.unary_unary(path, request_serializer=None, response_deserializer=None)

    def send(payload: bytes) -> str:
        try:
            call(payload, timeout=timeout_s)
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"

    return lambda: send


@contextlib.contextmanager
def rest_sender(address: str, access: Access, path: str, timeout_s: float) -> Iterator[Callable[[], Send]]:
    """Posts bodies to a path; each thread has a connection of its own, which leaving this closes."""
    headers = bearer(access.token)
    connections = contextlib.ExitStack()

    def make() -> Send:
        connection = connections.enter_context(contextlib.closing(rest_connection(address, access, timeout_s)))

        def send(payload: bytes) -> str:
            try:
                connection.request("POST", path, payload, headers)
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                return Code.UNAVAILABLE.name
            return "OK" if response.status == http.client.OK else f"HTTP_{response.status}"

        return send

    with connections:
        yield make
