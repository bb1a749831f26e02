"""The life of one version as a state machine: every transition there is, and the words for those there are not."""

import itertools

import pytest

from tensorgate.gateway.core.loader_harness import AT_REST, HarnessState, LoaderHarness
from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.source import ServableData
from tensorgate.protos.status_codes import Code, ServingError

S = HarnessState
# A whole life, in order.
LIFE = (
    S.NEW,
    S.LOAD_REQUESTED,
    S.LOAD_APPROVED,
    S.LOADING,
    S.READY,
    S.UNLOAD_REQUESTED,
    S.QUIESCING,
    S.QUIESCED,
    S.UNLOADING,
    S.DISABLED,
)
LEGAL = {
    *itertools.pairwise(LIFE),
    # A load that was cancelled is undone without having been ready.
    (S.LOADING, S.UNLOADING),
    *((state, S.ERROR) for state in LIFE),
}
BROKEN = ServingError(Code.UNKNOWN, "injected error")


def harness_in(state: HarnessState) -> LoaderHarness:
    harness = LoaderHarness(ServableData(ServableId("m", 7), "/models/m/7"))
    harness.state = state
    return harness


def test_a_harness_begins_new_aspired_and_without_error() -> None:
    harness = LoaderHarness(ServableData(ServableId("m", 7), "/models/m/7"))
    assert harness.id == ServableId("m", 7)
    assert (harness.state, harness.is_aspired, harness.num_attempts, harness.error) == (S.NEW, True, 0, None)


@pytest.mark.parametrize("start", S)
@pytest.mark.parametrize("end", S)
def test_exactly_the_legal_transitions_are_possible(start: HarnessState, end: HarnessState) -> None:
    harness = harness_in(start)
    if (start, end) in LEGAL:
        harness.move_to(end)
        assert harness.state is end
        return
    with pytest.raises(ServingError) as caught:
        harness.move_to(end)
    assert caught.value == ServingError(
        Code.INTERNAL, f"Illegal request to transition from state {start.value} to {end.value}"
    )
    assert harness.state is start


def test_a_load_begins_with_a_new_version() -> None:
    harness = harness_in(S.NEW)
    harness.begin_load()
    assert harness.state is S.LOADING


@pytest.mark.parametrize("state", [state for state in S if state is not S.NEW])
def test_a_version_can_be_asked_to_load_only_once(state: HarnessState) -> None:
    harness = harness_in(state)
    with pytest.raises(ServingError) as caught:
        harness.begin_load()
    assert caught.value == ServingError(Code.FAILED_PRECONDITION, "Duplicate load request")
    assert harness.state is state


def test_an_unload_begins_with_a_ready_version() -> None:
    harness = harness_in(S.READY)
    harness.begin_unload()
    assert harness.state is S.QUIESCING


@pytest.mark.parametrize("state", [state for state in S if state is not S.READY])
def test_only_a_version_that_is_ready_and_not_leaving_can_be_asked_to_unload(state: HarnessState) -> None:
    harness = harness_in(state)
    with pytest.raises(ServingError) as caught:
        harness.begin_unload()
    assert caught.value == ServingError(
        Code.FAILED_PRECONDITION, "Servable not loaded, or unload already requested/ongoing"
    )
    assert harness.state is state


@pytest.mark.parametrize("state", LIFE)
def test_a_version_can_fail_in_every_state(state: HarnessState) -> None:
    harness = harness_in(state)
    harness.fail(BROKEN)
    assert (harness.state, harness.error) == (S.ERROR, BROKEN)


def test_the_first_error_stays() -> None:
    harness = harness_in(S.LOADING)
    harness.fail(BROKEN)
    harness.fail(ServingError(Code.INTERNAL, "a later one"))
    assert harness.error == BROKEN


def test_a_version_is_at_rest_when_it_holds_no_memory_and_is_not_on_its_way_to_any() -> None:
    assert set(AT_REST) == {S.NEW, S.DISABLED, S.ERROR}
