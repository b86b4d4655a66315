"""Polls, rows and entries for tests, with sensible defaults."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from racepool.commands.replay.poll import CapturedPoll, PollEntry
from racepool.races.money_row import MoneyRow, PollRows

START = datetime(2025, 7, 17, 0, 15, tzinfo=UTC)


def row(
    win: int = 0,
    *,
    entrant: str = "a",
    race: str = "race-1",
    minutes_left: float = 1.0,
    **fields: Any,  # noqa: ANN401  # any of a row's
) -> MoneyRow:
    """A record of `win` cents, `minutes_left` before the start."""
    known: dict[str, Any] = {
        "entrant_id": entrant, "race_id": race, "race_date_nz": "2025-07-17", "is_baseline": False,
        "time_to_start": minutes_left, "time_interval": 0.0,
        "interval_type": "30s", "polling_timestamp": START - timedelta(minutes=minutes_left), "hold_percentage": 10.0,
        "bet_percentage": None, "win_pool_percentage": 10.0, "place_pool_percentage": None, "win_pool_amount": win,
        "place_pool_amount": 7, "total_pool_amount": win + 7, "incremental_win_amount": win,
        "incremental_place_amount": 7, "fixed_win_odds": 2.5, "fixed_place_odds": None, "pool_win_odds": 2.4,
        "pool_place_odds": None, "race_name": "Otterby Plate", "race_number": 3, "meeting_name": "Kōwhai Bend",
        "start_time": START, "runner_number": 1, "runner_name": "Paper Kettle", "is_scratched": False,
    }  # fmt: skip
    return MoneyRow.model_validate(known | fields)


def good(race: str, number: int, *wins: int, start: datetime = START) -> PollEntry:
    """The entry of a poll that succeeded, with this win money on its entrants a, b, c ..."""
    rows = tuple(row(win, entrant=entrant, race=race) for win, entrant in zip(wins, "abcdefgh", strict=False))
    return PollEntry(race_id=race, number=number, result=poll(*rows, race=race, start=start))


def poll(*rows: MoneyRow, race: str = "race-1", start: datetime = START, polled_at: datetime = START) -> PollRows:
    """A poll with these rows, which tells the money of no other runner."""
    return PollRows(
        race_id=race,
        race_date_nz="2025-07-17",
        start_time=start,
        polled_at=rows[0].polling_timestamp if rows else polled_at,
        rows=rows,
        baseline={each.entrant_id: (each.win_pool_amount, each.place_pool_amount) for each in rows} or None,
    )


def failed(race: str, number: int) -> PollEntry:
    return PollEntry(race_id=race, number=number, error="broke")


def chain(race: str, count: int) -> tuple[CapturedPoll, ...]:
    """The polls of a race, one a minute."""
    return tuple(
        CapturedPoll(Path(f"{race}-{number}.json"), race, None, START + timedelta(minutes=number), f"{race}/{number}")
        for number in range(count)
    )


def chains(**counts: int) -> dict[str, tuple[CapturedPoll, ...]]:
    return {race: chain(race, count) for race, count in counts.items()}


def wins_of(polls: Iterable[PollRows]) -> list[int]:
    return [row.win_pool_amount for each in polls for row in each.rows]
