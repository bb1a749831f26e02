"""The native dispatcher: credit, queue, choice of worker, deadlines, cancels, deaths, and how long pins live.

The plane's threads are not started: the test turns their loops itself, and plays the workers on real sockets.
"""

import contextlib
import pathlib
import random
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq

from tensorgate._native import frame_header
from tensorgate._native.completion_queue import CompletionQueue, Submission
from tensorgate._native.data_plane import DataPlane
from tensorgate._native.route_table import PublishedVersion, Routes
from tensorgate.protos.status_codes import Code
from tests.fakes.recording_stream_worker import RecordingStreamWorker
from tests.fakes.recording_worker import RecordingWorker

PREDICT = 1
KILLED = "worker-0 (pid 7) was killed by signal 9 (SIGKILL)"
DEADLINE = (Code.DEADLINE_EXCEEDED, b"Timed out waiting for notification")
RESTARTING = b"{name: m version: 1} cannot be served just now: its worker is restarting and will load it again; retry."


class Scene:
    """One model ``m`` version 1 on workers that the test plays, behind a plane whose loops it turns.

    ``outcomes`` maps what ``submit`` was given as owner to (code, message, payload, queue, run, rows, padding).
    """

    def __init__(
        self, context: "zmq.Context[zmq.Socket[bytes]]", folder: pathlib.Path, num_threads: int, uses_streams: bool
    ) -> None:
        self.uses_streams = uses_streams
        self._context = context
        self._folder = folder
        self.workers: list[RecordingWorker] = []
        self.live: list[RecordingWorker] = []
        self.plane = DataPlane(num_threads)
        self.queue = CompletionQueue(self.plane)
        self.version = PublishedVersion("m", 1)
        self.plane.publish(Routes({"m": ([self.version], {})}))
        self.outcomes: dict[object, tuple[Any, ...]] = {}

    def worker(self, credit: int = 2, max_queued: int = 3, max_queued_bytes: int = 1000) -> RecordingWorker:
        """One more worker, on which the version is not loaded yet."""
        index = len(self.workers)
        make = RecordingStreamWorker if self.uses_streams else RecordingWorker
        worker = make(self._context, self._folder, f"worker-{index}", index + 1)
        self.workers.append(worker)
        self.live.append(worker)
        endpoints = worker.endpoints
        self.plane.add_line(
            worker.number, worker.epoch, worker.name, endpoints.data, endpoints.cancel,
            credit, max_queued, max_queued_bytes, endpoints.stream,
        )  # fmt: skip
        return worker

    def host(self, *workers: RecordingWorker) -> None:
        """Where the version is loaded from now on; its handle is 70 plus the worker's number."""
        self.plane.set_replicas(self.version, [(worker.number, 70 + worker.number) for worker in workers])

    def hosted(self, **limits: int) -> RecordingWorker:
        worker = self.worker(**limits)
        self.host(worker)
        return worker

    def kill(self, worker: RecordingWorker) -> None:
        self.live.remove(worker)
        self.plane.remove_line(worker.number, KILLED)
        self._drain()

    def submit(
        self,
        owner: object,
        payload: bytes = b"x",
        timeout_s: float | None = None,
        version: PublishedVersion | None = None,
        **metadata: Any,
    ) -> Submission:
        """Submits, to ``m`` unless told otherwise, and turns the loops once."""
        version = version or self.version
        assert version.try_pin()
        deadline_us = -1 if timeout_s is None else int((time.monotonic() + timeout_s) * 1e6)
        submission = self.queue.submit(owner, version, PREDICT, payload, deadline_us=deadline_us, **metadata)
        self.plane.turn()
        self._drain()
        return submission

    def until(self, condition: Callable[[], bool], run_timers: bool = True) -> None:
        deadline_s = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline_s, "the condition did not come about"
            self.plane.turn(run_timers)
            self._drain()
            for worker in self.workers:
                worker.poll(0 if run_timers else 1)

    def settle(self) -> None:
        """Until all that was handed over has arrived, and every reply has been taken."""
        self.plane.turn()
        self._drain()
        self.until(lambda: all(worker.num_held == self.load(worker)[0] for worker in self.live))

    def load(self, worker: RecordingWorker) -> tuple[int, int]:
        return self.plane.line_load(worker.number)

    def reply(self, worker: RecordingWorker, *indices: int) -> None:
        """Answers what has arrived, or is about to, as these numbers; until the replies have been taken."""
        self.settle()
        for index in indices:
            worker.reply_to(index)
        self.settle()

    def _drain(self) -> None:
        for owner, *outcome in self.queue.drain():
            assert owner not in self.outcomes, "a request has ended twice"
            self.outcomes[owner] = tuple(outcome)

    def error(self, owner: object) -> tuple[int, bytes]:
        code, message, payload, *_ = self.outcomes[owner]
        assert payload == b""
        return code, message

    @property
    def counters(self) -> dict[str, int]:
        return {name: count for name, count in self.plane.counters().items() if count}

    @property
    def num_pins(self) -> int:
        return self.version.num_pins


