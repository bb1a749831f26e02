"""What workers tell of merged requests and of warm-ups, added up; and how the pages show it."""

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tensorgate._native import batch_counters
from tensorgate.gateway.dispatch.worker_client import LoadedServable
from tensorgate.gateway.monitoring.batching_metrics import BatchingCollector
from tensorgate.gateway.monitoring.batching_totals import WAIT_LIMITS_US, BatchingTotals, Report, WarmupTotals
from tensorgate.gateway.monitoring.metrics import MetricsPage
from tensorgate.gateway.monitoring.request_counts import RequestCounts
from tensorgate.gateway.monitoring.request_totals import RequestTotals
from tensorgate.gateway.monitoring.serving_metrics import ServingMetrics


def queue(handle: int, signature: str = "s", batches: int = 1, **changes: Any) -> dict[str, Any]:
    """Batches of three rows from two requests, padded to four, that each waited 110 µs and ran 50."""
    waits, sizes, rows, padding = [0] * 53, [0] * 15, [0] * 15, [0] * 15
    waits[1], sizes[1], sizes[2], rows[3], padding[1] = 2 * batches, batches, batches, batches, batches
    told = {
        "handle": handle, "name": "m", "version": handle, "signature": signature, "requests": 2 * batches,
        "rows": 3 * batches, "batches": batches, "padding_rows": batches, "refused": 0, "expired": 0, "waiting": 1,
        "queue_us": 220 * batches, "run_us": 50 * batches, "waits": waits, "request_sizes": sizes,
        "request_rows": 3 * batches, "batch_sizes": rows, "paddings": [[4, padding, batches], [8, [0] * 15, 0]],
    }  # fmt: skip
    return {**told, **changes}


def test_the_limits_of_waiting_times_are_those_that_workers_count_by() -> None:
    assert batch_counters.WAIT_LIMITS_US == WAIT_LIMITS_US


def test_copies_on_several_workers_and_queues_of_one_signature_add_up() -> None:
    reports: list[Report] = [(1, [queue(5), queue(5, batches=2), queue(6)]), (2, [queue(5, "t")])]
    found = BatchingTotals(lambda: reports).by_signature()
    assert {labels: counts.batches for labels, counts in found.items()} == {
        ("m", "5", "s"): 3,
        ("m", "6", "s"): 1,
        ("m", "5", "t"): 1,
    }
    assert found["m", "5", "s"].waits[0][1] == 6
    assert found["m", "5", "s"].paddings == {4: ([0, 3, *[0] * 13], 3)}


def test_totals_never_go_down_when_versions_and_workers_leave() -> None:
    reports: list[Report] = [(1, [queue(5, batches=4), queue(6)])]
    totals = BatchingTotals(lambda: reports)
    assert totals.altogether().batches == 5
    reports[:] = [(1, [queue(5, batches=6)])]
    assert totals.altogether().batches == 7
    reports[:] = []
    assert totals.by_signature() == {}
    gone = totals.altogether()
    assert (gone.batches, gone.rows, gone.waiting, gone.queue_us) == (7, 21, 0, 1540)
    reports[:] = [(9, [queue(5)])]  # the worker's successor begins anew
    assert totals.altogether().batches == 8


def test_the_page_of_metrics_has_a_line_for_each_signature() -> None:
    page = MetricsPage(BatchingCollector(BatchingTotals(lambda: [(1, [queue(5, batches=2)])]))).text().decode()
    found = {
        (sample.name.removeprefix("tensorgate_batching_"), sample.labels.get("le", "")): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name.startswith("tensorgate_batching_")
        and sample.labels.items() >= {"model": "m", "version": "5", "signature": "s"}.items()
    }
    for name, number in {
        "requests_total": 4, "batches_total": 2, "rows_total": 6, "padding_rows_total": 2, "run_seconds_total": 0.0001,
        "refused_total": 0, "expired_total": 0, "rows_waiting": 1, "wait_seconds_count": 4, "wait_seconds_sum": 0.00044,
    }.items():  # fmt: skip
        assert found[name, ""] == number
    waits = {limit: value for (name, limit), value in found.items() if name == "wait_seconds_bucket"}
    assert (waits["0.0001"], waits["0.00020736"], waits["+Inf"]) == (0, 4, 4)


def test_tensorflow_servings_page_has_its_metrics_of_batching_and_warm_up() -> None:
    class Source:
        def request_stats(self) -> tuple[list[Any], list[Any]]:
            return [], []

    warmups = WarmupTotals()
    warmups.take("/m/1", LoadedServable(b"", 1, 7, 100))
    warmups.take("/m/1", LoadedServable(b"", 1, 7, 20))
    warmups.take("/m/2", LoadedServable(b"", 1))
    metrics = ServingMetrics(
        RequestTotals(Source()), dict, RequestCounts(), RequestCounts(),
        batching=BatchingTotals(lambda: [(1, [queue(5)])]), warmups=warmups,
    )  # fmt: skip
    text = metrics.text().decode()
    list(text_string_to_metric_families(text))
    lines = text.splitlines()
    session = ":tensorflow:serving:batching_session:"
    assert f"{session}wrapped_run_count{{}} 1" in lines
    assert f'{session}queuing_latency_bucket{{thread_pool_name="",le="100"}} 0' in lines
    assert f'{session}queuing_latency_bucket{{thread_pool_name="",le="120"}} 2' in lines
    assert f'{session}queuing_latency_sum{{thread_pool_name=""}} 220' in lines
    assert f'{session}input_batch_size_bucket{{le="2"}} 1' in lines
    assert f"{session}input_batch_size_sum{{}} 3" in lines
    assert f'{session}processed_batch_size_bucket{{le="8"}} 1' in lines
    assert f"{session}processed_batch_size_sum{{}} 4" in lines
    assert f'{session}padding_size_count{{execution_batch_size="4"}} 1' in lines
    assert 'execution_batch_size="8"' not in text
    warmup = ':tensorflow:serving:model_warmup_latency_bucket{model_path="/m/1",status="OK",'
    assert [f'{warmup}le="18"}} 0', f'{warmup}le="32.4"}} 1', f'{warmup}le="104.976"}} 2'] == [
        line for line in lines if line.startswith((f'{warmup}le="18"', f'{warmup}le="32.4"', f'{warmup}le="104.976"'))
    ]
    assert ':tensorflow:serving:model_warmup_records_read{model_path="/m/1",status="OK"} 14' in lines
    assert "/m/2" not in text
