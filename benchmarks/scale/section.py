"""The section of the report about the broker at scale, and its picture."""

from pathlib import Path
from typing import Final

from benchmarks.figures import spread
from benchmarks.scale.measurement import Scale, by_axis
from benchmarks.tables import table, with_quartiles

PLOT: Final = "broker_at_scale.png"
DPI: Final = 110
HEADROOM: Final = 1.35  # above the highest bar, for the legend
_READING: Final = """\
The real broker between fake workers, which answer at once, and fake clients, which keep a number of tasks queued; so
what is measured is the broker's CPU alone, of its own thread and of libzmq's. Heartbeats, a cost per second and not per
task, are left out. A queued task's memory is what the broker's proportional set size grows by, less the bodies, seven
seconds later: within five it gives what is free back to the kernel, such as the buffers of a flood that it has read.
"""


def text(scale: Scale) -> str:
    """Both tables."""
    costs = [
        [
            f"{cost.queued:,} queued, {cost.workers} workers, {cost.clients} client{'s' * (cost.clients > 1)}",
            *(with_quartiles(spread(figures)) for figures in (cost.us, cost.main_us, cost.libzmq_us)),
        ]
        for _, costs in by_axis(scale)
        for cost in costs
    ]
    weights = [
        [f"{weight.queued:,} bodies of {weight.body_bytes:,} bytes", with_quartiles(spread(weight.beside_bytes))]
        for weight in scale.weights
    ]
    when = f"{scale.at:%Y-%m-%d %H:%M} UTC, scale {scale.scale:g}.\n"
    return "\n".join(
        [
            when,
            _READING,
            table(["", "CPU per task, µs", "its thread", "libzmq's"], costs),
            table(["queued", "bytes beside the body, per task"], weights),
        ]
    )


def draw(scale: Scale, folder: Path) -> str:
    """Writes the picture, and returns its name: CPU time per task in each series, and memory per queued task."""
    from matplotlib.figure import Figure  # noqa: PLC0415  # of the extra

    figure = Figure(figsize=(13, 3.4), layout="constrained")
    panels = figure.subplots(1, 4)
    for axes, (axis, costs) in zip(panels[:3], by_axis(scale), strict=True):
        labels = [f"{getattr(cost, axis):,}" for cost in costs]
        main = [spread(cost.main_us).middle for cost in costs]
        axes.bar(labels, main, label="its thread", color="#c0392b")
        axes.bar(
            labels, [spread(cost.libzmq_us).middle for cost in costs], bottom=main, label="libzmq's", color="#8fa3b0"
        )
        axes.set_xlabel(f"tasks {axis}" if axis == "queued" else axis)
    panels[0].set_ylabel("µs of broker CPU per task")
    panels[0].legend(fontsize=8, loc="upper left")
    for axes in panels[:3]:
        axes.set_ylim(0, HEADROOM * max(spread(cost.us).middle for cost in scale.costs))
    labels = [f"{weight.body_bytes:,}" for weight in scale.weights]
    panels[3].bar(labels, [spread(weight.beside_bytes).middle for weight in scale.weights], color="#c0392b")
    panels[3].set_xlabel("bytes of each queued body")
    panels[3].set_ylabel("bytes beside it")
    figure.savefig(folder / PLOT, dpi=DPI)
    return PLOT
