"""The lines and bars of a race's picture."""

from math import nan
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.testing import assert_array_equal

from racepool.commands.pictures.money_curves import Bar, Curve, Curves, curves_of
from racepool.commands.pictures.money_plot import _bars, _lines, _silences, draw
from tests.commands.pictures.told_polls import Tote, polls

WHOLE = {"a": 50, "b": 30, "c": 20}
SILENCE_TEXT = "the tote told no win money"
GAP_TEXT = "a gap in one line"


def of(*curves: Curve, bars: tuple[Bar, ...] = ()) -> Curves:
    minutes = tuple(float(minute) for minute in range(-len(curves[0].dollars), 0))
    return Curves("race-1", "R1", "R1", minutes, curves, bars)


def text_of(tmp_path: Path, *totes: Tote) -> str:
    """The picture of these polls, as SVG."""
    path = tmp_path / "race.svg"
    with mpl.rc_context({"svg.fonttype": "none"}):
        draw(curves_of(polls(*totes)), path)
    return path.read_text()


def test_increases_are_stacked_upwards_and_decreases_downwards_as_wide_as_their_buckets() -> None:
    curves = [Curve(number, "x", (1.0, 2.0)) for number in (1, 2, 3)]
    bars = (Bar(-90, -60, (-5, 3, -6)), Bar(-60, -55, (4, 7, -2)))
    axes = Figure().subplots()

    _bars(axes, of(*curves, bars=bars))

    drawn = [
        (bar.get_x(), bar.get_width(), bar.get_y(), bar.get_height())
        for bar in axes.patches
        if isinstance(bar, Rectangle)
    ]
    assert drawn == [
        (-90, 30, 0, -5), (-60, 5, 0, 4), (-90, 30, 0, 3), (-60, 5, 4, 7), (-90, 30, -5, -6), (-60, 5, 0, -2),
    ]  # fmt: skip


def test_line_has_a_gap_and_a_dot_where_one_value_stands_alone() -> None:
    axes = Figure().subplots()

    _lines(axes, of(Curve(1, "x", (1, 2, nan, 3, nan, 4, 5)), Curve(2, "y", (1, 2, 3, 4, 5, 6, 7))))

    broken, whole = axes.lines
    assert_array_equal(broken.get_ydata(), [1, 2, nan, 3, nan, 4, 5])
    assert [line.get_markevery() for line in (broken, whole)] == [[3], []]


def test_time_without_told_money_is_shaded_and_its_polls_are_marked() -> None:
    figure = Figure()
    figure.subplots(2, 1)

    _silences(figure, of(Curve(1, "x", (1, nan, nan, 2, 3, nan))))

    for axes in figure.axes:
        shades = [shade for shade in axes.patches if isinstance(shade, Rectangle)]
        assert [(shade.get_x(), shade.get_width()) for shade in shades] == [(-6, 3), (-2, 1)]
    assert_array_equal(figure.axes[1].lines[0].get_xdata(), [-5, -4, -1])


def test_legend_says_what_the_gaps_mean(tmp_path: Path) -> None:
    whole = text_of(tmp_path, Tote(3, WHOLE), Tote(2, WHOLE), Tote(1, WHOLE))
    silent = text_of(tmp_path, Tote(3, WHOLE), Tote(2, None), Tote(1, WHOLE))
    partial = text_of(tmp_path, Tote(3, WHOLE), Tote(2, {"a": 60, "b": 40}), Tote(1, WHOLE))

    assert [(SILENCE_TEXT in text, GAP_TEXT in text) for text in (whole, silent, partial)] == [
        (False, False),
        (True, False),
        (False, True),
    ]


def test_labels_and_title_have_the_money_that_was_told_last(tmp_path: Path) -> None:
    text = text_of(tmp_path, Tote(3, WHOLE), Tote(2, {"a": 60, "b": 40}), Tote(1, None))

    labels = ["1  Paper Kettle  $600", "2  Tin Sonata  $400", "3  Third Moon  $200", "win pool $1,200"]
    assert [label for label in labels if label not in text] == []
    assert "nan" not in text
