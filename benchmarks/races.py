"""Invents the races of a run, and writes them as files for the drivers, with the results of our own transform."""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Final

from benchmarks.loads import NORMALISED, POLLED_AT, RAW, race_path, result_path
from racepool.races.race import RaceData
from racepool.races.transform import transform_race
from samples.polls import Poll, polls
from samples.races import Race, invented_race
from samples.responses import event_response, normalised

SEED: Final = 2025
RACES: Final = 8
FIELD: Final = 8  # runners of the first race; each next race has one more
RAW_BYTES: Final = 410_000  # the size of a response of the NZ TAB, most of it form guides
_SOME_STARTS: Final = 20


def write_loads(folder: Path) -> None:
    """Writes each race as a normalised race and as a raw response, and the result that each must have."""
    for index, (race, poll) in enumerate(_day()):
        _write(folder, NORMALISED, index, _json(normalised(race, poll)))
        _write(folder, RAW, index, raw_body(race, poll))


def raw_body(race: Race, poll: Poll) -> bytes:
    """A response of about RAW_BYTES. Its form guides get as many last starts as that needs."""

    def body(starts: int) -> bytes:
        return _json(event_response(race, poll, seed=f"{SEED}/{race.event_id}", last_starts=starts))

    bare, some = len(body(0)), len(body(_SOME_STARTS))
    return body(round(_SOME_STARTS * (RAW_BYTES - bare) / (some - bare)))


def _day() -> Iterator[tuple[Race, Poll]]:
    for number in range(1, RACES + 1):
        random = Random(f"{SEED}/{number}")  # noqa: S311  # invented races are no secrets
        race = invented_race(random, number=number, field=FIELD + number - 1)
        yield race, next(polls(race, [POLLED_AT], random))


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def _write(folder: Path, name: str, index: int, body: bytes) -> None:
    race_path(folder, name, index).write_bytes(body)
    result = transform_race(RaceData.parse(body), polled_at=POLLED_AT)
    result_path(folder, name, index).write_text(result.model_dump_json(), encoding="utf-8")
