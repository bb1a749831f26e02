#!/usr/bin/env python
"""Trains a softmax model on MNIST and exports it for serving: the first step of the tutorial.

    mnist_saved_model.py [--training_iteration=x] [--model_version=y] [--work_dir=z] export_dir

The model goes to export_dir/<model_version>. The graph, its training and its two signatures are written down in
tensorgate/gateway/cli/mnist_export.py, which `tensorgate demo` uses as well.
Needs the extras cpu and examples: pip install 'tensorgate[cpu,examples]', or in a clone pip install '.[cpu,examples]'
"""

import argparse
import sys

from tensorgate.gateway.cli.mnist_data import load_mnist, mnist_files_in
from tensorgate.gateway.cli.mnist_export import train_and_export
from tensorgate.protos.status_codes import ServingError


def main() -> int:
    parser = argparse.ArgumentParser(description="Train a softmax model on MNIST and export it for serving.")
    parser.add_argument("export_dir", help="base path of the model; the version becomes a folder in it")
    parser.add_argument("--training_iteration", type=int, default=1000, help="number of training steps")
    parser.add_argument("--model_version", type=int, default=1, help="version number of the model")
    parser.add_argument("--work_dir", default="/tmp", help="folder looked into for the original MNIST files")
    parser.add_argument("--data_dir", help="folder that must hold the original MNIST files; default: embedded images")
    options = parser.parse_args()

    def show(step: int) -> None:
        print(f"\rTraining: step {step} of {options.training_iteration}", end="", flush=True)

    try:
        mnist = load_mnist(options.data_dir or mnist_files_in(options.work_dir))
        print(f"{len(mnist.train)} images to train on, {len(mnist.test)} to test with")
        error_rate = train_and_export(
            mnist, options.export_dir, options.model_version, options.training_iteration, show
        )
    except ServingError as error:
        print(f"mnist_saved_model.py: {error.message}", file=sys.stderr)
        return 1
    print(f"\nError rate after training: {error_rate:.2%}")
    print(f"Exported to {options.export_dir.rstrip('/')}/{options.model_version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
