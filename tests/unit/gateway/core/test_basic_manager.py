"""The manager at work: loads, retries, unloads and whatever loaders and publishers do wrong."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import pytest

from tensorgate.gateway.core.aspired_version_policy import AvailabilityPreservingPolicy
from tensorgate.gateway.core.aspired_versions_manager import CANCELLED, AspiredVersionsManager
from tensorgate.gateway.core.basic_manager import BasicManager
from tensorgate.gateway.core.event_bus import EventBus
from tensorgate.gateway.core.loader import Loader
from tensorgate.gateway.core.resource_tracker import ResourceTracker
from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.servable_state import ManagerState, ServableState
from tensorgate.gateway.core.servable_state_monitor import ServableStateMonitor
from tensorgate.gateway.core.source import ServableData
from tensorgate.protos.status_codes import Code, ServingError
from tests.fakes.manual_clock import ManualClock
from tests.fakes.scripted_loader import Script, ScriptedLoader, ScriptedPublisher

BROKEN = ServingError(Code.UNKNOWN, "injected error")
FOR_EVER_S = 1e6
AVAILABLE, END = ManagerState.AVAILABLE, ManagerState.END


async def turns() -> None:
    """Lets everything that can go on without time passing go on."""
    for _ in range(50):
        await asyncio.sleep(0)


async def one_place(_data: ServableData) -> int:
    return 1


class Scene:
    """A manager of model m over scripted loaders."""

    def __init__(
        self,
        *,
        max_num_load_retries: int = 1,
        max_parallel_loads: int = 10,
        load_retry_interval_s: float = 0.0,
        num_places: int | None = None,
    ) -> None:
        """``num_places``: versions that fit into memory."""
        self.script = Script()
        self.factory_errors: list[Exception] = []
        self.num_loaders = 0
        bus: EventBus[ServableState] = EventBus()
        self.monitor = ServableStateMonitor(bus)
        clock = ManualClock()
        self.manager = BasicManager(
            AspiredVersionsManager(
                lambda _name: AvailabilityPreservingPolicy(),
                bus,
                clock,
                max_num_load_retries=max_num_load_retries,
                max_parallel_loads=max_parallel_loads,
            ),
            self.make_loader,
            ScriptedPublisher(self.script),
            clock,
            load_retry_interval_s=load_retry_interval_s,
            resources=None if num_places is None else ResourceTracker(num_places, one_place),
        )

    def make_loader(self, data: ServableData) -> Loader:
        if self.factory_errors:
            raise self.factory_errors.pop(0)
        self.num_loaders += 1
        return ScriptedLoader(self.script, data)

    async def want(self, *versions: int) -> None:
        """A wish, and all that follows without time passing."""
        self.manager.set_aspired_versions(
            "m", [ServableData(ServableId("m", version), f"/models/m/{version}") for version in versions]
        )
        await turns()

    async def release(self, step: str, version: int) -> None:
        self.script.release((step, version))
        await turns()

    def state(self, version: int) -> tuple[ManagerState, ServingError | None] | None:
        state = self.monitor.state(ServableId("m", version))
        return None if state is None else (state.state, state.error)

    def steps(self, version: int) -> list[str]:
        return [step for step, of_version in self.script.steps if of_version == version]


def run(scene: Scene, scenario: Callable[[], Awaitable[None]]) -> None:
    """The scenario, then a stop; nothing may be left running, and no task of the manager's may have died of a fault."""

    async def limited() -> None:
        faults: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: faults.append(context))
        await asyncio.wait_for(scenario(), 10)
        await asyncio.wait_for(scene.manager.stop(), 10)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert faults == []

    asyncio.run(limited())


def test_a_version_is_loaded_then_published_then_said_to_be_available() -> None:
    scene = Scene()

    async def scenario() -> None:
        scene.script.hold(("load", 1), ("publish", 1))
        await scene.want(1)
        assert scene.state(1) == (ManagerState.LOADING, None)
        await scene.release("load", 1)
        assert scene.steps(1) == ["load", "publish"]
        assert scene.state(1) == (ManagerState.LOADING, None)
        await scene.release("publish", 1)
        assert scene.state(1) == (AVAILABLE, None)

    run(scene, scenario)


