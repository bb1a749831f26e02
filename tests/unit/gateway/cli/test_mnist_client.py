"""The tutorial's client against a channel that answers in memory."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from tensorgate.gateway.cli.mnist_client import predict_request, run_inference
from tensorgate.gateway.cli.mnist_data import Digits
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse


class FakeError(grpc.RpcError):
    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.NOT_FOUND

    def details(self) -> str:
        return "Servable not found for request: Latest(mnist)"


Answer = PredictResponse | grpc.RpcError


class FakeChannel:
    """Answers request n with ``answer(n)``, on a thread of its own, once ``concurrency`` requests are in flight.

    A call of grpcio's has the interface of a Future.
    """

    def __init__(
        self, executor: ThreadPoolExecutor, answer: Callable[[int], Answer], concurrency: int, num_requests: int
    ) -> None:
        self.requests: list[PredictRequest] = []
        self.most_in_flight = 0
        self._executor = executor
        self._answer = answer
        self._concurrency = concurrency
        self._num_requests = num_requests
        self._in_flight: list[tuple[Future[PredictResponse], Answer]] = []

    def unary_unary(self, *_arguments: object, **_options: object) -> "FakeChannel":
        return self

    def future(self, request: PredictRequest, timeout: float) -> "Future[PredictResponse]":
        assert timeout > 0
        call: Future[PredictResponse] = Future()
        self._in_flight.append((call, self._answer(len(self.requests))))
        self.requests.append(request)
        self.most_in_flight = max(self.most_in_flight, len(self._in_flight))
        if len(self._in_flight) == self._concurrency or len(self.requests) == self._num_requests:
            ended, self._in_flight = self._in_flight, []
            self._executor.submit(finish, ended)
        return call


def finish(ended: "list[tuple[Future[PredictResponse], Answer]]") -> None:
    for call, answer in ended:
        if isinstance(answer, PredictResponse):
            call.set_result(answer)
        else:
            call.set_exception(answer)


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def scores_of(digit: int, *, packed: bool = False) -> PredictResponse:
    scores = np.zeros(10, "<f4")
    scores[digit] = 1
    response = PredictResponse()
    tensor = response.outputs["scores"]
    if packed:
        tensor.tensor_content = scores.tobytes()
    else:
        tensor.float_val.extend(scores.tolist())
    return response


DIGITS = Digits(np.linspace(0, 1, 6 * 784, dtype=np.float32).reshape(6, 784), np.array([0, 1, 2, 3, 4, 5]))


def test_a_request_has_the_form_of_the_tutorials() -> None:
    request = predict_request(DIGITS.pixels[3], "mnist")
    assert (request.model_spec.name, request.model_spec.signature_name) == ("mnist", "predict_images")
    (tensor,) = (request.inputs[key] for key in request.inputs)
    assert tensor.dtype == types_pb2.DT_FLOAT
    assert [dim.size for dim in tensor.tensor_shape.dim] == [1, 784]
    np.testing.assert_array_equal(np.frombuffer(tensor.tensor_content, "<f4"), DIGITS.pixels[3])


@pytest.mark.parametrize("concurrency", [1, 2, 4])
def test_every_image_is_asked_about_once_with_no_more_requests_in_flight_than_allowed(
    executor: ThreadPoolExecutor, concurrency: int
) -> None:
    channel = FakeChannel(
        executor, lambda n: scores_of(n if n != 2 else 9, packed=n % 2 == 0), concurrency, len(DIGITS)
    )
    replies: list[bool] = []
    result = run_inference(channel, DIGITS, concurrency=concurrency, on_reply=replies.append)
    assert (result.num_images, result.num_wrong) == (6, 1)
    assert result.error_rate == pytest.approx(1 / 6)
    assert result.requests_per_s > 0
    assert sorted(replies) == [False, True, True, True, True, True]
    assert channel.most_in_flight == concurrency
    assert [request.inputs["images"].tensor_content for request in channel.requests] == [
        image.tobytes() for image in DIGITS.pixels
    ]


def test_the_first_failure_ends_the_sending_and_is_raised_with_its_code_and_message(
    executor: ThreadPoolExecutor,
) -> None:
    channel = FakeChannel(executor, lambda n: FakeError() if n == 1 else scores_of(n), 2, len(DIGITS))
    with pytest.raises(ServingError) as caught:
        run_inference(channel, DIGITS, concurrency=2, on_reply=lambda _right: None)
    assert caught.value == ServingError(Code.NOT_FOUND, "Servable not found for request: Latest(mnist)")
    assert len(channel.requests) < len(DIGITS)


def test_an_answer_without_scores_is_a_failure(executor: ThreadPoolExecutor) -> None:
    channel = FakeChannel(executor, lambda _n: PredictResponse(), 1, len(DIGITS))
    with pytest.raises(ServingError, match="no scores"):
        run_inference(channel, DIGITS, concurrency=1, on_reply=lambda _right: None)
