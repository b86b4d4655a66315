import json
import tracemalloc
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from racepool.protocol.errors import InvalidRaceError
from racepool.races.race import RaceData
from racepool.races.transform import transform_race
from racepool.races.transformed_race import TransformedRace

POLLED_AT = datetime(2025, 7, 17, 0, 46, 30, tzinfo=UTC)  # 3.5 minutes before the start


def entry(entrant_id: str | None, hold: float | None, bet: float | None = None) -> dict[str, Any]:
    return {"entrant_id": entrant_id, "hold_percentage": hold, "bet_percentage": bet}


def transformed(
    *entries: dict[str, Any],
    polled_at: datetime = POLLED_AT,
    previous: TransformedRace | None = None,
    **changes: object,
) -> TransformedRace:
    fields: dict[str, Any] = {
        "id": "r1",
        "name": "Cup",
        "status": "Open",
        "race_date_nz": "2025-07-17",
        "start_time_nz": "12:50",
        "entrants": [
            {"entrantId": f"e{number}", "runnerNumber": number, "name": f"Horse {number}"} for number in (1, 2)
        ],
        "pools": {"winPool": 1000, "placePool": 500},
        "money_tracker": {"entrants": entries},
    }
    return transform_race(RaceData.parse({**fields, **changes}), polled_at=polled_at, previous=previous)


def test_race_and_poll_are_told() -> None:
    result = transformed(
        race_number=3, meeting_id="m1", meeting={"meeting": "m1", "name": "Ford", "date": "2025-07-17T"}
    )

    assert (result.race_id, result.race_name, result.status) == ("r1", "Cup", "open")
    assert result.transformed_at == POLLED_AT
    assert result.race.model_dump() == {
        "race_id": "r1",
        "name": "Cup",
        "status": "open",
        "race_number": 3,
        "race_date_nz": "2025-07-17",
        "start_time_nz": "12:50",
        "start_time": datetime(2025, 7, 17, 0, 50, tzinfo=UTC),
        "meeting_id": "m1",
    }
    assert result.meeting is not None
    assert (result.meeting.meeting_id, result.meeting.name, result.meeting.date) == ("m1", "Ford", "2025-07-17")


def test_race_without_a_meeting_has_none() -> None:
    assert transformed(meeting_id="m1").meeting is None


def test_poll_instant_is_told_in_utc() -> None:
    polled_at = POLLED_AT.astimezone(timezone(timedelta(hours=12)))

    result = transformed(entry("e1", 5), polled_at=polled_at)

    assert result == transformed(entry("e1", 5))
    assert result.transformed_at.utcoffset() == timedelta(0)
    assert result.money_flow_records[0].polling_timestamp.utcoffset() == timedelta(0)
    assert result.race.start_time.utcoffset() == timedelta(0)


def test_record_tells_all_of_one_entrant_at_one_poll() -> None:
    odds = {"fixedWinOdds": 3.5, "fixedPlaceOdds": 1.8, "poolWinOdds": 4, "poolPlaceOdds": 1.5}
    entrants = [{"entrantId": "e1", "runnerNumber": 1, "name": "x", **odds}]

    result = transformed(
        entry("e1", 15, 7.5), entry("e1", 0.5), pools={"winPool": 50_000, "placePool": 30_000}, entrants=entrants
    )

    [record] = result.money_flow_records
    assert record.model_dump() == {
        "entrant_id": "e1",
        "runner_number": 1,
        "runner_name": "x",
        "race_id": "r1",
        "race_date_nz": "2025-07-17",
        "is_baseline": True,
        "time_to_start": 3.5,
        "time_interval": 3.0,
        "interval_type": "30s",
        "polling_timestamp": POLLED_AT,
        "hold_percentage": 15.5,
        "bet_percentage": 7.5,
        "win_pool_percentage": 15.5,
        "place_pool_percentage": 15.5,
        "win_pool_amount": 775_000,
        "place_pool_amount": 465_000,
        "total_pool_amount": 1_240_000,
        "incremental_win_amount": 775_000,
        "incremental_place_amount": 465_000,
        "fixed_win_odds": 3.5,
        "fixed_place_odds": 1.8,
        "pool_win_odds": 4.0,
        "pool_place_odds": 1.5,
    }


