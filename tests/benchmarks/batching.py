"""Merged requests: softmax and an MLP over gRPC, unbatched, with upstream's parameters and with auto, in one table.

  python tests/benchmarks/batching.py [--rounds 5] [--run_s 1] [--concurrency 1,16,64,256] [--models softmax,mlp]
                                      [--parameters 'max_batch_size { value: 64 }']

Every server runs all the time; rounds go through them in turn, each pair of a round close together, and the figures are
medians over the rounds: rate, p50, p99, and the mean batch of the worker's own counters. nghttpd's echo of the same
body is the yardstick. Load generator and servers share the machine. Needs h2load, nghttpd and TensorFlow.
"""

import argparse
import contextlib
import dataclasses
import os
import pathlib
import statistics
import tempfile

import h2load
import servers
from softmax import METHOD, answer_size, make_softmax_model, softmax_request

from tensorgate._native.batch_cost import batch_cost
from tensorgate._native.batching_options import BatchingOptions
from tensorgate._native.execution_pool import PREDICT, run_once
from tensorgate._native.tf_c_api import load_library
from tensorgate.protos.tensorflow.core.protobuf.config_pb2 import ConfigProto
from tensorgate.workers.saved_model import open_saved_model

COLUMNS = (
    f"{'model':>8} {'conc.':>5} {'batching':>9} {'rate/s':>8} {'/off':>6} {'/nghttpd':>8} {'p50 µs':>7} {'p99 µs':>8}"
    f" {'CPU µs':>7} {'batch':>6}"
)


# Of TensorFlow's threads, for the runs of this process.
ONE_THREAD = ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1).SerializeToString()


@dataclasses.dataclass(slots=True)
class Server:
    """A server under measurement; ``pids`` are gateway and worker."""

    name: str
    port: int
    pids: tuple[int, ...] = ()
    loads: list[h2load.Load] = dataclasses.field(default_factory=list)
    cpu_us: list[float] = dataclasses.field(default_factory=list)
    mean_batch: float = 0.0


def measure(running: list[Server], body: pathlib.Path, model: str, concurrency: int, rounds: int, run_s: float) -> None:
    """Fills in each server's loads."""
    counts: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for server in running:
        server.loads.clear()
        server.cpu_us.clear()
        sizes[server.name] = answer_size(model_name=model) if server.pids else body.stat().st_size - 5
        # Not counted: first runs optimise the graph, teach auto, and show how many requests a run needs.
        h2load.run(server.port, METHOD, body, concurrency, 20 * concurrency + 200, sizes[server.name])
        rate = h2load.run(server.port, METHOD, body, concurrency, 20 * concurrency + 500, sizes[server.name]).rate
        counts[server.name] = max(concurrency * 8, int(rate * run_s))
    totals = {server.name: servers.batch_totals(server.pids[1], model) for server in running if server.pids}
    for _ in range(rounds):
        for server in running:
            before = sum(servers.cpu_s(pid) for pid in server.pids)
            count = counts[server.name]
            server.loads.append(h2load.run(server.port, METHOD, body, concurrency, count, sizes[server.name]))
            server.cpu_us.append((sum(servers.cpu_s(pid) for pid in server.pids) - before) * 1e6 / count)
    for server in running:
        if server.pids:
            rows, batches = servers.batch_totals(server.pids[1], model)
            rows, batches = rows - totals[server.name][0], batches - totals[server.name][1]
            server.mean_batch = rows / batches if batches else 0.0


def report(running: list[Server], model: str, concurrency: int) -> None:
    by_name = {server.name: server for server in running}
    for server in running:
        rate = statistics.median(load.rate for load in server.loads)
        ratios = {
            name: statistics.median(
                ours.rate / theirs.rate for ours, theirs in zip(server.loads, by_name[name].loads, strict=True)
            )
            for name in ("off", "nghttpd")
            if name in by_name
        }
        print(
            f"{model:>8} {concurrency:>5} {server.name:>9} {rate:>8.0f} {ratios.get('off', 0):>6.2f}"
            f" {ratios.get('nghttpd', 0):>8.2f} {statistics.median(load.p50_us for load in server.loads):>7.0f}"
            f" {statistics.median(load.p99_us for load in server.loads):>8.0f}"
            f" {statistics.median(server.cpu_us):>7.1f} {server.mean_batch:>6.1f}",
            flush=True,
        )


def report_bare_run(folder: pathlib.Path, model: str) -> None:
    """What one thread does with 64 images at a time and nothing around it: what a server can at most do on one core."""
    session = open_saved_model(str(folder / model / "1"), 1, ["serve"], ONE_THREAD)
    payload = softmax_request(64, model)
    times_us = [run_once(session, PREDICT, payload)[3] for _ in range(200)][50:]
    print(f"{model}: bare TF_SessionRun, batch of 64, one thread: {64e6 / statistics.median(times_us):.0f} rows/s")
    session.close()


def report_cost(folder: pathlib.Path) -> None:
    """What merging costs by itself, for requests of one image in batches of 64."""
    session = open_saved_model(str(folder / "softmax" / "1"), 1, ["serve"], ONE_THREAD)
    options = BatchingOptions(
        num_batch_threads=1,
        max_batch_size=64,
        max_execution_batch_size=64,
        batch_timeout_micros=0,
        max_enqueued_batches=1000,
    )
    for num_images in (1, 20):
        payload = softmax_request(num_images)
        count = 64 // num_images * 4
        prepare, queue, pack, copy, size = batch_cost(session, options, payload, count, 200)
        print(
            f"merging {num_images} images a request: {prepare:.0f} ns to prepare, {queue:.0f} to queue, {pack:.0f} to"
            f" pack: {size / pack:.1f} GB/s beside memcpy's {size / copy:.1f}",
            flush=True,
        )
    session.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--run_s", type=float, default=1.0)
    parser.add_argument("--concurrency", default="1,16,64,256")
    parser.add_argument("--models", default="softmax,mlp")
    parser.add_argument(
        "--parameters",
        default="max_batch_size { value: 64 } batch_timeout_micros { value: 0 } max_enqueued_batches { value: 1000 }",
    )
    arguments = parser.parse_args()
    print(COLUMNS, flush=True)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = pathlib.Path(name)
        base_path = make_softmax_model(folder)
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        load_library()
        for model in arguments.models.split(","):
            report_bare_run(folder, model)
        report_cost(folder)
        parameters = folder / "batching.config"
        parameters.write_text(arguments.parameters, encoding="ascii")
        models = {model: base_path.parent / model for model in arguments.models.split(",")}
        running = []
        for kind, flags in {
            "off": (),
            "upstream": ("--enable_batching=true", f"--batching_parameters_file={parameters}"),
            "auto": ("--batching=auto",),
        }.items():
            port, _, server = stack.enter_context(servers.model_server(models, *flags))
            running.append(Server(kind, port, (server.pid, *servers.child_pids(server.pid))))
        running.append(Server("nghttpd", stack.enter_context(servers.nghttpd(folder))))
        for model in models:
            body = h2load.write_body(folder / f"{model}.body", softmax_request(model_name=model))
            for concurrency in map(int, arguments.concurrency.split(",")):
                measure(running, body, model, concurrency, arguments.rounds, arguments.run_s)
                report(running, model, concurrency)


if __name__ == "__main__":
    main()
