"""Writes SavedModels of every kind that TensorFlow has made; run in a child process, since it imports TensorFlow.

  python make_model_kinds.py OUT_DIR

Made, each as OUT_DIR/NAME/00000123: upstream's test models half_plus_two and half_plus_three (TF1 builder, signatures
as an Estimator exports them: predict on tensors, classify and regress on serialized Examples) and half_plus_two_tf2;
save_one and save_several (tf.saved_model.save), sequential and distributed (Keras export, the latter of a model made
under a MirroredStrategy), lookup (a vocabulary file and a table), strings, shapes (variable sizes, unknown rank, scalar
outputs), defaults (signature defaults of TF1), state (variables and tables that requests change); and json_tensors,
which gives back what it takes, for the tests of JSON.
"""

import os
import pathlib
import sys
import warnings
from collections.abc import Mapping
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import tensorflow as tf

v1 = tf.compat.v1
PREDICT, CLASSIFY, REGRESS = (f"tensorflow/serving/{method}" for method in ("predict", "classify", "regress"))
VERSION = "00000123"


def signature(inputs: Mapping[str, Any], outputs: Mapping[str, Any], method: str) -> Any:
    info = v1.saved_model.utils.build_tensor_info
    return v1.saved_model.signature_def_utils.build_signature_def(
        {alias: info(tensor) for alias, tensor in inputs.items()},
        {alias: info(tensor) for alias, tensor in outputs.items()},
        method,
    )


def half_plus(path: pathlib.Path, addend: float) -> None:
    """y = x/2 + addend on tensors, and on Examples with x; y3 = x2/2 + 3 on Examples with x2."""
    with tf.Graph().as_default(), v1.Session() as session:
        serialized = v1.placeholder(tf.string, [None], name="tf_example")
        spec = {"x": tf.io.FixedLenFeature([1], tf.float32), "x2": tf.io.FixedLenFeature([1], tf.float32, [0.0])}
        parsed = v1.parse_example(serialized, spec)
        a, b, c = v1.Variable(0.5, name="a"), v1.Variable(addend, name="b"), v1.Variable(3.0, name="c")
        x = tf.identity(parsed["x"], name="x")
        y = tf.add(a * x, b, name="y")
        y3 = tf.add(a * parsed["x2"], c, name="y3")
        signatures = {
            "serving_default": signature({"x": x}, {"y": y}, PREDICT),
            "regress_x_to_y": signature({"inputs": serialized}, {"outputs": y}, REGRESS),
            "classify_x_to_y": signature({"inputs": serialized}, {"scores": y}, CLASSIFY),
            "regress_x2_to_y3": signature({"inputs": serialized}, {"outputs": y3}, REGRESS),
            "classify_x2_to_y3": signature({"inputs": serialized}, {"scores": y3}, CLASSIFY),
        }
        save_graph(path, session, signatures)


def save_graph(path: pathlib.Path, session: Any, signatures: Mapping[str, Any]) -> None:
    if v1.global_variables():
        session.run(v1.global_variables_initializer())
    builder = v1.saved_model.Builder(str(path / VERSION))
    builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=signatures)
    builder.save()


def defaults(path: pathlib.Path) -> None:
    """y = x * scale + offset, where scale is 2 and offset 1 unless they are given."""
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], name="x")
        scale, offset = (v1.placeholder(tf.float32, [], name=name) for name in ("scale", "offset"))
        default = signature({"x": x, "scale": scale, "offset": offset}, {"y": x * scale + offset}, PREDICT)
        default.defaults["scale"].CopyFrom(tf.make_tensor_proto(2.0, tf.float32))
        default.defaults["offset"].CopyFrom(tf.make_tensor_proto(1.0, tf.float32))
        save_graph(path, session, {"serving_default": default})