def test_a_new_version_takes_over_before_the_old_one_is_withdrawn() -> None:
    scene = Scene()

    async def scenario() -> None:
        await scene.want(1)
        await scene.want(2)
        assert scene.script.steps == [
            ("load", 1),
            ("publish", 1),
            ("load", 2),
            ("publish", 2),
            ("withdraw", 1),
            ("unload", 1),
        ]
        assert (scene.state(2), scene.state(1)) == ((AVAILABLE, None), (END, None))

    run(scene, scenario)


def test_a_version_is_unloaded_only_when_the_last_request_has_let_go_of_it() -> None:
    scene = Scene()

    async def scenario() -> None:
        await scene.want(1)
        scene.script.hold(("withdraw", 1))
        await scene.want()
        assert scene.steps(1) == ["load", "publish", "withdraw"]
        assert scene.script.reachable == set()
        assert scene.state(1) == (ManagerState.UNLOADING, None)
        await scene.release("withdraw", 1)
        assert scene.steps(1)[-1] == "unload"
        assert scene.state(1) == (END, None)

    run(scene, scenario)


def test_a_long_request_on_one_version_holds_up_no_other_version() -> None:
    scene = Scene(max_parallel_loads=1)

    async def scenario() -> None:
        await scene.want(1)
        scene.script.hold(("withdraw", 1))
        for version in (2, 3, 4):
            await scene.want(version)
        assert scene.script.reachable == {4}
        assert [scene.state(version) for version in (2, 3)] == [(END, None), (END, None)]
        await scene.release("withdraw", 1)
        assert scene.state(1) == (END, None)

    run(scene, scenario)


def test_loads_run_side_by_side_up_to_the_limit() -> None:
    scene = Scene(max_parallel_loads=2)

    async def scenario() -> None:
        scene.script.hold(("load", 1), ("load", 2), ("load", 3))
        await scene.want(1, 2, 3)
        assert scene.script.steps == [("load", 3), ("load", 2)]
        await scene.release("load", 2)
        assert scene.script.steps[-1] == ("load", 1)
        await scene.release("load", 1)
        await scene.release("load", 3)
        assert scene.script.reachable == {1, 2, 3}

    run(scene, scenario)


def test_versions_are_unloaded_though_as_many_loads_run_as_may() -> None:
    scene = Scene(max_parallel_loads=1)

    async def scenario() -> None:
        await scene.want(1, 2)
        scene.script.hold(("load", 3))
        await scene.want(2, 3)
        assert scene.state(1) == (END, None)
        assert scene.state(3) == (ManagerState.LOADING, None)
        await scene.release("load", 3)

    run(scene, scenario)


@pytest.mark.parametrize("number", [3, 1, 0, -4])
def test_the_limit_on_loads_can_be_changed_and_is_at_least_one(number: int) -> None:
    scene = Scene(max_parallel_loads=1)

    async def scenario() -> None:
        steps = [("load", version) for version in (4, 3, 2, 1)]
        scene.script.hold(*steps)
        await scene.want(1, 2, 3, 4)
        scene.manager.set_max_parallel_loads(number)
        await turns()
        assert scene.script.steps == steps[: max(number, 1)]
        for step in steps:
            scene.script.release(step)
        await turns()
        assert scene.script.reachable == {1, 2, 3, 4}

    run(scene, scenario)


# --- failed loads -----------------------------------------------------------------------------------------------------


def test_a_load_that_fails_is_tried_again_until_it_succeeds() -> None:
    scene = Scene(max_num_load_retries=2)

    async def scenario() -> None:
        scene.script.fail(("load", 1), [BROKEN, BROKEN])
        await scene.want(1)
        assert scene.steps(1) == ["load", "load", "load", "publish"]
        assert scene.state(1) == (AVAILABLE, None)
        assert scene.num_loaders == 1

    run(scene, scenario)


@pytest.mark.parametrize(("max_num_load_retries", "attempts"), [(0, 1), (2, 3), (-1, 1)])
def test_a_load_that_fails_too_often_is_given_up(max_num_load_retries: int, attempts: int) -> None:
    scene = Scene(max_num_load_retries=max_num_load_retries)

    async def scenario() -> None:
        scene.script.fail(("load", 1), [BROKEN] * 10)
        await scene.want(1)
        assert scene.steps(1) == ["load"] * attempts
        assert scene.state(1) == (END, BROKEN)
        await scene.want(1)
        assert scene.steps(1) == ["load"] * attempts

    run(scene, scenario)


