from math import inf

import pytest

from racepool.broker.seconds import MAX_PATIENCE_S, MIN_PATIENCE_S, PATIENCE, SHORT_S, WEIGHT, Seconds
from racepool.broker.tasks import Client, Task
from racepool.broker.workers import Second, Worker
from tests.broker.building import ALICE, an_id

TASK = Task(an_id("t1"), 1, Client(an_id("alice"), 1, ALICE, 0.0, 0, False), b"race", False, 500, 0.0)


def a_worker(lease: int) -> Worker:
    """Busy, with a second under this lease."""
    worker = Worker(an_id(f"s{lease}"), b"peer", 1, "worker-1", 101, True, "0.1.0", 0, 0.0)
    worker.begin(TASK, lease - 1, 0.0)
    worker.second = Second(TASK, lease)
    return worker


def test_nothing_is_known_before_the_first_result() -> None:
    assert not Seconds().are_worth_it


def test_average_moves_with_each_run() -> None:
    seconds = Seconds()
    told = []
    for run_s in (SHORT_S, SHORT_S + 0.001, 0.0):
        seconds.observe(run_s)
        told.append(seconds.are_worth_it)

    assert told == [True, False, True]


def test_pool_of_short_tasks_forgets_a_long_one() -> None:
    seconds = Seconds()
    seconds.observe(0.001)
    seconds.observe(30.0)
    runs = 0
    while not seconds.are_worth_it and runs < 1000:
        seconds.observe(0.001)
        runs += 1

    assert 10 < runs < 100


@pytest.mark.parametrize(
    ("average_s", "patience_s"),
    [(0.0, MIN_PATIENCE_S), (0.001, PATIENCE * 0.001), (SHORT_S, MAX_PATIENCE_S)],
)
def test_patience_follows_the_average_within_bounds(average_s: float, patience_s: float) -> None:
    seconds = Seconds()
    seconds.observe(average_s)

    assert seconds.patience_s == pytest.approx(patience_s)


def test_those_that_have_waited_for_too_long_come_up_once_in_their_order() -> None:
    seconds, first, later = Seconds(), a_worker(3), a_worker(5)
    seconds.observe(0.002)
    seconds.expect(first, 1.0)
    seconds.observe(0.0)  # the next one has less patience, and may still be due first
    seconds.expect(later, 1.0)
    patience_s = PATIENCE * 0.002

    assert seconds.next_due() == pytest.approx(1.0 + (1 - WEIGHT) * patience_s)
    assert seconds.overdue(1.0) == []
    assert seconds.overdue(1.0 + patience_s) == [later, first]
    assert seconds.overdue(9.0) == []


@pytest.mark.parametrize("now_has", [None, Second(TASK, 4)])
def test_what_is_no_second_any_more_is_skipped(now_has: Second | None) -> None:
    seconds, worker = Seconds(), a_worker(3)
    seconds.expect(worker, 1.0)
    worker.second = now_has

    assert seconds.next_due() == inf
    assert seconds.overdue(9.0) == []


def test_audit_finds_a_second_that_would_wait_for_ever() -> None:
    seconds, worker = Seconds(), a_worker(3)
    assert list(seconds.audit([worker])) == ["the second of worker-1 would wait for ever"]

    seconds.expect(worker, 1.0)
    assert list(seconds.audit([worker])) == []
