"""What a poll leaves out: it is unknown, and not 0."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from racepool.races.race import RaceData
from racepool.races.transform import transform_race
from racepool.races.transformed_race import MoneyFlowRecord, TransformedRace

POLLED_AT = datetime(2025, 7, 17, 0, 30, tzinfo=UTC)
KEPT = "each runner keeps the amount of the last poll that told it"
WHOLE = {"a": 60.0, "b": 40.0}


def tracker(holds: Mapping[str, float | None]) -> dict[str, Any]:
    return {"entrants": [{"entrant_id": name, "hold_percentage": hold} for name, hold in holds.items()]}


def pools(win: float | None = 10_000, place: float | None = 1_000) -> list[dict[str, Any]]:
    return [{"product_type": "Win", "total": win}, {"product_type": "Place", "total": place}]


def runners(ids: str) -> list[dict[str, Any]]:
    return [{"entrant_id": name, "runner_number": ord(name) - 96, "name": name} for name in ids]


def poll(holds: Mapping[str, float | None] = WHOLE, ids: str = "ab", **changes: object) -> dict[str, Any]:
    """A poll as the tote answers; `changes` are of its `data`."""
    race = {"event_id": "r1", "description": "Cup", "status": "Open", "advertised_start": 1752713400}
    data = {"race": race, "runners": runners(ids), "money_tracker": tracker(holds), "tote_pools": pools()}
    return {"data": {**data, **changes}}


def chain(*polls: Mapping[str, Any]) -> Iterator[TransformedRace]:
    previous = None
    for index, body in enumerate(polls):
        polled_at = POLLED_AT + timedelta(seconds=15 * index)
        previous = transform_race(RaceData.parse(body), polled_at=polled_at, previous=previous)
        yield previous


def after(*polls: Mapping[str, Any]) -> TransformedRace:
    return list(chain(*polls))[-1]


def wins(result: TransformedRace) -> dict[str, tuple[int, int]]:
    return {each.entrant_id: (each.win_pool_amount, each.incremental_win_amount) for each in result.money_flow_records}


def places(result: TransformedRace) -> dict[str, tuple[int, int]]:
    return {
        each.entrant_id: (each.place_pool_amount, each.incremental_place_amount) for each in result.money_flow_records
    }


BASELINE = {"a": (600_000, 60_000), "b": (400_000, 40_000)}
NO_TRACKER: list[object] = [None, {}, {"entrants": None}, {"entrants": []}, tracker({"a": None, "b": None})]


@pytest.mark.parametrize("money_tracker", NO_TRACKER)
def test_without_a_tracker_the_holds_are_unknown(money_tracker: object) -> None:
    whole, result, _ = results = list(chain(poll(), poll(money_tracker=money_tracker), poll({"a": 50, "b": 50})))

    assert result.money_flow_records == ()
    assert [(each.hold_percentage, each.bet_percentage, each.win_pool_amount) for each in result.entrants] == [
        (None, None, None)
    ] * 2
    assert (result.metrics.hold_percentage_total, result.metrics.bet_percentage_total) == (None, None)
    assert result.warnings == (f"no money tracker is told: no records; {KEPT}",)
    assert result.baseline == whole.baseline == BASELINE
    assert wins(results[2]) == {"a": (500_000, -100_000), "b": (500_000, 100_000)}


def test_worked_figures_of_a_poll_without_a_tracker() -> None:
    results = chain(poll({"a": 5}), poll(money_tracker=None), poll({"a": 6}))

    assert [wins(result) for result in results] == [{"a": (50_000, 50_000)}, {}, {"a": (60_000, 10_000)}]


def test_bets_are_told_without_holds() -> None:
    bets = {"entrants": [{"entrant_id": "a", "bet_percentage": 30}]}

    result = after(poll(), poll(money_tracker=bets))

    assert [each.bet_percentage for each in result.entrants] == [30.0, None]
    assert (result.metrics.hold_percentage_total, result.metrics.bet_percentage_total) == (None, 30.0)
    assert result.baseline == BASELINE


UNTOLD_POOLS: list[object] = [None, [], pools(None, None), [{"product_type": "Quinella", "total": 5}]]


@pytest.mark.parametrize("tote_pools", UNTOLD_POOLS)
def test_without_pools_the_amounts_are_unknown(tote_pools: object) -> None:
    result, back = list(chain(poll(), poll(tote_pools=tote_pools), poll()))[1:]

    assert result.money_flow_records == ()
    assert [(each.hold_percentage, each.win_pool_amount) for each in result.entrants] == [(60.0, None), (40.0, None)]
    assert result.warnings == (f"neither the win nor the place pool is told: no records; {KEPT}",)
    assert (result.race_pools is None) == (result.metrics.pool_field_count == 0)
    assert result.baseline == BASELINE
    assert wins(back) == {"a": (600_000, 0), "b": (400_000, 0)}


def test_pool_that_is_told_alone_changes_alone() -> None:
    result, back = list(chain(poll(), poll(tote_pools=pools(20_000, None)), poll(tote_pools=pools(20_000, 3_000))))[1:]

    assert wins(result) == {"a": (1_200_000, 600_000), "b": (800_000, 400_000)}
    assert places(result) == {"a": (60_000, 0), "b": (40_000, 0)}
    [record, _] = result.money_flow_records
    assert (record.win_pool_percentage, record.place_pool_percentage, record.total_pool_amount) == (
        60.0,
        None,
        1_260_000,
    )
    assert result.warnings == (f"the place pool is not told; {KEPT}",)
    assert result.baseline == {"a": (1_200_000, 60_000), "b": (800_000, 40_000)}
    assert (wins(back)["a"], places(back)["a"]) == ((1_200_000, 0), (180_000, 120_000))


def test_place_pool_that_is_told_alone_leaves_the_win_money_as_it_was() -> None:
    result, back = list(chain(poll(), poll(tote_pools=pools(None, 3_000)), poll(tote_pools=pools(20_000, 3_000))))[1:]

    assert wins(result) == {"a": (600_000, 0), "b": (400_000, 0)}
    assert places(result) == {"a": (180_000, 120_000), "b": (120_000, 80_000)}
    assert [record.total_pool_amount for record in result.money_flow_records] == [780_000, 520_000]
    assert (result.entrants[0].win_pool_amount, result.entrants[0].win_pool_percentage) == (600_000, None)
    assert result.warnings == (f"the win pool is not told; {KEPT}",)
    assert (wins(back)["a"], places(back)["a"]) == ((1_200_000, 600_000), (180_000, 0))


def test_pool_that_was_never_told_is_nothing_and_no_cause_for_a_warning() -> None:
    result = after(poll(tote_pools=pools(None, 1_000)))

    assert wins(result) == {"a": (0, 0), "b": (0, 0)}
    assert places(result) == {"a": (60_000, 60_000), "b": (40_000, 40_000)}
    assert [record.win_pool_percentage for record in result.money_flow_records] == [None, None]
    assert result.warnings == ()


@pytest.mark.parametrize(
    ("before", "now"),
    [((10_000, None), (20_000, None)), ((None, 1_000), (None, 900)), ((1, 2), (0, 2)), ((1, 2), (0, 0))],
)
def test_pool_without_money_before_or_that_is_told_is_no_cause_for_a_warning(
    before: tuple[float | None, ...], now: tuple[float | None, ...]
) -> None:
    assert after(poll(tote_pools=pools(*before)), poll(tote_pools=pools(*now))).warnings == ()


def test_pools_that_are_told_to_be_zero_are_zero() -> None:
    result, after_it = list(chain(poll(), poll(tote_pools=pools(0, 0)), poll(tote_pools=pools(0, 0))))[1:]

    assert wins(result) == {"a": (0, -600_000), "b": (0, -400_000)}
    assert places(result) == {"a": (0, -60_000), "b": (0, -40_000)}
    assert result.entrants[0].win_pool_amount is None
    assert result.baseline == {"a": (0, 0), "b": (0, 0)}
    assert after_it.money_flow_records == ()


def test_pool_of_zero_beside_one_that_is_not_told_withdraws_its_own_money_only() -> None:
    result = after(poll(), poll(tote_pools=pools(0, None)))

    assert wins(result) == {"a": (0, -600_000), "b": (0, -400_000)}
    assert places(result) == {"a": (60_000, 0), "b": (40_000, 0)}
    assert result.baseline == {"a": (0, 60_000), "b": (0, 40_000)}


def test_entrant_shows_the_kept_money_of_a_pool_beside_one_of_zero_as_its_record_does() -> None:
    result = after(poll(), poll(tote_pools=pools(0, None)))

    assert places(result) == {"a": (60_000, 0), "b": (40_000, 0)}
    shown = [(each.win_pool_amount, each.place_pool_amount, each.place_pool_percentage) for each in result.entrants]
    assert shown == [(0, 60_000, None), (0, 40_000, None)]
    first = after(poll(tote_pools=pools(0, None)))
    assert first.money_flow_records == ()
    assert [each.win_pool_amount for each in first.entrants] == [None, None]


def test_no_tracker_wins_over_pools_of_zero() -> None:
    result = after(poll(), poll(money_tracker=None, tote_pools=pools(0, 0)))

    assert result.money_flow_records == ()
    assert result.baseline == BASELINE


def test_hold_of_zero_in_the_told_pool_leaves_the_other_pool_as_it_was() -> None:
    result = after(poll(), poll({"a": 0, "b": 100}, tote_pools=pools(10_000, None)))

    assert wins(result) == {"a": (0, -600_000), "b": (1_000_000, 600_000)}
    assert places(result) == {"a": (60_000, 0), "b": (40_000, 0)}


def test_entrant_that_is_not_told_among_others_keeps_its_amount() -> None:
    result, back = list(chain(poll(), poll({"a": 100, "b": None}), poll({"a": 50, "b": 50})))[1:]

    assert wins(result) == {"a": (1_000_000, 400_000)}
    assert (result.entrants[1].hold_percentage, result.entrants[1].win_pool_amount) == (None, None)
    assert result.baseline == {"a": (1_000_000, 100_000), "b": (400_000, 40_000)}
    assert result.warnings == ()
    assert wins(back) == {"a": (500_000, -500_000), "b": (500_000, 100_000)}


def test_only_entries_that_add_up_to_zero_withdraw_money() -> None:
    zeros = {"entrants": [{"entrant_id": name, "hold_percentage": hold} for name, hold in [("a", 100), ("b", 0)] * 2]}

    assert wins(after(poll(), poll(money_tracker=zeros)))["b"] == (0, -400_000)


@pytest.mark.parametrize("untold", [{"runners": None}, {"runners": []}, {"runners": None, "entrants": []}])
def test_without_entrants_there_is_one_warning_and_the_amounts_are_kept(untold: dict[str, Any]) -> None:
    result, back = list(chain(poll(), poll(**untold), poll()))[1:]

    assert (result.entrants, result.money_flow_records) == ((), ())
    assert result.warnings == (f"no runners are told: no records; {KEPT}",)
    assert result.baseline == BASELINE
    assert wins(back) == {"a": (600_000, 0), "b": (400_000, 0)}


def test_each_thing_that_a_poll_leaves_out_has_its_warning() -> None:
    result = after(poll(), poll(runners=None, money_tracker=None, tote_pools=None))

    assert result.warnings == (
        f"no runners are told: no records; {KEPT}",
        f"no money tracker is told: no records; {KEPT}",
        f"neither the win nor the place pool is told: no records; {KEPT}",
    )
    assert result.baseline == BASELINE


def test_entrant_that_is_delisted_and_comes_back_counts_from_what_it_had() -> None:
    gone, back = list(chain(poll(), poll({"a": 60}, ids="a"), poll({"a": 50, "b": 50})))[1:]

    assert gone.baseline == BASELINE
    assert "previous: id 'b' is no longer an entrant; its amounts are kept, for it may come back" in gone.warnings
    assert wins(back) == {"a": (500_000, -100_000), "b": (500_000, 100_000)}


def test_delisted_id_without_money_is_no_cause_for_a_warning() -> None:
    assert after(poll({"a": 100, "b": 0}), poll({"a": 100}, ids="a")).warnings == ()


def test_baseline_is_unknown_until_a_poll_tells_money_and_keeps_zeros_then() -> None:
    results = list(chain(poll(money_tracker=None), poll(tote_pools=None), poll({"a": 100, "b": 0}), poll(runners=None)))

    assert [result.baseline for result in results] == [None, None, *[{"a": (1_000_000, 100_000), "b": (0, 0)}] * 2]


def test_first_poll_that_tells_money_is_the_baseline_of_its_race() -> None:
    results = list(
        chain(poll(money_tracker=None), poll({"a": 100}), poll(tote_pools=None), poll({"a": 50, "b": 50}), poll())
    )

    flags = [[record.is_baseline for record in result.money_flow_records] for result in results]
    assert flags == [[], [True], [], [False, False], [False, False]]


def test_poll_after_one_that_told_no_money_at_all_but_zeros_is_no_baseline() -> None:
    result = after(poll({"a": 0, "b": 0}), poll())

    assert [record.is_baseline for record in result.money_flow_records] == [False, False]


@pytest.mark.parametrize(
    ("held", "tote", "paid", "money"),
    [
        ((10, 20), (30, 40), (50, 60), (1_000, 2_000)),
        ((10, None), (30, 40), (50, 60), (1_000, 4_000)),
        ((None, 20), (None, 40), (50, 60), (5_000, 2_000)),
        ((None, None), (30, None), (None, 60), (3_000, 6_000)),
        ((None, None), (30, None), (50, 60), (3_000, 6_000)),
        ((None, None), (None, 40), (50, 60), (5_000, 4_000)),
        ((None, 20), (30, None), (50, 60), (3_000, 2_000)),
        ((0, None), (30, 0), (50, 60), (0, 0)),
        ((None, None), (None, None), (50, None), (5_000, None)),
    ],
)
def test_each_pool_comes_from_the_first_that_has_a_number_for_it(
    held: tuple[float | None, ...],
    tote: tuple[float | None, ...],
    paid: tuple[float | None, ...],
    money: tuple[int | None, ...],
) -> None:
    dividends = [
        {"product_name": name, "pool_size": size} for name, size in zip(("Pool Win", "Pool Place"), paid, strict=True)
    ]
    race = {
        "id": "r1",
        "name": "Cup",
        "advertised_start": 1752713400,
        "entrants": runners("a"),
        "money_tracker": tracker({"a": 100}),
        "pools": dict(zip(("winPool", "placePool"), held, strict=True)),
        "tote_pools": pools(*tote),
        "dividends": dividends,
    }

    result = transform_race(RaceData.parse(race), polled_at=POLLED_AT)

    assert result.baseline == {"a": (money[0] or 0, money[1] or 0)}
    assert f"the place pool is not told; {KEPT}" not in result.warnings


def test_dividends_stand_in_for_tote_pools() -> None:
    sizes = [
        *[
            ("Pool Win", 9_000),
            ("Pool Win", 10_000.5),
            ("pool-win", 8_000),
            ("Pool Place", 1_000),
            ("Pool Place", 1_000),
        ],
        *[("Pool First4", 7), ("Pool FirstFour", 8), ("Pool Quaddie", 4), ("Pool Double", 3), ("Pool Duet", 2)],
        *[("Fixed Win", 70_000), ("Pool Place", None), (None, 5)],
    ]
    dividends = [{"product_name": name, "pool_size": size} for name, size in sizes]

    result = after(poll(tote_pools=None, dividends=dividends))

    assert result.race_pools is not None
    assert result.race_pools.model_dump() == {
        "race_id": "r1",
        "win_pool_total": 1_000_050,
        "place_pool_total": 100_000,
        "quinella_pool_total": 0,
        "trifecta_pool_total": 0,
        "exacta_pool_total": 0,
        "first4_pool_total": 800,
        "multi_leg_pool_total": 700,
        "other_pool_total": 200,
        "total_race_pool": 1_101_750,
        "currency": "NZD",
        "data_quality_score": 95,
        "extracted_pools": 6,
    }
    assert wins(result)["a"] == (600_030, 600_030)
    assert result.warnings == ("pool type 'Pool Duet' is not recognised; it counts as other",)


def test_pools_of_the_race_come_from_the_tote_then_from_dividends_then_from_the_service() -> None:
    paid = [{"product_name": "Pool Win", "pool_size": 2}]
    race: dict[str, Any] = {"id": "r1", "name": "Cup", "advertised_start": 1752713400, "pools": {"winPool": 3}}
    given: list[dict[str, Any]] = [
        {"tote_pools": pools(1, None), "dividends": paid},
        *({"tote_pools": untold, "dividends": paid} for untold in (None, [], pools(None, None))),
        *({"dividends": untold} for untold in (None, [], [{"product_name": "Fixed Win", "pool_size": 9}])),
        {"dividends": paid, "pools": {"winPool": 3, "placePool": 1}},
    ]

    results = [transform_race(RaceData.parse(race | each), polled_at=POLLED_AT) for each in given]

    totals = [result.race_pools and result.race_pools.win_pool_total for result in results]
    assert totals == [100, 200, 200, 200, 300, 300, 300, 200]


@pytest.mark.parametrize(
    ("status", "read", "warning"),
    [
        *[(status, status.lower(), None) for status in ("Open", "closed", "Interim", "Final", "Abandoned", "LIVE")],
        ("Postponed", "postponed", "status 'postponed' is not one of open, closed, interim, final, abandoned, live"),
        *[(status, "unknown", "the status of the race is not told") for status in ("", " ", None)],
    ],
)
def test_status_is_kept_and_an_unusual_one_is_warned_of(status: str | None, read: str, warning: str | None) -> None:
    race = poll()
    race["data"]["race"]["status"] = status

    result = after(race)

    assert (result.status, result.race.status) == (read, read)
    assert [each for each in result.warnings if "status" in each] == ([] if warning is None else [warning])


def test_nameless_reserve_is_warned_of() -> None:
    nameless = [*runners("a"), {"entrant_id": "b", "runner_number": 19, "name": None}]

    result = after(poll(runners=nameless))

    assert [record.runner_name for record in result.money_flow_records] == ["a", ""]
    assert result.warnings == ("runner 19 has no name",)


def test_derived_start_is_that_of_the_records() -> None:
    result = after(poll())

    assert (result.race.race_date_nz, result.race.start_time_nz) == ("2025-07-17", "12:50:00 NZST")
    assert {record.race_date_nz for record in result.money_flow_records} == {"2025-07-17"}


AMOUNTS = st.none() | st.just(0.0) | st.floats(0, 1e7)
HOLDS = st.none() | st.just(0.0) | st.floats(0, 150)
POLLS = st.fixed_dictionaries(
    {
        "runners": st.none() | st.sampled_from(["", "a", "ab", "abc", "cb"]),
        "holds": st.none() | st.dictionaries(st.sampled_from("abcd"), HOLDS),
        "win": AMOUNTS,
        "place": AMOUNTS,
        "is_paid": st.booleans(),
    }
)


def body_of(told: Mapping[str, Any]) -> dict[str, Any]:
    """The poll; if `is_paid`, its pools are told by the dividends."""
    paid = [
        {"product_name": f"Pool {name}", "pool_size": size}
        for name, size in (("Win", told["win"]), ("Place", told["place"]))
    ]
    return poll(
        runners=None if told["runners"] is None else runners(told["runners"]),
        money_tracker=None if told["holds"] is None else tracker(told["holds"]),
        tote_pools=None if told["is_paid"] else pools(told["win"], told["place"]),
        dividends=paid if told["is_paid"] else None,
    )


def cents_of(pool: float, hold: float) -> int:
    """The definition, in decimals: round_half_up(round_half_up(100 * pool) * hold / 100)."""
    pool_cents = (Decimal(repr(pool)) * 100).quantize(Decimal(1), ROUND_HALF_UP)
    return int((pool_cents * Decimal(repr(hold)) / 100).quantize(Decimal(1), ROUND_HALF_UP))


def told_amounts(polls: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Of each entrant, what the polls told last of its win and of its place money."""
    last: dict[str, list[int]] = {}
    for told in polls:
        holds = {name: hold for name, hold in (told["holds"] or {}).items() if hold is not None}
        for name in set(told["runners"] or "") & set(holds):
            for index, pool in enumerate((told["win"], told["place"])):
                if pool is not None:
                    last.setdefault(name, [0, 0])[index] = cents_of(pool, holds[name])
    return last