def test_day_of_a_record_is_that_of_the_race_in_new_zealand() -> None:
    [record] = transformed(entry("e1", 5), polled_at=datetime(2025, 7, 16, 23, 59, tzinfo=UTC)).money_flow_records

    assert record.race_date_nz == "2025-07-17"


def test_entrant_keeps_what_is_known_of_it() -> None:
    known = {"barrier": "Fr3", "isScratched": True, "isLateScratched": True, "jockey": "J", "trainerName": "T"}
    known |= {"silkColours": "Red", "favourite": True, "mover": False, "fixedWinOdds": 2.5}
    entrants = [
        {"entrantId": "e1", "runnerNumber": 7, "name": "x", **known},
        {"entrantId": "e2", "runnerNumber": 8, "name": "y"},
    ]

    first, second = transformed(entry("e1", 10, 20), entrants=entrants).entrants

    assert first.model_dump() == {
        "entrant_id": "e1",
        "race_id": "r1",
        "runner_number": 7,
        "name": "x",
        "barrier": 3,
        "is_scratched": True,
        "is_late_scratched": True,
        "fixed_win_odds": 2.5,
        "fixed_place_odds": None,
        "pool_win_odds": None,
        "pool_place_odds": None,
        "hold_percentage": 10.0,
        "bet_percentage": 20.0,
        "win_pool_percentage": 10.0,
        "place_pool_percentage": 10.0,
        "win_pool_amount": 10_000,
        "place_pool_amount": 5_000,
        "jockey": "J",
        "trainer_name": "T",
        "silk_colours": "Red",
        "favourite": True,
        "mover": False,
    }
    assert (second.is_scratched, second.is_late_scratched, second.favourite, second.mover) == (False, False, None, None)


def test_scratched_runner_is_treated_like_any_other() -> None:
    def entrants(*, is_scratched: bool) -> list[dict[str, Any]]:
        return [{"entrantId": "e1", "runnerNumber": 1, "name": "x", "isScratched": is_scratched}]

    scratched = transformed(entry("e1", 10), entrants=entrants(is_scratched=True))

    assert (
        scratched.money_flow_records
        == transformed(entry("e1", 10), entrants=entrants(is_scratched=False)).money_flow_records
    )
    assert scratched.money_flow_records[0].win_pool_amount == 10_000
    assert scratched.metrics.entrant_count == 1


@pytest.mark.parametrize(
    ("entries", "hold"),
    [([], None), ([entry("e1", None, 5)], None), ([entry("e1", 0)], 0.0), ([entry("e1", 0), entry("e1", -0.0)], 0.0)],
)
def test_entrant_without_a_positive_hold_has_no_money_and_no_record(
    entries: list[dict[str, Any]], hold: float | None
) -> None:
    result = transformed(*entries)

    assert result.entrants[0].hold_percentage == hold
    assert result.entrants[0].win_pool_amount is None
    assert result.entrants[0].place_pool_amount is None
    assert result.entrants[0].win_pool_percentage is None
    assert result.entrants[0].place_pool_percentage is None
    assert result.money_flow_records == ()
    assert result.metrics.money_flow_record_count == 0


@pytest.mark.parametrize("pools", [None, {"winPool": 0, "placePool": 0}, {"winPool": 0.004}, {"totalPool": 900}])
def test_race_without_win_and_place_pools_has_no_money_and_no_records(pools: dict[str, Any] | None) -> None:
    result = transformed(entry("e1", 50, 60), pools=pools)

    assert result.entrants[0].hold_percentage == 50.0
    assert result.entrants[0].bet_percentage == 60.0
    assert result.entrants[0].win_pool_amount is None
    assert result.entrants[0].win_pool_percentage is None
    assert result.money_flow_records == ()


