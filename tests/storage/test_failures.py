"""A store whose server goes away, whose writers meet, and whose caller errs."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from racepool import StoreError, TransformedRace
from racepool.races.money_row import PollRows
from racepool.storage import PostgresStore
from tests.documented_errors import is_documented
from tests.running import WaitUntil
from tests.storage.building import body, chain, rows, store_error, stored, with_store
from tests.storage.server import Server

pytestmark = pytest.mark.system
BOUND_S = 30
WAITING = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
SLEEP_S = 0.02


@contextmanager
def locked(dsn: str, table: str = "racepool.money_flow") -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Nobody writes rows until the end of the block; a write stands still after it has locked its polls."""
    with psycopg.connect(dsn) as holder:
        holder.execute(f"LOCK TABLE {table} IN SHARE MODE".encode())
        yield holder


async def waiting(server: Server, dsn: str, count: int = 1) -> list[int]:
    """The backends that wait for a lock, when there are so many."""

    def wait() -> list[int]:
        deadline = time.monotonic() + BOUND_S
        while len(found := server.ask(dsn, WAITING)) < count:
            assert time.monotonic() < deadline, f"{found} wait for a lock, and not {count}"
            time.sleep(SLEEP_S)
        return [pid for (pid,) in found]

    return await asyncio.to_thread(wait)


async def prepared(store: PostgresStore) -> TransformedRace:
    """Makes tables and the day; returns the race's second poll."""
    await store.create()
    first, second = chain(body(), body({"a": 10, "b": 90}))
    await store.write([first])
    return second


BOTH = chain(body(), body({"a": 10, "b": 90}))


# --- in the middle of a write -----------------------------------------------------------------------------------------


def end_backend(server: Server, dsn: str, pids: list[int], holder: psycopg.Connection[tuple[object, ...]]) -> None:
    assert server.ask(dsn, f"SELECT pg_terminate_backend({pids[0]})") == [(True,)]
    holder.rollback()


def crash(server: Server, _dsn: str, _pids: list[int], _holder: object) -> None:
    server.stop()
    server.start()


@pytest.mark.parametrize("lose", [end_backend, crash])
def test_write_whose_connection_is_lost_is_done_once(
    server: Server,
    dsn: str,
    lose: Callable[[Server, str, list[int], psycopg.Connection[tuple[object, ...]]], None],
) -> None:
    async def main() -> None:
        async with PostgresStore(dsn, retry_s=BOUND_S) as store:
            second = await prepared(store)
            holder = psycopg.connect(dsn)
            holder.execute("LOCK TABLE racepool.money_flow IN SHARE MODE")
            writing = asyncio.create_task(store.write([second]))
            pids = await waiting(server, dsn)
            await asyncio.to_thread(lose, server, dsn, pids, holder)
            holder.close()
            await writing

    asyncio.run(main())

    assert stored(server, dsn) == rows(BOTH)
    assert server.ask(dsn, "SELECT count(*) FROM racepool.polls") == [(2,)]


def test_write_that_is_given_up_leaves_nothing_of_its_poll(server: Server, dsn: str) -> None:
    async def main() -> None:
        async with PostgresStore(dsn, retry_s=0) as store:
            second = await prepared(store)
            with locked(dsn):
                writing = asyncio.create_task(store.write([second]))
                [pid] = await waiting(server, dsn)
                server.ask(dsn, f"SELECT pg_terminate_backend({pid})")
                with store_error(r"could not be used for 0 s: .*terminating connection"):
                    await writing

    asyncio.run(main())

    assert stored(server, dsn) == rows(BOTH[:1])
    assert server.ask(dsn, "SELECT count(*) FROM racepool.polls") == [(1,)]


def test_calls_outlive_a_server_that_is_away_for_a_while(server: Server, dsn: str) -> None:
    """Also with several idle connections, all of which are lost."""

    async def main() -> None:
        async with PostgresStore(dsn, retry_s=BOUND_S) as store:
            await prepared(store)
            await asyncio.gather(*(store.previous(["r1"]) for _ in range(4)))
            server.stop()
            calls = [asyncio.create_task(store.bucket_flows("r1")) for _ in range(4)]
            again = threading.Timer(0.5, server.start)
            again.start()
            assert [len(flows) for flows in await asyncio.gather(*calls)] == [2] * 4
            await asyncio.to_thread(again.join)

    asyncio.run(main())


