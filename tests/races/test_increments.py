from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from racepool.protocol.errors import InvalidRaceError
from racepool.races.previous_amounts import Previous, PreviousAmounts
from racepool.races.race import RaceData
from racepool.races.transform import transform_race
from racepool.races.transformed_race import MoneyFlowRecord, TransformedRace

POLLED_AT = datetime(2025, 7, 17, 0, 30, tzinfo=UTC)

Holds = dict[str, float]


def poll(holds: Holds, win: float = 10_000, place: float = 0, *, race_id: str = "r1", ids: str = "abc") -> RaceData:
    return RaceData.parse(
        {
            "id": race_id,
            "name": "Cup",
            "status": "open",
            "race_date_nz": "2025-07-17",
            "start_time_nz": "12:50",
            "entrants": [{"entrantId": name, "runnerNumber": ord(name), "name": name} for name in ids],
            "pools": {"winPool": win, "placePool": place},
            "money_tracker": {
                "entrants": [{"entrant_id": name, "hold_percentage": hold} for name, hold in holds.items()]
            },
        }
    )


def chain(*polls: RaceData) -> Iterator[TransformedRace]:
    previous = None
    for index, race in enumerate(polls):
        previous = transform_race(race, polled_at=POLLED_AT + timedelta(seconds=15 * index), previous=previous)
        yield previous


def wins(result: TransformedRace) -> dict[str, tuple[int, int]]:
    return {
        record.entrant_id: (record.win_pool_amount, record.incremental_win_amount)
        for record in result.money_flow_records
    }


def test_first_poll_is_the_baseline() -> None:
    [result] = chain(poll({"a": 5, "b": 7}, 10_000, 1_000))

    assert wins(result) == {"a": (50_000, 50_000), "b": (70_000, 70_000)}
    assert [record.incremental_place_amount for record in result.money_flow_records] == [5_000, 7_000]


def test_increments_are_those_since_the_previous_poll() -> None:
    _, result = chain(poll({"a": 5, "b": 7}, 10_000, 1_000), poll({"a": 6, "b": 5}, 20_000, 1_100))

    assert wins(result) == {"a": (120_000, 70_000), "b": (100_000, 30_000)}
    assert [record.incremental_place_amount for record in result.money_flow_records] == [1_600, -1_500]


def test_money_that_goes_and_comes_back_leaves_records_that_add_up() -> None:
    results = list(chain(poll({"a": 5}), poll({"a": 0}), poll({"a": 6})))

    assert [wins(result) for result in results] == [
        {"a": (50_000, 50_000)},
        {"a": (0, -50_000)},
        {"a": (60_000, 60_000)},
    ]


def test_money_that_went_is_told_once() -> None:
    results = list(chain(poll({"a": 5}), poll({"a": 0}), poll({"a": 0}), poll({"a": 6})))

    assert [wins(result) for result in results[2:]] == [{}, {"a": (60_000, 60_000)}]


def test_record_of_money_that_went_tells_the_poll_and_nothing_of_money() -> None:
    _, result = chain(poll({"a": 5}, 10_000, 2_000), poll({"a": 0}, 10_000, 0))

    [record] = result.money_flow_records
    assert (record.win_pool_amount, record.place_pool_amount, record.total_pool_amount) == (0, 0, 0)
    assert (record.incremental_win_amount, record.incremental_place_amount) == (-50_000, -10_000)
    assert (record.hold_percentage, record.win_pool_percentage, record.place_pool_percentage) == (0.0, 0.0, None)
    assert result.metrics.money_flow_record_count == 1
    assert result.entrants[0].win_pool_amount is None


def test_pools_that_vanish_take_all_money_with_them() -> None:
    _, result = chain(poll({"a": 5, "b": 0}), poll({"a": 5, "b": 5}, 0, 0))

    assert wins(result) == {"a": (0, -50_000)}
    assert result.money_flow_records[0].hold_percentage == 5.0