@pytest.fixture(
    params=[(1, False), (3, False), (1, True), (3, True)],
    ids=["one thread", "three threads", "one thread, streams", "three threads, streams"],
)
def scene(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Scene]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    made = Scene(context, tmp_path, *request.param)
    yield made
    made.plane.close()
    assert made.num_pins == 0
    assert made.plane.num_outstanding == 0
    for worker in made.workers:
        worker.close()
    context.term()


def test_a_request_reaches_the_worker_as_submitted_and_its_reply_comes_back(scene: Scene) -> None:
    worker = scene.hosted()
    scene.submit("a", b"question", 2.5, priority=3, sampled=True, traceparent=b"00-ab")
    scene.settle()
    (handed,) = worker.handed
    assert (handed.method, handed.servable_handle, handed.payload) == (PREDICT, 71, b"question")
    assert 2_000_000 < handed.remaining_deadline_us <= 2_500_000
    assert (handed.priority, handed.sampled, handed.traceparent) == (3, True, b"00-ab")
    assert (scene.num_pins, scene.plane.num_outstanding) == (1, 1)
    worker.reply_to(0, b"answer")
    scene.settle()
    assert scene.outcomes == {"a": (Code.OK, b"", b"answer", 11, 22, 3, 4)}
    assert (scene.num_pins, scene.plane.num_timers, scene.plane.num_outstanding) == (0, 0, 0)
    assert scene.counters == {"submitted": 1, "succeeded": 1}


def test_without_a_deadline_the_worker_is_told_so_and_no_timer_runs(scene: Scene) -> None:
    worker = scene.hosted()
    scene.submit("a")
    scene.settle()
    assert worker.handed[0].remaining_deadline_us == -1
    assert scene.plane.num_timers == 0


def test_a_workers_error_comes_with_its_code_and_text_and_a_code_that_is_none_is_unknown(scene: Scene) -> None:
    worker = scene.hosted()
    for owner, code, text in (
        ("a", Code.INVALID_ARGUMENT, "böse".encode() + b"\xff"),
        ("b", 99, b""),
        ("c", 2**40, b""),
    ):
        scene.submit(owner)
        scene.settle()
        worker.reply_to(len(worker.handed) - 1, b"", code, text)
        scene.settle()
    assert scene.error("a") == (Code.INVALID_ARGUMENT, "böse".encode() + b"\xff")
    assert scene.error("b") == scene.error("c") == (Code.UNKNOWN, b"")
    assert scene.num_pins == 0
    assert scene.counters["failed"] == 3


def test_beyond_its_credit_a_worker_is_handed_nothing_until_it_replies(scene: Scene) -> None:
    worker = scene.hosted()
    for i in range(5):
        scene.submit(i, b"%d" % i)
    scene.settle()
    assert worker.payloads == [b"0", b"1"]
    assert scene.load(worker) == (2, 3)
    assert scene.plane.num_outstanding == 5
    scene.reply(worker, 0)
    assert worker.payloads == [b"0", b"1", b"2"]
    for index in range(1, 5):
        scene.reply(worker, index)
    assert [scene.outcomes[i][0] for i in range(5)] == [Code.OK] * 5
    assert scene.load(worker) == (0, 0)


def test_a_version_that_has_used_up_its_credit_keeps_no_other_one_waiting(scene: Scene) -> None:
    worker = scene.hosted(max_queued=30)
    others = [PublishedVersion(name, 1) for name in ("n", "o")]
    scene.plane.publish(Routes({each.name: ([each], {}) for each in (scene.version, *others)}))
    for other in others:
        scene.plane.set_replicas(other, [(worker.number, 80)])
    for number in range(6):
        scene.submit(f"slow {number}", b"m%d" % number)
    for number in range(4):
        for other in others:
            scene.submit(f"{other.name} {number}", f"{other.name}{number}".encode(), version=other)
    scene.settle()
    assert worker.payloads == [b"m0", b"m1", b"n0", b"o0", b"n1", b"o1"]
    assert scene.load(worker) == (6, 8)
    # What one version's reply gives back is that version's, and each keeps its order.
    scene.reply(worker, 2, 3, 4)
    assert worker.payloads[6:] == [b"n2", b"o2", b"n3"]
    scene.reply(worker, 0)
    assert worker.payloads[9:] == [b"m2"]
    for index in range(1, 14):
        if index not in (2, 3, 4):
            scene.reply(worker, index)
    assert len(scene.outcomes) == 14
    assert scene.load(worker) == (0, 0)
    assert [other.num_pins for other in others] == [0, 0]


def test_what_waits_is_handed_over_by_priority_and_in_order_of_arrival_within_one(scene: Scene) -> None:
    worker = scene.hosted(max_queued=10)
    for payload, priority in ((b"a", 0), (b"b", 0), (b"first", 0), (b"low", -1), (b"high", 5), (b"second", 0)):
        scene.submit(payload, payload, priority=priority)
    for index in range(6):
        scene.settle()
        scene.reply(worker, index)
    assert worker.payloads == [b"a", b"b", b"high", b"first", b"second", b"low"]


