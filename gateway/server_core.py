"""The composition root: builds the gateway's parts, starts them in order and stops them in reverse.

Here both lines are put together. A request: rpc or rest → dispatch ‖ worker. A version: sources → core → dispatch ‖
worker. Everything made here belongs to the edge loop's thread, which is the process's main thread; the REST server runs
a thread of its own, and the data plane native ones.

Source: tensorflow_serving/model_servers/server_core.h, server.cc (the order of starting, and its messages).
"""

import asyncio
import logging
import os
from collections.abc import Callable

import zmq

from tensorgate._native.data_plane import DataPlane
from tensorgate.gateway.admission import Admission
from tensorgate.gateway.cgroup import OomKills
from tensorgate.gateway.core.aspired_version_policy import (
    AspiredVersionPolicy,
    AvailabilityPreservingPolicy,
    ResourcePreservingPolicy,
)
from tensorgate.gateway.core.aspired_versions_manager import AspiredVersionsManager
from tensorgate.gateway.core.basic_manager import BasicManager
from tensorgate.gateway.core.clock import Clock
from tensorgate.gateway.core.event_bus import EventBus
from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.servable_state import ServableState
from tensorgate.gateway.core.servable_state_monitor import ServableStateMonitor
from tensorgate.gateway.credentials import Credentials
from tensorgate.gateway.current_config import CurrentConfig, servables_of
from tensorgate.gateway.dispatch.dispatcher import Dispatcher, DispatchLimits
from tensorgate.gateway.dispatch.name_resolver import NameResolver
from tensorgate.gateway.dispatch.placement import Placement
from tensorgate.gateway.dispatch.remote_supervisor import RemoteSupervisor
from tensorgate.gateway.dispatch.route_publisher import RoutePublisher
from tensorgate.gateway.dispatch.route_table import RouteTable
from tensorgate.gateway.dispatch.run_directory import RunDirectory
from tensorgate.gateway.dispatch.supervisor import Supervisor
from tensorgate.gateway.dispatch.worker_client import LoadOptions, WorkerClient
from tensorgate.gateway.dispatch.worker_discovery import WorkerDiscovery
from tensorgate.gateway.dispatch.worker_memory import make_worker_memory
from tensorgate.gateway.dispatch.worker_pool import Isolation, WorkerPool
from tensorgate.gateway.model_admin import ModelAdmin
from tensorgate.gateway.model_config_file import ModelConfigFile
from tensorgate.gateway.model_config_manager import ModelConfigManager, ReloadOptions
from tensorgate.gateway.monitoring.batching_totals import WarmupTotals
from tensorgate.gateway.operator_view import OperatorView, ServerParts
from tensorgate.gateway.options import ServerOptions
from tensorgate.gateway.rest.admin import AdminPages
from tensorgate.gateway.rest.server import RestOptions, RestServer
from tensorgate.gateway.rpc.edge import make_grpc_edge
from tensorgate.gateway.rpc.grpc_options import GrpcOptions
from tensorgate.gateway.rpc.health import HealthService
from tensorgate.gateway.rpc.model_admin_service import ModelAdminService
from tensorgate.gateway.rpc.model_service import ModelService
from tensorgate.gateway.rpc.prediction_service import PredictionService
from tensorgate.gateway.rpc.profiler_service import ProfilerService
from tensorgate.gateway.rpc.reflection import ReflectionService
from tensorgate.gateway.rpc.reserved_addresses import reserved_addresses
from tensorgate.gateway.rpc.services import make_handlers
from tensorgate.gateway.sources.file_system_storage_path_source import FileSystemStoragePathSource
from tensorgate.gateway.sources.resource_estimate import tracker_of_files
from tensorgate.gateway.worker_plan import WorkerPlan, num_cores
from tensorgate.protos.status_codes import ServingError
from tensorgate.protos.tensorgate.config import model_settings_pb2
from tensorgate.protos.tensorgate.config.model_settings_pb2 import ModelSettings

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

        Raises ServingError: INVALID_ARGUMENT for a --run_dir that does not fit and for workers that cannot be as asked,
        FAILED_PRECONDITION for --tracing without its extra, and those of files of certificates and tokens.
        """
        loop = asyncio.get_running_loop()
        self._options = options

        self._credentials = Credentials(options)
        # What holds at the start, until a reload says otherwise.
        self._settings_of: Callable[[str], ModelSettings] = options.model_settings.of
        # Before anything is opened, since it may refuse.
        plan = WorkerPlan(options, os.environ, num_cpus, num_cores(), self._model_settings)

        # What connects the two lines.
        self._run_directory = RunDirectory(options.run_dir)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        memory = make_worker_memory(options.shared_memory_bytes, options.shared_memory_threshold_bytes)
        self._data_plane = DataPlane(options.grpc_edge_threads, None if memory is None else memory.requests)
        self._route_table = RouteTable(self._data_plane)
        # What is to be merged has to be handed to the worker first; its queues have bounds of their own.
        limits = DispatchLimits(extra_credit=BATCHING_CREDIT) if options.may_batch else DispatchLimits()
        self._dispatcher = Dispatcher(self._route_table, self._data_plane, limits)
        self._route_table.set_labels({model.name: model.version_labels for model in options.models})
        self._bus: EventBus[ServableState] = EventBus()
        self._monitor = ServableStateMonitor(self._bus)

        # Workers.
        oom_kills = OomKills()
        self._pool = WorkerPool(
            plan.slots,
            plan.worker_options,
            lambda worker: (
                RemoteSupervisor(
                    worker,
                    self._context,
                    loop,
                    options.workers_start_wait_s,
                    self._placement.take_leave,
                    self._dispatcher.worker_load,
                )
                if worker.address
                else Supervisor(worker, self._context, loop, self._run_directory, clock, oom_kills, memory)
            ),
            plan.settings_of,
            WORKER_STOP_TIMEOUT_S,
        )
        self._discovery = WorkerDiscovery(plan.services, self._pool, NameResolver, options.workers_start_wait_s)
        # Where versions have workers of their own, those start with them.
        self._starts_workers_first = plan.isolation is Isolation.DEVICE
        self._placement = Placement(self._pool, self._give_up)
        # The dispatcher hears first: a loader that is told of a new worker may publish a version on it at once.
        self._pool.subscribe(self._dispatcher.add_worker, self._dispatcher.remove_worker)
        self._pool.subscribe(self._placement.add_worker, self._placement.remove_worker)
        self._admission = Admission(self._model_settings, lambda: self._model_config.model_names, self._route_table)
        self._pool.subscribe(self._admission.add_worker, self._admission.remove_worker)

        # A version's line.
        warmups = WarmupTotals()
        platforms: dict[str, str] = {}
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
                    batching=options.batching,
                    on_loaded=warmups.take,
                ),
                platforms,
                plan.load_options,
            ),
            RoutePublisher(self._route_table),
            clock,
            load_retry_interval_s=options.load_retry_interval_s,
            resources=tracker_of_files(options.model_memory_budget_bytes, self._pool.num_replicas),
        )
        config = CurrentConfig(options.model_server_config, options.models, options.model_settings)
        self._source = FileSystemStoragePathSource(
            servables_of(config.models, config.settings),
            options.file_system_poll_wait_s,
            self._manager,
            clock,
            self._monitor.set_waiting,
        )
        self._model_config = ModelConfigManager(
            config,
            self._source,
            self._monitor,
            self._route_table,
            platforms,
            ReloadOptions(
                settings_file=options.model_settings_file,
                ready_timeout_s=options.models_ready_timeout_s,
                allows_labels_of_unavailable_versions=options.allow_version_labels_for_unavailable_models,
            ),
            plan.check,
        )
        self._settings_of = self._model_config.settings_of
        self._model_config.watch(lambda _current: self._admission.refresh())
        self._bus.subscribe(self._model_config.on_state)
        self._model_config_file = ModelConfigFile(
            options.model_config_file,
            options.model_settings_file,
            options.model_config_file_poll_wait_s,
            self._model_config,
            clock,
        )

        self._view = OperatorView(
            options,
            ServerParts(
                self._data_plane,
                self._dispatcher,
                self._route_table,
                self._bus,
                self._monitor,
                self._pool,
                self._placement,
                self._model_config,
                warmups,
            ),
            clock,
        )

        # Edges.
        admin = ModelAdmin(self._model_config, self._monitor, is_enabled=options.enable_model_admin)
        prediction_service = PredictionService(self._dispatcher, self._view.grpcio_counts)
        self._grpc = make_grpc_edge(
            options.grpc_edge,
            GrpcOptions(
                port=options.grpc_port or None,
                socket_path=options.grpc_socket_path,
                channel_arguments=options.grpc_channel_arguments,
                tls=self._credentials.grpc_tls,
                access=self._credentials.access,
            ),
            self._data_plane,
            prediction_service,
            make_handlers(
                prediction_service,
                ModelService(self._monitor, self._model_config, self._view.serving_metrics.first_point),
                HealthService(self._view.readiness),
                ReflectionService(lambda: self._view.readiness.is_ending),
                ModelAdminService(admin),
                ProfilerService(self._live_workers) if options.enable_profiler else None,
            ),
            clock,
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
                    ssl_context=self._credentials.rest_context,
                ),
                self._view.pages(self._grpc),
                self._view.rest_counts,
                AdminPages(admin, loop),
                self._view.traces,
                self._credentials.access,
            )
            if options.serves_rest
            else None
        )
        self._console = (
            self._view.console(self._grpc, self._rest_port, self._credentials.access) if options.console_port else None
        )

    def _model_settings(self, name: str) -> ModelSettings:
        """What holds for the model now."""
        return self._settings_of(name)

    def _rest_port(self) -> int | None:
        return None if self._rest is None else self._rest.port

    def _live_workers(self) -> list[WorkerClient]:
        return [supervisor.worker for supervisor in self._pool.supervisors if supervisor.worker is not None]

    # --- the life cycle -----------------------------------------------------------------------------------------------

    def _policy_of(self, name: str) -> AspiredVersionPolicy:
        policy = self._model_settings(name).aspired_version_policy
        if policy == model_settings_pb2.RESOURCE_PRESERVING:
            return ResourcePreservingPolicy()
        return AvailabilityPreservingPolicy()

    def _give_up(self, servable_id: ServableId, error: ServingError) -> None:
        self._manager.give_up(servable_id, error)

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
        self._view.open_logs()
        if self._console is not None:
            try:
                await self._console.start()
                logger.info("The console is at %s", self._console.address)
            except ServingError as error:
                logger.error("%s", error.message)
                self._console = None
        self._data_plane.start()
        if self._starts_workers_first:
            await self._discovery.start()
            await self._pool.start()
        await self._source.start()
        await self._model_config.wait_for_first_models()
        self._manager.set_max_parallel_loads(self._options.num_load_threads)
        # Before the edge: its clients' first question may be the health service's.
        self._view.readiness.set_started()
        await self._grpc.start()
        self._credentials.watch(self._grpc.set_tls)
        if self._rest is not None:
            self._rest.set_ready(True)
        self._model_config_file.start()
        if self._console is not None:
            self._console.set_ready(True)
        self._credentials.warn_of_open_tokens(self._grpc.port, self._rest_port())
        if self._grpc.port is not None:
            logger.info("Running gRPC ModelServer at 0.0.0.0:%d ...", self._grpc.port)
        if self._rest is not None and self._rest.port is not None:
            logger.info("Exporting HTTP/REST API at:localhost:%d ...", self._rest.port)
        if self._rest is not None and self._options.rest_api_socket_path:
            logger.info("Exporting HTTP/REST API at:unix:%s ...", self._options.rest_api_socket_path)

    async def stop(self, grace_s: float) -> None:
        """Drains: accepts nothing new, finishes what is in flight within ``grace_s``, then ends workers and sockets."""
        loop = asyncio.get_running_loop()
        self._credentials.stop_watching()
        self._discovery.stop()
        self._view.readiness.begin_shutdown()
        rest = self._rest
        # First, since a reload may wait for longer than the grace.
        await self._model_config_file.stop()
        await self._model_config.stop()
        drains = [self._grpc.stop(grace_s)]
        if rest is not None:
            drains.append(asyncio.to_thread(rest.stop, grace_s))
        if self._console is not None:
            drains.append(self._console.stop())
        await asyncio.gather(*drains)
        await self._source.stop()
        await self._manager.stop()
        await self._placement.close()
        # What still runs has outlived the drain or its client, and a run cannot be interrupted.
        is_running = self._dispatcher.num_outstanding > 0
        # They come round a last time while there is something to read.
        await self._view.close_logs()
        self._dispatcher.close()
        await self._pool.stop(0.0 if is_running else WORKER_STOP_TIMEOUT_S)
        # Blocks until ZeroMQ's thread has closed its sockets, all with LINGER 0.
        await loop.run_in_executor(None, self._context.term)
        self._run_directory.remove()
