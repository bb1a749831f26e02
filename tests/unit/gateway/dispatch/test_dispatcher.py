"""The dispatcher as Python's edges see it: calls on any loop, their outcomes, cancels and the end.

What a request goes through on its way is tested at tests/unit/native/test_dispatcher.py.
"""

import asyncio
import gc
import pathlib
import threading
import time
from collections.abc import Awaitable, Callable, Sequence

import pytest
import zmq

from tensorgate._native.data_plane import DataPlane
from tensorgate.gateway.core.model_spec import ModelSpec
from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.dispatch.call import NO_METADATA, Call, Method, Reply, RequestMetadata
from tensorgate.gateway.dispatch.dispatcher import Dispatcher, DispatchLimits
from tensorgate.gateway.dispatch.route_table import RouteTable
from tensorgate.gateway.dispatch.worker import Replica
from tensorgate.protos.status_codes import Code, ServingError
from tests.fakes.recording_worker import RecordingWorker

KILLED = ServingError(Code.UNAVAILABLE, "worker-0 (pid 7) was killed by signal 9 (SIGKILL)")
# One thread: credit 2.
SMALL = DispatchLimits(credit_per_thread=1, extra_credit=1, max_queued_requests=3, max_queued_bytes=1000)


class Hosted:
    """A Hosting whose copies the test sets."""

    signature_def_map = b""

    def __init__(self) -> None:
        self.replicas: Sequence[Replica] = ()
        self.on_change: Callable[[], None] | None = None

    def watch_replicas(self, on_change: Callable[[], None] | None) -> None:
        self.on_change = on_change

    def move(self, *replicas: Replica) -> None:
        self.replicas = replicas
        if self.on_change is not None:
            self.on_change()


class Scene:
    """One model ``m`` version 1 on workers that the test plays, behind a dispatcher whose native threads run."""

    def __init__(self, folder: pathlib.Path, limits: DispatchLimits, num_threads: int = 1) -> None:
        self._folder = folder
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.workers: list[RecordingWorker] = []
        self.plane = DataPlane(num_threads)
        self.table = RouteTable(self.plane)
        self.hosted = Hosted()
        self.table.publish(ServableId("m", 1), self.hosted)
        self.dispatcher = Dispatcher(self.table, self.plane, limits)
        self.plane.start()

    def worker(self, num_execution_threads: int = 1) -> RecordingWorker:
        """One more worker, which hosts the version too."""
        index = len(self.workers)
        worker = RecordingWorker(self._context, self._folder, f"worker-{index}", index + 1, num_execution_threads)
        self.workers.append(worker)
        self.dispatcher.add_worker(worker)
        self.hosted.move(*self.hosted.replicas, Replica(worker, 70 + index))
        return worker

    def close(self) -> None:
        self.dispatcher.close()
        for worker in self.workers:
            worker.close()
        self._context.term()

    @property
    def num_pins(self) -> int:
        return self.table.snapshot.versions["m"][1].num_pins

    def submit(
        self, payload: bytes = b"x", timeout_s: float | None = None, metadata: RequestMetadata = NO_METADATA
    ) -> Call:
        pin = self.dispatcher.resolve(ModelSpec("m", None, None, ""))
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        return self.dispatcher.submit(pin, Method.PREDICT, payload, metadata, deadline_s)

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            for worker in self.workers:
                worker.poll(0)
            await asyncio.sleep(0.001)


async def error_of(call: Awaitable[Reply]) -> ServingError:
    with pytest.raises(ServingError) as caught:
        await call
    return caught.value


Scenario = Callable[[Scene], Awaitable[None]]


def in_loop(limits: DispatchLimits = SMALL, num_threads: int = 1) -> Callable[[Scenario], Callable[..., None]]:
    """Runs a coroutine test with a scene on a loop of its own, within a time limit; in the end no pin may be left."""

    def decorate(test: Scenario) -> Callable[..., None]:
        def run(tmp_path: pathlib.Path) -> None:
            async def limited() -> None:
                scene = Scene(tmp_path, limits, num_threads)
                try:
                    await asyncio.wait_for(test(scene), 20)
                finally:
                    scene.close()
                assert scene.num_pins == 0

            asyncio.run(limited())

        run.__name__ = test.__name__
        run.__doc__ = test.__doc__
        return run

    return decorate


