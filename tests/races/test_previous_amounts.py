import sqlite3
from collections import namedtuple
from dataclasses import FrozenInstanceError, make_dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from itertools import permutations
from types import MappingProxyType
from typing import Any, cast
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from racepool.protocol.errors import InvalidRaceError
from racepool.races.previous_amounts import LARGEST_AMOUNT, Previous, PreviousAmounts
from racepool.races.race import RaceData
from racepool.races.transform import transform_race
from racepool.races.transformed_race import TransformedRace

POLLED_AT = datetime(2025, 7, 17, 0, 30, tzinfo=UTC)
CENTS = f"must be a whole number of cents from 0 to {LARGEST_AMOUNT}"
DUMP = "must be a whole TransformedRace, with race_id and baseline; put a single record into a list"
JSON = "must be the JSON of a TransformedRace, or of money-flow records"
PAIR = f"must be two amounts of an entrant; each {CENTS}"
TWICE = "'e1' has another record, and polling_timestamp does not tell which is later"
INSTANT = "must be an instant with a time zone"
RECORD = "must be a money-flow record, or a row with race_id, entrant_id, win_pool_amount, place_pool_amount"


def result() -> TransformedRace:
    race = RaceData.parse(
        {
            "id": "r1",
            "name": "Cup",
            "status": "open",
            "race_date_nz": "2025-07-17",
            "start_time_nz": "12:50",
            "entrants": [{"entrantId": f"e{number}", "runnerNumber": number, "name": "x"} for number in (1, 2, 3)],
            "pools": {"winPool": 1000, "placePool": 500},
            "money_tracker": {
                "entrants": [{"entrant_id": "e1", "hold_percentage": 60}, {"entrant_id": "e2", "hold_percentage": 40}]
            },
        }
    )
    return transform_race(race, polled_at=POLLED_AT)


class NotATime(datetime):
    """As pandas' NaT: a datetime by its class, and no instant."""

    def utcoffset(self) -> timedelta:
        raise ValueError("NaTType does not support utcoffset")


def row(**changes: object) -> dict[str, Any]:
    return {"race_id": "r1", "entrant_id": "e1", "win_pool_amount": 500, "place_pool_amount": 250, **changes}


AMOUNTS = PreviousAmounts("r1", {"e1": (60_000, 30_000), "e2": (40_000, 20_000)})


def test_none_is_no_amounts_of_no_race() -> None:
    assert PreviousAmounts.of(None) == PreviousAmounts(None, {})


def test_amounts_of_a_result_of_its_records_and_of_rows_are_the_same() -> None:
    previous = result()
    rows = [record.model_dump() for record in previous.money_flow_records]

    assert PreviousAmounts.of(previous) == AMOUNTS
    assert PreviousAmounts.of(previous.money_flow_records) == AMOUNTS
    assert PreviousAmounts.of(iter(rows)) == AMOUNTS
    assert PreviousAmounts.of(AMOUNTS) is AMOUNTS


def test_amounts_of_a_result_are_its_baseline_and_not_its_records() -> None:
    without_records = result().model_copy(update={"money_flow_records": ()})
    without_baseline = result().model_copy(update={"baseline": None})

    assert PreviousAmounts.of(without_records) == AMOUNTS
    assert PreviousAmounts.of(without_baseline) == PreviousAmounts("r1", {})


def test_dump_and_json_of_a_result_are_as_good_as_the_result() -> None:
    previous = result()
    text = previous.model_dump_json()
    nothing = previous.model_copy(update={"baseline": None})

    forms: list[Previous] = [previous.model_dump(), previous.model_dump(mode="json"), MappingProxyType(vars(previous))]
    forms += [text, text.encode(), bytearray(text.encode()), memoryview(text.encode())]  # type: ignore[list-item]
    for form in forms:
        assert PreviousAmounts.of(form) == AMOUNTS
    assert PreviousAmounts.of(nothing.model_dump_json()) == PreviousAmounts("r1", {})
    assert PreviousAmounts.of(f"[{previous.money_flow_records[0].model_dump_json()}]") == PreviousAmounts(
        "r1", {"e1": (60_000, 30_000)}
    )


def test_latest_row_of_each_entrant_counts_in_any_order() -> None:
    rows = [
        row(polling_timestamp=POLLED_AT + timedelta(seconds=15), win_pool_amount=2),
        row(polling_timestamp=(POLLED_AT + timedelta(seconds=30)).isoformat(), win_pool_amount=3),
        row(polling_timestamp=POLLED_AT, win_pool_amount=1),
        row(polling_timestamp=POLLED_AT, win_pool_amount=9, entrant_id="e2"),
    ]

    for order in permutations(rows):
        assert PreviousAmounts.of(order) == PreviousAmounts("r1", {"e1": (3, 250), "e2": (9, 250)})


