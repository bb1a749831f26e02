"""The dispatcher: credit, queue, choice of worker, deadlines, cancels, deaths, and how long pins live."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence

import pytest

from tensorgate.gateway.core.model_spec import ModelSpec
from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.dispatch.call import NO_METADATA, Call, Method, Reply, RequestMetadata
from tensorgate.gateway.dispatch.dispatcher import Dispatcher
from tensorgate.gateway.dispatch.route_table import RouteTable
from tensorgate.gateway.dispatch.worker import Replica
from tensorgate.gateway.dispatch.worker_line import DispatchLimits
from tensorgate.protos.status_codes import Code, ServingError
from tests.fakes.manual_time import ManualTime
from tests.fakes.recording_worker import RecordingWorker

KILLED = ServingError(Code.UNAVAILABLE, "worker-0 (pid 7) was killed by signal 9 (SIGKILL)")
# One thread: credit 2.
SMALL = DispatchLimits(credit_per_thread=1, extra_credit=1, max_queued_requests=3, max_queued_bytes=1000)


class Hosted:
    """A Hosting whose copies the test sets."""

    signature_def_map = b""

    def __init__(self) -> None:
        self.replicas: Sequence[Replica] = ()


class Scene:
    """One model ``m`` version 1 on the given workers, behind a dispatcher with manual time."""

    def __init__(self, *workers: RecordingWorker, limits: DispatchLimits = SMALL) -> None:
        self.time = ManualTime()
        self.table = RouteTable()
        self.hosted = Hosted()
        self.hosted.replicas = [Replica(worker, 70 + index) for index, worker in enumerate(workers)]
        self.table.publish(ServableId("m", 1), self.hosted)
        self.dispatcher = Dispatcher(self.table, asyncio.get_running_loop(), self.time, limits, self.time)
        for worker in workers:
            self.dispatcher.add_worker(worker)

    @property
    def num_pins(self) -> int:
        return self.table.snapshot.versions["m"][1].num_pins

    @property
    def num_deadlines(self) -> int:
        return len(self.dispatcher._deadlines)

    def submit(
        self, payload: bytes = b"x", timeout_s: float | None = None, metadata: RequestMetadata = NO_METADATA
    ) -> Call:
        pin = self.dispatcher.resolve(ModelSpec("m", None, None, ""))
        deadline_s = None if timeout_s is None else self.time.now_s + timeout_s
        return self.dispatcher.submit(pin, Method.PREDICT, payload, metadata, deadline_s)


async def error_of(call: Awaitable[Reply]) -> ServingError:
    with pytest.raises(ServingError) as caught:
        await call
    return caught.value


def in_loop(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Runs a coroutine test on a loop of its own, within a time limit."""

    def run() -> None:
        async def limited() -> None:
            await asyncio.wait_for(test(), 10)

        asyncio.run(limited())

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run


@in_loop
async def test_a_request_reaches_the_worker_as_submitted_and_its_reply_comes_back() -> None:
    worker = RecordingWorker()
    scene = Scene(worker)
    call = scene.submit(b"question", 2.5, RequestMetadata(priority=3, sampled=True, traceparent=b"00-ab"))
    (handed,) = worker.handed
    assert (handed.method, handed.servable_handle, handed.remaining_deadline_us) == (Method.PREDICT, 70, 2_500_000)
    assert (handed.priority, handed.sampled, handed.traceparent) == (3, True, b"00-ab")
    assert scene.num_pins == 1
    worker.reply_to(0, b"answer")
    assert await call == Reply(b"answer", 11, 22, 3, 4)
    assert scene.num_pins == 0
    assert scene.num_deadlines == 0
    assert scene.dispatcher.counters.succeeded == 1


@in_loop
async def test_the_payload_is_handed_over_as_the_same_object() -> None:
    worker = RecordingWorker()
    scene = Scene(worker)
    payload = b"p" * 100_000
    scene.submit(payload)
    assert worker.handed[0].payload is payload
    view = memoryview(b"r" * 100_000)
    call = scene.submit()
    worker.reply_to(1, view)
    assert (await call).payload is view


@in_loop
async def test_without_a_deadline_the_worker_is_told_so_and_no_timer_runs() -> None:
    worker = RecordingWorker()
    scene = Scene(worker)
    scene.submit()
    assert worker.handed[0].remaining_deadline_us == -1
    assert scene.time.num_pending == 0


@in_loop
async def test_a_workers_error_is_raised_with_its_code_and_text() -> None:
    worker = RecordingWorker()
    scene = Scene(worker)
    call = scene.submit()
    worker.reply(worker.handed[0].request_id, b"", Code.INVALID_ARGUMENT, "böse".encode() + b"\xff")
    assert await error_of(call) == ServingError(Code.INVALID_ARGUMENT, "böse�")
    assert scene.num_pins == 0


