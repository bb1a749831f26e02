"""TensorFlow Serving's metrics page, byte by byte, from numbers that are given."""

from prometheus_client.parser import text_string_to_metric_families

from tensorgate._native.request_stats import LATENCY_LIMITS_US
from tensorgate.gateway.dispatch.call import Method
from tensorgate.gateway.monitoring.request_counts import RequestCounts
from tensorgate.gateway.monitoring.request_totals import NATIVE_EDGE, PYTHON_EDGES, RequestTotals, VersionRequests
from tensorgate.gateway.monitoring.serving_metrics import ServingMetrics
from tensorgate.protos.status_codes import Code

# As a real server printed them.
LIMITS = """
    10 18 32.4 58.32 104.976 188.957 340.122 612.22 1102 1983.59 3570.47 6426.84 11568.3 20823 37481.3 67466.4 121440
    218591 393464 708235 1.27482e+06 2.29468e+06 4.13043e+06 7.43477e+06 1.33826e+07 2.40887e+07 4.33596e+07
    7.80473e+07 1.40485e+08 2.52873e+08 4.55172e+08 8.19309e+08 1.47476e+09 +Inf
    """.split()  # noqa: SIM905 - a table, as it is printed


class Source:
    """Versions with numbers that a test sets."""

    def __init__(self, *present: VersionRequests) -> None:
        self.present = list(present)
        self.retired: list[VersionRequests] = []

    def request_stats(self) -> tuple[list[VersionRequests], list[VersionRequests]]:
        retired, self.retired = self.retired, []
        return list(self.present), retired


def version(name: str, number: int, method: Method, entrypoint: int = NATIVE_EDGE, **codes: int) -> VersionRequests:
    """Requests that each took 20 µs, 15 of them in a run."""
    by_code = [codes.get(Code.of(code).name, 0) for code in range(17)]
    total, run = [0] * 34, [0] * 34
    total[2] = run[1] = by_code[0]
    empty = [0] * 34
    requests = (
        "serving_default", entrypoint, int(method), by_code, (total, 20 * by_code[0]), (empty, 0),
        (run, 15 * by_code[0]), ([0] * 15, 0), 0, 100, 200,
    )  # fmt: skip
    return name, number, [requests]


def page_of(
    source: Source, unrouted: dict[tuple[str, int, int], int] | None = None, rest: RequestCounts | None = None
) -> list[str]:
    rest = RequestCounts() if rest is None else rest
    metrics = ServingMetrics(RequestTotals(source), lambda: unrouted or {}, rest, RequestCounts())
    text = metrics.text().decode()
    assert text.endswith("\n")
    list(text_string_to_metric_families(text))  # Prometheus takes the names with colons
    return text.splitlines()


def test_every_metric_has_its_type_whether_it_has_points_or_not() -> None:
    lines = page_of(Source())
    assert "# TYPE :tensorflow:serving:request_count counter" in lines
    assert "# TYPE :tensorflow:serving:mlmd_map gauge" in lines
    assert all(line.startswith("# TYPE :tensorflow:serving:") for line in lines)
    assert lines == sorted(lines)


def test_a_counter_and_a_histogram_look_as_upstreams() -> None:
    lines = page_of(Source(version("m", 1, Method.PREDICT, OK=3, NOT_FOUND=1)))
    assert ':tensorflow:serving:request_count{model_name="m",status="OK"} 3' in lines
    assert ':tensorflow:serving:request_count{model_name="m",status="NOT_FOUND"} 1' in lines
    name = ':tensorflow:serving:request_latency{}{{model_name="m",API="Predict",entrypoint="GRPC"{}}} {}'
    begin = lines.index("# TYPE :tensorflow:serving:request_latency histogram") + 1
    counts = [0, 0] + [3] * 32
    assert lines[begin : begin + 36] == [
        *(name.format("_bucket", f',le="{limit}"', number) for limit, number in zip(LIMITS, counts, strict=True)),
        name.format("_sum", "", 60),
        name.format("_count", "", 3),
    ]
    assert ':tensorflow:serving:runtime_latency_sum{model_name="m",API="Predict",runtime="TF1"} 45' in lines


