import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from racepool.races.race import RaceData
from racepool.races.transform import transform_race
from racepool.races.transformed_race import TransformedRace
from samples.generate import main, race_day, shipped_samples

SAMPLES = Path(__file__).parents[2] / "samples"
NAMES = ["harness.json", "scratched.json", "thoroughbred.json"]


def race_of(name: str) -> RaceData:
    return RaceData.parse((SAMPLES / name).read_bytes())


def transformed(name: str) -> TransformedRace:
    return transform_race(race_of(name), polled_at=datetime(2025, 7, 17, tzinfo=UTC))


def polled_at(text: str) -> datetime:
    return datetime.fromisoformat(json.loads(text)["header"]["generated_time"])


def test_shipped_samples_are_what_the_generator_writes() -> None:
    assert {path.name: path.read_text(encoding="utf-8") for path in SAMPLES.glob("*.json")} == shipped_samples()


@pytest.mark.parametrize("name", NAMES)
def test_shipped_sample_is_a_race_with_money(name: str) -> None:
    result = transformed(name)
    tracker = race_of(name).money_tracker

    assert (SAMPLES / name).stat().st_size < 100_000
    assert tracker is not None
    assert len(tracker.entrants) > 4 * result.metrics.entrant_count
    assert result.metrics.hold_percentage_total == pytest.approx(100, abs=5)
    assert result.money_flow_records
    assert result.race_pools is not None
    assert result.race_pools.win_pool_total > result.race_pools.place_pool_total > 0


def test_thoroughbred_and_harness_samples_are_responses_with_form_guides() -> None:
    for name in ("thoroughbred.json", "harness.json"):
        response = json.loads((SAMPLES / name).read_bytes())

        assert set(response) == {"header", "params", "data"}
        assert all(runner["last_starts"] for runner in response["data"]["runners"])
        assert transformed(name).warnings == ()


def test_harness_sample_has_mobile_barriers() -> None:
    barriers = [runner["barrier"] for runner in json.loads((SAMPLES / "harness.json").read_bytes())["data"]["runners"]]

    assert {barrier[:2] for barrier in barriers} == {"Fr", "Sr"}
    assert [entrant.barrier for entrant in race_of("harness.json").entrants] == [
        int(barrier[2:]) for barrier in barriers
    ]


def test_scratched_sample_is_normalised_with_scratched_runners_and_unusual_pools() -> None:
    result = transformed("scratched.json")
    scratched = [entrant for entrant in result.entrants if entrant.is_scratched]

    assert "entrants" in json.loads((SAMPLES / "scratched.json").read_bytes())
    assert len(scratched) == 3
    assert sum(entrant.is_late_scratched for entrant in scratched) == 1
    assert {entrant.entrant_id for entrant in scratched}.isdisjoint(r.entrant_id for r in result.money_flow_records)
    assert result.warnings == (
        "pool type 'Duet' is not recognised; it counts as other",
        "pool type 'Lucky Ladder' is not recognised; it counts as other",
    )
    assert result.race_pools is not None
    assert result.race_pools.data_quality_score == 90
    assert result.race_pools.multi_leg_pool_total > 0


def test_no_host_in_the_samples_is_real() -> None:
    for name in NAMES:
        text = (SAMPLES / name).read_text(encoding="utf-8")

        assert text.count("://") == text.count("https://silks.example/")


def test_same_seed_writes_the_same_race_day() -> None:
    first = list(race_day(7, races=2, poll_count=3, last_starts=1))

    assert first == list(race_day(7, races=2, poll_count=3, last_starts=1))
    assert first != list(race_day(8, races=2, poll_count=3, last_starts=1))


def test_polls_of_a_race_follow_each_other_as_a_service_would_poll() -> None:
    files = list(race_day(7, races=1, poll_count=40, last_starts=1))
    texts = [text for _, text in files]
    races = [RaceData.parse(text) for text in texts]
    start = datetime.fromtimestamp(races[0].advertised_start or 0, UTC)

    assert [name for name, _ in files] == sorted(name for name, _ in files)
    assert len({race.id for race in races}) == 1
    for before, after in pairwise(map(polled_at, texts)):
        assert after - before == timedelta(seconds=15 if start - before <= timedelta(minutes=5) else 60)
    assert polled_at(texts[0]) < start - timedelta(minutes=15)
    assert [race.status for race in races] == ["open"] * 36 + ["closed"] * 2 + ["interim", "final"]


def test_pools_grow_and_holds_shift_from_poll_to_poll() -> None:
    races = [RaceData.parse(text) for _, text in race_day(7, races=1, poll_count=30, last_starts=1)]
    previous = None
    results = []
    for race in races:
        previous = transform_race(race, polled_at=datetime(2025, 7, 17, tzinfo=UTC), previous=previous)
        results.append(previous)

    pools = [result.race_pools.total_race_pool for result in results if result.race_pools]
    holds = {tuple(entrant.hold_percentage for entrant in result.entrants) for result in results}
    assert pools[0] < pools[10] < pools[-1]
    assert pools == sorted(pools)
    assert len(holds) > 10
    assert all(result.warnings == () for result in results)


def test_race_day_has_gallops_and_harness_races_with_names_in_the_order_of_polls() -> None:
    files = list(race_day(7, races=3, poll_count=4, last_starts=1))

    by_name = [text for _, text in sorted(files)]
    assert len(dict(files)) == 12
    assert [polled_at(text) for text in by_name] == sorted(polled_at(text) for text in by_name)
    assert {json.loads(text)["data"]["race"]["type"] for _, text in files} == {"T", "H"}


def test_command_line_writes_the_samples(tmp_path: Path) -> None:
    main(["--out", str(tmp_path / "new")])

    assert {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "new").iterdir()} == shipped_samples()


def test_command_line_writes_a_race_day(tmp_path: Path) -> None:
    main(["--race-day", str(tmp_path), "--races", "2", "--polls", "3", "--seed", "7", "--last-starts", "40"])

    files = sorted(tmp_path.iterdir())
    assert len(files) == 6
    assert all(path.stat().st_size > 200_000 for path in files)


@pytest.mark.parametrize("number", ["0", "-1", "x"])
def test_command_line_refuses_nonsense(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--races", number])

    assert "--races" in capsys.readouterr().err