def test_a_version_given_up_is_loaded_from_the_start_when_it_is_wanted_anew() -> None:
    scene = Scene(max_num_load_retries=0)

    async def scenario() -> None:
        scene.script.fail(("load", 1), [BROKEN])
        await scene.want(1)
        await scene.want()
        await scene.want(1)
        assert scene.state(1) == (AVAILABLE, None)
        # Its files may lie elsewhere by now.
        assert scene.num_loaders == 2

    run(scene, scenario)


def test_another_version_is_loaded_while_a_failed_one_waits_for_its_next_attempt() -> None:
    scene = Scene(max_parallel_loads=1, load_retry_interval_s=FOR_EVER_S)

    async def scenario() -> None:
        scene.script.fail(("load", 2), [BROKEN])
        await scene.want(1, 2)
        assert scene.steps(2) == ["load"]
        assert scene.state(1) == (AVAILABLE, None)

    run(scene, scenario)


def test_the_wait_for_the_next_attempt_ends_at_once_when_the_version_is_no_longer_wanted() -> None:
    scene = Scene(load_retry_interval_s=FOR_EVER_S)

    async def scenario() -> None:
        scene.script.fail(("load", 1), [BROKEN])
        await scene.want(1)
        await scene.want()
        assert scene.state(1) == (END, BROKEN)
        await scene.want(1)
        assert scene.state(1) == (AVAILABLE, None)

    run(scene, scenario)


def test_a_version_wanted_anew_between_two_attempts_is_loaded_at_once() -> None:
    scene = Scene(load_retry_interval_s=FOR_EVER_S)

    async def scenario() -> None:
        scene.script.fail(("load", 1), [BROKEN])
        await scene.want(1)
        scene.manager.set_aspired_versions("m", [])
        await scene.want(1)
        assert scene.steps(1) == ["load", "load", "publish"]

    run(scene, scenario)


def test_an_attempt_that_is_due_waits_until_a_slot_is_free() -> None:
    scene = Scene(max_parallel_loads=1)

    async def scenario() -> None:
        scene.script.fail(("load", 2), [BROKEN])
        scene.script.hold(("load", 1))
        await scene.want(1, 2)
        assert scene.script.steps == [("load", 2), ("load", 1)]
        await scene.release("load", 1)
        assert scene.steps(2) == ["load", "load", "publish"]
        assert scene.script.reachable == {1, 2}

    run(scene, scenario)


def test_a_version_that_waits_for_a_slot_ends_at_once_when_it_is_no_longer_wanted() -> None:
    scene = Scene(max_parallel_loads=1)

    async def scenario() -> None:
        scene.script.fail(("load", 2), [BROKEN])
        scene.script.hold(("load", 1))
        await scene.want(1, 2)
        await scene.want(1)
        assert scene.state(2) == (END, BROKEN)
        await scene.release("load", 1)
        assert scene.script.reachable == {1}

    run(scene, scenario)


# --- withdrawn wishes -------------------------------------------------------------------------------------------------


def test_a_load_that_is_no_longer_wanted_is_undone_when_it_ends_without_having_been_reachable() -> None:
    scene = Scene()

    async def scenario() -> None:
        scene.script.hold(("load", 1))
        await scene.want(1)
        await scene.want()
        assert scene.steps(1) == ["load"]
        await scene.release("load", 1)
        assert scene.steps(1) == ["load", "unload"]
        assert scene.state(1) == (END, CANCELLED)

    run(scene, scenario)


def test_a_version_that_is_no_longer_wanted_while_it_is_published_is_withdrawn_again() -> None:
    scene = Scene()

    async def scenario() -> None:
        scene.script.hold(("publish", 1))
        await scene.want(1)
        await scene.want()
        await scene.release("publish", 1)
        assert scene.steps(1) == ["load", "publish", "withdraw", "unload"]
        assert scene.state(1) == (END, None)

    run(scene, scenario)


