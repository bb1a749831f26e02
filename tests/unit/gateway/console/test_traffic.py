"""The console's samples: rates, quantiles and batches from counters that only ever grow."""

from collections.abc import Mapping

import pytest

from tensorgate._native.request_stats import LATENCY_LIMITS_US
from tensorgate.gateway.console.traffic import (
    EVERYTHING,
    MAX_SAMPLES,
    RequestTraffic,
    TrafficHistory,
    TrafficSample,
    TrafficTotals,
)
from tensorgate.gateway.monitoring.request_totals import Histogram, RequestTotals, VersionRequests


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


class ScriptedStats:
    """A StatsSource: one method of m:1, by both edges and for two signatures; m:2 has gone."""

    def request_stats(self) -> tuple[list[VersionRequests], list[VersionRequests]]:
        empty: Histogram = ([0] * (len(LATENCY_LIMITS_US) + 1), 0)
        quick: Histogram = ([3] + [0] * len(LATENCY_LIMITS_US), 30)
        rows: Histogram = ([0, 2], 8)
        present: list[VersionRequests] = [
            (
                "m",
                1,
                [
                    ("a", 0, 1, [3, 1, 0], quick, empty, empty, rows, 0, 0, 0),
                    ("b", 1, 1, [3, 0, 0], quick, empty, empty, rows, 0, 0, 0),
                ],
            )
        ]
        gone: list[VersionRequests] = [("m", 2, [("a", 1, 2, [3, 0, 0], quick, empty, empty, ([0, 0], 0), 0, 0, 0)])]
        return present, gone


def test_requests_are_counted_for_each_version_and_for_all_that_ever_were() -> None:
    source = RequestTraffic(RequestTotals(ScriptedStats()), lambda: 3, lambda: {("m", 1): 2, ("idle", 1): 0})
    found = source.totals()
    version, everything, idle = found["m:1"], found[EVERYTHING], found["idle:1"]
    assert (version.num_succeeded, version.num_failed, version.num_outstanding) == (6, 1, 2)
    assert (version.num_batches, version.num_batched) == (4, 16)
    assert version.latencies_us[0] == (LATENCY_LIMITS_US[0], 6)
    assert everything.num_succeeded > 6
    assert everything.num_outstanding == 3
    assert (idle.num_succeeded, idle.num_batches) == (0, None)
    assert set(found) == {EVERYTHING, "m:1", "idle:1"}
