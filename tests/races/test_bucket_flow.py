import json
import sqlite3
from collections import Counter, namedtuple
from collections.abc import Iterator, Mapping
from dataclasses import make_dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from itertools import permutations
from typing import Any, TypeAlias, cast
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from racepool.protocol.errors import InvalidRaceError
from racepool.races.bucket_flow import BucketFlow, bucket_flows
from racepool.races.race import RaceData
from racepool.races.transform import transform_race
from racepool.races.transformed_race import MoneyFlowRecord, TransformedRace

START = datetime(2025, 7, 17, 0, 50, tzinfo=UTC)
TEN = START - timedelta(minutes=10)
KEYS = (
    "race_id, entrant_id, time_interval, polling_timestamp, is_baseline, win_pool_amount, place_pool_amount, "
    "incremental_win_amount, incremental_place_amount"
)
RECORD = f"must be a money-flow record, or a row with {KEYS}"
NUMBER = "must be a finite JSON number, not text or a boolean"
CENTS = "must be a whole number of cents"
INSTANT = "must be an instant with a time zone"

Holds: TypeAlias = Mapping[str, float]


def transformed(
    holds: Holds | None, minutes: float, previous: TransformedRace | None = None, race_id: str = "r1"
) -> TransformedRace:
    """A poll of pools of 10,000 and 1,000 dollars, minutes before the start; without a tracker if `holds` is None."""
    entries = [{"entrant_id": name, "hold_percentage": hold} for name, hold in (holds or {}).items()]
    race = {
        "id": race_id,
        "name": "Cup",
        "advertised_start": round(START.timestamp()),
        "entrants": [{"entrantId": name, "runnerNumber": ord(name), "name": name} for name in "ab"],
        "pools": {"winPool": 10_000, "placePool": 1_000},
        "money_tracker": None if holds is None else {"entrants": entries},
    }
    polled_at = START - timedelta(minutes=minutes)
    return transform_race(RaceData.parse(race), polled_at=polled_at, previous=previous)


def chain(*polls: tuple[float, Holds | None], race_id: str = "r1") -> Iterator[TransformedRace]:
    previous = None
    for minutes, holds in polls:
        previous = transformed(holds, minutes, previous, race_id)
        yield previous


def records_of(*polls: tuple[float, Holds | None], race_id: str = "r1") -> list[MoneyFlowRecord]:
    return [record for result in chain(*polls, race_id=race_id) for record in result.money_flow_records]


def row(**changes: object) -> dict[str, Any]:
    amounts = {"win_pool_amount": 500, "place_pool_amount": 250}
    amounts |= {"incremental_win_amount": 40, "incremental_place_amount": -30}
    told = {"race_id": "r1", "entrant_id": "e1", "time_interval": 10.0, "polling_timestamp": TEN, "is_baseline": False}
    return {**told, **amounts, **changes}


WORKED: list[tuple[float, Holds | None]] = [(12, {"a": 5}), (11, {"a": 5.1}), (10, {"a": 5.3})]


def test_worked_figures_of_a_bucket_that_begins_with_the_baseline() -> None:
    [flow] = bucket_flows(records_of(*WORKED))

    assert flow == BucketFlow(
        race_id="r1",
        entrant_id="a",
        time_interval=10.0,
        win_pool_amount=53_000,
        place_pool_amount=5_300,
        incremental_win_amount=53_000,
        incremental_place_amount=5_300,
        baseline_win_amount=50_000,
        baseline_place_amount=5_000,
        is_baseline=True,
        poll_count=3,
        first_at=START - timedelta(minutes=12),
        last_at=START - timedelta(minutes=10),
    )
    assert flow.incremental_win_amount - flow.baseline_win_amount == 3_000


def test_bucket_after_the_baseline_is_all_flow() -> None:
    _, flow, last = bucket_flows(records_of((12, {"a": 5}), (9, {"a": 4}), (8, {"a": 6}), (3, {"a": 6})))

    assert (flow.time_interval, flow.poll_count, flow.is_baseline) == (5.0, 2, False)
    assert (flow.win_pool_amount, flow.incremental_win_amount, flow.baseline_win_amount) == (60_000, 10_000, 0)
    assert (flow.place_pool_amount, flow.incremental_place_amount, flow.baseline_place_amount) == (6_000, 1_000, 0)
    assert (last.time_interval, last.incremental_win_amount) == (3.0, 0)


def test_order_of_the_records_does_not_matter() -> None:
    records = records_of(*WORKED)

    for order in permutations(records):
        assert list(bucket_flows(order)) == list(bucket_flows(records))


