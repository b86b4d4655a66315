"""Callers do not notice that the broker ends or stops: clients and workers know everything that it knew."""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from racepool import PoolFuture, ZmqPool
from tests.running import Race, Running, StartClient, StartPool, WaitUntil, broker_held_back, frozen

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("at_rest")]

KILLS = 10
DONE_IN_AN_EPOCH = 60  # so that the broker has written most of its log before it is killed


@pytest.fixture
def other(scripted: Running) -> Iterator[ZmqPool]:
    with scripted.client() as pool:
        yield pool


def test_ten_kills_under_load_cost_no_result_and_no_order(
    scripted: Running, other: ZmqPool, race: Race, wait_until: WaitUntil
) -> None:
    ends: Counter[str] = Counter()
    futures: dict[str, PoolFuture[Any]] = {}

    def submit(pool: ZmqPool, race_id: str) -> None:
        futures[race_id] = pool.exec(race("sleep:0.01", race_id))
        futures[race_id].add_done_callback(lambda _: ends.update([race_id]))

    for kill in range(KILLS):
        done_before = ends.total()
        for index in range(100 if kill else 400):
            submit(scripted.pool, f"ours-{kill}-{index}")
            submit(other, f"theirs-{kill}-{index}")
        wait_until(lambda before=done_before: ends.total() >= before + DONE_IN_AN_EPOCH, 15)
        wait_until(lambda: scripted.stats().in_flight >= 3)  # no worker runs a task of an earlier broker any more
        stats = scripted.stats()
        assert stats.in_flight <= 6  # at most one prefetched task in each worker's hands
        assert len(futures) - ends.total() > 100
        os.kill(stats.broker.pid, signal.SIGKILL)
    results = {race_id: future.result(60)["id"] for race_id, future in futures.items()}

    assert results == {race_id: race_id for race_id in futures}
    wait_until(lambda: ends.total() >= len(futures))  # a result is there before its callback runs
    assert ends == dict.fromkeys(futures, 1)
    races = {future.task_id: race_id for race_id, future in futures.items()}
    scripted.logged("task_completed", task_id=futures[f"theirs-{KILLS - 1}-99"].task_id)
    epochs = [[races[task] for task in epoch if task in races] for epoch in _first_assignments(scripted)]
    epochs = [epoch for epoch in epochs if epoch]
    assert len(epochs) == KILLS + 1
    assert all(len(epoch) >= DONE_IN_AN_EPOCH / 2 for epoch in epochs)
    for client in ("ours", "theirs"):
        places = {race_id: place for place, race_id in enumerate(futures) if race_id.startswith(client)}
        for epoch in epochs:
            order = [places[race_id] for race_id in epoch if race_id in places]
            assert order == sorted(order)


def test_worker_that_is_busy_through_a_restart_is_known_by_its_heartbeat(
    scripted: Running, race: Race, tmp_path: Path, wait_until: WaitUntil
) -> None:
    gate = tmp_path / "gate"
    ends: list[str] = []
    long = scripted.exec(race(f"wait-for:{gate}", "long"))
    long.add_done_callback(lambda future: ends.append(future.result()["id"]))
    wait_until(lambda: scripted.stats().in_flight == 1)
    busy = scripted.holder(long.task_id)

    os.kill(scripted.stats().broker.pid, signal.SIGKILL)
    wait_until(lambda: _state(scripted, busy.pid) == ("busy", None))
    others = [scripted.exec(race("echo", f"other-{index}")).result(10) for index in range(20)]
    assert busy.pid not in {result["pid"] for result in others}
    assert _state(scripted, busy.pid) == ("busy", None)
    gate.touch()

    assert long.result(10)["pid"] != busy.pid
    wait_until(lambda: _state(scripted, busy.pid) == ("idle", None))
    assert ends == ["long"]
    wait_until(lambda: _executions(scripted, long) == [2])
    counters = scripted.stats().counters
    assert (counters.submitted, counters.completed, counters.requeued) == (21, 21, 0)
    assert (counters.worker_crashes, counters.stale_results) == (0, 0)


def test_result_that_finds_another_broker_changes_nothing(
    start_pool: StartPool, race: Race, tmp_path: Path, wait_until: WaitUntil
) -> None:
    lonely = start_pool(transform="transforms:scripted", workers=1, heartbeat_interval=20, liveness=60)
    gate = tmp_path / "gate"
    ends: list[str] = []
    future = lonely.exec(race(f"wait-for:{gate}", "late"))
    future.add_done_callback(lambda future: ends.append(future.result()["id"]))
    wait_until(lambda: lonely.stats().in_flight == 1)
    pids = lonely.pids()

    with broker_held_back(lonely):
        gone_at = time.monotonic()
        wait_until(lambda: time.monotonic() >= gone_at + 0.3)  # time for the worker's socket to notice the broker's end
        gate.touch()  # the worker is done before the next broker starts, so no heartbeat tells the broker of this task

    assert future.result(15)["id"] == "late"
    wait_until(lonely.is_at_rest)
    wait_until(lambda: _executions(lonely, future) == [2])
    assert ends == ["late"]
    counters = lonely.stats().counters
    assert (counters.submitted, counters.completed, counters.stale_results) == (1, 1, 1)
    assert counters.worker_crashes == 0
    assert lonely.pids() == pids