def test_any_priorities_and_cancels_leave_the_queue_in_order(scene: Scene) -> None:
    rng = random.Random(7)
    worker = scene.hosted(credit=1, max_queued=300, max_queued_bytes=10_000)
    scene.submit("running", b"")
    expected = []
    for i in range(200):
        priority = rng.randint(-(2**63), 2**63 - 1) if rng.random() < 0.3 else rng.randint(-2, 2)
        submission = scene.submit(i, b"%d" % i, priority=priority)
        if rng.random() < 0.3:
            submission.cancel()
        else:
            expected.append((-priority, i))
    scene.settle()
    index = 0
    while index < len(worker.handed):
        scene.reply(worker, index)
        index += 1
    assert worker.payloads == [b"", *(b"%d" % i for _, i in sorted(expected))]
    assert scene.load(worker) == (0, 0)


def test_a_full_queue_refuses_with_the_name_of_the_limit_in_requests(scene: Scene) -> None:
    scene.hosted()
    for i in range(6):
        scene.submit(i)
    assert scene.error(5) == (
        Code.RESOURCE_EXHAUSTED,
        b"The queue of worker-0 is full: 3 requests wait, max_queued_requests is 3; retry later.",
    )
    assert scene.counters["refused"] == 1
    assert scene.num_pins == 5


def test_a_full_queue_refuses_with_the_name_of_the_limit_in_bytes(scene: Scene) -> None:
    worker = scene.hosted(credit=1, max_queued=10, max_queued_bytes=8)
    for owner, payload in (("running", b"large enough"), ("waits", b"12345678"), ("refused", b"1")):
        scene.submit(owner, payload)
    assert scene.error("refused") == (
        Code.RESOURCE_EXHAUSTED,
        b"The queue of worker-0 is full: 8 bytes wait, this request has 1, max_queued_bytes is 8; retry later.",
    )
    scene.settle()
    scene.reply(worker, 0)
    scene.submit("fits again", b"1")
    assert scene.load(worker) == (1, 1)


def test_a_version_is_handed_no_more_than_its_limit_and_a_higher_one_holds_at_once(scene: Scene) -> None:
    worker = scene.hosted(credit=4, max_queued=10)
    scene.plane.set_limits(scene.version, 1, -1, 1)
    for i in range(7):
        scene.submit(i)
    assert scene.load(worker) == (1, 6)
    scene.plane.set_limits(scene.version, 3, -1, 1)
    assert scene.load(worker) == (3, 4)
    scene.plane.set_limits(scene.version, 0, -1, 1)
    assert scene.load(worker) == (4, 3)
    scene.plane.set_limits(scene.version, 2, -1, 1)
    scene.settle()
    scene.reply(worker, 0, 1, 2)
    assert scene.load(worker) == (2, 2)


def test_a_version_whose_part_of_the_queue_is_full_refuses_by_its_name_while_others_may_wait(scene: Scene) -> None:
    scene.hosted(credit=1, max_queued=10)
    other = PublishedVersion("n", 1)
    scene.plane.publish(Routes({each.name: ([each], {}) for each in (scene.version, other)}))
    scene.plane.set_replicas(other, [(1, 80)])
    scene.plane.set_limits(scene.version, 0, 2, 1)
    for i in range(4):
        scene.submit(i)
    assert scene.error(3) == (
        Code.RESOURCE_EXHAUSTED,
        b"The queue of m is full: 2 requests wait for worker-0, max_queued_requests of its settings is 2; retry later.",
    )
    for name in ("n0", "n1", "n2", "n3"):
        scene.submit(name, version=other)
    assert list(scene.outcomes) == [3]
    scene.plane.set_limits(scene.version, 0, 0, 1)
    scene.submit("none waits")
    assert b"max_queued_requests of its settings is 0" in scene.error("none waits")[1]


@pytest.mark.parametrize("whose", ["worker", "version"])
def test_a_full_queue_gives_up_the_youngest_of_the_lowest_priority_for_a_higher_one(scene: Scene, whose: str) -> None:
    worker = scene.hosted(credit=1, max_queued=4 if whose == "worker" else 10)
    if whose == "version":
        scene.plane.set_limits(scene.version, 0, 4, 1)
    for owner, priority in (("runs", 0), ("old low", -1), ("low", -1), ("normal", 0), ("high", 1)):
        scene.submit(owner, owner.encode(), priority=priority)
    scene.submit("another low", priority=-1)
    assert scene.error("another low")[0] == Code.RESOURCE_EXHAUSTED
    scene.submit("another normal", b"another normal", priority=0)
    assert scene.error("low") == (
        Code.RESOURCE_EXHAUSTED,
        b"The queue of worker-0 is full, and a request has come that goes before this one; retry later.",
    )
    scene.submit("another high", b"another high", priority=1)
    assert scene.error("old low")[0] == Code.RESOURCE_EXHAUSTED
    scene.submit("one high more", b"one high more", priority=1)
    assert scene.error("another normal")[0] == Code.RESOURCE_EXHAUSTED
    assert scene.counters["refused"] == 4
    for index in range(5):
        scene.reply(worker, index)
    assert worker.payloads == [b"runs", b"high", b"another high", b"one high more", b"normal"]
    assert scene.load(worker) == (0, 0)
    assert scene.num_pins == 0


