"""The plot of a benchmark: latency by percentile and rate over time, or latency over rate for a sweep.

Under ``tensorgate bench --plot``; needs matplotlib, which the extra ``client`` brings.
"""

import io
import math
from collections.abc import Mapping, Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from tensorgate.gateway.cli.bench import Run, rates
from tensorgate.gateway.cli.bench_load import percentile
from tensorgate.protos.status_codes import Code, ServingError

_SHOWN_PERCENTS = (0, 50, 90, 99, 99.9)
_PERCENTS = [*range(90), *(90 + tenth / 10 for tenth in range(90)), *(99 + part / 100 for part in range(91))]
_LINE_STYLES = ("-", "--", ":", "-.")
# What fits below the two pictures, in characters.
_LEGEND_WIDTH = 130
# Marks on an axis of a logarithmic scale that get a number.
_NUMBERED_DIGITS = (1, 2, 5)


def plot(path: str, title: str, runs: Sequence[Run]) -> None:
    """Writes ``path``: a picture by its ending (.png, .svg, .pdf), or .html with the picture inside.

    Raises ServingError INVALID_ARGUMENT for another ending, and OSError.
    """
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    figure.suptitle(title)
    colors = _colors(runs)
    _draw_percentiles(left, runs, colors)
    if len(runs) == 1:
        _draw_rate(right, runs[0])
    else:
        _draw_sweep(right, runs, colors)
        num_columns = max(1, min(len(runs), _LEGEND_WIDTH // (8 + max(len(run.name) for run in runs))))
        figure.legend(
            *left.get_legend_handles_labels(), loc="outside lower center", ncols=num_columns, fontsize="small"
        )
    for axes in (left, right):
        axes.grid(alpha=0.3)
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


def _colors(runs: Sequence[Run]) -> Mapping[tuple[str, int], str]:
    """By setting and concurrency: one for each setting, or, where there is but one, for each concurrency."""
    settings = list(dict.fromkeys(run.setting for run in runs))
    concurrencies = list(dict.fromkeys(run.goal.concurrency for run in runs))
    return {
        (run.setting, run.goal.concurrency): "C"
        + str(settings.index(run.setting) if len(settings) > 1 else concurrencies.index(run.goal.concurrency))
        for run in runs
    }


def _draw_percentiles(axes: Axes, runs: Sequence[Run], colors: Mapping[tuple[str, int], str]) -> None:
    concurrencies = list(dict.fromkeys(run.goal.concurrency for run in runs))
    for run in runs:
        ordered = sorted(run.answers.latencies_s)
        if ordered:
            axes.plot(
                [_place(percent) for percent in _PERCENTS],
                [1e3 * percentile(ordered, percent) for percent in _PERCENTS],
                _LINE_STYLES[concurrencies.index(run.goal.concurrency) % len(_LINE_STYLES)],
                color=colors[run.setting, run.goal.concurrency],
                label=run.name,
            )
    axes.set(xlabel="percentile", ylabel="latency in ms", title="latency by percentile", yscale="log")
    axes.set_xticks([_place(percent) for percent in _SHOWN_PERCENTS], [f"{percent:g}" for percent in _SHOWN_PERCENTS])
    axes.yaxis.set_major_formatter(FuncFormatter(_number))
    low, high = axes.get_ylim()
    # Decades have numbers anyhow; where there is hardly one, others have to have them.
    axes.yaxis.set_minor_formatter(FuncFormatter(_number) if high / low < 1000 else NullFormatter())


def _place(percent: float) -> float:
    """On the axis: each further nine is as far again, so that the slow requests can be seen."""
    return -math.log10(1 - percent / 100)


def _number(value: float, _position: int | None) -> str:
    digit = value / 10 ** math.floor(math.log10(value)) if value > 0 else 0.0
    return f"{value:g}" if round(digit, 6) in _NUMBERED_DIGITS else ""


def _draw_rate(axes: Axes, run: Run) -> None:
    values = rates(run.answers, run.goal)
    step_s = run.goal.duration_s / len(values)
    axes.step([step_s * number for number in range(len(values))], values, where="post")
    axes.set(xlabel="seconds", ylabel="requests/s", title="rate", ylim=(0, None))


def _draw_sweep(axes: Axes, runs: Sequence[Run], colors: Mapping[tuple[str, int], str]) -> None:
    for setting in dict.fromkeys(run.setting for run in runs):
        its_runs = [run for run in runs if run.setting == setting]
        found = [run.answers.rate for run in its_runs]
        color = colors[setting, its_runs[0].goal.concurrency] if setting else "C0"
        for percent, style in ((50, "o-"), (99, "s--")):
            times_ms = [1e3 * run.answers.percentile_s(percent) for run in its_runs]
            label = f"p{percent}" if setting == runs[0].setting else None
            axes.plot(found, times_ms, style, color=color, markersize=5, label=label)
        for run in its_runs:
            axes.annotate(
                str(run.goal.concurrency),
                (run.answers.rate, 1e3 * run.answers.percentile_s(50)),
                textcoords="offset points",
                xytext=(4, -11),
            )
    axes.set(xlabel="requests/s", ylabel="latency in ms", title="latency by rate (numbers: concurrency)")
    axes.set(xlim=(0, None), ylim=(0, None))
    axes.legend()
