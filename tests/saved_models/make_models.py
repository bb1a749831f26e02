"""Writes the SavedModels that the tests serve; run in a child process, since it imports TensorFlow.

  python make_models.py OUT_DIR

Made: half_plus_two (versions 1 and 2, y = x/2 + version), half_plus_version (the same with six versions), echo (one
signature a dtype), pair (two inputs, two outputs, one of the inputs with a default in signature "with_default"), slow
(runs as long as it is told), counter and keeper (state), rows (sums by row), softmax (784 inputs, 10 scores), mlp (the
same with two hidden layers), product (no loop, and yet it runs as long as its input says), examples (signatures for
Classify and Regress on tf.Examples, good ones and bad ones), corrupt (its graph cut short), empty (a version folder
without a model).
"""

import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import tensorflow as tf

v1 = tf.compat.v1
PREDICT = "tensorflow/serving/predict"
CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"
# fmt: off
ECHO_DTYPES = (
    "float32", "float64", "half", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "bool", "string", "complex64", "complex128", "qint8", "quint8", "qint32", "float8_e5m2", "float8_e4m3fn",
)
# fmt: on


def signature(inputs: dict[str, Any], outputs: dict[str, Any], method: str = PREDICT) -> Any:
    info = v1.saved_model.utils.build_tensor_info
    return v1.saved_model.signature_def_utils.build_signature_def(
        {alias: info(tensor) for alias, tensor in inputs.items()},
        {alias: info(tensor) for alias, tensor in outputs.items()},
        method,
    )


def save(path: pathlib.Path, build: Callable[[], dict[str, Any]]) -> None:
    """Saves the signatures that build() makes in a fresh graph."""
    with tf.Graph().as_default(), v1.Session() as session:
        signatures = build()
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=signatures, strip_default_attrs=True)
        builder.save()


def half_plus(addend: int) -> Callable[[], dict[str, Any]]:
    def build() -> dict[str, Any]:
        x = v1.placeholder(tf.float32, [None], name="x")
        half = tf.Variable(0.5, name="half")
        return {"serving_default": signature({"x": x}, {"y": tf.add(x * half, float(addend), name="y")})}

    return build


def echo() -> dict[str, Any]:
    signatures = {}
    for name in ECHO_DTYPES:
        x = v1.placeholder(tf.as_dtype(name), None, name=f"{name}_x")
        signatures[name] = signature({"x": x}, {"y": tf.identity(x, name=f"{name}_y")})
    return signatures


def pair() -> dict[str, Any]:
    a = v1.placeholder(tf.float32, [None], name="a")
    b = v1.placeholder(tf.float32, [None], name="b")
    outputs = {"sum": tf.add(a, b, name="sum"), "product": tf.multiply(a, b, name="product")}
    with_default = signature({"a": a, "b": b}, outputs)
    with_default.defaults["b"].CopyFrom(tf.make_tensor_proto([10.0], tf.float32))
    not_there = signature({"a": a, "b": b}, outputs)
    not_there.outputs["sum"].name = "no_such_tensor:0"
    return {"serving_default": signature({"a": a, "b": b}, outputs), "with_default": with_default, "odd": not_there}


def slow() -> dict[str, Any]:
    """Multiplies matrices for about as many milliseconds as the input says; a timeout ends it between two of them."""
    rounds = v1.placeholder(tf.int32, [], name="rounds")
    matrix = tf.fill([256, 256], 1.0 / 256)
    _, result = tf.while_loop(
        lambda i, _: i < rounds, lambda i, m: (i + 1, tf.matmul(m, matrix)), [0, matrix], parallel_iterations=1
    )
    return {"serving_default": signature({"rounds": rounds}, {"y": tf.reduce_sum(result, name="y")})}


def product() -> dict[str, Any]:
    """Multiplies two matrices of the size it is told: microseconds or seconds, as only the values of the input say."""
    size = v1.placeholder(tf.int32, [], name="size")
    matrix = tf.fill([size, size], 1.0 / tf.cast(size, tf.float32))
    return {"serving_default": signature({"size": size}, {"y": tf.reduce_sum(tf.matmul(matrix, matrix), name="y")})}


def counter() -> dict[str, Any]:
    """Keeps what it is fed, so that an output, an input and a variable may share memory."""
    text = v1.placeholder(tf.string, [], name="text")
    kept = v1.get_variable("kept", [], tf.string, initializer=v1.constant_initializer(b"nothing", tf.string))
    count = v1.get_variable("count", [], tf.int64, initializer=v1.zeros_initializer())
    with tf.control_dependencies([v1.assign_add(count, 1)]):
        keep = tf.identity(v1.assign(kept, text), name="keep")
    return {
        "keep": signature({"text": text}, {"kept": keep}),
        "serving_default": signature({}, {"kept": tf.identity(kept, "read"), "count": tf.identity(count, "again")}),
    }


def keeper() -> dict[str, Any]:
    """Keeps the rows it is fed, each time those of the last batch: an input's memory may become the variable's."""
    rows = v1.placeholder(tf.float32, [None, 2], name="rows")
    kept = v1.get_variable("rows_kept", initializer=tf.zeros([1, 2]), validate_shape=False, use_resource=False)
    keep = v1.assign(kept, rows, validate_shape=False)
    asked = v1.placeholder(tf.float32, [None], name="asked")
    total = tf.reduce_sum(kept)
    return {
        "keep": signature({"rows": rows}, {"kept": tf.identity(keep, name="keep_rows")}),
        "serving_default": signature({"asked": asked}, {"total": tf.add(0.0 * asked, total, name="total")}),
    }


