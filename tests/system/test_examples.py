"""The examples as a user runs them: real processes, a real pool, HTTP on loopback, and failures."""

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from racepool.races.money_row import MoneyRow
from tests.running import ROOT, Running, StartPool, WaitUntil, broker_held_back, environment
from tests.storage.building import stored
from tests.storage.server import OWNER, Server, started_server

pytestmark = pytest.mark.system
TICK_S = 0.25
WORKERS = 3
PATIENCE_S = 20.0
SECRET = "not-to-be-shown"  # noqa: S105  # the database trusts everybody
SAMPLES = sorted((ROOT / "samples").glob("*.json"))


@dataclass(frozen=True)
class Service:
    """The example service and the tote that it polls."""

    process: "subprocess.Popen[str]"
    url: str
    tote_url: str
    database: str
    log: Path
    output: Path

    def health(self) -> tuple[int, dict[str, Any]]:
        answer = httpx.get(f"{self.url}/health", timeout=PATIENCE_S)
        return answer.status_code, answer.json()

    def is_up(self) -> bool:
        assert self.process.poll() is None, "the service has ended"
        try:
            return self.health()[0] == httpx.codes.OK
        except httpx.TransportError:
            return False

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Its log lines of this event."""
        lines = [json.loads(line) for line in self.output.read_text().splitlines()]
        return [line for line in lines if line["event"] == event]

    def stop(self) -> None:
        """Ends it with SIGTERM, as a supervisor does. uvicorn shuts down and then dies by that signal."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE_S) == -signal.SIGTERM
        said = self.log.read_text()
        assert "Application shutdown complete." in said
        assert "Traceback" not in said

    def races(self) -> list[dict[str, Any]]:
        """The tote's races, and how often each was served."""
        listed: list[dict[str, Any]] = httpx.get(f"{self.tote_url}/races", timeout=PATIENCE_S).json()["races"]
        return listed

    def stored(self) -> dict[str, dict[str, list[dict[str, Any]]]]:
        """The records in the file for each race and entrant, in the order of the polls."""
        found: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
        with closing(sqlite3.connect(self.database)) as connection:
            for (text,) in connection.execute("SELECT record FROM money_flow ORDER BY polling_timestamp"):
                record = json.loads(text)
                found[record["race_id"]][record["entrant_id"]].append(record)
        return found


StartService = Callable[..., Service]


@pytest.fixture(scope="module")
def real(start_pool: StartPool) -> Running:
    return start_pool()


@contextmanager
def program(
    *arguments: object, env: dict[str, str], err: Path, out: Path | None = None
) -> Iterator["subprocess.Popen[str]"]:
    """Runs a module. Without `out`, its output is a pipe; a program that prints much would stop when it is full."""
    command = [sys.executable, "-m", *map(str, arguments)]
    with ExitStack() as files:
        error = files.enter_context(err.open("w"))
        output = subprocess.PIPE if out is None else files.enter_context(out.open("w"))
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=output, stderr=error, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def tote_url(tmp_path: Path) -> Iterator[str]:
    """Five races with a thousand polls; the last poll answers with half a response."""
    options = ("--port", 0, "--polls", 1000, "--interval", TICK_S, "--broken", 1)
    with program("examples.tote", *options, env=dict(os.environ), err=tmp_path / "tote.err") as tote:
        assert tote.stdout
        line = tote.stdout.readline()
        (url,) = re.findall(r"http://[\d.:]+", line)
        yield url


@pytest.fixture
def start_service(real: Running, tmp_path: Path, wait_until: WaitUntil) -> Iterator[StartService]:
    """Starts the service for this tote; without a database, it stores to a file."""
    with ExitStack() as stack:

        def start(tote_url: str, database: str = str(tmp_path / "money-flow.db")) -> Service:
            port, log, output = free_port(), tmp_path / "service.err", tmp_path / "service.out"
            env = real.env | {
                "SERVICE_TOTE_URL": tote_url,
                "SERVICE_PORT": str(port),
                "SERVICE_INTERVAL_S": str(TICK_S),
                "SERVICE_DATABASE": database,
            }
            process = stack.enter_context(program("examples.service", env=env, err=log, out=output))
            started = Service(process, f"http://127.0.0.1:{port}", tote_url, database, log, output)
            wait_until(started.is_up, PATIENCE_S)
            return started

        yield start


