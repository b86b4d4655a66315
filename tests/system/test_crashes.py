"""The end of a worker costs one attempt of one task, and nothing else."""

import os
import signal
from concurrent.futures import wait
from pathlib import Path

import pytest

from racepool import TaskTimeoutError, WorkerCrashedError
from tests.running import Race, Running, WaitUntil

pytestmark = pytest.mark.system


def test_task_of_a_killed_worker_is_answered_at_its_original_place(
    scripted: Running, race: Race, tmp_path: Path, wait_until: WaitUntil
) -> None:
    gates = [tmp_path / f"gate-{index}" for index in range(3)]
    order = tmp_path / "order"
    blocked = [scripted.exec(race(f"wait-for:{gate}", f"blocked-{gate.name}")) for gate in gates]
    wait_until(lambda: scripted.stats().in_flight == 3)
    queued = [scripted.exec(race(f"log-to:{order}", f"queued-{index}")) for index in range(20)]
    wait_until(lambda: scripted.stats().counters.submitted >= 23)
    victim = next(worker for worker in scripted.stats().workers if worker.task_id == blocked[1].task_id)

    os.kill(victim.pid, signal.SIGKILL)
    wait_until(lambda: scripted.stats().counters.requeued == 1)
    gates[0].touch()  # one worker becomes idle and gets the first task in the order
    wait_until(lambda: _attempts(scripted, blocked[1].task_id) == [1, 2])
    for gate in gates:
        gate.touch()
    results = [future.result(30) for future in [*blocked, *queued]]

    assert [result["id"] for result in results] == [
        *(f"blocked-{gate.name}" for gate in gates), *(f"queued-{index}" for index in range(20))
    ]  # fmt: skip
    for future in queued:
        scripted.logged("task_assigned", task_id=future.task_id)
    assigned = [entry["task_id"] for entry in scripted.events("task_assigned")]
    second = len(assigned) - 1 - assigned[::-1].index(blocked[1].task_id)
    assert all(assigned.index(future.task_id) > second for future in queued)
    assert [set(_attempts(scripted, future.task_id)) for future in queued] == [
        {1}
    ] * 20  # a prefetched task that was recalled is assigned once more
    wait_until(lambda: scripted.stats().total_workers == 3)
    assert victim.pid not in scripted.pids().values()


def test_one_kill_is_told_in_the_logs(scripted: Running, race: Race, tmp_path: Path, wait_until: WaitUntil) -> None:
    path = tmp_path / "killed"

    future = scripted.exec(race(f"kill-once:{path}", "race-of-the-log"))
    result = future.result(30)
    wait_until(lambda: scripted.stats().total_workers == 3)

    first, second = (scripted.logged("task_assigned", task_id=future.task_id, attempt=attempt) for attempt in (1, 2))
    lost = scripted.logged("worker_lost", task_id=future.task_id)
    assert (lost["worker"], lost["reason"]) == (first["worker"], "process_exit")
    assert lost["duration_ms"] > 0
    assert scripted.logged("task_requeued", task_id=future.task_id)["attempt"] == 1
    completed = scripted.logged("task_completed", task_id=future.task_id)
    assert (completed["worker"], completed["attempt"]) == (second["worker"], 2)
    assert completed["duration_ms"] > 0
    executed = scripted.logged("task_executed", task_id=future.task_id)
    assert (executed["race_id"], executed["worker"]) == ("race-of-the-log", second["worker"])
    pid = scripted.pids()[first["worker"]]
    assert scripted.logged("worker_restarted", worker=first["worker"], pid=pid)["duration_ms"] > 0
    assert scripted.logged("worker_started", worker=first["worker"], pid=pid)
    assert result["pid"] != lost["pid"]


@pytest.mark.parametrize(("name", "attempts"), [("sleep:0.05", 1), ("kill-once:GATE", 2)], ids=["well", "retried"])
def test_future_tells_of_its_task_what_the_log_tells(
    scripted: Running, race: Race, gate: Path, name: str, attempts: int
) -> None:
    future = scripted.exec(race(name.replace("GATE", str(gate)), "race-of-the-log"))
    future.result(30)

    first, last = (scripted.logged("task_assigned", task_id=future.task_id, attempt=each) for each in (1, attempts))
    completed = scripted.logged("task_completed", task_id=future.task_id)
    queued_ms, run_ms = (pytest.approx(each, abs=0.001) for each in (last["queued_ms"], completed["duration_ms"]))
    assert future.timing is not None
    assert future.timing._asdict() == {
        "queued_ms": queued_ms, "run_ms": run_ms, "attempts": attempts, "worker": completed["worker"],
    }  # fmt: skip
    assert (completed["worker"] == first["worker"]) == (attempts == 1)