@pytest.mark.parametrize("frozen_s", [1.0, 5.0])
def test_broker_that_was_frozen_loses_no_worker_and_no_task(
    scripted: Running, race: Race, wait_until: WaitUntil, frozen_s: float
) -> None:
    before, pids = scripted.stats(), scripted.pids()
    ends: list[str] = []
    futures = [scripted.exec(race("sleep:0.1", f"race-{index}")) for index in range(100)]
    for future in futures:
        future.add_done_callback(lambda future: ends.append(future.result()["id"]))
    wait_until(lambda: len(ends) >= 10)

    with frozen(before.broker.pid):
        thawed_at = time.monotonic() + frozen_s
        wait_until(lambda: time.monotonic() >= thawed_at, frozen_s + 1)
        assert len(ends) < 100
    results = [future.result(30)["id"] for future in futures]

    assert results == [f"race-{index}" for index in range(100)]
    wait_until(lambda: len(ends) >= 100)  # a result is there before its callback runs
    assert sorted(ends) == sorted(results)
    after = scripted.stats()
    assert after.broker.epoch == before.broker.epoch
    assert scripted.pids() == pids
    assert after.counters.worker_crashes == before.counters.worker_crashes
    assert after.counters.requeued == before.counters.requeued
    assert after.counters.abandoned == before.counters.abandoned
    assert scripted.logged("broker_paused")["workers"] == 3


def test_graceful_restart_lets_tasks_in_flight_end_and_computes_nothing_twice(
    scripted: Running, race: Race, wait_until: WaitUntil
) -> None:
    before, pids = scripted.stats(), scripted.pids()
    futures = [scripted.exec(race("sleep:0.1", f"race-{index}")) for index in range(45)]
    wait_until(lambda: scripted.stats().counters.completed >= before.counters.completed + 3)

    os.kill(before.broker.pid, signal.SIGTERM)
    results = [future.result(30)["id"] for future in futures]

    assert results == [f"race-{index}" for index in range(45)]
    stopped = scripted.logged("broker_stopped")
    after = scripted.stats()
    assert after.broker.epoch != before.broker.epoch
    assert after.counters.completed + stopped["completed"] - before.counters.completed == 45
    assert after.counters.submitted == after.counters.completed
    wait_until(lambda: all(_executions(scripted, *futures)))
    assert _executions(scripted, *futures) == [1] * 45
    wait_until(lambda: scripted.pids() == pids)


def test_client_that_was_frozen_for_too_long_submits_again(
    scripted: Running, race: Race, start_client: StartClient, tmp_path: Path, wait_until: WaitUntil
) -> None:
    gates = [tmp_path / "gate-0", tmp_path / "gate-1", tmp_path / "gate-1"]
    blocking = [race(f"wait-for:{gate}", f"blocking-{index}") for index, gate in enumerate(gates)]
    before = scripted.stats().counters
    client = start_client(scripted, [*blocking, *(race("echo", f"queued-{index}") for index in range(20))])
    wait_until(lambda: scripted.stats().counters.submitted == before.submitted + 23)

    with frozen(client.pid):
        wait_until(lambda: scripted.stats().counters.abandoned == before.abandoned + 20)
        assert (scripted.stats().queue_depth, scripted.stats().in_flight) == (0, 3)
        gates[0].touch()  # no client waits for this one any more
        wait_until(lambda: scripted.stats().counters.abandoned == before.abandoned + 21)
    wait_until(lambda: scripted.stats().counters.submitted == before.submitted + 23 + 21)
    gates[1].touch()
    output, _ = client.communicate(timeout=15)

    assert json.loads(output) == [
        *(f"blocking-{index}" for index in range(3)), *(f"queued-{index}" for index in range(20))
    ]  # fmt: skip
    after = scripted.stats().counters
    assert after.completed - before.completed == 23
    assert after.abandoned - before.abandoned == 21
    abandoned = scripted.logged("task_abandoned")
    assert (abandoned["queued"], abandoned["in_flight"]) == (20, 3)


def _first_assignments(running: Running) -> Iterator[list[str | None]]:
    """The tasks of each epoch, in the order of their first assignment in it."""
    epoch: dict[str | None, None] = {}
    for entry in running.events("broker_started", "task_assigned"):
        if entry["event"] == "broker_started":
            yield list(epoch)
            epoch = {}
        else:
            epoch.setdefault(entry["task_id"])
    yield list(epoch)


def _executions(running: Running, *futures: PoolFuture[Any]) -> list[int]:
    """How often these tasks were executed by the workers' logs; complete once the pool is at rest."""
    counts = Counter(entry["task_id"] for entry in running.events("task_executed"))
    return [counts[future.task_id] for future in futures]


def _state(running: Running, pid: int) -> tuple[str, str | None] | None:
    return next(((worker.state, worker.task_id) for worker in running.stats().workers if worker.pid == pid), None)
