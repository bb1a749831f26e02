"""``tensorgate bench``: how fast a server answers a model's requests, with data made from the signature.

A client of either edge. Live progress while it runs, percentiles at the end, a plot where one is asked for; with a
sweep, the same for several concurrencies and which of them to take. bench_batching does it for servers of its own.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tensorgate.gateway.cli import client
from tensorgate.gateway.cli.access import Access
from tensorgate.gateway.cli.bench_load import Answers, Goal, Load, Send, grpc_sender, percentile, rest_sender
from tensorgate.gateway.cli.client import ModelName
from tensorgate.gateway.cli.connection import open_channel, rest_json
from tensorgate.protos.tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorgate.protos.tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef

PREDICT_PATH = "/tensorflow.serving.PredictionService/Predict"
PERCENTILES = (50, 90, 99, 99.9)
NUM_PAYLOADS = 16
SHOW_INTERVAL_S = 0.25
# A higher concurrency than this share of the best rate needs only adds waiting.
ENOUGH_OF_BEST_RATE = 0.95
_BARS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What is measured. Only ``api`` (grpc or rest) is asked; ``rows`` is the size of a free first dimension."""

    grpc_address: str
    rest_address: str
    model: ModelName
    api: str = "grpc"
    rows: int = 1
    timeout_s: float = 60.0
    access: Access = field(default_factory=Access)


@dataclass(frozen=True, slots=True)
class Run:
    """One goal and what came of it. ``setting``: how the server was set, where that is what differs."""

    goal: Goal
    answers: Answers
    setting: str = ""

    @property
    def name(self) -> str:
        """What tells it from the others."""
        setting = f"batching {self.setting}, " if self.setting else ""
        return f"{setting}concurrency {self.goal.concurrency}"


@contextlib.contextmanager
def prepared(options: BenchOptions) -> Iterator[tuple[Callable[[], Send], list[bytes]]]:
    """What sends, and what is sent. Raises ServingError, where the model cannot be asked."""
    model, timeout_s = options.model, options.timeout_s
    # What every request would fail with is better said once, so one is sent before.
    if options.api == "grpc":
        with open_channel(options.grpc_address, options.access) as channel:
            inputs = _made_up_inputs(client.fetch_signature(channel, model), options.rows)
            requests = [client.predict_request(model, each) for each in inputs]
            client.predict(channel, requests[0], timeout_s)
            payloads = [request.SerializeToString() for request in requests]
            yield grpc_sender(channel, PREDICT_PATH, timeout_s), payloads
        return
    address, access, path = options.rest_address, options.access, f"{rest_path(model)}:predict"
    document = rest_json(address, f"{rest_path(model)}/metadata", access)
    bodies = [
        json.dumps(
            {
                "signature_name": model.signature,
                "inputs": {name: _json_values(client.to_array(tensor).tolist()) for name, tensor in each.items()},
            }
        ).encode()
        for each in _made_up_inputs(client.signature_of_json(document, model), options.rows)
    ]
    rest_json(address, path, access, "POST", bodies[0], timeout_s)
    with rest_sender(address, access, path, timeout_s) as make_send:
        yield make_send, bodies


def _made_up_inputs(signature: SignatureDef, rows: int) -> list[dict[str, TensorProto]]:
    """Of each request."""
    return [
        {
            name: client.made_up_tensor(info, rows, seed * 1000 + place)
            for place, (name, info) in enumerate(sorted(signature.inputs.items()))
        }
        for seed in range(NUM_PAYLOADS)
    ]


def rest_path(model: ModelName) -> str:
    """The beginning of the URL's path."""
    version = ""
    if model.version is not None:
        version = f"/versions/{model.version}"
    elif model.label:
        version = f"/labels/{quote(model.label, safe='')}"
    return f"/v1/models/{quote(model.name, safe='')}{version}"


def _json_values(values: object) -> object:
    if isinstance(values, list):
        return [_json_values(each) for each in values]
    return values.decode() if isinstance(values, bytes) else values