@pytest.fixture
def service(start_service: StartService, tote_url: str) -> Service:
    return start_service(tote_url)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A PostgreSQL server."""
    with started_server() as server:
        yield server


def url_of(server: Server, database: str) -> str:
    return f"postgresql://{OWNER}:{SECRET}@/{database}?host={server.folder}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def test_no_record_is_lost_while_workers_are_killed(service: Service, real: Running, wait_until: WaitUntil) -> None:
    for kill in range(1, 5):
        wait_until(lambda: len(real.pids()) == WORKERS, PATIENCE_S)
        for pid in real.pids().values():  # all at once, while the ticks continue
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda kill=kill: service.health()[1]["tally"]["stored"] >= 8 * kill, PATIENCE_S)
    wait_until(lambda: service.health()[1]["status"] == "ok", PATIENCE_S)
    tally = service.health()[1]["tally"]
    *whole, broken = service.races()
    flow = httpx.get(f"{service.url}/races/{whole[0]['event_id']}/money-flow").json()

    service.stop()
    assert set(tally["failures"]) == {"InvalidRaceError"}, "the broken race's, and nobody else's"
    assert real.stats().counters.worker_crashes >= 4 * WORKERS
    stored = service.stored()
    served = {race["event_id"]: race["served"] for race in service.races()}
    assert broken["event_id"] not in stored
    assert {record["entrant_id"] for record in flow} == set(stored[whole[0]["event_id"]])
    for race in whole:
        for records in stored[race["event_id"]].values():
            assert len(records) == served[race["event_id"]], "each poll that was fetched, also at the end, is there"
            for kind in ("win", "place"):
                increments = sum(record[f"incremental_{kind}_amount"] for record in records)
                assert increments == records[-1][f"{kind}_pool_amount"], "each poll counts from the one before"


def test_log_tells_what_each_poll_cost(service: Service, wait_until: WaitUntil) -> None:
    wait_until(lambda: service.health()[1]["tally"]["stored"] >= 8, PATIENCE_S)
    service.stop()

    polled, failed = service.logged("race_polled"), service.logged("race_not_transformed")
    assert len(polled) >= 8
    assert {line["error"] for line in failed} == {"InvalidRaceError"}
    for line in [*polled, *failed]:
        assert line["queued_ms"] >= 0
        assert line["run_ms"] > 0
        assert (line["attempts"], line["worker"].rstrip("012")) == (1, "worker-")


def test_no_increment_is_lost_while_the_database_restarts(
    start_service: StartService, server: Server, tote_url: str, wait_until: WaitUntil
) -> None:
    dsn = server.new_database()
    name = dsn.rpartition("dbname=")[2]
    server.ask("postgres", f"ALTER DATABASE {name} SET synchronous_commit = on")
    service = start_service(tote_url, url_of(server, name))
    wait_until(lambda: service.health()[1]["tally"]["stored"] >= 8, PATIENCE_S)
    server.stop()
    ticks = service.health()[1]["tally"]["ticks"]
    wait_until(lambda: service.health()[1]["tally"]["ticks"] > ticks + 2, PATIENCE_S)
    server.start()
    stored_before = service.health()[1]["tally"]["stored"]
    wait_until(lambda: service.health()[1]["tally"]["stored"] >= stored_before + 8, PATIENCE_S)
    tally = service.health()[1]["tally"]
    race_id = service.races()[0]["event_id"]
    flow = httpx.get(f"{service.url}/races/{race_id}/money-flow").json()

    service.stop()
    assert set(tally["failures"]) == {"InvalidRaceError"}, "what waited for the database was stored"
    assert SECRET not in service.log.read_text()
    rows = stored(server, dsn)
    runners: dict[tuple[str, str], list[MoneyRow]] = defaultdict(list)
    for row in rows:
        runners[row.race_id, row.entrant_id].append(row)
    assert {row["entrant_id"] for row in flow} == {entrant_id for race, entrant_id in runners if race == race_id}
    assert len({race for race, _ in runners}) == 4
    for each in runners.values():
        assert sum(row.incremental_win_amount for row in each) == each[-1].win_pool_amount
        assert sum(row.incremental_place_amount for row in each) == each[-1].place_pool_amount


def test_service_without_its_database_does_not_start_and_tells_why(
    real: Running, server: Server, tmp_path: Path
) -> None:
    env = real.env | {"SERVICE_DATABASE": url_of(server, "no-such-one"), "SERVICE_PORT": "0"}

    with program("examples.service", env=env, err=tmp_path / "service.err") as process:
        assert process.wait(PATIENCE_S) == 3, "uvicorn's code for a failed start"
    said = (tmp_path / "service.err").read_text()
    assert 'database "no-such-one" does not exist' in said
    assert SECRET not in said


def test_health_tells_of_a_broker_that_is_away_and_of_its_return(
    service: Service, real: Running, wait_until: WaitUntil
) -> None:
    with broker_held_back(real):
        wait_until(lambda: service.health()[0] == httpx.codes.SERVICE_UNAVAILABLE, PATIENCE_S)
        _, health = service.health()
        assert health["status"] == "unable"
        assert health["reasons"] == ["the pool's broker does not answer within 1 s"]
        ticks = health["tally"]["ticks"]
        wait_until(lambda: service.health()[1]["tally"]["ticks"] > ticks, PATIENCE_S)
    wait_until(lambda: service.health()[1]["status"] == "ok", PATIENCE_S)
    stored = service.health()[1]["tally"]["stored"]
    wait_until(lambda: service.health()[1]["tally"]["stored"] > stored, PATIENCE_S)

    assert service.health()[1]["tally"]["skipped"] > 0, "no race was polled a second time while its poll waited"
    assert set(service.health()[1]["tally"]["failures"]) == {"InvalidRaceError"}, "what waited for the broker came"


def test_tote_that_is_away_is_counted_and_no_reason_for_a_restart(
    start_service: StartService, wait_until: WaitUntil
) -> None:
    service = start_service(f"http://127.0.0.1:{free_port()}")
    wait_until(lambda: service.health()[1]["tally"]["failures"].get("ConnectError", 0) > 1, PATIENCE_S)

    assert service.health()[1]["status"] == "ok"
    assert httpx.get(f"{service.url}/races/unheard-of/money-flow").status_code == httpx.codes.NOT_FOUND
    service.stop()


def test_service_without_a_pool_does_not_start_and_says_what_to_do(run_dir: Path, tmp_path: Path) -> None:
    env = environment(run_dir, connect_timeout=0.2) | {"SERVICE_START_TIMEOUT_S": "0.5", "SERVICE_PORT": "0"}

    with program("examples.service", env=env, err=tmp_path / "service.err") as process:
        assert process.wait(PATIENCE_S) == 3, "uvicorn's code for a failed start"
    assert "is `racepool up` running, with the same RACEPOOL_DIR?" in (tmp_path / "service.err").read_text()


def test_service_with_a_bad_setting_names_it(tmp_path: Path) -> None:
    env = dict(os.environ) | {"SERVICE_INTERVAL_S": "soon"}

    with program("examples.service", env=env, err=tmp_path / "service.err") as process:
        assert process.wait(PATIENCE_S) == 78
    assert (tmp_path / "service.err").read_text().startswith("service: SERVICE_INTERVAL_S=soon: Input should be")


def test_script_maps_files_and_names_the_one_that_fails(tmp_path: Path) -> None:
    (tmp_path / "half.json").write_text('{"header": ')
    command = [sys.executable, "-m", "examples.map_files", *map(str, SAMPLES), str(tmp_path / "half.json")]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 1
    assert sorted(line.partition(":")[0] for line in done.stdout.splitlines()) == [path.name for path in SAMPLES]
    assert done.stderr.startswith("half.json: task ")
    assert "invalid" in done.stderr