@in_loop
async def test_beyond_its_credit_a_worker_is_handed_nothing_until_it_replies() -> None:
    worker = RecordingWorker()
    scene = Scene(worker)
    calls = [scene.submit(b"%d" % i) for i in range(5)]
    assert worker.payloads == [b"0", b"1"]
    assert scene.dispatcher.worker_load(worker) == (2, 3)
    worker.reply_to(0)
    assert worker.payloads == [b"0", b"1", b"2"]
    for index in range(1, 5):
        worker.reply_to(index)
    assert len(await asyncio.gather(*calls)) == 5
    assert scene.dispatcher.num_outstanding == 0


@in_loop
async def test_the_credit_follows_from_the_workers_execution_threads() -> None:
    worker = RecordingWorker(num_execution_threads=3)
    scene = Scene(worker, limits=DispatchLimits())
    for _ in range(20):
        scene.submit()
    assert len(worker.handed) == 3 * 4 + 4


@in_loop
async def test_what_waits_is_handed_over_by_priority() -> None:
    worker = RecordingWorker()
    scene = Scene(worker)
    for payload in (b"a", b"b", b"low"):
        scene.submit(payload)
    scene.submit(b"high", metadata=RequestMetadata(priority=1))
    worker.reply_to(0)
    worker.reply_to(1)
    assert worker.payloads == [b"a", b"b", b"high", b"low"]


@in_loop
async def test_a_full_queue_refuses_with_the_name_of_the_limit() -> None:
    scene = Scene(RecordingWorker())
    for _ in range(5):
        scene.submit()
    error = await error_of(scene.submit())
    assert error.code == Code.RESOURCE_EXHAUSTED
    assert "max_queued_requests is 3" in error.message
    assert scene.dispatcher.counters.refused == 1
    assert scene.num_pins == 5


@in_loop
async def test_requests_go_to_the_worker_with_the_fewest_outstanding() -> None:
    one, other = RecordingWorker("worker-0"), RecordingWorker("worker-1")
    scene = Scene(one, other)
    for payload in (b"a", b"b", b"c"):
        scene.submit(payload)
    assert (one.payloads, other.payloads) == ([b"a", b"c"], [b"b"])
    assert (one.handed[0].servable_handle, other.handed[0].servable_handle) == (70, 71)
    one.reply_to(0)
    one.reply_to(1)
    scene.submit(b"d")
    assert one.payloads[-1] == b"d"


@in_loop
async def test_without_a_live_worker_the_model_is_named_and_the_client_told_to_retry() -> None:
    worker = RecordingWorker()
    scene = Scene(worker)
    scene.dispatcher.remove_worker(worker, KILLED)
    error = await error_of(scene.submit())
    assert error.code == Code.UNAVAILABLE
    assert "{name: m version: 1}" in error.message
    assert "its worker is restarting" in error.message
    assert scene.num_pins == 0


@in_loop
async def test_a_deadline_fires_though_the_worker_hangs_and_the_pin_outlives_it() -> None:
    worker = RecordingWorker()
    scene = Scene(worker)
    call = scene.submit(timeout_s=1.0)
    scene.time.advance(1.0)
    assert await error_of(call) == ServingError(Code.DEADLINE_EXCEEDED, "Timed out waiting for notification")
    request_id = worker.handed[0].request_id
    assert worker.cancelled == [request_id]
    assert scene.num_pins == 1
    worker.reply(request_id)
    assert scene.num_pins == 0
    assert scene.dispatcher.counters.late_replies == 1
    assert scene.dispatcher.counters.deadline_exceeded == 1


@in_loop
async def test_a_deadline_in_the_queue_takes_the_request_out_and_ends_its_pin() -> None:
    worker = RecordingWorker()
    scene = Scene(worker)
    scene.submit()
    scene.submit()
    waiting = scene.submit(b"late", timeout_s=1.0)
    scene.time.advance(1.0)
    assert (await error_of(waiting)).code == Code.DEADLINE_EXCEEDED
    assert scene.num_pins == 2
    worker.reply_to(0)
    assert worker.payloads == [b"x", b"x"]
    assert worker.cancelled == []


@in_loop
async def test_a_deadline_that_has_passed_already_never_reaches_a_worker() -> None:
    worker = RecordingWorker()
    scene = Scene(worker)
    assert (await error_of(scene.submit(timeout_s=0.0))).code == Code.DEADLINE_EXCEEDED
    assert worker.handed == []
    assert scene.num_pins == 0


