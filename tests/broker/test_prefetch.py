from math import inf

import pytest

from racepool.broker.prefetch import MAX_WAIT_S, MIN_WAIT_S, SHORT_S, WAIT_IN_RUNS, WEIGHT, Prefetch
from racepool.broker.tasks import Client, Task
from racepool.broker.workers import Prefetched, Worker
from racepool.protocol.messages import Name
from tests.broker.building import ALICE, an_id

TASK = Task(an_id("t1"), 1, Client(an_id("alice"), 1, ALICE, 0.0, 0, False), b"race", False, 500, 0.0)


def a_worker(lease: int) -> Worker:
    """Busy, with a prefetched task under this lease."""
    worker = Worker(an_id(f"s{lease}"), b"peer", 1, Name("worker-1"), 101, True, "0.1.0", 0, 0.0)
    worker.begin(TASK, lease - 1, 0.0)
    worker.prefetched = Prefetched(TASK, lease, 0.0)
    return worker


def test_it_does_not_pay_before_the_first_result() -> None:
    assert not Prefetch().pays


def test_average_moves_with_each_run() -> None:
    prefetch = Prefetch()
    told = []
    for run_s in (SHORT_S, SHORT_S + 0.001, 0.0):
        prefetch.observe(run_s)
        told.append(prefetch.pays)

    assert told == [True, False, True]


def test_pool_of_short_tasks_forgets_a_long_one() -> None:
    prefetch = Prefetch()
    prefetch.observe(0.001)
    prefetch.observe(30.0)
    runs = 0
    while not prefetch.pays and runs < 1000:
        prefetch.observe(0.001)
        runs += 1

    assert 10 < runs < 100


@pytest.mark.parametrize(
    ("average_s", "max_wait_s"),
    [(0.0, MIN_WAIT_S), (0.001, WAIT_IN_RUNS * 0.001), (SHORT_S, MAX_WAIT_S)],
)
def test_longest_wait_follows_the_average_within_bounds(average_s: float, max_wait_s: float) -> None:
    prefetch = Prefetch()
    prefetch.observe(average_s)

    assert prefetch.max_wait_s == pytest.approx(max_wait_s)


def test_tasks_that_have_waited_for_too_long_come_up_once_in_the_order_of_their_instants() -> None:
    prefetch, first, later = Prefetch(), a_worker(3), a_worker(5)
    prefetch.observe(0.002)
    prefetch.expect(first, 1.0)
    prefetch.observe(0.0)  # the next one has a shorter wait, and may still be due first
    prefetch.expect(later, 1.0)
    max_wait_s = WAIT_IN_RUNS * 0.002

    assert prefetch.next_due() == pytest.approx(1.0 + (1 - WEIGHT) * max_wait_s)
    assert prefetch.overdue(1.0) == []
    assert prefetch.overdue(1.0 + max_wait_s) == [later, first]
    assert prefetch.overdue(9.0) == []


@pytest.mark.parametrize("now_has", [None, Prefetched(TASK, 4, 0.0)])
def test_task_that_is_not_prefetched_any_more_is_skipped(now_has: Prefetched | None) -> None:
    prefetch, worker = Prefetch(), a_worker(3)
    prefetch.expect(worker, 1.0)
    worker.prefetched = now_has

    assert prefetch.next_due() == inf
    assert prefetch.overdue(9.0) == []


def test_audit_finds_a_prefetched_task_that_would_wait_for_ever() -> None:
    prefetch, worker = Prefetch(), a_worker(3)
    assert list(prefetch.audit([worker])) == ["the prefetched task of worker-1 would wait for ever"]

    prefetch.expect(worker, 1.0)
    assert list(prefetch.audit([worker])) == []
