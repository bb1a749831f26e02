"""Upstream's batching_session_test.cc, asked of the worker's batch scheduler.

A test bears the name of upstream's case. Upstream runs most of them twice, with splitting off and on; so do these.
"""

import pathlib
from collections.abc import Iterator

import pytest

from tensorgate._native.session import Session
from tensorgate._native.tf_c_api import load_library
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.servables.tensorflow.session_bundle_config_pb2 import BatchingParameters
from tensorgate.protos.tensorgate.config.model_settings_pb2 import ModelSettings
from tensorgate.workers.batching import batching_options
from tensorgate.workers.saved_model import open_saved_model
from tests.fakes.data_gateway import Reply
from tests.harness.batch_loop import BatchLoop, options, outputs_of, predict, tensor

SHAPES_DIFFER = (
    "Tensors with name '{}' from different tasks have different shapes and padding is turned off. Set"
    " pad_variable_length_inputs to true, or ensure that all tensors with the same name have equal dimensions starting"
    " with the first dim."
)


@pytest.fixture(scope="module")
def models(saved_models: pathlib.Path) -> Iterator[dict[str, Session]]:
    load_library()
    opened = {
        name: open_saved_model(str(saved_models / name / "1"), 1, ["serve"], b"")
        for name in ("half_plus_two", "rows", "pair", "slow", "echo")
    }
    yield opened
    for session in opened.values():
        session.close()


