import json
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from pydantic import BaseModel

from racepool.races.event_response import _EventRace, _Odds, _Runner
from racepool.races.parts import Dividend, Entrant, Meeting, TotePool
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


CAPTURE, NORMALISED = "nztab-event-awapuni-2025-07-17.json", "race-awapuni-normalized.json"
UNPAID = "the capture without dividends"
TICKFORD, STARPELLO = "61181b8c-a540-43a8-900c-83ebe680e218", "f2f0758e-2e1f-4f14-aece-0b894334bcf8"
FIRST = {CAPTURE: TICKFORD, UNPAID: TICKFORD, NORMALISED: "8f3f3ac0-5689-4ec6-a560-c8b451bb383d"}
EMPTY_IS_UNTOLD = {"status", "name", "barrier", "barrier_position"}  # of the fields with text

# What a hole may change in the result: patterns of `leaves`. Records stand under their entrants' ids.
MONEY = ("records.*", "entrants.*_pool_amount", "entrants.*_pool_percentage", "*.money_flow_record_count", "warnings")
HOLDS = (*MONEY, "entrants.*.hold_percentage", "entrants.*.bet_percentage", "metrics.*_percentage_total")
RUNNERS = ("entrants.*", "records.*", "metrics.entrant_count", "metrics.money_flow_record_count", "warnings")
REPORT = ("race_pools*", "metrics.pool_field_count", "warnings")
WIN_ALONE = ("*.win_pool_percentage", "records.*.total_pool_amount")
OF_RACE = {
    **dict.fromkeys(("advertised_start", "race_date_nz", "start_time_nz"), ()),
    "status": ("status", "race.status", "warnings"),
    "race_number": ("race.race_number",),
    "meeting_id": ("race.meeting_id", "meeting.meeting_id"),
    "meeting_name": ("meeting.name",),
    "type": ("meeting.category",),
    **{name: (f"meeting.{name}",) for name in ("country", "track_condition")},
}
Hole: TypeAlias = tuple[str, tuple[str, ...]]


def holes_of_runner(path: str, runner_id: str, model: type[BaseModel]) -> Iterator[Hole]:
    for name, field in model.model_fields.items():
        if not field.is_required():
            touched = {"name": "*name", "barrier_position": "barrier", "odds": "*_odds"}.get(name, name)
            yield f"{path}.{name}", (f"entrants.{runner_id}.{touched}", f"records.{runner_id}.{touched}", "warnings")


def holes_of_event(poll: str) -> Iterator[Hole]:
    """Of each list, and of each nullable field of the race, of a runner, of an entry, a pool and a dividend."""
    is_paid = poll == CAPTURE
    yield "data.runners", RUNNERS
    yield from ((f"data.{path}", HOLDS) for path in ("money_tracker", "money_tracker.entrants"))
    yield "data.tote_pools", REPORT if is_paid else (*REPORT, *MONEY)
    yield "data.dividends", ()
    for name, field in _EventRace.model_fields.items():
        if not field.is_required():
            yield f"data.race.{name}", OF_RACE[name]
    yield from holes_of_runner("data.runners.0", TICKFORD, _Runner)
    for name in _Odds.model_fields:
        yield f"data.runners.0.odds.{name}", (f"*.{TICKFORD}.{name}_odds",)
    of_starpello = (f"*.{STARPELLO}.*", f"baseline.{STARPELLO}", "warnings")  # it has other entries
    yield "data.money_tracker.entrants.1.hold_percentage", (*of_starpello, "metrics.hold_percentage_total")
    yield "data.money_tracker.entrants.1.entrant_id", of_starpello
    yield (
        "data.money_tracker.entrants.1.bet_percentage",
        (f"*.{STARPELLO}.bet_percentage", "metrics.bet_percentage_total"),
    )
    for name in TotePool.model_fields:
        yield f"data.tote_pools.4.{name}", REPORT if is_paid else (*REPORT, *WIN_ALONE)
    yield from (
        (f"data.dividends.{index}.{name}", ()) for name in Dividend.model_fields for index in (0, 12) if is_paid
    )


def holes_of_race() -> Iterator[Hole]:
    yield "entrants", RUNNERS
    yield from ((path, HOLDS) for path in ("money_tracker", "money_tracker.entrants"))
    yield "pools", (*MONEY, *REPORT)
    yield "pools.winPool", (*WIN_ALONE, *REPORT)
    yield "pools.placePool", ("*.place_pool_percentage", "records.*.total_pool_amount", *REPORT)
    yield from ((path, ()) for path in ("pools.totalPool", "tote_pools", "dividends", "advertised_start"))
    yield from ((name, OF_RACE[name]) for name in ("status", "race_number", "meeting_id"))
    yield "meeting", ("meeting*",)
    yield "meeting.meeting", ("meeting.meeting_id",)
    yield from ((f"meeting.{name}", (f"meeting.{name}",)) for name in Meeting.model_fields if name != "meeting_id")
    for path, touched in holes_of_runner("entrants.0", FIRST[NORMALISED], Entrant):
        yield re.sub(r"_([a-z])", lambda match: match[1].upper(), path), touched
    of_starpello = (f"*.{STARPELLO}.*", "*.money_flow_record_count", "warnings")  # it has this entry alone
    yield "money_tracker.entrants.1.hold_percentage", (*of_starpello, "metrics.hold_percentage_total")
    yield "money_tracker.entrants.1.entrant_id", of_starpello
    yield (
        "money_tracker.entrants.1.bet_percentage",
        (f"*.{STARPELLO}.bet_percentage", "metrics.bet_percentage_total"),
    )


