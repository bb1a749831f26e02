"""Writes SavedModels with ops that TensorFlow does not have; run in a child process, since it imports TensorFlow.

  python make_models_of_ops.py OUT_DIR [LIBRARY]

Made: with a LIBRARY, which is triple_op.c compiled, OUT_DIR/triple/1, whose y is three times x by an op of its own; and
without one OUT_DIR/tokens/1, which splits text into words by tensorflow-text.
"""

import os
import pathlib
import sys
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import tensorflow as tf


def triple(path: pathlib.Path, library: str) -> None:
    ops = tf.load_op_library(library)
    module = tf.Module()
    module.run = tf.function(
        lambda x: {"y": ops.tensorgate_triple(x)}, input_signature=[tf.TensorSpec([None], tf.float32, "x")]
    )
    tf.saved_model.save(module, str(path / "1"), signatures=module.run)


def tokens(path: pathlib.Path) -> None:
    import tensorflow_text

    tokenizer = tensorflow_text.WhitespaceTokenizer()

    def run(text: Any) -> Any:
        return {"tokens": tokenizer.tokenize(text).to_tensor("")}

    module = tf.Module()
    module.run = tf.function(run, input_signature=[tf.TensorSpec([None], tf.string, "text")])
    tf.saved_model.save(module, str(path / "1"), signatures=module.run)


if __name__ == "__main__":
    out = pathlib.Path(sys.argv[1])
    if len(sys.argv) > 2:
        triple(out / "triple", sys.argv[2])
    else:
        tokens(out / "tokens")
