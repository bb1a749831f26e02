"""Deadlines: never early, at most a tick late, near and far, on one timer."""

import asyncio
import random
from collections.abc import Iterator

import pytest

from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.dispatch.call import NO_METADATA, Method
from tensorgate.gateway.dispatch.deadlines import TICKS_PER_S, Deadlines
from tensorgate.gateway.dispatch.pending_request import PendingRequest
from tensorgate.gateway.dispatch.route_table import RoutedVersion
from tests.fakes.manual_time import ManualTime


class Nowhere:
    """A Hosting without a copy, and an Abandoner that does nothing."""

    signature_def_map = b""
    replicas = ()

    def abandon(self, request: PendingRequest) -> None:
        raise AssertionError(request)


class Scene:
    """Deadlines with manual time; ``fired`` has the requests and the moments at which they expired."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.time = ManualTime()
        self.fired: list[tuple[PendingRequest, float]] = []
        self.deadlines = Deadlines(self.time, self.time, lambda each: self.fired.append((each, self.time.now_s)))

    def add(self, timeout_s: float) -> PendingRequest:
        deadline_s = self.time.now_s + timeout_s
        version = RoutedVersion(ServableId("m", 1), Nowhere())
        request = PendingRequest(version, Method.PREDICT, b"", NO_METADATA, deadline_s, self.loop, Nowhere())
        self.deadlines.add(request, deadline_s, self.time.now_s)
        return request


@pytest.fixture
def scene() -> Iterator[Scene]:
    loop = asyncio.new_event_loop()
    yield Scene(loop)
    loop.close()


@pytest.mark.parametrize("timeout_s", [0.0001, 0.0037, 0.5, 1.999, 2.0, 2.0001, 2.5, 3.99, 10.0, 3600.123])
def test_a_deadline_fires_not_early_and_at_most_a_tick_late(scene: Scene, timeout_s: float) -> None:
    request = scene.add(timeout_s)
    scene.time.advance(timeout_s + 1)
    ((fired, at_s),) = scene.fired
    assert fired is request
    assert request.deadline_s is not None
    assert 0 <= at_s - request.deadline_s <= 1 / TICKS_PER_S + 0.002
    assert len(scene.deadlines) == 0
    assert scene.time.num_pending == 0


def test_many_deadlines_fire_each_once_and_those_removed_never(scene: Scene) -> None:
    rng = random.Random(5)
    requests = []
    for _ in range(500):
        requests.append(scene.add(rng.uniform(0.001, 20)))
        scene.time.advance(rng.uniform(0, 0.02))
    removed = [each for each in rng.sample(requests, 200) if each not in {fired for fired, _ in scene.fired}]
    for each in removed:
        scene.deadlines.remove(each)
    scene.time.advance(30)
    assert sorted(id(each) for each, _ in scene.fired) == sorted(id(each) for each in requests if each not in removed)
    for each, at_s in scene.fired:
        assert each.deadline_s is not None
        assert 0 <= at_s - each.deadline_s <= 1 / TICKS_PER_S + 0.002


def test_there_is_one_timer_however_many_deadlines(scene: Scene) -> None:
    for timeout_s in (5.0, 1.0, 9.0, 0.1, 0.1):
        scene.add(timeout_s)
    assert scene.time.num_pending == 1


def test_requests_that_come_and_go_with_far_deadlines_leave_a_bucket_per_second(scene: Scene) -> None:
    for _ in range(1000):
        scene.deadlines.remove(scene.add(3600))
        scene.time.advance(0.01)
    assert len(scene.deadlines) == 0
    assert len(scene.deadlines._buckets) == len(scene.deadlines._ticks) <= 12


def test_a_settled_request_does_not_expire(scene: Scene) -> None:
    first, second = scene.add(1.0), scene.add(1.0)
    first.is_settled = True
    scene.time.advance(2)
    assert [fired for fired, _ in scene.fired] == [second]


def test_closing_forgets_all(scene: Scene) -> None:
    scene.add(1.0)
    scene.deadlines.close()
    scene.deadlines.close()
    assert scene.time.num_pending == 0