def test_one_more_try_is_enough_after_a_restart_however_many_connections_were_idle(server: Server, dsn: str) -> None:
    async def main() -> int:
        async with PostgresStore(dsn, retry_s=0.14) as store:  # a pause of 0.05 s, but none of 0.1 s after it
            await prepared(store)
            await asyncio.gather(*(store.previous(["r1"]) for _ in range(4)))
            server.stop()
            await asyncio.to_thread(server.start)
            return len(await store.bucket_flows("r1"))

    assert asyncio.run(main()) == 2


def test_server_that_stays_away_is_an_error_with_its_cause(server: Server, dsn: str) -> None:
    server.stop()
    try:
        with store_error(r"could not be used for 0.3 s: .*is the server running") as raised:
            with_store(dsn, lambda store: store.previous([]), retry_s=0.3)
    finally:
        server.start()

    assert isinstance(raised.value.__cause__, psycopg.OperationalError)


def test_cancelled_call_leaves_the_store_usable(server: Server, dsn: str) -> None:
    async def main() -> None:
        async with PostgresStore(dsn, connections=1) as store:
            second = await prepared(store)
            with locked(dsn):
                writing = asyncio.create_task(store.write([second]))
                await waiting(server, dsn)
                writing.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await writing
            assert server.ask(dsn, WAITING) == []
            await store.write([second])

    asyncio.run(main())

    assert stored(server, dsn) == rows(BOTH)


# --- writers that meet ------------------------------------------------------------------------------------------------


def test_writers_of_one_poll_leave_the_rows_of_the_last_alone(server: Server, dsn: str) -> None:
    async def main() -> None:
        async with PostgresStore(dsn) as one, PostgresStore(dsn) as other:
            second = await prepared(one)
            await other.previous([])
            [corrected] = chain(body({"a": 100}), first=1)
            moved = PollRows.of(corrected).model_copy(update={"race_date_nz": "2026-02-01", "rows": ()})
            with locked(dsn):
                writing = [asyncio.create_task(one.write([second]))]
                await waiting(server, dsn)
                writing.append(asyncio.create_task(other.write([moved])))
                await waiting(server, dsn, 2)
            await asyncio.gather(*writing)

    asyncio.run(main())

    assert stored(server, dsn) == rows(BOTH[:1])
    assert server.ask(dsn, "SELECT race_date_nz::text FROM racepool.polls ORDER BY polling_timestamp") == [
        ("2026-01-31",),
        ("2026-02-01",),
    ]