def test_types_of_database_drivers_are_taken() -> None:
    race, entrant = UUID(int=7), UUID(int=8)
    rows = [row(race_id=race, entrant_id=entrant, win_pool_amount=Decimal(5), place_pool_amount=Decimal("7.00"))]

    assert PreviousAmounts.of(rows) == PreviousAmounts(str(race), {str(entrant): (5, 7)})


def test_rows_with_attributes_are_taken() -> None:
    values = row(polling_timestamp=POLLED_AT)
    lacking = row(entrant_id="e2")

    for kind in (namedtuple, make_dataclass):  # noqa: PYI024  # those of psycopg's namedtuple_row and class_row
        rows = [kind("Row", each)(**each) for each in (values, lacking)]
        assert PreviousAmounts.of(rows).amounts == {"e1": (500, 250), "e2": (500, 250)}
        del lacking["win_pool_amount"]
        with pytest.raises(InvalidRaceError, match=r"previous\.0: must be a money-flow record"):
            PreviousAmounts.of([kind("Row", lacking)(**lacking)])
        lacking = row(entrant_id="e2")


def test_later_of_two_rows_counts_when_the_clocks_are_set_back_between_them() -> None:
    session = ZoneInfo("Pacific/Auckland")  # 02:45 NZDT, then 02:15 and 02:45 NZST
    first, second, third = (datetime(2025, 4, 5, *time, tzinfo=UTC) for time in ((13, 45), (14, 15), (14, 45)))
    rows = [
        row(win_pool_amount=1, polling_timestamp=first.astimezone(session)),
        row(win_pool_amount=2, polling_timestamp=second.astimezone(session)),
        row(entrant_id="e2", win_pool_amount=3, polling_timestamp=first.astimezone(session)),
        row(entrant_id="e2", win_pool_amount=4, polling_timestamp=third.astimezone(session)),
    ]

    for order in permutations(rows):
        assert PreviousAmounts.of(order).amounts == {"e1": (2, 250), "e2": (4, 250)}


def test_largest_amount_is_that_of_a_column_of_64_bits() -> None:
    assert PreviousAmounts.of([row(win_pool_amount=2**63 - 1, place_pool_amount=0)]).amounts == {"e1": (2**63 - 1, 0)}


def test_amounts_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        AMOUNTS.race_id = "r2"  # type: ignore[misc]


@pytest.mark.parametrize("text", ["", "{", b"\xff", bytearray(b"["), "\ud800"])
def test_text_that_is_no_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(InvalidRaceError, match="previous: is not JSON: "):
        PreviousAmounts.of(text)


def test_rows_of_a_database_driver_are_taken() -> None:
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    columns = "'r1' AS race_id, 'e1' AS entrant_id, 5 AS win_pool_amount"

    whole = connection.execute(f"SELECT {columns}, 7 AS place_pool_amount").fetchall()
    lacking = connection.execute(f"SELECT {columns}").fetchall()
    connection.close()

    assert PreviousAmounts.of(whole) == PreviousAmounts("r1", {"e1": (5, 7)})
    with pytest.raises(InvalidRaceError, match=r"previous\.0: must be a money-flow record"):
        PreviousAmounts.of(lacking)


