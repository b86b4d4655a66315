"""A race day whose polls leave things out."""

import json
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from racepool.races.race import RaceData
from racepool.races.transform import transform_race
from racepool.races.transformed_race import TransformedRace
from samples.generate import main, race_day
from samples.holes import HOLES

WHOLE = list(race_day(7, races=8, poll_count=40, last_starts=1))
WITH_HOLES = list(race_day(7, races=8, poll_count=40, last_starts=1, holes=True))
PARTS = ("money_tracker", "tote_pools", "runners")


def hole_in(text: str) -> tuple[str, Any] | None:
    """The part that a poll lacks, and what it tells instead of it."""
    data = json.loads(text)["data"]
    holes = [(key, data.get(key, "absent")) for key in PARTS]
    return next((hole for hole in holes if hole in HOLES), None)


def chain(texts: list[str]) -> Iterator[TransformedRace]:
    previous = None
    for text in texts:
        polled_at = datetime.fromisoformat(json.loads(text)["header"]["generated_time"])
        previous = transform_race(RaceData.parse(text), polled_at=polled_at, previous=previous)
        yield previous


def test_about_one_poll_in_five_has_a_hole_and_the_others_stay_the_same() -> None:
    changed = [after for before, after in zip(WHOLE, WITH_HOLES, strict=True) if before != after]

    assert 0.15 < len(changed) / len(WHOLE) < 0.25
    assert all(hole_in(text) for _, text in changed)
    assert [name for name, _ in WITH_HOLES] == [name for name, _ in WHOLE]


def test_each_part_is_absent_null_and_empty_somewhere() -> None:
    kinds = Counter(str(hole) for _, text in WITH_HOLES if (hole := hole_in(text)))

    assert set(kinds) == {str(hole) for hole in HOLES}
    assert len(HOLES) == 9


def test_same_seed_makes_the_same_holes() -> None:
    assert list(race_day(7, races=8, poll_count=40, last_starts=1, holes=True)) == WITH_HOLES
    assert list(race_day(8, races=8, poll_count=40, last_starts=1, holes=True)) != WITH_HOLES


@pytest.mark.parametrize("number", range(1, 9))
def test_increments_of_a_race_with_holes_add_up_to_the_last_told_amounts(number: int) -> None:
    results = list(chain([text for name, text in WITH_HOLES if f"race-{number:02}" in name]))

    win: Counter[str] = Counter()
    for result in results:
        win.update({record.entrant_id: record.incremental_win_amount for record in result.money_flow_records})
    assert any(not result.money_flow_records for result in results)
    assert results[-1].baseline is not None
    assert win == {entrant_id: amount for entrant_id, (amount, _) in results[-1].baseline.items() if amount}


def test_command_line_writes_a_race_day_with_holes(tmp_path: Path) -> None:
    main(["--race-day", str(tmp_path), "--races", "2", "--polls", "20", "--seed", "7", "--last-starts", "1", "--holes"])

    texts = [path.read_text(encoding="utf-8") for path in tmp_path.iterdir()]
    assert len(texts) == 40
    assert any(hole_in(text) for text in texts)


def test_holes_without_a_race_day_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--holes"])

    assert "--holes needs --race-day" in capsys.readouterr().err
