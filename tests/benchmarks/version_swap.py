"""What a version change costs a model beside it, and whether the memory comes back, for each isolation of workers.

  python tests/benchmarks/version_swap.py [--cycles 30] [--megabytes 200] [--isolation device,version]

One server with the tutorial's softmax model, asked by one client at a steady rate, and a big model whose versions
follow each other. Times are of the client's requests: at rest, from the moment a new version begins to load until it
serves, and from then until the old one is gone. Memory is that of the gateway and of all workers together when the old
version has gone. Other work on the machine shows in all of them alike.
"""

import argparse
import http.client
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence

import grpc
import servers
from softmax import METHOD, make_softmax_model, softmax_request

INTERVAL_S = 0.005
REST_S = 10.0
POLL_S = 0.02

MAKE_BIG_MODEL = """
import sys
import tensorflow as tf

class Big(tf.Module):
    def __init__(self, num_parts):
        self.parts = [tf.Variable(tf.random.stateless_normal([500, 500], [1, part])) for part in range(num_parts)]

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32)])
    def serve(self, x):
        return {"y": x + tf.add_n([part[0, 0] for part in self.parts])}

big = Big(int(sys.argv[2]))
tf.saved_model.save(big, sys.argv[1], signatures={"serving_default": big.serve})
"""


class Client:
    """Asks the small model every few milliseconds; ``take`` gives the times since the last call, in ms."""

    def __init__(self, port: int) -> None:
        self.num_failed = 0
        self._times_ms: list[float] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(port,))

    def __enter__(self) -> "Client":
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stopping.set()
        self._thread.join()

    def take(self) -> list[float]:
        times, self._times_ms = self._times_ms, []
        return times

    def _run(self, port: int) -> None:
        request = softmax_request()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            predict = channel.unary_unary(METHOD)
            while not self._stopping.wait(INTERVAL_S):
                began = time.monotonic()
                try:
                    predict(request, timeout=30)
                except grpc.RpcError:
                    self.num_failed += 1
                self._times_ms.append((time.monotonic() - began) * 1e3)


def states(rest_port: int) -> dict[int, str]:
    """Of the big model's versions."""
    connection = http.client.HTTPConnection("127.0.0.1", rest_port, timeout=30)
    connection.request("GET", "/v1/models/big")
    document = json.load(connection.getresponse())
    connection.close()
    return {int(each["version"]): each["state"] for each in document["model_version_status"]}


def wait_for(rest_port: int, version: int, *wanted: str) -> None:
    deadline = time.monotonic() + 120
    while states(rest_port).get(version) not in wanted:
        if time.monotonic() > deadline:
            raise RuntimeError(f"version {version} is not {wanted} after 120 s")
        time.sleep(POLL_S)


def memory_mb(pid: int) -> tuple[float, float]:
    """Of the gateway, and of all its workers."""
    workers = 0.0
    for child in servers.child_pids(pid):
        try:
            workers += servers.resident_mb(child)
        except (OSError, RuntimeError):  # it ended just now
            continue
    return servers.resident_mb(pid), workers


def show(isolation: str, name: str, times_ms: Sequence[float]) -> None:
    cuts = statistics.quantiles(times_ms, n=100)
    print(
        f"{isolation:8} {name:8} {len(times_ms):6} requests  p50 {cuts[49]:7.2f} ms  p99 {cuts[98]:7.2f} ms"
        f"  worst {max(times_ms):7.2f} ms",
        flush=True,
    )


def measure(isolation: str, small: pathlib.Path, version: pathlib.Path, folder: pathlib.Path, cycles: int) -> None:
    base_path = folder / isolation
    base_path.mkdir()
    place(version, base_path / "1")
    flags = (f"--worker_isolation={isolation}", "--file_system_poll_wait_seconds=1")
    with servers.model_server({"softmax": small, "big": base_path}, *flags) as (port, rest_port, server):
        with Client(port) as client:
            time.sleep(1)
            client.take()
            time.sleep(REST_S)
            rest, loading, unloading = client.take(), [], []
            memory = [memory_mb(server.pid)]
            load_s = []
            for number in range(2, cycles + 2):
                place(version, base_path / str(number))
                wait_for(rest_port, number, "LOADING", "AVAILABLE")
                client.take()
                began = time.monotonic()
                wait_for(rest_port, number, "AVAILABLE")
                load_s.append(time.monotonic() - began)
                loading += client.take()
                wait_for(rest_port, number - 1, "END")
                unloading += client.take()
                memory.append(memory_mb(server.pid))
        for name, times_ms in (("rest", rest), ("load", loading), ("unload", unloading)):
            show(isolation, name, times_ms)
        print(f"{isolation:8} {client.num_failed} requests failed; a load takes {statistics.median(load_s):.2f} s")
        for at in sorted({0, 1, cycles // 3, 2 * cycles // 3, cycles}):
            gateway, workers = memory[at]
            print(f"{isolation:8} memory after {at:3} cycles: gateway {gateway:.0f} MB, workers {workers:.0f} MB")


def place(version: pathlib.Path, path: pathlib.Path) -> None:
    """The version under another name, whole at once and without copying what it holds."""
    unseen = path.with_name(f".{path.name}")
    for folder, _, names in os.walk(version):
        there = unseen / pathlib.Path(folder).relative_to(version)
        there.mkdir(parents=True)
        for name in names:
            os.link(os.path.join(folder, name), there / name)
    unseen.rename(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=30)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--isolation", default="device,version")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        small = make_softmax_model(folder / "small")
        version = folder / "big"
        subprocess.run(
            [sys.executable, "-c", MAKE_BIG_MODEL, str(version), str(max(1, arguments.megabytes))],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        for isolation in arguments.isolation.split(","):
            measure(isolation, small, version, folder, arguments.cycles)


if __name__ == "__main__":
    main()
