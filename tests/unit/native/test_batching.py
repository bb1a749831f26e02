"""Merged requests: whatever comes together, each caller gets what it would get alone, or a proper status."""

import pathlib
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tensorgate._native.execution_pool import CLASSIFY, MULTI_INFERENCE, REGRESS
from tensorgate._native.session import Session
from tensorgate.protos.status_codes import Code
from tensorgate.protos.tensorflow_serving.apis.classification_pb2 import ClassificationRequest
from tensorgate.protos.tensorflow_serving.apis.inference_pb2 import MultiInferenceRequest
from tensorgate.protos.tensorflow_serving.apis.regression_pb2 import RegressionRequest
from tensorgate.workers.saved_model import open_saved_model
from tests.fakes.data_gateway import TIMEOUT_S
from tests.harness.batch_loop import DTYPES, BatchLoop, options, outputs_of, predict, tensor

pytestmark = pytest.mark.usefixtures("libtensorflow")

MODELS = ("half_plus_two", "rows", "pair", "slow", "echo", "softmax", "keeper", "examples", "counter", "mlp")
ECHOED = {"float16": "half"}


@pytest.fixture(scope="module")
def models(saved_models: pathlib.Path, libtensorflow: str) -> Iterator[dict[str, Session]]:
    opened = {name: open_saved_model(str(saved_models / name / "1"), 1, ["serve"], b"") for name in MODELS}
    for name in ("half_plus_two", "rows"):
        opened[name].set_batching({"serving_default"}, {})
    yield opened
    for session in opened.values():
        session.close()


@pytest.fixture
def serve(models: dict[str, Session], tmp_path: pathlib.Path) -> Iterator[Callable[..., BatchLoop]]:
    made: list[BatchLoop] = []

    def start(name: str, **changes: Any) -> BatchLoop:
        served = BatchLoop(models[name], options(**changes), tmp_path)
        made.append(served)
        return served.__enter__()

    yield start
    for each in made:
        each.__exit__()


Serve = Callable[..., BatchLoop]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.001)


def examples(*values: float) -> Any:
    request = ClassificationRequest()
    request.model_spec.name = "m"
    for value in values:
        feature = request.input.example_list.examples.add().features.feature
        feature["x"].float_list.value.append(value)
        feature["s"].bytes_list.value.append(b"label %d" % value)
    return request