def json_tensors(path: pathlib.Path) -> None:
    """Identities of several dtypes; outputs that JSON cannot carry, or not by rows; Examples in base64 as labels."""
    with tf.Graph().as_default(), v1.Session() as session:
        signatures = {}
        for dtype in ("int32", "int64", "uint32", "float32", "float64", "string", "bool"):
            x = v1.placeholder(dtype, None, name=f"{dtype}_x")
            signatures[dtype] = signature({"x": x}, {"y": tf.identity(x)}, PREDICT)
        named = {
            alias: v1.placeholder(dtype, None, name=alias)
            for alias, dtype in (
                ("int_tensor", tf.int32), ("str_tensor", tf.string), ("float_tensor", tf.float32),
                ("double_tensor", tf.float64),
            )
        }  # fmt: skip
        signatures["named"] = signature(named, {alias: tf.identity(x) for alias, x in named.items()}, PREDICT)
        text = v1.placeholder(tf.string, None, name="text")
        signatures["bytes"] = signature({"x": text}, {"str_bytes": tf.identity(text)}, PREDICT)
        x = v1.placeholder(tf.float32, [None], name="x")
        nothing = x[:0]
        outputs = {
            "complex": {"y": tf.cast(x, tf.complex64)},
            "total": {"y": tf.reduce_sum(x)},
            "no_rows": {"y": nothing},
            "no_rows_twice": {"y": nothing, "z": tf.identity(nothing)},
            "uneven": {"y": tf.identity(x), "z": x[1:]},
            "no_outputs": {},
        }
        for name, each in outputs.items():
            signatures[name] = signature({"x": x}, each, PREDICT)
        examples = v1.placeholder(tf.string, [None], name="examples")
        shown = tf.expand_dims(tf.io.encode_base64(examples), 1)
        score = v1.parse_example(examples, {"score": tf.io.FixedLenFeature([], tf.float32, 0.0)})["score"]
        signatures["show_classify"] = signature(
            {"inputs": examples}, {"classes": shown, "scores": tf.expand_dims(score, 1)}, CLASSIFY
        )
        signatures["show_regress"] = signature({"inputs": examples}, {"outputs": tf.identity(score)}, REGRESS)
        save_graph(path, session, signatures)


class HalfPlusTwo(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
    """Upstream's model as TF2 saves it; the method names are put in afterwards."""

    def __init__(self) -> None:
        self.a = tf.Variable(0.5)
        self.b = tf.Variable(2.0)

    def _parsed(self, serialized: Any, name: str) -> Any:
        return tf.io.parse_example(serialized, {name: tf.io.FixedLenFeature([1], tf.float32)})[name]

    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32, "x")])
    def predict(self, x: Any) -> Any:
        return {"y": self.a * x + self.b}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "inputs")])
    def classify(self, inputs: Any) -> Any:
        return {"scores": self.a * self._parsed(inputs, "x") + self.b}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "inputs")])
    def regress(self, inputs: Any) -> Any:
        return {"outputs": self.a * self._parsed(inputs, "x") + self.b}


def half_plus_two_tf2(path: pathlib.Path) -> None:
    module = HalfPlusTwo()
    signatures = {
        "serving_default": module.predict,
        "classify_x_to_y": module.classify,
        "regress_x_to_y": module.regress,
    }
    tf.saved_model.save(module, str(path / VERSION), signatures=signatures)
    # TF2 writes the predict method into every signature; its own tool for this is upstream's, too.
    updater = v1.saved_model.signature_def_utils.MethodNameUpdater(str(path / VERSION))
    updater.replace_method_name(signature_key="classify_x_to_y", method_name=CLASSIFY, tags="serve")
    updater.replace_method_name(signature_key="regress_x_to_y", method_name=REGRESS, tags="serve")
    updater.save()


class Product(tf.Module):  # type: ignore[misc]
    """y = 3 * 2 * x."""

    def __init__(self) -> None:
        self.v1 = tf.Variable(3.0)
        self.v2 = tf.Variable(2.0)

    @tf.function(input_signature=[tf.TensorSpec(None, tf.float32, "x")])
    def run(self, x: Any) -> Any:
        return {"y": self.v1 * self.v2 * x}


def save_one(path: pathlib.Path) -> None:
    module = Product()
    tf.saved_model.save(module, str(path / VERSION), signatures=module.run)


def save_several(path: pathlib.Path) -> None:
    module = tf.Module()
    scalar = [tf.TensorSpec([1], tf.float32, "x")]
    module.once = tf.function(lambda x: {"y": x / 2.0}, input_signature=scalar)
    module.twice = tf.function(lambda x: {"y": x, "z": x * 2.0}, input_signature=scalar)
    signatures = {"serving_default": module.once, "custom_signature_key": module.twice}
    tf.saved_model.save(module, str(path / VERSION), signatures=signatures)


