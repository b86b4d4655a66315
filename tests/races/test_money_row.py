from datetime import UTC, datetime
from typing import Any

import pytest

from racepool.races.money_row import MoneyRow, rows_of
from racepool.races.race import RaceData
from racepool.races.transform import transform_race
from racepool.races.transformed_race import TransformedRace

RACE: dict[str, Any] = {
    "id": "r1",
    "name": "Cup",
    "status": "open",
    "race_date_nz": "2026-01-31",
    "start_time_nz": "12:50",
    "race_number": 7,
    "meeting": {"name": "Awapuni"},
    "pools": {"winPool": 1000, "placePool": 500},
    "money_tracker": {
        "entrants": [{"entrant_id": "c", "hold_percentage": 60}, {"entrant_id": "a", "hold_percentage": 40}]
    },
}


def transformed(**of_a: object) -> TransformedRace:
    entrants = [
        {"entrantId": "a", "runnerNumber": 4, "name": "Paper Kettle", **of_a},
        {"entrantId": "b", "runnerNumber": 5, "name": "Without Money"},
        {"entrantId": "c", "runnerNumber": 6, "name": "Third Moon"},
    ]
    polled_at = datetime(2026, 1, 30, 23, 45, tzinfo=UTC)
    return transform_race(RaceData.parse(RACE | {"entrants": entrants}), polled_at=polled_at)


def test_row_is_a_record_with_the_names_and_numbers_of_its_race_and_runner() -> None:
    race = transformed()

    rows = list(rows_of(race))

    assert [(row.runner_number, row.runner_name, row.win_pool_amount) for row in rows] == [
        (4, "Paper Kettle", 40_000),
        (6, "Third Moon", 60_000),
    ]
    assert {(row.race_name, row.race_number, row.meeting_name) for row in rows} == {("Cup", 7, "Awapuni")}
    assert {row.start_time for row in rows} == {datetime(2026, 1, 30, 23, 50, tzinfo=UTC)}
    for row, record in zip(rows, race.money_flow_records, strict=True):
        assert MoneyRow.model_validate(row.model_dump()) == row
        assert row.model_dump().items() >= record.model_dump().items()


@pytest.mark.parametrize(
    ("flags", "is_scratched"),
    [
        ({}, False),
        ({"isScratched": False, "isLateScratched": False}, False),
        ({"isScratched": True}, True),
        ({"isLateScratched": True}, True),
    ],
)
def test_runner_is_scratched_early_or_late(flags: dict[str, object], *, is_scratched: bool) -> None:
    assert [row.is_scratched for row in rows_of(transformed(**flags))] == [is_scratched, False]


def test_race_without_a_meeting_has_rows_without_its_name() -> None:
    race = transformed().model_copy(update={"meeting": None})

    assert {row.meeting_name for row in rows_of(race)} == {None}
