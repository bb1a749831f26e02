"""Loaders and placement: where versions go, and how they come back after a worker's death."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.source import ServableData
from tensorgate.gateway.dispatch import worker_loader
from tensorgate.gateway.dispatch.placement import NO_WORKER_TEXT, Placement
from tensorgate.gateway.dispatch.route_publisher import RoutePublisher
from tensorgate.gateway.dispatch.route_table import RouteTable
from tensorgate.gateway.dispatch.worker_client import LoadOptions
from tensorgate.gateway.dispatch.worker_loader import LoaderState
from tensorgate.protos.status_codes import Code, ServingError
from tests.fakes.scripted_client import ScriptedClient, signatures_of
from tests.fakes.shared_home import SharedHome

KILLED = ServingError(Code.UNAVAILABLE, "worker-0 (pid 7) was killed by signal 9 (SIGKILL)")


class Scene:
    """A placement with workers that the test makes come and go."""

    def __init__(self, homes: SharedHome | None = None, wait_for_worker_s: float = 60.0) -> None:
        self.homes = homes or SharedHome()
        self.given_up: list[tuple[ServableId, ServingError]] = []
        self.placement = Placement(self.homes, lambda *lost: self.given_up.append(lost), wait_for_worker_s)
        self.make_loader = self.placement.loader_factory(LoadOptions())

    def loader(self, version: int = 1) -> Any:
        return self.make_loader(ServableData(ServableId("m", version), f"/models/m/{version}"))

    def up(self, name: str = "worker-0") -> Any:
        client: Any = ScriptedClient(name)
        self.placement.add_worker(client)
        return client

    def down(self, client: Any) -> None:
        self.placement.remove_worker(client, KILLED)
        client.die(KILLED)


async def turns() -> None:
    """Lets everything that can go on without time passing go on."""
    for _ in range(20):
        await asyncio.sleep(0)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(scenario(), 10)

    asyncio.run(limited())


def test_a_load_keeps_signatures_and_handle_and_unload_gives_the_handle_back() -> None:
    async def scenario() -> None:
        scene = Scene()
        client, loader = scene.up(), scene.loader(3)
        await loader.load()
        (replica,) = loader.replicas
        assert (replica.worker, loader.signature_def_map) == (client, signatures_of(3))
        await loader.unload()
        assert client.calls == [("load", replica.servable_handle), ("unload", replica.servable_handle)]
        assert loader.replicas == ()
        assert scene.placement.num_servables(client) == 0

    run(scenario)


def test_handles_are_never_used_twice() -> None:
    async def scenario() -> None:
        scene = Scene()
        client = scene.up()
        for _ in range(3):
            loader = scene.loader()
            await loader.load()
            await loader.unload()
        handles = [handle for command, handle in client.calls if command == "load"]
        assert len(set(handles)) == 3

    run(scenario)


def test_a_load_that_fails_leaves_nothing_behind_and_may_be_tried_again() -> None:
    async def scenario() -> None:
        scene = Scene()
        client, loader = scene.up(), scene.loader()
        client.load_error = ServingError(Code.NOT_FOUND, "no SavedModel")
        with pytest.raises(ServingError, match="no SavedModel"):
            await loader.load()
        assert scene.placement.num_servables(client) == 0
        client.load_error = None
        await loader.load()
        assert loader.state is LoaderState.LOADED

    run(scenario)


def test_a_load_waits_for_a_worker_and_fails_when_none_comes() -> None:
    async def scenario() -> None:
        scene = Scene()
        loading = asyncio.ensure_future(scene.loader().load())
        await turns()
        assert not loading.done()
        scene.up()
        await loading
        with pytest.raises(ServingError, match="no worker came up within 0 s") as caught:
            await Scene(wait_for_worker_s=0.0).loader().load()
        assert caught.value.code == Code.UNAVAILABLE

    run(scenario)


def test_a_worker_that_dies_during_a_load_fails_it_with_unavailable() -> None:
    async def scenario() -> None:
        scene = Scene()
        client, loader = scene.up(), scene.loader()
        client.may_load.clear()
        loading = asyncio.ensure_future(loader.load())
        await turns()
        scene.down(client)
        with pytest.raises(ServingError) as caught:
            await loading
        assert caught.value == KILLED
        assert loader.state is LoaderState.NEW
        scene.up()
        await loader.load()

    run(scenario)


def test_a_worker_that_answers_and_dies_in_one_turn_has_not_loaded() -> None:
    async def scenario() -> None:
        scene = Scene()
        client, loader = scene.up(), scene.loader()
        client.may_load.clear()
        loading = asyncio.ensure_future(loader.load())
        await turns()
        client.may_load.set()
        await asyncio.sleep(0)
        scene.placement.remove_worker(client, KILLED)
        with pytest.raises(ServingError, match="died just after"):
            await loading
        assert loader.replicas == ()

    run(scenario)


def test_the_next_servable_goes_to_the_worker_with_the_fewest() -> None:
    async def scenario() -> None:
        scene = Scene()
        one, other = scene.up("worker-0"), scene.up("worker-1")
        loaders = [scene.loader(version) for version in range(3)]
        for loader in loaders:
            await loader.load()
        assert [loader.replicas[0].worker for loader in loaders] == [one, other, one]
        await loaders[0].unload()
        await loaders[2].unload()
        another = scene.loader(9)
        await another.load()
        assert another.replicas[0].worker is one

    run(scenario)


def test_a_version_whose_worker_died_is_loaded_again_on_the_next_one() -> None:
    async def scenario() -> None:
        scene = Scene()
        dead, loader = scene.up(), scene.loader()
        await loader.load()
        scene.down(dead)
        assert loader.replicas == ()
        assert loader.state is LoaderState.LOST
        await turns()
        successor = scene.up()
        await turns()
        assert loader.state is LoaderState.LOADED
        assert loader.replicas[0].worker is successor
        await loader.unload()
        assert [command for command, _ in successor.calls] == ["load", "unload"]

    run(scenario)


def test_a_version_that_cannot_be_loaded_again_is_tried_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_loader, "MIN_RETRY_S", 0.0)
    monkeypatch.setattr(worker_loader, "MAX_RETRY_S", 0.0)

    async def scenario() -> None:
        scene = Scene()
        dead, loader = scene.up(), scene.loader()
        await loader.load()
        scene.down(dead)
        successor = scene.up()
        successor.load_error = ServingError(Code.NOT_FOUND, "no SavedModel")
        await turns()
        assert loader.state is LoaderState.LOST
        successor.load_error = None
        await turns()
        assert loader.state is LoaderState.LOADED

    run(scenario)


def test_unloading_a_lost_version_ends_its_return() -> None:
    async def scenario() -> None:
        scene = Scene()
        dead, loader = scene.up(), scene.loader()
        await loader.load()
        scene.down(dead)
        await turns()
        await loader.unload()
        successor = scene.up()
        await turns()
        assert successor.calls == []

    run(scenario)


def test_unloading_a_version_that_is_being_loaded_again_unloads_it_afterwards() -> None:
    async def scenario() -> None:
        scene = Scene()
        dead, loader = scene.up(), scene.loader()
        await loader.load()
        scene.down(dead)
        successor = scene.up()
        successor.may_load.clear()
        await turns()
        unloading = asyncio.ensure_future(loader.unload())
        await turns()
        assert not unloading.done()
        successor.may_load.set()
        await unloading
        assert [command for command, _ in successor.calls] == ["load", "unload"]
        assert loader.state is LoaderState.UNLOADED

    run(scenario)


def test_unloading_from_a_worker_that_dies_meanwhile_succeeds() -> None:
    async def scenario() -> None:
        scene = Scene()
        client, loader = scene.up(), scene.loader()
        await loader.load()
        client.die(KILLED)
        await loader.unload()
        assert loader.state is LoaderState.UNLOADED

    run(scenario)


def test_a_closed_placement_brings_nothing_back() -> None:
    async def scenario() -> None:
        scene = Scene()
        lost, kept = scene.loader(1), scene.loader(2)
        first = scene.up()
        await lost.load()
        scene.down(first)
        await turns()
        await scene.placement.close()
        second = scene.up()
        await turns()
        assert second.calls == []
        await kept.load()
        scene.down(second)
        await turns()
        assert kept.state is LoaderState.LOADED

    run(scenario)


def test_the_publisher_puts_a_loader_into_the_route_table_and_takes_it_out() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.up()
        loader, table = scene.loader(), RouteTable()
        publisher = RoutePublisher(table)
        await loader.load()
        await publisher.publish(ServableId("m", 1), loader)
        assert table.snapshot.versions["m"][1].hosting is loader
        await publisher.withdraw(ServableId("m", 1))
        assert table.snapshot.versions == {}
        with pytest.raises(TypeError, match="not by a WorkerLoader"):
            await publisher.publish(ServableId("m", 1), object())  # type: ignore[arg-type]

    run(scenario)


def test_there_is_trouble_while_no_worker_is_up_and_until_its_versions_are_loaded_again() -> None:
    async def scenario() -> None:
        scene = Scene()
        assert scene.placement.trouble == NO_WORKER_TEXT
        client, loader, other = scene.up(), scene.loader(1), scene.loader(2)
        assert scene.placement.trouble == ""
        await loader.load()
        await other.load()
        scene.down(client)
        assert scene.placement.trouble == NO_WORKER_TEXT
        client = scene.up()
        assert scene.placement.trouble == (
            f"Being loaded again after the end of a worker: {loader.servable_id}, {other.servable_id}."
        )
        await turns()
        assert loader.replicas
        assert scene.placement.trouble == ""

    run(scenario)


def test_a_version_that_is_unloaded_while_it_is_lost_is_no_trouble_any_more() -> None:
    async def scenario() -> None:
        scene = Scene()
        client, staying, leaving = scene.up(), scene.up("worker-1"), scene.loader()
        await leaving.load()
        staying.load_error = ServingError(Code.NOT_FOUND, "its files are gone")
        scene.down(client)
        await turns()
        assert "Being loaded again" in scene.placement.trouble
        await leaving.unload()
        assert scene.placement.trouble == ""

    run(scenario)


# --- several copies ---------------------------------------------------------------------------------------------------


def two_copies(*, ends_with_version: bool = False) -> Scene:
    return Scene(SharedHome("worker-0", "worker-1", num_replicas=2, ends_with_version=ends_with_version))


def workers_of(loader: Any) -> set[str]:
    return {replica.worker.name for replica in loader.replicas}


def test_a_version_is_loaded_on_as_many_workers_as_its_home_says_and_on_no_other() -> None:
    async def scenario() -> None:
        scene = two_copies()
        for name in ("worker-0", "worker-1", "worker-9"):
            scene.up(name)
        loader = scene.loader()
        await loader.load()
        assert workers_of(loader) == {"worker-0", "worker-1"}
        await loader.unload()
        assert loader.replicas == ()
        assert scene.homes.opened == []

    run(scenario)


def test_a_load_is_done_when_the_last_copy_is_there() -> None:
    async def scenario() -> None:
        scene = two_copies()
        scene.up()
        slow = scene.up("worker-1")
        slow.may_load.clear()
        loader = scene.loader()
        loading = asyncio.ensure_future(loader.load())
        await turns()
        assert not loading.done()
        slow.may_load.set()
        await loading

    run(scenario)


def test_where_workers_may_be_away_one_copy_is_enough_and_the_others_come_with_them() -> None:
    async def scenario() -> None:
        scene = Scene(SharedHome("worker-0", "worker-1", "worker-2", num_replicas=3, may_lack=True))
        loader = scene.loader()
        loading = asyncio.ensure_future(loader.load())
        await turns()
        assert not loading.done()  # for the first one it waits
        scene.up("worker-1")
        await loading
        assert (workers_of(loader), loader.state) == ({"worker-1"}, LoaderState.LOADED)
        assert scene.placement.trouble == ""
        for name in ("worker-0", "worker-2"):
            scene.up(name)
        await turns()
        assert workers_of(loader) == {"worker-0", "worker-1", "worker-2"}
        await loader.unload()

    run(scenario)


def test_a_worker_that_joins_a_home_gets_a_copy_and_one_that_has_left_is_waited_for_without_end() -> None:
    async def scenario() -> None:
        scene = Scene(SharedHome("worker-0", num_replicas=1, may_lack=True), wait_for_worker_s=0.0)
        home, first, loader = scene.homes.home, scene.up("worker-0"), scene.loader()
        await loader.load()
        home.workers, home.num_replicas = frozenset({"worker-0", "worker-1"}), 2
        joined = scene.up("worker-1")
        await turns()
        assert workers_of(loader) == {"worker-0", "worker-1"}
        scene.down(first)
        home.workers, home.num_replicas = frozenset({"worker-1"}), 1
        scene.down(joined)
        home.workers = frozenset()
        await turns()
        assert loader.state is LoaderState.LOST
        # All were gone; the next one to join is loaded at once, not at the next try of some later minute.
        home.workers = frozenset({"worker-0"})
        scene.up("worker-0")
        await turns()
        assert (workers_of(loader), loader.state) == ({"worker-0"}, LoaderState.LOADED)
        await loader.unload()

    run(scenario)


def test_a_worker_that_joins_while_a_version_loads_gets_its_copy_after_that() -> None:
    async def scenario() -> None:
        scene = Scene(SharedHome("worker-0", num_replicas=1, may_lack=True))
        home, first, loader = scene.homes.home, scene.up("worker-0"), scene.loader()
        first.may_load.clear()
        loading = asyncio.ensure_future(loader.load())
        await turns()
        home.workers, home.num_replicas = frozenset({"worker-0", "worker-1"}), 2
        scene.up("worker-1")
        await turns()
        first.may_load.set()
        await loading
        await turns()
        assert workers_of(loader) == {"worker-0", "worker-1"}

    run(scenario)


def test_a_version_with_fewer_copies_than_workers_moves_to_another_one_when_its_own_leaves() -> None:
    async def scenario() -> None:
        scene = Scene(SharedHome("worker-0", "worker-1", num_replicas=1, may_lack=True))
        first, loader = scene.up("worker-0"), scene.loader()
        scene.up("worker-1")
        await loader.load()
        assert workers_of(loader) == {"worker-0"}
        scene.down(first)
        await turns()
        assert workers_of(loader) == {"worker-1"}

    run(scenario)


def test_where_workers_may_be_away_one_that_goes_while_a_version_loads_costs_only_its_copy() -> None:
    async def scenario() -> None:
        scene = Scene(SharedHome("worker-0", "worker-1", num_replicas=2, may_lack=True))
        scene.up("worker-0")
        going, loader = scene.up("worker-1"), scene.loader()
        going.may_load.clear()
        loading = asyncio.ensure_future(loader.load())
        await turns()
        scene.down(going)
        await loading
        assert workers_of(loader) == {"worker-0"}
        scene.up("worker-1")
        await turns()
        assert workers_of(loader) == {"worker-0", "worker-1"}

    run(scenario)


# --- workers that leave -----------------------------------------------------------------------------------------------


def lone_copy(*names: str) -> Scene:
    return Scene(SharedHome(*names, num_replicas=1, may_lack=True))


def test_the_only_copy_on_a_worker_that_leaves_is_loaded_elsewhere_before_requests_stop_coming() -> None:
    async def scenario() -> None:
        scene = lone_copy("worker-0", "worker-1")
        leaving, loader = scene.up("worker-0"), scene.loader()
        await loader.load()
        other = scene.up("worker-1")
        other.may_load.clear()
        bye = asyncio.ensure_future(scene.placement.take_leave(leaving, KILLED))
        await turns()
        assert (bye.done(), workers_of(loader)) == (False, {"worker-0"})
        # Nothing new goes there.
        another = asyncio.ensure_future(scene.loader(2).load())
        await turns()
        assert len(leaving.calls) == 1
        other.may_load.set()
        await asyncio.gather(bye, another)
        assert workers_of(loader) == {"worker-1"}
        scene.up("worker-2")
        scene.down(leaving)
        await turns()
        # It is one copy still.
        assert workers_of(loader) == {"worker-1"}
        await loader.unload()
        assert [command for command, _ in leaving.calls] == ["load"]

    run(scenario)


def test_a_worker_that_leaves_does_not_wait_for_others_where_there_are_none_or_copies_enough() -> None:
    async def scenario() -> None:
        scene = lone_copy("worker-0")
        only, loader = scene.up("worker-0"), scene.loader()
        await loader.load()
        await scene.placement.take_leave(only, KILLED)
        assert (loader.state, scene.placement.trouble) == (LoaderState.LOST, NO_WORKER_TEXT)
        scene = two_copies()
        leaving, loader = scene.up("worker-0"), scene.loader()
        scene.up("worker-1")
        await loader.load()
        await scene.placement.take_leave(leaving, KILLED)
        assert workers_of(loader) == {"worker-1"}

    run(scenario)


def test_a_worker_that_leaves_waits_for_the_copy_that_is_being_loaded_already() -> None:
    async def scenario() -> None:
        scene = Scene(SharedHome("worker-0", "worker-1", num_replicas=2, may_lack=True))
        leaving, loader = scene.up("worker-0"), scene.loader()
        await loader.load()
        joined = scene.up("worker-1")
        joined.may_load.clear()
        await turns()
        bye = asyncio.ensure_future(scene.placement.take_leave(leaving, KILLED))
        await turns()
        assert (bye.done(), workers_of(loader)) == (False, {"worker-0"})
        joined.may_load.set()
        await bye
        assert workers_of(loader) == {"worker-1"}
        assert len(joined.calls) == 1

    run(scenario)


def test_a_worker_that_is_lost_while_it_leaves_is_lost() -> None:
    async def scenario() -> None:
        scene = lone_copy("worker-0", "worker-1")
        leaving, loader = scene.up("worker-0"), scene.loader()
        await loader.load()
        other = scene.up("worker-1")
        other.may_load.clear()
        bye = asyncio.ensure_future(scene.placement.take_leave(leaving, KILLED))
        await turns()
        scene.down(leaving)
        bye.cancel()
        other.may_load.set()
        await turns()
        assert workers_of(loader) == {"worker-1"}
        await loader.unload()
        assert [command for command, _ in other.calls] == ["load", "unload"]

    run(scenario)


def test_one_copy_that_cannot_be_loaded_fails_the_load_and_frees_the_others() -> None:
    async def scenario() -> None:
        scene = two_copies()
        good, bad = scene.up(), scene.up("worker-1")
        bad.load_error = ServingError(Code.NOT_FOUND, "no SavedModel")
        loader = scene.loader()
        with pytest.raises(ServingError, match="no SavedModel"):
            await loader.load()
        assert [command for command, _ in good.calls] == ["load", "unload"]
        assert (loader.replicas, scene.homes.opened) == ((), [])

    run(scenario)


def test_the_death_of_one_worker_takes_its_copy_at_once_and_the_other_serves_on() -> None:
    async def scenario() -> None:
        scene = two_copies()
        scene.up()
        dying, loader = scene.up("worker-1"), scene.loader()
        await loader.load()
        told: list[set[str]] = []
        loader.watch_replicas(lambda: told.append(workers_of(loader)))
        scene.down(dying)
        assert told == [{"worker-0"}]
        assert (loader.state, scene.placement.trouble) == (LoaderState.LOADED, "")
        scene.up("worker-1")
        await turns()
        assert told == [{"worker-0"}, {"worker-0", "worker-1"}]

    run(scenario)


def test_a_copy_that_is_lost_while_the_other_still_loads_is_brought_back_afterwards() -> None:
    async def scenario() -> None:
        scene = two_copies()
        dying, slow = scene.up(), scene.up("worker-1")
        slow.may_load.clear()
        loader = scene.loader()
        loading = asyncio.ensure_future(loader.load())
        await turns()
        scene.down(dying)
        slow.may_load.set()
        await loading
        assert workers_of(loader) == {"worker-1"}
        scene.up("worker-0")
        await turns()
        assert workers_of(loader) == {"worker-0", "worker-1"}

    run(scenario)


def test_workers_that_end_with_their_version_are_not_asked_to_unload_it() -> None:
    async def scenario() -> None:
        scene = Scene(SharedHome("worker-7", ends_with_version=True))
        client, loader = scene.up("worker-7"), scene.loader()
        await loader.load()
        await loader.unload()
        assert client.calls == [("load", 1)]
        assert scene.homes.opened == []

    run(scenario)


# --- versions that kill their worker ----------------------------------------------------------------------------------


async def crash_in_load(scene: Scene, client: Any) -> Any:
    """The worker dies of what it is loading; its successor, whose loads wait until the test lets them."""
    await turns()
    scene.down(client)
    await turns()
    successor = scene.up(client.name)
    successor.may_load.clear()
    return successor


def test_a_version_whose_return_kills_its_worker_again_and_again_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_loader, "MIN_RETRY_S", 0.0)

    async def scenario() -> None:
        scene = Scene(SharedHome("worker-0"))
        client, loader = scene.up(), scene.loader()
        await loader.load()
        client = await crash_in_load(scene, client)  # of something else: it was not loading
        for _ in range(worker_loader.MAX_LOAD_CRASHES):
            assert scene.given_up == []
            client = await crash_in_load(scene, client)
        ((servable_id, error),) = scene.given_up
        assert (servable_id, error.code) == (loader.servable_id, Code.INTERNAL)
        assert error.message == (
            f"loading {loader.servable_id} has ended its worker 3 times in a row and is not tried again;"
            f" the last time {KILLED.message}"
        )
        await turns()
        assert client.calls == []
        await loader.unload()
        with pytest.raises(ServingError, match="not tried again"):
            raise error

    run(scenario)


def test_a_first_load_that_killed_its_worker_too_often_fails_without_touching_another_one() -> None:
    async def scenario() -> None:
        scene = Scene(SharedHome("worker-0"))
        client, loader = scene.up(), scene.loader()
        client.may_load.clear()
        for _ in range(worker_loader.MAX_LOAD_CRASHES):
            loading = asyncio.ensure_future(loader.load())
            client = await crash_in_load(scene, client)
            with pytest.raises(ServingError, match="SIGKILL"):
                await loading
        with pytest.raises(ServingError, match="3 times in a row and is not tried again"):
            await loader.load()
        assert client.calls == []

    run(scenario)


def test_an_innocent_version_beside_one_that_kills_its_worker_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_loader, "MIN_RETRY_S", 0.0)

    async def scenario() -> None:
        scene = Scene(SharedHome("worker-0"))
        client, innocent, killer = scene.up(), scene.loader(1), scene.loader(2)
        await innocent.load()
        await killer.load()
        scene.down(client)
        num_starts = 0
        while not scene.given_up:
            client = scene.up()
            client.fatal_version, client.on_fatal = 2, partial(scene.down, client)
            num_starts += 1
            await turns()
        assert [servable_id.version for servable_id, _ in scene.given_up] == [2]
        assert num_starts <= 5
        scene.up()
        await turns()
        assert innocent.state is LoaderState.LOADED

    run(scenario)
