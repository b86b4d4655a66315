"""Where the money-flow records are kept: memory, SQLite or PostgreSQL. For another database, write one more class."""

import asyncio
import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from racepool import TransformedRace
from racepool.storage import PostgresStore

Row = Mapping[str, Any]
POSTGRES_URLS = ("postgresql://", "postgres://")
SCHEMA = """
CREATE TABLE IF NOT EXISTS money_flow (
    race_id TEXT NOT NULL,
    polling_timestamp TEXT NOT NULL,
    entrant_id TEXT NOT NULL,
    record TEXT NOT NULL,
    PRIMARY KEY (race_id, polling_timestamp, entrant_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS baselines (
    race_id TEXT PRIMARY KEY,
    polling_timestamp TEXT NOT NULL,
    baseline TEXT NOT NULL
) WITHOUT ROWID;
"""
FORGET = "DELETE FROM money_flow WHERE race_id = ? AND polling_timestamp = ?"
KEEP = "INSERT INTO money_flow VALUES (?, ?, ?, ?)"
KEEP_BASELINE = """
INSERT INTO baselines VALUES (?, ?, ?)
ON CONFLICT DO UPDATE SET polling_timestamp = excluded.polling_timestamp, baseline = excluded.baseline
WHERE excluded.polling_timestamp >= baselines.polling_timestamp
"""
BASELINE = "SELECT baseline FROM baselines WHERE race_id = ?"


class Store(Protocol):
    """Keeps records by race, poll and entrant. `add` returns when the whole poll is stored, or nothing of it."""

    async def open(self) -> None:
        """Makes sure that the store can be used. If it raises, the service does not start."""

    async def add(self, race: TransformedRace) -> None:
        """Stores the records of one poll. They replace those of the same poll."""

    async def previous(self, race_id: str) -> Sequence[Row]:
        """The amounts from which the next poll counts, in a form that `exec` takes; empty until a poll told money.

        Each entrant has the amounts of the last poll that told them. They may be of an earlier poll than the last one,
        because a poll that leaves the money out has no records.
        """

    async def aclose(self) -> None:
        """Releases its resources."""


def store_of(database: str | None) -> Store:
    """The store for the setting: a PostgreSQL URL, the path of a SQLite file, or None for memory."""
    if database is None:
        return MemoryStore()
    return DatabaseStore(database) if database.startswith(POSTGRES_URLS) else SqliteStore(Path(database))


class MemoryStore:
    """Keeps the last poll of each race. Its baseline has the last told amounts, whatever the poll left out."""

    def __init__(self) -> None:
        self._last: dict[str, TransformedRace] = {}

    async def open(self) -> None:
        """See Store."""

    async def add(self, race: TransformedRace) -> None:
        """See Store."""
        last = self._last.get(race.race_id, race)
        self._last[race.race_id] = max(last, race, key=lambda each: each.transformed_at)

    async def previous(self, race_id: str) -> Sequence[Row]:
        """See Store."""
        last = self._last.get(race_id)
        return [] if last is None else _rows(race_id, last.baseline or {})

    async def aclose(self) -> None:
        """See Store."""


class SqliteStore:
    """One file. Threads write it, so that the disk never blocks the event loop; each poll is one transaction."""

    def __init__(self, path: Path) -> None:
        self._lock = Lock()
        self._connection = sqlite3.connect(path, check_same_thread=False)  # the lock makes it safe
        self._connection.execute("PRAGMA journal_mode = WAL")  # readers do not block the service
        self._connection.executescript(SCHEMA)

    async def open(self) -> None:
        """See Store. The file is open already."""

    async def add(self, race: TransformedRace) -> None:
        """See Store."""
        await asyncio.to_thread(self._write, race)

    async def previous(self, race_id: str) -> Sequence[Row]:
        """See Store."""
        return await asyncio.to_thread(self._read, race_id)

    async def aclose(self) -> None:
        """See Store."""
        await asyncio.to_thread(self._connection.close)

    def _write(self, race: TransformedRace) -> None:
        poll = race.race_id, race.transformed_at.isoformat()
        records = [(*poll, record.entrant_id, record.model_dump_json()) for record in race.money_flow_records]
        with self._lock, self._connection:
            self._connection.execute(FORGET, poll)
            self._connection.executemany(KEEP, records)
            if race.baseline is not None:
                self._connection.execute(KEEP_BASELINE, (*poll, json.dumps(race.baseline)))

    def _read(self, race_id: str) -> list[Row]:
        with self._lock, closing(self._connection.execute(BASELINE, (race_id,))) as found:
            return [row for (baseline,) in found for row in _rows(race_id, json.loads(baseline))]


class DatabaseStore:
    """A PostgreSQL database. While its server restarts, calls wait."""

    def __init__(self, url: str) -> None:
        self._store = PostgresStore(url)

    async def open(self) -> None:
        """See Store."""
        await self._store.create()

    async def add(self, race: TransformedRace) -> None:
        """See Store."""
        await self._store.write([race])

    async def previous(self, race_id: str) -> Sequence[Row]:
        """See Store."""
        return (await self._store.previous([race_id]))[race_id]

    async def aclose(self) -> None:
        """See Store."""
        await self._store.aclose()


def _rows(race_id: str, baseline: Mapping[str, Sequence[int]]) -> list[Row]:
    return [
        {"race_id": race_id, "entrant_id": entrant_id, "win_pool_amount": win, "place_pool_amount": place}
        for entrant_id, (win, place) in baseline.items()
    ]
