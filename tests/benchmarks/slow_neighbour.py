"""How long a fast model's answers take at rest, and while a model beside it runs for seconds.

  python tests/benchmarks/slow_neighbour.py [--rounds 5] [--slow_s 2] [--slow_clients 4] [--concurrency 4]

One server, one worker: the tutorial's softmax model under load, and clients that keep the slow model running all the
time. Rounds alternate. On a machine of two cores the slow model's runs take processor time from everybody else, the
load generator included: what is left is what sharing costs; waiting for a run to end would show as seconds. Needs
h2load.
"""

import argparse
import pathlib
import statistics
import tempfile
import threading

import grpc
import h2load
import servers
from softmax import METHOD, answer_size, make_softmax_model, softmax_request

from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictRequest


def slow_request(run_s: float) -> bytes:
    request = PredictRequest()
    request.model_spec.name = "slow"
    request.inputs["rounds"].dtype = types_pb2.DT_INT32
    request.inputs["rounds"].int_val.append(int(run_s * 1000))
    return request.SerializeToString()


class SlowClients:
    """Threads that ask the slow model again and again between ``start`` and ``stop``."""

    def __init__(self, port: int, count: int, run_s: float) -> None:
        self.num_answers = 0
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(port, slow_request(run_s))) for _ in range(count)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, port: int, request: bytes) -> None:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            while not self._stopping.is_set():
                channel.unary_unary(METHOD)(request, timeout=120)
                self.num_answers += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slow_s", type=float, default=2.0, help="about how long one run of the slow model takes")
    parser.add_argument("--slow_clients", type=int, default=4)
    parser.add_argument("--concurrency", type=int, choices=sorted(h2load.SHAPES), default=16)
    parser.add_argument("--requests", type=int, default=20000, help="a round")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        base_path = make_softmax_model(path / "models")
        body = h2load.write_body(path / "body", softmax_request())
        base_paths = {"softmax": base_path, "slow": base_path.parent / "slow"}
        with servers.model_server(base_paths) as (port, _, _):

            def load() -> h2load.Load:
                return h2load.run(port, METHOD, body, arguments.concurrency, arguments.requests, answer_size())

            load()
            at_rest, beside = [], []
            for _ in range(arguments.rounds):
                at_rest.append(load())
                clients = SlowClients(port, arguments.slow_clients, arguments.slow_s)
                clients.start()
                beside.append(load())
                clients.stop()
                print(f"the slow model has answered {clients.num_answers} times meanwhile")
            for name, loads in (("at rest", at_rest), ("beside", beside)):
                rate, p50, p99 = (
                    statistics.median(getattr(each, field) for each in loads) for field in ("rate", "p50_us", "p99_us")
                )
                print(f"{name:>8}: {rate:.0f}/s, p50 {p50:.0f} µs, p99 {p99:.0f} µs")


if __name__ == "__main__":
    main()
