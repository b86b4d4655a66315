from math import inf

import pytest

from racepool.broker import roster as module
from racepool.broker.roster import Roster
from racepool.broker.tasks import Client, Task
from racepool.broker.workers import Worker
from racepool.protocol.messages import Name
from tests.broker.building import ALICE, an_id

TASK = Task(an_id("t1"), 1, Client(an_id("alice"), 1, ALICE, 0.0, 0, False), b"race", False, 500, 0.0)


def a_worker(
    session: str, name: str = "worker-1", pid: int = 101, *, is_local: bool = True, has_peer: bool = True
) -> Worker:
    peer = session.encode() if has_peer else None
    return Worker(an_id(session), peer, 1, Name(name), pid, is_local, "0.1.0", 0, 0.0)


def roster_of(*workers: Worker) -> Roster:
    roster = Roster()
    for worker in workers:
        roster.add(worker)
    return roster


def test_new_worker_is_idle_and_found_by_its_peer() -> None:
    worker = a_worker("s1")
    roster = roster_of(worker)

    assert (roster.idle_count, worker.state) == (1, "idle")
    assert roster.at(b"s1") is worker
    assert roster.at(b"s2") is None


def test_worker_without_a_peer_can_be_given_nothing() -> None:
    worker = a_worker("s1", has_peer=False)
    roster = roster_of(worker)

    assert (roster.idle_count, worker.state) == (0, "busy")
    assert list(roster.audit()) == []


def test_occupied_worker_is_busy_until_its_deadline_and_idle_again_when_released() -> None:
    worker = a_worker("s1")
    roster = roster_of(worker)

    assert roster.occupy(TASK, 7, now=2.0) is worker
    assert (worker.task, worker.lease, worker.assigned_at, worker.deadline) == (TASK, 7, 2.0, 2.5)
    assert (roster.idle_count, worker.state) == (0, "busy")
    assert roster.holder(TASK) is worker

    roster.release(worker, now=3.0)
    assert (worker.task, worker.lease, worker.deadline, roster.idle_count) == (None, 0, inf, 1)


def test_longest_idle_worker_is_occupied_first() -> None:
    workers = [a_worker(f"s{index}", f"worker-{index}") for index in range(3)]
    roster = roster_of(*workers)
    roster.release(roster.occupy(TASK, 1, now=0.0), now=1.0)

    assert [roster.occupy(TASK, 2, now=0.0) for _ in range(3)] == [workers[1], workers[2], workers[0]]


@pytest.mark.parametrize("is_busy", [True, False])
def test_removed_worker_leaves_nothing_behind(*, is_busy: bool) -> None:
    worker = a_worker("s1")
    roster = roster_of(worker)
    if is_busy:
        roster.occupy(TASK, 1, now=0.0)

    roster.remove(worker)

    assert (roster.workers, roster.idle_count, roster.at(b"s1")) == ({}, 0, None)
    assert list(roster.audit()) == []


@pytest.mark.parametrize(
    ("known", "is_forerunner"),
    [
        (a_worker("old", "worker-1", 101), True),
        (a_worker("old", "worker-1", 999), False),
        (a_worker("old", "worker-1", 999, is_local=False), True),
        (a_worker("old", "worker-2", 101), False),
        (a_worker("old", "worker-2", 101, is_local=False), False),
        (a_worker("old", "worker-1", 101, has_peer=False), True),
    ],
    ids=["same process", "other local process", "remote of the name", "other name", "other remote name", "no peer"],
)
def test_forerunners(known: Worker, *, is_forerunner: bool) -> None:
    assert roster_of(known).forerunners("worker-1", 101) == ([known] if is_forerunner else [])


def test_sessions_of_a_process() -> None:
    ours = a_worker("s1", "worker-1", 101)
    roster = roster_of(ours, a_worker("s2", "worker-1", 102), a_worker("s3", "worker-2", 101))

    assert roster.sessions_of("worker-1", 101) == [ours]


def test_name_that_is_away_is_taken_once() -> None:
    roster = roster_of()
    roster.mark_away(a_worker("s1"), now=3.0)

    assert roster.take_away_since("worker-1") == 3.0
    assert roster.take_away_since("worker-1") is None


def test_names_that_are_away_are_bounded_and_the_oldest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_NAMES_AWAY", 2)
    roster = roster_of()
    for now, name in enumerate(("a", "b", "a", "c")):
        roster.mark_away(a_worker(name, name), float(now))

    assert [roster.take_away_since(name) for name in ("a", "b", "c")] == [2.0, None, 3.0]


def test_pool_waits_for_the_worker_that_went_missing_last_until_a_bound() -> None:
    roster = roster_of()
    assert roster.somebody_is_away_until(0.0) is None
    roster.mark_away(a_worker("s1", "a"), 1.0)
    roster.mark_away(a_worker("s2", "b"), 2.0)
    assert roster.somebody_is_away_until(3.0) == 2.0 + module.AWAY_S

    roster.take_away_since("b")

    assert roster.somebody_is_away_until(3.0) == 1.0 + module.AWAY_S
    assert roster.somebody_is_away_until(1.0 + module.AWAY_S) is None


def test_roster_is_full_at_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WORKERS", 1)
    assert not roster_of().is_full

    assert roster_of(a_worker("s1")).is_full


def test_audit_finds_what_is_wrong() -> None:
    roster = roster_of(a_worker("s1"), a_worker("s2", "worker-2"))
    roster.workers[an_id("s1")].begin(TASK, 1, 0.0)
    assert list(roster.audit()) == ["worker worker-1 is busy, the idle list says otherwise"]

    roster.workers[an_id("s1")].task, roster.workers[an_id("s1")].deadline = None, inf
    del roster._at[b"s2"]
    assert list(roster.audit()) == ["worker worker-2 cannot be found by its peer", "a peer leads to no worker"]


@pytest.mark.parametrize("listed", ["_idle", "_with_free_hand"])
def test_audit_finds_a_session_that_is_over_and_still_listed(listed: str) -> None:
    roster = roster_of()
    getattr(roster, listed)[an_id("s1")] = a_worker("s1")

    assert list(roster.audit()) == ["a session that is over is listed as one that can be given work"]
