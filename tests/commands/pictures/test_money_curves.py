"""The content of a race's picture."""

from datetime import timedelta
from itertools import pairwise
from math import isnan
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from racepool.commands.pictures.money_curves import Bar, Curve, NothingToShowError, curves_of, spread
from racepool.races.bucket_flow import bucket_flows
from racepool.races.money_row import PollRows
from racepool.races.race_clock import bucket_bounds
from tests.commands.pictures.told_polls import NAMES, START, Tote, polls
from tests.commands.replay.building import poll, row

WHOLE = {"a": 50, "b": 30, "c": 20}
GAP = None


def dollars(*totes: Tote, is_chained: bool = True) -> dict[str, list[float | None]]:
    """The curve of each runner of these polls; GAP where it has a gap."""
    curves = curves_of(polls(*totes, is_chained=is_chained)).curves
    names = {name: entrant_id for entrant_id, name in NAMES.items()}
    return {names[curve.name]: [GAP if isnan(each) else each for each in curve.dollars] for curve in curves}


def bars(*totes: Tote) -> list[tuple[float, float, tuple[float, ...]]]:
    return [(bar.left, bar.right, bar.dollars) for bar in curves_of(polls(*totes)).bars]


def test_each_runner_has_a_curve_in_dollars_by_its_number() -> None:
    curves = curves_of(polls(Tote(2, {"a": 70, "b": 30}, win=10), Tote(1, {"a": 60, "b": 40}, win=20)))

    assert [(curve.runner_number, curve.name, curve.dollars) for curve in curves.curves] == [
        (1, "Paper Kettle", (7.0, 12.0)),
        (2, "Tin Sonata", (3.0, 8.0)),
    ]
    assert curves.minutes == (-2.0, -1.0)
    assert curves.dollars == 20.0


def test_order_of_the_polls_does_not_matter() -> None:
    in_order = polls(*(Tote(minutes, {"a": 60 - minutes, "b": 40 + minutes}) for minutes in (9, 5, 3, 1, -1)))

    assert curves_of(Random(1).sample(in_order, len(in_order))) == curves_of(in_order)


def test_polls_of_the_same_instant_are_one_point_of_which_the_later_counts() -> None:
    twice = Tote(3, WHOLE), Tote(2, {"a": 40, "b": 60}), Tote(2, {"a": 60, "c": 40}), Tote(2, None)

    assert dollars(*twice) == {"a": [500, 600], "b": [300, 600], "c": [200, 400]}


def test_scratched_runner_is_left_out_though_it_had_money() -> None:
    curves = curves_of(polls(Tote(2, WHOLE), Tote(1, {"a": 0, "b": 60, "c": 40}, scratched="a")))

    assert [curve.name for curve in curves.curves] == ["Tin Sonata", "Third Moon"]
    assert [bar.dollars for bar in curves.bars] == [(0, 0), (300, 200)]


@pytest.mark.parametrize("is_chained", [True, False])
@pytest.mark.parametrize(
    "silent",
    [Tote(2, None), Tote(2, {}), Tote(2, WHOLE, win=None, place=None), Tote(2, WHOLE, runners=""), Tote(2, {"x": 9})],
)
def test_poll_that_tells_no_money_is_a_gap_in_all_lines(silent: Tote, *, is_chained: bool) -> None:
    told = dollars(Tote(3, WHOLE), silent, Tote(1, WHOLE, win=2_000), is_chained=is_chained)

    assert told == {"a": [500, GAP, 1000], "b": [300, GAP, 600], "c": [200, GAP, 400]}


@pytest.mark.parametrize("is_chained", [True, False])
def test_runner_that_is_not_told_beside_others_has_a_gap_alone(*, is_chained: bool) -> None:
    told = dollars(Tote(3, WHOLE), Tote(2, {"a": 50, "b": 50}), Tote(1, WHOLE), is_chained=is_chained)

    assert told == {"a": [500, 500, 500], "b": [300, 500, 300], "c": [200, GAP, 200]}


@pytest.mark.parametrize("is_chained", [True, False])
def test_poll_that_tells_the_place_pool_alone_is_a_gap(*, is_chained: bool) -> None:
    told = dollars(Tote(3, WHOLE), Tote(2, WHOLE, win=None), Tote(1, WHOLE), is_chained=is_chained)

    assert told == {"a": [500, GAP, 500], "b": [300, GAP, 300], "c": [200, GAP, 200]}


