"""`racepool replay` into a real PostgreSQL: the rows of Parquet, also if the polls have holes and things break."""

import os
import signal
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pyarrow import parquet

from racepool import BucketFlow, bucket_flows
from racepool.races.money_row import MoneyRow
from racepool.storage import PostgresStore
from samples.generate import race_day
from tests.running import RACEPOOL, Running, StartPool, WaitUntil, racepool
from tests.storage.building import stored, with_store
from tests.storage.server import OWNER, Server, started_server

pytestmark = pytest.mark.system
RACES, POLLS = 6, 20
ALL = RACES * POLLS  # more than the store writes in one transaction
SECRET = "not-to-be-shown"  # noqa: S105  # the server trusts everybody
PATIENCE_S = 30.0


@dataclass
class Stage:
    """An empty database, and replays of the day into it."""

    server: Server
    real: Running
    day: Path
    dsn: str = field(init=False)
    started: "list[subprocess.Popen[str]]" = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dsn = self.server.new_database()
        self.ask(f"ALTER DATABASE {self.database} SET synchronous_commit = on")  # a crash of the server loses nothing

    @property
    def database(self) -> str:
        return self.dsn.rpartition("dbname=")[2]

    @property
    def url(self) -> str:
        """The database, as the command takes it."""
        return self.url_of(self.database)

    def url_of(self, database: str) -> str:
        return f"postgresql://{OWNER}:{SECRET}@/{database}?host={self.server.folder}"

    def replay(self, *options: str, url: str | None = None) -> "subprocess.CompletedProcess[str]":
        return racepool("replay", self.day, *options, "--out", url or self.url, env=self.real.env)

    def start(self) -> "subprocess.Popen[str]":
        command = [str(RACEPOOL), "replay", str(self.day), "--out", self.url]
        replay = subprocess.Popen(command, env=self.real.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.started.append(replay)
        return replay

    def end(self) -> None:
        for replay in self.started:
            replay.kill()
            replay.communicate()

    @contextmanager
    def held_up(self, row: MoneyRow) -> Iterator[None]:
        """During the block, nobody can write the poll of this row."""
        with_store(self.dsn, lambda store: store.write([]))  # makes the tables
        connection = psycopg.connect(self.dsn)
        connection.execute(
            "INSERT INTO racepool.polls VALUES (%s, %s, %s, %s, '{}')",
            [row.race_id, row.polling_timestamp, row.race_date_nz, row.start_time],
        )
        try:
            yield
        finally:
            connection.close()

    def is_waiting(self) -> bool:
        """Whether a replay waits for the poll that is held up."""
        return self.ask("SELECT count(*) FROM pg_locks WHERE NOT granted") == [(1,)]

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        return self.server.ask("postgres", query)

    def rows(self) -> list[MoneyRow]:
        return stored(self.server, self.dsn)

    def poll_count(self) -> int:
        ((count,),) = self.server.ask(self.dsn, "SELECT count(*) FROM racepool.polls")
        return int(count)

    def checkpoints(self) -> list[Path]:
        return list(self.real.dir.glob("replay/*"))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with started_server() as server:
        yield server


@pytest.fixture(scope="module")
def real(start_pool: StartPool) -> Running:
    return start_pool()


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("day")
    for name, text in race_day(11, RACES, POLLS, last_starts=1, holes=True):
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def rows(day: Path, real: Running, tmp_path_factory: pytest.TempPathFactory) -> list[MoneyRow]:
    """The rows of the day by way of Parquet, in the order of `stored`."""
    path = tmp_path_factory.mktemp("whole") / "day.parquet"
    done = racepool("replay", day, "--out", path, env=real.env)
    assert done.returncode == 0, done.stderr
    found = map(MoneyRow.model_validate, parquet.read_table(path).to_pylist())
    return sorted(found, key=lambda row: (row.race_id, row.polling_timestamp, row.entrant_id))


@pytest.fixture(scope="module")
def last(rows: list[MoneyRow]) -> MoneyRow:
    """A row of one of the last polls that a replay writes."""
    return max(rows, key=lambda row: (row.start_time, row.race_id, row.polling_timestamp))


@pytest.fixture
def stage(server: Server, real: Running, day: Path) -> Iterator[Stage]:
    stage = Stage(server, real, day)
    yield stage
    stage.end()


@pytest.fixture(scope="module")
def filled(server: Server, real: Running, day: Path) -> Stage:
    """A database that has the whole day."""
    stage = Stage(server, real, day)
    done = stage.replay()
    assert done.returncode == 0, done.stderr
    told = f"{ALL} polls of {RACES} races: {len(stage.rows()):,} records in postgresql:///{stage.database}?host="
    assert told in done.stdout
    assert SECRET not in done.stdout + done.stderr
    assert stage.checkpoints() == []
    return stage


def test_day_with_holes_gives_the_rows_of_parquet(filled: Stage, rows: list[MoneyRow]) -> None:
    told = {(row.race_id, row.polling_timestamp) for row in rows}

    assert filled.rows() == rows
    assert filled.poll_count() == ALL
    assert 0.7 * ALL < len(told) < 0.9 * ALL, "the others are holes"


def test_increments_and_flows_add_up_to_the_last_told_amounts(filled: Stage, rows: list[MoneyRow]) -> None:
    races = sorted({row.race_id for row in rows})
    last = {(row.race_id, row.entrant_id): (row.win_pool_amount, row.place_pool_amount) for row in rows}

    async def read(store: PostgresStore) -> tuple[list[BucketFlow], dict[str, list[dict[str, Any]]]]:
        return [flow for race_id in races for flow in await store.bucket_flows(race_id)], await store.previous(races)

    flows, previous = with_store(filled.dsn, read)

    assert sums_of(rows) == sums_of(flows) == last
    assert sorted(flows, key=by_bucket) == sorted(bucket_flows(rows), key=by_bucket)
    amounts = {
        (row["race_id"], row["entrant_id"]): (row["win_pool_amount"], row["place_pool_amount"])
        for race_id in races
        for row in previous[race_id]
    }
    assert {runner: both for runner, both in amounts.items() if any(both)} == last


def sums_of(parts: list[MoneyRow] | list[BucketFlow]) -> dict[tuple[str, str], tuple[int, int]]:
    sums: defaultdict[tuple[str, str], tuple[int, int]] = defaultdict(lambda: (0, 0))
    for part in parts:
        win, place = sums[part.race_id, part.entrant_id]
        sums[part.race_id, part.entrant_id] = (
            win + part.incremental_win_amount,
            place + part.incremental_place_amount,
        )
    return dict(sums)


def by_bucket(flow: BucketFlow) -> tuple[object, ...]:
    return flow.race_id, flow.entrant_id, flow.time_interval


def test_run_directory_is_made_where_no_broker_made_it(stage: Stage, tmp_path: Path) -> None:
    options = ("--race", "R1", "--workers", "1", "--out", stage.url)

    done = racepool("replay", stage.day, *options, env=stage.real.env | {"RACEPOOL_DIR": str(tmp_path / "run")})

    assert done.returncode == 0, done.stderr
    assert stage.poll_count() == POLLS
    assert [path.stat().st_mode & 0o777 for path in tmp_path.glob("**/*")] == [0o700, 0o700]


def test_polls_that_the_database_has_already_are_replaced(stage: Stage, rows: list[MoneyRow]) -> None:
    one = stage.replay("--race", "R2")
    assert (one.returncode, stage.poll_count()) == (0, POLLS)
    stage.server.ask(stage.dsn, "UPDATE racepool.money_flow SET win_pool_amount = 7")

    every = stage.replay()

    assert every.returncode == 0, every.stderr
    assert stage.rows() == rows


def test_replay_that_is_killed_and_interrupted_while_workers_are_killed_goes_on(
    stage: Stage, rows: list[MoneyRow], last: MoneyRow, wait_until: WaitUntil
) -> None:
    with stage.held_up(last):
        first = stage.start()
        wait_until(lambda: any(path.stat().st_size > 50_000 for path in stage.checkpoints()), PATIENCE_S)
        for pid in stage.real.pids().values():
            os.kill(pid, signal.SIGKILL)
        first.kill()

        second = stage.start()
        wait_until(stage.is_waiting, PATIENCE_S)
        second.send_signal(signal.SIGINT)
        told = second.communicate(timeout=PATIENCE_S)[1]
        assert second.returncode == 130, told
        (checkpoint,) = stage.checkpoints()
        assert "polls were done before; continuing from there" in told
        assert f"all {ALL} polls are transformed, but not all of them are written; the same command continues" in told
        assert f"from there (checkpoint: {checkpoint})" in told
        assert "Traceback" not in told
        assert checkpoint.stat().st_mode & 0o777 == 0o600

        third = stage.start()
        wait_until(stage.is_waiting, PATIENCE_S)
        assert 0 < stage.poll_count() < ALL
        third.kill()
        third.wait(PATIENCE_S)
    done = stage.replay()

    assert done.returncode == 0, done.stderr
    assert f"{ALL} of {ALL} polls were done before" in done.stderr
    assert stage.rows() == rows
    assert stage.poll_count() == ALL
    assert stage.checkpoints() == []


def test_restart_of_the_server_is_waited_for(
    stage: Stage, rows: list[MoneyRow], last: MoneyRow, wait_until: WaitUntil
) -> None:
    with stage.held_up(last):
        replay = stage.start()
        wait_until(stage.is_waiting, PATIENCE_S)
        stage.server.stop()
    stage.server.start()
    out, err = replay.communicate(timeout=PATIENCE_S)

    assert replay.returncode == 0, err
    assert f"{len(rows):,} records in" in out
    assert stage.rows() == rows
    assert stage.poll_count() == ALL


def test_database_that_refuses_stops_it_and_it_goes_on_when_that_is_mended(
    stage: Stage, rows: list[MoneyRow], last: MoneyRow, wait_until: WaitUntil
) -> None:
    with stage.held_up(last):
        replay = stage.start()
        wait_until(stage.is_waiting, PATIENCE_S)
        stage.ask(f"ALTER DATABASE {stage.database} ALLOW_CONNECTIONS false")
        stage.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        told = replay.communicate(timeout=PATIENCE_S)[1]
    stage.ask(f"ALTER DATABASE {stage.database} ALLOW_CONNECTIONS true")
    assert replay.returncode == 1, told
    (checkpoint,) = stage.checkpoints()
    assert f"continues from there (checkpoint: {checkpoint})" in told
    assert "is not currently accepting connections" in told
    assert SECRET not in told
    assert "Traceback" not in told

    again = stage.replay()

    assert again.returncode == 0, again.stderr
    assert stage.rows() == rows


def test_database_that_cannot_be_used_is_told_before_the_work(stage: Stage) -> None:
    submitted = stage.real.stats().counters.submitted

    done = stage.replay(url=stage.url_of("no-such-one"))

    assert done.returncode == 1
    assert 'database "no-such-one" does not exist' in done.stderr
    assert SECRET not in done.stderr
    assert "Traceback" not in done.stderr
    assert stage.real.stats().counters.submitted == submitted
    assert stage.checkpoints() == []
