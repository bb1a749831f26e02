"""Classify, Regress and MultiInference in the worker on a real model: results, and refusals in upstream's order."""

import pathlib
from collections.abc import Iterator

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from tensorgate._native.execution_pool import run_once
from tensorgate._native.session import Session
from tensorgate.gateway.dispatch.call import Method
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow.core.example.example_pb2 import Example
from tensorgate.protos.tensorflow.core.example.feature_pb2 import Feature
from tensorgate.protos.tensorflow_serving.apis.classification_pb2 import (
    ClassificationRequest,
    ClassificationResponse,
    ClassificationResult,
)
from tensorgate.protos.tensorflow_serving.apis.inference_pb2 import (
    InferenceTask,
    MultiInferenceRequest,
    MultiInferenceResponse,
)
from tensorgate.protos.tensorflow_serving.apis.input_pb2 import Input
from tensorgate.protos.tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorgate.protos.tensorflow_serving.apis.regression_pb2 import RegressionRequest, RegressionResponse
from tensorgate.workers.saved_model import open_saved_model

pytestmark = pytest.mark.usefixtures("libtensorflow")

CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"


@pytest.fixture(scope="module")
def path(saved_models: pathlib.Path) -> str:
    return str(saved_models / "examples" / "1")


@pytest.fixture(scope="module")
def session(path: str, libtensorflow: str) -> Iterator[Session]:
    opened = open_saved_model(path, 3, ["serve"], b"")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def strict_session(path: str, libtensorflow: str) -> Iterator[Session]:
    """One that minds the method names of its signatures."""
    opened = open_saved_model(path, 3, ["serve"], b"", checks_method_names=True)
    yield opened
    opened.close()


def example(x: float | None = None, s: str | None = None) -> Example:
    made = Example()
    if x is not None:
        made.features.feature["x"].CopyFrom(Feature(float_list={"value": [x]}))
    if s is not None:
        made.features.feature["s"].CopyFrom(Feature(bytes_list={"value": [s.encode()]}))
    return made


def listed(*examples: Example) -> Input:
    return Input(example_list={"examples": examples})


TWO = listed(example(1, "one"), example(-0.5))


def spec(signature: str = "", name: str = "m") -> ModelSpec:
    return ModelSpec(name=name, signature_name=signature)


def run(session: Session, method: Method, payload: bytes) -> bytes:
    code, message, response, _ = run_once(session, method, payload)
    if code:
        raise ServingError(Code.of(code), message.decode())
    return bytes(response)


def classify(session: Session, signature: str, given_input: Input = TWO) -> ClassificationResponse:
    request = ClassificationRequest(model_spec=spec(signature), input=given_input).SerializeToString()
    return ClassificationResponse.FromString(run(session, Method.CLASSIFY, request))


def regress(session: Session, signature: str, given_input: Input = TWO) -> RegressionResponse:
    request = RegressionRequest(model_spec=spec(signature), input=given_input).SerializeToString()
    return RegressionResponse.FromString(run(session, Method.REGRESS, request))


def infer(session: Session, *tasks: tuple[str, str], given_input: Input = TWO) -> MultiInferenceResponse:
    request = MultiInferenceRequest(
        tasks=[InferenceTask(model_spec=spec(signature), method_name=method) for signature, method in tasks],
        input=given_input,
    )
    return MultiInferenceResponse.FromString(run(session, Method.MULTI_INFERENCE, request.SerializeToString()))


def classes(result: ClassificationResult) -> list[list[tuple[str, float]]]:
    return [[(each.label, each.score) for each in row.classes] for row in result.classifications]


def values(response: RegressionResponse) -> list[float]:
    return [each.value for each in response.result.regressions]


# --- Classify and Regress ---------------------------------------------------------------------------------------------


def test_labels_and_scores_come_one_row_an_example_with_what_was_used(session: Session) -> None:
    response = classify(session, "")
    assert classes(response.result) == [[("one", 3), ("other", -3)], [("none", 0), ("other", 0)]]
    used = response.model_spec
    assert (used.name, used.version.value, used.signature_name) == ("m", 3, "serving_default")
    assert classes(classify(session, "scores_only").result) == [[("", 3), ("", -3)], [("", 0), ("", 0)]]
    assert classes(classify(session, "classes_only").result) == [
        [("one", 0), ("other", 0)],
        [("none", 0), ("other", 0)],
    ]


