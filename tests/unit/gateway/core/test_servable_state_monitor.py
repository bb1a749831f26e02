"""The state monitor: what it remembers of versions, and what waiting for models means."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tensorgate.gateway.core.event_bus import EventBus
from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.servable_state import ManagerState, ServableState
from tensorgate.gateway.core.servable_state_monitor import ServableStateMonitor
from tensorgate.protos.status_codes import Code, ServingError

START, LOADING, AVAILABLE = ManagerState.START, ManagerState.LOADING, ManagerState.AVAILABLE
UNLOADING, END = ManagerState.UNLOADING, ManagerState.END
BROKEN = ServingError(Code.NOT_FOUND, "no SavedModel")


class Scene:
    """A monitor and the bus it listens to."""

    def __init__(self) -> None:
        self.bus: EventBus[ServableState] = EventBus()
        self.monitor = ServableStateMonitor(self.bus)
        self.time_us = 0

    def say(self, name: str, version: int, state: ManagerState, error: ServingError | None = None) -> ServableState:
        self.time_us += 1
        said = ServableState(ServableId(name, version), state, error, self.time_us)
        self.bus.publish(said)
        return said


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(scenario(), 10)

    asyncio.run(limited())


async def turns() -> None:
    """Lets everything that can go on without time passing go on."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_monitor_that_heard_nothing_knows_nothing() -> None:
    monitor = Scene().monitor
    assert monitor.names() == []
    assert monitor.versions("m") == []
    assert monitor.state(ServableId("m", 1)) is None


def test_the_last_state_of_a_version_replaces_the_one_before_with_error_and_time() -> None:
    scene = Scene()
    scene.say("m", 1, START)
    scene.say("m", 1, LOADING)
    last = scene.say("m", 1, END, BROKEN)
    assert scene.monitor.state(ServableId("m", 1)) == last
    assert scene.monitor.versions("m") == [last]
    assert (last.error, last.time_us) == (BROKEN, 3)


def test_versions_are_listed_largest_first_whatever_the_order_of_events() -> None:
    scene = Scene()
    for version in (2, 10, -1, 9):
        scene.say("m", version, AVAILABLE)
    scene.say("m", 10, UNLOADING)
    assert [state.id.version for state in scene.monitor.versions("m")] == [10, 9, 2, -1]


def test_versions_that_have_ended_stay_listed() -> None:
    scene = Scene()
    scene.say("m", 1, END)
    scene.say("m", 2, END, BROKEN)
    scene.say("m", 3, AVAILABLE)
    assert [(each.id.version, each.error) for each in scene.monitor.versions("m")] == [
        (3, None),
        (2, BROKEN),
        (1, None),
    ]


def test_a_version_that_begins_again_is_no_longer_said_to_have_failed() -> None:
    scene = Scene()
    scene.say("m", 1, END, BROKEN)
    scene.say("m", 1, START)
    state = scene.monitor.state(ServableId("m", 1))
    assert state is not None
    assert (state.state, state.error) == (START, None)


def test_models_are_kept_apart() -> None:
    scene = Scene()
    scene.say("a", 1, AVAILABLE)
    scene.say("b", 1, LOADING)
    assert scene.monitor.names() == ["a", "b"]
    assert [each.state for each in scene.monitor.versions("a")] == [AVAILABLE]
    assert [each.state for each in scene.monitor.versions("b")] == [LOADING]


def test_what_a_reader_got_does_not_change_under_it() -> None:
    scene = Scene()
    scene.say("m", 1, LOADING)
    versions = scene.monitor.versions("m")
    scene.say("m", 1, AVAILABLE)
    scene.say("m", 2, START)
    assert [each.state for each in versions] == [LOADING]


def test_waiting_for_no_models_returns_at_once() -> None:
    async def scenario() -> None:
        assert await Scene().monitor.wait_until_settled([]) == {}

    run(scenario)


