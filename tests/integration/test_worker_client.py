"""The gateway's sockets against a worker on a thread: frames, copies, commands and their deadlines."""

import asyncio
import contextlib
import pathlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import zmq
import zmq.utils.garbage

from tensorgate._native import frame_header
from tensorgate.gateway.dispatch.socket_reader import MAX_MESSAGES_PER_TURN
from tensorgate.gateway.dispatch.worker import WorkerEndpoints
from tensorgate.gateway.dispatch.worker_client import COPY_BELOW_BYTES, WorkerClient
from tensorgate.protos.status_codes import Code, ServingError
from tests.fakes.fake_worker import Endpoints, FakeWorker

DEAD = ServingError(Code.UNAVAILABLE, "worker-0 (pid 7) exited with code 1")


@dataclass
class Pair:
    """A client that has said hello, its worker, and the replies as they come."""

    client: WorkerClient
    worker: FakeWorker
    replies: "asyncio.Queue[tuple[Any, ...]]"

    async def ask(self, request_id: int, payload: bytes | memoryview = b"echo") -> tuple[Any, ...]:
        self.send(request_id, payload)
        return await asyncio.wait_for(self.replies.get(), 10)

    def send(self, request_id: int, payload: bytes | memoryview = b"echo") -> None:
        self.client.send_request(request_id, 1, 5, -1, 0, False, b"", payload)


@contextlib.asynccontextmanager
async def connected(folder: pathlib.Path, mute: tuple[str, ...] = (), epoch: int = 3) -> AsyncIterator[Pair]:
    addresses = [f"ipc://{folder}/{role}" for role in ("data", "control", "cancel")]
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    worker = FakeWorker(context, Endpoints(*addresses), epoch, 2, mute)
    thread = threading.Thread(target=worker.run)
    thread.start()
    client = WorkerClient(context, asyncio.get_running_loop(), "worker-0", 3, WorkerEndpoints(*addresses))
    replies: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
    client.set_reply_handler(lambda *fields: replies.put_nowait(fields))
    try:
        yield Pair(client, worker, replies)
    finally:
        client.close(DEAD)
        worker.stop()
        await asyncio.get_running_loop().run_in_executor(None, thread.join)
        worker.close()
        context.term()
        # pyzmq's own thread, which lets go of large payloads once they are sent, starts with the first of them.
        zmq.utils.garbage.gc.stop()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(scenario(), 30)

    asyncio.run(limited())


async def load(pair: Pair) -> None:
    loaded = await pair.client.load(5, "m", 1, "/models/m/1", ["serve"], b"")
    assert (loaded.signature_def_map, loaded.load_us) == (b"", 1234)