@in_loop
async def test_a_request_whose_deadline_passed_in_the_queue_unnoticed_is_not_handed_over() -> None:
    worker = RecordingWorker()
    scene = Scene(worker)
    scene.submit()
    scene.submit()
    expired, alive = scene.submit(b"expired", timeout_s=1.0), scene.submit(b"alive", timeout_s=9.0)
    scene.time.now_s += 2.0  # the loop is late with its timers
    worker.reply_to(0)
    assert (await error_of(expired)).code == Code.DEADLINE_EXCEEDED
    assert worker.payloads == [b"x", b"x", b"alive"]
    assert worker.handed[2].remaining_deadline_us == 7_000_000
    worker.reply_to(2)
    await alive


@in_loop
async def test_the_time_waited_is_taken_off_the_workers_deadline() -> None:
    worker = RecordingWorker()
    scene = Scene(worker)
    scene.submit()
    scene.submit()
    scene.submit(timeout_s=5.0)
    scene.time.advance(2.0)
    worker.reply_to(0)
    assert worker.handed[2].remaining_deadline_us == 3_000_000


@in_loop
async def test_cancelling_completes_at_once_but_the_pin_stays_until_the_reply() -> None:
    worker = RecordingWorker()
    scene = Scene(worker)
    call = scene.submit(timeout_s=5.0)
    call.cancel()
    call.cancel()
    assert (await error_of(call)).code == Code.CANCELLED
    assert worker.cancelled == [worker.handed[0].request_id]
    assert (scene.num_pins, scene.num_deadlines) == (1, 0)
    worker.reply_to(0)
    assert scene.num_pins == 0
    assert (scene.dispatcher.counters.cancelled, scene.dispatcher.counters.late_replies) == (1, 1)


@in_loop
async def test_cancelling_what_waits_never_reaches_the_worker() -> None:
    worker = RecordingWorker()
    scene = Scene(worker)
    scene.submit()
    scene.submit()
    call = scene.submit()
    call.cancel()
    assert scene.num_pins == 2
    worker.reply_to(0)
    assert len(worker.handed) == 2
    assert worker.cancelled == []


@in_loop
async def test_cancelling_after_the_reply_changes_nothing() -> None:
    worker = RecordingWorker()
    scene = Scene(worker)
    call = scene.submit()
    worker.reply_to(0, b"answer")
    call.cancel()
    assert (await call).payload == b"answer"
    assert worker.cancelled == []


@in_loop
async def test_a_cancelled_task_may_cancel_its_call() -> None:
    worker = RecordingWorker()
    scene = Scene(worker)

    async def client() -> None:
        call = scene.submit()
        try:
            await call
        except asyncio.CancelledError:
            call.cancel()
            raise

    task = asyncio.ensure_future(client())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(worker.cancelled) == 1
    worker.reply_to(0)
    assert scene.num_pins == 0


@in_loop
async def test_a_death_fails_what_was_handed_over_and_names_worker_cause_and_remedy() -> None:
    worker = RecordingWorker()
    scene = Scene(worker)
    calls = [scene.submit(timeout_s=9.0) for _ in range(2)]
    scene.dispatcher.remove_worker(worker, KILLED)
    for call in calls:
        error = await error_of(call)
        assert error.code == Code.UNAVAILABLE
        for part in ("worker-0", "signal 9 (SIGKILL)", "can be retried"):
            assert part in error.message
    assert (scene.num_pins, scene.num_deadlines) == (0, 0)
    assert scene.dispatcher.counters.worker_deaths == 1


@in_loop
async def test_a_death_moves_what_waited_to_another_worker_of_the_version() -> None:
    one, other = RecordingWorker("worker-0"), RecordingWorker("worker-1", num_execution_threads=9)
    scene = Scene(one)
    calls = [scene.submit(b"%d" % i) for i in range(4)]
    scene.hosted.replicas = [*scene.hosted.replicas, Replica(other, 99)]
    scene.dispatcher.add_worker(other)
    scene.dispatcher.remove_worker(one, KILLED)
    assert other.payloads == [b"2", b"3"]
    assert {handed.servable_handle for handed in other.handed} == {99}
    other.reply_to(0, b"two")
    assert (await calls[2]).payload == b"two"
    assert scene.dispatcher.counters.rerouted == 2
    assert len({handed.request_id for handed in one.handed + other.handed}) == 4


@in_loop
async def test_a_death_without_another_worker_fails_what_waited_too() -> None:
    worker = RecordingWorker()
    scene = Scene(worker)
    calls = [scene.submit() for _ in range(4)]
    scene.dispatcher.remove_worker(worker, KILLED)
    errors = [await error_of(call) for call in calls]
    assert [error.code for error in errors] == [Code.UNAVAILABLE] * 4
    assert "restarting" in errors[3].message
    assert scene.num_pins == 0