@pytest.mark.parametrize(("state", "error"), [(AVAILABLE, None), (END, BROKEN), (END, None)])
def test_waiting_for_models_that_have_settled_returns_at_once(state: ManagerState, error: ServingError | None) -> None:
    async def scenario() -> None:
        scene = Scene()
        said = scene.say("m", 1, state, error)
        assert await scene.monitor.wait_until_settled(["m", "m"]) == {"m": said}

    run(scenario)


@pytest.mark.parametrize("state", [START, LOADING, UNLOADING])
def test_a_version_on_its_way_does_not_settle_its_model(state: ManagerState) -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.say("m", 1, state)
        waiting = asyncio.ensure_future(scene.monitor.wait_until_settled(["m"]))
        await turns()
        assert not waiting.done()
        said = scene.say("m", 1, AVAILABLE)
        assert await waiting == {"m": said}

    run(scenario)


def test_waiting_ends_when_the_last_model_has_settled() -> None:
    async def scenario() -> None:
        scene = Scene()
        waiting = asyncio.ensure_future(scene.monitor.wait_until_settled(["a", "b"]))
        await turns()
        a = scene.say("a", 1, AVAILABLE)
        scene.say("other", 1, AVAILABLE)
        await turns()
        assert not waiting.done()
        b = scene.say("b", 4, END, BROKEN)
        assert await waiting == {"a": a, "b": b}

    run(scenario)


def test_of_several_settled_versions_the_largest_one_counts() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.say("m", 1, AVAILABLE)
        largest_settled = scene.say("m", 2, END, BROKEN)
        scene.say("m", 3, LOADING)
        assert await scene.monitor.wait_until_settled(["m"]) == {"m": largest_settled}

    run(scenario)


def test_several_may_wait_at_once() -> None:
    async def scenario() -> None:
        scene = Scene()
        first = asyncio.ensure_future(scene.monitor.wait_until_settled(["a"]))
        second = asyncio.ensure_future(scene.monitor.wait_until_settled(["a", "b"]))
        await turns()
        scene.say("a", 1, AVAILABLE)
        await turns()
        assert (first.done(), second.done()) == (True, False)
        scene.say("b", 1, AVAILABLE)
        assert set(await second) == {"a", "b"}

    run(scenario)


# --- versions that wait for their files -------------------------------------------------------------------------------


def waiting(version: int) -> ServableState:
    return ServableState(ServableId("m", version), START, ServingError(Code.UNAVAILABLE, "it lacks a file"), 9)


def test_versions_that_wait_are_listed_among_the_others_in_place_of_ended_ones_only() -> None:
    scene = Scene()
    one = scene.say("m", 1, AVAILABLE)
    scene.say("m", 2, END)
    three = scene.say("m", 3, LOADING)
    scene.monitor.set_waiting("m", [waiting(2), waiting(3), waiting(4)])
    assert scene.monitor.versions("m") == [waiting(4), three, waiting(2), one]
    scene.monitor.set_waiting("m", [])
    assert [state.id.version for state in scene.monitor.versions("m")] == [3, 2, 1]


def test_a_model_of_which_versions_only_wait_is_known_but_not_settled() -> None:
    scene = Scene()
    scene.monitor.set_waiting("m", [waiting(1)])
    assert scene.monitor.names() == ["m"]
    assert scene.monitor.settled("m") is None


def test_what_was_known_before_settles_nothing() -> None:
    scene = Scene()
    old = scene.say("m", 1, END, BROKEN)

    async def scenario() -> None:
        task = asyncio.ensure_future(scene.monitor.wait_until_settled(["m"], [old]))
        await turns()
        assert not task.done()
        new = scene.say("m", 1, END, BROKEN)
        assert await task == {"m": new}

    run(scenario)


def test_the_end_of_models_is_that_of_all_their_versions() -> None:
    scene = Scene()
    scene.say("m", 1, UNLOADING)
    scene.say("n", 1, END)

    async def scenario() -> None:
        await scene.monitor.wait_until_ended(["n", "unheard of"])
        task = asyncio.ensure_future(scene.monitor.wait_until_ended(["m", "n"]))
        await turns()
        assert not task.done()
        scene.say("m", 1, END)
        await task

    run(scenario)
