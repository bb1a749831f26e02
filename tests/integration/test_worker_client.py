"""The gateway's control socket against a worker on a thread: commands, their deadlines and their end."""

import asyncio
import contextlib
import pathlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest
import zmq

from tensorgate.gateway.dispatch.worker import WorkerEndpoints
from tensorgate.gateway.dispatch.worker_client import LoadOptions, WorkerClient, WorkerHealth
from tensorgate.protos import control_messages
from tensorgate.protos.status_codes import Code, ServingError
from tests.fakes.fake_worker import Endpoints, FakeWorker

DEAD = ServingError(Code.UNAVAILABLE, "worker-0 (pid 7) exited with code 1")


@dataclass
class Pair:
    """A client and its worker."""

    client: WorkerClient
    worker: FakeWorker


@contextlib.asynccontextmanager
async def connected(folder: pathlib.Path, mute: tuple[str, ...] = (), epoch: int = 3) -> AsyncIterator[Pair]:
    addresses = [f"ipc://{folder}/{role}" for role in ("data", "control", "cancel")]
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    worker = FakeWorker(context, Endpoints(*addresses), epoch, 2, mute)
    thread = threading.Thread(target=worker.run)
    thread.start()
    client = WorkerClient(context, asyncio.get_running_loop(), "worker-0", 3, WorkerEndpoints(*addresses))
    try:
        yield Pair(client, worker)
    finally:
        client.close(DEAD)
        worker.stop()
        await asyncio.get_running_loop().run_in_executor(None, thread.join)
        worker.close()
        context.term()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(scenario(), 30)

    asyncio.run(limited())


async def load(pair: Pair) -> None:
    loaded = await pair.client.load(5, "m", 1, "/models/m/1", "tensorflow", LoadOptions())
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
                await pair.client.load(5, "missing", 1, "/nowhere", "tensorflow", LoadOptions())
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
            pair.client.drain()

    run(scenario)


def test_a_worker_of_another_epoch_is_refused(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, epoch=4) as pair:
            with pytest.raises(ServingError, match="with epoch 4") as caught:
                await pair.client.hello(10)
            assert caught.value.code == Code.FAILED_PRECONDITION

    run(scenario)


def test_what_is_no_control_reply_is_dropped_and_counted(tmp_path: pathlib.Path) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    endpoints = WorkerEndpoints(*(f"ipc://{tmp_path}/{role}" for role in ("data", "control", "cancel")))

    async def scenario() -> None:
        router = context.socket(zmq.ROUTER)
        router.bind(endpoints.control)
        client = WorkerClient(context, asyncio.get_running_loop(), "worker-0", 3, endpoints)
        answer = asyncio.ensure_future(client.ping(10))
        await asyncio.get_running_loop().run_in_executor(None, router.poll, 10_000)
        peer, message = router.recv_multipart()
        request = control_messages.unpack_request(message)
        fields = {"in_flight": 1, "completed": 2, "rss_bytes": 3, "queues": []}
        for frames in (
            [b"nonsense"],
            [b""],
            [control_messages.pack_reply(request.id + 1, 0, "", **fields)],  # of a command that timed out
            [control_messages.pack_reply(request.id, 0, "", **fields)],
        ):
            router.send_multipart([peer, *frames])
        assert await answer == WorkerHealth(1, 2, 3)
        assert client.malformed_replies == 2
        client.close(DEAD)
        router.close()

    run(scenario)
    context.term()


def test_numbers_of_incarnations_are_never_reused(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        numbers = []
        for _ in range(3):
            async with connected(tmp_path) as pair:
                numbers.append(pair.client.number)
        assert len(set(numbers)) == 3

    run(scenario)
