"""Processes that fell silent: which are spared, which are overdue. Without any process or clock."""

from math import inf

import pytest

from racepool.broker.frozen import PATIENCE, FrozenProcesses
from racepool.broker.workers import Worker
from racepool.protocol.messages import Name
from tests.broker.building import LIVENESS_S, an_id

OVERDUE_S = PATIENCE * LIVENESS_S


def silent(name: str, pid: int, last_seen: float = 0.0) -> Worker:
    return Worker(an_id(name), None, 1, Name(name), pid, True, "1", 0, last_seen)


@pytest.fixture
def frozen() -> FrozenProcesses:
    processes = FrozenProcesses(LIVENESS_S)
    processes.add(silent("a", 101))
    processes.add(silent("b", 102, last_seen=1.0))
    return processes


def test_each_is_overdue_after_its_own_silence(frozen: FrozenProcesses) -> None:
    assert frozen.next_check() == OVERDUE_S
    assert frozen.overdue(OVERDUE_S - 0.001) == []

    assert [worker.name for worker in frozen.overdue(OVERDUE_S)] == ["a"]
    assert [worker.name for worker in frozen.overdue(OVERDUE_S + 1.0)] == ["b"]
    assert frozen.next_check() == inf


@pytest.mark.parametrize(("session", "pid"), [("a", None), ("elsewhere", 101)])
def test_process_that_speaks_by_its_session_or_its_pid_is_spared(
    frozen: FrozenProcesses, session: str, pid: int | None
) -> None:
    assert frozen.spared(an_id(session), pid) == [an_id("a")]

    assert [worker.name for worker in frozen.overdue(inf)] == ["b"]


def test_stranger_spares_nobody(frozen: FrozenProcesses) -> None:
    assert frozen.spared(an_id("c"), 103) == []

    assert len(frozen.overdue(inf)) == 2


def test_process_that_ended_is_removed(frozen: FrozenProcesses) -> None:
    assert frozen.ended([an_id("b"), an_id("another")]) == [an_id("b")]

    assert [worker.name for worker in frozen.overdue(inf)] == ["a"]


def test_broker_that_stood_still_gives_them_time_to_speak(frozen: FrozenProcesses) -> None:
    frozen.on_pause(2.0)
    assert frozen.next_check() == OVERDUE_S, "a pause long before the end of their time changes nothing"

    frozen.on_pause(100.0)

    assert frozen.overdue(100.0) == []
    assert frozen.next_check() == 100.0 + LIVENESS_S / 2
