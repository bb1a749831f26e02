"""The composition root: builds the gateway's parts, starts them in order and stops them in reverse.

Here both lines are put together. A request: rpc or rest → dispatch ‖ worker. A version: sources → core → dispatch ‖
worker. Everything made here belongs to the edge loop's thread, which is the process's main thread; the REST server runs
a thread of its own, and the data plane native ones.

Source: tensorflow_serving/model_servers/server_core.h, server.cc (the order of starting, and its messages).
"""

import asyncio
import logging

import zmq

from tensorgate._native.data_plane import DataPlane
from tensorgate.gateway.core.aspired_version_policy import (
    AspiredVersionPolicy,
    AvailabilityPreservingPolicy,
    ResourcePreservingPolicy,
)
from tensorgate.gateway.core.aspired_versions_manager import AspiredVersionsManager
from tensorgate.gateway.core.basic_manager import BasicManager
from tensorgate.gateway.core.clock import Clock
from tensorgate.gateway.core.event_bus import EventBus
from tensorgate.gateway.core.servable_state import ManagerState, ServableState
from tensorgate.gateway.core.servable_state_monitor import ServableStateMonitor
from tensorgate.gateway.dispatch.dispatcher import Dispatcher, DispatchLimits
from tensorgate.gateway.dispatch.placement import Placement
from tensorgate.gateway.dispatch.route_publisher import RoutePublisher
from tensorgate.gateway.dispatch.route_table import RouteTable
from tensorgate.gateway.dispatch.run_directory import RunDirectory
from tensorgate.gateway.dispatch.supervisor import Supervisor, WorkerOptions
from tensorgate.gateway.dispatch.worker_client import LoadOptions
from tensorgate.gateway.model_settings import SettingsOfModels
from tensorgate.gateway.monitoring.metrics import MetricsPage, ServerCollector
from tensorgate.gateway.options import ServerOptions
from tensorgate.gateway.rest.server import RestOptions, RestServer
from tensorgate.gateway.rpc.edge import make_grpc_edge
from tensorgate.gateway.rpc.grpc_options import GrpcOptions
from tensorgate.gateway.rpc.model_service import ModelService
from tensorgate.gateway.rpc.prediction_service import PredictionService
from tensorgate.gateway.rpc.reserved_addresses import reserved_addresses
from tensorgate.gateway.rpc.services import make_handlers
from tensorgate.gateway.sources.file_system_storage_path_source import FileSystemStoragePathSource, ServableToMonitor
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorgate.config import model_settings_pb2

logger = logging.getLogger("tensorgate.server")

# Upstream's: while the models of the start-up configuration load, this many loads a core may run at once.
INITIAL_LOADS_PER_CPU = 4

# Requests of one version that a worker is handed where requests are merged.
BATCHING_CREDIT = 4096

# How long workers may take to end when nothing is in flight any more.
WORKER_STOP_TIMEOUT_S = 5.0


