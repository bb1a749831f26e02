"""What one Predict costs the worker, from request bytes to response bytes, without any transport.

  python tests/benchmarks/worker_cost.py [--runs 20000]

One thread, the tutorial's softmax model and one image a request; also the time inside TF_SessionRun alone.
"""

import argparse
import os
import pathlib
import statistics
import tempfile
import time

from softmax import make_softmax_model, softmax_request

from tensorgate._native.execution_pool import PREDICT, run_once
from tensorgate._native.tf_c_api import load_library
from tensorgate.workers.saved_model import open_saved_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20000)
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    print("TensorFlow", load_library())
    with tempfile.TemporaryDirectory() as folder:
        base_path = make_softmax_model(pathlib.Path(folder))
        session = open_saved_model(str(base_path / "1"), 1, ["serve"], b"")
    payload = softmax_request()
    for _ in range(200):
        assert run_once(session, PREDICT, payload)[0] == 0
    totals, runs = [], []
    for _ in range(arguments.runs):
        began = time.perf_counter_ns()
        run_us = run_once(session, PREDICT, payload)[3]
        totals.append((time.perf_counter_ns() - began) / 1000)
        runs.append(run_us)
    session.close()
    print(f"decode to encode: median {statistics.median(totals):.1f} µs, mean {statistics.mean(totals):.1f} µs")
    print(f"of it in TF_SessionRun: median {statistics.median(runs):.0f} µs")


if __name__ == "__main__":
    main()