def test_a_version_that_floods_the_queue_makes_room_for_another_by_their_weights(scene: Scene) -> None:
    worker = scene.hosted(credit=1, max_queued=8)
    other = PublishedVersion("n", 1)
    scene.plane.publish(Routes({each.name: ([each], {}) for each in (scene.version, other)}))
    scene.plane.set_replicas(other, [(worker.number, 80)])
    scene.plane.set_limits(other, 0, -1, 3)
    for i in range(12):
        scene.submit(i)
    assert sorted(scene.outcomes) == [9, 10, 11]
    for i in range(12):
        scene.submit(f"n{i}", version=other)
    # One of each runs; of the eight that wait three quarters are the other's, and the flood's youngest have left.
    assert [owner for owner in scene.outcomes if isinstance(owner, int)] == [9, 10, 11, 8, 7, 6, 5, 4, 3]
    assert scene.load(worker) == (2, 8)
    assert (scene.num_pins, other.num_pins) == (3, 7)


def test_a_worker_has_of_each_version_as_much_as_their_weights_say_while_both_want_it(scene: Scene) -> None:
    worker = scene.hosted(credit=6, max_queued=100)
    other = PublishedVersion("n", 1)
    scene.plane.publish(Routes({each.name: ([each], {}) for each in (scene.version, other)}))
    scene.plane.set_replicas(other, [(worker.number, 80)])
    scene.plane.set_limits(other, 0, -1, 3)
    for i in range(20):
        scene.submit(f"n{i}", b"n", version=other)
        scene.submit(i, b"m")
    scene.settle()
    assert sorted(worker.payloads) == [b"m"] * 2 + [b"n"] * 6
    scene.plane.set_limits(other, 0, -1, 1)
    scene.settle()
    assert sorted(worker.payloads) == [b"m"] * 6 + [b"n"] * 6
    with pytest.raises(ValueError, match="cannot be"):
        scene.plane.set_limits(other, 0, -1, 0)


def test_removing_from_the_middle_of_the_queue_keeps_order_and_counts(scene: Scene) -> None:
    worker = scene.hosted(credit=1, max_queued_bytes=15)
    submissions = [scene.submit(i, b"%05d" % i) for i in range(4)]
    submissions[2].cancel()
    scene.until(lambda: scene.load(worker) == (1, 2))
    scene.submit("fits", b"12345")
    scene.settle()
    for index in range(4):
        scene.reply(worker, index)
    assert worker.payloads == [b"00000", b"00001", b"00003", b"12345"]


def test_requests_go_to_the_worker_with_the_fewest_outstanding(scene: Scene) -> None:
    one, other = scene.worker(), scene.worker()
    scene.host(one, other)
    for payload in (b"a", b"b", b"c", b"d"):
        scene.submit(payload, payload)
    scene.settle()
    assert sorted(one.payloads + other.payloads) == [b"a", b"b", b"c", b"d"]
    assert len(one.payloads) == len(other.payloads) == 2
    assert {each.servable_handle for each in one.handed} == {71}
    assert {each.servable_handle for each in other.handed} == {72}
    scene.reply(one, 0, 1)
    scene.submit(b"e", b"e")
    scene.submit(b"f", b"f")
    scene.settle()
    assert one.payloads[2:] == [b"e", b"f"]


def test_workers_that_are_equally_busy_take_turns(scene: Scene) -> None:
    workers = [scene.worker() for _ in range(3)]
    scene.host(*workers)
    for turn in range(6):
        scene.submit(turn)
        scene.settle()
        (busy,) = [worker for worker in workers if worker.num_held]
        scene.reply(busy, len(busy.handed) - 1)
    assert [len(worker.handed) for worker in workers] == [2, 2, 2]


def test_without_a_live_worker_the_model_is_named_and_the_client_told_to_retry(scene: Scene) -> None:
    scene.submit("nowhere loaded")
    worker = scene.hosted()
    scene.kill(worker)
    scene.submit("its worker died")
    scene.host()
    scene.submit("unloaded")
    for owner in ("nowhere loaded", "its worker died", "unloaded"):
        assert scene.error(owner) == (Code.UNAVAILABLE, RESTARTING)
    assert scene.num_pins == 0


# --- deadlines --------------------------------------------------------------------------------------------------------


def test_a_deadline_fires_though_the_worker_hangs_and_the_pin_outlives_it(scene: Scene) -> None:
    worker = scene.hosted()
    scene.submit("a", timeout_s=0.02)
    began_s = time.monotonic()
    scene.until(lambda: "a" in scene.outcomes)
    assert time.monotonic() - began_s < 5
    assert scene.error("a") == DEADLINE
    scene.until(lambda: worker.cancelled == [each.request_id for each in worker.handed] != [])
    assert scene.num_pins == 1
    scene.reply(worker, 0)
    assert scene.num_pins == 0
    assert scene.counters == {"submitted": 1, "deadline_exceeded": 1, "late_replies": 1}