@in_loop
async def test_replies_of_the_dead_and_unknown_replies_are_dropped_and_counted() -> None:
    worker = RecordingWorker()
    scene = Scene(worker)
    call = scene.submit()
    scene.dispatcher.remove_worker(worker, KILLED)
    worker.reply_to(0)
    worker.reply(12345)
    assert (await error_of(call)).code == Code.UNAVAILABLE
    assert scene.dispatcher.counters.unknown_replies == 2


@in_loop
async def test_nothing_that_waited_for_the_dead_runs_on_its_successor() -> None:
    dead, successor = RecordingWorker(), RecordingWorker()
    scene = Scene(dead)
    calls = [scene.submit() for _ in range(4)]
    scene.dispatcher.remove_worker(dead, KILLED)
    scene.hosted.replicas = [Replica(successor, 71)]
    scene.dispatcher.add_worker(successor)
    await asyncio.gather(*(error_of(call) for call in calls))
    assert successor.handed == []
    call = scene.submit(b"new")
    successor.reply_to(0)
    await call


@in_loop
async def test_a_worker_that_cannot_be_reached_fails_the_request() -> None:
    worker = RecordingWorker()
    scene = Scene(worker)
    worker.broken = ServingError(Code.UNAVAILABLE, "worker-0 cannot be reached")
    assert await error_of(scene.submit()) == worker.broken
    assert (scene.num_pins, scene.dispatcher.num_outstanding) == (0, 0)


@in_loop
async def test_a_copy_that_moved_while_requests_waited_is_followed() -> None:
    one, other = RecordingWorker("worker-0"), RecordingWorker("worker-1")
    scene = Scene(one)
    for payload in (b"a", b"b", b"c"):
        scene.submit(payload)
    scene.hosted.replicas = [Replica(other, 99)]
    scene.dispatcher.add_worker(other)
    one.reply_to(0)
    assert other.payloads == [b"c"]


@in_loop
async def test_closing_fails_everything_and_whatever_comes_later() -> None:
    scene = Scene(RecordingWorker())
    calls = [scene.submit(timeout_s=1.0) for _ in range(4)]
    scene.dispatcher.close()
    scene.dispatcher.close()
    for call in [*calls, scene.submit()]:
        assert await error_of(call) == ServingError(Code.UNAVAILABLE, "The server is shutting down.")
    assert (scene.num_pins, scene.num_deadlines) == (0, 0)


@in_loop
async def test_other_loops_submit_cancel_and_get_replies_and_errors() -> None:
    worker = RecordingWorker(num_execution_threads=9)
    scene = Scene(worker)
    edge_loop = asyncio.get_running_loop()
    outcomes: list[object] = []
    submitted = asyncio.Event()
    threads: list[int] = []

    async def client() -> None:
        answered, failed, cancelled = scene.submit(b"answer me"), scene.submit(b"fail me"), scene.submit(b"cancel me")
        cancelled.cancel()
        outcomes.append((await error_of(cancelled)).code)
        edge_loop.call_soon_threadsafe(submitted.set)
        outcomes.append((await answered).payload)
        outcomes.append((await error_of(failed)).message)
        threads.append(threading.get_ident())

    thread = threading.Thread(target=lambda: asyncio.run(client()))
    thread.start()
    await submitted.wait()
    assert worker.payloads == [b"answer me", b"fail me", b"cancel me"]
    assert worker.cancelled == [worker.handed[2].request_id]
    worker.reply_to(0, b"answer")
    worker.reply(worker.handed[1].request_id, b"", Code.NOT_FOUND, b"no")
    worker.reply_to(2)
    await edge_loop.run_in_executor(None, thread.join)
    assert outcomes == [Code.CANCELLED, b"answer", "no"]
    assert scene.num_pins == 0


@in_loop
async def test_a_loop_that_has_closed_meanwhile_costs_nothing_but_its_reply() -> None:
    worker = RecordingWorker()
    scene = Scene(worker)

    async def client() -> None:
        scene.submit()

    await asyncio.get_running_loop().run_in_executor(None, lambda: asyncio.run(client()))
    await asyncio.sleep(0)
    worker.reply_to(0)
    assert scene.num_pins == 0


def test_submitting_to_an_edge_loop_that_has_closed_fails_with_unavailable() -> None:
    async def make() -> Scene:
        return Scene(RecordingWorker())

    scene = asyncio.run(make())

    async def client() -> None:
        assert (await error_of(scene.submit())).code == Code.UNAVAILABLE

    asyncio.run(client())
    assert scene.num_pins == 0