def test_numbers_of_a_model_stay_when_its_versions_go() -> None:
    source = Source(version("m", 1, Method.PREDICT, OK=3))
    totals = RequestTotals(source)
    metrics = ServingMetrics(totals, dict, RequestCounts(), RequestCounts())
    source.present, source.retired = [version("m", 2, Method.PREDICT, OK=4)], source.present
    assert list(totals.by_version()) == [("m", 2, "serving_default", Method.PREDICT)]
    for _ in range(2):
        assert b':tensorflow:serving:request_count{model_name="m",status="OK"} 7\n' in metrics.text()


def test_grpc_counts_three_methods_and_rest_counts_by_itself() -> None:
    rest = RequestCounts()
    rest.count("m", "OK", "predict", 5)
    rest.count("", "INVALID_ARGUMENT", "", 5)
    lines = page_of(
        Source(
            version("m", 1, Method.MULTI_INFERENCE, OK=2),
            version("m", 2, Method.CLASSIFY, OK=1),
            version("m", 3, Method.PREDICT, PYTHON_EDGES, OK=1),
        ),
        {("nobody", Method.REGRESS, Code.NOT_FOUND): 5, ("nobody", Method.MULTI_INFERENCE, Code.NOT_FOUND): 7},
        rest,
    )
    assert [line for line in lines if "request_count{" in line] == [
        ':tensorflow:serving:request_count{model_name="",status="INVALID_ARGUMENT"} 1',
        ':tensorflow:serving:request_count{model_name="m",status="OK"} 2',
        ':tensorflow:serving:request_count{model_name="nobody",status="NOT_FOUND"} 5',
    ]
    assert [line for line in lines if "request_latency_count" in line] == [
        ':tensorflow:serving:request_latency_count{model_name="m",API="Classify",entrypoint="GRPC"} 1',
        ':tensorflow:serving:request_latency_count{model_name="m",API="predict",entrypoint="REST"} 1',
    ]
    assert [line for line in lines if "runtime_latency_count" in line] == [
        ':tensorflow:serving:runtime_latency_count{model_name="m",API="Classify",runtime="TF1"} 1',
        ':tensorflow:serving:runtime_latency_count{model_name="m",API="MultiInference",runtime="TF1"} 2',
        ':tensorflow:serving:runtime_latency_count{model_name="m",API="Predict",runtime="TF1"} 1',
    ]


def test_labels_are_escaped_as_upstream_does() -> None:
    rest = RequestCounts()
    rest.count('a"b\\c', "NOT_FOUND", "", 0)
    assert r':tensorflow:serving:request_count{model_name="a\"b\\c",status="NOT_FOUND"} 1' in page_of(
        Source(), rest=rest
    )


def test_names_that_clients_make_up_do_not_fill_the_memory() -> None:
    counts = RequestCounts()
    for number in range(5000):
        counts.count(f"m{number}", "NOT_FOUND", "", 0)
        counts.count(f"m{number}", "OK", "", 0)
    assert len(counts.by_status) <= 1002
    assert len(counts.latencies) <= 1000
    assert sum(counts.by_status.values()) == 10_000


def test_the_limits_are_upstreams() -> None:
    assert [f"{limit:g}" for limit in LATENCY_LIMITS_US] == LIMITS[:-1]


def test_a_counters_first_point_is_that_of_the_page() -> None:
    unrouted = {("a", int(Method.PREDICT), int(Code.NOT_FOUND)): 7}
    source = Source(version("m", 1, Method.PREDICT, OK=3))
    metrics = ServingMetrics(RequestTotals(source), lambda: unrouted, RequestCounts(), RequestCounts())
    assert metrics.first_point("/tensorflow/serving/request_count") == 7
    for other in ("/tensorflow/serving/request_latency", "/tensorflow/serving/request_log_count", "request_count", ""):
        assert metrics.first_point(other) == 0
