"""How a reload ended, for the whole and for each model, as values and in words.

Between ModelConfigManager and who asked for the reload: an edge, the admin API, the config file. Pure but for the log.

Source: tensorflow_serving/model_servers/server_core.cc (the text about models that did not become available).
"""

import logging
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from tensorgate.gateway.current_config import CurrentConfig
from tensorgate.protos.status_codes import Code, ServingError

logger = logging.getLogger("tensorgate.model_config")


class ModelChange(Enum):
    """What a reload means for one model."""

    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class ModelOutcome:
    """What a reload did about a model; with an error, nothing, and why."""

    name: str
    change: ModelChange
    error: ServingError | None = None


@dataclass(frozen=True, slots=True)
class ReloadOutcome:
    """How a reload ended: ``error`` is its answer, None means OK. No models: it was refused as it stood."""

    models: tuple[ModelOutcome, ...] = ()
    error: ServingError | None = None


STOPPED = ReloadOutcome(error=ServingError(Code.UNAVAILABLE, "The server is shutting down."))

# Of models that did not become available, by name: how upstream names them, and why.
Failures: TypeAlias = dict[str, tuple[str, ServingError]]


def outcomes_of(old: CurrentConfig, new: CurrentConfig, failures: Failures) -> tuple[ModelOutcome, ...]:
    """Of each model of either configuration; with failures, nothing has been done about any."""
    before = {model.name: (model, old.settings.of(model.name)) for model in old.models}
    after = {model.name: (model, new.settings.of(model.name)) for model in new.models}
    not_done = ServingError(Code.ABORTED, f"Not done, since {', '.join(sorted(failures))} could not be loaded")
    outcomes = []
    for name in {**after, **before}:
        if name not in before:
            change = ModelChange.ADDED
        elif name not in after:
            change = ModelChange.REMOVED
        else:
            change = ModelChange.UNCHANGED if before[name] == after[name] else ModelChange.CHANGED
        error = failures[name][1] if name in failures else None
        if failures and change is not ModelChange.UNCHANGED:
            error = error or not_done
        outcomes.append(ModelOutcome(name, change, error))
    return tuple(outcomes)


def not_available(what: str, failures: Failures) -> ServingError:
    """UNKNOWN, in upstream's words; ``what`` says what it calls them."""
    each = "".join(f"{subject} due to error: {error}}}, " for subject, error in failures.values())
    return ServingError(Code.UNKNOWN, f"{len(failures)} {what} did not become available: {{{each}}}")


def log_outcome(outcome: ReloadOutcome) -> None:
    """A line for each model that changed, or should have, and one for the whole."""
    for model in outcome.models:
        if model.error is not None:
            logger.error("reload: %s could not be %s: %s", model.name, model.change.value, model.error)
        elif model.change is not ModelChange.UNCHANGED:
            logger.info("reload: %s is %s", model.name, model.change.value)
    if outcome.error is not None:
        logger.error("the reload failed: %s", outcome.error)
