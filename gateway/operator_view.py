"""What operators see of a server, put together: health, metrics pages, access and request logs, traces, the console.

Beside both lines, and a part of the composition root: all of it reads what the lines' parts know, and none of them
knows of it. Made and started on the edge loop; pages and logs are read and written on threads of their own.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata

from tensorgate._native.data_plane import DataPlane
from tensorgate.gateway.access_tokens import Access
from tensorgate.gateway.config_files import ModelConfig
from tensorgate.gateway.console.overview import Overview, ServerFacts
from tensorgate.gateway.console.server import ConsoleOptions, ConsoleServer
from tensorgate.gateway.console.state_history import StateHistory
from tensorgate.gateway.console.traffic import RequestTraffic, TrafficHistory
from tensorgate.gateway.core.clock import Clock
from tensorgate.gateway.core.event_bus import EventBus
from tensorgate.gateway.core.servable_state import ServableState
from tensorgate.gateway.core.servable_state_monitor import ServableStateMonitor
from tensorgate.gateway.dispatch.dispatcher import Dispatcher
from tensorgate.gateway.dispatch.placement import Placement
from tensorgate.gateway.dispatch.route_table import RoutedVersion, RouteTable
from tensorgate.gateway.dispatch.worker_pool import AnySupervisor, WorkerPool
from tensorgate.gateway.model_config_manager import ModelConfigManager
from tensorgate.gateway.monitoring.access_log import AccessLog, open_access_log
from tensorgate.gateway.monitoring.batching_metrics import BatchingCollector
from tensorgate.gateway.monitoring.batching_totals import BatchingTotals, Report, WarmupTotals
from tensorgate.gateway.monitoring.log_thread import LogThread
from tensorgate.gateway.monitoring.metrics import MetricsPage, ServerCollector
from tensorgate.gateway.monitoring.model_metrics import LoadTimes, ModelCollector, WorkerStatus
from tensorgate.gateway.monitoring.readiness import Readiness
from tensorgate.gateway.monitoring.request_counts import RequestCounts
from tensorgate.gateway.monitoring.request_logger import RequestLogger, sampling_rate
from tensorgate.gateway.monitoring.request_totals import RequestTotals
from tensorgate.gateway.monitoring.serving_metrics import ServingMetrics
from tensorgate.gateway.monitoring.traces import make_traces
from tensorgate.gateway.options import ServerOptions
from tensorgate.gateway.rest.model_status import model_list_json
from tensorgate.gateway.rest.operator_pages import OperatorPages
from tensorgate.gateway.rpc.edge import GrpcEdge
from tensorgate.protos.status_codes import of_os_error


@dataclass(frozen=True, slots=True)
class ServerParts:
    """What is looked at, of both lines; all of it the composition root's."""

    data_plane: DataPlane
    dispatcher: Dispatcher
    route_table: RouteTable
    bus: EventBus[ServableState]
    monitor: ServableStateMonitor
    pool: WorkerPool
    placement: Placement
    model_config: ModelConfigManager
    warmups: WarmupTotals


