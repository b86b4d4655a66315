"""`racepool doctor` on set-ups that are really broken."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import zmq

from racepool.protocol.exits import Exit
from racepool.protocol.keys import Role
from racepool.protocol.messages import Id
from racepool.protocol.quarantine import Record, file_of, pack_head
from tests.key_files import Keyring, allowed_file, tcp_endpoints
from tests.running import RACEPOOL, ROOT, Running, StartPool, WaitUntil, broker_held_back, environment, frozen, racepool

pytestmark = pytest.mark.system
BOUND_S = 8.0  # for a command in which every probe uses all of its time
HOLD_LOCK = (
    "import sys; from pathlib import Path; from racepool.broker.lock import BrokerLock;"
    "lock = BrokerLock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
)


@dataclass(frozen=True)
class Diagnosis:
    """The doctor's findings, and how long they took."""

    code: int
    findings: list[dict[str, str]]
    took_s: float

    def has(self, level: str, check: str, words: str = "") -> bool:
        return any(
            (each["level"], each["check"]) == (level, check) and words in f"{each['text']} {each['remedy']}"
            for each in self.findings
        )

    @property
    def problems(self) -> set[str]:
        return {each["check"] for each in self.findings if each["level"] == "problem"}


def diagnosis(env: dict[str, str], *prefix: str) -> Diagnosis:
    began = time.monotonic()
    done = subprocess.run(
        [*prefix, str(RACEPOOL), "doctor", "--json"], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    found = json.loads(done.stdout)["findings"]
    result = Diagnosis(done.returncode, found, time.monotonic() - began)
    assert result.code == (Exit.FAILURE if result.problems else Exit.OK)
    assert all(each["remedy"] for each in found if each["level"] != "ok" and each["check"] != "settings")
    return result


@pytest.fixture(scope="module")
def whole(start_pool: StartPool) -> Running:
    return start_pool()


@pytest.fixture
def run_dir(run_dir: Path) -> Iterator[Path]:
    """A run directory for this test only."""
    own = run_dir / f"{time.monotonic_ns()}"
    own.mkdir(mode=0o700)
    yield own
    own.chmod(0o700)


@pytest.fixture
def start_broker() -> Iterator[Callable[[dict[str, str]], int]]:
    """Starts brokers without supervisord; returns their pids."""
    started = []

    def start(env: dict[str, str]) -> int:
        command = [sys.executable, "-P", "-m", "racepool.broker"]
        started.append(subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        assert racepool("wait", "--workers", 0, "--timeout", 20, env=env).returncode == 0
        return started[-1].pid

    yield start
    for process in started:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(20)


def test_pool_that_is_well_has_no_problem_and_stays_as_it_is(whole: Running, wait_until: WaitUntil) -> None:
    def listing() -> dict[Path, int]:
        return {path: path.lstat().st_mode for path in whole.dir.rglob("*")}

    before, pids = listing(), whole.pids()
    wait_until(lambda: not diagnosis(whole.env).has("warning", "programs"), 20)

    found = diagnosis(whole.env)

    assert found.problems == set()
    assert found.has("ok", "clock", "nor since the workers started")
    assert {"broker", "workers", "supervisor", "lock", "sockets"} <= {
        each["check"] for each in found.findings if each["level"] == "ok"
    }
    assert (listing(), whole.pids()) == (before, pids)
    assert whole.stats().counters.bad_frames == 0
    assert whole.events("bad_frame", "foreign_version", "worker_lost") == []
    text = racepool("doctor", env=whole.env)
    assert text.returncode == Exit.OK
    assert len(text.stdout.splitlines()) == len(found.findings) + 1
    assert text.stdout.splitlines()[-1].startswith("0 problems, ")


def test_nothing_runs_and_nothing_is_made(run_dir: Path) -> None:
    found = diagnosis(environment(run_dir / "none"))

    assert {"broker", "supervisor"} <= found.problems
    assert found.has("warning", "run directory", "is not there")
    assert not (run_dir / "none").exists()


@pytest.mark.parametrize(("setting", "value"), [("liveness", "soon"), ("dir", "x" * 120)])
def test_bad_settings_are_a_finding_among_others(run_dir: Path, setting: str, value: str) -> None:
    env = environment(run_dir) | {f"RACEPOOL_{setting.upper()}": value, "RACEPOOL_WROKERS": "3"}

    found = diagnosis(env)

    assert "settings" in found.problems
    assert found.has("problem", "settings", value)
    assert found.has("warning", "settings", "RACEPOOL_WROKERS")
    assert found.has("ok", "versions")


def test_nobody_is_asked_in_a_run_directory_that_others_may_enter(run_dir: Path) -> None:
    run_dir.chmod(0o755)
    context = zmq.Context()
    stranger: zmq.Socket[bytes] = context.socket(zmq.REP)
    stranger.bind(f"ipc://{run_dir}/stats.ipc")

    found = diagnosis(environment(run_dir))

    was_asked = stranger.poll(0)
    context.destroy(linger=0)
    assert not was_asked
    assert found.has("problem", "run directory", "chmod 700")
    assert run_dir.stat().st_mode & 0o777 == 0o755


def test_run_directory_too_deep_for_supervisord_is_told(run_dir: Path) -> None:
    deep = run_dir / ("x" * (92 - len(str(run_dir))))
    deep.mkdir(mode=0o700)

    assert diagnosis(environment(deep)).has("problem", "run directory", "shorter path")


def test_lock_that_another_program_holds_is_told(run_dir: Path) -> None:
    command = [sys.executable, "-c", HOLD_LOCK, str(run_dir)]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"

        assert diagnosis(environment(run_dir)).has("problem", "lock", f"pid {holder.pid}, which is no broker")

        holder.kill()


def test_broker_of_another_run_directory_is_told(
    whole: Running, run_dir: Path, start_broker: Callable[[dict[str, str]], int]
) -> None:
    other = start_broker(environment(run_dir))

    found = diagnosis(environment(whole.dir, stats_endpoint=f"ipc://{run_dir}/stats.ipc"))

    holder = whole.stats().broker.pid
    assert found.has("problem", "lock", f"pid {holder} holds {whole.dir}/broker.lock, but pid {other} answers")


def test_lone_broker_lacks_workers_and_a_supervisor(
    run_dir: Path, start_broker: Callable[[dict[str, str]], int]
) -> None:
    start_broker(environment(run_dir, workers=2))

    found = diagnosis(environment(run_dir))

    assert found.has("problem", "workers", "degraded: 0 of 2")
    assert found.has("warning", "workers", "RACEPOOL_WORKERS is 3 here")
    assert found.has("warning", "supervisor", "no supervisord")


def test_frozen_broker_is_told_from_an_absent_one(run_dir: Path, start_broker: Callable[[dict[str, str]], int]) -> None:
    pid = start_broker(environment(run_dir))

    with frozen(pid):
        found = diagnosis(environment(run_dir))

    assert found.has("problem", "lock", f"kill -CONT {pid}")
    assert found.has("problem", "broker", "no broker answered")
    assert found.took_s < BOUND_S


def test_broker_whose_sockets_were_removed_is_told(
    run_dir: Path, start_broker: Callable[[dict[str, str]], int]
) -> None:
    start_broker(environment(run_dir))
    (run_dir / "backend.ipc").unlink()

    assert diagnosis(environment(run_dir)).has("problem", "sockets", "not there: backend.ipc, though a broker runs")


def test_killed_broker_under_a_frozen_supervisord_is_told_in_time(whole: Running, wait_until: WaitUntil) -> None:
    with broker_held_back(whole):
        found = diagnosis(whole.env)

    assert found.has("problem", "broker", "nobody answers")
    assert found.has("problem", "supervisor", "does not answer")
    assert found.has("warning", "sockets", "stale: frontend.ipc, backend.ipc, heartbeat.ipc, stats.ipc")
    assert found.took_s < BOUND_S
    wait_until(whole.is_at_rest, 20)


def test_frozen_worker_is_named(whole: Running, wait_until: WaitUntil) -> None:
    pid = whole.pids()["worker-1"]

    with frozen(pid):
        assert diagnosis(whole.env).has("problem", "workers", f"worker-1 (pid {pid}) is frozen")

    wait_until(whole.is_at_rest, 20)


def test_worker_that_was_stopped_is_named_with_its_log(whole: Running, wait_until: WaitUntil) -> None:
    def supervisorctl(verb: str) -> None:
        command = [str(RACEPOOL.with_name("supervisorctl")), "-c", str(whole.dir / "supervisord.conf")]
        subprocess.run([*command, verb, "worker:worker-2"], check=True, capture_output=True, timeout=30)

    supervisorctl("stop")
    found = diagnosis(whole.env)
    supervisorctl("start")

    assert found.has("problem", "programs", "worker-2 is STOPPED")
    assert found.has("problem", "programs", f"see {whole.dir}/log/worker-2.log")
    assert found.has("problem", "workers", "degraded: 2 of 3")
    wait_until(whole.is_at_rest, 20)


def test_supervisord_with_a_poor_file_is_told(run_dir: Path) -> None:
    shipped = (ROOT / "supervisord.conf").read_text()
    poor = shipped.partition("[eventlistener:watchdog]")[0].replace("autorestart=true", "autorestart=unexpected")
    (run_dir / "s.conf").write_text(poor)
    env = environment(run_dir) | {"PATH": f"{RACEPOOL.parent}:{os.environ['PATH']}"}
    command = [str(RACEPOOL.with_name("supervisord")), "-c", "s.conf"]
    with subprocess.Popen(
        command, cwd=run_dir, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as supervisord:
        try:
            assert racepool("wait", env=env).returncode == 0
            found = diagnosis(env)
        finally:
            supervisord.terminate()

    assert found.has("ok", "supervisor", f"pid {supervisord.pid}")
    assert found.has("problem", "restarts", "broker, worker")
    assert found.has("warning", "watchdog", "supervisord has none")


def test_log_directory_that_was_removed_is_told(whole: Running) -> None:
    aside = whole.dir / "log-aside"
    (whole.dir / "log").rename(aside)
    found = diagnosis(whole.env)
    aside.rename(whole.dir / "log")

    assert found.has("problem", "logs", "log is not there")


def test_file_that_never_ends_holds_up_nothing(run_dir: Path) -> None:
    ring = Keyring(run_dir / "keys")
    peer = ring.stranger()
    elsewhere = ring.host(run_dir / "elsewhere", client=peer)
    (elsewhere / "broker.key").unlink()
    os.mkfifo(elsewhere / "broker.key")

    found = diagnosis(environment(run_dir, keys=elsewhere, **tcp_endpoints()))

    assert found.has("problem", "keys", "could not be checked in time")
    assert found.took_s < BOUND_S


@pytest.mark.parametrize(
    ("said", "check", "words"),
    [
        (b'{"broker": {"version": "9.9.9", "protocol_version": 99}}', "broker version", "speaks protocol 99"),
        (b'{"broker": {"version": "9.9.9", "protocol_version": 99}}', "broker", "(it is 9.9.9)"),
        (b"rubbish", "broker", "does not understand (it is unknown)"),
    ],
)
def test_broker_of_another_version_is_told(run_dir: Path, said: bytes, check: str, words: str) -> None:
    context = zmq.Context()
    stats: zmq.Socket[bytes] = context.socket(zmq.ROUTER)
    stats.bind(f"ipc://{run_dir}/stats.ipc")
    with subprocess.Popen(
        [RACEPOOL, "doctor", "--json"], env=environment(run_dir), stdout=subprocess.PIPE, text=True
    ) as child:
        assert stats.poll(20_000)
        peer, *_ = stats.recv_multipart()
        stats.send_multipart([peer, said])
        out, _ = child.communicate(timeout=20)
    context.destroy(linger=0)

    found = Diagnosis(child.returncode, json.loads(out)["findings"], 0.0)
    assert found.has("problem", check, words)


@pytest.fixture(scope="module")
def sick() -> Iterator[Diagnosis]:
    """The findings for a set-up without a broker that has many faults at once."""
    directory = Path(tempfile.mkdtemp(prefix="rp-", dir="/tmp"))
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(directory / "frontend.ipc"))
    (directory / "stats.ipc").write_text("")
    record = file_of(directory, Id(b"t" * 16))
    record.parent.mkdir(mode=0o700)
    record.write_bytes(pack_head(Record(Id(b"t" * 16), 1_000, 30_000, (), 0, 0)))
    (record.parent / f"{'0' * 32}.dead").write_text("rubbish")
    (directory / "tzdata").mkdir()
    (directory / "tzdata" / "__init__.py").touch()
    metadata = directory / "racepool-0.0.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(
        "Metadata-Version: 2.1\nName: racepool\nVersion: 0.0.0\n"
        "Requires-Dist: no-such-thing>=1; extra == 'sky'\nRequires-Dist: click>=8 ; extra == \"ground\"\n"
    )
    env = environment(directory, broker_memory_limit=2**50, heartbeat_endpoint=tcp_endpoints()["heartbeat_endpoint"])
    yield diagnosis(env | {"PYTHONTZPATH": "", "PYTHONPATH": str(directory)}, *at_most_files(200))
    shutil.rmtree(directory)


def at_most_files(limit: int) -> list[str]:
    return ["bash", "-c", f'ulimit -n {limit}; exec "$@"', "bash"]


@pytest.mark.parametrize(
    ("level", "check", "words"),
    [
        ("warning", "sockets", "stale: frontend.ipc;"),
        ("problem", "sockets", "is no socket: stats.ipc "),
        ("warning", "sockets", "not there: backend.ipc "),
        ("problem", "sockets", "no process listens at tcp://127.0.0.1:"),
        ("warning", "sockets", "tcp without keys"),
        ("warning", "dead tasks", "1 dead task is kept"),
        ("warning", "dead tasks", "1 file of dead tasks cannot be read"),
        ("problem", "time zone", "pip install tzdata"),
        ("ok", "extras", "pip install 'racepool[sky]'"),
        ("ok", "extras", "ground is installed"),
        ("warning", "memory", "is more than there is"),
        ("problem", "open files", "a process may have 200 open; supervisord does not start"),
    ],
)
def test_each_of_many_faults_is_told(sick: Diagnosis, level: str, check: str, words: str) -> None:
    assert sick.has(level, check, words)


def test_file_limit_that_the_workers_use_up_is_told(run_dir: Path) -> None:
    assert diagnosis(environment(run_dir), *at_most_files(80)).has(
        "problem", "open files", "3 workers need all of them"
    )


def test_keys_are_looked_at_as_the_programs_do(run_dir: Path) -> None:
    ring = Keyring(run_dir / "keys")
    for role in (Role.CLIENT, Role.WORKER):
        ring.host(run_dir / str(role), **{str(role): ring.admit(role, "local")})
        for path in (run_dir / str(role)).glob(f"{role}.*"):
            shutil.copy2(path, ring.dir)
    env = environment(run_dir, keys=ring.dir, **tcp_endpoints())

    assert diagnosis(env).has("ok", "keys", "2 keys are allowed")

    allowed_file(ring.dir, Role.WORKER, "odd").write_text("no key")
    ring.dismiss(Role.CLIENT, "local")
    found = diagnosis(env)
    assert found.has("warning", "keys", "odd.key holds no key")
    assert found.has("problem", "keys", "does not accept our own key")

    (ring.dir / "client.key_secret").chmod(0o644)
    assert diagnosis(env).has("problem", "keys", "chmod 600")
