"""What seeing inside costs: gRPC Predict of the tutorial's softmax model with metrics read, access log and traces.

  python tests/benchmarks/observing.py [--rounds 9] [--run_s 0.5] [--concurrency 64] [--other PYTHON] [--servers NAME,…]

``everything off`` has no log, no traces, and nobody who reads the metrics; ``defaults`` are the same flags with both
metrics pages read once a second, which is what a Prometheus of great impatience does. The counters behind the pages are
native and cannot be turned off: they are in both. To see what they cost, --other names the interpreter of another
installation, such as one of an older commit, to measure against. ``traced`` has every request traced by its client,
with a collector that takes the spans and drops them.

Rounds go through the servers in turn, every other one backwards; before each run all have written and sent what they
still had of the one before, else the next server would pay for it. Ratios are medians of each round's rate over that of
the first server in the same round, and CPU times are per request. Needs h2load and TensorFlow; traces need the extra
tracing, and are left out without it.
"""

import argparse
import contextlib
import dataclasses
import http.server
import importlib.util
import os
import pathlib
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence

import h2load
import servers
from softmax import METHOD, answer_size, make_softmax_model, softmax_request

PAGES = ("/metrics", "/monitoring/prometheus/metrics")
READ_INTERVAL_S = 1.0
# All are idle who together use less than a fiftieth of a processor, for so long.
IDLE_S, IDLE_TIMEOUT_S = 0.2, 20.0
TRACEPARENT = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """One server of the comparison."""

    name: str
    flags: Sequence[str] = ()
    interpreter: str = sys.executable
    is_read: bool = False
    """Whether its metrics are read while it is measured."""
    metadata: Sequence[str] = ()


@contextlib.contextmanager
def read_pages(rest_port: int) -> Iterator[None]:
    """Meanwhile the metrics pages are read, the first time at once."""
    stops = threading.Event()

    def read() -> None:
        while True:
            for page in PAGES:
                with urllib.request.urlopen(f"http://127.0.0.1:{rest_port}{page}", timeout=30) as answer:
                    answer.read()
            if stops.wait(READ_INTERVAL_S):
                return

    thread = threading.Thread(target=read)
    thread.start()
    yield
    stops.set()
    thread.join()


@contextlib.contextmanager
def collector() -> Iterator[str]:
    """The address of one that takes spans and drops them."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def wait_until_idle(pids: Sequence[int]) -> None:
    """Returns when neither these processes nor this one, which has the collector, have anything to do."""
    deadline_s = time.monotonic() + IDLE_TIMEOUT_S
    while time.monotonic() < deadline_s:
        before_s = time.process_time() + sum(map(servers.cpu_s, pids))
        time.sleep(IDLE_S)
        if time.process_time() + sum(map(servers.cpu_s, pids)) - before_s < IDLE_S / 50 + 0.01:
            return


def kinds_of(access_log: pathlib.Path, other: str) -> list[Kind]:
    log = f"--access_log={access_log}"
    found = [Kind("other", interpreter=other)] if other else []
    found += [
        Kind("everything off"),
        Kind("defaults", is_read=True),
        Kind("access log 1 %", [log]),
        Kind("access log 100 %", [log, "--access_log_sample=1"]),
    ]
    if importlib.util.find_spec("opentelemetry") is not None:
        found += [Kind("tracing", ["--tracing"]), Kind("traced", ["--tracing"], metadata=[TRACEPARENT])]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--run_s", type=float, default=0.5, help="seconds of one run")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--other", default="", help="interpreter of another installation")
    parser.add_argument("--servers", default="", help="only these, by their names in the table, with commas between")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        path = pathlib.Path(folder)
        models = {"softmax": make_softmax_model(path / "models")}
        body = h2load.write_body(path / "body", softmax_request(1))
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = stack.enter_context(collector())
        asked = arguments.servers.split(",")
        kinds = [
            each
            for each in kinds_of(path / "access.log", arguments.other)
            if each.name in asked or not arguments.servers
        ]
        running: dict[str, tuple[int, int, int]] = {}
        for kind in kinds:
            port, rest_port, gateway = stack.enter_context(
                servers.model_server(models, *kind.flags, interpreter=kind.interpreter)
            )
            running[kind.name] = (port, rest_port, gateway.pid)

        def run(kind: Kind, count: int) -> float:
            port, rest_port, _ = running[kind.name]
            with read_pages(rest_port) if kind.is_read else contextlib.nullcontext():
                return h2load.run(
                    port, METHOD, body, arguments.concurrency, count, answer_size(1), metadata=kind.metadata
                ).rate

        rate = 0.0
        for kind in kinds:
            run(kind, 300)
            rate = max(rate, run(kind, 2000))
        count = max(4 * arguments.concurrency, int(rate * arguments.run_s))
        cpu_s = {name: -servers.cpu_s(pid) for name, (_, _, pid) in running.items()}
        rates: dict[str, list[float]] = {kind.name: [] for kind in kinds}
        for number in range(arguments.rounds):
            for kind in kinds[:: -1 if number % 2 else 1]:
                wait_until_idle([pid for _, _, pid in running.values()])
                rates[kind.name].append(run(kind, count))
        first = kinds[0].name
        print(f"{'server':>18} {'rate/s':>8} {'ratio':>8} {'gateway CPU µs':>14}")
        for name, (_, _, pid) in running.items():
            ratio = statistics.median(mine / its for mine, its in zip(rates[name], rates[first], strict=True))
            used_us = (servers.cpu_s(pid) + cpu_s[name]) / (count * arguments.rounds) * 1e6
            print(f"{name:>18} {statistics.median(rates[name]):8.0f} {ratio:8.3f} {used_us:14.2f}")


if __name__ == "__main__":
    main()
