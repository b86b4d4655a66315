"""The example service's stores keep the promise that their interface makes."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from examples.service.settings import ServiceSettings
from examples.service.store import DatabaseStore, MemoryStore, SqliteStore, Store, store_of
from racepool import PreviousAmounts, RaceData, TransformedRace, transform_race
from samples.generate import race_day
from tests.storage.building import body, chain, instant
from tests.storage.server import OWNER, Server

MakeStore = Callable[[], Store]
NO_TRACKER = body(money_tracker=None)
NO_RUNNERS = body(runners=[])
ZEROS = body({"a": 0, "b": 0})


@pytest.fixture(params=[MemoryStore, SqliteStore, DatabaseStore])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
    """Makes stores of one kind, those of files and databases with the same content."""
    if request.param is MemoryStore:
        return lambda: store_of(None)
    if request.param is SqliteStore:
        return lambda: store_of(str(tmp_path / "money-flow.db"))
    server: Server = request.getfixturevalue("server")
    name = server.new_database().rpartition("dbname=")[2]
    return lambda: store_of(f"postgresql://{OWNER}@/{name}?host={server.folder}")


@asynccontextmanager
async def opened(make_store: MakeStore) -> AsyncIterator[Store]:
    store = make_store()
    try:
        await store.open()
        yield store
    finally:
        await store.aclose()


def previous_after(make_store: MakeStore, *results: TransformedRace, race_id: str = "r1") -> Any:  # noqa: ANN401
    """What the store gives for the next poll of the race after it was given these polls."""

    async def test() -> Any:  # noqa: ANN401
        async with opened(make_store) as store:
            for result in results:
                await store.add(result)
            return await store.previous(race_id)

    return asyncio.run(test())


def next_poll(previous: Any) -> TransformedRace:  # noqa: ANN401
    return transform_race(RaceData.parse(body({"a": 30, "b": 20, "c": 50})), polled_at=instant(99), previous=previous)


@pytest.mark.parametrize(
    "bodies",
    [
        (body(), body({"a": 10, "b": 90})),
        (body(), NO_TRACKER),
        (body(), NO_RUNNERS, NO_TRACKER),
        (body(), body(tote_pools=None), body({"a": None, "b": 5})),
        (body(), body({"a": 100}), body({"a": 100})),  # b is not listed any more
        (body(), ZEROS),
        (NO_TRACKER, ZEROS, NO_RUNNERS),
    ],
)
def test_next_poll_counts_as_from_the_result(make_store: MakeStore, bodies: tuple[dict[str, Any], ...]) -> None:
    results = chain(*bodies)

    previous = previous_after(make_store, *results)

    assert next_poll(previous) == next_poll(results[-1])


def test_race_of_which_only_zeros_were_told_is_not_new(make_store: MakeStore) -> None:
    previous = previous_after(make_store, *chain(ZEROS, NO_TRACKER))

    assert [record.is_baseline for record in next_poll(previous).money_flow_records] == [False] * 3


@pytest.mark.parametrize("results", [[], chain(NO_TRACKER, NO_RUNNERS)], ids=["no poll", "nothing told"])
def test_until_a_poll_tells_money_there_is_no_previous(make_store: MakeStore, results: list[TransformedRace]) -> None:
    assert list(previous_after(make_store, *results)) == []


def test_each_race_has_its_own_amounts(make_store: MakeStore) -> None:
    [mine], [other] = chain(body()), chain(body({"a": 1, "b": 99}, race_id="r2"))

    assert PreviousAmounts.of(previous_after(make_store, mine, other)) == PreviousAmounts.of(mine)


def test_poll_that_is_stored_again_changes_nothing(make_store: MakeStore) -> None:
    first, second = chain(body(), body({"a": 10, "b": 90}))

    previous = previous_after(make_store, first, second, second, first)

    assert PreviousAmounts.of(previous) == PreviousAmounts.of(second)


def test_day_of_polls_with_holes_adds_up_to_the_last_told_amounts(make_store: MakeStore) -> None:
    async def test() -> None:
        sums: dict[str, int] = {}
        async with opened(make_store) as store:
            for race, polled_at in polls_with_holes():
                previous = await store.previous(race.id)
                result = transform_race(race, polled_at=polled_at, previous=previous)
                await store.add(result)
                for record in result.money_flow_records:
                    sums[record.entrant_id] = sums.get(record.entrant_id, 0) + record.incremental_win_amount
            amounts = {row["entrant_id"]: row["win_pool_amount"] for row in await store.previous(race.id)}

        assert sums == {entrant_id: amount for entrant_id, amount in amounts.items() if amount}

    asyncio.run(test())


def polls_with_holes() -> Iterator[tuple[RaceData, datetime]]:
    for _, text in race_day(4, races=1, poll_count=30, last_starts=1, holes=True):
        yield RaceData.parse(text), datetime.fromisoformat(json.loads(text)["header"]["generated_time"])


@pytest.mark.parametrize("make_store", [SqliteStore, DatabaseStore], indirect=True)
def test_what_was_stored_is_there_after_a_restart(make_store: MakeStore) -> None:
    results = chain(body(), NO_TRACKER)
    previous_after(make_store, *results)

    assert next_poll(previous_after(make_store)) == next_poll(results[-1])


def test_file_keeps_each_poll_once_with_the_records_of_its_last_result(tmp_path: Path) -> None:
    path = tmp_path / "money-flow.db"
    first, second = chain(body(), body())
    [corrected] = chain(body({"a": 100}))

    previous_after(lambda: SqliteStore(path), first, second, second, corrected)

    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT polling_timestamp, entrant_id FROM money_flow ORDER BY 1, 2").fetchall()
    assert rows == [(instant(0).isoformat(), "a"), (instant(1).isoformat(), "a"), (instant(1).isoformat(), "b")]


@pytest.mark.parametrize(
    ("database", "kind"),
    [
        (None, MemoryStore),
        ("polls.db", SqliteStore),
        ("postgres://h/d", DatabaseStore),
        ("postgresql://", DatabaseStore),
    ],
)
def test_setting_tells_which_store_it_is(
    database: str | None, kind: type[Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = store_of(database)

    assert type(store) is kind
    asyncio.run(store.aclose())


def test_password_of_the_database_is_not_shown() -> None:
    assert "secret" not in repr(ServiceSettings(database="postgresql://me:secret@host/name"))
