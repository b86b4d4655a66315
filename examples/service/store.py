"""Where the money-flow records are kept: memory, or SQLite. For another database, write a third class."""

import asyncio
import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from racepool import TransformedRace

Record = Mapping[str, Any]
SCHEMA = """
CREATE TABLE IF NOT EXISTS money_flow (
    race_id TEXT NOT NULL,
    polling_timestamp TEXT NOT NULL,
    entrant_id TEXT NOT NULL,
    record TEXT NOT NULL,
    PRIMARY KEY (race_id, polling_timestamp, entrant_id)
) WITHOUT ROWID
"""
LAST = """
SELECT record FROM money_flow WHERE race_id = :race_id
AND polling_timestamp = (SELECT max(polling_timestamp) FROM money_flow WHERE race_id = :race_id)
"""


class Store(Protocol):
    """Keeps records by race, poll and entrant. `add` returns when the whole poll is stored, or nothing of it."""

    async def add(self, race: TransformedRace) -> None:
        """Stores the records of one poll. They replace those of the same poll."""

    async def previous(self, race_id: str) -> Sequence[Record]:
        """The records of the race's last poll, in a form that `exec` takes; empty before the first poll."""

    async def aclose(self) -> None:
        """Releases its resources."""


class MemoryStore:
    """Keeps the last poll of each race in memory."""

    def __init__(self) -> None:
        self._last: dict[str, list[Record]] = {}

    async def add(self, race: TransformedRace) -> None:
        """See Store."""
        if race.money_flow_records:
            self._last[race.race_id] = [record.model_dump(mode="json") for record in race.money_flow_records]

    async def previous(self, race_id: str) -> Sequence[Record]:
        """See Store."""
        return self._last.get(race_id, [])

    async def aclose(self) -> None:
        """See Store."""


class SqliteStore:
    """One file. Threads write it, so that the disk never blocks the event loop; each poll is one transaction."""

    def __init__(self, path: Path) -> None:
        self._lock = Lock()
        self._connection = sqlite3.connect(path, check_same_thread=False)  # the lock makes it safe
        self._connection.execute("PRAGMA journal_mode = WAL")  # readers do not block the service
        self._connection.execute(SCHEMA)

    async def add(self, race: TransformedRace) -> None:
        """See Store."""
        rows = [
            (record.race_id, record.polling_timestamp.isoformat(), record.entrant_id, record.model_dump_json())
            for record in race.money_flow_records
        ]
        await asyncio.to_thread(self._write, rows)

    async def previous(self, race_id: str) -> Sequence[Record]:
        """See Store."""
        return await asyncio.to_thread(self._last, race_id)

    async def aclose(self) -> None:
        """See Store."""
        await asyncio.to_thread(self._connection.close)

    def _write(self, rows: Sequence[tuple[str, ...]]) -> None:
        with self._lock, self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO money_flow VALUES (?, ?, ?, ?)", rows)

    def _last(self, race_id: str) -> list[Record]:
        with self._lock, closing(self._connection.execute(LAST, {"race_id": race_id})) as rows:
            return [json.loads(record) for (record,) in rows]
