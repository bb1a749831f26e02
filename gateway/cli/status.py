"""``tensorgate status``: a server's models, workers and requests as a table, once or again and again.

A client of the REST port: /readyz, /v1/models and /metrics.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tensorgate.gateway.cli.access import Access
from tensorgate.gateway.cli.connection import rest, rest_json
from tensorgate.protos.status_codes import Code, ServingError

READY, NOT_READY = 0, 1
_STATE_STYLES = {"AVAILABLE": "green", "LOADING": "yellow", "START": "yellow", "UNLOADING": "yellow", "END": "red"}


@dataclass(slots=True)
class Snapshot:
    """What one look gave. ``metrics``: sample name to its labels and values."""

    time_s: float
    trouble: str
    models: list[dict[str, object]]
    metrics: dict[str, list[tuple[Mapping[str, str], float]]] = field(default_factory=dict)

    def values(self, name: str, **labels: str) -> Iterator[float]:
        """Values of the samples that have these labels."""
        for found, value in self.metrics.get(name, []):
            if all(found.get(label) == text for label, text in labels.items()):
                yield value

    def total(self, name: str, **labels: str) -> float:
        """Their sum."""
        return sum(self.values(name, **labels))


def look(address: str, access: Access) -> Snapshot:
    """Asks the server. Raises ServingError where it does not answer."""
    status, body = rest(address, "GET", "/readyz", access)
    snapshot = Snapshot(
        time.monotonic(),
        "" if status == 200 else body.decode(errors="replace").strip(),
        rest_json(address, "/v1/models", access)["models"],
    )
    status, page = rest(address, "GET", "/metrics", access)
    if status != HTTPStatus.OK:
        raise ServingError(Code.UNKNOWN, f"{address}/metrics answers {status}: {page[:500].decode(errors='replace')}")
    for family in text_string_to_metric_families(page.decode(errors="replace")):
        for sample in family.samples:
            snapshot.metrics.setdefault(sample.name, []).append((sample.labels, sample.value))
    return snapshot


def render(address: str, now: Snapshot, before: Snapshot | None = None) -> RenderableType:
    """The tables; rates are of the time since ``before``, or totals without it."""
    ready = Text(f"not ready: {now.trouble}", style="bold red") if now.trouble else Text("ready", style="bold green")
    title = Text.assemble((f"{address} ", "bold"), ready)
    parts: list[RenderableType] = [title, "", _models(now, before), *_errors(now), "", _workers(now)]
    if now.metrics.get("tensorgate_batching_batches_total"):
        parts += ["", _batching(now, before)]
    return Group(*parts)


def _models(now: Snapshot, before: Snapshot | None) -> Table:
    table = _table("Models", "model")
    table.add_column("ver.", justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for name in (
        "req/s" if before is not None else "requests",
        "failed",
        "in flight",
        "mean ms",
        "p99≤ ms",
        "load s",
    ):
        table.add_column(name, justify="right")
    for model in now.models:
        name = str(model["name"])
        versions = model["model_version_status"]
        if not isinstance(versions, list) or not versions:
            table.add_row(name, "-", Text("no version", style="red"))
            continue
        for version in versions:
            table.add_row(name, *_version_cells(name, version, now, before))
    return table


def _errors(now: Snapshot) -> Iterator[Text]:
    """What is wrong with versions, in lines of its own: the texts are long."""
    for model in now.models:
        versions = model["model_version_status"]
        for version in versions if isinstance(versions, list) else ():
            error = str(version.get("status", {}).get("error_message", ""))
            if error:
                yield Text(f"{model['name']} {version['version']}: {error}", style="red")


def _table(title: str, first_column: str) -> Table:
    """Without lines, so that names of models have room in 80 columns."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(first_column, no_wrap=True, overflow="fold")
    return table