def test_a_deadline_is_never_early(scene: Scene) -> None:
    scene.hosted(credit=100)
    rng = random.Random(5)
    due_s = {}
    for i in range(50):
        timeout_s = rng.uniform(0.0005, 0.05)
        due_s[i] = time.monotonic() + timeout_s
        scene.submit(i, timeout_s=timeout_s)
    while len(scene.outcomes) < 50:
        known = set(scene.outcomes)
        scene.until(lambda known=known: len(scene.outcomes) > len(known))  # type: ignore[misc]
        for i in set(scene.outcomes) - known:
            assert time.monotonic() >= due_s[i] - 2e-6
    assert scene.plane.num_timers == 0


def test_a_deadline_in_the_queue_takes_the_request_out_and_ends_its_pin(scene: Scene) -> None:
    worker = scene.hosted()
    scene.submit("a")
    scene.submit("b")
    scene.submit("late", timeout_s=0.01)
    scene.until(lambda: "late" in scene.outcomes)
    assert scene.error("late") == DEADLINE
    assert (scene.num_pins, scene.load(worker)) == (2, (2, 0))
    scene.reply(worker, 0)
    assert worker.payloads == [b"x", b"x"]
    assert worker.cancelled == []


def test_a_deadline_that_has_passed_already_never_reaches_a_worker(scene: Scene) -> None:
    worker = scene.hosted()
    scene.submit("a", timeout_s=0.0)
    scene.submit("b", timeout_s=-5.0)
    assert scene.error("a") == scene.error("b") == DEADLINE
    assert scene.load(worker) == (0, 0)
    assert scene.num_pins == 0


def test_a_request_whose_deadline_passed_in_the_queue_unnoticed_is_not_handed_over(scene: Scene) -> None:
    worker = scene.hosted()
    scene.submit("a")
    scene.submit("b")
    scene.settle()
    scene.submit("expired", b"expired", timeout_s=0.01)
    scene.submit("alive", b"alive", timeout_s=60.0)
    due_s = time.monotonic() + 0.01
    while time.monotonic() <= due_s:  # the loop is late with its timers
        pass
    worker.reply_to(0)
    scene.until(lambda: len(worker.handed) == 3, run_timers=False)
    assert scene.error("expired") == DEADLINE
    assert worker.payloads == [b"x", b"x", b"alive"]
    assert 50_000_000 < worker.handed[2].remaining_deadline_us < 60_000_000


def test_the_time_waited_is_taken_off_the_workers_deadline(scene: Scene) -> None:
    worker = scene.hosted(credit=1)
    scene.submit("a")
    scene.settle()
    submitted_s = time.monotonic()
    scene.submit("b", timeout_s=60.0)
    while time.monotonic() < submitted_s + 0.02:
        pass
    scene.reply(worker, 0)
    assert worker.handed[1].remaining_deadline_us <= 59_980_000


# --- cancels ----------------------------------------------------------------------------------------------------------


def test_a_cancelled_request_has_no_outcome_but_its_pin_stays_until_the_reply(scene: Scene) -> None:
    worker = scene.hosted()
    submission = scene.submit("a", timeout_s=60.0)
    assert submission.cancel()
    assert not submission.cancel()
    scene.until(lambda: worker.cancelled == [each.request_id for each in worker.handed] != [])
    assert (scene.num_pins, scene.plane.num_timers) == (1, 0)
    scene.reply(worker, 0)
    assert scene.num_pins == 0
    assert scene.outcomes == {}
    assert scene.counters == {"submitted": 1, "cancelled": 1, "late_replies": 1}


def test_cancelling_what_waits_never_reaches_the_worker(scene: Scene) -> None:
    worker = scene.hosted()
    for owner in ("a", "b"):
        scene.submit(owner)
    scene.submit("c").cancel()
    scene.until(lambda: scene.num_pins == 2)
    scene.settle()
    scene.reply(worker, 0)
    assert len(worker.handed) == 2
    assert worker.cancelled == []


def test_cancelling_before_the_thread_has_seen_the_request_ends_it_too(scene: Scene) -> None:
    worker = scene.hosted()
    assert scene.version.try_pin()
    scene.queue.submit("a", scene.version, PREDICT, b"x").cancel()
    scene.settle()
    scene.until(lambda: len(worker.cancelled) == 1)
    scene.reply(worker, 0)
    assert scene.num_pins == 0


def test_cancelling_after_the_outcome_changes_nothing(scene: Scene) -> None:
    worker = scene.hosted()
    submission = scene.submit("a")
    scene.settle()
    worker.reply_to(0, b"answer")
    scene.settle()
    assert not submission.cancel()
    assert scene.outcomes["a"][2] == b"answer"
    scene.plane.turn()
    assert "cancelled" not in scene.counters


