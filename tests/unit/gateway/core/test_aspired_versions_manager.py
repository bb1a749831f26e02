"""The manager's decisions: wishes and outcomes in, actions and published states out."""

import pytest

from tensorgate.gateway.core.aspired_version_policy import (
    AspiredVersionPolicy,
    AvailabilityPreservingPolicy,
    ResourcePreservingPolicy,
)
from tensorgate.gateway.core.aspired_versions_manager import (
    CANCELLED,
    Action,
    AspiredVersionsManager,
    Load,
    Retry,
    Unload,
)
from tensorgate.gateway.core.event_bus import EventBus
from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.servable_state import ManagerState, ServableState
from tensorgate.gateway.core.source import ServableData
from tensorgate.protos.status_codes import Code, ServingError
from tests.fakes.manual_clock import ManualClock

BROKEN = ServingError(Code.UNKNOWN, "injected error")
STUCK = ServingError(Code.INTERNAL, "cannot unload")


def at(version: int, name: str = "m") -> ServableId:
    return ServableId(name, version)


def found(version: int, name: str = "m") -> ServableData:
    return ServableData(at(version, name), f"/models/{name}/{version}")


def load(version: int, name: str = "m") -> Load:
    return Load(found(version, name))


def unload(version: int, name: str = "m") -> Unload:
    return Unload(at(version, name))


class Scene:
    """A manager, the clock it reads and what it published: (version, state, error) of model m, (name, …) of others."""

    def __init__(
        self,
        *,
        policy: AspiredVersionPolicy | None = None,
        max_num_load_retries: int = 1,
        max_parallel_loads: int = 10,
    ) -> None:
        self.clock = ManualClock()
        self.published: list[ServableState] = []
        bus: EventBus[ServableState] = EventBus()
        bus.subscribe(self.published.append)
        self.manager = AspiredVersionsManager(
            lambda _name: policy or AvailabilityPreservingPolicy(),
            bus,
            self.clock,
            max_num_load_retries=max_num_load_retries,
            max_parallel_loads=max_parallel_loads,
        )

    def want(self, *versions: int, name: str = "m") -> list[Action]:
        """A wish, and what it leads to."""
        self.manager.set_aspired_versions(name, [found(version, name) for version in versions])
        return self.manager.next_actions()

    def loaded(self, version: int, name: str = "m") -> list[Action]:
        """The load of a version succeeded and it is published."""
        assert self.manager.load_succeeded(at(version, name))
        self.manager.published(at(version, name))
        return self.manager.next_actions()

    def unloaded(self, version: int, error: ServingError | None = None) -> list[Action]:
        self.manager.unload_finished(at(version), error)
        return self.manager.next_actions()

    def states(self, version: int, name: str = "m") -> list[str]:
        return [each.state.name for each in self.published if each.id == at(version, name)]

    def last(self, version: int) -> tuple[ManagerState, ServingError | None]:
        state = [each for each in self.published if each.id == at(version)][-1]
        return state.state, state.error


def test_a_wish_leads_to_loads_highest_version_first() -> None:
    scene = Scene()
    assert scene.want(1, 3, 2) == [load(3), load(2), load(1)]


def test_an_action_is_handed_out_once() -> None:
    scene = Scene()
    assert scene.want(1) == [load(1)]
    assert scene.manager.next_actions() == []
    assert scene.want(1) == []
    scene.loaded(1)
    assert scene.want() == [unload(1)]
    assert scene.manager.next_actions() == []


def test_a_whole_life_is_published_state_by_state_with_its_times() -> None:
    scene = Scene()
    scene.want(1)
    scene.clock.advance(2.5)
    scene.loaded(1)
    scene.clock.advance(1)
    scene.want()
    scene.unloaded(1)
    assert [(each.state.name, each.time_us, each.error) for each in scene.published] == [
        ("START", 1_000_000_000, None),
        ("LOADING", 1_000_000_000, None),
        ("AVAILABLE", 1_002_500_000, None),
        ("UNLOADING", 1_003_500_000, None),
        ("END", 1_003_500_000, None),
    ]


def test_a_version_is_available_only_once_it_is_published() -> None:
    scene = Scene()
    scene.want(1)
    assert scene.manager.load_succeeded(at(1))
    assert scene.states(1) == ["START", "LOADING"]
    scene.manager.published(at(1))
    assert scene.states(1)[-1] == "AVAILABLE"


def test_the_old_version_goes_when_the_new_one_is_ready_and_not_before() -> None:
    scene = Scene()
    scene.want(1)
    scene.loaded(1)
    assert scene.want(2) == [load(2)]
    assert scene.manager.next_actions() == []
    assert scene.loaded(2) == [unload(1)]


