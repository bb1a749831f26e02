"""Trains the tutorial's softmax model on MNIST and exports it as a version that the server can load.

The one module here that imports TensorFlow, and only inside its functions: it runs in a process of its own
(``python -m tensorgate.gateway.cli.mnist_export``, started by the demo; examples/mnist_saved_model.py), never in the
gateway's. As a program it reports its progress as lines of JSON on stdout, which ``demo`` reads.

Source: the model and signatures of TensorFlow Serving's tutorial "Serving a TensorFlow Model".
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tensorgate.gateway.cli.extras import INSTALL_EXAMPLES
from tensorgate.gateway.cli.mnist_data import NUM_PIXELS, Digits, Mnist, load_mnist
from tensorgate.protos.status_codes import Code, ServingError

NUM_CLASSES = 10
BATCH_SIZE = 50
LEARNING_RATE = 0.01

# Progress is told so many times in a training, whatever its length.
_NUM_REPORTS = 50
_BATCH_ORDER_SEED = 1

Progress = Callable[[int], None]
"""Told the number of training steps done so far."""


def train_and_export(
    mnist: Mnist, export_base_path: str, model_version: int, training_iteration: int, progress: Progress
) -> float:
    """Trains for ``training_iteration`` batches, writes ``<export_base_path>/<model_version>``, returns the error rate.

    The rate is the share of ``mnist.test`` that TensorFlow itself gets wrong. The version's folder appears complete, by
    a rename, so that a server polling the base path never sees half of it. Blocks for seconds. Raises ServingError:
    ALREADY_EXISTS where the version is there, INVALID_ARGUMENT for a number that cannot be, FAILED_PRECONDITION where
    TensorFlow is not installed.
    """
    if training_iteration < 1:
        raise ServingError(Code.INVALID_ARGUMENT, f"--training_iteration must be at least 1; got {training_iteration}")
    if model_version < 1:
        raise ServingError(Code.INVALID_ARGUMENT, f"--model_version must be at least 1; got {model_version}")
    version_path = Path(export_base_path, str(model_version))
    if version_path.exists():
        raise ServingError(
            Code.ALREADY_EXISTS, f"{version_path} is already there: remove it or export another --model_version"
        )
    tf = _import_tensorflow()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        model = _SoftmaxModel(tf)
        session.run([tf.compat.v1.global_variables_initializer(), tf.compat.v1.tables_initializer()])
        model.train(session, mnist.train, training_iteration, progress)
        error_rate = model.error_rate(session, mnist.test)
        # Not a number, so a server that looks into the base path now passes over it.
        unfinished_path = version_path.with_name(f"unfinished-{model_version}-{os.getpid()}")
        try:
            model.save(session, str(unfinished_path))
            unfinished_path.rename(version_path)
        finally:
            shutil.rmtree(unfinished_path, ignore_errors=True)  # there is none after the rename
    return error_rate


def _import_tensorflow() -> ModuleType:
    # Its start-up notes on CPU features would drown the output; errors still show.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import tensorflow  # noqa: PLC0415  (this module is imported where TensorFlow is not)
    except ImportError as error:
        raise ServingError(
            Code.FAILED_PRECONDITION, f"TensorFlow cannot be imported ({error}); {INSTALL_EXAMPLES}"
        ) from error
    module: ModuleType = tensorflow
    module.get_logger().setLevel(
        "ERROR"
    )  # graph mode is deprecated, and meant: the tutorial's SavedModel has this form
    return module


class _SoftmaxModel:
    """The graph: one layer from pixels to ten scores, reached from raw pixels and from serialized examples.

    Built in the current default graph of ``tf``, the module tensorflow, whose objects are untyped.
    """

    def __init__(self, tf: ModuleType) -> None:
        self._tf = tf
        v1 = tf.compat.v1
        self._weights = v1.get_variable("w", [NUM_PIXELS, NUM_CLASSES], tf.float32, tf.zeros_initializer())
        self._bias = v1.get_variable("b", [NUM_CLASSES], tf.float32, tf.zeros_initializer())

        self._images = v1.placeholder(tf.float32, [None, NUM_PIXELS], name="images")
        logits = self._logits(self._images)
        self._scores = tf.nn.softmax(logits, name="scores")

        self._labels = v1.placeholder(tf.int64, [None], name="labels")
        # Summed over the batch, not averaged: the learning rate is meant for this.
        loss = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=self._labels, logits=logits))
        self._train_step = v1.train.GradientDescentOptimizer(LEARNING_RATE).minimize(loss)
        wrong = tf.not_equal(tf.argmax(logits, axis=1), self._labels)
        self._error_rate = tf.reduce_mean(tf.cast(wrong, tf.float32))

        self._examples = v1.placeholder(tf.string, [None], name="tf_example")
        features = tf.io.parse_example(self._examples, {"x": tf.io.FixedLenFeature([NUM_PIXELS], tf.float32)})
        example_scores = tf.nn.softmax(self._logits(features["x"]))
        self._class_scores, class_ids = tf.nn.top_k(example_scores, NUM_CLASSES)
        index_to_string = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(
                tf.range(NUM_CLASSES, dtype=tf.int64), tf.constant([str(digit) for digit in range(NUM_CLASSES)])
            ),
            default_value="UNKNOWN",
        )
        self._classes = index_to_string.lookup(tf.cast(class_ids, tf.int64))

    def _logits(self, pixels: Any) -> Any:
        return self._tf.matmul(pixels, self._weights) + self._bias

    def train(self, session: Any, digits: Digits, num_steps: int, progress: Progress) -> None:
        """Runs ``num_steps`` steps of gradient descent over mixed batches of ``digits``."""
        random = np.random.default_rng(_BATCH_ORDER_SEED)
        batch_size = min(BATCH_SIZE, len(digits))
        report_every = max(num_steps // _NUM_REPORTS, 1)
        order = random.permutation(len(digits))
        start = 0
        for step in range(1, num_steps + 1):
            if start + batch_size > len(digits):
                order, start = random.permutation(len(digits)), 0
            batch = order[start : start + batch_size]
            start += batch_size
            session.run(self._train_step, {self._images: digits.pixels[batch], self._labels: digits.labels[batch]})
            if step % report_every == 0 or step == num_steps:
                progress(step)

    def error_rate(self, session: Any, digits: Digits) -> float:
        """The share of ``digits`` whose highest score is another digit's."""
        return float(session.run(self._error_rate, {self._images: digits.pixels, self._labels: digits.labels}))

    def save(self, session: Any, path: str) -> None:
        """Writes the SavedModel with the tutorial's two signatures into the new folder ``path``."""
        saved_model = self._tf.compat.v1.saved_model
        predict_images = saved_model.predict_signature_def({"images": self._images}, {"scores": self._scores})
        classify = saved_model.classification_signature_def(self._examples, self._classes, self._class_scores)
        builder = saved_model.Builder(path)
        builder.add_meta_graph_and_variables(
            session,
            [self._tf.saved_model.SERVING],
            signature_def_map={
                "predict_images": predict_images,
                self._tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY: classify,
            },
            main_op=self._tf.compat.v1.tables_initializer(),
            strip_default_attrs=True,
        )
        builder.save()


def main(arguments: Sequence[str] | None = None) -> int:
    """The program the demo starts; see ``demo`` for the lines it prints."""
    parser = argparse.ArgumentParser(prog="mnist_export", allow_abbrev=False)
    parser.add_argument("export_base_path")
    parser.add_argument("--training_iteration", type=int, default=1000)
    parser.add_argument("--model_version", type=int, default=1)
    parser.add_argument("--data_dir")
    options = parser.parse_args(arguments)
    try:
        error_rate = train_and_export(
            load_mnist(options.data_dir),
            options.export_base_path,
            options.model_version,
            options.training_iteration,
            lambda step: _print_line({"step": step}),
        )
    except ServingError as error:
        _print_line({"error": error.message})
        return 1
    _print_line({"error_rate": error_rate})
    return 0


def _print_line(report: dict[str, object]) -> None:
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    sys.exit(main())