class OperatorView:
    """``open_logs`` once, then ``close_logs``; what it makes is read by its users from any thread."""

    def __init__(self, options: ServerOptions, parts: ServerParts, clock: Clock) -> None:
        """Opens nothing. Raises ServingError FAILED_PRECONDITION for --tracing without its extra."""
        self._options = options
        self._parts = parts
        self._clock = clock
        self.readiness = Readiness(
            options.readiness,
            lambda: parts.model_config.model_names,
            self._routed_versions,
            lambda: parts.placement.trouble,
        )
        parts.bus.subscribe(self.readiness.take)
        self._load_times = LoadTimes()
        parts.bus.subscribe(self._load_times.take)
        self._totals = RequestTotals(parts.data_plane)
        self._batching = BatchingTotals(self._batching_reports)
        self._request_logger = RequestLogger(parts.data_plane, {}, options.saved_model_tags)
        # Each is written by the edge it is of.
        self.rest_counts, self.grpcio_counts = RequestCounts(), RequestCounts()
        self.serving_metrics = ServingMetrics(
            self._totals,
            parts.data_plane.unrouted,
            self.rest_counts,
            self.grpcio_counts,
            lambda: self._request_logger.counts,
            self._batching,
            parts.warmups,
        )
        self._request_log_thread = LogThread("request-log", self._request_logger.write)
        parts.model_config.watch(lambda current: self._log_requests_of(current.models))
        self._access_log_file: logging.Handler | None = None
        self.traces = make_traces() if options.tracing else None
        access_log = AccessLog(
            parts.data_plane,
            writes_lines=bool(options.access_log),
            on_records=None if self.traces is None else self.traces.take,
        )
        self._access_log_thread = LogThread("access-log", access_log.write)

    # --- what it makes for others -------------------------------------------------------------------------------------

    def pages(self, grpc: GrpcEdge) -> OperatorPages:
        """The REST server's pages for operators."""
        parts = self._parts
        metrics = MetricsPage(
            ServerCollector(
                grpc.name,
                self._options.grpc_edge,
                lambda: grpc.counters,
                parts.data_plane.counters,
                lambda: parts.data_plane.num_outstanding,
                parts.data_plane.shared_memory,
            ),
            ModelCollector(
                self._totals,
                parts.data_plane.unrouted,
                self._load_times,
                self._states,
                self._in_flight,
                self._worker_statuses,
            ),
            BatchingCollector(self._batching),
        )
        return OperatorPages(
            lambda: self.readiness.trouble,
            metrics.text,
            frozenset(path.encode() for path in self._options.serving_metrics_paths),
            self.serving_metrics.text,
            lambda: model_list_json(parts.monitor, self._all_model_names()),
        )

    def console(self, grpc: GrpcEdge, rest_port: Callable[[], int | None], access: Access | None) -> ConsoleServer:
        """The console, not started; ``rest_port`` is that of the REST server, None where there is none."""
        options, parts, clock = self._options, self._parts, self._clock
        traffic = TrafficHistory(
            RequestTraffic(self._totals, lambda: parts.data_plane.num_outstanding, self._in_flight)
        )
        started_us = clock.time_us()
        overview = Overview(
            lambda: ServerFacts(
                version=metadata.version("tensorgate"),
                grpc_edge=grpc.name,
                grpc_port=grpc.port,
                rest_port=rest_port(),
                started_us=started_us,
            ),
            lambda: self.readiness.trouble,
            lambda: parts.route_table.snapshot.labels,
            StateHistory(parts.bus),
            lambda: parts.pool.supervisors,
            traffic,
        )
        return ConsoleServer(
            ConsoleOptions(options.console_port, options.console_address, options.rest_api_timeout_s),
            parts.dispatcher,
            parts.monitor,
            overview,
            traffic,
            clock,
            access,
        )

    # --- logs and traces ----------------------------------------------------------------------------------------------

    def open_logs(self) -> None:
        """Before the data plane starts. Raises ServingError for an access log that cannot be opened."""
        options = self._options
        if options.access_log:
            try:
                self._access_log_file = open_access_log(options.access_log, options.log_format)
            except OSError as error:
                raise of_os_error(error, options.access_log) from error
        if options.access_log or self.traces is not None:
            share = options.access_log_sample if options.access_log else 0.0
            self._parts.data_plane.sample_requests(share, self.traces is not None)
            self._access_log_thread.start()
        self._log_requests_of(options.models)

    async def close_logs(self) -> None:
        """Writes and sends what is left, while the data plane can still be read. Fine if they never opened."""
        await asyncio.to_thread(self._access_log_thread.stop)
        await asyncio.to_thread(self._request_log_thread.stop)
        self._request_logger.close()
        if self.traces is not None:
            await asyncio.to_thread(self.traces.close)
        if self._access_log_file is not None:
            self._access_log_file.close()
            self._access_log_file = None

    def _log_requests_of(self, models: Sequence[ModelConfig]) -> None:
        """Has the requests of those models logged that say so, and of no others."""
        configs = {model.name: model.logging_config for model in models if model.logging_config is not None}
        self._request_logger.use(configs)
        if configs:
            self._request_log_thread.start()
        self._parts.route_table.set_log_shares({name: sampling_rate(each) for name, each in configs.items()})

    # --- what is read, on any thread ----------------------------------------------------------------------------------

    def _all_model_names(self) -> list[str]:
        """Of the configuration, and of what there was before."""
        return list(dict.fromkeys([*self._parts.model_config.model_names, *self._parts.monitor.names()]))

    def _states(self) -> list[ServableState]:
        monitor = self._parts.monitor
        return [state for name in monitor.names() for state in monitor.versions(name)]

    def _routed_versions(self, name: str) -> list[RoutedVersion]:
        return list(self._parts.route_table.snapshot.versions.get(name, {}).values())

    def _in_flight(self) -> dict[tuple[str, int], int]:
        return {
            (name, version): routed.num_pins
            for name, versions in self._parts.route_table.snapshot.versions.items()
            for version, routed in versions.items()
        }

    def _batching_reports(self) -> list[Report]:
        workers = [worker for each in self._parts.pool.supervisors if (worker := each.worker) is not None]
        return [(worker.number, worker.health.batch_queues) for worker in workers if worker.health is not None]

    def _worker_statuses(self) -> list[WorkerStatus]:
        return [self._worker_status(supervisor) for supervisor in self._parts.pool.supervisors]

    def _worker_status(self, supervisor: AnySupervisor) -> WorkerStatus:
        worker = supervisor.worker
        if worker is None:
            return WorkerStatus(supervisor.name, False, supervisor.num_starts, 0, 0, 0)
        health = worker.health
        rss_bytes = 0 if health is None else health.rss_bytes
        load = self._parts.dispatcher.worker_load(worker)
        return WorkerStatus(supervisor.name, True, supervisor.num_starts, rss_bytes, *load)
