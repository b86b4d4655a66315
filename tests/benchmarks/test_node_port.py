"""The transform in JavaScript gives the same results as ours, to the last digit."""

import json
import subprocess
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import combinations
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


def runners_of(data: dict[str, Any]) -> list[dict[str, Any]]:
    return data.get("runners") or data.get("entrants") or []


def tell_holds(data: dict[str, Any], *holds: float | None) -> None:
    """The first hold is of an id that is no runner, each next one of a runner; the other runners have no entry."""
    ids = ["nobody", *(runner.get("entrant_id") or runner["entrantId"] for runner in runners_of(data))]
    entries = [{"entrant_id": name, "hold_percentage": hold} for name, hold in zip(ids, holds, strict=False)]
    data["money_tracker"] = {"entrants": [*entries, {"entrant_id": None, "bet_percentage": 5.5}]}


def tell_pools(data: dict[str, Any], win: float | None, place: float | None) -> None:
    data["tote_pools"] = [{"product_type": "Win", "total": win}, {"product_type": "Place", "total": place}]


def pay(data: dict[str, Any], **sizes: float | None) -> None:
    """Dividends such as `Pool Win` that the keyword `Pool_Win` names, each also with half its size."""
    names = {name.replace("_", " "): size for name, size in sizes.items()}
    data["dividends"] = [
        {"product_name": name, "pool_size": size and size * part} for part in (1, 0.5) for name, size in names.items()
    ]


def pay_only(data: dict[str, Any], **sizes: float | None) -> None:
    data["tote_pools"] = None
    pay(data, **sizes)


def change_runners(data: dict[str, Any], **changes: object) -> None:
    """The first runner loses its key where a change is `...`, and gets a new value elsewhere."""
    for runner in runners_of(data)[:1]:
        runner.update(changes)
        for key in [key for key, value in runner.items() if value is ...]:
            del runner[key]


SUMMER = 1767225600  # 1 January 2026, 13:00 in New Zealand
HOLES: Mapping[str, Callable[[dict[str, Any], dict[str, Any]], object]] = {
    "no tracker": lambda data, _: data.update(money_tracker=None),
    "tracker without a list": lambda data, _: data.update(money_tracker={"entrants": None}),
    "tracker without entries": lambda data, _: data.update(money_tracker={"entrants": []}),
    "tracker without holds": lambda data, _: tell_holds(data),
    "runners without an entry": lambda data, _: tell_holds(data, 0, 60.5, 0, None, 39.25),
    "hold total of 95": lambda data, _: tell_holds(data, 1.25, 58.75, 35),
    "holds of zero": lambda data, _: tell_holds(data, 0, 0, 0),
    "no pools": lambda data, _: data.pop("tote_pools"),
    "null pools": lambda data, _: data.update(tote_pools=None),
    "empty pools": lambda data, _: data.update(tote_pools=[]),
    "pools without totals": lambda data, _: tell_pools(data, None, None),
    "win pool alone": lambda data, _: tell_pools(data, 9151.385, None),
    "place pool alone": lambda data, _: tell_pools(data, None, 3923.51),
    "win pool of zero alone": lambda data, _: tell_pools(data, 0, None),
    "pools of zero": lambda data, _: tell_pools(data, 0, 0),
    "service pools": lambda data, _: data.update(pools={"winPool": 10.5, "placePool": 0}),
    "service place pool alone": lambda data, _: data.update(pools={"winPool": None, "placePool": 7}),
    "dividends too": lambda data, _: pay(data, Pool_Win=77.5, pool_PLACE=88, Fixed_Win=9e5),
    "dividends without sizes": lambda data, _: pay(data, Pool_Win=None),
    "dividends only": lambda data, _: pay_only(
        data, Pool_Win=77.5, Pool_First4=5, Pool_First_Four=6.01, Pool_Daily_Double=3, Pool_Duet=4, Fixed_Win=9e5
    ),
    "no runners": lambda data, _: data.update(runners=None, entrants=[]),
    "nameless runner": lambda data, _: change_runners(data, name=None),
    "runner without a name": lambda data, _: change_runners(data, name=...),
    "barrier position": lambda data, _: change_runners(data, barrier=0, barrier_position="Fr7"),
    "barrier position beside a barrier": lambda data, _: change_runners(data, barrier=5, barrier_position=8),
    "barrier position of none": lambda data, _: change_runners(data, barrier="Sr3", barrier_position="Fr"),
    "no barrier": lambda data, _: change_runners(data, barrier=None, barrier_position=None),
    "no odds": lambda data, _: change_runners(data, odds=None, fixedWinOdds=None),
    "no status": lambda _, race: race.pop("status"),
    "empty status": lambda _, race: race.update(status="  "),
    "status of another kind": lambda _, race: race.update(status=" Stewards' inquiry "),
    "live": lambda _, race: race.update(status="LIVE"),
    "no local start": lambda _, race: race.update(advertised_start=SUMMER, race_date_nz=None, start_time_nz=None),
    "no local date": lambda _, race: race.update(advertised_start=1752713415, race_date_nz=None),
    "no local time": lambda _, race: race.update(advertised_start=SUMMER, start_time_nz=None),
    "no advertised start": lambda _, race: race.update(
        advertised_start=0, race_date_nz="2025-12-01", start_time_nz="01:30"
    ),
    "no meeting": lambda data, race: (data.update(meeting=None), race.update(meeting_id=None, meeting_name=None)),
}


def with_holes(sample: Path, *names: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(sample.read_bytes())
    data = body.get("data", body)
    for name in names:
        HOLES[name](data, data.get("race", data))
    return body


@pytest.mark.parametrize("sample", ["scratched", "harness"])
def test_races_with_holes_are_transformed_alike(tmp_path: Path, sample: str) -> None:
    holes = [*((name,) for name in HOLES), *combinations(HOLES, 2)]
    files = [tmp_path / f"{index}.json" for index in range(len(holes))]
    for path, names in zip(files, holes, strict=True):
        path.write_text(json.dumps(with_holes(SAMPLES / f"{sample}.json", *names)))

    by_node, by_us = transformed_by_node(files, POLLED_AT), transformed_by_us(files, POLLED_AT)

    assert [names for names, node, ours in zip(holes, by_node, by_us, strict=True) if node != ours] == []
    assert {warning.partition(";")[0] for result in by_us for warning in result["warnings"]} >= {
        "the status of the race is not told",
        "neither the win nor the place pool is told: no records",
    }


def test_barriers_and_dates_of_meetings_are_read_alike(tmp_path: Path) -> None:
    positions: list[object] = [None, 0, "", "Fr", "Fr3", 4]
    dates = ["2025-07-17", "2025-02-30", "not-a-date", "", "2025-07-17T09:00", None]
    files = [tmp_path / f"{index}.json" for index in range(len(dates))]
    for path, position, date in zip(files, positions, dates, strict=True):
        race = json.loads((SAMPLES / "scratched.json").read_bytes())
        for runner in race["entrants"]:
            runner |= {"barrier": 5, "barrier_position": position}
        path.write_text(json.dumps(race | {"meeting": {"meeting": "m1", "date": date}}))

    assert transformed_by_node(files, POLLED_AT) == transformed_by_us(files, POLLED_AT)
