"""Resident memory of gateway and worker, and the time from start to the first answer.

  python tests/benchmarks/footprint.py [--runs 5]

The tutorial's softmax model with untrained weights. The first answer is that of a gRPC Predict, asked again every
10 ms from the moment the server is started; memory is read after 200 further requests.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import grpc
import servers
from softmax import METHOD, make_softmax_model, softmax_request


def first_answer_s(port: int, request: bytes, deadline_s: float) -> None:
    """Returns when the server has answered the request."""
    while time.monotonic() < deadline_s:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            try:
                channel.unary_unary(METHOD)(request, timeout=5)
            except grpc.RpcError:
                time.sleep(0.01)
            else:
                return
    raise RuntimeError("no answer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    starts, gateways, workers = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        base_path = make_softmax_model(pathlib.Path(folder))
        for _ in range(arguments.runs):
            port = servers.free_port()
            command = [sys.executable, "-m", "tensorgate.gateway.main", f"--port={port}", "--log_level=error"]
            command += [
                "--model_name=softmax",
                f"--model_base_path={base_path}",
                f"--rest_api_port={servers.free_port()}",
            ]
            began = time.monotonic()
            with subprocess.Popen(command, stderr=subprocess.DEVNULL) as gateway:
                try:
                    first_answer_s(port, softmax_request(), began + 60)
                    starts.append(time.monotonic() - began)
                    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                        for _ in range(200):
                            channel.unary_unary(METHOD)(softmax_request(), timeout=5)
                    gateways.append(servers.resident_mb(gateway.pid))
                    workers.append(servers.resident_mb(servers.child_pids(gateway.pid)[0]))
                finally:
                    gateway.terminate()
    print(f"start to first answer: median {statistics.median(starts):.2f} s, worst {max(starts):.2f} s")
    print(f"resident: gateway {statistics.median(gateways):.0f} MB, worker {statistics.median(workers):.0f} MB")


if __name__ == "__main__":
    main()