def test_races_entrants_and_buckets_are_kept_apart_in_the_order_of_their_first_records() -> None:
    records = records_of((12, {"b": 5, "a": 6}), (9, {"a": 7})) + records_of((12, {"a": 8}), race_id="r2")

    flows = list(bucket_flows(iter(records)))

    assert [(flow.race_id, flow.entrant_id, flow.time_interval, flow.win_pool_amount) for flow in flows] == [
        *[("r1", "a", 10.0, 60_000), ("r1", "b", 10.0, 50_000), ("r1", "a", 5.0, 70_000)],
        ("r2", "a", 10.0, 80_000),
    ]


def test_no_records_give_no_flows() -> None:
    assert list(bucket_flows([])) == []


def test_flow_cannot_be_changed() -> None:
    [flow] = bucket_flows([row()])

    with pytest.raises(ValidationError, match="frozen"):
        flow.win_pool_amount = 0  # type: ignore[misc]


def test_dump_and_json_of_records_count_the_same() -> None:
    records = records_of(*WORKED)

    for mode in ("python", "json"):
        assert list(bucket_flows(record.model_dump(mode=mode) for record in records)) == list(bucket_flows(records))
    assert list(bucket_flows(map(json.loads, map(MoneyFlowRecord.model_dump_json, records)))) == list(
        bucket_flows(records)
    )


def test_types_of_database_drivers_are_taken() -> None:
    race, entrant = UUID(int=7), UUID(int=8)
    auckland = timezone(timedelta(hours=12))
    amounts = {"win_pool_amount": Decimal("5.00"), "place_pool_amount": Decimal(7)}
    amounts |= {"incremental_win_amount": Decimal(-4), "incremental_place_amount": Decimal("3.0")}
    rows = [
        row(race_id=race, entrant_id=entrant, time_interval=Decimal("-0.5"), **amounts),
        row(race_id=str(race), entrant_id=str(entrant), time_interval=-0.5, polling_timestamp=TEN + timedelta(hours=1)),
    ]
    rows[0]["polling_timestamp"] = TEN.astimezone(auckland)

    [flow] = bucket_flows(rows)

    assert (flow.race_id, flow.entrant_id, flow.time_interval, flow.poll_count) == (str(race), str(entrant), -0.5, 2)
    assert (flow.incremental_win_amount, flow.incremental_place_amount) == (36, -27)
    assert (flow.first_at, flow.first_at.utcoffset()) == (TEN, timedelta(0))


def test_rows_with_attributes_are_taken() -> None:
    for kind in (namedtuple, make_dataclass):  # noqa: PYI024  # those of psycopg's namedtuple_row and class_row
        assert list(bucket_flows([kind("Row", row())(**row())])) == list(bucket_flows([row()]))


def test_records_count_in_order_when_the_clocks_are_set_back_between_them() -> None:
    session = ZoneInfo("Pacific/Auckland")  # 02:45 NZDT, then 02:15 and 02:45 NZST
    instants = [datetime(2025, 4, 5, *time, tzinfo=UTC) for time in ((13, 45), (14, 15), (14, 45))]
    [record, *_] = records_of(*WORKED)
    records = [
        record.model_copy(update={"polling_timestamp": polled_at.astimezone(session), "win_pool_amount": cents})
        for cents, polled_at in enumerate(instants)
    ]

    for order in permutations(records):
        [flow] = bucket_flows(order)
        assert (flow.win_pool_amount, flow.first_at, flow.last_at) == (2, instants[0], instants[2])
        assert flow.first_at.tzinfo is flow.last_at.tzinfo is UTC


def test_rows_of_a_database_driver_are_taken() -> None:
    values = {**row(), "polling_timestamp": TEN.isoformat(), "is_baseline": 1}
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    columns = ", ".join(f":{key} AS {key}" for key in values)

    whole = connection.execute(f"SELECT {columns}", values).fetchall()
    lacking = connection.execute("SELECT 'r1' AS race_id").fetchall()
    connection.close()

    assert list(bucket_flows(whole)) == list(bucket_flows([row(is_baseline=True)]))
    with pytest.raises(InvalidRaceError, match=r"^the list of records is invalid: records\.0: must be a money-flow"):
        bucket_flows(lacking)