@pytest.mark.parametrize(
    ("pools", "win", "place"),
    [
        ({"winPool": 1000}, (5_000, 5.0), (0, None)),
        ({"placePool": 1000, "winPool": 0}, (0, None), (5_000, 5.0)),
        ({"winPool": 0.09, "placePool": 0.1}, (0, 0.0), (1, 10.0)),
    ],
)
def test_one_pool_is_enough(
    pools: dict[str, Any], win: tuple[int, float | None], place: tuple[int, float | None]
) -> None:
    result = transformed(entry("e1", 5), pools=pools)

    [record] = result.money_flow_records
    for row in (record, result.entrants[0]):
        assert (row.win_pool_amount, row.win_pool_percentage) == win
        assert (row.place_pool_amount, row.place_pool_percentage) == place
    assert record.total_pool_amount == win[0] + place[0] or record.total_pool_amount == 1


def test_total_amount_is_rounded_once_from_the_summed_pools() -> None:
    result = transformed(entry("e1", 10.5), pools={"winPool": 33_333.33, "placePool": 22_222.22})

    [record] = result.money_flow_records
    amounts = (record.win_pool_amount, record.place_pool_amount, record.total_pool_amount)
    assert amounts == (350_000, 233_333, 583_333)
    assert (
        transformed(entry("e1", 50), pools={"winPool": 0.01, "placePool": 0.01}).money_flow_records[0].total_pool_amount
        == 1
    )


def test_pool_percentage_is_of_the_rounded_amount_and_not_rounded() -> None:
    [record] = transformed(entry("e1", 18), pools={"winPool": 9151.38, "placePool": 3923.51}).money_flow_records

    assert record.win_pool_percentage == 100 * 164_725 / 915_138
    assert record.place_pool_percentage == 100 * 70_623 / 392_351


def test_money_comes_from_the_tote_pools_where_no_pools_are_held() -> None:
    tote_pools = [
        {"product_type": "Win", "total": 100},
        {"product_type": "WIN", "total": 100},
        {"product_type": "Duet", "total": 9},
    ]

    result = transformed(entry("e1", 5), pools=None, tote_pools=tote_pools)

    assert result.money_flow_records[0].win_pool_amount == 1_000
    assert result.race_pools is not None
    assert (result.race_pools.win_pool_total, result.race_pools.other_pool_total) == (20_000, 900)
    assert result.metrics.pool_field_count == 2
    assert "pool type 'Duet' is not recognised; it counts as other" in result.warnings


def test_totals_count_all_entries_but_entrants_their_own_only() -> None:
    result = transformed(
        entry("e1", 60, 50), entry("gone", 8, 9), entry(None, 2, 1), entry("e2", 30, 40), entry("e1", 0, 0)
    )

    assert (result.metrics.hold_percentage_total, result.metrics.bet_percentage_total) == (100.0, 100.0)
    assert [entrant.hold_percentage for entrant in result.entrants] == [60.0, 30.0]
    assert [entrant.bet_percentage for entrant in result.entrants] == [50.0, 40.0]
    assert result.warnings == (
        "money tracker: id 'gone' is no entrant; its hold of 8 % counts in the total only",
        "money tracker: id None is no entrant; its hold of 2 % counts in the total only",
    )


def test_id_that_is_no_entrant_is_warned_of_once_and_only_if_it_has_a_hold() -> None:
    result = transformed(
        *[entry("e1", 98, 90), entry("hold", 1, None), entry("hold", 1, 5)],
        *[entry("bet", None, 5), entry("zero", 0, 5), entry("zero", 0)],
    )

    assert result.warnings == ("money tracker: id 'hold' is no entrant; its hold of 2 % counts in the total only",)


