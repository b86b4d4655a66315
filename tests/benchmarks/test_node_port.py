"""The transform in JavaScript gives the same results as ours, to the last digit."""

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from benchmarks.contenders.registry import NODE_FOLDER
from benchmarks.loads import POLLED_AT
from benchmarks.races import write_loads
from racepool.races.race import RaceData
from racepool.races.transform import transform_race
from tests.programs import required

SAMPLES = Path(__file__).parents[2] / "samples"
VARIANTS = 60


def transformed_by_node(files: list[Path], polled_at: datetime) -> list[Any]:
    polled_at_ms = str(round(polled_at.timestamp() * 1000))
    command = [required("node"), str(NODE_FOLDER / "transform_files.js"), polled_at_ms, *map(str, files)]
    results: list[Any] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return results


def transformed_by_us(files: list[Path], polled_at: datetime) -> list[Any]:
    races = [RaceData.parse(path.read_bytes()) for path in files]
    return [transform_race(race, polled_at=polled_at).model_dump(mode="json") for race in races]


def varied(race: dict[str, Any], random: Random) -> dict[str, Any]:
    """Races with fractions of all lengths, all kinds of pools, and local start times on all days of the year."""

    def number(largest: int) -> float | None:
        return random.choice([random.randrange(largest), random.random() * largest, 0, None])

    for entry in race["money_tracker"]["entrants"]:
        entry |= {"hold_percentage": number(20), "bet_percentage": round(random.random() * 9, random.randrange(6))}
    race["money_tracker"]["entrants"].append({"entrant_id": "nobody", "hold_percentage": 1e-7})
    race["tote_pools"].append({"product_type": random.choice(["Win", "PLACE", "Big-6", "odd one"]), "total": 10.005})
    day = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=random.randrange(365))
    race |= {"race_date_nz": f"{day:%Y-%m-%d}", "start_time_nz": f"{random.randrange(24):02}:30"}
    if random.random() < 0.3:
        race["pools"] = {"winPool": number(90_000), "placePool": number(40_000)}
    return race


@pytest.mark.parametrize("polled_at", [POLLED_AT, POLLED_AT + timedelta(minutes=9, milliseconds=3750)])
def test_samples_are_transformed_alike(tmp_path: Path, polled_at: datetime) -> None:
    write_loads(tmp_path)
    files = sorted([*SAMPLES.glob("*.json"), *(path for path in tmp_path.iterdir() if ".result" not in path.name)])

    assert transformed_by_node(files, polled_at) == transformed_by_us(files, polled_at)


def test_races_with_odd_numbers_are_transformed_alike(tmp_path: Path) -> None:
    random = Random(1)
    files = [tmp_path / f"{index}.json" for index in range(VARIANTS)]
    for path in files:
        path.write_text(json.dumps(varied(json.loads((SAMPLES / "scratched.json").read_bytes()), random)))

    assert transformed_by_node(files, POLLED_AT) == transformed_by_us(files, POLLED_AT)