def run_once(
    make_send: Callable[[], Send], payloads: Sequence[bytes], goal: Goal, console: Console, title: str, *below: Table
) -> Answers:
    """Runs one goal and shows how it goes, ``below`` it what is known; Ctrl-C ends it early with what there is."""
    load = Load(make_send, payloads, goal)
    load.start()
    try:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while not load.is_done:
                live.update(Group(progress(title, load, goal), *below), refresh=True)
                time.sleep(SHOW_INTERVAL_S)
    except KeyboardInterrupt:
        console.print("[yellow]ended early[/yellow]")
    load.stop()
    return load.take()


def progress(title: str, load: Load, goal: Goal) -> RenderableType:
    """How a run goes: a bar, the rate over time, and times so far."""
    answers = load.take()
    share = answers.elapsed_s / goal.duration_s
    if goal.num_requests:
        share = max(share, answers.statuses.total() / goal.num_requests)
    share = min(share, 1.0)
    grid = Table.grid(padding=(0, 2))
    grid.add_row("progress", ProgressBar(total=1.0, completed=share, width=40), f"{100 * share:.0f} %")
    grid.add_row("rate", Text(sparkline(rates(answers, goal)), style="cyan"), f"{answers.rate:.0f} /s")
    ordered = sorted(answers.latencies_s)
    shown = ", ".join(f"p{percent:g} {1e3 * percentile(ordered, percent):.2f} ms" for percent in (50, 99))
    grid.add_row("latency", Text(shown, style="cyan"), "")
    failed = answers.num_failed
    grid.add_row("failed", Text(str(failed), style="red" if failed else "green"), "")
    return Group(Text(title, style="bold"), grid)


def rates(answers: Answers, goal: Goal, num_slots: int = 40) -> list[float]:
    """Successes a second over the run's time, in even slots."""
    slot_s = goal.duration_s / num_slots
    counts = [0.0] * num_slots
    for ended_s in answers.ended_s:
        counts[min(num_slots - 1, int(ended_s / slot_s))] += 1 / slot_s
    return counts


def sparkline(values: Sequence[float]) -> str:
    """A character for each value, of a height by its share of the largest."""
    largest = max(values, default=0.0) or 1.0
    return "".join(_BARS[round(value / largest * (len(_BARS) - 1))] for value in values)


