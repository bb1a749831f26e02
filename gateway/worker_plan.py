"""What flags and model settings say about workers: their devices, who shares them, and their threads.

Between the options and the worker pool, which asks here how to run a worker and where a model belongs. Everything is
checked at start; pure after that, for the edge loop's thread.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tensorgate.gateway.admission import limits_of
from tensorgate.gateway.dispatch.devices import CPU, Slot, environment_of, slots_of
from tensorgate.gateway.dispatch.supervisor import WorkerOptions
from tensorgate.gateway.dispatch.worker_client import LoadOptions
from tensorgate.gateway.dispatch.worker_pool import Isolation, WorkerSettings
from tensorgate.gateway.model_settings import SettingsOfModels, whose
from tensorgate.gateway.options import ServerOptions
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow.core.protobuf.config_pb2 import ConfigProto
from tensorgate.protos.tensorgate.config import model_settings_pb2
from tensorgate.protos.tensorgate.config.model_settings_pb2 import ModelSettings
from tensorgate.protos.worker_network import WorkerService, check_key, parse_address, parse_service, read_worker_key

logger = logging.getLogger("tensorgate.worker_plan")

_ISOLATIONS = {
    model_settings_pb2.DEVICE: Isolation.DEVICE,
    model_settings_pb2.MODEL: Isolation.MODEL,
    model_settings_pb2.VERSION: Isolation.VERSION,
}
_THREAD_SETTINGS = ("num_execution_threads", "intra_op_parallelism_threads", "inter_op_parallelism_threads")


class WorkerPlan:
    """``slots`` known at start, ``services`` that find others, and by slot or by a model's name what holds there."""

    def __init__(
        self,
        options: ServerOptions,
        environment: Mapping[str, str],
        num_cpus: int,
        num_cores: int,
        model_settings_of: Callable[[str], ModelSettings],
    ) -> None:
        """``environment``: ours, which workers inherit; ``num_cpus``: granted to the process, of ``num_cores`` that it
        may run on; ``model_settings_of``: what holds for a model, by its name, asked anew for each version.

        Raises ServingError: INVALID_ARGUMENT for devices and addresses that cannot be, and where ``check`` does of the
        options' own settings; read_worker_key's.
        """
        self._options = options
        self._model_settings_of = model_settings_of
        self._num_cpus = num_cpus
        self._is_throttled = num_cpus < num_cores
        self.services, self.slots = _on_network(options.workers)
        if not options.workers:
            self.slots = slots_of(options.devices, options.num_workers)
        elif options.devices or options.num_workers > 1:
            raise _invalid("--workers names all workers: neither --devices nor --num_workers can be given with it")
        self.isolation = Isolation(options.worker_isolation)
        self._key = read_worker_key(options.worker_key_file) if options.worker_key_file else None
        check_key([*(parse_address(slot.address) for slot in self.slots if slot.address), *self.services], self._key)
        self.check(options.model_settings)
        shares_device = options.num_workers > 1 or any(
            self._isolation_of(settings) is not Isolation.DEVICE
            for settings in (options.model_settings.defaults, *options.model_settings.named.values())
        )
        self._environments = {
            slot.device: environment_of(slot.device, shares_device, environment) for slot in self.slots
        }
        if any("TF_FORCE_GPU_ALLOW_GROWTH" in each for each in self._environments.values()) and self.uses_gpus:
            logger.info(
                "several workers share a GPU: TF_FORCE_GPU_ALLOW_GROWTH=true is set for them, so that none takes all of"
                " its memory"
            )

    @property
    def uses_gpus(self) -> bool:
        """Whether a device is a GPU, as far as the flags tell."""
        return any(slot.device not in ("", CPU) for slot in self.slots)

    def worker_options(self, slot: Slot) -> WorkerOptions:
        """How workers in the slot are run."""
        options = self._options
        return WorkerOptions(
            name=slot.name,
            num_execution_threads=options.num_execution_threads or self._num_cpus,
            command=options.worker_command,
            op_libraries=options.op_libraries,
            environment={} if slot.address else self._environments[slot.device],
            heartbeat_timeout_s=options.worker_heartbeat_timeout_s,
            uses_stream=options.worker_transport == "stream",
            stuck_timeout_s=options.worker_stuck_timeout_s,
            address=slot.address,
            key=self._key,
        )

    def settings_of(self, name: str) -> WorkerSettings:
        """How a model wants to be hosted."""
        settings = self._model_settings_of(name)
        return WorkerSettings(
            self._isolation_of(settings), settings.replicas, frozenset(settings.workers), settings.num_execution_threads
        )

    def load_options(self, name: str, options: LoadOptions) -> LoadOptions:
        """``options`` with what a model has of its own, and with threads for the processors granted."""
        settings = self._model_settings_of(name)
        options = replace(options, model_settings=settings.SerializeToString(deterministic=True))
        if settings.HasField("golden_tolerance"):
            options = replace(options, golden_tolerance=settings.golden_tolerance)
        config = ConfigProto.FromString(options.session_config)
        if settings.intra_op_parallelism_threads:
            config.intra_op_parallelism_threads = settings.intra_op_parallelism_threads
        if settings.inter_op_parallelism_threads:
            config.inter_op_parallelism_threads = settings.inter_op_parallelism_threads
        if self._is_throttled and not self._options.workers:
            # TensorFlow looks at the affinity, not at what a control group grants of it.
            config.intra_op_parallelism_threads = config.intra_op_parallelism_threads or self._num_cpus
            config.inter_op_parallelism_threads = config.inter_op_parallelism_threads or self._num_cpus
        return replace(options, session_config=config.SerializeToString(deterministic=True))

    def _isolation_of(self, settings: ModelSettings) -> Isolation:
        return _ISOLATIONS.get(settings.worker_isolation, self.isolation)

    def check(self, settings: SettingsOfModels) -> None:
        """Raises ServingError INVALID_ARGUMENT for settings that name no worker of ours or ask for what cannot be."""
        for each in (settings.defaults, *settings.named.values()):
            self._check(each)

    def _check(self, settings: ModelSettings) -> None:
        if self._options.workers and self._isolation_of(settings) is not Isolation.DEVICE:
            raise _invalid("worker_isolation is DEVICE with --workers: no process is started for a model or a version")
        names = [*(slot.name for slot in self.slots), *(service.text for service in self.services)]
        for name in settings.workers:
            if name not in names:
                raise _invalid(f"{whose(settings)} name the worker {name!r}; there are {', '.join(names)}")
        asked = [field for field in _THREAD_SETTINGS if getattr(settings, field)]
        if asked and self._isolation_of(settings) is Isolation.DEVICE:
            raise _invalid(
                f"{whose(settings)} set {', '.join(asked)}, which needs worker_isolation MODEL or VERSION: threads are"
                " those of a whole process"
            )
        for field in asked:
            if getattr(settings, field) >= 1 << 15:
                raise _invalid(f"{whose(settings)} set {field} to {getattr(settings, field)}, which no machine has")
        limits_of(settings)
        if settings.golden_tolerance < 0:
            raise _invalid(f"{whose(settings)} set golden_tolerance to {settings.golden_tolerance}, below 0")


def _on_network(workers: Sequence[str]) -> tuple[tuple[WorkerService, ...], tuple[Slot, ...]]:
    """Those of --workers that are names of several, and slots for the others. Raises ServingError INVALID_ARGUMENT."""
    services = [each for each in workers if each.startswith("dns:")]
    addresses = [each for each in workers if each not in services]
    slots = tuple(Slot(f"worker-{number}", "", address) for number, address in enumerate(addresses))
    return tuple(map(parse_service, dict.fromkeys(services))), slots


def num_cores() -> int:
    """Processors that this process may run on by its affinity."""
    return len(os.sched_getaffinity(0))


def _invalid(message: str) -> ServingError:
    return ServingError(Code.INVALID_ARGUMENT, message)
