"""The gateway's queue: order, removal from the middle, bounds that say what they are."""

import asyncio
from collections.abc import Iterator

import pytest

from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.dispatch.call import Method, RequestMetadata
from tensorgate.gateway.dispatch.pending_request import PendingRequest
from tensorgate.gateway.dispatch.request_queue import RequestQueue
from tensorgate.gateway.dispatch.route_table import RoutedVersion
from tensorgate.protos.status_codes import Code, ServingError


class Nowhere:
    """A Hosting without a copy, and an Abandoner that does nothing."""

    signature_def_map = b""
    replicas = ()

    def abandon(self, request: PendingRequest) -> None:
        raise AssertionError(request)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def request(loop: asyncio.AbstractEventLoop, payload: bytes = b"", priority: int = 0) -> PendingRequest:
    version = RoutedVersion(ServableId("m", 1), Nowhere())
    return PendingRequest(version, Method.PREDICT, payload, RequestMetadata(priority), None, loop, Nowhere())


def test_equal_priorities_leave_in_order_of_arrival_and_larger_ones_first(loop: asyncio.AbstractEventLoop) -> None:
    queue = RequestQueue("worker-0", 10, 1000)
    low, first, second, high = (request(loop, priority=p) for p in (-1, 0, 0, 5))
    for each in (first, low, high, second):
        queue.push(each)
    assert [queue.pop() for _ in range(len(queue))] == [high, first, second, low]
    with pytest.raises(IndexError):
        queue.pop()


def test_removal_from_the_middle_keeps_order_and_counts(loop: asyncio.AbstractEventLoop) -> None:
    queue = RequestQueue("worker-0", 10, 1000)
    requests = [request(loop, b"12345") for _ in range(3)]
    for each in requests:
        queue.push(each)
    queue.remove(requests[1])
    assert (len(queue), queue.num_bytes) == (2, 10)
    assert [queue.pop(), queue.pop()] == [requests[0], requests[2]]
    assert (len(queue), queue.num_bytes) == (0, 0)


def test_a_full_queue_names_the_limit_in_requests(loop: asyncio.AbstractEventLoop) -> None:
    queue = RequestQueue("worker-0", 1, 1000)
    queue.push(request(loop))
    with pytest.raises(ServingError, match="max_queued_requests is 1") as caught:
        queue.push(request(loop))
    assert caught.value.code == Code.RESOURCE_EXHAUSTED
    assert len(queue) == 1


def test_a_full_queue_names_the_limit_in_bytes(loop: asyncio.AbstractEventLoop) -> None:
    queue = RequestQueue("worker-0", 10, 8)
    queue.push(request(loop, b"12345678"))
    with pytest.raises(ServingError, match="max_queued_bytes is 8") as caught:
        queue.push(request(loop, b"1"))
    assert caught.value.code == Code.RESOURCE_EXHAUSTED
    queue.pop()
    queue.push(request(loop, b"1"))
