"""Whether the server can serve: as a whole, and each model; what /readyz and gRPC's health service tell.

Beside both lines: reads the routes and the states of versions, and is told of the start and the end. Any thread reads;
the composition root and the event bus write on the edge loop.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from tensorgate.gateway.core.servable_state import ManagerState, ServableState
from tensorgate.protos.status_codes import Code, ServingError

STARTING_TEXT = "The server is still loading its models; try again later."
SHUTTING_DOWN_TEXT = "The server is shutting down."

_NAMED_PREFIX = "models:"


class RoutedVersionView(Protocol):
    """The part of a routed version that is read here."""

    @property
    def num_replicas(self) -> int:
        """Loaded copies on live workers."""
        ...


@dataclass(frozen=True, slots=True)
class ReadinessPolicy:
    """Which models have to be served for the server to be ready. ``names`` are those of NAMED; empty otherwise."""

    needs_all: bool = True
    names: tuple[str, ...] = ()


def parse_readiness_policy(text: str) -> ReadinessPolicy:
    """``all``, ``any``, or ``models:NAME,NAME``. Raises ServingError INVALID_ARGUMENT for anything else."""
    if text in ("all", "any"):
        return ReadinessPolicy(needs_all=text == "all")
    names = tuple(filter(None, text.removeprefix(_NAMED_PREFIX).split(",")))
    if not text.startswith(_NAMED_PREFIX) or not names:
        raise ServingError(
            Code.INVALID_ARGUMENT,
            f"--readiness must be all, any, or models:NAME,NAME with the models' names; got {text!r}",
        )
    return ReadinessPolicy(names=names)


class Readiness:
    """``trouble`` is empty while the server is ready; ``model_trouble`` likewise for one model.

    A model counts once it has been served: one that a later configuration adds, and that still loads, makes nobody
    unready. Those that ReadinessPolicy names count from the start.
    """

    def __init__(
        self,
        policy: ReadinessPolicy,
        model_names: Callable[[], Iterable[str]],
        routed_versions: Callable[[str], Iterable[RoutedVersionView]],
        worker_trouble: Callable[[], str],
    ) -> None:
        """``model_names``: of the present configuration. ``routed_versions``: those of a model that requests can reach.

        ``worker_trouble`` says what is wrong with the workers; empty for nothing. All are called on any thread.
        """
        self._policy = policy
        self._model_names = model_names
        self._routed_versions = routed_versions
        self._worker_trouble = worker_trouble
        self._was_served: Mapping[str, None] = {}  # replaced, never changed: read by any thread
        self._is_started = False
        self._is_ending = False

    def set_started(self) -> None:
        """The models of the start-up configuration are there."""
        self._is_started = True

    def begin_shutdown(self) -> None:
        """From now on nothing is ready; final."""
        self._is_ending = True

    @property
    def is_ending(self) -> bool:
        return self._is_ending

    def take(self, state: ServableState) -> None:
        """A subscriber of the event bus."""
        if state.state is ManagerState.AVAILABLE and state.id.name not in self._was_served:
            self._was_served = {**self._was_served, state.id.name: None}

    @property
    def trouble(self) -> str:
        """Why the server is not ready, for operators; empty where it is."""
        if self._is_ending:
            return SHUTTING_DOWN_TEXT
        if not self._is_started:
            return STARTING_TEXT
        policy = self._policy
        if policy.names:
            return _joined(self._troubles(policy.names))
        wanted = [name for name in self._model_names() if name in self._was_served]
        if policy.needs_all:
            return self._worker_trouble() or _joined(self._troubles(wanted))
        troubles = self._troubles(wanted)
        return _joined(troubles) if wanted and len(troubles) == len(wanted) else ""

    def model_trouble(self, name: str) -> str:
        """Why requests for a model's latest version cannot be served; empty where they can."""
        if self._is_ending:
            return SHUTTING_DOWN_TEXT
        versions = list(self._routed_versions(name))
        if not versions:
            return f"Model {name} has no version that is available."
        if not any(version.num_replicas for version in versions):
            return f"Model {name} is being loaded again after the end of its worker."
        return ""

    def knows_model(self, name: str) -> bool:
        """Whether the present configuration has the model."""
        return name in set(self._model_names())

    def _troubles(self, names: Iterable[str]) -> list[str]:
        return [trouble for name in names if (trouble := self.model_trouble(name))]


def _joined(troubles: Iterable[str]) -> str:
    return " ".join(troubles)
