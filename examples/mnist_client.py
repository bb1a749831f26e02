#!/usr/bin/env python
"""Sends MNIST test images to a server of the tutorial's model and prints its error rate.

    mnist_client.py --num_tests=1000 --server=localhost:9000 [--concurrency=1] [--work_dir=z]

Requests are sent asynchronously, at most --concurrency of them in flight. How a request is built, sent and counted is
written down in tensorgate/gateway/cli/mnist_client.py. No TensorFlow is needed, nor imported.
Needs tensorgate's extra examples: pip install 'tensorgate[examples]', or in a clone pip install '.[examples]'
"""

import argparse
import sys

import grpc
from rich.progress import Progress

from tensorgate.gateway.cli.mnist_client import InferenceResult, run_inference
from tensorgate.gateway.cli.mnist_data import Digits, load_mnist, mnist_files_in
from tensorgate.protos.status_codes import ServingError


def main() -> int:
    parser = argparse.ArgumentParser(description="Query a server of the MNIST model and print its error rate.")
    parser.add_argument("--server", required=True, help="host:port of the server's gRPC API")
    parser.add_argument("--num_tests", type=int, default=100, help="number of test images to send")
    parser.add_argument("--concurrency", type=int, default=1, help="most requests in flight at a time")
    parser.add_argument("--work_dir", default="/tmp", help="folder looked into for the original MNIST files")
    parser.add_argument("--data_dir", help="folder that must hold the original MNIST files; default: embedded images")
    options = parser.parse_args()
    if options.concurrency < 1:
        parser.error("--concurrency must be at least 1")

    try:
        test = load_mnist(options.data_dir or mnist_files_in(options.work_dir)).test
        if not 1 <= options.num_tests <= len(test):
            parser.error(f"--num_tests must be 1 to {len(test)}, the number of test images")
        digits = Digits(test.pixels[: options.num_tests], test.labels[: options.num_tests])
        result = query(options.server, digits, options.concurrency)
    except ServingError as error:
        print(f"mnist_client.py: {options.server}: {error}", file=sys.stderr)
        return 1
    print(f"Inference error rate: {result.error_rate:.1%}")
    print(f"{result.requests_per_s:.0f} requests/s")
    return 0


def query(server: str, digits: Digits, concurrency: int) -> InferenceResult:
    """Asks ``server`` about all ``digits`` while a bar shows how far it is."""
    with grpc.insecure_channel(server) as channel, Progress() as progress:
        images = progress.add_task("Images", total=len(digits))
        return run_inference(channel, digits, concurrency=concurrency, on_reply=lambda _right: progress.advance(images))


if __name__ == "__main__":
    sys.exit(main())