def result_table(title: str, runs: Sequence[Run]) -> Table:
    """A row for each run."""
    has_rate = any(run.goal.rate for run in runs)
    # Narrow enough for 80 columns.
    table = Table(title=f"{title}; times in ms", title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    if any(run.setting for run in runs):
        table.add_column("batching", overflow="fold")
    columns = ("conc.", *(("wanted/s",) if has_rate else ()), "requests", "failed", "rate/s", "mean")
    for name in (*columns, *(f"p{percent:g}" for percent in PERCENTILES)):
        table.add_column(name, justify="right", no_wrap=True)
    for run in runs:
        answers = run.answers
        ordered = sorted(answers.latencies_s)
        mean_s = sum(ordered) / len(ordered) if ordered else 0.0
        table.add_row(
            *((run.setting,) if run.setting else ()),
            str(run.goal.concurrency),
            *((f"{run.goal.rate:g}",) if has_rate else ()),
            str(answers.statuses.total()),
            Text(str(answers.num_failed), style="red" if answers.num_failed else ""),
            f"{answers.rate:.0f}",
            f"{1e3 * mean_s:.2f}",
            *(f"{1e3 * percentile(ordered, percent):.2f}" for percent in PERCENTILES),
        )
    return table


def recommended(runs: Sequence[Run]) -> Run | None:
    """Of the runs whose rate is nearly the best the one with the least concurrency, and then the least p99.

    None where nothing succeeded.
    """
    working = [run for run in runs if run.answers.rate > 0]
    if not working:
        return None
    best = max(run.answers.rate for run in working)
    enough = [run for run in working if run.answers.rate >= ENOUGH_OF_BEST_RATE * best]
    return min(enough, key=lambda run: (run.goal.concurrency, run.answers.percentile_s(99)))


def measure(
    options: BenchOptions,
    goals: Sequence[Goal],
    console: Console,
    former: Sequence[Run] = (),
    setting: str = "",
    warmup_s: float = 0.0,
) -> list[Run]:
    """Runs each goal, after a run of ``warmup_s`` seconds that does not count; ``former`` ones are shown meanwhile.

    Raises ServingError.
    """
    runs: list[Run] = []
    with prepared(options) as (make_send, payloads):

        def run(goal: Goal, title: str) -> Answers:
            known = [*former, *runs]
            below = [result_table("so far", known)] if known else []
            return run_once(make_send, payloads, goal, console, f"{_title(options)}: {title}", *below)

        if warmup_s:
            run(Goal(goals[0].concurrency, warmup_s), f"batching {setting}, warming up")
        for goal in goals:
            runs.append(Run(goal, run(goal, Run(goal, Answers(), setting).name), setting))
    return runs


def _title(options: BenchOptions) -> str:
    return f"{options.model.name} over {options.api}, {options.rows} row(s) a request"


def report(options: BenchOptions, runs: Sequence[Run], console: Console) -> Run | None:
    """Prints the results and, of several runs, the one to take, which it returns. None: there is none."""
    console.print(result_table(_title(options), runs))
    for run in runs:
        failures = {status: number for status, number in run.answers.statuses.items() if status != "OK"}
        if failures:
            counted = ", ".join(f"{number} of {status}" for status, number in failures.items())
            console.print(f"[red]{run.name}: {counted}[/red]")
    best = recommended(runs)
    if len(runs) < 2 or best is None:
        return None
    is_highest = best.goal.concurrency == max(run.goal.concurrency for run in runs)
    console.print(
        f"Recommended: [bold]{best.name}[/bold], {best.answers.rate:.0f} requests/s "
        f"with a p99 of {1e3 * best.answers.percentile_s(99):.2f} ms; "
        + ("a concurrency beyond those tried may give more." if is_highest else "more adds waiting, not requests."),
        highlight=False,
    )
    return best


def finish(
    options: BenchOptions, runs: Sequence[Run], console: Console, plot_path: str = "", *, as_json: bool = False
) -> int:
    """Plots, and prints the results as JSON, where that is asked for; 0 if every request succeeded, else 1."""
    if as_json:
        console.print_json(json.dumps([as_document(run) for run in runs]))
    if plot_path:
        from tensorgate.gateway.cli.bench_plot import plot  # noqa: PLC0415  (loads matplotlib)

        plot(plot_path, _title(options), runs)
        if not as_json:
            console.print(f"plotted: {plot_path}", highlight=False)
    return 1 if any(run.answers.num_failed or not run.answers.statuses for run in runs) else 0


def run_bench(
    options: BenchOptions, goals: Sequence[Goal], console: Console, plot_path: str = "", *, as_json: bool = False
) -> int:
    """Runs each goal and prints the results; 0 if every request succeeded, else 1. Raises ServingError."""
    runs = measure(options, goals, Console(stderr=True, quiet=True) if as_json else console)
    if not as_json:
        report(options, runs, console)
    return finish(options, runs, console, plot_path, as_json=as_json)


def as_document(run: Run) -> dict[str, object]:
    """A run for JSON; times in milliseconds."""
    answers = run.answers
    return {
        **({"batching": run.setting} if run.setting else {}),
        "concurrency": run.goal.concurrency,
        "wanted_rate": run.goal.rate,
        "elapsed_s": round(answers.elapsed_s, 3),
        "rate": round(answers.rate, 1),
        "statuses": dict(answers.statuses),
        **{f"p{percent:g}_ms": round(1e3 * answers.percentile_s(percent), 3) for percent in PERCENTILES},
    }
