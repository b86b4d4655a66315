"""Workers that are frozen for a moment or for good, and workers that only look frozen."""

import os
import signal
import time
from pathlib import Path

import pytest

from racepool import WorkerCrashedError
from tests.running import Race, Running, StartPool, WaitUntil, frozen

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("at_rest")]

LIVENESS_S = 2.0
FROZEN_S = 5 * LIVENESS_S
SLACK_S = 2.0


def test_worker_that_is_frozen_for_good_is_killed_and_replaced(
    scripted: Running, race: Race, wait_until: WaitUntil
) -> None:
    before, pids = scripted.stats().counters, scripted.pids()

    frozen_at = time.monotonic()
    os.kill(pids["worker-1"], signal.SIGSTOP)
    others = [scripted.exec(race("echo", f"other-{index}")) for index in range(30)]
    wait_until(lambda: scripted.pids().get("worker-1", pids["worker-1"]) != pids["worker-1"], FROZEN_S + 2 * SLACK_S)
    replaced_s = time.monotonic() - frozen_at

    assert [future.result(20)["id"] for future in others] == [f"other-{index}" for index in range(30)]
    killed = scripted.logged("worker_killed")
    assert (killed["worker"], killed["pid"], killed["reason"]) == ("worker-1", pids["worker-1"], "frozen")
    assert FROZEN_S - LIVENESS_S - 0.5 <= replaced_s < FROZEN_S + SLACK_S + 2.0
    assert scripted.stats().counters.worker_crashes == before.worker_crashes + 1


def test_payload_that_freezes_every_worker_leaves_the_pool_whole(
    scripted: Running, race: Race, wait_until: WaitUntil
) -> None:
    pids = scripted.pids()

    freezing = scripted.exec(race("freeze", "freezing"))
    with pytest.raises(WorkerCrashedError):
        freezing.result(30)
    later = scripted.exec(race("echo", "later"))

    assert later.result(FROZEN_S + 2 * SLACK_S)["id"] == "later"
    wait_until(scripted.is_at_rest, FROZEN_S + 2 * SLACK_S)
    assert not set(scripted.pids().values()) & set(pids.values())


def test_worker_that_stands_still_for_less_than_the_liveness_is_left_alone(
    start_pool: StartPool, race: Race, gate: Path, wait_until: WaitUntil
) -> None:
    patient = start_pool(transform="transforms:scripted", liveness=8.0)
    pids = patient.pids()

    slow = patient.exec(race(f"wait-for:{gate}", "slow"))
    wait_until(lambda: patient.stats().in_flight == 1)
    with frozen(patient.holder(slow.task_id).pid):
        time.sleep(2.0)  # the test is that nothing happens in this time
    gate.touch()

    assert slow.result(10)["id"] == "slow"
    after = patient.stats().counters
    assert (after.requeued, after.worker_crashes) == (0, 0)
    assert patient.pids() == pids


def test_worker_that_one_c_call_silences_for_long_is_left_to_finish(scripted: Running, race: Race) -> None:
    before = scripted.stats().counters

    silent = scripted.exec(race(f"hold-gil:{2 * LIVENESS_S}", "silent"), run_timeout_s=120.0)

    assert silent.result(120)["id"] == "silent"
    assert scripted.logged("task_completed", task_id=silent.task_id)["duration_ms"] > 2_000 * LIVENESS_S
    after = scripted.stats().counters
    assert (after.requeued, after.worker_crashes) == (before.requeued, before.worker_crashes)
    assert scripted.logged("worker_silent")["reason"] == "it uses CPU"


def test_child_that_outlives_its_worker_hides_nothing(scripted: Running, race: Race) -> None:
    """The child keeps the worker's sockets open, so only the pidfd tells that the worker has ended."""
    started_at = time.monotonic()

    forking = scripted.exec(race("fork-kill:5", "forking"))
    with pytest.raises(WorkerCrashedError):
        forking.result(20)

    scripted.logged("task_given_up", task_id=forking.task_id)
    lost = [each for each in scripted.events("worker_lost") if each.get("task_id") == forking.task_id]
    assert [each["reason"] for each in lost] == ["process_exit"] * 3
    assert time.monotonic() - started_at < 3 * LIVENESS_S, "heartbeats told it, not the kernel"
    assert all(each["silent_ms"] < LIVENESS_S * 1000 for each in lost)
