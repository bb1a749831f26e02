"""REST predict (the tutorial's softmax model) beside a bare uvicorn server that echoes the same body, in one table.

  python tests/benchmarks/rest.py [--rounds 5] [--run_s 2] [--concurrency 16,64] [--images 1,192]

Servers: json and protobuf are ours, with the two content types a predict may have; echo is uvicorn (httptools, uvloop)
with an ASGI application that answers with the body it got, the JSON one. An image is 784 floats, so 192 of them are
150,528, as many as a picture of 224 x 224 x 3 has. Load generator and servers share the machine; rounds go through the
servers in turn. Rates, p50 and p99 are medians over the rounds, and so is the ratio of a server's rate to the echo's in
the same round. CPU times are per request. Needs wrk and TensorFlow.
"""

import argparse
import contextlib
import dataclasses
import json
import pathlib
import statistics
import tempfile
from collections.abc import Mapping

import servers
import wrk
from softmax import make_softmax_model, softmax_request

PATH = "/v1/models/softmax:predict"
PROTOBUF = {"Content-Type": "application/x-protobuf"}
COLUMNS = (
    f"{'floats':>7} {'body KB':>7} {'conc.':>5} {'server':>9} {'rate/s':>8} {'/echo':>6} {'p50 µs':>8} {'p99 µs':>8}"
    f" {'gateway CPU µs':>14} {'worker CPU µs':>13}"
)


@dataclasses.dataclass(slots=True)
class Server:
    """A server under measurement. ``pids``: gateway and worker, if it is ours."""

    name: str
    port: int
    body: pathlib.Path
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    pids: tuple[int, ...] = ()
    loads: list[wrk.Load] = dataclasses.field(default_factory=list)
    cpu_us: list[list[float]] = dataclasses.field(default_factory=list)

    def measure(self, concurrency: int, run_s: int) -> None:
        before = [servers.cpu_s(pid) for pid in self.pids]
        load = wrk.run(self.port, PATH, self.body, concurrency, run_s, self.headers)
        self.loads.append(load)
        spent_s = [servers.cpu_s(pid) - start for pid, start in zip(self.pids, before, strict=True)]
        self.cpu_us.append([seconds * 1e6 / (load.rate * run_s) for seconds in spent_s])


def json_body(num_images: int) -> bytes:
    images = [[round(i / 784, 6) for i in range(784)]] * num_images
    return json.dumps({"signature_name": "predict_images", "instances": images}).encode()


def show(running: list[Server], num_floats: int, concurrency: int) -> None:
    echo = running[-1]
    for server in running:
        pairs = zip(server.loads, echo.loads, strict=True)
        ratio = statistics.median(ours.rate / theirs.rate for ours, theirs in pairs)
        rate, p50, p99 = (
            statistics.median(getattr(load, name) for load in server.loads) for name in ("rate", "p50_us", "p99_us")
        )
        cpu = [f"{statistics.median(each):.1f}" for each in zip(*server.cpu_us, strict=True)] or ["-", "-"]
        size_kb = server.body.stat().st_size / 1000
        print(
            f"{num_floats:7} {size_kb:7.1f} {concurrency:5} {server.name:>9} {rate:8.0f} {ratio:6.2f} {p50:8.0f} "
            f"{p99:8.0f} {cpu[0]:>14} {cpu[1]:>13}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--run_s", type=int, default=2)
    parser.add_argument("--concurrency", default="16,64")
    parser.add_argument("--images", default="1,192")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = pathlib.Path(name)
        base_path = make_softmax_model(folder / "models")
        echo_port = stack.enter_context(servers.asgi_echo_server())
        _, port, gateway = stack.enter_context(servers.model_server({"softmax": base_path}))
        pids = (gateway.pid, *servers.child_pids(gateway.pid))
        print(COLUMNS)
        for num_images in map(int, arguments.images.split(",")):
            (text := folder / f"{num_images}.json").write_bytes(json_body(num_images))
            (binary := folder / f"{num_images}.pb").write_bytes(softmax_request(num_images))
            # Large requests take long, and one that has not ended in time is not counted.
            run_s = arguments.run_s if num_images == 1 else 4 * arguments.run_s
            for concurrency in map(int, arguments.concurrency.split(",")):
                running = [
                    Server("json", port, text, pids=pids),
                    Server("protobuf", port, binary, PROTOBUF, pids),
                    Server("echo", echo_port, text),
                ]
                for server in running:
                    server.measure(concurrency, run_s)  # not counted: the first runs optimise the graph
                    server.loads.clear()
                    server.cpu_us.clear()
                for _ in range(arguments.rounds):
                    for server in running:
                        server.measure(concurrency, run_s)
                show(running, num_images * 784, concurrency)


if __name__ == "__main__":
    main()