def test_money_in_the_place_pool_alone_is_followed_too() -> None:
    _, result = chain(poll({"a": 5}, 0, 100), poll({"a": 0}, 0, 100))

    assert [record.incremental_place_amount for record in result.money_flow_records] == [-500]


def test_previous_record_of_nothing_leaves_no_record() -> None:
    _, result = chain(poll({"a": 5}, 0.01), poll({"a": 0}, 0.01))

    assert result.money_flow_records == ()


def test_entrant_that_the_previous_poll_lacks_counts_from_zero() -> None:
    _, result = chain(poll({"a": 5}, ids="a"), poll({"a": 6, "b": 3}, ids="ab"))

    assert wins(result) == {"a": (60_000, 10_000), "b": (30_000, 30_000)}


def test_id_that_is_no_longer_listed_is_warned_of() -> None:
    _, result = chain(poll({"a": 50, "b": 50}), poll({"a": 100}, ids="a"))

    assert wins(result) == {"a": (1_000_000, 500_000)}
    assert result.warnings == ("previous: id 'b' is no longer an entrant; its amounts are kept, for it may come back",)
    assert result.baseline == {"a": (1_000_000, 0), "b": (500_000, 0)}


def test_every_form_of_the_previous_poll_counts_the_same() -> None:
    before = transform_race(poll({"a": 5, "b": 7}), polled_at=POLLED_AT)
    now = poll({"a": 6, "b": 6})
    rows = [record.model_dump() for record in before.money_flow_records]
    forms: list[Previous] = [
        *(before, before.money_flow_records, list(before.money_flow_records), rows, PreviousAmounts.of(before)),
        TransformedRace.model_validate_json(before.model_dump_json()),
    ]

    results = [transform_race(now, polled_at=POLLED_AT, previous=form) for form in forms]

    assert wins(results[0]) == {"a": (60_000, 10_000), "b": (60_000, -10_000)}
    assert all(result == results[0] for result in results)


def test_no_records_count_as_no_previous_poll() -> None:
    now = poll({"a": 6})
    nothing: list[MoneyFlowRecord] = []

    assert transform_race(now, polled_at=POLLED_AT, previous=nothing) == transform_race(now, polled_at=POLLED_AT)


def test_previous_poll_of_another_race_is_refused() -> None:
    before = transform_race(poll({"a": 5}, race_id="r2"), polled_at=POLLED_AT)

    for previous in (before, before.money_flow_records, before.model_copy(update={"money_flow_records": ()})):
        with pytest.raises(InvalidRaceError, match="previous: is of race 'r2', not of 'r1'"):
            transform_race(poll({"a": 5}), polled_at=POLLED_AT, previous=previous)


def test_previous_poll_of_a_race_with_an_empty_id_is_refused() -> None:
    with pytest.raises(InvalidRaceError, match="previous: is of race '', not of 'r1'"):
        transform_race(poll({"a": 5}), polled_at=POLLED_AT, previous=PreviousAmounts("", {"a": (1, 2)}))


holds = st.dictionaries(st.sampled_from("abcd"), st.just(0.0) | st.floats(0, 150))
pools = st.just(0.0) | st.floats(0, 1e7)


@given(st.lists(st.tuples(holds, pools, pools), min_size=1, max_size=8))
def test_increments_of_an_entrant_add_up_to_its_last_amount(polls: list[tuple[Holds, float, float]]) -> None:
    results = list(chain(*(poll(dict.fromkeys("abc", 0.0) | held, win, place) for held, win, place in polls)))

    for name in "abc":
        records = [record for result in results for record in result.money_flow_records if record.entrant_id == name]
        last = results[-1].entrants["abc".index(name)]
        assert sum(record.incremental_win_amount for record in records) == (last.win_pool_amount or 0)
        assert sum(record.incremental_place_amount for record in records) == (last.place_pool_amount or 0)
        assert (records[-1].win_pool_amount if records else 0) == (last.win_pool_amount or 0)
