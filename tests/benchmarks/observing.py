"""What access log, traces and request log cost: gRPC Predict of the tutorial's softmax model with them and without.

  python tests/benchmarks/observing.py [--rounds 9] [--run_s 0.5] [--concurrency 64] [--other PYTHON]

Counters for the metrics pages are always on; --other names the interpreter of another installation, such as one of an
older commit, to measure against. Rounds go through the servers in turn; ratios are medians of each round's rate over
that of the first server in the same round, and CPU times are per request. Needs h2load and TensorFlow.
"""

import argparse
import contextlib
import pathlib
import statistics
import sys
import tempfile

import h2load
import servers
from softmax import METHOD, answer_size, make_softmax_model, softmax_request


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--run_s", type=float, default=0.5, help="seconds of one run")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--other", default="", help="interpreter of another installation")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        path = pathlib.Path(folder)
        models = {"softmax": make_softmax_model(path / "models")}
        body = h2load.write_body(path / "body", softmax_request(1))
        log = f"--access_log={path / 'access.log'}"
        kinds: dict[str, tuple[str, list[str]]] = {}
        if arguments.other:
            kinds["other"] = (arguments.other, [])
        kinds["off"] = (sys.executable, [])
        kinds["access log 1 %"] = (sys.executable, [log])
        kinds["access log 100 %"] = (sys.executable, [log, "--access_log_sample=1"])
        running = {}
        for name, (interpreter, flags) in kinds.items():
            port, _, gateway = stack.enter_context(servers.model_server(models, *flags, interpreter=interpreter))
            running[name] = (port, gateway.pid)
        rate = 0.0
        for port, _ in running.values():
            h2load.run(port, METHOD, body, arguments.concurrency, 300, answer_size(1))
            rate = h2load.run(port, METHOD, body, arguments.concurrency, 2000, answer_size(1)).rate
        count = max(4 * arguments.concurrency, int(rate * arguments.run_s))
        cpu_s = {name: -servers.cpu_s(pid) for name, (_, pid) in running.items()}
        rates: dict[str, list[float]] = {name: [] for name in running}
        for _ in range(arguments.rounds):
            for name, (port, _) in running.items():
                rates[name].append(h2load.run(port, METHOD, body, arguments.concurrency, count, answer_size(1)).rate)
        first = next(iter(running))
        print(f"{'server':>18} {'rate/s':>8} {'/' + first:>8} {'gateway CPU µs':>14}")
        for name, (_, pid) in running.items():
            ratio = statistics.median(mine / its for mine, its in zip(rates[name], rates[first], strict=True))
            used_us = (servers.cpu_s(pid) + cpu_s[name]) / (count * arguments.rounds) * 1e6
            print(f"{name:>18} {statistics.median(rates[name]):8.0f} {ratio:8.3f} {used_us:14.2f}")


if __name__ == "__main__":
    main()