def test_commands_are_answered(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as pair:
            info = await pair.client.hello(10)
            assert (info.num_execution_threads, info.tensorflow_version) == (2, "none")
            assert pair.client.num_execution_threads == 2
            await load(pair)
            health = await pair.client.ping(10)
            assert (health.in_flight, health.completed, health.rss_bytes) == (0, 0, 4096)
            assert pair.client.health == health
            await pair.client.unload(5)
            await pair.client.stop(10)
            assert pair.worker.commands == ["hello", "load", "ping", "unload", "stop"]

    run(scenario)


def test_a_workers_refusal_is_raised_with_its_code(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as pair:
            with pytest.raises(ServingError) as caught:
                await pair.client.load(5, "missing", 1, "/nowhere", ["serve"], b"")
            assert caught.value == ServingError(Code.NOT_FOUND, "no SavedModel in /nowhere")

    run(scenario)


def test_a_silent_worker_ends_the_wait_at_its_deadline(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, mute=("ping",)) as pair:
            with pytest.raises(ServingError, match=r"did not answer 'ping' within 0\.05 s") as caught:
                await pair.client.ping(0.05)
            assert caught.value.code == Code.DEADLINE_EXCEEDED

    run(scenario)


def test_closing_fails_the_commands_under_way_and_all_later_use(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, mute=("ping",)) as pair:
            waiting = asyncio.ensure_future(pair.client.ping(10))
            await asyncio.sleep(0)
            pair.client.close(DEAD)
            pair.client.close(DEAD)
            with pytest.raises(ServingError, match="exited with code 1"):
                await waiting
            with pytest.raises(ServingError, match="exited with code 1"):
                await pair.client.ping(10)
            with pytest.raises(ServingError, match="exited with code 1"):
                pair.send(1)
            pair.client.send_cancel(1)
            pair.client.drain()

    run(scenario)


def test_a_worker_of_another_epoch_is_refused(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, epoch=4) as pair:
            with pytest.raises(ServingError, match="with epoch 4") as caught:
                await pair.client.hello(10)
            assert caught.value.code == Code.FAILED_PRECONDITION

    run(scenario)


def test_a_request_and_its_reply_carry_all_their_fields(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as pair:
            await load(pair)
            pair.client.send_request(2**40, 1, 5, 1500, -2, True, b"00-ab", b"question")
            assert await pair.replies.get() == (2**40, Code.OK, b"", 11, 22, 0, 0, b"question")
            assert pair.worker.requests == [(3, 2**40, 1, 5, 1500, -2, True, b"00-ab")]
            assert await pair.ask(8, b"fail 9 not now") == (8, 9, b"not now", 11, 22, 0, 0, b"")

    run(scenario)


def test_large_replies_are_views_of_their_frame_and_small_ones_bytes(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as pair:
            await load(pair)
            small, large = bytes(COPY_BELOW_BYTES - 1), bytes(range(256)) * 4096
            small_reply, large_reply = (await pair.ask(1, small))[-1], (await pair.ask(2, large))[-1]
            assert isinstance(small_reply, bytes)
            assert isinstance(large_reply, memoryview)
            assert isinstance(large_reply.obj, zmq.Frame)
            assert (small_reply, bytes(large_reply)) == (small, large)

    run(scenario)


def test_a_large_request_leaves_without_a_copy(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[object, bool]] = []
    send = zmq.Socket.send

    def spy(self: Any, data: Any, flags: int = 0, copy: bool = True, **more: Any) -> Any:
        if self.type == zmq.DEALER:  # the worker's own thread sends too
            sent.append((data, copy))
        return send(self, data, flags, copy=copy, **more)

    async def scenario() -> None:
        async with connected(tmp_path) as pair:
            await load(pair)
            payload = bytes(1 << 20)
            monkeypatch.setattr(zmq.Socket, "send", spy)
            pair.send(1, payload)
            assert [(data is payload, copy) for data, copy in sent] == [(False, True), (True, False)]
            assert pair.client._data.copy_threshold < len(payload)
            monkeypatch.undo()
            assert len((await asyncio.wait_for(pair.replies.get(), 10))[-1]) == 1 << 20

    run(scenario)


def test_every_reply_of_a_burst_arrives_although_the_descriptor_signals_once(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as pair:
            await load(pair)
            for turn in range(3):
                number = 5 * MAX_MESSAGES_PER_TURN
                for request_id in range(number):
                    pair.send(turn * number + request_id)
                seen = [(await asyncio.wait_for(pair.replies.get(), 10))[0] for _ in range(number)]
                assert seen == [turn * number + request_id for request_id in range(number)]

    run(scenario)


def test_a_handler_that_raises_does_not_stop_the_replies_behind(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as pair:
            await load(pair)
            problems: list[object] = []
            asyncio.get_running_loop().set_exception_handler(lambda _loop, what: problems.append(what["exception"]))

            def handle(request_id: int, *_fields: object) -> None:
                if request_id == 1:
                    raise LookupError("a fault in the handler")
                pair.replies.put_nowait((request_id,))

            pair.client.set_reply_handler(handle)
            for request_id in (1, 2, 3):
                pair.send(request_id)
            assert [await pair.replies.get(), await pair.replies.get()] == [(2,), (3,)]
            assert [type(problem) for problem in problems] == [LookupError]

    run(scenario)


def test_cancels_reach_the_worker(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as pair:
            await load(pair)
            pair.send(7, b"hold")
            # The answer to an echo behind it shows that the held request has arrived.
            await pair.ask(8)
            pair.client.send_cancel(7)
            assert (await pair.replies.get())[:3] == (7, Code.CANCELLED, b"skipped")
            assert pair.worker.cancelled == [7]

    run(scenario)


def test_what_is_no_reply_of_this_epoch_is_dropped_and_counted(tmp_path: pathlib.Path) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    addresses = [f"ipc://{tmp_path}/{role}" for role in ("data", "control", "cancel")]

    async def scenario() -> None:
        router = context.socket(zmq.ROUTER)
        router.bind(addresses[0])
        client = WorkerClient(context, asyncio.get_running_loop(), "worker-0", 3, WorkerEndpoints(*addresses))
        replies: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
        client.set_reply_handler(lambda *fields: replies.put_nowait(fields))
        client.send_request(1, 1, 5, -1, 0, False, b"", b"x")
        await asyncio.get_running_loop().run_in_executor(None, router.poll, 10_000)
        peer = router.recv_multipart()[0]
        for frames in (
            [b"a single frame, which takes the next message with it"],
            [b"header", b"payload"],
            [b"no header", b"payload"],
            [frame_header.pack_reply(3, 1, 0, b"", 0, 0, 0, 0), b"payload", b"surplus"],
            [frame_header.pack_reply(2, 1, 0, b"", 0, 0, 0, 0), b"of another epoch"],
            [frame_header.pack_reply(3, 1, 0, b"", 0, 0, 0, 0), b"good"],
        ):
            router.send_multipart([peer, *frames])
        assert (await asyncio.wait_for(replies.get(), 10))[-1] == b"good"
        assert client.foreign_replies == 4
        client.close(DEAD)
        router.close()

    run(scenario)
    context.term()