@in_loop()
async def test_a_request_reaches_the_worker_as_submitted_and_its_reply_comes_back(scene: Scene) -> None:
    worker = scene.worker()
    call = scene.submit(b"question", 2.5, RequestMetadata(priority=3, sampled=True, traceparent=b"00-ab"))
    await scene.until(lambda: len(worker.handed) == 1)
    (handed,) = worker.handed
    assert (handed.method, handed.servable_handle, handed.payload) == (Method.PREDICT, 70, b"question")
    assert 2_000_000 < handed.remaining_deadline_us <= 2_500_001
    assert (handed.priority, handed.sampled, handed.traceparent) == (3, True, b"00-ab")
    assert scene.num_pins == 1
    worker.reply_to(0, b"answer")
    assert await call == Reply(b"answer", 11, 22, 3, 4)
    assert scene.num_pins == 0
    assert scene.dispatcher.counters.succeeded == 1


@in_loop()
async def test_without_a_deadline_the_worker_is_told_so_as_with_one_that_never_comes(scene: Scene) -> None:
    worker = scene.worker()
    scene.submit()
    scene.submit(timeout_s=float("inf"))
    await scene.until(lambda: len(worker.handed) == 2)
    assert worker.handed[0].remaining_deadline_us == -1
    assert worker.handed[1].remaining_deadline_us > 2**61


@in_loop()
async def test_a_large_reply_is_a_view_of_its_frame(scene: Scene) -> None:
    worker = scene.worker()
    call = scene.submit(b"p" * 100_000)
    await scene.until(lambda: len(worker.handed) == 1)
    assert worker.handed[0].payload == b"p" * 100_000
    worker.reply_to(0, b"r" * 100_000)
    payload = (await call).payload
    assert isinstance(payload, memoryview)
    assert payload == b"r" * 100_000


@in_loop()
async def test_a_workers_error_is_raised_with_its_code_and_text(scene: Scene) -> None:
    worker = scene.worker()
    call = scene.submit()
    await scene.until(lambda: len(worker.handed) == 1)
    worker.reply_to(0, b"", Code.INVALID_ARGUMENT, "böse".encode() + b"\xff")
    assert await error_of(call) == ServingError(Code.INVALID_ARGUMENT, "böse�")


@in_loop()
async def test_load_and_queue_are_told_per_worker(scene: Scene) -> None:
    worker = scene.worker()
    calls = [scene.submit(b"%d" % i) for i in range(5)]
    await scene.until(lambda: scene.dispatcher.worker_load(worker) == (2, 3))
    assert scene.dispatcher.num_outstanding == 5
    for index in range(5):
        await scene.until(lambda index=index: len(worker.handed) > index)  # type: ignore[misc]
        worker.reply_to(index)
    assert len(await asyncio.gather(*calls)) == 5
    assert scene.dispatcher.num_outstanding == 0


@in_loop(DispatchLimits())
async def test_the_credit_follows_from_the_workers_execution_threads(scene: Scene) -> None:
    worker = scene.worker(num_execution_threads=3)
    calls = [scene.submit() for _ in range(20)]
    await scene.until(lambda: scene.dispatcher.worker_load(worker) == (3 * 4 + 4, 4))
    for call in calls:
        call.cancel()


@in_loop(DispatchLimits(credit_per_thread=4, extra_credit=3, max_queued_requests=6), num_threads=3)
async def test_native_threads_share_credit_and_queue_out(scene: Scene) -> None:
    worker = scene.worker()
    calls = [scene.submit() for _ in range(6)]  # of one loop, so all on one thread: credit 3, queue 2
    assert (await error_of(calls[5])).message.startswith("The queue of worker-0 is full: 2 requests wait")
    assert scene.dispatcher.worker_load(worker) == (3, 2)


@in_loop()
async def test_a_full_queue_refuses_with_the_name_of_the_limit(scene: Scene) -> None:
    scene.worker()
    for _ in range(5):
        scene.submit()
    error = await error_of(scene.submit())
    assert error.code == Code.RESOURCE_EXHAUSTED
    assert "max_queued_requests is 3" in error.message
    assert scene.dispatcher.counters.refused == 1


