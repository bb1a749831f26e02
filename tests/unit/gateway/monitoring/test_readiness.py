"""Readiness by policy, without workers: which models count, and when."""

from dataclasses import dataclass

import pytest

from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.servable_state import ManagerState, ServableState
from tensorgate.gateway.monitoring.readiness import Readiness, ReadinessPolicy, parse_readiness_policy
from tensorgate.protos.status_codes import ServingError


@dataclass
class Version:
    num_replicas: int = 1


class Scene:
    """Models a and b, of which a has been served."""

    def __init__(self, policy: str) -> None:
        self.routed: dict[str, list[Version]] = {"a": [Version()]}
        self.worker_trouble = ""
        self.readiness = Readiness(
            parse_readiness_policy(policy),
            lambda: ["a", "b"],
            lambda name: self.routed.get(name, []),
            lambda: self.worker_trouble,
        )
        self.serve("a")
        self.readiness.set_started()

    def serve(self, name: str) -> None:
        self.routed[name] = [Version()]
        self.readiness.take(ServableState(ServableId(name, 1), ManagerState.AVAILABLE, None, 1))

    @property
    def is_ready(self) -> bool:
        return not self.readiness.trouble


def test_all_needs_every_model_that_was_served_once() -> None:
    scene = Scene("all")
    assert scene.is_ready  # b has not been served yet: a configuration has just added it
    scene.serve("b")
    scene.routed["b"] = []
    assert scene.readiness.trouble == "Model b has no version that is available."
    scene.serve("b")
    scene.routed["a"] = [Version(0), Version(0)]
    assert "a is being loaded again" in scene.readiness.trouble
    scene.routed["a"] = [Version(0), Version(1)]
    assert scene.is_ready
    scene.worker_trouble = "No worker is up."
    assert scene.readiness.trouble == "No worker is up."


def test_any_needs_one_model() -> None:
    scene = Scene("any")
    scene.serve("b")
    scene.routed["a"] = []
    scene.worker_trouble = "One of two workers is down."
    assert scene.is_ready
    scene.routed["b"] = []
    assert not scene.is_ready


def test_named_models_are_needed_from_the_start_and_others_are_not() -> None:
    scene = Scene("models:b")
    assert not scene.is_ready
    scene.serve("b")
    scene.routed["a"] = []
    assert scene.is_ready


def test_nothing_is_ready_before_the_start_and_after_the_end() -> None:
    scene = Scene("any")
    early = Readiness(ReadinessPolicy(), list, lambda _name: [], str)
    assert early.trouble
    scene.readiness.begin_shutdown()
    assert not scene.is_ready
    assert scene.readiness.model_trouble("a")


@pytest.mark.parametrize("text", ["", "none", "models:", "models", "models:,"])
def test_a_policy_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ServingError, match="--readiness"):
        parse_readiness_policy(text)