def test_a_value_comes_for_each_example(session: Session) -> None:
    response = regress(session, "regress")
    assert values(response) == [3, 0]
    used = response.model_spec
    assert (used.name, used.version.value, used.signature_name) == ("m", 3, "regress")
    assert values(regress(session, "regress_flat")) == [3, 0]


def test_responses_are_encoded_as_protobuf_encodes_them(session: Session) -> None:
    """Zeros and empty labels included, and -0.0, which is a value like others."""
    rows = listed(
        example(-0.5, ""), example(1, "long enough for more than a byte of length " * 5), example(float("nan"))
    )
    for signature in ("serving_default", "scores_only", "classes_only", "no_classes"):
        request = ClassificationRequest(model_spec=spec(signature), input=rows).SerializeToString()
        raw = run(session, Method.CLASSIFY, request)
        assert ClassificationResponse.FromString(raw).SerializeToString() == raw
    request = RegressionRequest(model_spec=spec("regress"), input=rows).SerializeToString()
    raw = run(session, Method.REGRESS, request)
    assert RegressionResponse.FromString(raw).SerializeToString() == raw
    tasks = [
        InferenceTask(model_spec=spec("serving_default"), method_name=CLASSIFY),
        InferenceTask(model_spec=spec("regress"), method_name=REGRESS),
    ]
    raw = run(session, Method.MULTI_INFERENCE, MultiInferenceRequest(tasks=tasks, input=rows).SerializeToString())
    assert MultiInferenceResponse.FromString(raw).SerializeToString() == raw


def test_a_context_counts_for_the_examples_that_have_no_feature_of_that_name(session: Session) -> None:
    given_input = Input()
    given_input.example_list_with_context.context.CopyFrom(example(2, "both"))
    given_input.example_list_with_context.examples.extend([example(), example(3), example(s="own")])
    assert classes(classify(session, "", given_input).result) == [
        [("both", 5), ("other", -5)],
        [("both", 7), ("other", -7)],
        [("own", 5), ("other", -5)],
    ]


def test_many_examples_are_one_run(session: Session) -> None:
    rows = listed(*(example(x) for x in range(1000)))
    assert values(regress(session, "regress", rows)) == [2 * x + 1 for x in range(1000)]


def test_signatures_are_used_whatever_their_method_name_says(session: Session) -> None:
    assert classes(classify(session, "predict_method").result)[0] == [("", 3), ("", -3)]


CLASSIFY_REFUSALS = {
    "nope": "No signature was found with the name: nope",
    "no_inputs": "Expected one input Tensor.",
    "no_outputs": "Expected one or two output Tensors, found 0",
    "three_outputs": "Expected one or two output Tensors, found 3",
    "odd_input": 'No classification inputs found in SignatureDef: inputs {\n  key: "examples"',
    "odd_outputs": 'Expected classification signature outputs to contain at least one of "classes" or "scores".'
    " Signature was: inputs {",
    "int_classes": "Expected classes Tensor of DT_STRING. Got: DT_INT64",
    "double_scores": "Expected scores Tensor of DT_FLOAT. Got: DT_DOUBLE",
    "flat_classes": "Expected Tensor shape: [batch_size num_classes] but got [2]",
    "deep_scores": "Expected Tensor shape: [batch_size num_classes] but got [2,2,1]",
    "one_row_of_scores": "Expected scores output batch size of 2. Got: 1",
    "more_classes_than_scores": "Tensors class and score should match in dim_size(1). Got 2 vs. 1",
}
REGRESS_REFUSALS = {
    "nope": "No signature was found with the name: nope",
    "no_inputs": "Expected one input Tensor.",
    "serving_default": "Expected one output Tensor.",
    "regress_odd_input": 'No regression inputs found in SignatureDef: inputs {\n  key: "examples"',
    "regress_odd_output": "No regression outputs found in SignatureDef: inputs {",
    "regress_wide": "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [2,2]",
    "regress_scalar": "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got []",
    "regress_one_row": "Input batch size did not match output batch size: 2 vs. 1",
    "regress_double": "Expected output Tensor of DT_FLOAT.  Got: DT_DOUBLE",
    "regress_no_such_tensor": "Tensor no_such_tensor:0, specified in either feed_devices or fetch_devices was not found"
    " in the Graph",
}


