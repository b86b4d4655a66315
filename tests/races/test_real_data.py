from datetime import UTC, datetime
from pathlib import Path

import pytest

from racepool.races.race import RaceData
from racepool.races.transform import transform_race
from racepool.races.transformed_race import TransformedRace

REAL_DATA = Path(__file__).parents[2].parent / "shared" / "data"
START = datetime(2025, 7, 17, 0, 50, tzinfo=UTC)

pytestmark = pytest.mark.skipif(not REAL_DATA.is_dir(), reason=f"the real captures are not at {REAL_DATA}")


def result_of(name: str) -> TransformedRace:
    return transform_race(RaceData.parse((REAL_DATA / name).read_bytes()), polled_at=START)


def test_real_capture_gives_the_worked_figures() -> None:
    result = result_of("nztab-event-awapuni-2025-07-17.json")
    tickford = next(record for record in result.money_flow_records if record.hold_percentage == 18)

    assert (result.metrics.money_flow_record_count, result.metrics.entrant_count) == (8, 8)
    assert (result.metrics.hold_percentage_total, result.metrics.pool_field_count) == (101.0, 6)
    assert sum(entrant.hold_percentage or 0 for entrant in result.entrants) == 93.0
    assert result.race_pools is not None
    assert (result.race_pools.win_pool_total, result.race_pools.place_pool_total) == (915_138, 392_351)
    assert (result.race_pools.multi_leg_pool_total, result.race_pools.data_quality_score) == (812_661, 100)
    assert (tickford.win_pool_amount, tickford.place_pool_amount) == (164_725, 70_623)
    assert result.race.start_time == START
    assert result.meeting is not None
    assert (result.meeting.date, result.meeting.category, result.meeting.tote_status) == ("2025-07-17", "T", None)
    assert [warning.partition(";")[0].split("'")[::2] for warning in result.warnings] == [
        ["money tracker: id ", " is no entrant"]
    ]


def test_normalised_example_gives_the_worked_figures() -> None:
    result = result_of("race-awapuni-normalized.json")
    ruji = next(record for record in result.money_flow_records if record.hold_percentage == 11)
    tickford = next(entrant for entrant in result.entrants if entrant.name == "TICKFORD")

    assert result.metrics.money_flow_record_count == 7
    assert (result.metrics.hold_percentage_total, result.metrics.bet_percentage_total) == (44.0, 39.0)
    assert result.warnings == ("hold percentages add up to 44, not to about 100",)
    assert (ruji.win_pool_amount, ruji.place_pool_amount, ruji.total_pool_amount) == (825_000, 550_000, 1_375_000)
    assert (tickford.hold_percentage, tickford.win_pool_amount) == (0.0, None)
    assert tickford.entrant_id not in {record.entrant_id for record in result.money_flow_records}
    assert result.meeting is not None
    assert (result.meeting.meeting_id, result.meeting.date) == ("NZ-AWA-20250717", "2025-07-17")
    assert result.race.start_time == START