@pytest.mark.parametrize("step", ["withdraw", "unload"])
def test_a_version_that_is_wanted_again_while_it_leaves_is_loaded_again_when_it_has_left(step: str) -> None:
    scene = Scene()

    async def scenario() -> None:
        await scene.want(1)
        scene.script.hold((step, 1))
        await scene.want()
        await scene.want(1)
        assert scene.steps(1).count("load") == 1
        await scene.release(step, 1)
        assert scene.steps(1) == ["load", "publish", "withdraw", "unload", "load", "publish"]
        assert scene.state(1) == (AVAILABLE, None)

    run(scene, scenario)


# --- faults of loaders and publishers ---------------------------------------------------------------------------------

# What a step may raise, and as what its version ends.
FAULTS = [
    pytest.param(BROKEN, BROKEN, id="a serving error"),
    pytest.param(ValueError("what?"), ServingError(Code.INTERNAL, "ValueError: what?"), id="any other error"),
    pytest.param(
        asyncio.CancelledError(),
        ServingError(Code.CANCELLED, "what the step waited for was cancelled"),
        id="a cancellation nobody asked for",
    ),
]


async def serves_on(scene: Scene, others: Iterable[int] = (7,)) -> None:
    """The manager still loads and unloads, and version 1 can be loaded anew."""
    await scene.want(*others)
    await scene.want(1)
    assert scene.state(1) == (AVAILABLE, None)
    for version in others:
        assert scene.state(version) == (END, None)


@pytest.mark.parametrize(("raised", "ended_with"), FAULTS)
def test_whatever_a_load_raises_ends_its_version_alone(raised: BaseException, ended_with: ServingError) -> None:
    scene = Scene(max_num_load_retries=0, max_parallel_loads=1)

    async def scenario() -> None:
        scene.script.fail(("load", 1), [raised])
        await scene.want(1)
        assert scene.state(1) == (END, ended_with)
        await serves_on(scene)

    run(scene, scenario)


def test_a_loader_that_cannot_be_made_is_a_failed_load() -> None:
    scene = Scene(max_num_load_retries=1, max_parallel_loads=1)

    async def scenario() -> None:
        scene.factory_errors = [ValueError("no platform")] * 2
        await scene.want(1)
        assert scene.state(1) == (END, ServingError(Code.INTERNAL, "ValueError: no platform"))
        await serves_on(scene)

    run(scene, scenario)


@pytest.mark.parametrize(("raised", "ended_with"), FAULTS)
def test_a_version_that_cannot_be_published_is_unloaded_and_ends(
    raised: BaseException, ended_with: ServingError
) -> None:
    scene = Scene(max_parallel_loads=1)

    async def scenario() -> None:
        scene.script.fail(("publish", 1), [raised])
        await scene.want(1)
        assert scene.steps(1) == ["load", "publish", "unload"]
        assert scene.state(1) == (END, ended_with)
        await serves_on(scene)

    run(scene, scenario)


@pytest.mark.parametrize("step", ["withdraw", "unload"])
@pytest.mark.parametrize(("raised", "ended_with"), FAULTS)
def test_a_version_that_cannot_be_withdrawn_or_unloaded_ends_with_the_error(
    step: str, raised: BaseException, ended_with: ServingError
) -> None:
    scene = Scene()

    async def scenario() -> None:
        await scene.want(1)
        scene.script.fail((step, 1), [raised])
        await scene.want()
        assert scene.steps(1) == ["load", "publish", "withdraw", "unload"]
        assert scene.state(1) == (END, ended_with)
        await serves_on(scene)

    run(scene, scenario)


def test_the_first_of_two_errors_on_the_way_out_is_the_one_that_is_told() -> None:
    scene = Scene()

    async def scenario() -> None:
        await scene.want(1)
        scene.script.fail(("withdraw", 1), [BROKEN])
        scene.script.fail(("unload", 1), [ValueError("what?")])
        await scene.want()
        assert scene.state(1) == (END, BROKEN)

    run(scene, scenario)


# --- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["load", "publish"])
def test_stopping_ends_what_is_under_way(step: str) -> None:
    scene = Scene()

    async def scenario() -> None:
        scene.script.hold((step, 1))
        await scene.want(1)
        await scene.manager.stop()
        assert scene.steps(1)[-1] == step

    run(scene, scenario)


