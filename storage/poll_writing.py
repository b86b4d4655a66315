"""Writes polls: each whole or not at all, and a poll that is written again replaces its rows.

The row of a poll in `polls` is also the lock of that poll. The writer that holds the lock deletes the old rows, and
copies the new ones. All writers lock in the same order, so no two of them wait for each other.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime
from functools import partial
from itertools import islice
from operator import attrgetter
from typing import Final

import psycopg
from psycopg import sql

from racepool.protocol.errors import StoreError
from racepool.races.money_row import MoneyRow, PollRows
from racepool.races.transformed_race import TransformedRace
from racepool.storage.connections import Connections
from racepool.storage.schema import Connection, make_day

COLUMNS: Final = tuple(MoneyRow.model_fields)
BATCH: Final = 100  # polls of one transaction: about 1,400 rows
_SHOWN: Final = 5  # faults in one error
_TEXTS: Final = ("entrant_id", "runner_name", "interval_type", "race_name", "meeting_name")

_LOCK: Final = """
INSERT INTO racepool.polls AS polls (race_id, polling_timestamp, race_date_nz, start_time, kept)
SELECT race_id, polling_timestamp, race_date_nz, start_time, kept::jsonb
FROM unnest(%s::text[], %s::timestamptz[], %s::date[], %s::timestamptz[], %s::text[])
  AS given (race_id, polling_timestamp, race_date_nz, start_time, kept)
ON CONFLICT (race_id, polling_timestamp) DO UPDATE SET race_id = excluded.race_id
RETURNING race_id, polling_timestamp, race_date_nz, xmax <> 0
"""
"""Inserts new polls, and locks those that exist. It returns the stored day of each, and whether the poll existed."""
_CLEAR: Final = """
DELETE FROM racepool.money_flow
USING unnest(%s::text[], %s::timestamptz[]) AS given (race_id, polling_timestamp)
WHERE money_flow.race_date_nz = ANY(%s::date[])
  AND money_flow.race_id = given.race_id AND money_flow.polling_timestamp = given.polling_timestamp
"""
_RENEW: Final = """
UPDATE racepool.polls
SET race_date_nz = given.race_date_nz, start_time = given.start_time, kept = given.kept::jsonb
FROM unnest(%s::text[], %s::timestamptz[], %s::date[], %s::timestamptz[], %s::text[])
  AS given (race_id, polling_timestamp, race_date_nz, start_time, kept)
WHERE polls.race_id = given.race_id AND polls.polling_timestamp = given.polling_timestamp
"""
_COPY: Final = sql.SQL("COPY racepool.money_flow ({}) FROM STDIN").format(
    sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
)
_values = attrgetter(*COLUMNS)


class PollWriting:
    """Writes polls on these connections; remembers the days that have a partition."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._days: set[date] = set()

    async def write(self, results: Iterable[TransformedRace | PollRows]) -> None:
        """Writes all polls that can be stored.

        Raises:
            StoreError: the database failed; or, after all other polls were written, some cannot be stored.
        """
        faults: list[str] = []
        left = iter(results)
        while batch := list(islice(left, BATCH)):
            sound: dict[tuple[str, datetime], PollRows] = {}
            for result in batch:
                poll = result if isinstance(result, PollRows) else PollRows.of(result)
                if fault := _fault(poll):
                    faults.append(_of(poll, fault))
                else:
                    sound[poll.race_id, poll.polled_at] = poll  # if a poll comes twice, the last one counts
            faults += await self._refused([sound[key] for key in sorted(sound)])
        if faults:
            more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
            raise StoreError(
                f"{len(faults)} of the polls cannot be stored: {'; '.join(faults[:_SHOWN])}{more}; "
                "all others of this call are stored; correct these, and write them again"
            )

    async def _refused(self, polls: Sequence[PollRows]) -> list[str]:
        """Writes the polls, and returns a text for each poll that the database refused."""
        try:
            await self._connections.run(partial(self._put, polls))
        except StoreError as error:
            if not isinstance(error.__cause__, psycopg.DataError | psycopg.IntegrityError):
                raise
            if len(polls) == 1:
                return [_of(polls[0], str(error))]
            return [fault for poll in polls for fault in await self._refused([poll])]
        return []

    async def _put(self, polls: Sequence[PollRows], connection: Connection) -> None:
        if not polls:
            return
        for day in sorted({date.fromisoformat(poll.race_date_nz) for poll in polls} - self._days):
            await make_day(connection, day)
            self._days.add(day)
        try:
            async with connection.transaction():
                await _make_room(connection, polls)
                async with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
                    for poll in polls:
                        for row in poll.rows:
                            await copy.write_row(_values(row))
        except psycopg.errors.CheckViolation:  # a day was dropped after it was made
            self._days.clear()
            raise


async def _make_room(connection: Connection, polls: Sequence[PollRows]) -> None:
    """Locks the polls, and deletes the rows of those that were written before."""
    found = await connection.execute(_LOCK, _parameters(polls))
    before = [row[:3] for row in await found.fetchall() if row[3]]
    if before:
        race_ids, instants, days = map(list, zip(*before, strict=True))
        await connection.execute(_CLEAR, [race_ids, instants, days])
        keys = {row[:2] for row in before}
        await connection.execute(
            _RENEW, _parameters([poll for poll in polls if (poll.race_id, poll.polled_at) in keys])
        )


def _parameters(polls: Sequence[PollRows]) -> list[list[object]]:
    return [
        [poll.race_id for poll in polls],
        [poll.polled_at for poll in polls],
        [date.fromisoformat(poll.race_date_nz) for poll in polls],
        [poll.start_time for poll in polls],
        [json.dumps(_kept(poll)) for poll in polls],
    ]


def _kept(poll: PollRows) -> dict[str, tuple[int, int]]:
    """The part of the baseline that no row of this poll tells."""
    told = {row.entrant_id for row in poll.rows}
    return {entrant_id: pair for entrant_id, pair in (poll.baseline or {}).items() if entrant_id not in told}


def _of(poll: PollRows, fault: str) -> str:
    return f"race {poll.race_id!r}, poll of {poll.polled_at.isoformat()}: {fault}"


def _fault(poll: PollRows) -> str | None:
    """Why this poll cannot be stored, as far as it can be found without the database; None if nothing is found."""
    for field, text in _texts(poll):
        try:
            text.encode()
        except UnicodeEncodeError:
            return f"{field} is no Unicode text: {text!r}"
        if "\0" in text:
            return f"{field} has a NUL character, which PostgreSQL cannot hold: {text!r}"
    try:
        date.fromisoformat(poll.race_date_nz)
    except ValueError:
        return f"race_date_nz is no date: {poll.race_date_nz!r}"
    key = (poll.race_id, poll.race_date_nz, poll.polled_at)
    if any((row.race_id, row.race_date_nz, row.polling_timestamp) != key for row in poll.rows):
        return "rows has a row of another poll"
    return None


def _texts(poll: PollRows) -> Iterator[tuple[str, str]]:
    yield "race_id", poll.race_id
    for row in poll.rows:
        yield from ((field, text) for field in _TEXTS if (text := getattr(row, field)) is not None)
    yield from (("baseline", entrant_id) for entrant_id in poll.baseline or ())
