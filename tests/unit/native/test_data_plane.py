"""The native threads as they run: snapshots under load, pins, lines, and completions that wake a loop once."""

import gc
import os
import pathlib
import select
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import pytest
import zmq

from tensorgate._native.completion_queue import CompletionQueue
from tensorgate._native.data_plane import DataPlane
from tensorgate._native.route_table import PublishedVersion, Routes
from tensorgate.protos.status_codes import Code
from tests.fakes.fake_worker import Endpoints, FakeWorker

PREDICT = 1
HANDLE = 5


def until(condition: Callable[[], bool], what: str = "the condition") -> None:
    deadline_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline_s, f"{what} did not come about"
        time.sleep(0.001)


class Client:
    """One submitting thread: submits, and waits on its queue's descriptor."""

    def __init__(self, plane: DataPlane) -> None:
        self.queue = CompletionQueue(plane)
        self.outcomes: dict[object, tuple[int, bytes, bytes]] = {}

    def submit(self, owner: object, version: PublishedVersion, payload: bytes = b"echo") -> None:
        assert version.try_pin()
        self.queue.submit(owner, version, PREDICT, payload)

    def collect(self, number: int) -> None:
        deadline_s = time.monotonic() + 20
        while len(self.outcomes) < number:
            assert time.monotonic() < deadline_s, f"{len(self.outcomes)} of {number} outcomes"
            select.select([self.queue.event_fd], [], [], 1)
            for owner, code, message, payload, *_ in self.queue.drain():
                self.outcomes[owner] = (code, message, bytes(payload))


class Scene:
    """A started plane, and echoing workers on threads."""

    def __init__(self, folder: pathlib.Path, num_threads: int) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.folder = folder
        self.plane = DataPlane(num_threads)
        self.plane.start()
        self.workers: list[tuple[FakeWorker, threading.Thread]] = []
        self.models: dict[str, tuple[list[PublishedVersion], dict[str, int]]] = {}

    def worker(self, credit: int = 8) -> int:
        number = len(self.workers) + 1
        addresses = [f"ipc://{self.folder}/{number}-{role}" for role in ("data", "control", "cancel")]
        worker = FakeWorker(self.context, Endpoints(*addresses), 3)
        worker.handles.add(HANDLE)
        thread = threading.Thread(target=worker.run)
        thread.start()
        self.workers.append((worker, thread))
        self.plane.add_line(number, 3, f"worker-{number}", addresses[0], addresses[2], credit, 10_000, 1 << 30)
        return number

    def publish(self, name: str, version: int, *workers: int) -> PublishedVersion:
        made = PublishedVersion(name, version)
        self.plane.set_replicas(made, [(number, HANDLE) for number in workers])
        self.models.setdefault(name, ([], {}))[0].append(made)
        self.plane.publish(Routes(self.models))
        return made

    def withdraw(self, version: PublishedVersion) -> None:
        self.models[version.name][0].remove(version)
        self.plane.publish(Routes(self.models))
        version.close()

    def close(self) -> None:
        self.plane.close()
        for worker, thread in self.workers:
            worker.stop()
            thread.join()
            worker.close()
        self.context.term()


@pytest.fixture(params=[1, 3], ids=["one thread", "three threads"])
def scene(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Scene]:
    made = Scene(tmp_path, request.param)
    yield made
    made.close()