def _version_cells(
    name: str, version: Mapping[str, object], now: Snapshot, before: Snapshot | None
) -> list[RenderableType]:
    labels = {"model": name, "version": str(version["version"])}
    state = str(version["state"])
    requests = now.total("tensorgate_model_requests_total", **labels)
    failed = requests - now.total("tensorgate_model_requests_total", code="OK", **labels)
    served = now.total("tensorgate_request_duration_seconds_count", **labels)
    total_s = now.total("tensorgate_request_duration_seconds_sum", **labels)
    shown_requests = f"{requests:.0f}"
    if before is not None:
        elapsed_s = max(now.time_s - before.time_s, 1e-3)
        shown_requests = f"{(requests - before.total('tensorgate_model_requests_total', **labels)) / elapsed_s:.1f}"
        served -= before.total("tensorgate_request_duration_seconds_count", **labels)
        total_s -= before.total("tensorgate_request_duration_seconds_sum", **labels)
    load = next(now.values("tensorgate_model_load_seconds", **labels), None)
    p99_s = quantile_limit(now, before, 0.99, labels)
    return [
        labels["version"],
        Text(state, style=_STATE_STYLES.get(state, "")),
        shown_requests,
        Text(f"{failed:.0f}", style="red" if failed else ""),
        f"{now.total('tensorgate_model_requests_in_flight', **labels):.0f}",
        f"{1e3 * total_s / served:.2f}" if served > 0 else "-",
        "-" if p99_s is None else f"{1e3 * p99_s:.2f}",
        "-" if load is None else f"{load:.2f}",
    ]


def quantile_limit(now: Snapshot, before: Snapshot | None, quantile: float, labels: Mapping[str, str]) -> float | None:
    """The upper limit, in seconds, of the bucket that the quantile of the request times is in; None without any."""
    counts: dict[float, float] = {}
    for snapshot, sign in ((now, 1), (before, -1)):
        if snapshot is None:
            continue
        for found, value in snapshot.metrics.get("tensorgate_request_duration_seconds_bucket", []):
            if all(found.get(label) == text for label, text in labels.items()):
                limit = float(found["le"])
                counts[limit] = counts.get(limit, 0) + sign * value
    total = counts.get(float("inf"), 0)
    if total <= 0:
        return None
    return next(limit for limit in sorted(counts) if counts[limit] >= quantile * total)


def _workers(now: Snapshot) -> Table:
    table = _table("Workers", "worker")
    table.add_column("state")
    for name in ("memory MB", "running", "waiting", "restarts"):
        table.add_column(name, justify="right")
    for labels, is_up in now.metrics.get("tensorgate_worker_up", []):
        worker = labels["worker"]
        table.add_row(
            worker,
            Text("up", style="green") if is_up else Text("down", style="red"),
            f"{now.total('tensorgate_worker_resident_memory_bytes', worker=worker) / 1e6:.0f}",
            f"{now.total('tensorgate_worker_requests_handed', worker=worker):.0f}",
            f"{now.total('tensorgate_worker_queue_depth', worker=worker):.0f}",
            f"{now.total('tensorgate_worker_restarts_total', worker=worker):.0f}",
        )
    return table


def _batching(now: Snapshot, before: Snapshot | None) -> Table:
    """What merging does to requests; averages are of the time since ``before``, or of all without it."""
    table = Table(title="Batching", title_justify="left")
    for name in ("model", "version", "signature"):
        table.add_column(name)
    for name in ("batches", "rows a batch", "padding", "wait ms", "run ms", "waiting", "refused", "expired"):
        table.add_column(name, justify="right")
    for labels, _ in now.metrics["tensorgate_batching_batches_total"]:

        def since(name: str, labels: Mapping[str, str] = labels) -> float:
            earlier = 0.0 if before is None else before.total(f"tensorgate_batching_{name}", **labels)
            return now.total(f"tensorgate_batching_{name}", **labels) - earlier

        batches, rows, padding = since("batches_total"), since("rows_total"), since("padding_rows_total")
        waits = since("wait_seconds_count")
        table.add_row(
            labels["model"],
            labels["version"],
            labels["signature"],
            f"{batches:.0f}",
            f"{rows / batches:.1f}" if batches else "-",
            f"{100 * padding / (rows + padding):.0f} %" if rows else "-",
            f"{1e3 * since('wait_seconds_sum') / waits:.2f}" if waits else "-",
            f"{1e3 * since('run_seconds_total') / batches:.2f}" if batches else "-",
            f"{now.total('tensorgate_batching_rows_waiting', **labels):.0f}",
            f"{since('refused_total'):.0f}",
            f"{since('expired_total'):.0f}",
        )
    return table


def show_status(address: str, access: Access, console: Console, *, watch: bool, interval_s: float = 1.0) -> int:
    """Prints the tables, with ``watch`` until Ctrl-C; the exit status. Raises ServingError at the first look."""
    now = look(address, access)
    if not watch:
        console.print(render(address, now))
        return NOT_READY if now.trouble else READY
    before: Snapshot | None = None
    with Live(render(address, now), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(interval_s)
            before, now = now, look(address, access)
            live.update(render(address, now, before), refresh=True)
