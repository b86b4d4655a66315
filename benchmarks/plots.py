"""The pictures of a run: racepool beside each peer, latencies, CPU by part."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import turns
from benchmarks.contenders.registry import CONTENDERS, OURS
from benchmarks.figures import Spread, ratios, spread
from benchmarks.loads import NORMALISED, RAW
from benchmarks.measured import Measured
from benchmarks.turns import P50, key

OURS_COLOUR: Final = "#c0392b"
PEER_COLOUR: Final = "#8fa3b0"
PROCESS_COLOURS: Final = {
    "caller": "#2c3e50",
    "worker": "#8fa3b0",
    "broker": "#c0392b",
    "proxy": "#e08e79",
    "controller": "#d4ac0d",
    "redis": "#af601a",
    "raylet": "#7d6608",
    "ray's servers": "#b7950b",
    "supervisord": "#6c3483",
    "supervisord's watchdog": "#a569bd",
    "helper": "#1e8449",
}
DPI: Final = 110
SHOWN_LATENCIES: Final = (0.5, 99.5)  # percentiles; the rest is noise of the machine


def draw(measured: Measured, folder: Path) -> Iterator[str]:
    """Writes the pictures, and returns the names of their files."""
    keys = [name for name in CONTENDERS if name in measured.figures.get(key(turns.THROUGHPUT, NORMALISED), {})]
    for name, figure in (
        ("against_peers", _against_peers(measured, keys)),
        ("latency", _latency(measured, keys)),
        ("cpu_by_part", _cpu(measured, keys)),
    ):
        figure.savefig(folder / f"{name}.png", dpi=DPI)
        yield f"{name}.png"


def _titles(keys: Sequence[str]) -> list[str]:
    return [CONTENDERS[name].title for name in keys]


def _against_peers(measured: Measured, keys: Sequence[str]) -> Figure:
    """The ratio of racepool to each peer, with quartiles, on a logarithmic axis. Right of 1, racepool is better."""
    panels = [
        (f"throughput, {NORMALISED}", key(turns.THROUGHPUT, NORMALISED), 1),
        (f"throughput, {RAW}", key(turns.THROUGHPUT, RAW), 1),
        ("burst of five, p50", key(turns.BURST + P50, NORMALISED), -1),
        (f"CPU per task, {NORMALISED}", key(turns.CPU, NORMALISED), -1),
    ]
    peers = [name for name in keys if name != OURS]
    figure = Figure(figsize=(13, 1.6 + 0.38 * len(peers)), layout="constrained")
    for axes, (title, measure, power) in zip(figure.subplots(1, len(panels), sharey=True), panels, strict=True):
        figures = measured.figures[measure]
        spreads = [spread([ratio**power for ratio in ratios(figures[OURS], figures[peer])]) for peer in peers]
        middles = [each.middle for each in spreads]
        errors = [[each.middle - each.low for each in spreads], [each.high - each.middle for each in spreads]]
        colours = [OURS_COLOUR if middle >= 1 else PEER_COLOUR for middle in middles]
        lengths = [middle - 1 for middle in middles]
        axes.barh(_titles(peers), lengths, left=1, xerr=errors, color=colours, ecolor="#555555", capsize=2)
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_xscale("log")
        axes.set_xlim(min(0.4, *middles) * 0.8, max(2.5, *middles) * 1.9)
        axes.xaxis.set_major_formatter("{x:g}x")
        axes.xaxis.set_minor_formatter("")
        axes.set_title(title, fontsize=10)
        _label(axes, spreads)
    figure.axes[0].invert_yaxis()
    figure.suptitle("racepool to its peers: red where racepool is better, and by how much", fontsize=12)
    return figure


def _label(axes: Axes, spreads: Sequence[Spread]) -> None:
    for place, (_, middle, high) in enumerate(spreads):
        axes.annotate(f"{middle:.2g}x", (max(high, 1), place), xytext=(8, 0), textcoords="offset points",
                      va="center", fontsize=8)  # fmt: skip


def _latency(measured: Measured, keys: Sequence[str]) -> Figure:
    """The latency of every single task on an idle pool, as violins."""
    figure = Figure(figsize=(13, 1.6 + 0.42 * len(keys)), layout="constrained")
    for axes, load in zip(figure.subplots(1, 2, sharey=True), (NORMALISED, RAW), strict=True):
        latencies = [_trimmed(measured.latencies[load][name]) for name in keys]
        parts = axes.violinplot(latencies, orientation="horizontal", showmedians=True, showextrema=False, widths=0.85)
        for name, body in zip(keys, parts["bodies"], strict=True):
            body.set_facecolor(OURS_COLOUR if name == OURS else PEER_COLOUR)
            body.set_alpha(0.75)
        parts["cmedians"].set_color("black")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel(f"ms, one {load} race at a time on an idle pool (logarithmic)")
        axes.set_yticks(range(1, len(keys) + 1), _titles(keys))
        axes.grid(axis="x", alpha=0.3)
    figure.axes[0].invert_yaxis()
    return figure


def _trimmed(latencies: Sequence[float]) -> list[float]:
    ordered = sorted(latencies)
    low, high = (round(len(ordered) * percent / 100) for percent in SHOWN_LATENCIES)
    return ordered[low : max(high, low + 1)]


def _cpu(measured: Measured, keys: Sequence[str]) -> Figure:
    """CPU time per task, stacked by process. A bar that is too long for the frame has its number written."""
    figure = Figure(figsize=(13, 1.8 + 0.42 * len(keys)), layout="constrained")
    for axes, load in zip(figure.subplots(1, 2, sharey=True), (NORMALISED, RAW), strict=True):
        processes = sorted({part.process for name in keys for part in measured.cpu[load][name]})
        lefts = [0.0] * len(keys)
        for process in processes:
            widths = [_sum_of(measured, load, name, process) for name in keys]
            axes.barh(_titles(keys), widths, left=lefts, label=process, color=PROCESS_COLOURS.get(process, PEER_COLOUR))
            lefts = [left + width for left, width in zip(lefts, widths, strict=True)]
        for place, total in enumerate(lefts):
            axes.annotate(
                f"{total:,.0f}", (total, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8
            )
        axes.set_xlim(0, max(lefts) * 1.12)
        axes.set_xlabel(f"µs of CPU per {load} race")
    figure.axes[0].invert_yaxis()
    handles = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.axes[1].legend(handles.values(), handles.keys(), fontsize=8, loc="best")
    return figure


def _sum_of(measured: Measured, load: str, contender: str, process: str) -> float:
    return sum(part.us for part in measured.cpu[load][contender] if part.process == process)
