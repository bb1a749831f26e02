"""gRPC Predict (the tutorial's softmax model, one image a request) beside a grpcio aio echo server, in one run.

  python tests/benchmarks/predict_rate.py [--rounds 5] [--requests 8000]

Servers and the load generator share the machine; rounds alternate between the servers, and the ratio is the median of
the pairs. Needs h2load and TensorFlow.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
import tempfile

import h2load
import servers

from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

METHOD = "/tensorflow.serving.PredictionService/Predict"
MAKE_MODELS = pathlib.Path(__file__).parents[1] / "saved_models" / "make_models.py"


def softmax_request() -> bytes:
    """One image for the softmax model, a PredictRequest of 3.2 KB."""
    request = PredictRequest()
    request.model_spec.name = "softmax"
    request.model_spec.signature_name = "predict_images"
    images = request.inputs["images"]
    images.dtype = types_pb2.DT_FLOAT
    images.tensor_shape.dim.add(size=1)
    images.tensor_shape.dim.add(size=784)
    images.float_val.extend(i / 784 for i in range(784))
    return request.SerializeToString()


def answer_size() -> int:
    """Bytes of the right answer: ten scores and the echoed model_spec."""
    response = PredictResponse()
    scores = response.outputs["scores"]
    scores.dtype = types_pb2.DT_FLOAT
    scores.tensor_shape.dim.add(size=1)
    scores.tensor_shape.dim.add(size=10)
    scores.float_val.extend([0.1] * 10)
    response.model_spec.name = "softmax"
    response.model_spec.version.value = 1
    response.model_spec.signature_name = "predict_images"
    return response.ByteSize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=8000, help="a round, at concurrency 16 and more")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        subprocess.run([sys.executable, str(MAKE_MODELS), folder], check=True, stderr=subprocess.DEVNULL)
        body = h2load.write_body(path / "body", softmax_request())
        echo_bytes = len(softmax_request())
        with (
            servers.echo_server() as echo_port,
            servers.model_server("softmax", path / "softmax") as (port, _, gateway),
        ):
            (worker,) = servers.child_pids(gateway.pid)
            print(
                f"{'concurrency':>11} {'echo/s':>9} {'tensorgate/s':>13} {'ratio':>6} {'mean µs':>9}"
                f" {'gateway CPU µs':>15} {'worker CPU µs':>14}"
            )
            for concurrency in (1, 16, 64):
                count = arguments.requests if concurrency > 1 else arguments.requests // 4
                # Warm-up, not counted: first runs optimise the graph.
                h2load.run(port, METHOD, body, concurrency, 500, answer_size())
                h2load.run(echo_port, METHOD, body, concurrency, 500, echo_bytes)
                echo, ours = [], []
                before = servers.cpu_s(gateway.pid), servers.cpu_s(worker)
                for _ in range(arguments.rounds):
                    echo.append(h2load.run(echo_port, METHOD, body, concurrency, count, echo_bytes))
                    ours.append(h2load.run(port, METHOD, body, concurrency, count, answer_size()))
                total = count * arguments.rounds
                used = [
                    (now - then) / total * 1e6
                    for now, then in zip((servers.cpu_s(gateway.pid), servers.cpu_s(worker)), before, strict=True)
                ]
                ratio = statistics.median(o.rate / e.rate for o, e in zip(ours, echo, strict=True))
                print(
                    f"{concurrency:11} {statistics.median(e.rate for e in echo):9.0f}"
                    f" {statistics.median(o.rate for o in ours):13.0f} {ratio:6.2f}"
                    f" {statistics.median(o.mean_us for o in ours):9.0f} {used[0]:15.0f} {used[1]:14.0f}"
                )
            resident = servers.resident_mb(gateway.pid), servers.resident_mb(worker)
            print("resident: gateway {:.0f} MB, worker {:.0f} MB".format(*resident))


if __name__ == "__main__":
    main()