@in_loop()
async def test_a_deadline_fires_though_the_worker_hangs_and_the_pin_outlives_it(scene: Scene) -> None:
    worker = scene.worker()
    call = scene.submit(timeout_s=0.02)
    assert await error_of(call) == ServingError(Code.DEADLINE_EXCEEDED, "Timed out waiting for notification")
    await scene.until(lambda: worker.cancelled == [each.request_id for each in worker.handed] != [])
    assert scene.num_pins == 1
    worker.reply_to(0)
    await scene.until(lambda: scene.num_pins == 0)
    assert (scene.dispatcher.counters.late_replies, scene.dispatcher.counters.deadline_exceeded) == (1, 1)


@in_loop()
async def test_a_deadline_before_the_clocks_beginning_has_passed(scene: Scene) -> None:
    worker = scene.worker()
    assert (await error_of(scene.submit(timeout_s=-1e9))).code == Code.DEADLINE_EXCEEDED
    assert scene.dispatcher.worker_load(worker) == (0, 0)


@in_loop()
async def test_cancelling_completes_at_once_but_the_pin_stays_until_the_reply(scene: Scene) -> None:
    worker = scene.worker()
    call = scene.submit(timeout_s=5.0)
    await scene.until(lambda: len(worker.handed) == 1)
    call.cancel()
    call.cancel()
    assert (await error_of(call)).code == Code.CANCELLED
    await scene.until(lambda: worker.cancelled == [worker.handed[0].request_id])
    assert scene.num_pins == 1
    worker.reply_to(0)
    await scene.until(lambda: scene.num_pins == 0)
    assert (scene.dispatcher.counters.cancelled, scene.dispatcher.counters.late_replies) == (1, 1)


@in_loop()
async def test_cancelling_after_the_reply_changes_nothing(scene: Scene) -> None:
    worker = scene.worker()
    call = scene.submit()
    await scene.until(lambda: len(worker.handed) == 1)
    worker.reply_to(0, b"answer")
    assert (await call).payload == b"answer"
    call.cancel()
    assert (await call).payload == b"answer"
    worker.poll()
    assert worker.cancelled == []


