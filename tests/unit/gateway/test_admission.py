"""Limits of models: what settings say of them, to whom it is told, and when again."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tensorgate.gateway.admission import NO_LIMITS, Admission, AdmissionLimits, limits_of
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorgate.config.model_settings_pb2 import ModelSettings

DEAD = ServingError(Code.UNAVAILABLE, "dead")


class Routes:
    """Asks for the limits of these models whenever it is told that there are some."""

    def __init__(self) -> None:
        self.seen: list[AdmissionLimits] = []

    def set_limits(self, limits_of: Callable[[str], AdmissionLimits]) -> None:
        self.seen.append(limits_of("m"))


class WeighedWorker:
    def __init__(self, name: str) -> None:
        self.name = name
        self.weights: list[Mapping[str, int]] = []
        self.error: ServingError | None = None

    async def command(self, command: str, fields: Mapping[str, Any], timeout_s: float | None) -> Mapping[str, Any]:
        assert (command, timeout_s is not None) == ("weigh", True)
        if self.error is not None:
            raise self.error
        self.weights.append(fields["weights"])
        return {}


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_what_is_not_set_is_no_limit_and_none_may_wait_is_one() -> None:
    assert limits_of(ModelSettings()) == NO_LIMITS
    assert limits_of(ModelSettings(max_queued_requests=0)).max_queued_requests == 0
    assert limits_of(ModelSettings(max_concurrent_requests=3, weight=1000)) == AdmissionLimits(3, None, 1000)


@pytest.mark.parametrize("weight", [0, 1001])
def test_a_weight_that_cannot_be_names_the_model_and_the_bounds(weight: int) -> None:
    with pytest.raises(ServingError) as caught:
        limits_of(ModelSettings(name="m", weight=weight))
    assert str(caught.value.message) == f"Model settings of 'm' set weight to {weight}; it is from 1 to 1000"


def test_workers_hear_of_weights_when_they_come_up_and_when_these_change() -> None:
    async def scenario() -> None:
        settings = {"m": ModelSettings(weight=3), "n": ModelSettings()}
        routes, first, second = Routes(), WeighedWorker("worker-0"), WeighedWorker("worker-1")
        admission = Admission(settings.__getitem__, lambda: settings, routes)
        admission.add_worker(first)
        await settle()
        assert first.weights == [{"m": 3}]
        settings["m"] = ModelSettings(max_queued_requests=7)
        settings["n"] = ModelSettings(weight=2)
        admission.add_worker(second)
        admission.refresh()
        settings["n"] = ModelSettings()
        admission.refresh()
        admission.refresh()  # there are no weights any more that anybody need know of
        await settle()
        assert first.weights == [{"m": 3}, {"n": 2}, {}]
        assert second.weights == [{"n": 2}, {"n": 2}, {}]
        assert routes.seen == [AdmissionLimits(weight=3), *[AdmissionLimits(0, 7)] * 3]

    asyncio.run(scenario())


def test_a_worker_that_has_ended_is_told_nothing_and_one_that_does_not_answer_is_told_of_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        settings = {"m": ModelSettings()}
        ended, deaf = WeighedWorker("worker-0"), WeighedWorker("worker-1")
        admission = Admission(settings.__getitem__, lambda: settings, Routes())
        for worker in (ended, deaf):
            admission.add_worker(worker)
        deaf.error = ServingError(Code.DEADLINE_EXCEEDED, "no answer")
        admission.remove_worker(ended, DEAD)
        settings["m"] = ModelSettings(weight=2)
        admission.refresh()
        await settle()
        assert ended.weights == []

    asyncio.run(scenario())
    assert "worker-1 was told the models' weights: DEADLINE_EXCEEDED: no answer" in caplog.text