@pytest.mark.parametrize("signature", CLASSIFY_REFUSALS)
def test_a_classification_is_refused_with_upstreams_text(session: Session, signature: str) -> None:
    with pytest.raises(ServingError) as refused:
        classify(session, signature)
    assert refused.value.code is Code.INVALID_ARGUMENT
    assert refused.value.message.startswith(CLASSIFY_REFUSALS[signature])


@pytest.mark.parametrize("signature", REGRESS_REFUSALS)
def test_a_regression_is_refused_with_upstreams_text(session: Session, signature: str) -> None:
    with pytest.raises(ServingError) as refused:
        regress(session, signature)
    assert refused.value.code is Code.INVALID_ARGUMENT
    assert refused.value.message.startswith(REGRESS_REFUSALS[signature])


def test_the_signature_is_looked_at_before_the_examples_and_these_before_the_graph(session: Session) -> None:
    with pytest.raises(ServingError, match="Expected one input Tensor"):
        classify(session, "no_inputs", Input())
    with pytest.raises(ServingError, match=r"Input is empty\."):
        classify(session, "scores_only", Input())
    with pytest.raises(ServingError, match=r"Input is empty\."):
        regress(session, "regress_no_such_tensor", Input())


def test_what_the_examples_do_to_the_model_is_the_sessions_own_error(session: Session) -> None:
    wrong = Example(features={"feature": {"x": Feature(int64_list={"value": [1]})}})
    with pytest.raises(ServingError, match="Data types don't match") as refused:
        regress(session, "regress", listed(wrong))
    assert refused.value.code is Code.INVALID_ARGUMENT


def test_method_names_count_where_they_are_minded(strict_session: Session) -> None:
    with pytest.raises(ServingError) as refused:
        classify(strict_session, "predict_method")
    assert refused.value == ServingError(
        Code.INVALID_ARGUMENT,
        "Expected classification signature method_name to be tensorflow/serving/classify."
        " Was: tensorflow/serving/predict",
    )
    with pytest.raises(ServingError) as refused:
        regress(strict_session, "serving_default")
    assert refused.value == ServingError(
        Code.INVALID_ARGUMENT,
        "Expected regression signature method_name to be tensorflow/serving/regress. Was: tensorflow/serving/classify",
    )
    assert values(regress(strict_session, "regress")) == [3, 0]
    assert classes(classify(strict_session, "scores_only").result)[0] == [("", 3), ("", -3)]


# --- MultiInference ---------------------------------------------------------------------------------------------------


def test_tasks_are_answered_in_order_each_with_what_it_used(session: Session) -> None:
    response = infer(session, ("regress", REGRESS), ("", CLASSIFY), ("scores_only", CLASSIFY))
    names = [each.model_spec.signature_name for each in response.results]
    assert names == ["regress", "serving_default", "scores_only"]
    assert {(each.model_spec.name, each.model_spec.version.value) for each in response.results} == {("m", 3)}
    assert [each.value for each in response.results[0].regression_result.regressions] == [3, 0]
    assert classes(response.results[1].classification_result)[0] == [("one", 3), ("other", -3)]
    assert classes(response.results[2].classification_result)[0] == [("", 3), ("", -3)]


def test_signatures_with_inputs_of_their_own_get_the_same_examples(session: Session) -> None:
    response = infer(session, ("sizes", CLASSIFY), ("regress", REGRESS))
    sizes = [len(each.SerializeToString()) for each in TWO.example_list.examples]
    assert classes(response.results[0].classification_result) == [[("", size)] for size in sizes]
    assert [each.value for each in response.results[1].regression_result.regressions] == [3, 0]