@given(st.lists(POLLS, min_size=1, max_size=8))
def test_increments_add_up_to_the_last_told_amount_whatever_is_left_out(polls: list[dict[str, Any]]) -> None:
    results = list(chain(*map(body_of, polls)))
    records = [record for result in results for record in result.money_flow_records]
    last = told_amounts(polls)

    assert results[-1].baseline == ({name: tuple(amounts) for name, amounts in last.items()} or None)
    for name in "abcd":
        of_name = [record for record in records if record.entrant_id == name]
        added = [
            sum(record.incremental_win_amount for record in of_name),
            sum(record.incremental_place_amount for record in of_name),
        ]
        assert added == last.get(name, [0, 0])
    assert all(record.is_baseline == (index == 0) for index, record in first_records(results))


def first_records(results: Sequence[TransformedRace]) -> Iterator[tuple[int, MoneyFlowRecord]]:
    """Each record, with how many polls before its own told money."""
    told = 0
    for result in results:
        yield from ((told, record) for record in result.money_flow_records)
        told += result.baseline is not None


@given(st.lists(POLLS, min_size=1, max_size=5), POLLS)
def test_result_is_as_good_as_its_dump_and_its_json(polls: list[dict[str, Any]], now: dict[str, Any]) -> None:
    previous = list(chain(*map(body_of, polls)))[-1]
    race = RaceData.parse(body_of(now))
    forms: list[Any] = [previous.model_dump(), previous.model_dump(mode="json"), previous.model_dump_json()]

    results = [transform_race(race, polled_at=POLLED_AT, previous=form) for form in (previous, *forms)]

    assert all(result == results[0] for result in results)
    assert TransformedRace.model_validate_json(results[0].model_dump_json()) == results[0]


@given(st.lists(POLLS, min_size=1, max_size=5), POLLS)
def test_all_records_so_far_are_as_good_as_the_result(polls: list[dict[str, Any]], now: dict[str, Any]) -> None:
    results = list(chain(*map(body_of, polls)))
    records = [record for result in results for record in result.money_flow_records]
    race = RaceData.parse(body_of(now))

    by_result, by_records = (
        transform_race(race, polled_at=POLLED_AT, previous=previous) for previous in (results[-1], records)
    )

    def increments(result: TransformedRace) -> list[tuple[int, int]]:
        return [
            (record.incremental_win_amount, record.incremental_place_amount) for record in result.money_flow_records
        ]

    assert increments(by_records) == increments(by_result)
    assert by_records.warnings == by_result.warnings