# --- whoever comes together ---------------------------------------------------------------------------------------


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, bytes]:
    """A request for the echo model: its dtype, and its bytes."""
    dtype = draw(st.sampled_from([*DTYPES, "string"]))
    shape = (draw(st.integers(1, 5)), *draw(st.lists(st.integers(0, 3), max_size=3)))
    number = draw(st.integers(0, 1 << 30))
    size = int(numpy.prod(shape))
    rng = random.Random(number)
    if dtype == "string":
        values = numpy.array([rng.randbytes(rng.choice((0, 1, 22, 23, 100))) for _ in range(size)], object)
        made = tensor(values.reshape(shape), object)
        if draw(st.booleans()) and size:
            lengths = b"".join(bytes([len(each)]) for each in values)
            made.tensor_content = lengths + b"".join(values)
            del made.string_val[:]
    elif dtype == "bool":
        made = tensor(numpy.array([rng.random() < 0.5 for _ in range(size)]).reshape(shape), dtype)
    else:
        raw = rng.randbytes(size * numpy.dtype(dtype).itemsize)
        made = tensor(numpy.frombuffer(raw, dtype).reshape(shape), dtype)
    return dtype, predict(ECHOED.get(dtype, dtype), x=made)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    mix=st.lists(requests(), min_size=1, max_size=30),
    limit=st.integers(5, 40),
    allowed=st.booleans(),
    splitting=st.integers(0, 3),
    threads=st.integers(1, 3),
)
def test_of_any_mix_each_gets_what_it_would_get_alone_bit_by_bit(
    models: dict[str, Session],
    tmp_path: pathlib.Path,
    mix: list[tuple[str, bytes]],
    limit: int,
    allowed: bool,
    splitting: int,
    threads: int,
) -> None:
    batching = options(
        num_batch_threads=threads,
        max_batch_size=limit,
        max_execution_batch_size=splitting or limit,
        enable_large_batch_splitting=bool(splitting),
        allowed_batch_sizes=(limit // 2, limit) if allowed and not splitting else (),
        batch_timeout_micros=1000,
        max_enqueued_batches=10_000,
    )
    with BatchLoop(models["echo"], batching, tmp_path) as served:
        payloads = [payload for _, payload in mix]
        for payload, reply in zip(payloads, served.ask(*payloads), strict=True):
            assert reply == served.alone(payload)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(counts=st.lists(st.integers(1, 9), min_size=1, max_size=40), auto=st.booleans(), seed=st.integers(0, 1 << 30))
def test_matrix_products_differ_in_the_last_bits_only(
    models: dict[str, Session], tmp_path: pathlib.Path, counts: list[int], auto: bool, seed: int
) -> None:
    batching = options(
        max_batch_size=64,
        batch_timeout_micros=500,
        max_enqueued_batches=1000,
        auto_latency_target_us=20_000 if auto else 0,
    )
    rng = numpy.random.default_rng(seed)
    payloads = [predict("predict_images", images=tensor(rng.random((count, 784)))) for count in counts]
    with BatchLoop(models["softmax"], batching, tmp_path) as served:
        for payload, reply in zip(payloads, served.ask(*payloads), strict=True):
            shape, merged = outputs_of(reply)["scores"]
            alone_shape, alone = outputs_of(served.alone(payload))["scores"]
            assert shape == alone_shape
            # As much as batch sizes are apart on this model: float32, 784 terms a sum, then exp.
            assert numpy.allclose(merged, alone, rtol=1e-3, atol=1e-7)


def test_classify_regress_and_multi_inference_are_merged_and_answered_as_alone(serve: Serve) -> None:
    served = serve("examples", max_batch_size=6)
    first, second = examples(1, 2), examples(3, 4, 5, 6)
    multi = MultiInferenceRequest(input=first.input)
    multi.tasks.add(method_name="tensorflow/serving/classify").model_spec.name = "m"
    task = multi.tasks.add(method_name="tensorflow/serving/regress").model_spec
    task.name, task.signature_name = "m", "regress"
    other = MultiInferenceRequest(input=second.input, tasks=multi.tasks)
    regress = RegressionRequest(input=first.input)
    regress.model_spec.signature_name = "regress"
    again = RegressionRequest(input=second.input)
    again.model_spec.signature_name = "regress_flat"
    for method, messages in ((CLASSIFY, (first, second)), (MULTI_INFERENCE, (multi, other))):
        payloads = [message.SerializeToString() for message in messages]
        replies = served.ask(*payloads, method=method)
        assert replies == [served.alone(payload, method) for payload in payloads]
        assert {reply.code for reply in replies} == {Code.OK}
    assert [queue["batches"] for queue in served.queues] == [1, 1]
    # Two signatures over different tensors have a queue each.
    sent = [served.send(message.SerializeToString(), method=REGRESS) for message in (regress, again)]
    full = RegressionRequest(input=second.input, model_spec=regress.model_spec).SerializeToString()
    served.send(full, method=REGRESS)
    assert served.gateway.replies(2)[sent[0]] == served.alone(regress.SerializeToString(), REGRESS)


def test_a_context_is_before_each_example_of_its_own_request_only(serve: Serve) -> None:
    served = serve("examples", max_batch_size=4)
    plain, with_context = examples(1, 2), ClassificationRequest()
    with_context.input.example_list_with_context.context.features.feature["s"].bytes_list.value.append(
        b"of the context"
    )
    for value in (7, 8):
        example = with_context.input.example_list_with_context.examples.add()
        example.features.feature["x"].float_list.value.append(value)
    payloads = [plain.SerializeToString(), with_context.SerializeToString()]
    assert served.ask(*payloads, method=CLASSIFY) == [served.alone(payload, CLASSIFY) for payload in payloads]
    assert served.queues[0]["batches"] == 1


# --- who cannot be merged -----------------------------------------------------------------------------------------


def test_unlike_shapes_ranks_and_dtypes_are_in_different_batches(serve: Serve) -> None:
    served = serve("echo", max_batch_size=4)
    kinds = [
        predict("float32", x=tensor([1, 2])),
        predict("float32", x=tensor([[1], [2]])),
        predict("float32", x=tensor([[1, 2], [3, 4]])),
        predict("float32", x=tensor([1, 2], "int32")),
    ]
    replies = served.ask(*kinds, *kinds)
    assert replies == [served.alone(payload) for payload in (*kinds, *kinds)]
    assert [reply.code for reply in replies[:4]] == [Code.OK, Code.OK, Code.OK, Code.INVALID_ARGUMENT]
    assert served.queues[0]["batches"] == 4


def test_a_request_of_no_rows_does_not_wait(serve: Serve) -> None:
    served = serve("half_plus_two")
    assert outputs_of(served.ask(predict(x=tensor([])))[0])["y"] == ((0,), [])


def test_requests_that_fail_their_checks_are_answered_at_once(serve: Serve) -> None:
    served = serve("rows")
    scalar = predict("two", x=tensor(1), y=tensor([[1]], "int64"))
    assert served.ask(scalar)[0].message == "Batching Run() input tensors must have at least one dimension"
    missing, garbage, filtered = served.ask(predict(), b"\xff\xff", predict(outputs=["none"], x=tensor([[1]])))
    for reply, payload in ((missing, predict()), (garbage, b"\xff\xff")):
        assert reply == served.alone(payload)
    assert "output tensor alias not found in signature: none" in filtered.message


def test_outputs_without_a_row_for_each_row_fail_the_batch(serve: Serve) -> None:
    served = serve("rows", batch_timeout_micros=0)
    scalar, first = served.ask(
        predict("scalar_output", x=tensor([[1], [2]])), predict("first_row", x=tensor([[1], [2]]))
    )
    assert scalar[:2] == (Code.FAILED_PRECONDITION, "Batched output tensor has 0 dimensions")
    assert first[:2] == (
        Code.FAILED_PRECONDITION,
        "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input tensors",
    )


def test_auto_merges_only_where_every_tensor_has_a_batch_dimension(serve: Serve) -> None:
    served = serve("rows", auto_latency_target_us=20_000, max_batch_size=1 << 20, max_execution_batch_size=64)
    replies = served.ask(*[predict("two", x=tensor([[i]]), y=tensor([[i]], "int64")) for i in range(20)])
    assert [outputs_of(reply)["y"][1] for reply in replies] == [[i + 1] for i in range(20)]
    assert served.queues[0]["batches"] == 20


def test_auto_runs_what_has_no_rows_to_merge_alone(serve: Serve) -> None:
    served = serve("slow", auto_latency_target_us=20_000, max_batch_size=1 << 40, max_execution_batch_size=64)
    payload = predict(rounds=tensor(1, numpy.int32))
    assert served.ask(payload, payload) == [served.alone(payload)] * 2
    assert not served.queues or served.queues[0]["batches"] == 0


# --- padding ------------------------------------------------------------------------------------------------------


def test_the_pad_value_of_an_input_stands_in_for_its_first_element(
    saved_models: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    session = open_saved_model(str(saved_models / "echo" / "1"), 1, ["serve"], b"")
    session.set_batching(set(), {("float32", "x"): numpy.float32(-1).tobytes(), ("string", "x"): b"nothing"})
    with BatchLoop(session, options(max_batch_size=2, pad_variable_length_inputs=True), tmp_path) as served:
        short, _ = served.ask(predict("float32", x=tensor([[5]])), predict("float32", x=tensor([[6, 7, 8]])))
        assert outputs_of(short)["y"] == ((1, 3), [5, -1, -1])
        text, _ = served.ask(
            predict("string", x=tensor([[b"a"]], object)), predict("string", x=tensor([[b"b", b"c"]], object))
        )
        assert outputs_of(text)["y"] == ((1, 2), [b"a", b"nothing"])
    session.close()


@pytest.mark.parametrize("dtype", ["float32", "int64", "string"])
def test_what_was_padded_is_cut_back_when_asked(serve: Serve, dtype: str) -> None:
    served = serve("echo", max_batch_size=3, pad_variable_length_inputs=True, crop_padded_outputs=True)
    shapes = ((1, 2, 3), (1, 3, 1), (1, 1, 2))
    arrays = [numpy.arange(numpy.prod(shape)).reshape(shape) + 10 * i for i, shape in enumerate(shapes)]
    if dtype == "string":
        arrays = [array.astype(str).astype("S") for array in arrays]
    payloads = [predict(dtype, x=tensor(array, object if dtype == "string" else dtype)) for array in arrays]
    replies = served.ask(*payloads)
    assert replies == [served.alone(payload) for payload in payloads]
    assert served.queues[0]["batches"] == 1


def test_two_requests_of_different_rank_leave_each_other_alone_with_padding_on(serve: Serve) -> None:
    served = serve("echo", max_batch_size=2, pad_variable_length_inputs=True, batch_timeout_micros=1000)
    payloads = [predict("float32", x=tensor([1])), predict("float32", x=tensor([[2]]))]
    assert served.ask(*payloads) == [served.alone(payload) for payload in payloads]


# --- memory -------------------------------------------------------------------------------------------------------


def test_memory_that_a_variable_has_kept_is_not_written_over(serve: Serve) -> None:
    """A buffer is used again when TensorFlow's deallocator has run, and not when the run has returned."""
    served = serve("keeper", max_batch_size=8, batch_timeout_micros=0)
    values = numpy.arange(16).reshape(8, 2)
    kept = outputs_of(served.ask(predict("keep", rows=tensor(values)))[0])["kept"]
    assert kept == ((8, 2), list(values.ravel()))
    for i in range(50):
        # Of the same size, and so in the same memory if it were free.
        answers = served.ask(predict(asked=tensor(numpy.full(8, float(i)))))
        assert outputs_of(answers[0])["total"] == ((8,), [float(values.sum())] * 8)


def test_many_batches_leave_nothing_behind(serve: Serve) -> None:
    served = serve("echo", max_batch_size=16, batch_timeout_micros=0, max_enqueued_batches=1000)
    payload = predict("float32", x=tensor(numpy.zeros((1, 20_000))))

    def resident_kib() -> int:
        return int(pathlib.Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4

    for _ in range(5):
        served.ask(*[payload] * 20)
    before = resident_kib()
    for _ in range(40):
        served.ask(*[payload] * 20)
    assert resident_kib() - before < 40_000  # 800 requests of 80 KB are 64 MB


# --- queues, deadlines, cancels -----------------------------------------------------------------------------------


def test_a_batch_that_is_not_full_goes_when_it_has_waited_long_enough(serve: Serve) -> None:
    served = serve("rows", batch_timeout_micros=30_000)
    assert outputs_of(served.ask(predict(x=tensor([[1]])))[0])["rows"][1] == [1]
    assert served.timing(1).queue_us >= 30_000


def of_width(width: int) -> bytes:
    """A request that shares its batch only with others of that width."""
    return predict(x=tensor([[1] * width]))


def test_a_full_queue_refuses_and_says_how_full_it_is(serve: Serve) -> None:
    served = serve("rows", max_enqueued_batches=2, num_batch_threads=1)
    # One more than there is room for, and one more that the idle thread could take at once.
    for width in (1, 2, 3, 4):
        served.send(of_width(width))
    _, refused = served.gateway.receive()
    assert refused.code == Code.UNAVAILABLE
    assert re.fullmatch(
        "The batch scheduling queue to which this task was submitted is full; currently [23] batches enqueued and"
        " max_enqueued_batches is 2",
        refused.message,
    )
    wait_until(lambda: served.queues[0]["refused"] + served.queues[0]["waiting"] == 4)


def test_a_full_queue_that_splits_says_its_capacity(serve: Serve) -> None:
    served = serve(
        "rows", max_batch_size=100, max_execution_batch_size=2, enable_large_batch_splitting=True,
        max_enqueued_batches=3, num_batch_threads=1,
    )  # fmt: skip
    reply = served.ask(predict(x=tensor([[1]] * 100)))[0]
    assert reply.code == Code.UNAVAILABLE
    assert re.fullmatch(
        "The batch scheduling queue to which this task was submitted is full; task size is 100 but scheduling capacity"
        r" is only [68] \(num_enqueued_batches=1, max_enqueued_batches=3, open_batch_size=0,"
        r" max_execution_batch_size=2\)",
        reply.message,
    )


def test_what_nobody_waits_for_makes_room(serve: Serve) -> None:
    served = serve("rows", max_enqueued_batches=1, num_batch_threads=1)
    late = served.send(of_width(1), remaining_us=1_000_000)
    wait_until(lambda: bool(served.queues) and served.queues[0]["waiting"] == 1)
    due = time.monotonic() + 1  # the time that was left counts from when the worker had the request
    wait_until(lambda: time.monotonic() > due)
    for width in (2, 3, 4):
        served.send(of_width(width))
    replies = {}
    while late not in replies:
        request_id, replies[request_id] = served.gateway.receive()
    assert replies[late].code == Code.DEADLINE_EXCEEDED
    assert (served.queues[0]["batches"], served.queues[0]["expired"]) == (0, 1)


@pytest.mark.parametrize("how", ["cancel", "deadline"])
def test_rows_that_nobody_waits_for_leave_their_batch(serve: Serve, how: str) -> None:
    served = serve("rows", batch_timeout_micros=100_000)
    gone = served.send(predict(x=tensor([[1], [2]])), remaining_us=1000 if how == "deadline" else -1)
    stays = served.send(predict(x=tensor([[3]])))
    if how == "cancel":
        wait_until(lambda: bool(served.queues) and served.queues[0]["waiting"] == 3)
        served.gateway.cancel(gone)
    replies = served.gateway.replies(2)
    assert replies[gone].code == (Code.CANCELLED if how == "cancel" else Code.DEADLINE_EXCEEDED)
    assert outputs_of(replies[stays])["rows"][1] == [1]
    assert served.queues[0]["expired"] == 1


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    mix=st.lists(st.tuples(st.integers(1, 4), st.sampled_from([-1, 0, 300, 10**7]), st.booleans()), max_size=60),
    timeout_us=st.sampled_from([0, 200, 2000]),
)
def test_whatever_is_cancelled_or_late_the_others_get_theirs(
    models: dict[str, Session], tmp_path: pathlib.Path, mix: list[tuple[int, int, bool]], timeout_us: int
) -> None:
    batching = options(max_batch_size=8, batch_timeout_micros=timeout_us, max_enqueued_batches=10_000)
    with BatchLoop(models["rows"], batching, tmp_path) as served:
        sent = {}
        for i, (count, remaining_us, cancelled) in enumerate(mix):
            payload = predict(outputs=["same"], x=tensor(numpy.full((count, 2), i)))
            request_id = served.send(payload, remaining_us)
            sent[request_id] = (payload, remaining_us, cancelled)
            if cancelled:
                served.gateway.cancel(request_id)
        for request_id, reply in served.gateway.replies(len(sent)).items():
            payload, remaining_us, cancelled = sent[request_id]
            if reply.code == Code.OK:
                assert reply == served.alone(payload)
            else:
                assert reply.code in ({Code.CANCELLED} if cancelled else set()) | (
                    {Code.DEADLINE_EXCEEDED} if 0 <= remaining_us < 10**7 else set()
                )


def test_stopping_answers_what_waits(models: dict[str, Session], tmp_path: pathlib.Path) -> None:
    served = BatchLoop(models["rows"], options(), tmp_path).__enter__()
    try:
        request_id = served.send(predict(x=tensor([[1]])))
        wait_until(lambda: bool(served.queues) and served.queues[0]["waiting"] == 1)
        stopping = threading.Thread(target=served.loop.stop)
        stopping.start()
        assert served.gateway.replies(1)[request_id].code == Code.CANCELLED
        stopping.join()
    finally:
        served.__exit__()


def test_a_large_request_is_read_elsewhere_and_merged_all_the_same(serve: Serve) -> None:
    served = serve("echo", max_batch_size=2)
    payloads = [predict("float32", x=tensor(numpy.full((1, 100_000), i))) for i in range(2)]
    assert served.ask(*payloads) == [served.alone(payload) for payload in payloads]
    assert served.queues[0]["batches"] == 1


def test_many_threads_of_many_clients_get_their_own(models: dict[str, Session], tmp_path: pathlib.Path) -> None:
    batching = options(max_batch_size=32, batch_timeout_micros=0, max_enqueued_batches=10_000, num_batch_threads=3)
    with BatchLoop(models["rows"], batching, tmp_path) as served:
        sent = {}
        for round_ in range(30):
            for i in range(40):
                number = 40 * round_ + i
                sent[served.send(predict(x=tensor([[number, 1]])))] = number
        for request_id, reply in served.gateway.replies(len(sent)).items():
            assert outputs_of(reply)["sum"][1] == [sent[request_id] + 1]
        assert served.queues[0]["rows"] == len(sent)
        assert served.queues[0]["batches"] < len(sent)


@pytest.mark.parametrize("weight", [1, 8])
def test_batches_of_two_versions_go_by_weight_where_there_is_one(
    models: dict[str, Session], tmp_path: pathlib.Path, weight: int
) -> None:
    count, other = 40, 77
    alone = options(max_batch_size=32, max_enqueued_batches=1000, num_batch_threads=1)
    # Too many rows for the thread that reads requests.
    images = predict("predict_images", images=tensor(numpy.zeros((32, 784))))
    with BatchLoop(models["mlp"], alone, tmp_path) as served:
        served.loop.register_servable(other, models["mlp"], alone)
        served.loop.register_servable(78, models["mlp"], options(max_batch_size=4000, num_batch_threads=1))
        served.loop.set_weight(other, weight)
        # Keeps the only thread while the others come in.
        served.gateway.send(10_000, 78, predict("predict_images", images=tensor(numpy.zeros((4000, 784)))))
        wait_until(lambda: any(queue["waiting"] == 0 for queue in served.loop.batch_queues(78)))
        for i in range(count):
            served.gateway.send(i, other, images)
            served.gateway.send(1000 + i, 1, images)
        replies = [served.gateway.receive() for _ in range(2 * count + 1)]
        assert {reply.code for _, reply in replies} == {Code.OK}
        served.loop.withdraw(other)
        served.loop.withdraw(78)
    first = [request_id for request_id, _ in replies if request_id != 10_000][:count]
    ours = sum(request_id < 1000 for request_id in first)
    assert ours > 0.7 * count if weight > 1 else ours < 0.7 * count