@pytest.fixture(params=[False, True], ids=["whole", "splitting"])
def splitting(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def parameters_of(**fields: object) -> BatchingParameters:
    parameters = BatchingParameters()
    for name, value in fields.items():
        if name == "allowed_batch_sizes":
            parameters.allowed_batch_sizes.extend(value)  # type: ignore[arg-type]
        else:
            getattr(parameters, name).value = value
    return parameters


def refusal_of(**fields: object) -> ServingError:
    with pytest.raises(ServingError) as caught:
        batching_options("common", parameters_of(**fields).SerializeToString(), "/nowhere", ModelSettings())
    return caught.value


def halves(reply: Reply) -> list[float]:
    return list(outputs_of(reply)["y"][1])


def test_tensor_signature_from_signature_def(models: dict[str, Session], tmp_path: pathlib.Path) -> None:
    with BatchLoop(models["pair"], options(max_batch_size=1), tmp_path) as served:
        served.ask(predict(a=tensor([1]), b=tensor([2])), predict(b=tensor([1]), a=tensor([2])))
        assert [(queue["num_inputs"], queue["num_outputs"]) for queue in served.queues] == [(2, 2)]


def test_tensor_signature_from_signature_defs(models: dict[str, Session], tmp_path: pathlib.Path) -> None:
    with BatchLoop(models["pair"], options(max_batch_size=1), tmp_path) as served:
        # Two signatures of the same tensors are one queue.
        served.ask(predict(a=tensor([1]), b=tensor([2])), predict("with_default", a=tensor([2])))
        assert len(served.queues) == 1


def test_basic(models: dict[str, Session], tmp_path: pathlib.Path, *, splitting: bool) -> None:
    batching = options(max_batch_size=4, enable_large_batch_splitting=splitting)
    with BatchLoop(models["half_plus_two"], batching, tmp_path) as served:
        first, second = served.ask(predict(x=tensor([100, 42])), predict(x=tensor([71.5, 18.3])))
        assert halves(first) == [51.0, 22.0]
        assert halves(second) == pytest.approx([36.75, 10.15])
        assert served.timing(1).batch_rows == 4
        assert served.queues[0]["batches"] == 1


def test_batching_with_padding(models: dict[str, Session], tmp_path: pathlib.Path, *, splitting: bool) -> None:
    batching = options(max_batch_size=2, pad_variable_length_inputs=True, enable_large_batch_splitting=splitting)
    with BatchLoop(models["echo"], batching, tmp_path) as served:
        small, large = served.ask(
            predict("float32", x=tensor([[[1, 2], [3, 4]]])),
            predict("float32", x=tensor([[[5, 6, 7], [8, 9, 10], [11, 12, 13]]])),
        )
        assert outputs_of(small)["y"] == ((1, 3, 3), [1, 2, 1, 3, 4, 1, 1, 1, 1])
        assert outputs_of(large)["y"] == ((1, 3, 3), [5, 6, 7, 8, 9, 10, 11, 12, 13])


def test_batching_with_large_batch(models: dict[str, Session], tmp_path: pathlib.Path, *, splitting: bool) -> None:
    batching = options(
        max_batch_size=3, max_execution_batch_size=2 if splitting else 3, enable_large_batch_splitting=splitting,
        batch_timeout_micros=0,
    )  # fmt: skip
    with BatchLoop(models["rows"], batching, tmp_path) as served:
        fits, too_large = served.ask(predict(x=tensor([[5], [7], [9]])), predict(x=tensor([[1], [2], [3], [4]])))
        assert outputs_of(fits)["sum"] == ((3,), [5, 7, 9])
        assert outputs_of(fits)["rows"][1] == ([2, 2, 1] if splitting else [3, 3, 3])
        assert too_large[:2] == (Code.INVALID_ARGUMENT, "Task size 4 is larger than maximum input batch size 3")


def test_batch_handles_split_error(models: dict[str, Session], tmp_path: pathlib.Path) -> None:
    batching = options(
        max_batch_size=4, max_execution_batch_size=2, enable_large_batch_splitting=True, refuse_mixed_shapes=True
    )
    with BatchLoop(models["rows"], batching, tmp_path) as served:
        # The second one fills the batch of the first.
        replies = served.ask(predict(x=tensor([[1]])), predict(x=tensor([[2, 3]])))
        assert {reply[:2] for reply in replies} == {(Code.FAILED_PRECONDITION, SHAPES_DIFFER.format("x:0"))}


def test_batching_lazy_split(models: dict[str, Session], tmp_path: pathlib.Path) -> None:
    batching = options(max_batch_size=2, max_execution_batch_size=1, enable_large_batch_splitting=True)
    with BatchLoop(models["half_plus_two"], batching, tmp_path) as served:
        first, second = served.ask(predict(x=tensor([100, 42])), predict(x=tensor([71.5, 18.5])))
        assert halves(first) == [51.0, 22.0]
        assert halves(second) == [36.75, 10.25]
        assert served.queues[0]["batches"] == 4


def test_batching_with_padding_and_cost(models: dict[str, Session], tmp_path: pathlib.Path) -> None:
    """What a request has cost is told by its reply: its batch's run time and rows."""
    batching = options(max_batch_size=2, pad_variable_length_inputs=True)
    with BatchLoop(models["rows"], batching, tmp_path) as served:
        served.ask(predict(x=tensor([[1]])), predict(x=tensor([[2, 3]])))
        assert served.timing(1).run_us == served.timing(2).run_us > 0
        assert (served.timing(1).batch_rows, served.timing(1).padding_rows) == (2, 0)


def test_batching_with_cost(models: dict[str, Session], tmp_path: pathlib.Path) -> None:
    """Of a request that is split the run times of its parts are added up."""
    batching = options(max_batch_size=4, max_execution_batch_size=1, enable_large_batch_splitting=True)
    with BatchLoop(models["rows"], batching, tmp_path) as served:
        served.ask(predict(x=tensor([[1], [2], [3]])))
        assert served.timing(1).run_us == served.queues[0]["run_us"] > 0
        assert served.queues[0]["batches"] == 3


def test_unequal_tensor_shapes_with_padding_turned_off(models: dict[str, Session], tmp_path: pathlib.Path) -> None:
    batching = options(max_batch_size=2, refuse_mixed_shapes=True)
    with BatchLoop(models["rows"], batching, tmp_path) as served:
        replies = served.ask(predict(x=tensor([[1, 2]])), predict(x=tensor([[1, 2, 3]])))
        assert {reply[:2] for reply in replies} == {(Code.FAILED_PRECONDITION, SHAPES_DIFFER.format("x:0"))}


def test_singleton_batch(models: dict[str, Session], tmp_path: pathlib.Path, *, splitting: bool) -> None:
    batching = options(batch_timeout_micros=0, enable_large_batch_splitting=splitting)
    with BatchLoop(models["half_plus_two"], batching, tmp_path) as served:
        assert halves(served.ask(predict(x=tensor([100, 42])))[0]) == [51.0, 22.0]


def test_request_that_doesnt_match_signature_gets_run_anyway(
    models: dict[str, Session], tmp_path: pathlib.Path, *, splitting: bool
) -> None:
    """In upstream's server, too, what no signature declares gets a queue of its own on first use."""
    batching = options(max_batch_size=2, enable_large_batch_splitting=splitting)
    with BatchLoop(models["rows"], batching, tmp_path) as served:
        # Neither waits for the other, and both are batched.
        whole = served.send(predict(x=tensor([[1, 2], [3, 4]])))
        part = served.send(predict(outputs=["sum"], x=tensor([[5, 6], [7, 8]])))
        replies = served.gateway.replies(2)
        assert outputs_of(replies[whole])["sum"] == ((2,), [3, 7])
        assert outputs_of(replies[part]) == {"sum": ((2,), [11, 15])}
        assert sorted(queue["num_outputs"] for queue in served.queues) == [1, 3]


def test_request_with_incompatible_input_tensor_sizes(
    models: dict[str, Session], tmp_path: pathlib.Path, *, splitting: bool
) -> None:
    batching = options(enable_large_batch_splitting=splitting)
    with BatchLoop(models["rows"], batching, tmp_path) as served:
        request = predict("two", x=tensor([[1], [2]]), y=tensor([[1]], "int64"))
        assert served.ask(request)[0][:2] == (
            Code.INVALID_ARGUMENT,
            "Batching Run() input tensors must have equal 0th-dimension size",
        )
        assert not served.queues


def test_allowed_batch_sizes_no_padding_needed(
    models: dict[str, Session], tmp_path: pathlib.Path, *, splitting: bool
) -> None:
    batching = options(batch_timeout_micros=0, allowed_batch_sizes=(2, 4), enable_large_batch_splitting=splitting)
    with BatchLoop(models["rows"], batching, tmp_path) as served:
        assert outputs_of(served.ask(predict(x=tensor([[1], [2]])))[0])["rows"][1] == [2, 2]
        assert (served.timing(1).batch_rows, served.timing(1).padding_rows) == (2, 0)
        queue = served.queues[0]
        assert (queue["rows"], queue["padding_rows"], queue["batches_of_size"][:4]) == (2, 0, [0, 1, 0, 0])


def test_allowed_batch_sizes_require_padding(
    models: dict[str, Session], tmp_path: pathlib.Path, *, splitting: bool
) -> None:
    batching = options(batch_timeout_micros=0, allowed_batch_sizes=(1, 3, 4), enable_large_batch_splitting=splitting)
    with BatchLoop(models["rows"], batching, tmp_path) as served:
        answer = outputs_of(served.ask(predict(x=tensor([[1], [2]])))[0])
        assert answer["rows"] == ((2,), [3, 3])
        assert answer["same"] == ((2, 1), [1, 2])
        assert (served.timing(1).batch_rows, served.timing(1).padding_rows) == (3, 1)
        assert served.queues[0]["padding_rows"] == 1


def test_unsorted_allowed_batch_sizes_rejected() -> None:
    error = refusal_of(max_batch_size=4, allowed_batch_sizes=[4, 2])
    assert error.code is Code.INVALID_ARGUMENT
    assert "allowed_batch_sizes" in error.message


def test_final_allowed_batch_size_larger_than_max_batch_size_rejected() -> None:
    assert refusal_of(max_batch_size=4, allowed_batch_sizes=[1, 5]) == ServingError(
        Code.INVALID_ARGUMENT,
        "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 5; expected 4",
    )


def test_different_order_for_input_and_output_tensors(
    models: dict[str, Session], tmp_path: pathlib.Path, *, splitting: bool
) -> None:
    batching = options(max_batch_size=4, enable_large_batch_splitting=splitting)
    with BatchLoop(models["pair"], batching, tmp_path) as served:
        a, b = tensor([1, 2]), tensor([10, 20])
        first, second = served.ask(
            predict(outputs=["sum", "product"], a=a, b=b), predict(outputs=["product", "sum"], b=b, a=a)
        )
        for reply in (first, second):
            assert outputs_of(reply) == {"sum": ((2,), [11, 22]), "product": ((2,), [10, 40])}
        assert served.queues[0]["batches"] == 1


def test_multiple_signatures(models: dict[str, Session], tmp_path: pathlib.Path, *, splitting: bool) -> None:
    batching = options(max_batch_size=2, enable_large_batch_splitting=splitting)
    with BatchLoop(models["rows"], batching, tmp_path) as served:
        one = served.send(predict(x=tensor([[1]])))
        two = served.send(predict("two", x=tensor([[1], [2]]), y=tensor([[3], [4]], "int64")))
        # The second signature's batch is full, the first one's waits.
        assert [each for each, _ in [served.gateway.receive()]] == [two]
        served.send(predict(x=tensor([[2]])))
        assert outputs_of(served.gateway.replies(2)[one])["rows"][1] == [2]


def test_enqueued_longer_than_timeout(models: dict[str, Session], tmp_path: pathlib.Path) -> None:
    """The text is upstream's; the code is that of a deadline, not RESOURCE_EXHAUSTED."""
    batching = options(max_batch_size=2, batch_timeout_micros=50_000)
    with BatchLoop(models["half_plus_two"], batching, tmp_path) as served:
        late = served.send(predict(x=tensor([1])), remaining_us=1000)
        assert served.gateway.replies(1)[late][:2] == (
            Code.DEADLINE_EXCEEDED,
            "Run() timeout exceeded while waiting in batching queue",
        )
        assert (served.queues[0]["expired"], served.queues[0]["batches"]) == (1, 0)


@pytest.mark.skip(
    reason="a request cannot bring a thread pool of its own: there is no such API outside upstream's library"
)
def test_thread_pool_options() -> None:
    """Nothing to be asked."""


def test_subset_output_tensors(models: dict[str, Session], tmp_path: pathlib.Path, *, splitting: bool) -> None:
    batching = options(max_batch_size=2, enable_large_batch_splitting=splitting)
    with BatchLoop(models["pair"], batching, tmp_path) as served:
        first, second = served.ask(
            predict(outputs=["sum"], a=tensor([1]), b=tensor([2])),
            predict(outputs=["sum"], a=tensor([3]), b=tensor([4])),
        )
        assert outputs_of(first) == {"sum": ((1,), [3])}
        assert outputs_of(second) == {"sum": ((1,), [7])}
        assert served.queues[0]["batches"] == 1