def test_a_cancel_that_races_the_reply_ends_the_request_once(scene: Scene) -> None:
    worker = scene.hosted(credit=1000)
    rng = random.Random(3)
    for turn in range(100):
        submission = scene.submit(turn)
        scene.settle()
        worker.reply_to(turn)
        for _ in range(rng.randint(0, 3)):
            scene.plane.turn()
        submission.cancel()  # before, at or behind the reply
        scene.settle()
    counters = scene.counters
    # One whose outcome lay in the queue when it was cancelled had succeeded.
    assert counters.get("succeeded", 0) + counters.get("late_replies", 0) == 100
    assert counters.get("cancelled", 0) == counters.get("late_replies", 0)
    assert (scene.num_pins, scene.queue.num_pending, scene.plane.num_outstanding) == (0, 0, 0)


def test_thousands_of_requests_dropped_at_every_stage_leave_nothing_behind(scene: Scene) -> None:
    """Cancelled in the mailbox, in the queue, at the worker, after the reply; expired; refused; failed by it."""
    worker = scene.hosted(credit=16, max_queued=40, max_queued_bytes=10_000)
    rng = random.Random(11)
    total = 10_000 // scene.plane.num_threads
    open_submissions: list[Submission] = []
    num_submitted = 0
    replied = 0
    while num_submitted < total or worker.num_held or scene.plane.num_outstanding:
        for _ in range(min(rng.randint(0, 60), total - num_submitted)):
            assert scene.version.try_pin()
            deadline_us = int((time.monotonic() + rng.uniform(-0.001, 0.005)) * 1e6) if rng.random() < 0.3 else -1
            payload = bytes(rng.choice((0, 1, 100, 70_000)))
            open_submissions.append(
                scene.queue.submit(
                    num_submitted, scene.version, PREDICT, payload, rng.randint(0, 3), deadline_us=deadline_us
                )
            )
            num_submitted += 1
        rng.shuffle(open_submissions)
        if num_submitted < total:
            for _ in range(min(rng.randint(0, 20), len(open_submissions))):
                open_submissions.pop().cancel()
        scene.plane.turn()
        scene._drain()
        worker.poll(0)
        while replied < len(worker.handed):
            code = rng.choice((Code.OK, Code.OK, Code.INTERNAL))
            worker.reply_to(replied, bytes(rng.choice((0, 10, 100_000))) if code == Code.OK else b"", code, b"text")
            replied += 1
            if open_submissions and rng.random() < 0.05:
                open_submissions.pop().cancel()
    scene.settle()
    assert (scene.num_pins, scene.queue.num_pending, scene.plane.num_timers) == (0, 0, 0)
    counters = scene.counters
    assert counters["submitted"] == total
    ended = ("succeeded", "failed", "cancelled", "deadline_exceeded")
    assert sum(counters.get(name, 0) for name in ended) == total
    assert {"cancelled", "deadline_exceeded", "refused", "late_replies", "succeeded"} <= set(counters)
    assert "unknown_replies" not in counters


# --- deaths -----------------------------------------------------------------------------------------------------------


def test_a_death_fails_what_was_handed_over_and_names_worker_cause_and_remedy(scene: Scene) -> None:
    worker = scene.hosted()
    for owner in ("a", "b"):
        scene.submit(owner, timeout_s=60.0)
    scene.settle()
    scene.kill(worker)
    text = f"The request was lost: {KILLED}. It may have run in part; it can be retried.".encode()
    assert scene.error("a") == scene.error("b") == (Code.UNAVAILABLE, text)
    assert (scene.num_pins, scene.plane.num_timers, scene.load(worker)) == (0, 0, (0, 0))
    assert scene.counters == {"submitted": 2, "failed": 2, "worker_deaths": 1}


def test_a_death_moves_what_waited_to_another_worker_of_the_version(scene: Scene) -> None:
    one = scene.hosted()
    for i in range(4):
        scene.submit(i, b"%d" % i)
    scene.settle()
    other = scene.worker(credit=10)
    scene.host(one, other)
    scene.kill(one)
    scene.settle()
    assert other.payloads == [b"2", b"3"]
    assert {handed.servable_handle for handed in other.handed} == {72}
    other.reply_to(0, b"two")
    scene.settle()
    assert scene.outcomes[2][2] == b"two"
    assert scene.counters["rerouted"] == 2
    assert len({handed.request_id for handed in one.handed + other.handed}) == 4
    scene.reply(other, 1)


def test_a_death_without_another_worker_fails_what_waited_too(scene: Scene) -> None:
    worker = scene.hosted()
    for i in range(4):
        scene.submit(i)
    scene.kill(worker)
    assert [scene.error(i)[0] for i in range(4)] == [Code.UNAVAILABLE] * 4
    assert scene.error(3)[1] == RESTARTING
    assert scene.num_pins == 0
    assert "rerouted" not in scene.counters


def test_what_a_worker_answered_before_it_died_counts(scene: Scene) -> None:
    worker = scene.hosted(credit=1)
    scene.submit("answered")
    scene.submit("waits")
    scene.settle()
    worker.reply_to(0, b"in time")
    # Not turned meanwhile: the reply lies in the socket, if ZeroMQ's thread has brought it.
    deadline_s = time.monotonic() + 0.2
    while time.monotonic() < deadline_s:
        pass
    scene.kill(worker)
    assert scene.outcomes["answered"][:3] == (Code.OK, b"", b"in time")
    assert scene.error("waits") == (Code.UNAVAILABLE, RESTARTING)