@pytest.mark.parametrize(
    ("tasks", "code", "message"),
    [
        ([("m", "nope", CLASSIFY)], 3, "Requested signature not found in model graph: nope"),
        ([("m", "regress", REGRESS), ("", "", CLASSIFY)], 3, "Found ModelSpec with an empty model name."),
        (
            [("m", "regress", REGRESS), ("other", "", CLASSIFY)],
            3,
            "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
        ),
        (
            [("m", "", CLASSIFY), ("m", "serving_default", CLASSIFY)],
            3,
            "Duplicate evaluation of signature: serving_default",
        ),
        (
            [("m", "", "tensorflow/serving/predict")],
            12,
            "Unsupported signature method_name: tensorflow/serving/predict",
        ),
        ([("m", "regress", "")], 12, "Unsupported signature method_name: "),
        ([("m", "", REGRESS)], 3, "Expected one output Tensor."),
        (
            [("m", "", CLASSIFY), ("m", "regress_wide", REGRESS)],
            3,
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [2,2]",
        ),
        # The first fault counts.
        ([("m", "nope", CLASSIFY), ("", "", "")], 3, "Requested signature not found in model graph: nope"),
    ],
)
def test_tasks_are_refused_with_upstreams_texts(
    session: Session, tasks: list[tuple[str, str, str]], code: int, message: str
) -> None:
    request = MultiInferenceRequest(
        tasks=[
            InferenceTask(model_spec=spec(signature, name), method_name=method) for name, signature, method in tasks
        ],
        input=TWO,
    )
    assert run_once(session, Method.MULTI_INFERENCE, request.SerializeToString())[:2] == (code, message.encode())


def test_tasks_are_looked_at_before_the_examples(session: Session) -> None:
    with pytest.raises(ServingError, match="Duplicate evaluation"):
        infer(session, ("regress", REGRESS), ("regress", REGRESS), given_input=Input())
    with pytest.raises(ServingError, match="Input is empty"):
        infer(session, ("regress", REGRESS), given_input=Input())


def test_a_flood_of_tasks_costs_no_memory(session: Session) -> None:
    task = MultiInferenceRequest(tasks=[InferenceTask(model_spec=spec("regress"), method_name=REGRESS)])
    code, message, _, _ = run_once(session, Method.MULTI_INFERENCE, task.SerializeToString() * 100_000)
    assert (code, message) == (3, b"Duplicate evaluation of signature: regress")


# --- bytes ------------------------------------------------------------------------------------------------------------

REQUESTS = {
    Method.CLASSIFY: ClassificationRequest(model_spec=spec("scores_only"), input=TWO),
    Method.REGRESS: RegressionRequest(model_spec=spec("regress"), input=TWO),
    Method.MULTI_INFERENCE: MultiInferenceRequest(
        tasks=[
            InferenceTask(model_spec=spec("regress"), method_name=REGRESS),
            InferenceTask(model_spec=spec("scores_only"), method_name=CLASSIFY),
        ],
        input=TWO,
    ),
}


@pytest.mark.parametrize("method", REQUESTS)
def test_every_truncation_is_refused(session: Session, method: Method) -> None:
    payload = REQUESTS[method].SerializeToString()
    for size in range(len(payload)):
        assert run_once(session, method, payload[:size])[0] != 0
    assert run_once(session, method, payload[:-1])[:2] == (Code.INTERNAL, b"")


@given(st.sampled_from(sorted(REQUESTS)), st.data())
def test_damaged_requests_are_internal_exactly_when_protobuf_refuses_them(
    session: Session, method: Method, data: st.DataObject
) -> None:
    damaged = bytearray(REQUESTS[method].SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        type(REQUESTS[method]).FromString(bytes(damaged))
        malformed = False
    except DecodeError:
        malformed = True
    code, message, _, _ = run_once(session, method, damaged)
    assert ((code, message) == (Code.INTERNAL, b"")) is malformed


@given(st.sampled_from(sorted(REQUESTS)), st.binary(max_size=60))
def test_garbage_is_refused(session: Session, method: Method, garbage: bytes) -> None:
    assert run_once(session, method, garbage)[0] != 0


def test_an_unknown_method_is_unimplemented(session: Session) -> None:
    assert run_once(session, 99, b"")[0] == Code.UNIMPLEMENTED
