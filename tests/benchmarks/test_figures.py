import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.figures import Spread, percentile, ratios, spread
from benchmarks.tables import number, table, with_quartiles

figures = st.lists(st.floats(0.001, 1e6), min_size=1)


def test_spread_of_an_odd_number_of_figures_has_its_quartiles_among_them() -> None:
    assert spread([5, 1, 4, 2, 3]) == Spread(2, 3, 4)


def test_spread_of_two_figures_lies_between_them() -> None:
    assert spread([1, 3]) == Spread(1.5, 2, 2.5)


def test_spread_of_one_figure_is_that_figure() -> None:
    assert spread([7]) == Spread(7, 7, 7)


@given(figures)
def test_quartiles_enclose_the_median(values: list[float]) -> None:
    low, middle, high = spread(values)

    assert min(values) <= low <= middle <= high <= max(values)


@pytest.mark.parametrize(("percent", "figure"), [(0, 1), (1, 1), (50, 50), (99, 99), (99.5, 100), (100, 100)])
def test_percentile_is_the_smallest_figure_that_so_many_do_not_exceed(percent: float, figure: float) -> None:
    assert percentile([*range(100, 0, -1)], percent) == figure


@given(figures, st.floats(0, 100))
def test_percentile_is_one_of_the_figures(values: list[float], percent: float) -> None:
    assert percentile(values, percent) in values


def test_ratios_are_taken_round_by_round_as_far_as_both_have_figures() -> None:
    assert ratios([2, 9, 5], [1, 3]) == [2, 3]


@pytest.mark.parametrize(("value", "text"), [(0.1234, "0.12"), (12.34, "12.3"), (1234.5, "1,234"), (-123.4, "-123")])
def test_numbers_have_the_digits_that_they_deserve(value: float, text: str) -> None:
    assert number(value) == text


def test_quartiles_are_shown_where_they_differ() -> None:
    assert with_quartiles(Spread(1, 2, 3)) == "2.00 (1.00-3.00)"
    assert with_quartiles(Spread(2, 2, 2)) == "2.00"
    assert with_quartiles(None) == "-"


def test_table_aligns_numbers_to_the_right() -> None:
    assert table(["a", "b"], [["x", "1"]]) == "| a | b |\n| --- | ---: |\n| x | 1 |\n"