def test_replies_of_the_dead_go_nowhere_and_unknown_replies_are_counted(scene: Scene) -> None:
    worker = scene.hosted()
    scene.submit("a")
    scene.settle()
    worker.reply(12345)
    worker.reply(2**64 - 1)
    scene.until(lambda: scene.counters.get("unknown_replies") == 2)
    scene.kill(worker)
    worker.reply_to(0)
    scene.plane.turn()
    assert scene.error("a")[0] == Code.UNAVAILABLE
    assert scene.counters["unknown_replies"] == 2


def test_a_worker_cannot_answer_for_another_one(scene: Scene) -> None:
    one, other = scene.worker(), scene.worker()
    for owner, worker in (("one's", one), ("other's", other)):
        scene.host(worker)
        scene.submit(owner)
    scene.settle()
    one.reply(other.handed[0].request_id, b"forged")
    scene.until(lambda: scene.counters.get("unknown_replies") == 1)
    scene.reply(other, 0)
    scene.reply(one, 0)
    assert scene.outcomes["other's"][2] == b"reply"


def test_nothing_that_waited_for_the_dead_runs_on_its_successor(scene: Scene) -> None:
    dead = scene.hosted()
    for i in range(4):
        scene.submit(i)
    scene.kill(dead)
    successor = scene.hosted()
    scene.settle()
    assert len(scene.outcomes) == 4
    assert successor.handed == []
    scene.submit("new", b"new")
    scene.settle()
    assert successor.payloads == [b"new"]


def test_a_copy_that_moved_while_requests_waited_is_followed(scene: Scene) -> None:
    one = scene.hosted()
    for payload in (b"a", b"b", b"c"):
        scene.submit(payload, payload)
    scene.settle()
    other = scene.worker()
    scene.host(other)
    scene.reply(one, 0)
    scene.settle()
    assert other.payloads == [b"c"]