@pytest.mark.parametrize(
    ("holds", "is_warned"),
    [([95.1], False), ([95], True), ([104.9], False), ([105], True), ([0], True), ([94.9, 0.1], True)],
)
def test_hold_total_far_from_a_hundred_is_warned_of(holds: list[float], is_warned: bool) -> None:  # noqa: FBT001
    warnings = transformed(*[entry("e1", hold) for hold in holds]).warnings

    assert len(warnings) == is_warned
    assert all(warning == f"hold percentages add up to {sum(holds):g}, not to about 100" for warning in warnings)


@pytest.mark.parametrize("tracker", [None, {}, {"entrants": None}, {"entrants": []}])
def test_race_without_a_money_tracker_has_no_totals(tracker: dict[str, Any] | None) -> None:
    result = transformed(money_tracker=tracker)

    assert (result.metrics.hold_percentage_total, result.metrics.bet_percentage_total) == (None, None)
    assert [entrant.hold_percentage for entrant in result.entrants] == [None, None]


def test_race_without_entrants_has_no_rows() -> None:
    result = transformed(entry("e1", 100), entrants=None)

    assert (result.entrants, result.money_flow_records, result.metrics.entrant_count) == ((), (), 0)
    assert result.baseline is None
    assert result.metrics.hold_percentage_total == 100.0


def test_poll_instant_without_a_zone_is_refused() -> None:
    with pytest.raises(InvalidRaceError, match="polled_at: must be a timezone-aware datetime") as caught:
        transformed(polled_at=datetime(2025, 7, 17))  # noqa: DTZ001

    assert isinstance(caught.value, ValueError)
    assert caught.value.errors == [("polled_at", "must be a timezone-aware datetime, such as datetime.now(UTC)")]


def test_poll_instant_outside_the_calendar_is_refused() -> None:
    with pytest.raises(InvalidRaceError, match="polled_at: must lie between the years 1 and 9999 in UTC;"):
        transformed(polled_at=datetime.min.replace(tzinfo=timezone(timedelta(hours=5))))


def test_same_input_gives_the_same_output() -> None:
    entries = [entry("e1", 60.1, 1), entry("gone", 5), entry("e2", 33.3, 2)]

    assert transformed(*entries).model_dump_json() == transformed(*entries).model_dump_json()


def test_largest_amounts_make_a_result_that_travels_and_is_the_next_previous() -> None:
    pools = {"winPool": 1e12, "placePool": 0}
    result = transformed(entry("e1", 9_223_372.0, 1e12), pools=pools)
    after = transformed(entry("e1", 0), pools=pools, previous=result)

    assert result.money_flow_records[0].win_pool_amount == 10**14 * 9_223_372 // 100
    assert TransformedRace.model_validate_json(result.model_dump_json()) == result
    assert after.money_flow_records[0].incremental_win_amount == -(10**14) * 9_223_372 // 100


@pytest.mark.parametrize("pools", [{"winPool": 1e12}, {"placePool": 1e12}, {"winPool": 9e11, "placePool": 9e11}])
def test_amount_that_could_not_be_the_next_previous_is_refused(pools: dict[str, float]) -> None:
    """Neither msgpack nor an integer column of a database can hold it."""
    with pytest.raises(InvalidRaceError) as refused:
        transformed(entry("e1", 9_223_373.0), pools=pools)

    [error] = refused.value.errors
    assert error.path == "money_tracker"
    assert error.message.endswith("gives entrant 'e1' more than 9223372036854775807 cents")


@pytest.mark.parametrize(
    ("told", "kept", "is_warned"),
    [
        ("2025-07-17", "2025-07-17", False),
        ("2025-07-17T00:00:00+12:00", "2025-07-17", False),
        ("not-a-date", None, True),
        ("2025-02-30", None, True),
        ("17/07/2025", None, True),
        ("2025-7-17", None, True),
        ("", None, False),
        (None, None, False),
    ],
)
def test_odd_date_of_a_meeting_costs_no_race(told: str | None, kept: str | None, is_warned: bool) -> None:  # noqa: FBT001
    result = transformed(meeting={"meeting": "m1", "date": told})
    warnings = [text for text in result.warnings if text.startswith("the date of the meeting is ")]

    assert result.meeting is not None
    assert (result.meeting.meeting_id, result.meeting.date) == ("m1", kept)
    assert warnings == ([f"the date of the meeting is {told!r}, which is no date; it is left out"] if is_warned else [])