@pytest.mark.parametrize("silent", [Tote(2, None), Tote(2, WHOLE, win=None)])
def test_poll_that_tells_no_win_money_is_a_gap_too_for_a_runner_that_had_none(silent: Tote) -> None:
    told = dollars(Tote(3, {"a": 100, "c": 0}), silent, Tote(1, WHOLE))

    assert told == {"a": [1000, GAP, 500], "b": [GAP, GAP, 300], "c": [0, GAP, 200]}


def test_win_money_is_a_gap_while_the_place_money_alone_is_known() -> None:
    assert dollars(Tote(3, WHOLE, win=None), Tote(2, None), Tote(1, WHOLE))["a"] == [GAP, GAP, 500]


@pytest.mark.parametrize("is_chained", [True, False])
def test_runner_that_is_told_to_have_no_money_has_0_dollars(*, is_chained: bool) -> None:
    totes = [Tote(left, {"a": 0 if 1 < left < 4 else 40, "b": 60}) for left in (5, 3, 2, 1)]

    assert dollars(*totes, is_chained=is_chained)["a"] == [400, 0, 0, 400]


@pytest.mark.parametrize("is_chained", [True, False])
def test_pools_that_are_told_to_be_empty_are_0_dollars(*, is_chained: bool) -> None:
    totes = [Tote(left, WHOLE, win=pool, place=pool) for left, pool in ((4, 0), (3, 1_000), (2, 0), (1, 0))]

    assert dollars(*totes, is_chained=is_chained)["a"] == [0, 500, 0, 0]


def test_delisted_runner_has_a_gap() -> None:
    assert dollars(Tote(3, WHOLE), Tote(2, WHOLE, runners="ab"), Tote(1, WHOLE))["c"] == [200, GAP, 200]


@pytest.mark.parametrize("is_chained", [True, False])
def test_line_begins_where_the_tote_first_tells_the_runner(*, is_chained: bool) -> None:
    told = dollars(Tote(3, None), Tote(2, {"a": 100}), Tote(1, {"a": 60, "b": 40}), is_chained=is_chained)

    assert told == {"a": [GAP, 1000, 600], "b": [GAP, GAP, 400]}


def test_last_told_money_counts_where_the_last_polls_tell_none() -> None:
    curves = curves_of(polls(Tote(3, WHOLE), Tote(2, {"a": 60, "b": 40}), Tote(1, None)))

    assert [curve.last_told for curve in curves.curves] == [600, 400, 200]
    assert curves.dollars == 1_200


def test_lone_poll_is_told_between_two_gaps() -> None:
    nan = float("nan")

    assert Curve(1, "x", (1, nan, 2, nan, 3, 4, nan, nan, 5)).lone_polls == [0, 2, 8]
    assert Curve(1, "x", (1, 2, 3)).lone_polls == []


def test_silence_is_the_time_from_the_last_told_money_to_the_next() -> None:
    holds = {9: None, 8: WHOLE, 7: None, 6: None, 5: WHOLE, 4: {"a": 100}, 3: WHOLE, 2: None}
    curves = curves_of(polls(*(Tote(minutes, at) for minutes, at in holds.items())))

    assert curves.silent_polls == [0, 2, 3, 7]
    assert curves.silences == [(-9, -8), (-8, -5), (-3, -2)]


def test_gap_of_one_runner_is_no_silence() -> None:
    partial = curves_of(polls(Tote(3, WHOLE), Tote(2, {"a": 100}), Tote(1, WHOLE)))
    silent = curves_of(polls(Tote(3, WHOLE), Tote(2, None), Tote(1, WHOLE)))

    assert (partial.silent_polls, partial.silences, partial.is_any_runner_left_out) == ([], [], True)
    assert (silent.silent_polls, silent.is_any_runner_left_out) == ([1], False)


def test_bar_has_what_the_polls_of_its_bucket_brought_beside_the_first_money() -> None:
    grown = [Tote(left, {"a": 60, "b": 40}, win=pool) for left, pool in ((12, 100), (11, 200), (8, 400), (6, 300))]

    assert bars(*grown) == [(-15, -10, (60, 40)), (-10, -5, (60, 40))]


