"""The worker pool: which workers start for whom, and when they end."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.dispatch.devices import Slot, slots_of
from tensorgate.gateway.dispatch.supervisor import WorkerOptions
from tensorgate.gateway.dispatch.worker_pool import Isolation, WorkerPool, WorkerSettings
from tensorgate.protos.status_codes import Code, ServingError

BROKEN = ServingError(Code.UNAVAILABLE, "worker-0 exited with code 1 before it was up")


class FakeSupervisor:
    """Records what becomes of it; ``start`` fails while ``error`` is set, and waits for ``may_start``."""

    def __init__(self, options: WorkerOptions, errors: list[ServingError]) -> None:
        self.options = options
        self.name = options.name
        self.state = "new"
        self.stopped_with: list[float] = []
        self.num_listeners = 0
        self.last_end = ""
        self.may_start = asyncio.Event()
        self.may_start.set()
        self._errors = errors

    @property
    def is_up(self) -> bool:
        return self.state == "up"

    def subscribe(self, _on_up: object, _on_down: object) -> None:
        self.num_listeners += 1

    async def start(self) -> None:
        await self.may_start.wait()
        if self._errors:
            raise self._errors.pop()
        self.state = "up"

    async def stop(self, timeout_s: float) -> None:
        self.state = "stopped"
        self.stopped_with.append(timeout_s)


class Scene:
    """A pool over fake supervisors; ``settings`` by a model's name."""

    def __init__(self, slots: int | Sequence[Slot] = 2, **settings: WorkerSettings) -> None:
        self.supervisors: list[FakeSupervisor] = []
        self.errors: list[ServingError] = []
        self.pool = WorkerPool(
            slots_of("", slots) if isinstance(slots, int) else slots,
            lambda slot: WorkerOptions(slot.name, 4, environment={"DEVICE": slot.name}),
            self._make,
            lambda name: settings.get(name, WorkerSettings()),
            5.0,
        )

    def _make(self, options: WorkerOptions) -> Any:
        self.supervisors.append(FakeSupervisor(options, self.errors))
        return self.supervisors[-1]

    def states(self) -> dict[str, str]:
        return {each.name: each.state for each in self.supervisors}


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(scenario(), 10)

    asyncio.run(limited())


def of(name: str, version: int = 1) -> ServableId:
    return ServableId(name, version)


def test_versions_of_a_device_share_its_standing_workers_which_outlive_them() -> None:
    async def scenario() -> None:
        scene = Scene()
        await scene.pool.start()
        assert scene.states() == {"worker-0": "up", "worker-1": "up"}
        for name in ("a", "b"):
            home = await scene.pool.open(of(name))
            assert (home.workers, home.num_replicas, home.ends_with_version) == ({"worker-0", "worker-1"}, 2, False)
        await scene.pool.close(of("a"))
        await scene.pool.stop(3.0)
        assert [each.stopped_with for each in scene.supervisors] == [[3.0], [3.0]]

    run(scenario)


def test_standing_workers_start_with_the_first_version_that_needs_them() -> None:
    async def scenario() -> None:
        scene = Scene(m=WorkerSettings(slots=frozenset({"worker-1"})))
        assert not scene.pool.wants_workers
        home = await scene.pool.open(of("m"))
        assert (home.workers, home.num_replicas) == ({"worker-1"}, 1)
        assert scene.states() == {"worker-1": "up"}
        assert scene.pool.wants_workers

    run(scenario)


@pytest.mark.parametrize(("asked", "given"), [(0, 3), (1, 1), (2, 2), (9, 3)])
def test_copies_are_as_many_as_asked_for_and_at_most_one_a_slot(asked: int, given: int) -> None:
    async def scenario() -> None:
        own = WorkerSettings(Isolation.VERSION, asked)
        scene = Scene(3, shared=WorkerSettings(num_replicas=asked), own=own)
        assert (await scene.pool.open(of("shared"))).num_replicas == given
        assert scene.pool.num_replicas("shared") == given
        home = await scene.pool.open(of("own"))
        assert (home.num_replicas, len(home.workers)) == (given, given)

    run(scenario)


