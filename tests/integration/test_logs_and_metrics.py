"""Metrics pages, access log and request log of running servers, as those who read them do."""

import json
import pathlib
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.harness.model_server import (
    ModelServer,
    StartServer,
    config_flag,
    floats,
    free_port,
    predict_request,
    wait_until,
)

# The parser adds _total to a counter without it.
REQUEST_COUNT = ":tensorflow:serving:request_count_total"
LOG_COUNT = ":tensorflow:serving:request_log_count_total"
SERVING_PAGE = "/monitoring/prometheus/metrics"


def page_of(server: ModelServer, path: str) -> dict[tuple[str, ...], float]:
    """Name and label values of each sample of a page, as prometheus_client's parser reads it."""
    status, text = server.rest("GET", path)
    assert status == 200
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize("edge", ["native", "grpcio"])
def test_both_pages_tell_of_every_request(
    start_server: StartServer, model_config: Callable[..., str], edge: str
) -> None:
    server = start_server(model_config("half_plus_two"), f"--grpc_edge={edge}")
    for _ in range(5):
        server.prediction.Predict(predict_request("half_plus_two", x=floats(4)), timeout=10)
    assert server.prediction.Predict.future(predict_request("nobody", x=floats(4)), timeout=10).exception() is not None
    for _ in range(3):
        assert server.predict_rest("half_plus_two", {"instances": [1]})[0] == 200
    assert server.predict_rest("nobody", {"instances": [1]})[0] == 404
    assert server.rest("GET", "/v1/models/half_plus_two")[0] == 200

    # Counters may be a moment old.
    wait_until(lambda: page_of(server, SERVING_PAGE).get((REQUEST_COUNT, "half_plus_two", "OK")) == 9, "all counted")
    found = page_of(server, SERVING_PAGE)
    assert found[REQUEST_COUNT, "nobody", "NOT_FOUND"] == 2
    latency = ":tensorflow:serving:request_latency_count"
    assert found[latency, "half_plus_two", "Predict", "GRPC"] == 5
    assert found[latency, "half_plus_two", "predict", "REST"] == 3
    assert found[latency, "half_plus_two", "", "REST"] == 1
    assert found[":tensorflow:serving:runtime_latency_count", "half_plus_two", "Predict", "TF1"] == 8

    found = page_of(server, "/metrics")
    assert found["tensorgate_model_requests_total", "OK", "predict", "half_plus_two", "serving_default", "2"] == 8
    assert found["tensorgate_request_duration_seconds_count", "predict", "half_plus_two", "serving_default", "2"] == 8
    assert found["tensorgate_run_duration_seconds_count", "predict", "half_plus_two", "serving_default", "2"] == 8
    assert 0 < found["tensorgate_request_duration_seconds_sum", "predict", "half_plus_two", "serving_default", "2"] < 60
    assert found["tensorgate_model_state", "half_plus_two", "AVAILABLE", "2"] == 1
    assert found["tensorgate_model_load_seconds", "half_plus_two", "2"] > 0
    assert found["tensorgate_worker_up", "worker-0"] == 1
    assert found["tensorgate_worker_restarts_total", "worker-0"] == 0
    assert found["tensorgate_worker_queue_depth", "worker-0"] == 0
    if edge == "native":
        assert found["tensorgate_model_requests_total", "NOT_FOUND", "predict", "nobody", "", ""] == 1
    # A name of the client's own makes no series of its own.
    for name in ("no_such", "nor_this"):
        assert server.predict_rest("half_plus_two", {"signature_name": name, "instances": [1]})[0] == 400
        bad = predict_request("half_plus_two", x=floats(4))
        bad.model_spec.signature_name = name
        assert server.prediction.Predict.future(bad, timeout=10).exception() is not None

    def others() -> float:
        """Requests of signatures that are not there."""
        found = page_of(server, "/metrics")
        return sum(
            value for key, value in found.items() if key[0].endswith("model_requests_total") and key[4] == "other"
        )

    # Those over gRPC: REST's own check of the name comes before any worker is asked.
    wait_until(lambda: others() == 2, "all counted")
    assert not any({"no_such", "nor_this"} & set(key) for key in page_of(server, "/metrics"))
    memory = "tensorgate_worker_resident_memory_bytes"
    wait_until(lambda: page_of(server, "/metrics")[memory, "worker-0"] > 1e6, "a heartbeat with its memory")