HOLES = [
    *((poll, *hole) for poll in (CAPTURE, UNPAID) for hole in holes_of_event(poll)),
    *((NORMALISED, *hole) for hole in holes_of_race()),
]


@cache
def body_of(poll: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((REAL_DATA / (CAPTURE if poll == UNPAID else poll)).read_bytes())
    if poll == UNPAID:
        del body["data"]["dividends"]
    return body


def changed(body: Any, path: Sequence[str], change: Callable[[Any], Any]) -> Any:  # noqa: ANN401  # JSON
    """The body with another value at the path, or without it if the change gives `...`; all else is shared."""
    key: Any = int(path[0]) if isinstance(body, list) else path[0]
    copy = body.copy()
    if path[1:]:
        copy[key] = changed(body[key], path[1:], change)
    elif (value := change(body.get(key))) is ...:
        copy.pop(key, None)
    else:
        copy[key] = value
    return copy


def forms_of_hole(body: dict[str, Any], path: str) -> Iterator[dict[str, Any]]:
    """Absent and null; and empty, if that tells nothing either."""
    steps = path.split(".")
    yield changed(body, steps, lambda _: ...)
    yield changed(body, steps, lambda _: None)
    if steps[-1] in EMPTY_IS_UNTOLD:
        yield changed(body, steps, lambda _: "")
    yield changed(body, steps, lambda value: type(value)() if isinstance(value, list | dict) else None)


def grown(body: dict[str, Any]) -> dict[str, Any]:
    """The next poll: twice the money in each pool."""
    data = body.get("data", body)
    after = {
        "tote_pools": [each | {"total": 2 * each["total"]} for each in data.get("tote_pools", [])],
        "dividends": [each | {"pool_size": 2 * each["pool_size"]} for each in data.get("dividends", [])],
        "pools": {name: value and 2 * value for name, value in data.get("pools", {}).items()},
    }
    return body | {"data": data | after} if "data" in body else body | after


def leaves(result: TransformedRace) -> dict[str, object]:
    """All values of a result by their paths; entrants and records by their ids."""
    dump = result.model_dump()
    dump["entrants"] = {each["entrant_id"]: each for each in dump["entrants"]}
    dump["records"] = {each["entrant_id"]: each for each in dump.pop("money_flow_records")}
    return dict(flat("", dump))


def flat(path: str, value: object) -> Iterator[tuple[str, object]]:
    if not isinstance(value, dict):
        yield path, value
        return
    for key, part in value.items():
        yield from flat(f"{path}.{key}" if path else key, part)


def chain(*bodies: dict[str, Any]) -> list[TransformedRace]:
    results: list[TransformedRace] = []
    for index, body in enumerate(bodies):
        previous = results[-1] if results else None
        polled_at = START + timedelta(seconds=15 * index)
        results.append(transform_race(RaceData.parse(body), polled_at=polled_at, previous=previous))
    return results


@pytest.mark.parametrize(("poll", "path", "touched"), HOLES)
def test_hole_changes_only_what_it_touches(poll: str, path: str, touched: tuple[str, ...]) -> None:
    body = body_of(poll)
    whole = leaves(chain(body, body)[1])

    for holed in forms_of_hole(body, path):
        result = leaves(chain(body, holed)[1])
        differing = {key for key in whole.keys() | result.keys() if whole.get(key, ...) != result.get(key, ...)}
        assert {key for key in differing if not any(fnmatch(key, pattern) for pattern in touched)} == set()


@pytest.mark.parametrize(("poll", "path", "touched"), HOLES)
def test_increments_around_a_hole_add_up_to_the_last_amounts(poll: str, path: str, touched: tuple[str, ...]) -> None:
    body = body_of(poll)
    next_one = grown(body)
    expected = chain(next_one)[0].baseline

    for holed in forms_of_hole(body, path):
        for results in (chain(body, holed, next_one), chain(holed, next_one), chain(body, holed, holed, next_one)):
            added: dict[str, tuple[int, int]] = dict.fromkeys(results[-1].baseline or {}, (0, 0))
            for record in (record for result in results for record in result.money_flow_records):
                win, place = added[record.entrant_id]
                added[record.entrant_id] = (
                    win + record.incremental_win_amount,
                    place + record.incremental_place_amount,
                )
            assert added == results[-1].baseline == expected, touched
