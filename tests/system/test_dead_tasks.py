"""What is left of a task that was given up, and how it gets its result after all."""

import json
import os
import re
import signal
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from racepool import PoolFuture, WorkerCrashedError
from racepool.protocol.messages import Id
from racepool.protocol.quarantine import Record, file_of, pack_head
from racepool.races.payloads import pack_request
from tests.running import Race, Running, StartPool, WaitUntil, racepool, state_of

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("no_dead_tasks")]
ATTEMPTS = 3
POLLED_AT = datetime(2026, 1, 31, 1, 2, 3, 456_789, tzinfo=UTC)


@pytest.fixture(scope="module")
def scripted(start_pool: StartPool) -> Running:
    return start_pool(transform="transforms:scripted", liveness=1.0, heartbeat_interval=0.1)


@pytest.fixture
def no_dead_tasks(scripted: Running, wait_until: WaitUntil) -> Iterator[None]:
    """Each test finds the pool whole and nothing given up, and leaves it so."""
    wait_until(scripted.is_at_rest, 15)
    yield
    racepool("dead", "remove", "--all", env=scripted.env)
    wait_until(scripted.is_at_rest, 15)


def given_up(running: Running, future: PoolFuture[Any], wait_until: WaitUntil) -> str:
    """The id of a task whose workers all died."""
    with pytest.raises(WorkerCrashedError) as caught:
        future.result(30)
    assert future.task_id
    assert f"`racepool dead show {future.task_id}`" in str(caught.value)
    wait_until(lambda: future.task_id in {task["task_id"] for task in listed(running)})
    return future.task_id


def listed(running: Running) -> list[dict[str, Any]]:
    done = racepool("dead", "list", "--json", env=running.env)
    assert (done.returncode, done.stderr) == (0, "")
    tasks: list[dict[str, Any]] = json.loads(done.stdout)
    return tasks


def test_payload_that_killed_three_workers_is_kept_as_it_was_submitted_and_retried(
    scripted: Running, race: Race, gate: Path, tmp_path: Path, wait_until: WaitUntil
) -> None:
    body = json.dumps(race(f"kill-unless:{gate}", "poison"), indent=3).encode() + b"\n \t\n"
    future: PoolFuture[Any] = scripted.pool.exec(body, polled_at=POLLED_AT, run_timeout_s=12.5)
    task_id = given_up(scripted, future, wait_until)

    (task,) = listed(scripted)
    assert (task["task_id"], task["race_id"], task["run_timeout_s"]) == (task_id, "poison", 12.5)
    assert scripted.logged("task_given_up", task_id=task_id)["kept_in"] == task["path"]
    lost = [entry for entry in scripted.events("worker_lost") if entry.get("task_id") == task_id]
    assert [(attempt["worker"], attempt["reason"], attempt["signal"]) for attempt in task["attempts"]] == [
        (entry["worker"], "process_exit", entry.get("signal")) for entry in lost
    ]
    assert len(lost) == ATTEMPTS
    assert {entry.get("signal") for entry in lost} <= {signal.SIGKILL, None}  # an older kernel tells only for a moment
    assert all(attempt["assigned_at"] <= attempt["lost_at"] <= task["given_up_at"] for attempt in task["attempts"])
    assert scripted.logged("task_quarantined", task_id=task_id)["path"] == task["path"]
    shown = racepool("dead", "show", task_id[:6], env=scripted.env).stdout
    assert all(word in shown for word in (task_id, "poison", "process_exit", "12.5 s"))

    assert racepool("dead", "show", task_id, "--body", tmp_path / "body.json", env=scripted.env).returncode == 0
    assert (tmp_path / "body.json").read_bytes() == body

    gate.touch()
    retried = racepool("dead", "retry", task_id, env=scripted.env)

    assert (retried.returncode, retried.stderr) == (0, "")
    result = json.loads(retried.stdout)
    assert (result["id"], result["polled_at"]) == ("poison", POLLED_AT.isoformat())
    assert listed(scripted) == []
    assert not Path(task["path"]).exists()


def test_task_that_still_kills_is_kept_once_with_its_latest_attempts(
    scripted: Running, race: Race, wait_until: WaitUntil
) -> None:
    task_id = given_up(scripted, scripted.exec(race("kill", "still-poison")), wait_until)
    (before,) = listed(scripted)
    wait_until(scripted.is_at_rest, 15)

    retried = racepool("dead", "retry", "--all", env=scripted.env)

    assert (retried.returncode, retried.stdout) == (1, "")
    why, summary = retried.stderr.splitlines()
    assert f"task {task_id} (race still-poison) was given up after 3 attempts" in why
    assert summary == "racepool: 1 of 1 dead tasks failed, and are kept"
    wait_until(lambda: listed(scripted)[0]["given_up_at"] > before["given_up_at"])
    (after,) = listed(scripted)
    assert after["task_id"] == task_id


