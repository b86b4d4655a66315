"""supervisord and the watchdog: the service goes on when one of them, or a program that they watch, fails."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from racepool import PoolFuture, TaskTimeoutError, ZmqPool
from tests.running import RACEPOOL, Race, Running, WaitUntil, environment, frozen, state_of

pytestmark = pytest.mark.system
BACK_S = 0.5  # hundredths with the watchdog, often a second without it; a busy machine may delay it
WATCHDOG_S = 15.0


@pytest.fixture(autouse=True)
def _nothing_is_given_up(scripted: Running, wait_until: WaitUntil) -> Iterator[None]:
    """Before and after each test the pool is at rest, and supervisord has given up no program."""
    wait_until(scripted.is_at_rest, 15)
    yield
    wait_until(scripted.is_at_rest, 20)
    assert "FATAL" not in _supervisord_log(scripted.dir)
    assert scripted.events("log_lines_dropped") == []


@pytest.fixture
def load(scripted: Running, race: Race) -> list[PoolFuture[Any]]:
    """A hundred tasks, which take three workers two seconds."""
    return [scripted.exec(race("sleep:0.06", f"race-{index}")) for index in range(100)]


def test_killed_worker_is_back_in_a_moment(scripted: Running, wait_until: WaitUntil) -> None:
    took_s = [_restart_s(scripted, f"worker-{index % 3}", wait_until) for index in range(5)]

    assert sorted(took_s)[-2] < BACK_S


def test_killed_broker_is_back_in_a_moment(scripted: Running, wait_until: WaitUntil) -> None:
    took_s = [_restart_s(scripted, "broker", wait_until) for _ in range(3)]

    assert sorted(took_s)[-2] < BACK_S


def test_broker_that_is_frozen_for_good_is_killed_and_replaced(
    scripted: Running, load: list[PoolFuture[Any]], wait_until: WaitUntil
) -> None:
    before = scripted.stats().broker.pid
    wait(load[:5], 10)

    os.kill(before, signal.SIGSTOP)
    frozen_at = time.monotonic()
    wait_until(lambda: not state_of(before), WATCHDOG_S)
    results = [future.result(30)["id"] for future in load]

    assert time.monotonic() - frozen_at < WATCHDOG_S + 5.0
    assert results == [f"race-{index}" for index in range(100)]
    killed = scripted.logged("broker_killed", pid=before)
    assert (killed["process"], killed["program"], killed["level"]) == ("broker:broker", "watchdog", "warning")
    assert 5.0 < killed["silent_s"] < WATCHDOG_S
    assert scripted.stats().broker.pid != before


def test_worker_that_no_broker_knows_and_that_is_frozen_for_good_is_replaced(
    scripted: Running, wait_until: WaitUntil
) -> None:
    victim, broker = scripted.pids()["worker-1"], scripted.stats().broker.pid

    os.kill(victim, signal.SIGSTOP)
    os.kill(broker, signal.SIGKILL)
    wait_until(lambda: scripted.stats().broker.pid != broker)
    wait_until(lambda: not state_of(victim), 25)
    wait_until(lambda: scripted.pids().get("worker-1", victim) != victim)

    assert scripted.logged("worker_killed", pid=victim)["process"] == "worker:worker-1"


def test_frozen_supervisord_is_felt_by_nobody(
    scripted: Running, race: Race, load: list[PoolFuture[Any]], wait_until: WaitUntil
) -> None:
    chatty = [
        scripted.exec(race("echo", f"chatty-{index}" * 50)) for index in range(500)
    ]  # more log than a pipe can hold

    with frozen(scripted.supervisord_pid):
        thawed_at = time.monotonic() + 6.0
        results = [future.result(6.0)["id"] for future in load + chatty]
        assert time.monotonic() < thawed_at
        wait_until(lambda: time.monotonic() >= thawed_at, 7.0)
        assert scripted.is_at_rest()

    assert results == [f"race-{index}" for index in range(100)] + [f"chatty-{index}" * 50 for index in range(500)]
    assert _restart_s(scripted, "worker-2", wait_until) < 5.0, "it works as before"


@pytest.mark.parametrize("ailing", ["killed", "frozen"])
def test_watchdogs_end_is_felt_by_nobody(scripted: Running, race: Race, wait_until: WaitUntil, ailing: str) -> None:
    pid = _watchdog(scripted)

    if ailing == "killed":
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: _watchdog(scripted) not in (0, pid))
        _restart_s(scripted, "worker-0", wait_until)
        assert scripted.exec(race("echo", "after")).result(10)["id"] == "after"
    else:
        with frozen(pid):
            _restart_s(scripted, "worker-0", wait_until)
            assert scripted.exec(race("echo", "after")).result(10)["id"] == "after"
        assert _watchdog(scripted) == pid


def test_removed_sockets_are_noticed(scripted: Running, load: list[PoolFuture[Any]], wait_until: WaitUntil) -> None:
    before = scripted.stats().broker.pid

    for path in scripted.dir.glob("*.ipc"):
        path.unlink()
    wait_until(lambda: not state_of(before))

    assert [future.result(30)["id"] for future in load] == [f"race-{index}" for index in range(100)]
    assert "removed" in scripted.logged("broker_failed")["reason"]


def test_removed_run_directory_costs_nobody_more_than_time(run_dir: Path, race: Race, wait_until: WaitUntil) -> None:
    env = environment(run_dir, transform="transforms:scripted")
    with ZmqPool(f"ipc://{run_dir}/frontend.ipc") as pool, _up(env, pool):
        before = pool.stats().broker.pid

        shutil.rmtree(run_dir)

        wait_until(lambda: not state_of(before))
        assert _submit(pool, race, 1, queue_timeout_s=30)[0].result()["id"] == "race-0"
        assert pool.stats().broker.pid != before
        pool.wait_for_workers(3, 20)


def test_supervisords_end_costs_nobody_more_than_time(run_dir: Path, race: Race, wait_until: WaitUntil) -> None:
    """If supervisord is killed, all programs die, and the next pool does the rest; SIGTERM ends all in order."""
    env = environment(run_dir, transform="transforms:scripted")
    with ZmqPool(f"ipc://{run_dir}/frontend.ipc") as pool:
        with _up(env, pool) as first:
            pids = _tree(run_dir)
            futures = _submit(pool, race, 200, queue_timeout_s=30)
            wait(futures[:5], 10)
            first.kill()
            wait_until(lambda: not any(map(state_of, pids)))
        assert not all(future.done() for future in futures)

        with _up(env, pool) as second:
            assert [future.result(30)["id"] for future in futures] == [f"race-{index}" for index in range(200)]
            assert _holders(run_dir) == [pool.stats().broker.pid]
            pids = _tree(run_dir)
            futures = _submit(pool, race, 200, queue_timeout_s=4)
            wait(futures[:5], 10)
            second.send_signal(signal.SIGTERM)
            assert second.wait(10) == 0
        assert not any(map(state_of, pids))
        assert "SIGKILL" not in _supervisord_log(run_dir).partition("received SIGTERM")[2]
        assert _holders(run_dir) == []

        done = {index: future.result(0)["id"] for index, future in enumerate(futures) if _has_result(future)}
        assert done == {index: f"race-{index}" for index in done}
        left = [future.exception(20) for index, future in enumerate(futures) if index not in done]
        assert left
        assert {type(error) for error in left} == {TaskTimeoutError}


def _has_result(future: PoolFuture[Any]) -> bool:
    return future.done() and future.exception() is None


@contextmanager
def _up(env: dict[str, str], pool: ZmqPool) -> Iterator["subprocess.Popen[bytes]"]:
    quiet = subprocess.DEVNULL
    with subprocess.Popen([RACEPOOL, "up"], env=env, stdout=quiet, stderr=quiet) as up:
        try:
            pool.wait_for_workers(3, 20)
            yield up
        finally:
            up.kill()


def _submit(pool: ZmqPool, race: Race, count: int, *, queue_timeout_s: float) -> list[PoolFuture[Any]]:
    races = (race("sleep:0.05", f"race-{index}") for index in range(count))
    return [pool.exec(each, queue_timeout_s=queue_timeout_s) for each in races]


def _restart_s(running: Running, program: str, wait_until: WaitUntil) -> float:
    """Kills a program; returns the seconds until supervisord has restarted it."""

    def pid() -> int:
        stats = running.stats()
        return stats.broker.pid if program == "broker" else running.pids().get(program, 0)

    wait_until(pid)
    time.sleep(1.5)  # supervisord delays the restart of a program that ended right after its start
    victim, killed_at = pid(), datetime.now()  # noqa: DTZ005  # supervisord logs local time
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: pid() not in (0, victim))
    started = f"spawned: '{program}' with pid {pid()}"
    (line,) = (each for each in _supervisord_log(running.dir).splitlines() if each.endswith(started))
    return (datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f") - killed_at).total_seconds()  # noqa: DTZ007


def _watchdog(running: Running) -> int:
    """The watchdog's pid; 0 if it does not run."""
    return next((pid for pid in _tree(running.dir) if _runs(pid, "racepool.supervision.watchdog")), 0)


def _tree(directory: Path) -> list[int]:
    """The pids of all programs that supervisord started."""
    supervisord = int((directory / "supervisord.pid").read_text())
    return [int(pid) for pid in Path(f"/proc/{supervisord}/task/{supervisord}/children").read_text().split()]


def _runs(pid: int, module: str) -> bool:
    with suppress(OSError):
        return module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _holders(directory: Path) -> list[int]:
    """The processes that hold the broker's lock, from the kernel."""
    inode = (directory / "broker.lock").stat().st_ino
    fields = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return [int(each[4]) for each in fields if each[5].endswith(f":{inode}")]


def _supervisord_log(directory: Path) -> str:
    return (directory / "log" / "supervisord.log").read_text()