class ServerCore:
    """One server. ``start`` once, then ``stop``, which also undoes a start that failed half-way."""

    def __init__(self, options: ServerOptions, clock: Clock, num_cpus: int) -> None:
        """On the edge loop; ``num_cpus`` are the cores granted to the process. Opens a run directory and no socket.

        Raises ServingError INVALID_ARGUMENT for a --run_dir that does not fit.
        """
        loop = asyncio.get_running_loop()
        self._options = options
        self._clock = clock
        self._settings: SettingsOfModels = options.model_settings

        # What connects the two lines.
        self._run_directory = RunDirectory(options.run_dir)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._data_plane = DataPlane(options.grpc_edge_threads)
        self._route_table = RouteTable(self._data_plane)
        # What is to be merged has to be handed to the worker first; its queues have bounds of their own.
        limits = DispatchLimits(extra_credit=BATCHING_CREDIT) if options.may_batch else DispatchLimits()
        self._dispatcher = Dispatcher(self._route_table, self._data_plane, limits)
        self._route_table.set_labels({model.name: model.version_labels for model in options.models})
        self._bus: EventBus[ServableState] = EventBus()
        self._monitor = ServableStateMonitor(self._bus)

        # Workers.
        self._placement = Placement()
        self._supervisor = Supervisor(
            WorkerOptions(
                name="worker-0",
                num_execution_threads=options.num_execution_threads,
                command=options.worker_command,
                heartbeat_timeout_s=options.worker_heartbeat_timeout_s,
                uses_stream=options.worker_transport == "stream",
            ),
            self._context,
            loop,
            self._run_directory,
            clock,
        )
        # The dispatcher hears first: a loader that is told of a new worker may publish a version on it at once.
        self._supervisor.subscribe(self._dispatcher.add_worker, self._dispatcher.remove_worker)
        self._supervisor.subscribe(self._placement.add_worker, self._placement.remove_worker)

        # A version's line.
        self._manager = BasicManager(
            AspiredVersionsManager(
                self._policy_of,
                self._bus,
                clock,
                max_num_load_retries=options.max_num_load_retries,
                max_parallel_loads=INITIAL_LOADS_PER_CPU * num_cpus,
            ),
            self._placement.loader_factory(
                LoadOptions(
                    options.saved_model_tags,
                    options.session_config,
                    options.num_warmup_iterations,
                    options.enable_signature_method_name_check,
                    options.enable_serialization_as_tensor_content,
                    options.prefer_tflite_model,
                    options.num_tflite_pools,
                    options.batching,
                ),
                {model.name: model.platform for model in options.models},
                lambda name: self._settings.of(name).SerializeToString(deterministic=True),
            ),
            RoutePublisher(self._route_table),
            clock,
            load_retry_interval_s=options.load_retry_interval_s,
        )
        self._source = FileSystemStoragePathSource(
            [ServableToMonitor(model.name, model.base_path, model.version_policy) for model in options.models],
            options.file_system_poll_wait_s,
            self._manager,
            clock,
        )

        # Edges.
        prediction_service = PredictionService(self._dispatcher)
        self._grpc = make_grpc_edge(
            options.grpc_edge,
            GrpcOptions(
                port=options.grpc_port or None,
                socket_path=options.grpc_socket_path,
                channel_arguments=options.grpc_channel_arguments,
            ),
            self._data_plane,
            prediction_service,
            make_handlers(prediction_service, ModelService(self._monitor)),
            clock,
        )
        metrics = MetricsPage(
            ServerCollector(
                self._grpc.name,
                options.grpc_edge,
                lambda: self._grpc.counters,
                self._data_plane.counters,
                lambda: self._data_plane.num_outstanding,
            )
        )
        self._rest = (
            RestServer(
                "",
                options.rest_port,
                self._dispatcher,
                self._monitor,
                RestOptions(
                    options.rest_api_timeout_s,
                    options.rest_api_enable_cors_support,
                    socket_path=options.rest_api_socket_path,
                ),
                lambda: self._placement.trouble,
                metrics.text,
            )
            if options.serves_rest
            else None
        )

    def _policy_of(self, name: str) -> AspiredVersionPolicy:
        policy = self._settings.of(name).aspired_version_policy
        if policy == model_settings_pb2.RESOURCE_PRESERVING:
            return ResourcePreservingPolicy()
        return AvailabilityPreservingPolicy()

    async def start(self) -> None:
        """Returns when the models of the configuration are available and gRPC answers.

        REST answers health checks from the first moment. Raises ServingError for an address that cannot be bound, a
        worker that does not come up, or models whose first settled version ended in an error.
        """
        options = self._options
        shares_port = dict(options.grpc_channel_arguments).get("grpc.so_reuseport", 0) != 0
        # The edge opens last; that it will be able to is known first.
        with reserved_addresses(options.grpc_port, options.grpc_socket_path, shares_port=shares_port):
            await self._start()

    async def _start(self) -> None:
        if self._rest is not None:
            # A REST port that is taken does not stop upstream's server either.
            try:
                self._rest.start()
            except ServingError as error:
                logger.error("%s", error.message)
                self._rest = None
        if self._options.rest_port_is_grpc_port:
            logger.error("--rest_api_port is the same as --port (%d): no REST API there", self._options.grpc_port)
        self._data_plane.start()
        await self._supervisor.start()
        await self._source.start()
        await self._wait_for_models()
        self._manager.set_max_parallel_loads(self._options.num_load_threads)
        await self._grpc.start()
        if self._rest is not None:
            self._rest.set_ready(True)
        if self._grpc.port is not None:
            logger.info("Running gRPC ModelServer at 0.0.0.0:%d ...", self._grpc.port)
        if self._rest is not None and self._rest.port is not None:
            logger.info("Exporting HTTP/REST API at:localhost:%d ...", self._rest.port)
        if self._rest is not None and self._options.rest_api_socket_path:
            logger.info("Exporting HTTP/REST API at:unix:%s ...", self._options.rest_api_socket_path)

    async def _wait_for_models(self) -> None:
        """Raises ServingError UNKNOWN, in upstream's words, when a model's first settled version has failed."""
        settled = await self._monitor.wait_until_settled(model.name for model in self._options.models)
        failed = [
            f"{state.id} due to error: {state.error}}}, "
            for state in settled.values()
            if state.state is ManagerState.END and state.error is not None
        ]
        if failed:
            raise ServingError(
                Code.UNKNOWN, f"{len(failed)} servable(s) did not become available: {{{''.join(failed)}}}"
            )

    async def stop(self, grace_s: float) -> None:
        """Drains: accepts nothing new, finishes what is in flight within ``grace_s``, then ends workers and sockets."""
        loop = asyncio.get_running_loop()
        rest = self._rest
        drains = [self._grpc.stop(grace_s)]
        if rest is not None:
            drains.append(asyncio.to_thread(rest.stop, grace_s))
        await asyncio.gather(*drains)
        await self._source.stop()
        await self._manager.stop()
        await self._placement.close()
        # What still runs has outlived the drain or its client, and a run cannot be interrupted.
        is_running = self._dispatcher.num_outstanding > 0
        self._dispatcher.close()
        await self._supervisor.stop(0.0 if is_running else WORKER_STOP_TIMEOUT_S)
        # Blocks until ZeroMQ's thread has closed its sockets, all with LINGER 0.
        await loop.run_in_executor(None, self._context.term)
        self._run_directory.remove()