def test_a_version_of_its_own_gets_workers_in_the_slots_of_its_model_that_end_with_it() -> None:
    async def scenario() -> None:
        scene = Scene(m=WorkerSettings(Isolation.VERSION, num_execution_threads=3))
        scene.pool.subscribe(lambda _worker: None, lambda _worker, _cause: None)
        first, second = await scene.pool.open(of("m", 1)), await scene.pool.open(of("m", 2))
        assert first.ends_with_version
        assert first.workers == {"worker-2", "worker-3"}
        assert second.workers == {"worker-4", "worker-5"}
        assert {each.options.environment["DEVICE"] for each in scene.supervisors[:2]} == {"worker-0", "worker-1"}
        assert {each.options.num_execution_threads for each in scene.supervisors} == {3}
        assert {each.num_listeners for each in scene.supervisors} == {1}
        assert [each.name for each in scene.pool.supervisors] == [f"worker-{number}" for number in (2, 3, 4, 5)]
        await scene.pool.close(of("m", 1))
        assert list(scene.states().values()) == ["stopped", "stopped", "up", "up"]
        assert [each.name for each in scene.pool.supervisors] == ["worker-4", "worker-5"]
        await scene.pool.close(of("m", 1))
        await scene.pool.stop(1.0)
        assert [each.stopped_with for each in scene.supervisors] == [[5.0], [5.0], [1.0], [1.0]]

    run(scenario)


def test_fewer_copies_than_slots_go_where_fewest_are() -> None:
    async def scenario() -> None:
        scene = Scene(m=WorkerSettings(Isolation.VERSION, 1))
        for version in (1, 2, 3):
            await scene.pool.open(of("m", version))
        devices = [each.options.environment["DEVICE"] for each in scene.supervisors]
        assert devices == ["worker-0", "worker-1", "worker-0"]

    run(scenario)


def test_the_versions_of_a_model_share_workers_that_end_with_the_last_of_them() -> None:
    async def scenario() -> None:
        scene = Scene(1, m=WorkerSettings(Isolation.MODEL))
        homes = [await scene.pool.open(of("m", version)) for version in (1, 2)]
        assert homes[0] == homes[1]
        assert not homes[0].ends_with_version
        await scene.pool.close(of("m", 1))
        assert scene.states() == {"worker-1": "up"}
        await scene.pool.close(of("m", 2))
        assert scene.states() == {"worker-1": "stopped"}
        assert (await scene.pool.open(of("m", 3))).workers == {"worker-2"}

    run(scenario)


def test_two_versions_that_come_at_once_wait_for_the_same_workers() -> None:
    async def scenario() -> None:
        scene = Scene(1, m=WorkerSettings(Isolation.MODEL))
        one, other = (asyncio.ensure_future(scene.pool.open(of("m", version))) for version in (1, 2))
        assert await one == await other
        assert len(scene.supervisors) == 1

    run(scenario)


def test_workers_that_do_not_come_up_are_an_error_and_leave_nothing_and_the_next_try_gets_new_ones() -> None:
    async def scenario() -> None:
        scene = Scene(1, m=WorkerSettings(Isolation.VERSION))
        scene.errors.append(BROKEN)
        with pytest.raises(ServingError, match="before it was up"):
            await scene.pool.open(of("m"))
        assert scene.states() == {"worker-1": "stopped"}
        assert not scene.pool.wants_workers
        assert (await scene.pool.open(of("m"))).workers == {"worker-2"}

    run(scenario)


def test_a_standing_worker_that_does_not_come_up_fails_the_start() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.errors.append(BROKEN)
        with pytest.raises(ServingError, match="before it was up"):
            await scene.pool.start()
        await scene.pool.stop(0.0)
        assert set(scene.states().values()) == {"stopped"}

    run(scenario)


