"""The example service's stores keep the promise that their interface makes."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from examples.service.store import MemoryStore, SqliteStore, Store
from racepool import TransformedRace
from racepool.races.previous_amounts import PreviousAmounts
from racepool.races.race import RaceData
from racepool.races.transform import transform_race
from tests.running import ROOT

START = datetime(2025, 7, 17, tzinfo=UTC)
MakeStore = Callable[[], Store]


@pytest.fixture(params=[MemoryStore, SqliteStore])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
    kind: type[Store] = request.param
    return partial(SqliteStore, tmp_path / "money-flow.db") if kind is SqliteStore else MemoryStore


@asynccontextmanager
async def opened(make_store: MakeStore) -> AsyncIterator[Store]:
    store = make_store()
    yield store
    await store.aclose()


def poll(minute: int, sample: str = "thoroughbred") -> TransformedRace:
    race = RaceData.parse((ROOT / "samples" / f"{sample}.json").read_bytes())
    return transform_race(race, polled_at=START + timedelta(minutes=minute))


def test_previous_is_the_last_poll_of_this_very_race(make_store: MakeStore) -> None:
    async def test() -> None:
        async with opened(make_store) as store:
            for race in (poll(1), poll(2), poll(9, "harness")):
                await store.add(race)

            records = await store.previous(poll(2).race_id)

            assert len(records) == len(poll(2).money_flow_records)
            assert PreviousAmounts.of(records) == PreviousAmounts.of(poll(2)), "exec takes them as they are"
            assert {datetime.fromisoformat(record["polling_timestamp"]) for record in records} == {
                START + timedelta(minutes=2)
            }

    asyncio.run(test())


def test_before_the_first_poll_there_is_no_previous(make_store: MakeStore) -> None:
    async def test() -> None:
        async with opened(make_store) as store:
            assert list(await store.previous("unheard of")) == []

    asyncio.run(test())


def test_file_keeps_each_poll_once_and_through_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "money-flow.db"

    async def add(*polls: TransformedRace) -> None:
        async with opened(partial(SqliteStore, path)) as store:
            for race in polls:
                await store.add(race)

    asyncio.run(add(poll(1), poll(2)))
    asyncio.run(add(poll(2)))

    with sqlite3.connect(path) as connection:
        (count,) = connection.execute("SELECT count(*) FROM money_flow").fetchone()
    connection.close()
    assert count == 2 * len(poll(1).money_flow_records)
