"""Writes the shipped samples, or a race day of successive polls: `python -m samples.generate --help`."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Final

from samples.holes import with_hole
from samples.polls import poll_instants, polls
from samples.races import Race, invented_race
from samples.responses import event_response, normalised

SHIPPED_SEED: Final = 2025
_SHIPPED_LAST_STARTS: Final = 4
_BEFORE_START: Final = timedelta(minutes=3)  # when a shipped sample was polled


def shipped_samples(seed: int = SHIPPED_SEED) -> dict[str, str]:
    """The three samples, file name -> text: a gallop, a harness race, one with scratched runners and unusual pools."""
    thoroughbred = invented_race(_rng(seed, "thoroughbred"), field=10)
    harness = invented_race(_rng(seed, "harness"), number=2, code="H", field=12)
    scratched = invented_race(_rng(seed, "scratched"), number=3, field=9, scratched=3)
    scratched = replace(scratched, unusual_pools=("Duet", "Lucky Ladder"))
    return {
        "thoroughbred.json": _text(_response_before_start(thoroughbred, seed)),
        "harness.json": _text(_response_before_start(harness, seed)),
        "scratched.json": _text(
            normalised(scratched, next(polls(scratched, [_instant(scratched)], _rng(seed, "poll"))))
        ),
    }


def race_day(
    seed: int, races: int, poll_count: int, last_starts: int, *, holes: bool = False
) -> Iterator[tuple[str, str]]:
    """File names and texts of NZ TAB responses, race by race; sorted by name they are in the order of the polls.

    With `holes`, some of the same polls lack a part.
    """
    for number in range(1, races + 1):
        race = invented_race(
            _rng(seed, f"race {number}"),
            number=number,
            code="H" if number % 3 == 0 else "T",
            field=8 + number % 7,
            scratched=number % 2,
        )
        gaps = _rng(seed, f"holes {number}")
        for poll in polls(race, poll_instants(race, poll_count), _rng(seed, f"polls {number}")):
            response = event_response(race, poll, seed=f"{seed}/{race.event_id}", last_starts=last_starts)
            if holes:
                response = with_hole(response, gaps)
            yield f"{poll.at:%Y%m%dT%H%M%SZ}-race-{number:02}.json", json.dumps(response, ensure_ascii=False)


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line and writes the files."""
    parser = argparse.ArgumentParser(prog="python -m samples.generate", description=__doc__)
    parser.add_argument("--seed", type=int, default=SHIPPED_SEED, help="the same seed writes the same files")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of the three samples")
    parser.add_argument("--race-day", type=Path, metavar="DIR", help="write a race day to this folder instead")
    parser.add_argument("--races", type=_positive, default=8, help="races of the day")
    parser.add_argument("--polls", type=_positive, default=40, help="polls of each race, the last one after its start")
    parser.add_argument("--last-starts", type=_positive, default=_SHIPPED_LAST_STARTS, help="form guide of each runner")
    parser.add_argument("--holes", action="store_true", help="one poll in five lacks its tracker, pools or runners")
    options = parser.parse_args(arguments)
    if options.holes and options.race_day is None:
        parser.error("--holes needs --race-day")
    if options.race_day is None:
        _write(options.out, iter(shipped_samples(options.seed).items()))
    else:
        day = race_day(options.seed, options.races, options.polls, options.last_starts, holes=options.holes)
        _write(options.race_day, day)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _rng(seed: int, purpose: str) -> Random:
    return Random(f"{seed}/{purpose}")  # noqa: S311  # invented races are no secrets


def _instant(race: Race) -> datetime:
    return race.start - _BEFORE_START


def _text(sample: dict[str, Any]) -> str:
    return json.dumps(sample, ensure_ascii=False, indent=1) + "\n"


def _write(folder: Path, files: Iterator[tuple[str, str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files:
        (folder / name).write_text(text, encoding="utf-8")


def _response_before_start(race: Race, seed: int) -> dict[str, Any]:
    poll = next(polls(race, [_instant(race)], _rng(seed, "poll")))
    return event_response(race, poll, seed=f"{seed}/{race.event_id}", last_starts=_SHIPPED_LAST_STARTS)


if __name__ == "__main__":
    main()
