"""Draws the money of a race over time. Can be imported only where matplotlib, the extra `plot`, is installed."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeVar

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from racepool.commands.pictures.money_curves import Curve, Curves, spread
from racepool.protocol.errors import PoolError

COLOURS: Final = (
    "#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#17becf", "#e377c2", "#8c564b", "#111111", "#a5a200",
)  # fmt: skip
STYLES: Final = ("solid", "dashed", "dotted")
HATCHES: Final = ("", "////", "....")
NEAR_MINUTES: Final = 5  # the time scale is linear in the last minutes, logarithmic before
TICKS: Final = (1440, 720, 360, 180, 120, 60, 45, 30, 20, 15, 10, 5, 4, 3, 2, 1, 0, -1, -2, -5, -10, -30, -60)
SILENCE: Final = "#ececec"
SILENT_POLL: Final = "#666666"
LABEL_POINTS: Final = 8.5
POINTS_AN_INCH: Final = 72
HEIGHTS: Final = 3  # the upper panel is this many times as high as the lower one

T = TypeVar("T")


def draw(curves: Curves, path: Path) -> None:
    """Draws the money on each runner, and below it what each time bucket brought.

    Raises:
        PoolError: the file cannot be written.
    """
    figure = Figure(figsize=(13, 8.5), layout="constrained")
    money, brought = figure.subplots(2, 1, sharex=True, height_ratios=(HEIGHTS, 1))
    _lines(money, curves)
    _bars(brought, curves)
    _time_axis(brought, curves)
    _dollar_axes(money, brought)
    _silences(figure, curves)
    _labels(money, curves, height_points=figure.get_figheight() * POINTS_AN_INCH * HEIGHTS / (HEIGHTS + 1))
    figure.align_ylabels()
    figure.suptitle(f"{curves.title}  ·  win pool {_dollars(curves.dollars)}", parse_math=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # a box stands for it in the picture
        try:
            figure.savefig(path, dpi=120)
        except OSError as error:
            raise PoolError(f"{path}: {error.strerror}") from None


def _colour(curve: Curve) -> str:
    """The colour of the runner's number: ten colours, each in three styles, the same in every picture."""
    return COLOURS[(curve.runner_number - 1) % len(COLOURS)]


def _style(curve: Curve, styles: Sequence[T]) -> T:
    return styles[(curve.runner_number - 1) // len(COLOURS) % len(styles)]


def _lines(axes: Axes, curves: Curves) -> None:
    """A line for each runner, with gaps where its money is not told, and a dot for an amount between two gaps."""
    for curve in curves.curves:
        axes.plot(
            curves.minutes, curve.dollars, color=_colour(curve), linestyle=_style(curve, STYLES), linewidth=1.8,
            marker="o", markersize=4, markevery=curve.lone_polls, clip_on=False,
        )  # fmt: skip
    axes.set_ylabel("win money on each runner")
    axes.set_ylim(bottom=0)


def _bars(axes: Axes, curves: Curves) -> None:
    """Stacks money that came in upwards, and decreases downwards; a bar is as wide as its bucket."""
    bars = curves.bars
    up, down = [0.0] * len(bars), [0.0] * len(bars)
    for place, curve in enumerate(curves.curves):
        amounts = [bar.dollars[place] for bar in bars]
        bottoms = []
        for index, amount in enumerate(amounts):
            stack = up if amount >= 0 else down
            bottoms.append(stack[index])
            stack[index] += amount
        axes.bar(
            [bar.left for bar in bars], amounts, [bar.right - bar.left for bar in bars], bottoms, align="edge",
            color=_colour(curve), edgecolor="white", linewidth=0.3, hatch=_style(curve, HATCHES),
        )  # fmt: skip
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_ylabel("what each bucket brought")


def _silences(figure: Figure, curves: Curves) -> None:
    """Shades the times without told money, marks their polls on the time axis, and says what a gap means."""
    meanings: list[tuple[Artist, str]] = []
    if silent := [curves.minutes[index] for index in curves.silent_polls]:
        for axes in figure.axes:
            for begin, end in curves.silences:
                axes.axvspan(begin, end, color=SILENCE, linewidth=0, zorder=0)
        brought = figure.axes[-1]
        [marks] = brought.plot(
            silent, [0] * len(silent), "^", color=SILENT_POLL, markersize=5, clip_on=False,
            transform=brought.get_xaxis_transform(),
        )  # fmt: skip
        meanings += [(Patch(color=SILENCE), "the tote told no win money"), (marks, "a poll that told none")]
    if curves.is_any_runner_left_out:
        broken_line = Line2D([], [], color=SILENT_POLL, linestyle=(0, (4, 3.3)))
        meanings.append((broken_line, "a gap in one line: the tote did not tell this runner's money"))
    if meanings:
        handles, texts = zip(*meanings, strict=True)
        figure.legend(handles, texts, loc="outside lower left", ncols=len(texts), fontsize=LABEL_POINTS, frameon=False)


def _time_axis(axes: Axes, curves: Curves) -> None:
    """Linear in the last minutes, when most of the money comes; logarithmic before."""
    first, last = curves.extent
    if first < -NEAR_MINUTES:
        axes.set_xscale("symlog", linthresh=NEAR_MINUTES, linscale=2)
        shown = [-minutes for minutes in TICKS if first <= -minutes <= last]
        axes.set_xticks(shown, [_clock(minutes, None) for minutes in shown])
        axes.set_xticks([], minor=True)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(10))
        axes.xaxis.set_major_formatter(FuncFormatter(_clock))
    axes.set_xlim(first, last)
    axes.set_xlabel("minutes to the start")


def _clock(minutes: float, _: object) -> str:
    """The text of a tick: minutes before the start, or `+2` for minutes after it."""
    if minutes == 0:
        return "start"
    if minutes > 0:
        return f"+{minutes:g}"
    return f"{-minutes / 60:g} h" if minutes < -60 else f"{-minutes:g}"


def _dollar_axes(*both: Axes) -> None:
    for axes in both:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda dollars, _: _dollars(dollars)))
        left, right = axes.get_xlim()
        if left <= 0 <= right:
            axes.axvline(0, color="black", linewidth=1, linestyle=":")
        axes.grid(visible=True, color="0.9")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)


def _labels(axes: Axes, curves: Curves, height_points: float) -> None:
    """Writes number, name and money of each runner at the end of its line, moved apart where lines end together."""
    ends = [curve.last_told for curve in curves.curves]
    bottom, top = axes.get_ylim()
    places = spread(ends, gap=(top - bottom) * LABEL_POINTS * 1.5 / height_points, floor=bottom)
    across = axes.get_yaxis_transform()
    for curve, end, place in zip(curves.curves, ends, places, strict=True):
        axes.plot(
            (1, 1.006, 1.02, 1.025), (end, end, place, place), color=_colour(curve), linewidth=0.7, transform=across,
            clip_on=False,
        )  # fmt: skip
        axes.text(
            1.03, place, f"{curve.runner_number}  {curve.name}  {_dollars(end)}", color=_colour(curve),
            fontsize=LABEL_POINTS, va="center", transform=across, parse_math=False,
        )  # fmt: skip


def _dollars(amount: float) -> str:
    return f"{'-' if amount < 0 else ''}${abs(amount):,.0f}"