def test_thousands_of_entrants_are_transformed() -> None:
    entrants = [{"entrantId": f"e{number}", "runnerNumber": number, "name": "x"} for number in range(1, 3001)]

    result = transformed(*[entry(f"e{number}", 0.03) for number in range(1, 3001)], entrants=entrants)

    assert result.metrics.hold_percentage_total == 90.0
    assert len(result.money_flow_records) == 3000


percentages = st.floats(0, 1000) | st.integers(0, 100).map(float) | st.decimals(0, 100, places=2).map(float)
dollars = st.floats(0, 1e9) | st.decimals(0, 1e6, places=2).map(float)


def half_up(value: Fraction) -> int:
    whole, part = divmod(value, 1)
    return int(whole) + (part >= Fraction(1, 2))


@given(st.lists(st.tuples(st.sampled_from(["e1", "e2"]), percentages)), dollars, dollars)
def test_amounts_equal_those_of_an_oracle_in_fractions(
    holds: list[tuple[str, float]], win: float, place: float
) -> None:
    result = transformed(
        *[entry(entrant_id, hold) for entrant_id, hold in holds], pools={"winPool": win, "placePool": place}
    )
    pools = [half_up(Fraction(repr(pool)) * 100) for pool in (win, place)]
    sums = {
        name: sum((Fraction(repr(hold)) for id_, hold in holds if id_ == name), Fraction(0)) for name in ("e1", "e2")
    }

    assert {
        record.entrant_id: (record.win_pool_amount, record.place_pool_amount, record.total_pool_amount)
        for record in result.money_flow_records
    } == {
        name: tuple(half_up(pool * total / 100) for pool in (*pools, sum(pools)))
        for name, total in sums.items()
        if total and any(pools)
    }


@given(st.integers(0, 10**6), st.integers(0, 100))
def test_whole_numbers_give_the_same_result_with_and_without_a_point(pool: int, hold: int) -> None:
    assert transformed(entry("e1", hold), pools={"winPool": pool}) == transformed(
        entry("e1", float(hold)), pools={"winPool": float(pool)}
    )


def test_json_and_mapping_give_the_same_result() -> None:
    race = {
        "id": "r1",
        "name": "Cup",
        "status": "open",
        "race_date_nz": "2025-07-17",
        "start_time_nz": "12:50",
        "pools": {"winPool": 33.335},
        "entrants": [{"entrantId": "e1", "runnerNumber": 1, "name": "x"}],
        "money_tracker": {"entrants": [entry("e1", 0.1)] * 3},
    }

    from_json = transform_race(RaceData.parse(json.dumps(race)), polled_at=POLLED_AT)

    assert from_json == transform_race(RaceData.parse(race), polled_at=POLLED_AT)
    assert from_json.entrants[0].hold_percentage == 0.3


def test_long_texts_of_a_race_are_not_kept_after_it() -> None:
    def transform(index: int) -> None:
        race = {
            "id": "r1",
            "name": "Cup",
            "race_date_nz": "2025-07-17",
            "start_time_nz": f"12:{index:02}{' ' * 2**20}NZST",
            "tote_pools": [{"product_type": f"{index}{'x' * 2**20}", "total": 1}],
            "dividends": [{"product_name": f"Pool {index}{'x' * 2**20}", "pool_size": 1}],
        }
        transform_race(RaceData.parse(race), polled_at=POLLED_AT)

    tracemalloc.start()
    try:
        for index in range(10):
            transform(index)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert kept < 2**20
