"""Workers are recycled between tasks: no crash, no requeue, and never two of them absent at the same time."""

from itertools import pairwise
from typing import Any

import pytest

from tests.running import Race, Running, StartPool, WaitUntil

pytestmark = pytest.mark.system


def away(running: Running) -> list[tuple[str, dict[str, Any]]]:
    """The workers that were recycled and that came back, in order of time."""
    events = running.events("worker_stopped", "worker_restarted")
    return [(event["event"], event) for event in events if event["program"] == "broker"]


def test_recycling_under_load_costs_nothing_and_one_worker_at_a_time(
    start_pool: StartPool, race: Race, wait_until: WaitUntil
) -> None:
    pool = start_pool(transform="transforms:scripted", max_tasks_per_worker=10)
    fewest = pool.stats().total_workers

    futures = [pool.exec(race("sleep:0.02", f"race-{index}")) for index in range(300)]
    while not all(future.done() for future in futures):
        fewest = min(fewest, pool.stats().total_workers)

    assert [future.result(0)["id"] for future in futures] == [f"race-{index}" for index in range(300)]
    wait_until(lambda: pool.stats().total_workers == 3)
    counters = pool.stats().counters
    assert (counters.worker_crashes, counters.requeued, counters.crashed) == (0, 0, 0)
    assert fewest == 2
    wait_until(lambda: len(away(pool)) % 2 == 0)
    comings = away(pool)
    assert len(comings) >= 6, "too few were recycled to tell anything"
    for (first, gone), (second, back) in list(pairwise(comings))[::2]:
        assert (first, gone["reason"]) == ("worker_stopped", "recycled")
        assert (second, back["worker"]) == ("worker_restarted", gone["worker"])
    assert "SIGKILL" not in (pool.dir / "log" / "supervisord.log").read_text()


def test_worker_that_grew_beyond_its_memory_limit_is_recycled(
    start_pool: StartPool, race: Race, wait_until: WaitUntil
) -> None:
    pool = start_pool(transform="transforms:scripted", worker_memory_limit=200 << 20)
    pids = pool.pids()

    grown = pool.exec(race(f"hoard:{200 << 20}", "grown")).result(20)
    wait_until(lambda: pool.pids().get(grown["worker"], grown["pid"]) != grown["pid"])

    assert {name: pid for name, pid in pool.pids().items() if name != grown["worker"]} == {
        name: pid for name, pid in pids.items() if name != grown["worker"]
    }
    assert pool.stats().counters.worker_crashes == 0
    assert pool.logged("worker_stopped", worker=grown["worker"], program="broker")["reason"] == "recycled"
