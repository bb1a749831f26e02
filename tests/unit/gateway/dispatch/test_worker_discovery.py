"""Workers found by name: who joins, who stays, who is forgotten, and what a resolver that fails does to them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import pytest

from tensorgate.gateway.dispatch import worker_discovery
from tensorgate.gateway.dispatch.devices import Slot
from tensorgate.gateway.dispatch.worker_discovery import WorkerDiscovery
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.worker_network import WorkerService

BROKEN = ServingError(Code.UNAVAILABLE, "Name or service not known")
ONE, TWO, THREE = (f"10.0.0.{each}" for each in (1, 2, 3))


class FakePool:
    """A Joinable whose workers are up when the test says so; ``log`` records what it was told."""

    def __init__(self, *slots: Slot) -> None:
        self.slots: list[Slot] = list(slots)
        self.up: set[str] = set()
        self.log: list[str] = []

    def join(self, address: str, service: str) -> Slot:
        self.slots.append(Slot(f"worker-{len(self.slots)}", "", address, service))
        self.log.append(f"+{address}")
        return self.slots[-1]

    def is_up(self, slot: Slot) -> bool:
        return slot.address in self.up

    def forget(self, slot: Slot) -> None:
        self.slots.remove(slot)
        self.log.append(f"-{slot.address}")

    @property
    def addresses(self) -> list[str]:
        return [slot.address for slot in self.slots]


class Resolver:
    """Answers each question with what the test gives next, and only then."""

    def __init__(self) -> None:
        self._answers: asyncio.Queue[Sequence[str] | ServingError] = asyncio.Queue()
        self._waiting = asyncio.Event()

    async def __call__(self) -> Sequence[str]:
        self._waiting.set()
        answer = await self._answers.get()
        if isinstance(answer, ServingError):
            raise answer
        return answer

    async def says(self, *hosts: str, error: ServingError | None = None) -> None:
        """Returns when the answer has been dealt with: the next question is there."""
        await self._waiting.wait()
        self._waiting.clear()
        self._answers.put_nowait(hosts if error is None else error)
        await self._waiting.wait()


class Scene:
    """A discovery that looks as often as the resolver answers."""

    def __init__(self, *names: str, pool: FakePool | None = None, start_wait_s: float = 20) -> None:
        self.pool = pool or FakePool()
        self.resolvers = {name: Resolver() for name in names or ("w",)}
        services = [WorkerService(name, 9900) for name in self.resolvers]
        self.discovery = WorkerDiscovery(services, self.pool, self.resolvers.__getitem__, start_wait_s)
        self.starting = asyncio.ensure_future(self.discovery.start())

    async def says(self, *hosts: str, error: ServingError | None = None) -> None:
        await self.resolvers["w"].says(*hosts, error=error)

    async def stop(self) -> None:
        await self.starting
        self.discovery.stop()
        await asyncio.sleep(0)


def tcp(*hosts: str) -> list[str]:
    return [f"tcp://{host}:9900" for host in hosts]


@pytest.fixture(autouse=True)
def _looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_discovery, "RESOLVE_INTERVAL_S", 0.0)
    monkeypatch.setattr(worker_discovery, "START_INTERVAL_S", 0.0)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(scenario(), 10)

    asyncio.run(limited())


def test_every_address_of_the_name_joins_once() -> None:
    async def scenario() -> None:
        scene = Scene()
        await scene.says(ONE, TWO)
        await scene.says(TWO, ONE, THREE)
        assert scene.pool.addresses == tcp(ONE, TWO, THREE)
        assert {slot.service for slot in scene.pool.slots} == {"dns://w:9900"}
        await scene.stop()

    run(scenario)


def test_an_address_that_an_answer_lacks_stays_as_long_as_its_worker_is_up() -> None:
    async def scenario() -> None:
        scene = Scene()
        await scene.says(ONE, TWO)
        scene.pool.up = set(tcp(ONE, TWO))
        await scene.says(ONE)
        assert scene.pool.addresses == tcp(ONE, TWO)
        scene.pool.up = set(tcp(ONE))
        await scene.says(ONE)
        assert scene.pool.addresses == tcp(ONE)
        await scene.stop()

    run(scenario)


def test_a_worker_that_is_down_stays_as_long_as_the_name_has_its_address() -> None:
    async def scenario() -> None:
        scene = Scene()
        await scene.says(ONE)
        await scene.says(ONE)
        assert scene.pool.log == ["+tcp://10.0.0.1:9900"]
        await scene.stop()

    run(scenario)


def test_a_resolver_that_fails_changes_nothing_and_is_told_of_once_and_of_its_recovery(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "tensorgate.worker_discovery")

    async def scenario() -> None:
        scene = Scene()
        await scene.says(ONE)
        caplog.clear()
        for _ in range(3):
            await scene.says(error=BROKEN)
        assert scene.pool.addresses == tcp(ONE)
        await scene.says(ONE)
        await scene.stop()

    run(scenario)
    assert [record.message for record in caplog.records] == [
        "dns://w:9900 cannot be resolved, its workers stay as they are: Name or service not known",
        "dns://w:9900 is resolved again",
    ]


def test_workers_that_flags_or_other_names_have_are_not_taken_twice_nor_forgotten() -> None:
    async def scenario() -> None:
        named = Slot("worker-0", "", *tcp(ONE))
        scene = Scene("w", "v", pool=FakePool(named))
        await scene.says(ONE, TWO)
        await scene.resolvers["v"].says(TWO, THREE)
        assert scene.pool.addresses == tcp(ONE, TWO, THREE)
        await scene.says(THREE)  # TWO is forgotten, and the other name's now
        await scene.resolvers["v"].says(TWO, THREE)
        assert [(slot.address, slot.service) for slot in scene.pool.slots] == [
            (*tcp(ONE), ""),
            (*tcp(THREE), "dns://v:9900"),
            (*tcp(TWO), "dns://v:9900"),
        ]
        await scene.stop()

    run(scenario)


def test_the_start_waits_for_all_names_and_looks_again_while_one_is_not_known() -> None:
    async def scenario() -> None:
        scene = Scene("w", "v")
        await scene.resolvers["v"].says(ONE)
        await scene.says(error=BROKEN)
        assert not scene.starting.done()
        await scene.says(TWO)
        await scene.stop()
        assert scene.pool.addresses == tcp(ONE, TWO)

    run(scenario)


def test_the_start_is_refused_when_no_name_is_known_in_time() -> None:
    async def scenario() -> None:
        scene = Scene("w", "v", start_wait_s=0.05)
        await scene.says(error=BROKEN)
        with pytest.raises(ServingError) as caught:
            await scene.starting
        assert caught.value == ServingError(
            Code.UNAVAILABLE,
            "No worker is up: dns://w:9900: Name or service not known; dns://v:9900: no answer yet",
        )
        scene.discovery.stop()

    run(scenario)


def test_with_a_worker_that_a_flag_names_a_name_that_is_not_known_does_not_refuse_the_start() -> None:
    async def scenario() -> None:
        scene = Scene(pool=FakePool(Slot("worker-0", "", *tcp(ONE))), start_wait_s=0.05)
        await scene.starting
        await scene.says(TWO)  # it goes on looking
        assert scene.pool.addresses == tcp(ONE, TWO)
        await scene.stop()

    run(scenario)


def test_without_names_nothing_is_looked_at() -> None:
    async def scenario() -> None:
        discovery = WorkerDiscovery([], FakePool(), {}.__getitem__, 20)
        await discovery.start()
        discovery.stop()

    run(scenario)