@pytest.mark.parametrize(
    ("broken", "path", "rule"),
    [
        (5, "records.1", RECORD),
        ("row", "records.1", RECORD),
        ({}, "records.1", RECORD),
        (row(race_id=None), "records.1.race_id", "must be text"),
        (row(entrant_id=7), "records.1.entrant_id", "must be text"),
        *[
            (row(time_interval=value), "records.1.time_interval", NUMBER)
            for value in (None, "3.5", True, float("nan"), Decimal("NaN"), Decimal("sNaN"), float("inf"))
        ],
        *[
            (row(polling_timestamp=value), "records.1.polling_timestamp", INSTANT)
            for value in (None, 5, "noon", TEN.replace(tzinfo=None), datetime.min.replace(tzinfo=timezone.max))
        ],
        *[(row(is_baseline=value), "records.1.is_baseline", "must be true or false") for value in (None, "maybe", 2)],
        *[
            (row(**{key: value}), f"records.1.{key}", CENTS)
            for key in KEYS.split(", ")[5:]
            for value in (None, "5", 5.0, True, *map(Decimal, ("5.5", "NaN", "sNaN", "Infinity", "1E+999999999999")))
        ],
    ],
)
def test_broken_row_is_told_at_its_index_and_key(broken: object, path: str, rule: str) -> None:
    with pytest.raises(InvalidRaceError) as caught:
        bucket_flows([row(entrant_id="e2"), cast("dict[str, Any]", broken)])

    assert caught.value.errors == [(path, rule)]


@pytest.mark.parametrize("key", KEYS.split(", "))
def test_each_key_is_required(key: str) -> None:
    lacking = row()
    del lacking[key]

    with pytest.raises(InvalidRaceError) as caught:
        bucket_flows([lacking])

    assert caught.value.errors == [("records.0", RECORD)]


def test_all_broken_values_of_a_row_are_told() -> None:
    with pytest.raises(InvalidRaceError) as caught:
        bucket_flows([row(race_id=5, win_pool_amount="5")])

    assert [path for path, _ in caught.value.errors] == ["records.0.race_id", "records.0.win_pool_amount"]


def test_entrant_with_two_records_of_one_instant_is_refused() -> None:
    records = records_of(*WORKED)
    same = row(time_interval=5, polling_timestamp=TEN.astimezone(timezone(timedelta(hours=12))))

    with pytest.raises(InvalidRaceError) as caught:
        bucket_flows([*records, records[1]])
    assert caught.value.errors == [("records.3", "entrant 'a' has a record of 2025-07-17 00:39:00+00:00 already")]
    with pytest.raises(InvalidRaceError) as caught:
        bucket_flows([row(), row(entrant_id="e2"), row(race_id="r2"), same])
    assert caught.value.errors == [("records.3", "entrant 'e1' has a record of 2025-07-17 00:40:00+00:00 already")]


POLLS = st.dictionaries(
    st.integers(-420, 3_700).map(lambda tenths: tenths / 60),
    st.none() | st.dictionaries(st.sampled_from("ab"), st.just(0.0) | st.floats(0, 150), min_size=1),
    max_size=8,
)


@given(POLLS, st.randoms(use_true_random=False))
def test_increments_of_all_buckets_add_up_to_the_last_told_amount(
    polls: dict[float, Holds | None],
    random: Any,  # noqa: ANN401
) -> None:
    results = list(chain(*sorted(polls.items(), reverse=True)))
    records = [record for result in results for record in result.money_flow_records]
    random.shuffle(records)

    flows = list(bucket_flows(records))

    win, place, baseline = Counter[str](), Counter[str](), Counter[str]()
    for flow in flows:
        win[flow.entrant_id] += flow.incremental_win_amount
        place[flow.entrant_id] += flow.incremental_place_amount
        baseline[flow.entrant_id] += flow.baseline_win_amount
    last = (results[-1].baseline if results else None) or {}
    assert {name: (win[name], place[name]) for name in "ab"} == {name: last.get(name, (0, 0)) for name in "ab"}
    firsts = [record for record in records if record.is_baseline]
    assert +baseline == +Counter({record.entrant_id: record.win_pool_amount for record in firsts})
    assert sum(flow.poll_count for flow in flows) == len(records)
    assert len({(flow.entrant_id, flow.time_interval) for flow in flows}) == len(flows)


@pytest.mark.parametrize("name", ["win_pool_amount", "place_pool_amount"])
@pytest.mark.parametrize("amount", [-1, 2**63, Decimal(-1)])
def test_amount_below_zero_or_beyond_a_database_is_refused(name: str, amount: object) -> None:
    with pytest.raises(InvalidRaceError, match=f"records.0.{name}: must be a whole number of cents from 0 to "):
        bucket_flows([row(**{name: amount})])


def test_increment_below_zero_is_taken() -> None:
    [flow] = bucket_flows([row(incremental_win_amount=-1)])

    assert flow.incremental_win_amount == -1