@pytest.mark.parametrize(
    ("config", "paths"),
    [
        ('prometheus_config { enable: true path: "/prom" }', {"/prom": 200, SERVING_PAGE: 200}),
        ("prometheus_config { enable: false }", {SERVING_PAGE: 404}),
    ],
)
def test_the_config_file_says_where_upstreams_page_is(
    start_server: StartServer,
    model_config: Callable[..., str],
    tmp_path: pathlib.Path,
    config: str,
    paths: dict[str, int],
) -> None:
    file = tmp_path / "monitoring.config"
    file.write_text(config)
    server = start_server(model_config("half_plus_two"), f"--monitoring_config_file={file}")
    assert {path: server.rest("GET", path)[0] for path in paths} == paths


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed (Debian: prometheus)")
def test_prometheus_scrapes_both_pages_and_answers_a_query(
    start_server: StartServer, model_config: Callable[..., str], tmp_path: pathlib.Path
) -> None:
    server = start_server(model_config("half_plus_two"))
    for _ in range(7):
        server.prediction.Predict(predict_request("half_plus_two", x=floats(4)), timeout=10)
    jobs = [
        {"job_name": name, "metrics_path": path, "static_configs": [{"targets": [f"127.0.0.1:{server.rest_port}"]}]}
        for name, path in (("own", "/metrics"), ("serving", SERVING_PAGE))
    ]
    config = tmp_path / "prometheus.yml"
    # YAML takes JSON.
    config.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}))
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]

    def query(expression: str) -> list[float]:
        url = f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                document = json.load(answer)
        except OSError:
            return []
        return [float(series["value"][1]) for series in document["data"]["result"]]

    with (tmp_path / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        for expression in (
            ':tensorflow:serving:request_count{model_name="half_plus_two",status="OK"}',
            'tensorgate_model_requests_total{model="half_plus_two",code="OK"}',
            "sum(:tensorflow:serving:request_latency_count)",
        ):
            wait_until(lambda expression=expression: query(expression) == [7.0], expression, 60)  # type: ignore[misc]
        # What a dashboard computes.
        (median,) = query("histogram_quantile(0.5, tensorgate_request_duration_seconds_bucket)")
        assert 0 < median < 60
    finally:
        process.terminate()
        process.wait(30)


def test_the_access_log_has_a_json_line_for_each_request(
    start_server: StartServer, model_config: Callable[..., str], tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "access.log"
    server = start_server(
        model_config("half_plus_two"), f"--access_log={path}", "--access_log_sample=1", "--log_format=json"
    )
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    request = predict_request("half_plus_two", x=floats(4))
    server.prediction.Predict(request, timeout=10, metadata=[("traceparent", traceparent)])
    bad = server.prediction.Predict.future(predict_request("half_plus_two", z=floats(4)), timeout=10)
    assert bad.exception() is not None
    assert server.predict_rest("half_plus_two", {"instances": [1, 2]})[0] == 200
    assert server.stop() == 0  # which writes what is left
    first, second, third = (json.loads(line) for line in path.read_text().splitlines())
    assert (first["model"], first["version"], first["method"]) == ("half_plus_two", 2, "predict")
    assert (first["code"], first["edge"], first["traceparent"]) == ("OK", "grpc", traceparent)
    assert 0 < first["run_us"] <= first["total_us"]
    assert first["request_bytes"] == request.ByteSize()
    assert (second["code"], third["code"]) == ("INVALID_ARGUMENT", "OK")
    assert third["edge"] == "python"
    # So are the lines of the log.
    assert all(json.loads(line)["message"] for line in server.log.splitlines() if not line.startswith("["))


def test_what_was_logged_warms_up_the_next_version(
    start_server: StartServer, own_model: Callable[..., pathlib.Path], tmp_path: pathlib.Path
) -> None:
    base_path = own_model("half_plus_two", 1)
    flag = config_flag(tmp_path, {"half_plus_two": base_path})
    config = tmp_path / "models.config"
    logging = (
        f'logging_config {{ log_collector_config {{ filename_prefix: "{tmp_path / "log" / "requests"}" }} '
        "sampling_config { sampling_rate: 1 } }"
    )
    platform = 'model_platform: "tensorflow"'
    config.write_text(config.read_text().replace(platform, f"{platform} {logging}"))
    server = start_server(flag)
    for value in range(4):
        server.prediction.Predict(predict_request("half_plus_two", x=floats(value)), timeout=10)
    assert server.predict_rest("half_plus_two", {"instances": [1, 2]})[0] == 200
    wait_until(
        lambda: page_of(server, SERVING_PAGE).get((LOG_COUNT, "half_plus_two", "OK")) == 5,
        "five requests logged",
    )
    assert server.stop() == 0
    (file,) = (tmp_path / "log").iterdir()
    warmup = base_path / "1" / "assets.extra" / "tf_serving_warmup_requests"
    warmup.parent.mkdir(exist_ok=True)
    file.rename(warmup)
    again = start_server(flag)
    assert "warmed up with 5 requests" in again.log
