"""The console's memory of states: all of them, in order, and not without bound."""

from tensorgate.gateway.console.state_history import MAX_STATES, MAX_VERSIONS, StateHistory
from tensorgate.gateway.core.event_bus import EventBus
from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.servable_state import ManagerState, ServableState
from tensorgate.protos.status_codes import Code, ServingError

LOADING, AVAILABLE, END = ManagerState.LOADING, ManagerState.AVAILABLE, ManagerState.END


class Scene:
    """A history and the bus it listens to."""

    def __init__(self) -> None:
        self.bus: EventBus[ServableState] = EventBus()
        self.history = StateHistory(self.bus)
        self.time_us = 0

    def say(self, version: int, state: ManagerState, error: ServingError | None = None) -> None:
        self.time_us += 1
        self.bus.publish(ServableState(ServableId("m", version), state, error, self.time_us))

    def states(self) -> dict[int, list[str]]:
        return {its[0].id.version: [each.state.name for each in its] for its in self.history.versions("m")}


def test_every_state_is_kept_in_order_the_largest_version_first_and_errors_with_them() -> None:
    scene = Scene()
    broken = ServingError(Code.NOT_FOUND, "no SavedModel")
    for version in (1, 10, 2):
        scene.say(version, LOADING)
    scene.say(1, AVAILABLE)
    scene.say(2, END, broken)
    assert list(scene.states().items()) == [(10, ["LOADING"]), (2, ["LOADING", "END"]), (1, ["LOADING", "AVAILABLE"])]
    assert scene.history.versions("m")[1][-1].error is broken
    assert scene.history.names() == ["m"]
    assert scene.history.versions("other") == []


def test_a_version_that_comes_and_goes_keeps_its_last_states() -> None:
    scene = Scene()
    for _ in range(MAX_STATES):
        scene.say(1, LOADING)
        scene.say(1, END)
    (states,) = scene.history.versions("m")
    assert len(states) == MAX_STATES
    assert states[-1].time_us == 2 * MAX_STATES


def test_versions_that_have_ended_are_forgotten_first_ended_first_gone_and_those_that_serve_never() -> None:
    scene = Scene()
    scene.say(1, AVAILABLE)
    for version in range(2, MAX_VERSIONS + 4):
        scene.say(version, END)
    assert sorted(scene.states()) == [1, *range(5, MAX_VERSIONS + 4)]