def test_each_of_several_is_retried_and_only_those_that_fail_are_kept(
    scripted: Running, race: Race, gate: Path, wait_until: WaitUntil
) -> None:
    good = given_up(scripted, scripted.exec(race(f"kill-unless:{gate}", "good")), wait_until)
    kept = given_up(scripted, scripted.exec(race(f"kill-unless:{gate}", "kept")), wait_until)
    bad = bury(scripted, race("raise:as before", "bad"))
    gate.touch()

    assert racepool("dead", "retry", kept, "--keep", env=scripted.env).returncode == 0
    retried = racepool("dead", "retry", bad, good, env=scripted.env)

    assert retried.returncode == 1
    assert json.loads(retried.stdout)["id"] == "good"
    assert "the transform raised RuntimeError: as before" in retried.stderr
    assert {task["task_id"] for task in listed(scripted)} == {kept, bad}


def test_all_are_retried_from_the_oldest_to_the_latest(scripted: Running, race: Race) -> None:
    for number in range(3):
        bury(scripted, race("echo", f"r{number}"), given_up_at_ms=1_000 * (number + 1))

    retried = racepool("dead", "retry", "--all", env=scripted.env)

    assert retried.returncode == 0, retried.stderr
    assert re.findall(r'"id": "(\w+)"', retried.stdout) == ["r0", "r1", "r2"]


def test_retry_takes_the_run_timeout_of_the_record_or_another(scripted: Running, race: Race) -> None:
    task_id = bury(scripted, race("sleep:3", "slow"), run_timeout_ms=100)

    too_slow = racepool("dead", "retry", task_id, env=scripted.env)
    slow = racepool("dead", "retry", task_id, "--run-timeout", 10, env=scripted.env)

    assert too_slow.returncode == 1
    assert "ran out of its 0.1 s while running" in too_slow.stderr
    assert slow.returncode == 0, slow.stderr
    assert json.loads(slow.stdout)["id"] == "slow"


def test_payload_that_is_no_request_is_answered_like_any_other(scripted: Running) -> None:
    task_id = bury(scripted, None, payload=b"\xc1 of another program")

    retried = racepool("dead", "retry", task_id, env=scripted.env)

    assert retried.returncode == 1
    assert f"task {task_id}" in retried.stderr
    assert "Traceback" not in retried.stderr


def test_task_that_froze_its_workers_tells_so(scripted: Running, race: Race, wait_until: WaitUntil) -> None:
    pids = scripted.pids()
    try:
        task_id = given_up(scripted, scripted.exec(race("freeze", "freezing")), wait_until)
    finally:
        for pid in pids.values():
            if state_of(pid) == "T":
                os.kill(pid, signal.SIGCONT)

    (task,) = listed(scripted)
    assert task["task_id"] == task_id
    assert [attempt["reason"] for attempt in task["attempts"]] == ["silence"] * ATTEMPTS
    assert {attempt["worker"] for attempt in task["attempts"]} == set(pids)


def test_records_outlive_their_broker(scripted: Running, race: Race, wait_until: WaitUntil) -> None:
    task_id = bury(scripted, race("echo", "survivor"))
    before = scripted.stats().broker

    os.kill(before.pid, signal.SIGKILL)
    wait_until(lambda: scripted.stats().broker.epoch != before.epoch)

    assert json.loads(racepool("dead", "retry", task_id, env=scripted.env).stdout)["id"] == "survivor"


def bury(
    running: Running,
    race: dict[str, Any] | None,
    *,
    payload: bytes = b"",
    run_timeout_ms: int = 30_000,
    given_up_at_ms: int = 1_700_000_000_000,
) -> str:
    """A record as of an earlier broker."""
    if race is not None:
        body = json.dumps(race).encode()
        payload = pack_request(body, POLLED_AT, None).payload()
    task_id = Id(os.urandom(16))
    path = file_of(running.dir, task_id)
    path.parent.mkdir(exist_ok=True, mode=0o700)
    record = Record(task_id, given_up_at_ms, run_timeout_ms, (), zlib.crc32(payload), len(payload))
    path.write_bytes(pack_head(record) + payload)
    return task_id.hex()