def test_the_old_version_stays_when_the_new_one_fails() -> None:
    scene = Scene(max_num_load_retries=0)
    scene.want(1)
    scene.loaded(1)
    scene.want(2)
    assert not scene.manager.load_failed(at(2), BROKEN)
    assert scene.manager.next_actions() == []
    assert scene.last(1) == (ManagerState.AVAILABLE, None)


def test_with_the_resource_preserving_policy_the_new_version_waits_until_the_old_one_has_gone() -> None:
    scene = Scene(policy=ResourcePreservingPolicy())
    scene.want(1)
    scene.loaded(1)
    assert scene.want(2) == [unload(1)]
    assert scene.unloaded(1) == [load(2)]


def test_an_empty_wish_unloads_everything() -> None:
    scene = Scene()
    scene.want(1, 2)
    scene.loaded(1)
    scene.loaded(2)
    assert scene.want() == [unload(1), unload(2)]


def test_what_is_to_be_unloaded_comes_first_whichever_model_it_is_of() -> None:
    scene = Scene()
    scene.want(1, name="a")
    scene.loaded(1, name="a")
    scene.want(1)
    scene.loaded(1)
    scene.manager.set_aspired_versions("a", [found(2, "a")])
    scene.manager.set_aspired_versions("m", [])
    assert scene.manager.next_actions() == [unload(1), load(2, "a")]


def test_a_wish_for_one_model_says_nothing_of_another() -> None:
    scene = Scene()
    scene.want(1, name="a")
    scene.loaded(1, name="a")
    assert scene.want(1, name="b") == [load(1, "b")]
    assert scene.want(name="b") == []
    assert scene.states(1, "a")[-1] == "AVAILABLE"


def test_a_newer_wish_replaces_one_that_was_not_taken_up() -> None:
    scene = Scene()
    scene.manager.set_aspired_versions("m", [found(1)])
    assert scene.want(2) == [load(2)]
    assert scene.states(1) == []


def test_an_empty_wish_for_an_unknown_model_does_nothing() -> None:
    scene = Scene()
    assert scene.want() == []
    assert scene.published == []


def test_of_two_folders_for_one_version_the_first_counts() -> None:
    scene = Scene()
    scene.manager.set_aspired_versions("m", [ServableData(at(1), "/models/m/1"), ServableData(at(1), "/models/m/001")])
    assert scene.manager.next_actions() == [load(1)]


# --- failed loads -----------------------------------------------------------------------------------------------------


def test_a_failed_load_is_tried_again_as_often_as_allowed() -> None:
    scene = Scene(max_num_load_retries=2)
    scene.want(1)
    for attempt in (1, 2):
        assert scene.manager.load_failed(at(1), BROKEN)
        assert scene.manager.num_attempts(at(1)) == attempt
        assert scene.manager.retry_load(at(1), BROKEN) is Retry.LOAD
    last = ServingError(Code.UNKNOWN, "the last error")
    assert not scene.manager.load_failed(at(1), last)
    assert scene.last(1) == (ManagerState.END, last)
    assert scene.states(1) == ["START", "LOADING", "END"]


def test_a_load_that_succeeds_at_a_later_attempt_makes_the_version_available() -> None:
    scene = Scene()
    scene.want(1)
    scene.manager.load_failed(at(1), BROKEN)
    scene.manager.retry_load(at(1), BROKEN)
    scene.loaded(1)
    assert scene.last(1) == (ManagerState.AVAILABLE, None)


def test_a_version_that_failed_is_not_loaded_again_while_it_stays_aspired() -> None:
    scene = Scene(max_num_load_retries=0)
    scene.want(1)
    scene.manager.load_failed(at(1), BROKEN)
    assert scene.want(1) == []
    assert scene.want(1) == []
    assert scene.last(1) == (ManagerState.END, BROKEN)


def test_a_version_that_failed_is_loaded_again_after_it_was_not_aspired_for_a_while() -> None:
    scene = Scene(max_num_load_retries=0)
    scene.want(1)
    scene.manager.load_failed(at(1), BROKEN)
    assert scene.want() == []
    assert scene.last(1) == (ManagerState.END, BROKEN)
    assert scene.want(1) == [load(1)]
    assert scene.last(1) == (ManagerState.LOADING, None)
    assert scene.manager.num_attempts(at(1)) == 0


def test_a_load_that_fails_when_it_is_no_longer_wanted_is_not_tried_again() -> None:
    scene = Scene(max_num_load_retries=5)
    scene.want(1)
    scene.want()
    assert not scene.manager.load_failed(at(1), BROKEN)
    assert scene.last(1) == (ManagerState.END, BROKEN)