def test_requests_of_several_threads_are_each_answered_once(scene: Scene) -> None:
    version = scene.publish("m", 1, scene.worker(), scene.worker())
    problems: list[object] = []

    def client(name: int) -> None:
        each = Client(scene.plane)
        for i in range(300):
            each.submit(i, version, b"%d of %d" % (i, name))
        each.collect(300)
        problems.extend(i for i, out in each.outcomes.items() if out != (Code.OK, b"", b"%d of %d" % (i, name)))

    threads = [threading.Thread(target=client, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert (version.num_pins, scene.plane.num_outstanding) == (0, 0)
    assert scene.plane.counters()["succeeded"] == 1200
    seen = [fields[1] for worker, _ in scene.workers for fields in worker.requests]
    assert len(set(seen)) == len(seen) == 1200


def test_outcomes_that_pile_up_ring_once(scene: Scene) -> None:
    version = scene.publish("m", 1, scene.worker(credit=100))
    client = Client(scene.plane)
    for i in range(50):
        client.submit(i, version)
    until(lambda: scene.plane.counters()["succeeded"] == 50)
    until(lambda: bool(select.select([client.queue.event_fd], [], [], 0)[0]))
    assert os.eventfd_read(client.queue.event_fd) == 1
    assert len(client.queue.drain()) == 50
    assert client.queue.drain() == []


def test_a_withdrawn_version_waits_for_its_last_request_in_native_threads(scene: Scene) -> None:
    version = scene.publish("m", 1, scene.worker())
    client = Client(scene.plane)
    client.submit("held", version, b"hold")
    until(lambda: scene.plane.line_load(1) == (1, 0))
    scene.withdraw(version)
    assert version.num_pins == 1
    assert not select.select([version.drained_fd], [], [], 0)[0]
    with pytest.raises(ValueError, match="still in use"):
        scene.plane.forget(version)
    scene.plane.remove_line(1, "worker-1 died")
    assert select.select([version.drained_fd], [], [], 10)[0]
    client.collect(1)
    assert scene.plane.num_versions == 1
    scene.plane.forget(version)
    assert scene.plane.num_versions == 0


def test_versions_that_nobody_waits_for_go_with_a_later_publish(scene: Scene) -> None:
    version = scene.publish("m", 1)
    gone = weakref.ref(version) if hasattr(version, "__weakref__") else None
    scene.withdraw(version)
    assert scene.plane.num_versions == 1
    scene.publish("m", 2)
    assert scene.plane.num_versions == 1
    assert gone is None or gone() is version


def test_snapshots_and_replicas_swap_under_load_without_losing_a_request(scene: Scene) -> None:
    numbers = [scene.worker(), scene.worker()]
    ended = threading.Event()
    current = [scene.publish("m", 0, *numbers)]
    tallies: list[int] = []

    def load() -> None:
        client = Client(scene.plane)
        submitted = 0
        while not ended.is_set():
            for _ in range(20):
                version = current[0]
                if version.try_pin():
                    client.queue.submit(submitted, version, PREDICT, b"echo")
                    submitted += 1
            client.collect(submitted)
        tallies.append(submitted)
        assert {outcome[0] for outcome in client.outcomes.values()} == {Code.OK}

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(1, 100):
            former = current[0]
            current[0] = scene.publish("m", number, *numbers)
            scene.plane.set_replicas(current[0], [(each, HANDLE) for each in numbers[: 1 + number % 2]])
            scene.withdraw(former)
            assert select.select([former.drained_fd], [], [], 10)[0]
            scene.plane.forget(former)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert len(tallies) == 2
    assert scene.plane.counters()["succeeded"] == sum(tallies)
    assert current[0].num_pins == 0
    assert scene.plane.num_versions == 1


def test_lines_come_and_go_under_load(scene: Scene) -> None:
    keeps = scene.worker()
    version = scene.publish("m", 1, keeps)
    client = Client(scene.plane)
    submitted = 0
    for _ in range(8):
        comes = scene.worker(credit=2)
        scene.plane.set_replicas(version, [(keeps, HANDLE), (comes, HANDLE)])
        for _ in range(100):
            client.submit(submitted, version)
            submitted += 1
        scene.plane.remove_line(comes, "it went")
        scene.plane.set_replicas(version, [(keeps, HANDLE)])
    client.collect(submitted)
    assert {outcome[0] for outcome in client.outcomes.values()} <= {Code.OK, Code.UNAVAILABLE}
    assert (version.num_pins, scene.plane.num_outstanding) == (0, 0)
    assert scene.plane.counters()["worker_deaths"] == 8


def test_a_queue_that_is_dropped_with_requests_under_way_takes_nothing_with_it(scene: Scene) -> None:
    version = scene.publish("m", 1, scene.worker())
    client = Client(scene.plane)
    for i in range(100):
        client.submit(i, version, bytes(70_000))
    del client
    gc.collect()
    until(lambda: version.num_pins == 0, "the end of all pins")
    assert scene.plane.counters()["succeeded"] == 100


def test_closing_under_load_fails_what_is_left_and_leaves_no_pin(scene: Scene) -> None:
    version = scene.publish("m", 1, scene.worker(credit=2))
    client = Client(scene.plane)
    for i in range(500):
        client.submit(i, version, b"hold" if i % 50 == 0 else b"echo")
    scene.plane.close()
    client.collect(500)
    assert {outcome[0] for outcome in client.outcomes.values()} <= {Code.OK, Code.UNAVAILABLE}
    assert version.num_pins == 0
    with pytest.raises(RuntimeError, match="started once"):
        scene.plane.start()


def test_a_plane_that_is_forgotten_ends_its_threads() -> None:
    before = len(os.listdir("/proc/self/task"))
    plane = DataPlane(2)
    queue = CompletionQueue(plane)
    plane.start()
    assert len(os.listdir("/proc/self/task")) > before
    version = PublishedVersion("m", 1)
    assert version.try_pin()
    queue.submit("a", version, PREDICT, b"x")
    del plane, queue
    gc.collect()
    until(lambda: len(os.listdir("/proc/self/task")) == before, "the threads' end")
    assert version.num_pins == 0


def test_planes_that_are_made_and_never_started_leave_no_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(1, 30):
        DataPlane(1 + number % 3).close()
        DataPlane(2)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before
    for wrong in (0, -1, 5000):
        with pytest.raises(ValueError, match="num_threads"):
            DataPlane(wrong)


def test_running_loops_are_not_turned_by_hand(scene: Scene) -> None:
    with pytest.raises(RuntimeError, match="by themselves"):
        scene.plane.turn()