def test_a_payload_that_kills_every_worker_fails_alone(scripted: Running, race: Race, wait_until: WaitUntil) -> None:
    before = scripted.stats().counters

    poison = scripted.exec(race("kill", "poison"))
    innocent = [scripted.exec(race("sleep:0.05", f"innocent-{index}")) for index in range(60)]
    wait([poison, *innocent], 60)

    with pytest.raises(WorkerCrashedError, match="3 attempts") as caught:
        poison.result(0)
    assert len(caught.value.attempts) == 3
    assert [future.result(0)["id"] for future in innocent] == [f"innocent-{index}" for index in range(60)]
    after = scripted.stats().counters
    assert (after.crashed - before.crashed, after.worker_crashes - before.worker_crashes) == (1, 3)
    assert after.requeued - before.requeued == 2
    wait_until(lambda: scripted.stats().total_workers == 3)


def test_task_of_a_frozen_worker_is_done_elsewhere(
    scripted: Running, race: Race, tmp_path: Path, wait_until: WaitUntil
) -> None:
    before = scripted.stats()
    pids = set(scripted.pids().values())

    frozen = scripted.exec(race(f"freeze-once:{tmp_path / 'frozen'}", "frozen"))
    second = frozen.result(10)["pid"]
    lost = scripted.logged("worker_lost", task_id=frozen.task_id)
    os.kill(lost["pid"], signal.SIGCONT)

    assert second in pids - {lost["pid"]}
    assert lost["reason"] == "silence"
    assert 2000 <= lost["silent_ms"] < 5000
    wait_until(lambda: _attempts(scripted, frozen.task_id) == [1, 2])
    wait_until(lambda: scripted.stats().counters.stale_results == before.counters.stale_results + 1)
    wait_until(lambda: set(scripted.pids().values()) == pids)  # it introduces itself again


def test_a_hung_task_fails_and_its_worker_is_replaced(scripted: Running, race: Race, wait_until: WaitUntil) -> None:
    hung = scripted.exec(race("hold-gil", "hung"), run_timeout_s=1.0)
    other = scripted.exec(race("echo", "other"))

    assert other.result(5)["id"] == "other"
    with pytest.raises(TaskTimeoutError, match=r"race hung.*1 s while running") as caught:
        hung.result(10)
    assert caught.value.state == "running"
    assert scripted.logged("worker_lost", task_id=hung.task_id)["reason"] == "run_timeout"
    assert _attempts(scripted, hung.task_id) == [1]
    wait_until(lambda: scripted.stats().total_workers == 3)


def test_quick_deaths_never_end_in_fatal(scripted: Running, wait_until: WaitUntil) -> None:
    for _ in range(6):
        wait_until(lambda: "worker-0" in scripted.pids(), 15)
        victim = scripted.pids()["worker-0"]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda pid=victim: pid not in scripted.pids().values())

    wait_until(lambda: scripted.stats().total_workers == 3, 15)
    assert "FATAL" not in (scripted.dir / "log" / "supervisord.log").read_text()


def test_a_killed_broker_costs_nobody_a_result(scripted: Running, race: Race, wait_until: WaitUntil) -> None:
    before = scripted.stats().broker

    futures = [scripted.exec(race("sleep:0.1", f"race-{index}")) for index in range(50)]
    wait_until(lambda: scripted.stats().in_flight == 3)
    os.kill(before.pid, signal.SIGKILL)

    assert [future.result(60)["id"] for future in futures] == [f"race-{index}" for index in range(50)]
    after = scripted.stats().broker
    assert after.epoch != before.epoch
    wait_until(lambda: scripted.stats().total_workers == 3)


def _attempts(running: Running, task_id: str | None) -> list[int]:
    return [entry["attempt"] for entry in running.events("task_assigned") if entry["task_id"] == task_id]
