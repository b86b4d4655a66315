import random

import pytest

from racepool.broker.backlog import Backlog
from racepool.broker.tasks import Client, Task
from racepool.protocol.messages import Id
from tests.broker.building import ALICE, an_id

CLIENT = Client(an_id("alice"), 1, ALICE, 0.0, 0, can_share=False)


def a_task(seq: int, size: int = 10) -> Task:
    return Task(Id(seq.to_bytes(16, "big")), seq, CLIENT, bytes(size), False, 1_000, 0.0)


def filled(*seqs: int) -> tuple[Backlog, dict[int, Task]]:
    backlog, tasks = Backlog(), {seq: a_task(seq) for seq in seqs}
    for task in tasks.values():
        backlog.add(task, now=0.0)
    return backlog, tasks


def popped(backlog: Backlog) -> list[int]:
    seqs = []
    while (task := backlog.pop(now=1.0)) is not None:
        seqs.append(task.seq)
    return seqs


def test_empty_backlog_has_nothing() -> None:
    backlog = Backlog()

    assert (backlog.pop(now=0.0), backlog.oldest(), backlog.depth, backlog.payload_bytes) == (None, None, 0, 0)


def test_order_is_that_of_the_numbers_for_any_order_of_arrival() -> None:
    seqs = list(range(1, 200))
    random.Random(1).shuffle(seqs)

    assert popped(filled(*seqs)[0]) == sorted(seqs)


def test_task_that_comes_back_goes_to_its_place() -> None:
    backlog, _ = filled(1, 2, 3, 4)
    first, second = backlog.pop(now=0.0), backlog.pop(now=0.0)
    assert first
    assert second
    backlog.add(second, now=0.0)
    backlog.add(first, now=0.0)

    assert popped(backlog) == [1, 2, 3, 4]


def test_depth_and_bytes_count_what_waits() -> None:
    backlog = Backlog()
    tasks = [a_task(seq, size) for seq, size in ((1, 5), (2, 7), (3, 11))]
    for task in tasks:
        backlog.add(task, now=0.0)
    assert (backlog.depth, backlog.payload_bytes) == (3, 23)

    backlog.discard(tasks[1], now=0.0)
    assert (backlog.depth, backlog.payload_bytes) == (2, 16)
    backlog.pop(now=0.0)
    assert (backlog.depth, backlog.payload_bytes) == (1, 11)


@pytest.mark.parametrize("gone", [1, 2, 3])
def test_discarded_task_never_comes_up(gone: int) -> None:
    backlog, tasks = filled(1, 2, 3)

    backlog.discard(tasks[gone], now=0.0)

    assert backlog.oldest() is tasks[2 if gone == 1 else 1]
    assert popped(backlog) == [seq for seq in (1, 2, 3) if seq != gone]


def test_discarded_task_holds_no_payload_and_no_place() -> None:
    backlog, tasks = filled(*range(1, 1_001))

    for seq in range(1, 1_000):
        backlog.discard(tasks[seq], now=0.0)

    assert {tasks[seq].payload for seq in range(1, 1_000)} == {b""}
    assert len(backlog._heap) < 100
    assert popped(backlog) == [1_000]


def test_payload_of_an_assigned_task_is_kept_for_the_next_attempt() -> None:
    backlog, _ = filled(1)
    task = backlog.pop(now=0.0)

    assert task
    assert task.payload == bytes(10)


def test_waiting_time_adds_up_over_all_stays() -> None:
    backlog, tasks = filled(1)
    backlog.pop(now=2.0)
    backlog.add(tasks[1], now=5.0)
    backlog.pop(now=5.5)

    assert tasks[1].waited_s == 2.5


def test_task_is_queued_from_add_to_pop() -> None:
    backlog, tasks = filled(1)
    assert tasks[1].is_queued

    backlog.pop(now=0.0)
    assert not tasks[1].is_queued
