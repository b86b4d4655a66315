"""The content of a race's picture."""

from datetime import timedelta
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from racepool.commands.pictures.money_curves import NothingToShowError, curves_of, spread
from racepool.races.money_row import MoneyRow
from tests.commands.replay.building import START, row


def kettle(minutes_left: float, win: int, *, is_scratched: bool = False) -> MoneyRow:
    return row(
        win,
        entrant="a",
        minutes_left=minutes_left,
        runner_number=2,
        runner_name="Paper Kettle",
        is_scratched=is_scratched,
    )


def sonata(minutes_left: float, win: int, **fields: Any) -> MoneyRow:  # noqa: ANN401
    return row(win, entrant="b", minutes_left=minutes_left, runner_number=1, runner_name="Tin Sonata", **fields)


def test_each_runner_has_a_curve_in_dollars_by_its_number() -> None:
    curves = curves_of([kettle(2, 1_000), sonata(2, 500), kettle(1, 1_550), sonata(1, 400)])

    assert [(curve.runner_number, curve.name, curve.dollars) for curve in curves.curves] == [
        (1, "Tin Sonata", (5.0, 4.0)),
        (2, "Paper Kettle", (10.0, 15.5)),
    ]
    assert [curve.increments for curve in curves.curves] == [(-1.0,), (5.5,)]
    assert curves.minutes == (-2.0, -1.0)
    assert curves.dollars == 19.5


def test_order_of_the_rows_does_not_matter() -> None:
    rows = [kettle(3, 100), kettle(2, 200), sonata(3, 10), sonata(2, 20), sonata(0.5, 30), kettle(0.5, 300)]
    shuffled = Random(1).sample(rows, len(rows))

    assert curves_of(shuffled) == curves_of(rows)


def test_scratched_runner_is_left_out_though_it_had_money() -> None:
    curves = curves_of([kettle(2, 1_000), sonata(2, 500), kettle(1, 0, is_scratched=True), sonata(1, 600)])

    assert [curve.name for curve in curves.curves] == ["Tin Sonata"]


def test_runner_without_a_record_has_nothing_at_that_poll() -> None:
    curves = curves_of([sonata(3, 500), sonata(2, 500), kettle(2, 100), sonata(1, 600)])

    assert curves.curves[1].dollars == (0.0, 1.0, 0.0)


def test_time_counts_to_the_start_as_last_known() -> None:
    later = START + timedelta(minutes=5)

    assert curves_of([sonata(2, 100), sonata(1, 200, start_time=later)]).minutes == (-7.0, -6.0)


def test_polls_after_the_start_are_to_its_right() -> None:
    assert curves_of([sonata(1, 100), sonata(-0.75, 200)]).minutes == (-1.0, 0.75)


def test_words_tell_race_place_and_local_time() -> None:
    curves = curves_of([sonata(2, 100), sonata(1, 200)])
    bare = curves_of([sonata(minutes, 100, race_number=None, meeting_name=None) for minutes in (2, 1)])

    assert curves.title == "R3 Otterby Plate  ·  Kōwhai Bend, 17 July 2025, 12:15 NZST"
    assert (bare.name, bare.title) == ("Otterby Plate", "Otterby Plate  ·  17 July 2025, 12:15 NZST")


@pytest.mark.parametrize("rows", [[], [sonata(1, 0), sonata(2, 0)], [kettle(1, 5, is_scratched=True)]])
def test_race_without_money_has_no_picture(rows: list[MoneyRow]) -> None:
    with pytest.raises(NothingToShowError, match="no runner has any money"):
        curves_of(rows)


def test_one_poll_is_no_picture() -> None:
    with pytest.raises(NothingToShowError, match="only one poll of Otterby Plate"):
        curves_of([sonata(1, 100), kettle(1, 200)])


@pytest.mark.parametrize(
    ("heights", "places"),
    [
        ([], []),
        ([5, 1, 9], [5, 1, 9]),
        ([5, 5], [4.5, 5.5]),
        ([5, 5, 5], [4, 5, 6]),
        ([5, 5.8, 20], [4.9, 5.9, 20]),
        ([0, 0, 0, 10], [0, 1, 2, 10]),
        ([3, 2, 3], [2.6667, 1.6667, 3.6667]),
    ],
)
def test_labels_move_apart_no_further_than_they_must(heights: list[float], places: list[float]) -> None:
    assert spread(heights, gap=1, floor=0) == pytest.approx(places, abs=1e-3)


@given(heights=st.lists(st.floats(0, 1_000), max_size=30), gap=st.floats(0.5, 50))
def test_labels_never_overlap_never_swap_and_never_fall_below_the_floor(heights: list[float], gap: float) -> None:
    places = spread(heights, gap, floor=0)

    by_height = [place for _, place in sorted(zip(heights, places, strict=True))]
    assert all(above - below >= gap * (1 - 1e-9) - 1e-9 for below, above in pairwise(by_height))
    assert all(place >= 0 for place in places)