def test_a_version_that_is_no_longer_wanted_between_two_attempts_ends_with_its_last_error() -> None:
    scene = Scene()
    scene.want(1)
    scene.manager.load_failed(at(1), BROKEN)
    assert scene.want() == []
    assert not scene.manager.is_aspired(at(1))
    assert scene.manager.retry_load(at(1), BROKEN) is Retry.ENDED
    assert scene.last(1) == (ManagerState.END, BROKEN)
    assert scene.want(1) == [load(1)]


# --- withdrawn wishes -------------------------------------------------------------------------------------------------


def test_a_load_that_ends_when_it_is_no_longer_wanted_is_undone_and_ends_cancelled() -> None:
    scene = Scene()
    scene.want(1)
    assert scene.want() == []
    assert not scene.manager.load_succeeded(at(1))
    scene.unloaded(1)
    assert scene.last(1) == (ManagerState.END, CANCELLED)
    assert ServingError(Code.CANCELLED, "Loading of servable cancelled") == CANCELLED
    assert "AVAILABLE" not in scene.states(1)


def test_undoing_a_cancelled_load_may_fail_and_ends_with_that_error() -> None:
    scene = Scene()
    scene.want(1)
    scene.want()
    scene.manager.load_succeeded(at(1))
    scene.unloaded(1, STUCK)
    assert scene.last(1) == (ManagerState.END, STUCK)
    assert scene.want(1) == [load(1)]


def test_a_version_that_is_no_longer_wanted_while_it_is_being_published_is_unloaded_afterwards() -> None:
    scene = Scene()
    scene.want(1)
    assert scene.manager.load_succeeded(at(1))
    assert scene.want() == []
    scene.manager.published(at(1))
    assert scene.manager.next_actions() == [unload(1)]


def test_a_version_that_never_began_to_load_ends_without_a_load() -> None:
    scene = Scene(max_parallel_loads=1)
    scene.want(1, 2)
    assert scene.want(2) == []
    assert scene.states(1) == ["START", "END"]
    assert scene.loaded(2) == []


def test_a_version_that_never_began_to_load_can_be_wanted_again_at_once() -> None:
    scene = Scene(max_parallel_loads=1)
    scene.want(1, 2)
    scene.want(2)
    scene.want(1, 2)
    assert scene.loaded(2) == [load(1)]


def test_a_version_that_could_not_be_unloaded_ends_with_the_error_and_can_be_loaded_again() -> None:
    scene = Scene()
    scene.want(1)
    scene.loaded(1)
    scene.want()
    assert scene.unloaded(1, STUCK) == []
    assert scene.last(1) == (ManagerState.END, STUCK)
    assert scene.want(1) == [load(1)]


def test_a_version_that_is_wanted_again_while_it_is_unloading_is_loaded_when_it_has_left() -> None:
    scene = Scene()
    scene.want(1)
    scene.loaded(1)
    assert scene.want() == [unload(1)]
    assert scene.want(1) == []
    assert scene.unloaded(1) == [load(1)]
    assert scene.states(1)[-3:] == ["END", "START", "LOADING"]


def test_a_wish_that_is_held_back_is_held_back_as_a_whole_and_gives_way_to_a_newer_one() -> None:
    scene = Scene()
    scene.want(1)
    scene.loaded(1)
    scene.want()
    assert scene.want(1, 2) == []
    assert scene.want(3) == [load(3)]
    assert scene.unloaded(1) == []
    assert scene.states(2) == []


def test_a_version_that_is_wanted_again_while_its_cancelled_load_runs_is_loaded_when_that_is_undone() -> None:
    scene = Scene()
    scene.want(1)
    scene.want()
    assert scene.want(1) == []
    assert not scene.manager.load_succeeded(at(1))
    assert scene.unloaded(1) == [load(1)]


def test_a_stale_version_that_is_ready_is_unloaded_though_a_wish_is_held_back() -> None:
    scene = Scene()
    scene.want(1, 2)
    scene.loaded(1)
    scene.loaded(2)
    assert scene.want(2) == [unload(1)]
    # 1 is still leaving: the wish for both is held back, and 2 is none the worse.
    assert scene.want(1, 2) == []
    assert scene.unloaded(1) == [load(1)]
    assert scene.states(2)[-1] == "AVAILABLE"


# --- the limit on loads -----------------------------------------------------------------------------------------------


def test_no_more_loads_run_at_once_than_allowed() -> None:
    scene = Scene(max_parallel_loads=2)
    assert scene.want(1, 2, 3) == [load(3), load(2)]
    assert scene.want(1, name="other") == []
    assert scene.loaded(2) == [load(1)]
    assert scene.loaded(3) == [load(1, "other")]