def test_writers_of_the_same_polls_in_any_order_do_not_deadlock(server: Server, dsn: str) -> None:
    results = [result for number in range(5) for result in chain(*[body(race_id=f"r{number}")] * 4)]

    async def main() -> None:
        async with PostgresStore(dsn, connections=8, retry_s=0) as store:
            await prepared(store)
            orders = [results, results[::-1]] * 6
            await asyncio.gather(*(store.write(order) for order in orders))

    asyncio.run(main())

    assert stored(server, dsn) == rows(results)
    assert server.ask(dsn, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == [(0,)]


@pytest.mark.parametrize("default", ["read committed", "serializable"])
def test_writers_that_have_read_before_may_meet_at_a_new_day(server: Server, dsn: str, default: str) -> None:
    """A connection that kept the isolation of its reading would not see the day that another one has just made."""
    name = dsn.rpartition("dbname=")[2]
    server.ask("postgres", f"ALTER DATABASE {name} SET default_transaction_isolation = '{default}'")
    results = [chain(body(race_id=f"r{number}"))[0] for number in range(8)]

    async def main() -> None:
        async with PostgresStore(dsn, connections=8, retry_s=0) as store:
            await store.create()
            await asyncio.gather(*(store.previous([f"r{number}"]) for number in range(8)))
            await asyncio.gather(*(store.write([result]) for result in results))

    asyncio.run(main())

    assert stored(server, dsn) == rows(results)


def test_new_day_waits_for_no_reader_and_no_writer(server: Server, dsn: str) -> None:
    async def main() -> None:
        async with PostgresStore(dsn) as store:
            second = await prepared(store)
            poll = PollRows.of(second)
            day = {"race_date_nz": "2026-02-01"}
            moved = poll.model_copy(update={**day, "rows": tuple(row.model_copy(update=day) for row in poll.rows)})
            with psycopg.connect(dsn) as busy:
                busy.execute("SELECT * FROM racepool.money_flow")
                busy.execute("DELETE FROM racepool.money_flow WHERE race_id = 'r1' AND race_date_nz = '2026-01-31'")
                async with asyncio.timeout(BOUND_S):
                    await store.write([moved])
                busy.rollback()

    asyncio.run(main())

    assert server.ask(dsn, "SELECT count(DISTINCT race_date_nz) FROM racepool.money_flow") == [(2,)]


# --- callers that err -------------------------------------------------------------------------------------------------


def guarded(server: Server) -> None:
    """The role `guarded` needs a password from now on."""
    server.ask(
        "postgres",
        "DO $$ BEGIN CREATE ROLE guarded LOGIN PASSWORD 'right'; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
    )
    access = server.folder / "data" / "pg_hba.conf"
    text = access.read_text()
    if "guarded" not in text:
        access.write_text("local all guarded scram-sha-256\n" + text)
        server.ask("postgres", "SELECT pg_reload_conf()")


@pytest.mark.parametrize(
    ("user", "database", "words"),
    [
        ("guarded password=s3cr3t", "postgres", "refuses the connection: .*password authentication failed.*guarded"),
        ("racing", "nowhere", 'refuses the connection: .*database "nowhere" does not exist'),
        ("nobody", "postgres", 'refuses the connection: .*role "nobody" does not exist'),
        ("guarded password=right", "own", "permission denied.*; give the role of the dsn this right"),
    ],
)  # fmt: skip
def test_refusal_is_an_error_at_once_with_the_servers_words(
    server: Server, dsn: str, user: str, database: str, words: str
) -> None:
    guarded(server)
    name = dsn.rpartition("=")[2] if database == "own" else database

    with store_error(words) as raised:
        with_store(server.dsn(name, user), lambda store: store.previous([]), retry_s=3600)

    assert "s3cr3t" not in f"{raised.value}{raised.value.__cause__}"


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresq://racing:s3cr3t@db/racing",
        "s3cr3t",
        "postgresql://racing:pass@s3cr3t@db/racing",
        "postgresql://racing:s3cr3t/word@db/racing",
        "postgresql://racing:50%s3cr3t@db/racing",
    ],
)
def test_dsn_of_a_wrong_form_is_an_error_that_does_not_show_it(dsn: str) -> None:
    with store_error("the dsn must be as postgresql://") as raised:
        PostgresStore(dsn)

    assert "s3cr3t" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_store_without_connections_is_refused() -> None:
    with store_error("connections=0: must be 1 or more"):
        PostgresStore("", connections=0)


def test_closed_store_refuses_and_leaves_no_connection(server: Server, dsn: str, wait_until: WaitUntil) -> None:
    async def main() -> None:
        store = PostgresStore(dsn)
        await store.create()
        await asyncio.gather(*(store.previous(["r1"]) for _ in range(3)))
        await store.aclose()
        await store.aclose()
        with store_error("this store was closed; make a new one"):
            await store.previous(["r1"])

    asyncio.run(main())

    left = f"SELECT 1 FROM pg_stat_activity WHERE datname = '{dsn.rpartition('=')[2]}'"  # noqa: S608
    wait_until(lambda: server.ask("postgres", left) == [])  # the server ends its process for a connection later


def test_store_that_is_closed_during_a_write_ends_the_hundred_polls_and_refuses_the_rest(
    server: Server, dsn: str
) -> None:
    async def main() -> None:
        store = PostgresStore(dsn)
        await store.create()
        closing: list[asyncio.Task[None]] = []

        def polls() -> Iterator[TransformedRace]:
            for number in range(250):
                if number == 150:
                    closing.append(asyncio.create_task(store.aclose()))
                yield from chain(body(race_id=f"r{number}"))

        with store_error("this store was closed; make a new one"):
            await store.write(polls())
        await closing[0]

    asyncio.run(main())

    assert server.ask(dsn, "SELECT count(*) FROM racepool.polls") == [(200,)]


def test_store_opens_no_more_connections_than_it_may(server: Server, dsn: str) -> None:
    async def main() -> list[tuple[object, ...]]:
        async with PostgresStore(dsn, connections=2) as store:
            await store.create()
            await asyncio.gather(*(store.previous(["r1"]) for _ in range(20)))
            return server.ask(dsn, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'racepool'")

    assert asyncio.run(main()) == [(2,)]


def test_missing_extra_is_an_error_that_tells_what_to_install() -> None:
    code = """
import sys
sys.modules["psycopg"] = None
from racepool import StoreError
from racepool.storage import PostgresStore
try:
    PostgresStore("")
except StoreError as error:
    print(error, end="")
"""

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "needs psycopg, which cannot be imported" in done.stdout
    assert is_documented(StoreError(done.stdout))