def test_a_worker_that_dies_in_the_middle_of_a_message_is_as_if_it_had_not_begun_it(
    scene: Scene, tmp_path: pathlib.Path
) -> None:
    """Between header and payload: a peer that speaks ZMTP by hand sends the first frame and closes the connection."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "raw"))
    listener.listen()
    address = f"ipc://{tmp_path}/raw"
    scene.plane.add_line(9, 3, "worker-9", address, address + "-cancel", 4, 4, 1000)
    scene.plane.set_replicas(scene.version, [(9, 1)])
    scene.submit("a", b"question")
    with contextlib.closing(listener), contextlib.closing(listener.accept()[0]) as peer:
        peer.settimeout(10)
        peer.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00NULL".ljust(55, b"\0"))
        ready = b"\x05READY\x0bSocket-Type" + (6).to_bytes(4, "big") + b"ROUTER"
        peer.sendall(bytes([4, len(ready)]) + ready)
        seen = b""
        while b"question" not in seen:
            scene.plane.turn()
            with contextlib.suppress(TimeoutError):
                peer.settimeout(0.01)
                seen += peer.recv(4096)
        header = frame_header.pack_reply(3, scene.plane.num_threads, 0, b"", 1, 2, 0, 0)
        peer.sendall(bytes([1, len(header)]) + header)
    for _ in range(10):
        scene.plane.turn()
    assert scene.plane.line_load(9) == (1, 0)
    scene.plane.remove_line(9, KILLED)
    scene._drain()
    assert scene.error("a")[0] == Code.UNAVAILABLE
    assert scene.counters == {"submitted": 1, "failed": 1, "worker_deaths": 1}


# --- frames -----------------------------------------------------------------------------------------------------------


def test_what_is_no_reply_of_this_epoch_is_dropped_and_counted(scene: Scene) -> None:
    worker = scene.hosted()
    scene.submit("a")
    scene.settle()
    request_id = worker.handed[0].request_id
    good = frame_header.pack_reply(3, request_id, 0, b"", 0, 0, 0, 0)
    bad: list[tuple[bytes, ...]] = [
        (b"a single frame",),
        (b"",),
        (good,),
        (b"no header", b"payload"),
        (good, b"payload", b"surplus"),
        (good, b"payload", b"surplus", b"and more"),
        (frame_header.pack_reply(2, request_id, 0, b"", 0, 0, 0, 0), b"of another epoch"),
        (frame_header.pack_request(3, request_id, 1, 1, -1, 0, False, b""), b"of another kind"),
    ]
    if scene.uses_streams:  # where a message cannot have any other number of frames
        bad = [frames for frames in bad if len(frames) == 2]
    for frames in bad:
        worker.send(*frames)
    scene.until(lambda: scene.counters.get("foreign_replies") == len(bad))
    assert scene.outcomes == {}
    worker.reply_to(0, b"good")
    scene.settle()
    assert scene.outcomes["a"][2] == b"good"


def test_large_payloads_go_both_ways_uncopied_and_are_let_go(scene: Scene) -> None:
    worker = scene.hosted()
    payload = bytearray(bytes(range(256)) * 1000)
    assert scene.version.try_pin()
    scene.queue.submit("a", scene.version, PREDICT, payload)
    with pytest.raises(BufferError):
        payload.append(1)  # held
    scene.settle()
    assert worker.handed[0].payload == payload

    def is_released() -> bool:
        try:
            payload.append(1)
        except BufferError:
            return False
        return True

    scene.until(is_released)
    answer = bytes(range(256)) * 128
    worker.reply_to(0, answer)
    scene.settle()
    large = scene.outcomes["a"][2]
    assert isinstance(large, memoryview)
    assert large.readonly
    assert large == answer
    scene.submit("b")
    scene.settle()
    worker.reply_to(1, answer[:-1])
    scene.settle()
    small = scene.outcomes["b"][2]
    assert isinstance(small, bytes)
    assert small == answer[:-1]
    scene.plane.close()
    assert bytes(large[:4]) == b"\0\1\2\3"


def test_large_payloads_that_never_left_are_let_go_too(scene: Scene) -> None:
    scene.hosted(credit=1, max_queued_bytes=10**9)
    payloads = [bytearray(100_000) for _ in range(4)]
    scene.submit("unread by the worker", payloads[0])  # type: ignore[arg-type]
    scene.submit("cancelled", payloads[1]).cancel()  # type: ignore[arg-type]
    scene.submit("expires", payloads[2], timeout_s=0.001)  # type: ignore[arg-type]
    scene.submit("waits", payloads[3])  # type: ignore[arg-type]
    scene.until(lambda: "expires" in scene.outcomes)
    scene.plane.close()
    for payload in payloads:
        payload.append(1)


def test_a_burst_beyond_all_bounds_before_a_worker_that_does_not_read(scene: Scene) -> None:
    worker = scene.hosted(credit=4, max_queued=1000, max_queued_bytes=10**9)
    for i in range(3000):
        assert scene.version.try_pin()
        scene.queue.submit(i, scene.version, PREDICT, bytes(1000))
    scene.plane.turn()
    scene._drain()
    assert scene.load(worker) == (4, 1000)
    assert len(scene.outcomes) == 1996
    assert {scene.error(i)[0] for i in scene.outcomes} == {Code.RESOURCE_EXHAUSTED}
    index = 0
    while scene.plane.num_outstanding:
        scene.settle()
        scene.reply(worker, *range(index, len(worker.handed)))
        index = len(worker.handed) - worker.num_held
    assert scene.counters["succeeded"] == 1004


def test_more_replies_than_a_turn_takes_all_arrive(scene: Scene) -> None:
    worker = scene.hosted(credit=1000, max_queued=5000, max_queued_bytes=10**9)
    for i in range(1000):
        scene.submit(i)
    scene.settle()
    scene.reply(worker, *range(1000))
    assert len(scene.outcomes) == 1000


# --- the end ----------------------------------------------------------------------------------------------------------


def test_closing_fails_everything_and_nothing_is_taken_any_more(scene: Scene) -> None:
    scene.hosted()
    for i in range(4):
        scene.submit(i, timeout_s=60.0)
    scene.plane.close()
    scene.plane.close()
    scene._drain()
    assert {scene.error(i) for i in range(4)} == {(Code.UNAVAILABLE, b"The server is shutting down.")}
    assert scene.num_pins == 0
    with pytest.raises(RuntimeError, match="closed"):
        scene.queue.submit("late", scene.version, PREDICT, b"")
    scene.plane.remove_line(1, KILLED)
    scene.plane.add_line(2, 1, "worker-0", "ipc:///nowhere", "ipc:///nowhere", 1, 1, 1)
    scene.plane.set_replicas(scene.version, [])
    scene.plane.publish(Routes({}))


def test_requests_in_the_mailbox_of_a_plane_that_closes_fail_too(scene: Scene) -> None:
    scene.hosted()
    assert scene.version.try_pin()
    scene.queue.submit("a", scene.version, PREDICT, b"x")
    scene.plane.close()
    scene._drain()
    assert scene.error("a") == (Code.UNAVAILABLE, b"The server is shutting down.")


def test_a_line_that_cannot_be_opened_is_an_error_and_leaves_none(scene: Scene) -> None:
    with pytest.raises(OSError, match="worker-0 cannot be opened"):
        scene.plane.add_line(1, 1, "worker-0", "nonsense", "ipc:///nowhere", 1, 1, 1)
    with pytest.raises(ValueError, match="credit"):
        scene.plane.add_line(1, 1, "worker-0", "ipc:///nowhere", "ipc:///nowhere", 0, 1, 1)
    assert scene.hosted().number == 1
    with pytest.raises(ValueError, match="a line 1 already"):
        scene.plane.add_line(1, 1, "worker-0", "ipc:///nowhere", "ipc:///nowhere", 1, 1, 1)


def test_a_payload_without_a_buffer_is_refused_and_the_pin_stays_the_callers(scene: Scene) -> None:
    assert scene.version.try_pin()
    with pytest.raises(TypeError):
        scene.queue.submit("a", scene.version, PREDICT, 7)  # type: ignore[arg-type]
    assert scene.queue.num_pending == 0
    assert scene.num_pins == 1
    scene.version.unpin()