def mlp() -> dict[str, Any]:
    """Two hidden layers of 1024 with untrained weights, for benchmarks: 784-1024-1024-10."""
    images = v1.placeholder(tf.float32, [None, 784], name="images")
    layer = images
    for i, (num_in, num_out) in enumerate(((784, 1024), (1024, 1024), (1024, 10))):
        weights = tf.Variable(tf.random.stateless_normal([num_in, num_out], [i, 1], stddev=0.05), name=f"w{i}")
        layer = layer @ weights
        layer = tf.nn.relu(layer) if num_out != 10 else tf.nn.softmax(layer, name="scores")
    return {"predict_images": signature({"images": images}, {"scores": layer})}


def rows() -> dict[str, Any]:
    """Row-wise sums, and how many rows there were: what a batch was like shows in the answer."""
    x = v1.placeholder(tf.float32, [None, None], name="x")
    y = v1.placeholder(tf.int64, [None, None], name="y")
    one = signature(
        {"x": x},
        {
            "same": tf.identity(x, name="same"),
            "sum": tf.reduce_sum(x, 1, name="sum"),
            "rows": tf.fill([tf.shape(x)[0]], tf.shape(x)[0], name="num_rows"),
        },
    )
    scalar = signature({"x": x}, {"total": tf.reduce_sum(x, name="total")})
    first = signature({"x": x}, {"first": tf.identity(x[:1], name="first")})
    two = signature({"x": x, "y": y}, {"x": tf.identity(x, name="x_out"), "y": tf.add(y, 1, name="y_out")})
    return {"serving_default": one, "scalar_output": scalar, "first_row": first, "two": two}


def softmax() -> dict[str, Any]:
    """The tutorial's model with untrained weights, for benchmarks."""
    images = v1.placeholder(tf.float32, [None, 784], name="images")
    weights = tf.Variable(tf.random.stateless_normal([784, 10], [1, 2]), name="w")
    return {"predict_images": signature({"images": images}, {"scores": tf.nn.softmax(images @ weights, name="scores")})}


def examples() -> dict[str, Any]:
    """Parses Examples with features x (a float, 0 if missing) and s (a string, "none"); the value is 2 x + 1."""
    serialized = v1.placeholder(tf.string, [None], name="examples")
    again = v1.placeholder(tf.string, [None], name="again")
    features = {
        "x": tf.io.FixedLenFeature([1], tf.float32, [0.0]),
        "s": tf.io.FixedLenFeature([1], tf.string, ["none"]),
    }
    parsed = tf.io.parse_example(serialized, features)
    value = tf.add(2 * parsed["x"], 1.0, name="value")
    label = parsed["s"]
    scores = tf.concat([value, -value], axis=1, name="scores")
    classes = tf.concat([label, tf.fill(tf.shape(label), "other")], axis=1, name="classes")

    def classify(method: str = CLASSIFY, inputs: Any = serialized, **outputs: Any) -> Any:
        return signature({"inputs": inputs}, outputs, method)

    def regress(outputs: Any, method: str = REGRESS) -> Any:
        return signature({"inputs": serialized}, {"outputs": outputs}, method)

    no_such_tensor = regress(value)
    no_such_tensor.outputs["outputs"].name = "no_such_tensor:0"
    return {
        "serving_default": classify(classes=classes, scores=scores),
        "scores_only": classify(scores=scores),
        "classes_only": classify(classes=classes),
        "predict_method": classify(PREDICT, scores=scores),
        "int_classes": classify(classes=tf.cast(scores, tf.int64)),
        "double_scores": classify(scores=tf.cast(scores, tf.float64)),
        "flat_classes": classify(classes=label[:, 0]),
        "deep_scores": classify(scores=scores[:, :, tf.newaxis]),
        "one_row_of_scores": classify(scores=scores[:1]),
        "more_classes_than_scores": classify(classes=classes, scores=value),
        "odd_outputs": classify(probabilities=scores),
        "no_outputs": classify(),
        "three_outputs": classify(classes=classes, scores=scores, value=value),
        "no_inputs": signature({}, {"scores": scores}, CLASSIFY),
        "odd_input": signature({"examples": serialized}, {"scores": scores}, CLASSIFY),
        "no_classes": classify(classes=classes[:, :0], scores=scores[:, :0]),
        "sizes": classify(inputs=again, scores=tf.cast(tf.strings.length(again)[:, tf.newaxis], tf.float32)),
        "regress": regress(value),
        "regress_flat": regress(value[:, 0]),
        "regress_double": regress(tf.cast(value, tf.float64)),
        "regress_wide": regress(scores),
        "regress_scalar": regress(tf.reduce_sum(value)),
        "regress_one_row": regress(value[:1]),
        "regress_odd_input": signature({"examples": serialized}, {"outputs": value}, REGRESS),
        "regress_odd_output": signature({"inputs": serialized}, {"value": value}, REGRESS),
        "regress_no_such_tensor": no_such_tensor,
        "serialized": signature({"inputs": serialized}, {"outputs": tf.identity(serialized, name="same")}),
    }


def main(out: pathlib.Path) -> None:
    for version in (1, 2):
        save(out / "half_plus_two" / str(version), half_plus(version))
    for version in range(1, 7):
        save(out / "half_plus_version" / str(version), half_plus(version))
    for build in (echo, pair, slow, product, counter, keeper, rows, softmax, mlp, examples):
        save(out / build.__name__ / "1", build)
    save(out / "corrupt" / "1", half_plus(1))
    graph = out / "corrupt" / "1" / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:-40])
    (out / "empty" / "1").mkdir(parents=True)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
