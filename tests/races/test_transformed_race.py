from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from racepool.races.parts import Meeting
from racepool.races.race import RaceData
from racepool.races.transform import transform_race
from racepool.races.transformed_race import (
    Metrics,
    MoneyFlowRecord,
    RaceInfo,
    RacePools,
    TransformedEntrant,
    TransformedRace,
)


def race(**changes: object) -> RaceData:
    fields: dict[str, Any] = {
        "id": "r1",
        "name": "Cup",
        "status": "open",
        "race_date_nz": "2025-07-17",
        "start_time_nz": "12:50",
        "entrants": [{"entrantId": "e1", "runnerNumber": 1, "name": "Mānuka", "fixedWinOdds": 2.5}],
        "pools": {"winPool": 1000, "placePool": 333.33},
        "money_tracker": {"entrants": [{"entrant_id": "e1", "hold_percentage": 33.3, "bet_percentage": 0.1}]},
        "meeting": {"meeting": "m1", "name": "Ford"},
    }
    return RaceData.parse({**fields, **changes})


# The contract with the database.
@pytest.mark.parametrize(
    ("model", "names"),
    [
        (
            TransformedRace,
            """race_id race_name status transformed_at metrics meeting race entrants money_flow_records race_pools
            baseline warnings""",
        ),
        (
            Metrics,
            "entrant_count pool_field_count money_flow_record_count hold_percentage_total bet_percentage_total",
        ),
        (Meeting, "meeting_id name date country category track_condition tote_status"),
        (RaceInfo, "race_id name status race_number race_date_nz start_time_nz start_time meeting_id"),
        (
            TransformedEntrant,
            """entrant_id race_id runner_number name barrier is_scratched is_late_scratched fixed_win_odds
            fixed_place_odds pool_win_odds pool_place_odds hold_percentage bet_percentage win_pool_percentage
            place_pool_percentage win_pool_amount place_pool_amount jockey trainer_name silk_colours favourite mover""",
        ),
        (
            MoneyFlowRecord,
            """entrant_id runner_number runner_name race_id race_date_nz is_baseline time_to_start time_interval
            interval_type polling_timestamp hold_percentage bet_percentage win_pool_percentage place_pool_percentage
            win_pool_amount place_pool_amount total_pool_amount incremental_win_amount incremental_place_amount
            fixed_win_odds fixed_place_odds pool_win_odds pool_place_odds""",
        ),
        (
            RacePools,
            """race_id win_pool_total place_pool_total quinella_pool_total trifecta_pool_total exacta_pool_total
            first4_pool_total multi_leg_pool_total other_pool_total total_race_pool currency data_quality_score
            extracted_pools""",
        ),
    ],
)
def test_field_names_are_the_contract(model: type[BaseModel], names: str) -> None:
    assert set(model.model_fields) == set(names.split())


def test_result_cannot_be_changed() -> None:
    result = transform_race(race(), polled_at=datetime(2025, 7, 17, tzinfo=UTC))

    with pytest.raises(ValidationError, match="frozen"):
        result.race_id = "r2"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        result.money_flow_records[0].win_pool_amount = 0  # type: ignore[misc]


instants = st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29)).map(  # noqa: DTZ001
    lambda instant: instant.replace(tzinfo=UTC)
)
offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
numbers = st.none() | st.floats(0, 1e12)
holds = st.none() | st.floats(0, 1e6)  # more would make amounts that no database holds


@given(instants, offsets, numbers, holds, numbers, st.none() | st.integers(0, 253_402_300_799))
def test_result_is_the_same_after_its_json(  # noqa: PLR0917
    instant: datetime,
    offset: timezone,
    pool: float | None,
    hold: float | None,
    odds: float | None,
    advertised_start: int | None,
) -> None:
    poll = race(
        advertised_start=advertised_start,
        entrants=[{"entrantId": "e1", "runnerNumber": 1, "name": "x", "poolWinOdds": odds}],
        pools={"winPool": pool},
        money_tracker={"entrants": [{"entrant_id": "e1", "hold_percentage": hold}] * 3},
    )
    result = transform_race(poll, polled_at=instant.astimezone(offset))

    back = TransformedRace.model_validate_json(result.model_dump_json().encode())

    assert back == result
    assert back.transformed_at == instant
    instants_back = [back.transformed_at, back.race.start_time, *(r.polling_timestamp for r in back.money_flow_records)]
    assert {instant.utcoffset() for instant in instants_back} == {timedelta(0)}


def test_row_of_a_database_makes_a_record() -> None:
    """A driver returns a date for the column race_date_nz, and Decimals for NUMERIC ones."""
    [record, *_] = transform_race(
        race(
            pools={"winPool": 100},
            money_tracker={"entrants": [{"entrant_id": "e1", "hold_percentage": 10}]},
            entrants=[{"entrantId": "e1", "runnerNumber": 1}],
        ),
        polled_at=datetime(2025, 7, 17, tzinfo=UTC),
    ).money_flow_records
    row = record.model_dump() | {
        "race_date_nz": date.fromisoformat(record.race_date_nz),
        "time_to_start": Decimal(str(record.time_to_start)),
        "time_interval": Decimal(str(record.time_interval)),
    }

    assert MoneyFlowRecord(**row) == record
    assert MoneyFlowRecord.model_json_schema()["properties"]["race_date_nz"]
    with pytest.raises(ValidationError, match="race_date_nz"):
        MoneyFlowRecord(**(row | {"race_date_nz": 5}))