def test_all_early_polls_have_one_bar_from_the_first_poll_on() -> None:
    assert bars(Tote(300, WHOLE), Tote(100, WHOLE, win=2_000), Tote(59, WHOLE)) == [
        (-300, -60, (500, 300, 200)),
        (-60, -55, (-500, -300, -200)),
    ]


def test_money_that_came_in_during_a_gap_is_in_the_bar_in_which_it_is_told() -> None:
    totes = Tote(3, {"a": 100}, win=100), Tote(2, None), Tote(1, WHOLE, win=None), Tote(0, {"a": 100}, win=900)

    assert bars(*totes) == [(-4, -3, (0,)), (-1, 0, (800,))]


def test_bars_of_polls_after_the_start_are_to_its_right() -> None:
    totes = [Tote(left, {"a": 100}, win=100 - left) for left in (1, -0.25, -0.5, -5, -5.9, -6)]

    assert [(left, right) for left, right, _ in bars(*totes)] == [(-2, -1), (0, 0.5), (4.5, 6), (6, 7)]


@pytest.mark.parametrize(("last", "end"), [(-0.25, 0.25), (-5.5, 5.5), (-6, 7), (-6.25, 6.25)])
def test_picture_ends_with_the_last_poll_but_shows_its_bar(last: float, end: float) -> None:
    assert curves_of(polls(Tote(9, WHOLE), Tote(last, WHOLE))).extent == (-9, end)


def test_moved_start_moves_lines_and_bars_together() -> None:
    later = START + timedelta(minutes=5)
    curves = curves_of(polls(Tote(2, {"a": 100}), Tote(1, {"a": 100}, win=1_100, start=later)))

    assert (curves.minutes, curves.bars) == ((-7, -6), (Bar(-10, -5, (100,)),))


HOLDS = st.none() | st.dictionaries(st.sampled_from("abc"), st.integers(0, 60), max_size=3)
POLLS = st.tuples(st.integers(-8, 90), HOLDS, st.none() | st.integers(0, 99), st.sampled_from(["", "ab", "abc"]))


@given(day=st.lists(POLLS, min_size=1))
def test_bars_are_the_flows_of_the_records(day: list[tuple[Any, ...]]) -> None:
    """The win pool of these polls is told with the place pool or not at all, so that the baseline is the same."""
    in_order = {left: (holds, pool, runners) for left, holds, pool, runners in sorted(day, key=lambda poll: -poll[0])}
    made = polls(*(Tote(left, holds, pool, pool, runners) for left, (holds, pool, runners) in in_order.items()))
    try:
        curves = curves_of(made)
    except NothingToShowError:
        return

    flows = {
        (-bucket_bounds(flow.time_interval)[0], NAMES[flow.entrant_id]): cents / 100
        for flow in bucket_flows(row for each in made for row in each.rows)
        if (cents := flow.incremental_win_amount - flow.baseline_win_amount)
    }
    drawn = {
        (bar.right, curve.name): dollars
        for bar in curves.bars
        for curve, dollars in zip(curves.curves, bar.dollars, strict=True)
        if dollars
    }
    assert drawn == flows


def test_words_tell_race_place_and_local_time() -> None:
    def both(**fields: Any) -> list[PollRows]:  # noqa: ANN401  # any of a row's
        return [poll(row(100, minutes_left=minutes, **fields)) for minutes in (2, 1)]

    curves, bare = curves_of(both()), curves_of(both(race_number=None, meeting_name=None))

    assert curves.title == "R3 Otterby Plate  ·  Kōwhai Bend, 17 July 2025, 12:15 NZST"
    assert (bare.name, bare.title) == ("Otterby Plate", "Otterby Plate  ·  17 July 2025, 12:15 NZST")


@pytest.mark.parametrize(
    "without_money",
    [
        [Tote(2, None), Tote(1, None)],
        [Tote(2, WHOLE, win=0), Tote(1, WHOLE, win=0)],
        [Tote(2, {"a": 100}, scratched="a"), Tote(1, {"a": 100}, scratched="a")],
    ],
)
def test_race_without_money_has_no_picture(without_money: list[Tote]) -> None:
    with pytest.raises(NothingToShowError, match="no poll of race race-1 tells win money on a runner"):
        curves_of(polls(*without_money))


def test_one_poll_is_no_picture() -> None:
    with pytest.raises(NothingToShowError, match="only one poll of Otterby Plate"):
        curves_of(polls(Tote(1, WHOLE)))


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
