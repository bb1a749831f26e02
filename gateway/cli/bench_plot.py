"""The plot of a benchmark: latency by percentile and rate over time, or latency over rate for a sweep.

Under ``tensorgate bench --plot``; needs matplotlib, which the extra ``client`` brings.
"""

import io
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tensorgate.gateway.cli.bench import Run, rates
from tensorgate.protos.status_codes import Code, ServingError

_PERCENTS = [*range(99), 99, 99.5, 99.9]


def plot(path: str, title: str, runs: Sequence[Run]) -> None:
    """Writes ``path``: a picture by its ending (.png, .svg, .pdf), or .html with the picture inside.

    Raises ServingError INVALID_ARGUMENT for another ending, and OSError.
    """
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    figure.suptitle(title)
    for run in runs:
        _draw_percentiles(left, run)
    left.set(xlabel="percentile", ylabel="latency in ms", title="latency")
    left.set_yscale("log")
    left.grid(alpha=0.3)
    left.legend()
    if len(runs) == 1:
        _draw_rate(right, runs[0])
    else:
        _draw_sweep(right, runs)
    right.grid(alpha=0.3)
    if path.endswith(".html"):
        svg = io.StringIO()
        with mpl.rc_context({"svg.fonttype": "none"}):
            figure.savefig(svg, format="svg")
        with open(path, "w", encoding="utf-8") as file:
            picture = svg.getvalue()
            file.write("<!doctype html><meta charset=utf-8><title>tensorgate bench</title>\n")
            file.write(picture[picture.index("<svg") :])
        return
    try:
        figure.savefig(path, dpi=120)
    except ValueError as error:
        raise ServingError(Code.INVALID_ARGUMENT, f"--plot takes .png, .svg, .pdf or .html: {error}") from error


def _draw_percentiles(axes: Axes, run: Run) -> None:
    ordered = sorted(run.answers.latencies_s)
    if ordered:
        times_ms = [1e3 * ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] for percent in _PERCENTS]
        axes.plot(_PERCENTS, times_ms, label=f"concurrency {run.goal.concurrency}")


def _draw_rate(axes: Axes, run: Run) -> None:
    values = rates(run.answers, run.goal)
    step_s = run.goal.duration_s / len(values)
    axes.step([step_s * number for number in range(len(values))], values, where="post")
    axes.set(xlabel="seconds", ylabel="requests/s", title="rate", ylim=(0, None))


def _draw_sweep(axes: Axes, runs: Sequence[Run]) -> None:
    found = [run.answers.rate for run in runs]
    for percent, style in ((50, "o-"), (99, "s--")):
        axes.plot(found, [1e3 * run.answers.percentile_s(percent) for run in runs], style, label=f"p{percent}")
    for run, rate in zip(runs, found, strict=True):
        axes.annotate(str(run.goal.concurrency), (rate, 1e3 * run.answers.percentile_s(50)))
    axes.set(xlabel="requests/s", ylabel="latency in ms", title="latency by rate; numbers: concurrency", ylim=(0, None))
    axes.legend()
