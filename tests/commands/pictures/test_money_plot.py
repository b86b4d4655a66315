"""The bars of a race's picture."""

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from racepool.commands.pictures.money_curves import Curve, Curves
from racepool.commands.pictures.money_plot import _bars


def test_increases_are_stacked_upwards_and_decreases_downwards() -> None:
    curves = (
        Curve(1, "down then up", (10.0, 5.0, 9.0)),
        Curve(2, "up twice", (10.0, 13.0, 20.0)),
        Curve(3, "down twice", (10.0, 4.0, 2.0)),
    )
    axes = Figure().subplots()

    _bars(axes, Curves("race-1", "R1", "R1", (-3.0, -2.0, -1.0), curves))

    bars = [(bar.get_x(), bar.get_y(), bar.get_height()) for bar in axes.patches if isinstance(bar, Rectangle)]
    assert bars == [(-3, 0, -5), (-2, 0, 4), (-3, 0, 3), (-2, 4, 7), (-3, -5, -6), (-2, 0, -2)]