@pytest.mark.parametrize(
    ("previous", "path", "rule"),
    [
        (5, "previous", "must be a TransformedRace or money-flow records, but is a int"),
        ([5], "previous.0", RECORD),
        (["row"], "previous.0", RECORD),
        (row(), "previous", DUMP),
        ({"race_id": "r1"}, "previous", DUMP),
        ({"race_id": "r1", "baseline": []}, "previous", DUMP),
        ({"race_id": 5, "baseline": {}}, "previous", DUMP),
        ({"race_id": "r1", "baseline": {"e1": [1, -2]}}, "previous.baseline.e1", PAIR),
        ({"race_id": "r1", "baseline": {"e1": [1]}}, "previous.baseline.e1", PAIR),
        ('{"race_id": "r1", "baseline": {"e1": "12"}}', "previous.baseline.e1", PAIR),
        ("5", "previous", JSON),
        (b"null", "previous", JSON),
        ("[5]", "previous.0", RECORD),
        ([row(), {"entrant_id": "e2"}], "previous.1", RECORD),
        ([row(race_id=None)], "previous.0.race_id", "must be text"),
        (
            [row(), row(race_id="r2", entrant_id="e2")],
            "previous.1.race_id",
            "is 'r2', but the records before are of race 'r1'",
        ),
        ([row(entrant_id=["e1"])], "previous.0.entrant_id", "must be text"),
        ([row(), row(entrant_id="e2"), row()], "previous.2.entrant_id", TWICE),
        ([row(polling_timestamp=POLLED_AT), row()], "previous.1.entrant_id", TWICE),
        ([row(), row(polling_timestamp=POLLED_AT)], "previous.1.entrant_id", TWICE),
        ([row(polling_timestamp=POLLED_AT), row(polling_timestamp=POLLED_AT)], "previous.1.entrant_id", TWICE),
        ([row(polling_timestamp="noon")], "previous.0.polling_timestamp", INSTANT),
        ([row(polling_timestamp=NotATime(2025, 7, 17))], "previous.0.polling_timestamp", INSTANT),
        ([row(polling_timestamp=datetime.min.replace(tzinfo=timezone.max))], "previous.0.polling_timestamp", INSTANT),
        ([row(polling_timestamp=5)], "previous.0.polling_timestamp", INSTANT),
        ([row(polling_timestamp=POLLED_AT.replace(tzinfo=None))], "previous.0.polling_timestamp", INSTANT),
        ([row(win_pool_amount=Decimal("5.5"))], "previous.0.win_pool_amount", CENTS),
        *[
            ([row(win_pool_amount=Decimal(text))], "previous.0.win_pool_amount", CENTS)
            for text in ("NaN", "sNaN", "Infinity", "-1", "1E+19", "1E+999999999999")
        ],
        ([row(win_pool_amount="5")], "previous.0.win_pool_amount", CENTS),
        ([row(win_pool_amount=None)], "previous.0.win_pool_amount", CENTS),
        ([row(win_pool_amount=-1)], "previous.0.win_pool_amount", CENTS),
        ([row(win_pool_amount=5.0)], "previous.0.win_pool_amount", CENTS),
        ([row(place_pool_amount=True)], "previous.0.place_pool_amount", CENTS),
        ([row(place_pool_amount=2**63)], "previous.0.place_pool_amount", CENTS),
    ],
)
def test_broken_record_is_told_at_its_path(previous: object, path: str, rule: str) -> None:
    with pytest.raises(InvalidRaceError) as caught:
        PreviousAmounts.of(cast("Previous", previous))

    assert caught.value.errors[:1] == [(path, rule)]


def test_all_broken_records_are_told() -> None:
    with pytest.raises(InvalidRaceError) as caught:
        PreviousAmounts.of([row(win_pool_amount="1", place_pool_amount="2"), {}])

    assert [path for path, _ in caught.value.errors] == [
        *("previous.0.win_pool_amount", "previous.0.place_pool_amount", "previous.1")
    ]


def test_broken_record_says_nothing_of_the_records_after_it() -> None:
    broken = row(race_id="r2", entrant_id="e2", win_pool_amount=-1)

    with pytest.raises(InvalidRaceError) as caught:
        PreviousAmounts.of([broken, row(), row(entrant_id="e2"), row(entrant_id="e3", place_pool_amount=-1)])

    assert [path for path, _ in caught.value.errors] == ["previous.0.win_pool_amount", "previous.3.place_pool_amount"]


cents = st.integers(0, LARGEST_AMOUNT)


@given(st.none() | st.text(), st.dictionaries(st.text(), st.tuples(cents, cents)))
def test_amounts_are_the_same_after_the_wire(race_id: str | None, amounts: dict[str, tuple[int, int]]) -> None:
    previous = PreviousAmounts(race_id, amounts)

    assert PreviousAmounts.from_wire(msgpack.unpackb(msgpack.packb(previous.to_wire()))) == previous


@pytest.mark.parametrize(
    "wire",
    [
        *[None, 5, "r1", b"r1", {}, [], ["r1"], ["r1", []], [5, {}], ["r1", {}, 1], {"race_id": "r1"}],
        *[
            ["r1", {"e1": pair}]
            for pair in (None, 5, "ab", [], [1], [1, 2, 3], [1, -1], [1.0, 2], [True, 2], [1, 2**63])
        ],
        *[["r1", {b"e1": [1, 2]}], ["r1", {5: [1, 2]}]],
    ],
)
def test_hostile_wire_is_an_invalid_race(wire: object) -> None:
    with pytest.raises(InvalidRaceError) as caught:
        PreviousAmounts.from_wire(wire)

    [(path, rule)] = caught.value.errors
    if path == "previous":
        assert rule == "must be a race id and the amounts of its entrants"
    else:
        assert path in {"previous.e1", "previous.b'e1'", "previous.5"}
        assert rule == PAIR


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text() | st.integers(), parts, max_size=3),
)


@given(plain | st.lists(plain, min_size=2, max_size=2))
def test_any_wire_is_amounts_or_an_invalid_race(wire: object) -> None:
    try:
        previous = PreviousAmounts.from_wire(wire)
    except InvalidRaceError:
        return
    assert previous.to_wire() == wire