def test_stopping_waits_for_workers_that_are_ending_and_opens_nothing_more() -> None:
    async def scenario() -> None:
        scene = Scene(1, m=WorkerSettings(Isolation.VERSION))
        await scene.pool.open(of("m"))
        closing = asyncio.ensure_future(scene.pool.close(of("m")))
        await asyncio.sleep(0)
        await scene.pool.stop(1.0)
        assert scene.states() == {"worker-1": "stopped"}
        await closing
        with pytest.raises(ServingError, match="shutting down"):
            await scene.pool.open(of("m"))

    run(scenario)


# --- on the network ---------------------------------------------------------------------------------------------------

NAMED = Slot("worker-0", "", "tcp://10.0.0.1:9900")
FOUND = "dns://w:9900"


def test_homes_on_the_network_follow_the_workers_that_join_and_are_forgotten() -> None:
    async def scenario() -> None:
        scene = Scene([NAMED], two=WorkerSettings(num_replicas=2), found=WorkerSettings(slots=frozenset({FOUND})))
        pool = scene.pool
        everywhere, two, found = [await pool.open(of(name)) for name in ("everywhere", "two", "found")]
        assert (everywhere.workers, everywhere.num_replicas) == ({"worker-0"}, 1)
        # One copy waits for the first worker to come.
        assert (found.workers, found.num_replicas) == (frozenset(), 1)
        slots = [pool.join(f"tcp://10.0.0.{each}:9900", FOUND) for each in (2, 3)]
        assert [slot.name for slot in slots] == ["worker-1", "worker-2"]
        assert (everywhere.workers, everywhere.num_replicas) == ({"worker-0", "worker-1", "worker-2"}, 3)
        assert (two.num_replicas, len(two.workers)) == (2, 3)
        assert (found.workers, found.num_replicas) == ({"worker-1", "worker-2"}, 2)
        assert pool.num_replicas("everywhere") == 3
        pool.forget(slots[0])
        assert (everywhere.workers, found.workers) == ({"worker-0", "worker-2"}, {"worker-2"})
        # Names are used again, so that pages do not fill with those of workers that will never come back.
        assert pool.join("tcp://10.0.0.4:9900", FOUND).name == "worker-1"
        await pool.close(of("found"))
        pool.forget(pool.slots[-1])
        assert found.num_replicas == 2  # nobody's any more
        await pool.stop(0.0)

    run(scenario)


def test_a_worker_that_joins_is_started_at_once_and_one_that_is_forgotten_leaves_the_pages() -> None:
    async def scenario() -> None:
        scene = Scene([])
        scene.pool.subscribe(lambda _worker: None, lambda _worker, _cause: None)
        assert scene.pool.wants_workers
        slot = scene.pool.join("tcp://10.0.0.2:9900", FOUND)
        assert not scene.pool.is_up(slot)
        await scene.pool.start()
        assert scene.pool.is_up(slot)
        assert [each.name for each in scene.pool.supervisors] == ["worker-0"]
        assert scene.supervisors[0].num_listeners == 1
        scene.pool.forget(slot)
        assert (scene.pool.supervisors, scene.pool.is_up(slot)) == ([], False)
        await scene.pool.stop(3.0)
        assert scene.supervisors[0].stopped_with == [0.0]

    run(scenario)


def test_a_version_is_not_kept_waiting_for_a_worker_that_has_joined_and_does_not_answer() -> None:
    async def scenario() -> None:
        scene = Scene([NAMED])
        await scene.pool.start()
        scene.pool.join("tcp://10.0.0.2:9900", FOUND)
        scene.supervisors[1].may_start.clear()
        assert (await scene.pool.open(of("m"))).workers == {"worker-0", "worker-1"}
        scene.supervisors[1].may_start.set()
        await scene.pool.stop(0.0)

    run(scenario)