@pytest.mark.parametrize("policy", [AvailabilityPreservingPolicy(), ResourcePreservingPolicy()])
def test_unloads_happen_though_as_many_loads_run_as_may(policy: AspiredVersionPolicy) -> None:
    scene = Scene(policy=policy, max_parallel_loads=1)
    for version in (1, 2):
        scene.want(*range(1, version + 1))
        scene.loaded(version)
    scene.want(1, name="other")  # takes the only slot
    assert scene.want(2, 3) == [unload(1)]
    assert scene.unloaded(1) == []
    assert scene.loaded(1, name="other") == [load(3)]


def test_models_get_their_turn_in_the_order_in_which_they_came() -> None:
    scene = Scene(max_parallel_loads=1)
    names = ["z", "k", "a", "q", "b"]
    for name in names:
        scene.manager.set_aspired_versions(name, [found(1, name)])
    actions = scene.manager.next_actions()
    order = []
    while actions:
        (action,) = actions
        assert isinstance(action, Load)
        order.append(action.data.id.name)
        actions = scene.loaded(1, name=action.data.id.name)
    assert order == names


@pytest.mark.parametrize("outcome", ["loaded", "cancelled", "failed for good", "failed once"])
def test_however_a_load_ends_its_slot_is_free_again(outcome: str) -> None:
    scene = Scene(max_parallel_loads=1, max_num_load_retries=0 if outcome == "failed for good" else 1)
    scene.want(1)
    assert scene.want(1, name="other") == []
    if outcome == "cancelled":
        scene.want()
        assert not scene.manager.load_succeeded(at(1))
    elif outcome == "loaded":
        assert scene.manager.load_succeeded(at(1))
    else:
        assert scene.manager.load_failed(at(1), BROKEN) is (outcome == "failed once")
    assert scene.manager.next_actions() == [load(1, "other")]


def test_the_next_attempt_of_a_failed_load_waits_for_a_slot_like_any_load() -> None:
    scene = Scene(max_parallel_loads=1)
    scene.want(1)
    scene.manager.load_failed(at(1), BROKEN)
    assert scene.want(1, name="other") == [load(1, "other")]
    assert scene.manager.retry_load(at(1), BROKEN) is Retry.WAIT
    scene.loaded(1, name="other")
    assert scene.manager.retry_load(at(1), BROKEN) is Retry.LOAD
    assert scene.want(2, name="other") == []


def test_a_higher_limit_counts_at_once() -> None:
    scene = Scene(max_parallel_loads=1)
    scene.want(1, 2, 3)
    scene.manager.max_parallel_loads = 2
    assert scene.manager.next_actions() == [load(2)]


def test_a_lower_limit_counts_from_the_next_load_on() -> None:
    scene = Scene(max_parallel_loads=2)
    scene.want(1, 2, 3)
    scene.manager.max_parallel_loads = 1
    assert scene.loaded(2) == []
    assert scene.loaded(3) == [load(1)]


# --- what there is --------------------------------------------------------------------------------------------------


def test_a_version_is_aspired_from_the_wish_to_its_withdrawal() -> None:
    scene = Scene()
    assert not scene.manager.is_aspired(at(1))
    scene.want(1)
    assert scene.manager.is_aspired(at(1))
    scene.loaded(1)
    scene.want(2)
    assert not scene.manager.is_aspired(at(1))


def test_a_version_that_has_left_is_forgotten() -> None:
    scene = Scene()
    scene.want(1)
    scene.loaded(1)
    scene.want()
    scene.unloaded(1)
    with pytest.raises(KeyError):
        scene.manager.num_attempts(at(1))


def test_a_version_from_another_path_takes_the_place_of_the_one_that_is_there_once_that_has_left() -> None:
    scene = Scene()
    scene.want(1, 2)
    scene.loaded(2)
    scene.loaded(1)
    moved = [ServableData(at(1), "/elsewhere/1"), found(2)]
    scene.manager.set_aspired_versions("m", moved)
    assert scene.manager.next_actions() == [unload(1)]
    assert scene.unloaded(1) == [Load(moved[0])]
    scene.loaded(1)
    scene.manager.set_aspired_versions("m", moved)
    assert scene.manager.next_actions() == []
    assert scene.states(1) == ["START", "LOADING", "AVAILABLE", "UNLOADING", "END", "START", "LOADING", "AVAILABLE"]


def test_a_version_that_failed_is_tried_from_another_path_at_once() -> None:
    scene = Scene(max_num_load_retries=0)
    scene.want(1)
    assert not scene.manager.load_failed(at(1), ServingError(Code.NOT_FOUND, "no model"))
    moved = ServableData(at(1), "/elsewhere/1")
    scene.manager.set_aspired_versions("m", [moved])
    assert scene.manager.next_actions() == [Load(moved)]
