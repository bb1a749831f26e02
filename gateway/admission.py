"""What models may ask of their workers, as their settings say: how many requests at a time, how many wait, what share.

Beside both lines: the settings come with the configuration and change with it; the route table gives the bounds to the
native threads, which know them for each request, and workers are told the weights. Owned by the edge loop's thread.

Source: tensorgate's own (protos/tensorgate/config/model_settings.proto); nothing upstream corresponds to it.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tensorgate.gateway.model_settings import whose
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorgate.config.model_settings_pb2 import ModelSettings

logger = logging.getLogger("tensorgate.admission")

MAX_WEIGHT = 1000
COMMAND_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """Of each copy of a version."""

    max_concurrent_requests: int = 0
    """That its worker is handed at a time; 0: as many as keep it busy."""
    max_queued_requests: int | None = None
    """That wait for it; None: as many as the worker's queue has room for."""
    weight: int = 1
    """Its share beside other models."""


NO_LIMITS = AdmissionLimits()


def limits_of(settings: ModelSettings) -> AdmissionLimits:
    """The limits in a model's settings. Raises ServingError INVALID_ARGUMENT for a weight that cannot be."""
    weight = settings.weight if settings.HasField("weight") else 1
    if not 1 <= weight <= MAX_WEIGHT:
        raise ServingError(
            Code.INVALID_ARGUMENT, f"{whose(settings)} set weight to {weight}; it is from 1 to {MAX_WEIGHT}"
        )
    max_queued = settings.max_queued_requests if settings.HasField("max_queued_requests") else None
    return AdmissionLimits(settings.max_concurrent_requests, max_queued, weight)


class LimitedRoutes(Protocol):
    """The part of RouteTable that is written here."""

    def set_limits(self, limits_of: Callable[[str], AdmissionLimits]) -> None:
        """RouteTable.set_limits."""


class WeighedWorker(Protocol):
    """The part of WorkerClient that is asked here."""

    @property
    def name(self) -> str: ...

    async def command(self, command: str, fields: Mapping[str, Any], timeout_s: float | None) -> Mapping[str, Any]:
        """WorkerClient.command."""
        ...


class Admission:
    """Has the limits hold from the construction on; ``refresh`` when settings have changed."""

    def __init__(
        self,
        settings_of: Callable[[str], ModelSettings],
        model_names: Callable[[], Iterable[str]],
        routes: LimitedRoutes,
    ) -> None:
        """``settings_of``: what holds for a model now, checked. ``model_names``: of the configuration."""
        self._settings_of = settings_of
        self._model_names = model_names
        self._routes = routes
        self._workers: list[WeighedWorker] = []
        self._has_weights = False
        self._telling: set[asyncio.Task[None]] = set()
        routes.set_limits(self._limits_of)

    def _limits_of(self, name: str) -> AdmissionLimits:
        return limits_of(self._settings_of(name))

    def refresh(self) -> None:
        """What the settings say now holds for the versions that serve, too; workers hear of it in a moment."""
        self._routes.set_limits(self._limits_of)
        weights = self._read_weights()
        if weights or self._has_weights:
            for worker in self._workers:
                self._tell(worker, weights)
        self._has_weights = bool(weights)

    def add_worker(self, worker: WeighedWorker) -> None:
        """A worker is up, and knows of no weights."""
        self._workers.append(worker)
        weights = self._read_weights()
        if weights:
            self._tell(worker, weights)
            self._has_weights = True

    def remove_worker(self, worker: WeighedWorker, _cause: ServingError) -> None:
        """It has ended."""
        self._workers.remove(worker)

    def _read_weights(self) -> dict[str, int]:
        weights = {name: self._limits_of(name).weight for name in self._model_names()}
        return {name: weight for name, weight in weights.items() if weight != 1}

    def _tell(self, worker: WeighedWorker, weights: Mapping[str, int]) -> None:
        task = asyncio.get_running_loop().create_task(self._weigh(worker, weights), name=f"weigh {worker.name}")
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _weigh(self, worker: WeighedWorker, weights: Mapping[str, int]) -> None:
        try:
            await worker.command("weigh", {"weights": weights}, COMMAND_TIMEOUT_S)
        except ServingError as error:
            logger.warning("%s was told the models' weights: %s", worker.name, error)
        else:
            told = ", ".join(f"{name} {weight}" for name, weight in sorted(weights.items()))
            logger.info("%s knows the models' weights: %s", worker.name, told or "all alike")
