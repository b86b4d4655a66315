"""Polls of races, and what a store holds of them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest

from racepool import MoneyFlowRecord, RaceData, StoreError, TransformedRace, transform_race
from racepool.races.money_row import MoneyRow, PollRows
from racepool.storage import PostgresStore
from tests.documented_errors import is_documented
from tests.storage.server import Server

T = TypeVar("T")
START = datetime(2026, 1, 31, 1, 0, tzinfo=UTC)
POLLED_AT = START - timedelta(minutes=6)
HOLDS: Mapping[str, float | None] = {"a": 60.0, "b": 40.0}


def body(holds: Mapping[str, float | None] = HOLDS, *, race_id: str = "r1", **changes: object) -> dict[str, Any]:
    """A poll as the tote answers; `changes` are of its `data`."""
    runners = [{"entrant_id": name, "runner_number": index, "name": name} for index, name in enumerate(holds, 1)]
    data: dict[str, Any] = {
        "race": {"event_id": race_id, "description": "Cup", "status": "Open", "advertised_start": START.timestamp()},
        "runners": runners,
        "money_tracker": {"entrants": [{"entrant_id": name, "hold_percentage": hold} for name, hold in holds.items()]},
        "tote_pools": [{"product_type": "Win", "total": 10_000.5}, {"product_type": "Place", "total": 1_000}],
    }
    return {"data": {**data, **changes}}


def instant(index: int) -> datetime:
    return POLLED_AT + timedelta(seconds=15 * index)


def chain(*bodies: Mapping[str, Any], first: int = 0) -> list[TransformedRace]:
    """One race's results, each counted from the one before."""
    results: list[TransformedRace] = []
    for index, each in enumerate(bodies, first):
        previous = results[-1] if results else None
        results.append(transform_race(RaceData.parse(each), polled_at=instant(index), previous=previous))
    return results


def records(results: Iterable[TransformedRace]) -> list[MoneyFlowRecord]:
    return [record for result in results for record in result.money_flow_records]


def rows(results: Iterable[TransformedRace]) -> list[MoneyRow]:
    """The rows of these polls, in the order of `stored`."""
    found = [row for result in results for row in PollRows.of(result).rows]
    return sorted(found, key=lambda row: (row.race_id, row.polling_timestamp, row.entrant_id))


def stored(server: Server, dsn: str) -> list[MoneyRow]:
    """All rows of the database."""
    columns = tuple(MoneyRow.model_fields)
    found = server.ask(
        dsn,
        f"SELECT {', '.join(columns)} FROM racepool.money_flow ORDER BY race_id, polling_timestamp, entrant_id",  # noqa: S608
    )
    pairs = [dict(zip(columns, row, strict=True)) for row in found]
    return [MoneyRow.model_validate({**pair, "race_date_nz": pair["race_date_nz"].isoformat()}) for pair in pairs]


def with_store(dsn: str, use: Callable[[PostgresStore], Awaitable[T]], *, retry_s: float = 20.0) -> T:
    """What `use` returns of a store whose tables are there."""

    async def main() -> T:
        async with PostgresStore(dsn, retry_s=retry_s) as store:
            await store.create()
            return await use(store)

    return asyncio.run(main())


def write(dsn: str, *results: TransformedRace | PollRows) -> None:
    with_store(dsn, lambda store: store.write(results))


@contextmanager
def store_error(words: str) -> Iterator[pytest.ExceptionInfo[StoreError]]:
    """The block raises a StoreError with these words (a regular expression), as docs/errors.md shows it."""
    with pytest.raises(StoreError, match=words) as raised:
        yield raised
    assert is_documented(raised.value), raised.value
