"""gRPC Predict (the tutorial's softmax model) beside servers that only echo, in one run and one table.

  python tests/benchmarks/data_plane.py [--rounds 7] [--run_s 0.5] [--concurrency 1,16,64,256] [--bodies 1,20]
                                        [--models 1,10,100] [--servers native,grpcio,echo,nghttpd]
                                        [--reference nghttpd]

Servers: native and grpcio are ours with that gRPC edge, sent is native without shared memory, tls (where it is named)
is native with TLS, echo is grpcio's aio server, nghttpd is nghttp2's own. Bodies are in images a request: 1 is 3.2 KB,
20 are 63 KB. Load generator and servers share the machine. Every answer's size is checked. Rounds go through the
servers in turn; rates, p50 and p99 are medians over the rounds, and so is the ratio of a server's rate to the
reference's in the same round. CPU times are per request. Needs h2load, nghttpd and TensorFlow.

Large bodies, with and without shared memory:
  python tests/benchmarks/data_plane.py --models 1 --bodies 19,191,3190 --concurrency 1,16,64 \
      --servers native,sent,echo --reference echo
"""

import argparse
import contextlib
import dataclasses
import pathlib
import statistics
import tempfile

import h2load
import servers
import trustme
from google.protobuf import text_format
from softmax import METHOD, answer_size, make_softmax_model, softmax_request

from tensorgate.protos.tensorflow_serving.config.ssl_config_pb2 import SSLConfig

COLUMNS = (
    f"{'models':>6} {'body KB':>7} {'conc.':>5} {'server':>8} {'rate/s':>8} {'ratio':>8} {'p50 µs':>7} {'p99 µs':>8}"
    f" {'gateway CPU µs':>14} {'worker CPU µs':>13}"
)

# What the first requests have together, at most, where bodies are large.
FIRST_BYTES = 100_000_000


@dataclasses.dataclass(slots=True)
class Server:
    """A server under measurement. ``pids``: gateway and worker, if it is ours."""

    name: str
    port: int
    pids: tuple[int, ...]
    loads: list[h2load.Load] = dataclasses.field(default_factory=list)
    cpu_s: list[float] = dataclasses.field(default_factory=list)

    @property
    def echoes(self) -> bool:
        return not self.pids

    @property
    def scheme(self) -> str:
        return "https" if self.name == "tls" else "http"


def write_ssl_config(path: pathlib.Path) -> pathlib.Path:
    """A certificate of its own for localhost; h2load trusts any."""
    shown = trustme.CA(key_type=trustme.KeyType.ECDSA).issue_cert("localhost", key_type=trustme.KeyType.ECDSA)
    config = SSLConfig(
        server_key=shown.private_key_pem.bytes().decode(), server_cert=shown.cert_chain_pems[0].bytes().decode()
    )
    path.write_text(text_format.MessageToString(config), encoding="utf-8")
    return path


def measure(
    running: list[Server], body: pathlib.Path, num_images: int, concurrency: int, rounds: int, run_s: float
) -> None:
    """Fills in each server's loads and CPU seconds a request."""
    echoed = body.stat().st_size - 5
    counts = {}
    for server in running:
        server.loads.clear()
        expected = echoed if server.echoes else answer_size(num_images)
        # Not counted: first runs optimise the graph, and show how many requests a run needs.
        num_first = max(concurrency, min(300, FIRST_BYTES // echoed))
        h2load.run(server.port, METHOD, body, concurrency, num_first, expected, server.scheme)
        rate = h2load.run(server.port, METHOD, body, concurrency, 3 * num_first, expected, server.scheme).rate
        counts[server.name] = max(concurrency * 4, int(rate * run_s))
        server.cpu_s = [-servers.cpu_s(pid) for pid in server.pids]
    for _ in range(rounds):
        for server in running:
            expected = echoed if server.echoes else answer_size(num_images)
            count = counts[server.name]
            server.loads.append(h2load.run(server.port, METHOD, body, concurrency, count, expected, server.scheme))
    for server in running:
        total = counts[server.name] * rounds
        server.cpu_s = [
            (servers.cpu_s(pid) + before) / total for pid, before in zip(server.pids, server.cpu_s, strict=True)
        ]


def show(running: list[Server], num_models: int, body_kb: float, concurrency: int, reference_name: str) -> None:
    reference = next((server for server in running if server.name == reference_name), None)
    for server in running:
        ratio = "-"
        if reference is not None:
            pairs = zip(server.loads, reference.loads, strict=True)
            ratio = f"{statistics.median(ours.rate / theirs.rate for ours, theirs in pairs):.2f}"
        rate, p50, p99 = (
            statistics.median(getattr(load, name) for load in server.loads) for name in ("rate", "p50_us", "p99_us")
        )
        cpu = [f"{seconds * 1e6:.1f}" for seconds in server.cpu_s] or ["-", "-"]
        print(
            f"{num_models:6} {body_kb:7.1f} {concurrency:5} {server.name:>8} {rate:8.0f} {ratio:>8} {p50:7.0f}"
            f" {p99:8.0f} {cpu[0]:>14} {cpu[1]:>13}",
            flush=True,
        )


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--run_s", type=float, default=0.5, help="seconds of one run")
    parser.add_argument("--concurrency", type=numbers, default=[1, 16, 64, 256])
    parser.add_argument("--bodies", type=numbers, default=[1, 20], help="images a request")
    parser.add_argument("--models", type=numbers, default=[1, 10, 100], help="models loaded")
    parser.add_argument("--servers", type=lambda text: text.split(","), default=["native", "grpcio", "echo", "nghttpd"])
    parser.add_argument("--reference", default="nghttpd", help="the server that rates are divided by")
    parser.add_argument("--flags", type=str.split, default=[], help="further flags of ours, in one word")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        base_path = make_softmax_model(path / "models")
        bodies = {count: h2load.write_body(path / f"body{count}", softmax_request(count)) for count in arguments.bodies}
        print(COLUMNS)
        for num_models in arguments.models:
            names = ["softmax", *(f"softmax_{number}" for number in range(1, num_models))]
            with contextlib.ExitStack() as stack:
                running = []
                for name in arguments.servers:
                    pids: tuple[int, ...] = ()
                    if name == "echo":
                        port = stack.enter_context(servers.echo_server())
                    elif name == "nghttpd":
                        port = stack.enter_context(servers.nghttpd(path))
                    else:
                        edge = "grpcio" if name == "grpcio" else "native"
                        flags = [f"--grpc_edge={edge}", *arguments.flags]
                        if name == "sent":
                            flags.append("--shared_memory_mb=0")
                        if name == "tls":
                            flags.append(f"--ssl_config_file={write_ssl_config(path / 'ssl')}")
                        port, _, gateway = stack.enter_context(
                            servers.model_server(dict.fromkeys(names, base_path), *flags)
                        )
                        pids = (gateway.pid, servers.child_pids(gateway.pid)[0])
                    running.append(Server(name, port, pids))
                for count, body in bodies.items():
                    for concurrency in arguments.concurrency:
                        measure(running, body, count, concurrency, arguments.rounds, arguments.run_s)
                        show(running, num_models, body.stat().st_size / 1000, concurrency, arguments.reference)
                for server in running:
                    if server.pids:
                        resident = [servers.resident_mb(pid) for pid in server.pids]
                        print(f"{server.name}: gateway {resident[0]:.0f} MB, worker {resident[1]:.0f} MB resident")


if __name__ == "__main__":
    main()
