"""Whatever a transform starts and leaves running ends with its worker, however the worker or its pool ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from racepool import PoolError, ZmqPool, local_pool
from racepool.protocol.processes import process_state
from racepool.supervision.orphans import MARK, kill_marked, mark_of
from tests.running import ROOT, WaitUntil

TRANSFORM = """
import os, subprocess, sys, time

SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(300)"]

def note(path):
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\\n")

def fork(path, then=lambda: None):
    if os.fork() == 0:
        then()
        note(path)
        time.sleep(300)

def leave(race, *, polled_at, previous):
    path = race.name
    fork(path)
    fork(path, os.setsid)
    fork(path, lambda: fork(path))
    for options in ({}, {"start_new_session": True}, {"env": {}}):
        with open(path, "a") as file:
            file.write(f"{subprocess.Popen(SLEEP, **options).pid}\\n")
    while len(open(path).readlines()) < 7:
        time.sleep(0.005)
    if race.id == "hang":
        time.sleep(300)
    return os.getpid()
"""
CHILDREN = 7
Race = Callable[..., dict[str, object]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("leaving")
    (made / "leaving.py").write_text(TRANSFORM)
    return made


@pytest.fixture(scope="module")
def pool(folder: Path) -> Iterator[ZmqPool]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(folder).items():
            patch.setenv(name, value)
        with local_pool(workers=1, max_attempts=1) as made:
            yield made


def environment(folder: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(folder), "RACEPOOL_TRANSFORM": "leaving:leave"}


def is_gone(pid: int) -> bool:
    return process_state(pid) in ("", "Z", "X")


def children(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def kill_what_is_left(path: Path) -> None:
    for pid in children(path):
        if not is_gone(pid):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.system
@pytest.mark.parametrize("end", ["kill", "terminate", "run timeout", "cancel"])
def test_children_end_with_their_worker(
    pool: ZmqPool, tmp_path: Path, race: Race, wait_until: WaitUntil, end: str
) -> None:
    path = tmp_path / "pids"
    pool.wait_for_workers(1, 20)
    try:
        if end in ("kill", "terminate"):
            worker: Any = pool.exec(race(str(path))).result(20)
            assert not any(map(is_gone, children(path))), "they may stay between tasks"
            os.kill(worker, signal.SIGKILL if end == "kill" else signal.SIGTERM)
        elif end == "cancel":
            future = pool.exec(race(str(path), "hang"))
            wait_until(lambda: len(children(path)) == CHILDREN)
            future.cancel(kill=True)
        else:
            with pytest.raises(PoolError):
                pool.exec(race(str(path), "hang"), run_timeout_s=1.5).result(20)

        assert len(children(path)) == CHILDREN
        wait_until(lambda: all(map(is_gone, children(path))))
    finally:
        kill_what_is_left(path)


POOL = """
import sys
from racepool import local_pool
race = {"id": "r1", "name": sys.argv[1], "status": "open", "race_date_nz": "2025-07-17", "start_time_nz": "12:50"}
with local_pool(workers=1) as pool:
    pool.exec(race).result(20)
    print(pool.stats().broker.pid, flush=True)
    sys.stdin.readline()
"""


@pytest.mark.system
@pytest.mark.parametrize("end", ["normal", "caller killed", "supervisord killed"])
def test_children_end_with_their_pool(folder: Path, tmp_path: Path, wait_until: WaitUntil, end: str) -> None:
    path = tmp_path / "pids"
    caller = subprocess.Popen(
        [sys.executable, "-c", POOL, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | environment(folder), cwd=ROOT,
    )  # fmt: skip
    assert caller.stdin is not None
    assert caller.stdout is not None
    try:
        broker = int(caller.stdout.readline())
        left = children(path)
        assert len(left) == CHILDREN
        if end == "normal":
            caller.stdin.write("\n")
            caller.stdin.flush()
            caller.wait(20)
        elif end == "caller killed":
            caller.kill()
        else:
            supervisord = int(Path(f"/proc/{broker}/stat").read_text().rpartition(")")[2].split()[1])
            left.remove(next(pid for pid in left if not mark_of(pid)))  # without the mark: see docs/limits.md
            os.kill(supervisord, signal.SIGKILL)
        wait_until(lambda: all(map(is_gone, [broker, *left])))
    finally:
        kill_what_is_left(path)
        caller.kill()
        with caller:
            pass  # closes its streams and waits


def sleeper(**environment: str) -> "subprocess.Popen[bytes]":
    code = "import time; print(flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-S", "-c", code], env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_sweep_kills_what_has_the_mark_and_nothing_else() -> None:
    mark = uuid4().hex
    ours, other_pools, longer, nobodys = (
        sleeper(**{MARK: mark}),
        sleeper(**{MARK: uuid4().hex}),
        sleeper(**{MARK: f"{mark}0"}),
        sleeper(OTHER=f"{MARK}={mark}"),
    )
    try:
        kill_marked(mark.encode())

        assert ours.wait(10) == -signal.SIGKILL
        assert [process.poll() for process in (other_pools, longer, nobodys)] == [None] * 3
    finally:
        for process in (ours, other_pools, longer, nobodys):
            process.kill()
            process.communicate()


def test_no_mark_sweeps_nothing() -> None:
    process = sleeper()
    try:
        kill_marked(b"")

        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


def test_only_orphans_are_killed_and_children_from_before_live_on() -> None:
    code = """
import os, signal, subprocess, time
from racepool.supervision.orphans import Orphanage
before = subprocess.Popen(["sleep", "60"])
orphanage = Orphanage()
program = subprocess.Popen(["sh", "-c", "sleep 61 & setsid sleep 62 & echo; wait"], stdout=subprocess.PIPE)
program.stdout.readline()
assert not orphanage.kill({program.pid})
program.kill()
program.wait()
orphanage.end()
assert not orphanage.kill(())
assert before.poll() is None
before.kill()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=20, cwd=ROOT)
