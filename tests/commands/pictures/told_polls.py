"""Polls of one race as the transform makes them, for pictures."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from racepool.races.money_row import PollRows
from racepool.races.race import RaceData
from racepool.races.transform import transform_race
from racepool.races.transformed_race import TransformedRace

START = datetime(2025, 7, 17, 0, 15, tzinfo=UTC)
NAMES = {"a": "Paper Kettle", "b": "Tin Sonata", "c": "Third Moon"}


class Tote(NamedTuple):
    """What the tote tells at one poll.

    Attributes:
        minutes_left: to the start.
        holds: the percentage of each runner; a runner without one is not told. None: no money tracker at all.
        win: the win pool in dollars; None if it is not told. `place` likewise.
        scratched: the ids of scratched runners.
        start: as this poll tells it.
    """

    minutes_left: float
    holds: Mapping[str, float] | None
    win: float | None = 1_000
    place: float | None = 100
    runners: str = "abc"
    scratched: str = ""
    start: datetime = START

    @property
    def body(self) -> dict[str, Any]:
        """The poll as a service holds it."""
        pools = {"Win": self.win, "Place": self.place}
        return {
            "id": "race-1",
            "name": "Otterby Plate",
            "status": "open",
            "race_date_nz": "2025-07-17",
            "start_time_nz": "12:15",
            "advertised_start": int(self.start.timestamp()),
            "entrants": [
                {
                    "entrantId": each,
                    "runnerNumber": ord(each) - 96,
                    "name": NAMES[each],
                    "isScratched": each in self.scratched,
                }
                for each in self.runners
            ],
            "tote_pools": [{"product_type": kind, "total": dollars} for kind, dollars in pools.items()],
            "money_tracker": self.holds
            and {"entrants": [{"entrant_id": each, "hold_percentage": hold} for each, hold in self.holds.items()]},
        }


def transformed(totes: Iterable[Tote], *, is_chained: bool = True) -> list[TransformedRace]:
    """The polls, each counted from the one before, as a replay does it; or each alone, as `racepool transform` does."""
    results: list[TransformedRace] = []
    for tote in totes:
        polled_at = START - timedelta(minutes=tote.minutes_left)
        previous = results[-1] if results and is_chained else None
        results.append(transform_race(RaceData.parse(tote.body), polled_at=polled_at, previous=previous))
    return results


def polls(*totes: Tote, is_chained: bool = True) -> list[PollRows]:
    """The rows of these polls."""
    return [PollRows.of(race) for race in transformed(totes, is_chained=is_chained)]
