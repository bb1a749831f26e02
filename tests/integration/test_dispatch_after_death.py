"""Supervisor, placement, route table and dispatcher together, while their worker dies."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import zmq

from tensorgate._native.data_plane import DataPlane
from tensorgate.gateway.core.clock import SystemClock
from tensorgate.gateway.core.model_spec import ModelSpec
from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.source import ServableData
from tensorgate.gateway.dispatch.call import NO_METADATA, Call, Method
from tensorgate.gateway.dispatch.dispatcher import Dispatcher, DispatchLimits
from tensorgate.gateway.dispatch.placement import Placement
from tensorgate.gateway.dispatch.route_publisher import RoutePublisher
from tensorgate.gateway.dispatch.route_table import RouteTable
from tensorgate.gateway.dispatch.run_directory import RunDirectory
from tensorgate.gateway.dispatch.supervisor import Supervisor, WorkerOptions
from tensorgate.gateway.dispatch.worker_client import LoadOptions
from tensorgate.protos.status_codes import Code, ServingError
from tests.fakes.fake_worker_options import FAKE_WORKER_OPTIONS
from tests.fakes.shared_home import SharedHome

LIMITS = DispatchLimits(credit_per_thread=1, extra_credit=0)


class Gateway:
    """Everything between an edge and the worker process."""

    def __init__(self, options: WorkerOptions, context: "zmq.Context[zmq.Socket[bytes]]", run: RunDirectory) -> None:
        loop, clock = asyncio.get_running_loop(), SystemClock()
        data_plane = DataPlane()
        data_plane.start()
        self.table = RouteTable(data_plane)
        self.publisher = RoutePublisher(self.table)
        self.dispatcher = Dispatcher(self.table, data_plane, LIMITS)
        self.placement = Placement(SharedHome())
        self.supervisor = Supervisor(options, context, loop, run, clock)
        self.supervisor.subscribe(self.placement.add_worker, self.placement.remove_worker)
        self.supervisor.subscribe(self.dispatcher.add_worker, self.dispatcher.remove_worker)

    async def serve(self, name: str) -> None:
        data = ServableData(ServableId(name, 1), f"/models/{name}/1")
        loader = self.placement.loader_factory(LoadOptions())(data)
        await loader.load()
        await self.publisher.publish(data.id, loader)

    def submit(self, payload: bytes) -> Call:
        pin = self.dispatcher.resolve(ModelSpec("m"))
        return self.dispatcher.submit(pin, Method.PREDICT, payload, NO_METADATA, None)

    async def ask_until_served(self, payload: bytes) -> bytes:
        """As a client that retries on UNAVAILABLE."""
        while True:
            try:
                return bytes((await self.submit(payload)).payload)
            except ServingError as error:
                if error.code != Code.UNAVAILABLE:
                    raise
                await asyncio.sleep(0.01)


@asynccontextmanager
async def gateway(options: WorkerOptions = FAKE_WORKER_OPTIONS) -> AsyncIterator[Gateway]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    run_directory = RunDirectory()
    made = Gateway(options, context, run_directory)
    try:
        await made.supervisor.start()
        await made.serve("m")
        yield made
    finally:
        await made.placement.close()
        await made.supervisor.stop(5.0)
        made.dispatcher.close()
        run_directory.remove()
        context.term()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(scenario(), 60)

    asyncio.run(limited())


async def error_of(call: Call) -> ServingError:
    with pytest.raises(ServingError) as caught:
        await call
    return caught.value


def test_a_request_goes_to_the_worker_process_and_back() -> None:
    async def scenario() -> None:
        async with gateway() as served:
            assert (await served.submit(b"echo")).payload == b"echo"

    run(scenario)


@pytest.mark.parametrize(
    ("payload", "cause"),
    [(b"kill", "was killed by signal 9 (SIGKILL)"), (b"exit 3", "exited with code 3")],
    ids=["killed", "exited"],
)
def test_a_worker_that_dies_in_a_request_fails_it_and_its_successor_serves_the_model_again(
    payload: bytes, cause: str
) -> None:
    async def scenario() -> None:
        async with gateway() as served:
            # Two execution threads, so a credit of two: the third waits in the gateway.
            held, fatal, waiting = served.submit(b"hold"), served.submit(payload), served.submit(b"waits")
            for call in (held, fatal):
                error = await error_of(call)
                assert error.code == Code.UNAVAILABLE
                assert cause in error.message
                assert "can be retried" in error.message
            assert "restarting" in (await error_of(waiting)).message
            assert await served.ask_until_served(b"again") == b"again"
            assert served.supervisor.num_starts == 2
            assert served.table.snapshot.versions["m"][1].num_pins == 0

    run(scenario)


def test_withdrawing_waits_for_a_request_that_only_the_workers_death_ends() -> None:
    async def scenario() -> None:
        async with gateway() as served:
            held = served.submit(b"hold")
            withdrawn = asyncio.ensure_future(served.publisher.withdraw(ServableId("m", 1)))
            await asyncio.sleep(0)
            assert not withdrawn.done()
            worker = served.supervisor.worker
            assert worker is not None
            with pytest.raises(ServingError, match="exited with code 5"):
                await worker.load(99, "exit", 1, "/models/exit/1", "tensorflow", LoadOptions())
            await withdrawn
            assert (await error_of(held)).code == Code.UNAVAILABLE

    run(scenario)
