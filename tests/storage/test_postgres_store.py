"""What a store keeps: whole polls, each once, and all that the next poll counts from."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from racepool import BucketFlow, PreviousAmounts, RaceData, TransformedRace, bucket_flows, transform_race
from racepool.races.money_row import MoneyRow, PollRows
from racepool.storage import PostgresStore
from racepool.storage.schema import VERSION
from tests.profiles import is_long
from tests.storage.building import START, body, chain, instant, records, rows, store_error, stored, with_store, write
from tests.storage.server import Server

NO_TRACKER = body(money_tracker=None)

pytestmark = pytest.mark.system


def next_poll(previous: Any, race_id: str = "r1") -> TransformedRace:  # noqa: ANN401
    poll = RaceData.parse(body({"a": 30, "b": 20, "c": 50}, race_id=race_id))
    return transform_race(poll, polled_at=instant(99), previous=previous)


def by_bucket(flows: list[BucketFlow]) -> list[BucketFlow]:
    return sorted(flows, key=lambda flow: (flow.first_at, flow.entrant_id))


# --- what is written --------------------------------------------------------------------------------------------------


def test_rows_are_read_as_they_were_written(server: Server, dsn: str) -> None:
    results = chain(body(), body({"a": 33.3, "b": 66.7}), NO_TRACKER, body({"a": 0, "b": 100}))

    write(dsn, *results)

    assert stored(server, dsn) == rows(results)
    assert server.ask(dsn, "SELECT count(*) FROM racepool.polls") == [(4,)]


def test_poll_rows_are_written_as_the_result_is(server: Server, dsn: str) -> None:
    results = chain(body(), body({"a": 10, "b": 90}))

    write(dsn, *map(PollRows.of, results))

    assert stored(server, dsn) == rows(results)


def test_every_field_of_a_row_has_a_column_and_a_comment(server: Server, dsn: str) -> None:
    write(dsn)

    columns = server.ask(
        dsn,
        "SELECT attname, col_description(attrelid, attnum) FROM pg_attribute "
        "WHERE attrelid = 'racepool.money_flow'::regclass AND attnum > 0",
    )
    flows = server.ask(
        dsn,
        "SELECT attname FROM pg_attribute WHERE attrelid = 'racepool.bucket_flows'::regclass AND attnum > 0",
    )
    assert [name for name, _ in columns] == list(MoneyRow.model_fields)
    assert all(comment for _, comment in columns)
    assert [name for (name,) in flows] == list(BucketFlow.model_fields)


def test_poll_that_is_written_again_changes_nothing(server: Server, dsn: str) -> None:
    results = chain(body(), NO_TRACKER, body())
    write(dsn, *results)

    write(dsn, *reversed(results), results[0])

    assert stored(server, dsn) == rows(results)
    assert server.ask(dsn, "SELECT count(*) FROM racepool.polls") == [(3,)]


def test_poll_that_is_written_again_with_less_replaces_its_rows(server: Server, dsn: str) -> None:
    first, second = chain(body(), body())
    write(dsn, first, second)
    [corrected] = chain(body({"a": 100}))

    write(dsn, corrected)

    assert stored(server, dsn) == rows([corrected, second])


def test_last_of_two_results_of_one_poll_counts(server: Server, dsn: str) -> None:
    [first], [corrected] = chain(body()), chain(body({"a": 100}))

    write(dsn, first, corrected)

    assert stored(server, dsn) == rows([corrected])


def on_day(result: TransformedRace, day: str) -> PollRows:
    poll = PollRows.of(result)
    return poll.model_copy(
        update={
            "race_date_nz": day,
            "rows": tuple(row.model_copy(update={"race_date_nz": day}) for row in poll.rows),
        }
    )


def days_of(server: Server, dsn: str) -> list[tuple[Any, ...]]:
    return server.ask(dsn, "SELECT tableoid::regclass::text, count(*) FROM racepool.money_flow GROUP BY 1 ORDER BY 1")


def test_each_day_has_a_partition(server: Server, dsn: str) -> None:
    first, second, third = chain(body(), body(), body())

    write(dsn, first, on_day(second, "2026-02-01"), on_day(third, "2026-02-01"))

    assert days_of(server, dsn) == [("racepool.money_flow_20260131", 2), ("racepool.money_flow_20260201", 4)]


@pytest.mark.parametrize("day", ["0001-01-01", "9999-12-31"])
def test_any_date_can_be_a_day(server: Server, dsn: str, day: str) -> None:
    [result] = chain(body())

    write(dsn, on_day(result, day))

    assert days_of(server, dsn) == [(f"racepool.money_flow_{day.replace('-', '')}", 2)]


def test_race_whose_date_changes_is_one_race(dsn: str) -> None:
    first, second, third = chain(body(), body({"a": 100, "b": None}), body({"a": 10, "b": 90}))
    moved: list[TransformedRace | PollRows] = [first, on_day(second, "2026-02-01")]

    async def use(store: PostgresStore) -> tuple[Any, list[BucketFlow]]:
        await store.write(moved)
        return (await store.previous(["r1"]))["r1"], await store.bucket_flows("r1")

    previous, flows = with_store(dsn, use)

    assert transform_race(RaceData.parse(body({"a": 10, "b": 90})), polled_at=instant(2), previous=previous) == third
    assert flows == by_bucket(list(bucket_flows(records([first, second]))))


def test_poll_whose_date_changes_when_it_is_written_again_leaves_its_old_day(server: Server, dsn: str) -> None:
    [result] = chain(body())
    write(dsn, result)

    write(dsn, on_day(result, "2026-02-01"))

    assert days_of(server, dsn) == [("racepool.money_flow_20260201", 2)]


def test_days_are_dropped_and_can_come_again(server: Server, dsn: str) -> None:
    first, second, third = chain(body(), body(), NO_TRACKER)

    async def use(store: PostgresStore) -> None:
        await store.write([first, on_day(second, "2026-02-01"), on_day(third, "2026-02-01")])
        dropped = server.ask(dsn, "SELECT racepool.drop_days_before('2026-02-01')")
        assert dropped == [(1,)]
        assert days_of(server, dsn) == [("racepool.money_flow_20260201", 2)]
        assert server.ask(dsn, "SELECT DISTINCT race_date_nz::text FROM racepool.polls") == [("2026-02-01",)]
        previous = (await store.previous(["r1"]))["r1"]
        assert next_poll(previous) == next_poll(third)
        await store.write([first])

    with_store(dsn, use)

    assert days_of(server, dsn) == [("racepool.money_flow_20260131", 2), ("racepool.money_flow_20260201", 2)]


# --- what cannot be stored --------------------------------------------------------------------------------------------


def with_name(result: TransformedRace, name: str) -> PollRows:
    poll = PollRows.of(result)
    return poll.model_copy(update={"rows": (poll.rows[0].model_copy(update={"runner_name": name}), *poll.rows[1:])})


def with_amount(result: TransformedRace, amount: int) -> PollRows:
    poll = PollRows.of(result)
    rows = (poll.rows[0].model_copy(update={"win_pool_amount": amount}), *poll.rows[1:])
    return poll.model_copy(update={"rows": rows})


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda result: with_name(result, "a\0b"), r"runner_name has a NUL character.*'a\\x00b'"),
        (lambda result: with_name(result, "\ud800"), r"runner_name is no Unicode text"),
        (lambda result: with_amount(result, 2**63), r"value \"9223372036854775808\" is out of range for type bigint"),
        (lambda result: on_day(result, "2026-02-30"), "race_date_nz is no date: '2026-02-30'"),
        (
            lambda result: PollRows.of(result).model_copy(update={"race_date_nz": "2026-02-01"}),
            "rows has a row of another poll",
        ),
        (
            lambda result: PollRows.of(result).model_copy(update={"rows": PollRows.of(result).rows * 2}),
            "duplicate key value",
        ),
    ],
)
def test_poll_that_cannot_be_stored_is_named_and_harms_no_other(
    server: Server,
    dsn: str,
    harm: Callable[[TransformedRace], PollRows],
    words: str,
) -> None:
    results = chain(body(), body(), body())

    with store_error(rf"1 of the polls cannot be stored: race 'r1', poll of 2026.*{words}"):
        write(dsn, results[0], harm(results[1]), results[2])

    assert stored(server, dsn) == rows([results[0], results[2]])


def test_first_few_of_many_polls_that_cannot_be_stored_are_named(dsn: str) -> None:
    results = [with_name(result, "\0") for result in chain(*[body()] * 7)]

    with store_error(r"^7 of the polls .*; and 2 more; all others of this call are stored"):
        write(dsn, *results)


def test_results_are_taken_by_the_hundred(server: Server, dsn: str) -> None:
    results = chain(*[body({"a": 100})] * 201)

    def failing() -> Iterator[TransformedRace]:
        yield from results[:200]
        raise OSError("no more")

    async def use(store: PostgresStore) -> None:
        await store.write(failing())

    with pytest.raises(OSError, match="no more"):
        with_store(dsn, use)

    assert stored(server, dsn) == rows(results[:200])


# --- previous ---------------------------------------------------------------------------------------------------------


def read_back(dsn: str, results: list[TransformedRace]) -> Any:  # noqa: ANN401
    async def use(store: PostgresStore) -> Any:  # noqa: ANN401
        await store.write(results)
        return await store.previous(["r1", "never-polled"])

    found = with_store(dsn, use)
    assert found["never-polled"] == []
    assert list(found) == ["r1", "never-polled"]
    return found["r1"]


HOLDS = st.dictionaries(st.sampled_from("abcd"), st.sampled_from([None, 0, 0.004, 5, 33.3, 60]), max_size=4)
POOLS = st.sampled_from([None, [], *([{"product_type": name, "total": 9_000.5}] for name in ("Win", "Place"))])
HOLES = st.sampled_from(
    [{"money_tracker": None}, {"runners": []}, {"tote_pools": [{"product_type": "Win", "total": 0}]}]
)
CHANGES = st.one_of(st.just({}), st.just({}), HOLES, st.builds(lambda pools: {"tote_pools": pools}, POOLS))


@pytest.fixture(scope="module")
def shared_dsn(server: Server) -> str:
    return server.new_database()


@settings(max_examples=500 if is_long() else 25)
@given(polls=st.lists(st.tuples(HOLDS, CHANGES), min_size=1, max_size=6), unwritten=st.integers(0, 3))
def test_what_is_read_back_is_as_good_as_the_result(
    server: Server, shared_dsn: str, polls: list[tuple[dict[str, float | None], dict[str, Any]]], unwritten: int
) -> None:
    """Also if the store was not there yet for the first polls."""
    race_id = f"r{next(server.names)}"
    results = chain(*(body(holds, race_id=race_id, **changes) for holds, changes in polls))
    written = results[min(unwritten, len(results) - 1) :]

    async def use(store: PostgresStore) -> tuple[Any, list[BucketFlow]]:
        await store.write(written)
        return (await store.previous([race_id]))[race_id], await store.bucket_flows(race_id)

    previous, flows = with_store(shared_dsn, use)

    assert PreviousAmounts.of(previous).amounts == (results[-1].baseline or {})
    assert next_poll(previous, race_id).money_flow_records == next_poll(results[-1], race_id).money_flow_records
    assert flows == by_bucket(list(bucket_flows(records(written))))


def test_next_poll_counts_from_what_is_read_back(dsn: str) -> None:
    results = chain(body({"a": 5, "b": 0}), NO_TRACKER, body({"a": 0, "b": 0}), body(runners=[]))

    previous = read_back(dsn, results)

    assert next_poll(previous) == next_poll(results[-1])
    assert {frozenset(row) for row in previous} == {
        frozenset(["race_id", "entrant_id", "polling_timestamp", "win_pool_amount", "place_pool_amount"])
    }


def test_poll_that_told_nothing_but_zeros_is_no_baseline_for_the_next(dsn: str) -> None:
    results = chain(body({"a": 0, "b": 0}), NO_TRACKER)

    previous = read_back(dsn, results)

    assert [record.is_baseline for record in next_poll(previous).money_flow_records] == [False] * 3


def test_race_of_which_nothing_was_told_has_no_previous(dsn: str) -> None:
    assert read_back(dsn, chain(NO_TRACKER, NO_TRACKER)) == []


@pytest.mark.parametrize("race_ids", ["r1", [UUID(int=7)], ["r1", None]])
def test_only_a_list_of_texts_is_a_list_of_ids(dsn: str, race_ids: Any) -> None:  # noqa: ANN401
    with pytest.raises(TypeError, match="must be a list of ids, each as text"):
        with_store(dsn, lambda store: store.previous(race_ids))


# --- the tables -------------------------------------------------------------------------------------------------------


def test_programs_that_create_at_once_make_one_schema(server: Server, dsn: str) -> None:
    async def main() -> None:
        stores = [PostgresStore(dsn) for _ in range(4)]
        await asyncio.gather(*(store.create() for store in stores))
        await asyncio.gather(*(store.write(chain(body(race_id=f"r{n}"))) for n, store in enumerate(stores)))
        await asyncio.gather(*(store.aclose() for store in stores))

    asyncio.run(main())

    assert server.ask(dsn, "SELECT version FROM racepool.schema_version") == [(VERSION,)]
    assert days_of(server, dsn) == [("racepool.money_flow_20260131", 8)]


def test_tables_of_another_version_are_refused_with_both_versions(server: Server, dsn: str) -> None:
    write(dsn)
    server.ask(dsn, "UPDATE racepool.schema_version SET version = 7")
    words = f"have version 7, and this racepool needs version {VERSION}; install the racepool that made them"

    async def main() -> None:
        async with PostgresStore(dsn) as store:
            with store_error(words):
                await store.create()
            with store_error(words):
                await store.write([])
            with store_error(words):
                await store.previous([])

    asyncio.run(main())


def test_tables_that_are_not_there_are_asked_for(dsn: str) -> None:
    async def main() -> None:
        async with PostgresStore(dsn) as store:
            with store_error(r"has no tables of racepool; call create\(\) first"):
                await store.bucket_flows("r1")

    asyncio.run(main())


def test_start_is_that_of_the_poll(server: Server, dsn: str) -> None:
    write(dsn, *chain(NO_TRACKER))

    assert server.ask(dsn, "SELECT start_time, kept FROM racepool.polls") == [(START, {})]