def sequential_model() -> Any:
    layers = [
        tf.keras.Input(shape=(1,), name="x"),
        tf.keras.layers.Dense(1, kernel_initializer="ones", bias_initializer="zeros", name="y"),
    ]
    return tf.keras.Sequential(layers)


def sequential(path: pathlib.Path) -> None:
    sequential_model().export(str(path / VERSION), verbose=False)


def distributed(path: pathlib.Path) -> None:
    with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
        model = sequential_model()
    model.export(str(path / VERSION), verbose=False)


class Lookup(tf.Module):  # type: ignore[misc]
    """From words to their line in a vocabulary file, which the SavedModel carries as an asset; -1 for others."""

    def __init__(self, vocabulary: pathlib.Path) -> None:
        self.vocabulary = tf.saved_model.Asset(str(vocabulary))
        lines = tf.lookup.TextFileInitializer(
            self.vocabulary,
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        self.table = tf.lookup.StaticHashTable(lines, -1)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "words")])
    def run(self, words: Any) -> Any:
        return {"ids": self.table.lookup(words)}


def lookup(path: pathlib.Path) -> None:
    vocabulary = path.parent / "vocabulary.txt"
    vocabulary.write_text("the\nquick\nbrown\nfox\n", encoding="utf-8")
    module = Lookup(vocabulary)
    tf.saved_model.save(module, str(path / VERSION), signatures=module.run)


class Strings(tf.Module):  # type: ignore[misc]
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
    def run(self, text: Any) -> Any:
        return {"joined": "<" + text + ">", "raw_bytes": text, "length": tf.strings.length(text)}


def strings(path: pathlib.Path) -> None:
    module = Strings()
    tf.saved_model.save(module, str(path / VERSION), signatures=module.run)


class Shapes(tf.Module):  # type: ignore[misc]
    """Inputs of any size, or any rank; what their shape is comes out."""

    @tf.function(input_signature=[tf.TensorSpec([None, None, 2], tf.float32, "x")])
    def variable(self, x: Any) -> Any:
        return {"y": x * 2.0, "shape": tf.shape(x)}

    @tf.function(input_signature=[tf.TensorSpec(None, tf.float32, "x")])
    def any_rank(self, x: Any) -> Any:
        return {"y": tf.negative(x), "rank": tf.rank(x)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def total(self, x: Any) -> Any:
        return {"sum": tf.reduce_sum(x)}


def shapes(path: pathlib.Path) -> None:
    module = Shapes()
    signatures = {"serving_default": module.variable, "any_rank": module.any_rank, "total": module.total}
    tf.saved_model.save(module, str(path / VERSION), signatures=signatures)


class State(tf.Module):  # type: ignore[misc]
    """Counts in a variable, and keeps words in a table of resources."""

    def __init__(self) -> None:
        self.count = tf.Variable(0, dtype=tf.int64)
        self.table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)

    @tf.function(input_signature=[tf.TensorSpec([], tf.int64, "by")])
    def add(self, by: Any) -> Any:
        return {"count": self.count.assign_add(by)}

    @tf.function(input_signature=[])
    def get(self) -> Any:
        return {"count": self.count.read_value()}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "keys"), tf.TensorSpec([None], tf.int64, "values")])
    def put(self, keys: Any, values: Any) -> Any:
        self.table.insert(keys, values)
        return {"values": self.table.lookup(keys)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "keys")])
    def find(self, keys: Any) -> Any:
        return {"values": self.table.lookup(keys)}


def state(path: pathlib.Path) -> None:
    module = State()
    signatures = {"add": module.add, "get": module.get, "put": module.put, "find": module.find}
    tf.saved_model.save(module, str(path / VERSION), signatures=signatures)


def main(out: pathlib.Path) -> None:
    warnings.simplefilter("ignore")
    half_plus(out / "half_plus_two", 2.0)
    half_plus(out / "half_plus_three", 3.0)
    for make in (
        *(half_plus_two_tf2, defaults, save_one, save_several, sequential, distributed),
        *(lookup, strings, shapes, state, json_tensors),
    ):
        make(out / make.__name__)
    (out / "vocabulary.txt").unlink()  # the model has its own copy


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