def test_stopping_does_not_wait_for_a_retry_or_for_a_request() -> None:
    scene = Scene(load_retry_interval_s=FOR_EVER_S)

    async def scenario() -> None:
        await scene.want(1)
        scene.script.hold(("withdraw", 1))
        scene.script.fail(("load", 3), [BROKEN])
        await scene.want(2, 3)
        await scene.manager.stop()
        assert scene.steps(1) == ["load", "publish", "withdraw"]
        assert scene.steps(3) == ["load"]

    run(scene, scenario)


def test_a_manager_that_was_stopped_leaves_what_is_loaded_and_begins_nothing() -> None:
    scene = Scene()

    async def scenario() -> None:
        await scene.want(1)
        await scene.manager.stop()
        await scene.want(2)
        scene.manager.set_max_parallel_loads(5)
        assert scene.script.steps == [("load", 1), ("publish", 1)]
        assert scene.script.reachable == {1}
        await scene.manager.stop()

    run(scene, scenario)


# --- memory, and versions that are lost -------------------------------------------------------------------------------


def state_and_code(scene: Scene, version: int) -> tuple[ManagerState, Code | None]:
    found = scene.state(version)
    assert found is not None
    return found[0], found[1] and found[1].code


def test_a_version_that_does_not_fit_ends_at_once_and_is_loaded_when_another_has_left() -> None:
    scene = Scene(num_places=2, max_num_load_retries=5)

    async def scenario() -> None:
        await scene.want(1, 2)
        await scene.want(1, 2, 3)
        assert state_and_code(scene, 3) == (END, Code.RESOURCE_EXHAUSTED)
        assert scene.steps(3) == []
        await scene.want(2, 3)
        assert state_and_code(scene, 1) == (END, None)
        assert state_and_code(scene, 3) == (AVAILABLE, None)

    run(scene, scenario)


def test_a_version_that_failed_to_load_leaves_its_place() -> None:
    scene = Scene(num_places=1, max_num_load_retries=0)

    async def scenario() -> None:
        scene.script.hold(("load", 1))
        scene.script.fail(("load", 1), [BROKEN])
        await scene.want(1)
        scene.manager.set_aspired_versions("other", [ServableData(ServableId("other", 2), "/models/other/2")])
        await turns()
        assert scene.steps(2) == []
        await scene.release("load", 1)
        assert scene.state(1) == (END, BROKEN)
        other = scene.monitor.state(ServableId("other", 2))
        assert other is not None
        assert other.state is AVAILABLE

    run(scene, scenario)


def test_a_version_that_is_refused_and_no_longer_wanted_stays_away() -> None:
    scene = Scene(num_places=1)

    async def scenario() -> None:
        await scene.want(1)
        await scene.want(1, 2)
        await scene.want(1)
        await scene.want()
        assert scene.steps(2) == []
        assert state_and_code(scene, 1) == (END, None)

    run(scene, scenario)


def test_a_version_that_is_given_up_leaves_and_ends_with_the_error() -> None:
    scene = Scene()

    async def scenario() -> None:
        await scene.want(1)
        scene.manager.give_up(ServableId("m", 1), BROKEN)
        await turns()
        assert scene.state(1) == (END, BROKEN)
        assert scene.script.reachable == set()
        assert scene.steps(1)[-1] == "unload"
        await scene.want(1)
        assert scene.state(1) == (END, BROKEN)
        await scene.want(1, 2)
        assert state_and_code(scene, 2) == (AVAILABLE, None)

    run(scene, scenario)


def test_only_a_version_that_serves_can_be_given_up() -> None:
    scene = Scene()

    async def scenario() -> None:
        scene.manager.give_up(ServableId("m", 1), BROKEN)
        scene.script.hold(("load", 1))
        await scene.want(1)
        scene.manager.give_up(ServableId("m", 1), BROKEN)
        await scene.release("load", 1)
        assert state_and_code(scene, 1) == (AVAILABLE, None)
        await scene.manager.stop()
        scene.manager.give_up(ServableId("m", 1), BROKEN)
        assert state_and_code(scene, 1) == (AVAILABLE, None)

    run(scene, scenario)