@in_loop()
async def test_a_cancelled_task_may_cancel_its_call(scene: Scene) -> None:
    worker = scene.worker()

    async def client() -> None:
        call = scene.submit()
        try:
            await call
        except asyncio.CancelledError:
            call.cancel()
            raise

    task = asyncio.ensure_future(client())
    await scene.until(lambda: len(worker.handed) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await scene.until(lambda: len(worker.cancelled) == 1)
    worker.reply_to(0)
    await scene.until(lambda: scene.num_pins == 0)


@in_loop()
async def test_a_death_fails_what_was_handed_over_and_moves_what_waited(scene: Scene) -> None:
    one = scene.worker()
    calls = [scene.submit(b"%d" % i) for i in range(4)]
    await scene.until(lambda: len(one.handed) == 2 and scene.dispatcher.worker_load(one) == (2, 2))
    other = scene.worker(num_execution_threads=9)
    scene.dispatcher.remove_worker(one, KILLED)
    scene.dispatcher.remove_worker(one, KILLED)
    for call in calls[:2]:
        error = await error_of(call)
        assert error.code == Code.UNAVAILABLE
        for part in ("worker-0", "signal 9 (SIGKILL)", "can be retried"):
            assert part in error.message
    await scene.until(lambda: len(other.handed) == 2)
    assert other.payloads == [b"2", b"3"]
    other.reply_to(0, b"two")
    assert (await calls[2]).payload == b"two"
    assert (scene.dispatcher.counters.rerouted, scene.dispatcher.counters.worker_deaths) == (2, 1)


@in_loop()
async def test_without_a_live_worker_the_model_is_named_and_the_client_told_to_retry(scene: Scene) -> None:
    scene.dispatcher.remove_worker(scene.worker(), KILLED)
    error = await error_of(scene.submit())
    assert error.code == Code.UNAVAILABLE
    assert "{name: m version: 1}" in error.message
    assert "its worker is restarting" in error.message


@in_loop()
async def test_closing_fails_everything_and_whatever_comes_later(scene: Scene) -> None:
    worker = scene.worker()
    calls = [scene.submit(timeout_s=60.0) for _ in range(4)]
    scene.dispatcher.close()
    scene.dispatcher.close()
    late = scene.submit()
    for call in [*calls, late]:
        assert await error_of(call) == ServingError(Code.UNAVAILABLE, "The server is shutting down.")
    late.cancel()
    assert scene.dispatcher.worker_load(worker) == (0, 0)
    scene.dispatcher.remove_worker(worker, KILLED)
    scene.hosted.move()


@in_loop()
async def test_other_loops_submit_cancel_and_get_replies_and_errors(scene: Scene) -> None:
    worker = scene.worker(num_execution_threads=9)
    outcomes: list[object] = []

    async def client() -> None:
        answered, failed, cancelled = scene.submit(b"answer me"), scene.submit(b"fail me"), scene.submit(b"cancel me")
        cancelled.cancel()
        outcomes.append((await error_of(cancelled)).code)
        outcomes.append((await answered).payload)
        outcomes.append((await error_of(failed)).message)

    thread = threading.Thread(target=lambda: asyncio.run(client()))
    thread.start()
    await scene.until(lambda: len(worker.handed) == 3 and len(worker.cancelled) == 1)
    assert worker.payloads == [b"answer me", b"fail me", b"cancel me"]
    assert worker.cancelled == [worker.handed[2].request_id]
    worker.reply_to(0, b"answer")
    worker.reply_to(1, b"", Code.NOT_FOUND, b"no")
    worker.reply_to(2)
    await asyncio.get_running_loop().run_in_executor(None, thread.join)
    assert outcomes == [Code.CANCELLED, b"answer", "no"]
    await scene.until(lambda: scene.num_pins == 0)


@in_loop()
async def test_a_loop_that_has_closed_meanwhile_costs_nothing_but_its_reply(scene: Scene) -> None:
    worker = scene.worker()

    async def client() -> None:
        scene.submit()

    await asyncio.get_running_loop().run_in_executor(None, lambda: asyncio.run(client()))
    await scene.until(lambda: len(worker.handed) == 1)
    worker.reply_to(0)
    await scene.until(lambda: scene.num_pins == 0)


@in_loop()
async def test_loops_that_come_and_go_leave_no_descriptor(scene: Scene) -> None:
    scene.worker()
    for _ in range(50):
        await asyncio.get_running_loop().run_in_executor(None, lambda: asyncio.run(error_and_forget(scene)))
    gc.collect()
    assert len(scene.dispatcher._completions) <= 1


async def error_and_forget(scene: Scene) -> None:
    assert (await error_of(scene.submit(timeout_s=0.0))).code == Code.DEADLINE_EXCEEDED


@in_loop()
async def test_withdrawing_waits_for_a_native_threads_request(scene: Scene) -> None:
    worker = scene.worker()
    call = scene.submit()
    await scene.until(lambda: len(worker.handed) == 1)
    withdrawn = asyncio.ensure_future(scene.table.withdraw(ServableId("m", 1)))
    await asyncio.sleep(0)
    with pytest.raises(ServingError, match="Latest"):
        scene.dispatcher.resolve(ModelSpec("m"))
    assert not withdrawn.done()
    worker.reply_to(0)
    await asyncio.wait_for(withdrawn, 10)
    assert (await call).payload == b"reply"
    assert scene.hosted.on_change is None
    assert scene.plane.num_versions == 0
    scene.table.publish(ServableId("m", 1), scene.hosted)


def test_a_dispatcher_whose_loop_has_closed_serves_other_loops(tmp_path: pathlib.Path) -> None:
    made: list[Scene] = []

    async def make() -> None:
        made.append(Scene(tmp_path, SMALL))
        made[0].worker()
        made[0].submit()

    asyncio.run(make())

    async def client() -> None:
        assert (await error_of(made[0].submit(timeout_s=0.01))).code == Code.DEADLINE_EXCEEDED

    asyncio.run(client())
    made[0].close()
    assert made[0].num_pins == 0
