"""Large payloads on the dispatcher's line to a worker that shares memory: how long they stay, and whom it believes.

As in test_dispatcher the test turns the loops itself, and plays the workers.
"""

import pathlib
import time
from collections.abc import Iterator

import pytest
import zmq

from tensorgate._native.completion_queue import CompletionQueue, Submission
from tensorgate._native.data_plane import DataPlane
from tensorgate._native.request_memory import RequestMemory
from tensorgate._native.route_table import PublishedVersion, Routes
from tensorgate.protos.status_codes import Code
from tests.fakes.recording_stream_worker import RecordingStreamWorker
from tests.fakes.sharing_worker import REPLY_BYTES, SharingWorker

PREDICT = 1
THRESHOLD = 10_000
LARGE = bytes(range(256)) * 400
SMALL = b"small" * 100
MISPLACED = b"The worker's reply is not where it says, in the memory that it shares with us."


class Scene:
    """One model on workers that the test plays."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", folder: pathlib.Path, num_threads: int) -> None:
        self._context = context
        self._folder = folder
        self.memory = RequestMemory(1 << 20, THRESHOLD)
        self.plane = DataPlane(num_threads, self.memory)
        self.queue = CompletionQueue(self.plane)
        self.version = PublishedVersion("m", 1)
        self.plane.publish(Routes({"m": ([self.version], {})}))
        self.workers: list[RecordingStreamWorker] = []
        self.outcomes: dict[object, tuple[int, bytes, bytes]] = {}

    def add(self, worker: RecordingStreamWorker, credit: int = 4) -> None:
        self.workers.append(worker)
        ends = worker.endpoints
        self.plane.add_line(
            worker.number, worker.epoch, worker.name, ends.data, ends.cancel, credit, 100, 1 << 30, ends.stream,
            ends.replies,
        )  # fmt: skip
        self.plane.set_replicas(self.version, [(each.number, 70) for each in self.workers])

    def sharing_worker(self, credit: int = 4) -> SharingWorker:
        worker = SharingWorker(self._context, self._folder, self.memory, number=len(self.workers) + 1)
        self.add(worker, credit)
        return worker

    def plain_worker(self) -> RecordingStreamWorker:
        worker = RecordingStreamWorker(self._context, self._folder, number=len(self.workers) + 1)
        self.add(worker)
        return worker

    def kill(self, worker: RecordingStreamWorker) -> None:
        self.plane.remove_line(worker.number, "worker-0 was killed")
        self.workers.remove(worker)
        self.drain()

    def submit(self, owner: object, payload: bytes, timeout_s: float | None = None) -> Submission:
        assert self.version.try_pin()
        deadline_us = -1 if timeout_s is None else int((time.monotonic() + timeout_s) * 1e6)
        return self.queue.submit(owner, self.version, PREDICT, payload, deadline_us=deadline_us)

    def drain(self) -> None:
        for owner, code, message, payload, *_ in self.queue.drain():
            self.outcomes[owner] = (code, message, bytes(payload))

    def settle(self) -> None:
        """Until everything handed over has arrived and every reply has been taken."""
        deadline_s = time.monotonic() + 20
        for _ in range(3):
            while True:
                assert time.monotonic() < deadline_s
                self.plane.turn()
                self.drain()
                for worker in self.workers:
                    worker.poll(0)
                if all(worker.num_held == self.plane.line_load(worker.number)[0] for worker in self.workers):
                    break


@pytest.fixture(params=[1, 3], ids=["one thread", "three threads"])
def scene(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Scene]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    made = Scene(context, tmp_path, request.param)
    played: list[RecordingStreamWorker] = made.workers
    yield made
    made.plane.close()
    assert made.memory.used == 0
    assert made.version.num_pins == 0
    for worker in played:
        worker.close()
    context.destroy(0)


def test_large_requests_and_replies_go_by_shared_memory_and_small_ones_in_frames(scene: Scene) -> None:
    worker = scene.sharing_worker()
    scene.submit("large", LARGE)
    scene.submit("small", SMALL)
    scene.settle()
    assert worker.payloads == [LARGE, SMALL]
    assert [place is None for place in worker.places] == [False, True]
    assert scene.memory.used >= len(LARGE)
    worker.reply_in_memory(0, LARGE[::-1])
    worker.reply_to(1, b"answer")
    scene.settle()
    assert scene.outcomes == {"large": (Code.OK, b"", LARGE[::-1]), "small": (Code.OK, b"", b"answer")}
    assert (scene.memory.used, worker.memory.held_bytes, worker.replies.used) == (0, 0, 0)
    assert scene.plane.shared_memory() == {
        "requests": (scene.memory.size, 0, 0),
        "replies": (REPLY_BYTES, 0, 0),
    }


def test_a_worker_that_shares_no_memory_is_sent_everything(scene: Scene) -> None:
    worker = scene.plain_worker()
    scene.submit("large", LARGE)
    scene.settle()
    assert worker.payloads == [LARGE]
    assert scene.memory.used == 0
    worker.reply_to(0, LARGE)
    scene.settle()
    assert scene.outcomes["large"] == (Code.OK, b"", LARGE)


def test_what_finds_no_room_is_sent(scene: Scene) -> None:
    worker = scene.sharing_worker(credit=30)
    for number in range(12):
        scene.submit(number, bytes([number]) * 100_000)
    scene.settle()
    assert sorted(worker.payloads) == [bytes([number]) * 100_000 for number in range(12)]
    assert 0 < sum(place is None for place in worker.places) < 12
    assert scene.memory.num_full == sum(place is None for place in worker.places)
    for index in range(12):
        worker.reply_to(index, worker.payloads[index][:3])
    scene.settle()
    assert {owner: payload for owner, (_, _, payload) in scene.outcomes.items()} == {
        number: bytes([number]) * 3 for number in range(12)
    }


def test_a_request_that_is_cancelled_or_late_stays_until_the_worker_has_replied(scene: Scene) -> None:
    worker = scene.sharing_worker()
    cancelled = scene.submit("cancelled", LARGE)
    scene.submit("late", LARGE, timeout_s=0.05)
    scene.settle()
    used = scene.memory.used
    assert cancelled.cancel()
    while "late" not in scene.outcomes:
        scene.settle()
    assert scene.outcomes["late"][0] == Code.DEADLINE_EXCEEDED
    assert scene.memory.used == used
    for place in worker.places:
        assert place is not None
        assert worker.requests.get(place) == LARGE
    # What comes meanwhile is put somewhere else.
    scene.submit("another", LARGE[::-1])
    scene.settle()
    assert scene.memory.used == used // 2 * 3
    for index in range(3):
        worker.reply_in_memory(index, b"too late" * 1000)
    scene.settle()
    assert (scene.memory.used, worker.memory.held_bytes, worker.replies.used) == (0, 0, 0)
    assert scene.outcomes["another"][0] == Code.OK
    assert "cancelled" not in scene.outcomes


def test_a_dead_workers_requests_leave_the_memory_and_what_waited_reaches_another_worker(scene: Scene) -> None:
    first = scene.sharing_worker(credit=1)
    for number in range(8):
        scene.submit(number, bytes([number]) * 20_000)
    scene.settle()
    second = scene.sharing_worker(credit=10)
    scene.kill(first)
    scene.settle()
    lost = sorted(int.from_bytes(payload[:1], "big") for payload in first.payloads)
    assert sorted(int.from_bytes(payload[:1], "big") for payload in second.payloads) == sorted(
        set(range(8)) - set(lost)
    )
    assert all(scene.outcomes[number][0] == Code.UNAVAILABLE for number in lost)
    for index in range(len(second.handed)):
        second.reply_to(index)
    scene.settle()
    assert scene.memory.used == 0
    first.close()


def test_a_reply_outlives_the_line_to_its_worker(scene: Scene) -> None:
    worker = scene.sharing_worker()
    scene.submit("a", LARGE)
    scene.settle()
    worker.reply_in_memory(0, LARGE)
    for _ in range(100):  # taken off the socket, not by Python yet
        scene.plane.turn()
        if worker.memory.held_bytes:
            break
    scene.plane.remove_line(worker.number, "worker-0 was killed")
    scene.workers.clear()
    worker.close()
    scene.drain()
    assert scene.outcomes["a"] == (Code.OK, b"", LARGE)
    assert worker.memory.held_bytes == 0


@pytest.mark.parametrize(
    "place",
    [
        (0, 100, 1),
        (REPLY_BYTES, 1, 1),
        (REPLY_BYTES - 4096, 4097, 1),
        ((1 << 64) - 4096, 8192, 1),
        (8192, (1 << 64) - 1, 1),
        (8192, 0, 1),
        (8192, 100, 0),
        (8192, 100, 7),
        (8192, 100, (1 << 64) - 1),
        (8193, 100, 1),
    ],
)
def test_a_worker_that_lies_about_its_reply_fails_the_request_and_nothing_else(
    scene: Scene, place: tuple[int, int, int]
) -> None:
    worker = scene.sharing_worker()
    scene.submit("lied to", LARGE)
    scene.submit("answered", SMALL)
    scene.settle()
    worker.reply_with_place(worker.payloads.index(LARGE), place)
    worker.reply_to(worker.payloads.index(SMALL), b"answer")
    scene.settle()
    assert scene.outcomes["lied to"] == (Code.INTERNAL, MISPLACED, b"")
    assert scene.outcomes["answered"] == (Code.OK, b"", b"answer")
    assert (scene.memory.used, worker.memory.held_bytes) == (0, 0)


def test_a_worker_that_has_no_memory_of_its_own_and_speaks_of_a_place_is_not_followed(scene: Scene) -> None:
    worker = scene.plain_worker()
    scene.submit("a", SMALL)
    scene.settle()
    SharingWorker.reply_with_place(worker, 0, (8192, 100, 1))  # type: ignore[arg-type]
    scene.settle()
    assert scene.outcomes["a"] == (Code.INTERNAL, MISPLACED, b"")


def test_a_reply_is_told_of_once(scene: Scene) -> None:
    worker = scene.sharing_worker()
    scene.submit("a", LARGE)
    scene.submit("b", LARGE)
    scene.settle()
    place = worker.replies.put(LARGE)
    assert place is not None
    worker.reply_with_place(0, place)
    scene.settle()
    worker.reply_with_place(1, place)
    scene.settle()
    assert sorted(outcome[0] for outcome in scene.outcomes.values()) == [Code.OK, Code.INTERNAL]
