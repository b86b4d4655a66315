"""supervisord, the watchdog beside it, and what becomes of the service when one of them, or what they watch, fails."""

import os
import shutil
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from client import PoolFuture, TaskTimeoutError, ZmqPool
from tests.running import RACEPOOL, Race, Running, WaitUntil, environment, frozen, state_of

pytestmark = pytest.mark.system
BACK_S = 2.0  # a restart takes a fifth of that where nothing else runs
KILLS = 5
WATCHDOG_S = 15.0


@pytest.fixture(autouse=True)
def _nothing_is_given_up(scripted: Running, wait_until: WaitUntil) -> Iterator[None]:
    """Each test finds the pool at rest and leaves it so, and supervisord has given up nothing."""
    wait_until(scripted.is_at_rest, 15)
    yield
    wait_until(scripted.is_at_rest, 20)
    assert "FATAL" not in _supervisord_log(scripted.dir)
    assert scripted.events("log_lines_dropped") == []


@pytest.fixture
def load(scripted: Running, race: Race) -> list[PoolFuture[Any]]:
    """A hundred tasks that three workers have to do with for two seconds."""
    return [scripted.exec(race("sleep:0.06", f"race-{index}")) for index in range(100)]


def test_killed_worker_is_back_in_a_moment(scripted: Running, wait_until: WaitUntil) -> None:
    took_s = [_kill_and_wait(scripted, "worker-0", wait_until) for _ in range(KILLS)]

    assert statistics.median(took_s) < BACK_S


def test_killed_broker_is_back_in_a_moment(scripted: Running, wait_until: WaitUntil) -> None:
    before = scripted.stats().broker.pid

    killed_at = time.monotonic()
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: scripted.stats().broker.pid != before)

    assert time.monotonic() - killed_at < BACK_S


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
    chatty = [scripted.exec(race("echo", f"chatty-{index}" * 50)) for index in range(500)]  # more log than a pipe takes

    with frozen(scripted.supervisord_pid):
        thawed_at = time.monotonic() + 6.0
        results = [future.result(6.0)["id"] for future in load + chatty]
        assert time.monotonic() < thawed_at
        wait_until(lambda: time.monotonic() >= thawed_at, 7.0)
        assert scripted.is_at_rest()

    assert results == [f"race-{index}" for index in range(100)] + [f"chatty-{index}" * 50 for index in range(500)]
    assert _kill_and_wait(scripted, "worker-2", wait_until) < 5.0, "it works as before"


@pytest.mark.parametrize("ailing", ["killed", "frozen"])
def test_watchdogs_end_is_felt_by_nobody(scripted: Running, race: Race, wait_until: WaitUntil, ailing: str) -> None:
    pid = _watchdog(scripted)

    if ailing == "killed":
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: _watchdog(scripted) not in (0, pid))
        _kill_and_wait(scripted, "worker-0", wait_until)
        assert scripted.exec(race("echo", "after")).result(10)["id"] == "after"
    else:
        with frozen(pid):
            _kill_and_wait(scripted, "worker-0", wait_until)
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
    """Killed, it takes all with it, and the next one's pool does what is left; terminated, it ends all in order."""
    env = environment(run_dir, transform="transforms:scripted")
    with ZmqPool(f"ipc://{run_dir}/frontend.ipc") as pool:
        with _up(env, pool) as first:
            pids = _tree(run_dir)
            futures = _submit(pool, race, 60, queue_timeout_s=30)
            wait(futures[:5], 10)
            first.kill()
            wait_until(lambda: not any(map(state_of, pids)))
        assert not all(future.done() for future in futures)

        with _up(env, pool) as second:
            assert [future.result(30)["id"] for future in futures] == [f"race-{index}" for index in range(60)]
            assert _holders(run_dir) == [pool.stats().broker.pid]
            pids = _tree(run_dir)
            futures = _submit(pool, race, 200, queue_timeout_s=4)
            wait(futures[:5], 10)
            second.send_signal(signal.SIGTERM)
            assert second.wait(10) == 0
        assert not any(map(state_of, pids))
        assert "SIGKILL" not in _supervisord_log(run_dir).partition("received SIGTERM")[2]
        assert _holders(run_dir) == []

        done = {index: future.result(0)["id"] for index, future in enumerate(futures) if future.done()}
        assert done == {index: f"race-{index}" for index in done}
        left = [future.exception(20) for index, future in enumerate(futures) if index not in done]
        assert left
        assert {type(error) for error in left} == {TaskTimeoutError}


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


def _kill_and_wait(running: Running, name: str, wait_until: WaitUntil) -> float:
    """Kills a worker; how long until another one of its name was ready, in seconds."""
    wait_until(lambda: name in running.pids())
    victim = running.pids()[name]
    killed_at = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: running.pids().get(name, victim) != victim)
    return time.monotonic() - killed_at


def _watchdog(running: Running) -> int:
    """The watchdog's pid, 0 if it is not there."""
    return next((pid for pid in _tree(running.dir) if _runs(pid, "client.watchdog")), 0)


def _tree(directory: Path) -> list[int]:
    """All that supervisord started."""
    supervisord = int((directory / "supervisord.pid").read_text())
    return [int(pid) for pid in Path(f"/proc/{supervisord}/task/{supervisord}/children").read_text().split()]


def _runs(pid: int, module: str) -> bool:
    with suppress(OSError):
        return module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _holders(directory: Path) -> list[int]:
    """The processes that hold the broker's lock, as the kernel knows them."""
    inode = (directory / "broker.lock").stat().st_ino
    fields = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return [int(each[4]) for each in fields if each[5].endswith(f":{inode}")]


def _supervisord_log(directory: Path) -> str:
    return (directory / "log" / "supervisord.log").read_text()
