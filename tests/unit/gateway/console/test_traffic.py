"""The console's samples: rates, quantiles and batches from counters that only ever grow."""

from collections.abc import Mapping

import pytest

from tensorgate._native.data_plane import DataPlane
from tensorgate.gateway.console.traffic import (
    EVERYTHING,
    MAX_SAMPLES,
    CounterTraffic,
    TrafficHistory,
    TrafficSample,
    TrafficTotals,
)


class ScriptedTraffic:
    """A TrafficSource whose counters the test sets."""

    def __init__(self) -> None:
        self.now: dict[str, TrafficTotals] = {}

    def totals(self) -> Mapping[str, TrafficTotals]:
        return dict(self.now)


def samples(*totals: TrafficTotals, interval_s: float = 1.0) -> list[TrafficSample]:
    source = ScriptedTraffic()
    history = TrafficHistory(source)
    for number, each in enumerate(totals):
        source.now = {EVERYTHING: each}
        history.sample(100 + number * interval_s)
    return history.after(EVERYTHING, 0)


def test_a_sample_is_the_difference_of_two_readings_by_the_time_between_them() -> None:
    found = samples(TrafficTotals(100, 7, 3), TrafficTotals(130, 9, 5), interval_s=2.0)
    assert found == [TrafficSample(1, 15.0, 1.0, 5, None, None, None)]


def test_counters_that_began_anew_are_no_negative_rate() -> None:
    (found,) = samples(TrafficTotals(100, 7, 0), TrafficTotals(4, 0, 0))
    assert (found.succeeded_per_s, found.failed_per_s) == (0, 0)


def test_quantiles_are_of_the_interval_alone_and_none_without_requests() -> None:
    before = TrafficTotals(0, 0, 0, ((1000.0, 50), (2000.0, 0), (float("inf"), 0)))
    now = TrafficTotals(0, 0, 0, ((1000.0, 50), (2000.0, 10), (float("inf"), 1)))
    first, second = samples(before, now, now)
    assert first.median_ms == pytest.approx(1.55)
    assert first.p99_ms == 2.0  # in the bucket without an end, of which only the beginning is known
    assert (second.median_ms, second.p99_ms) == (None, None)


def test_the_mean_batch_is_that_of_the_interval() -> None:
    found = samples(
        TrafficTotals(0, 0, 0, (), 10, 10), TrafficTotals(0, 0, 0, (), 12, 18), TrafficTotals(0, 0, 0, (), 12, 18)
    )
    assert [sample.mean_batch for sample in found] == [4.0, None]


def test_the_page_gets_what_it_has_not_and_old_samples_go() -> None:
    found = samples(*[TrafficTotals(number, 0, 0) for number in range(MAX_SAMPLES + 11)])
    assert [sample.number for sample in found] == list(range(11, MAX_SAMPLES + 11))


def test_a_version_that_is_counted_no_more_goes() -> None:
    source = ScriptedTraffic()
    history = TrafficHistory(source)
    source.now = {EVERYTHING: TrafficTotals(0, 0, 0), "m:1": TrafficTotals(0, 0, 0)}
    history.sample(1)
    history.sample(2)
    assert history.names() == ["", "m:1"]
    del source.now["m:1"]
    history.sample(3)
    assert history.names() == [""]
    assert history.after("m:1", 0) == []


def test_the_dispatchers_counters_are_those_of_the_data_plane() -> None:
    plane = DataPlane(1)
    assert CounterTraffic(plane.counters, lambda: 3).totals() == {EVERYTHING: TrafficTotals(0, 0, 3)}
