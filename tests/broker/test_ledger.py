import pytest

from racepool.broker.ledger import Ledger
from racepool.broker.tasks import Client, Task, Withdrawn
from racepool.protocol.messages import Reject
from racepool.protocol.settings import Settings
from racepool.protocol.stats import OUTCOMES, Counters
from tests.broker.building import ALICE, BOB, an_id, submit


@pytest.fixture
def alice() -> Client:
    return Client(an_id("alice"), 1, ALICE, 0.0, 0, can_share=False)


def make_ledger(**settings: int) -> Ledger:
    return Ledger(Settings.load(**settings))


def enter(ledger: Ledger, client: Client, name: str) -> Task:
    assert ledger.submit(client, submit(name), now=0.0) is None
    return client.tasks[an_id(name)]


def take(ledger: Ledger) -> Task:
    task = ledger.backlog.pop(now=0.0)
    assert task
    return task


def test_tasks_are_numbered_in_arrival_order(alice: Client) -> None:
    ledger = make_ledger()

    assert [enter(ledger, alice, name).seq for name in ("t1", "t2", "t3")] == [1, 2, 3]


def test_refused_task_takes_no_number(alice: Client) -> None:
    ledger = make_ledger(backlog_limit=1)
    enter(ledger, alice, "t1")

    assert ledger.submit(alice, submit("t2"), now=0.0) == Reject(an_id("t2"), 1, 1, in_bytes=False)
    take(ledger)
    assert enter(ledger, alice, "t2").seq == 2


def test_tasks_in_flight_take_no_room_in_the_backlog(alice: Client) -> None:
    ledger = make_ledger(backlog_limit=1, backlog_bytes=4)
    for name in ("t1", "t2", "t3"):
        enter(ledger, alice, name)
        take(ledger)

    assert (ledger.in_flight, ledger.backlog.depth) == (3, 0)


@pytest.mark.parametrize("counter", OUTCOMES)
def test_every_end_is_counted_once(alice: Client, counter: str) -> None:
    ledger = make_ledger()
    enter(ledger, alice, "t1")
    task = take(ledger)

    assert ledger.end(task, counter)
    assert {end: ledger.counters[end] for end in OUTCOMES if ledger.counters[end]} == {counter: 1}
    assert (ledger.in_flight, alice.tasks) == (0, {})
    assert list(ledger.audit([])) == []


@pytest.mark.parametrize("withdrawn", Withdrawn)
def test_withdrawn_task_is_counted_as_withdrawn_at_any_end(alice: Client, withdrawn: Withdrawn) -> None:
    ledger = make_ledger()
    enter(ledger, alice, "t1")
    task = take(ledger)
    task.withdrawn = withdrawn

    assert not ledger.end(task, "completed")
    assert (ledger.counters[withdrawn.value], ledger.counters["completed"]) == (1, 0)


def test_ends_are_counters_of_the_stats() -> None:
    assert set(OUTCOMES) < set(Counters.model_fields)


def test_abandoning_tells_how_many_waited_and_how_many_were_in_flight(alice: Client) -> None:
    ledger = make_ledger()
    for name in ("t1", "t2", "t3"):
        enter(ledger, alice, name)
    held = [take(ledger)]

    assert ledger.abandon(alice, now=0.0) == (2, 1)
    assert held[0].withdrawn is Withdrawn.ABANDONED
    assert list(ledger.audit(held)) == []


def test_abandoning_leaves_a_cancelled_task_cancelled(alice: Client) -> None:
    ledger = make_ledger()
    enter(ledger, alice, "t1")
    task = take(ledger)
    task.withdrawn = Withdrawn.CANCELLED

    ledger.abandon(alice, now=0.0)

    assert task.withdrawn is Withdrawn.CANCELLED


def test_task_belongs_to_the_client_that_submitted_it(alice: Client) -> None:
    ledger = make_ledger()
    task = enter(ledger, alice, "t1")
    bob = Client(an_id("bob"), 1, BOB, 0.0, 0, can_share=False)

    assert ledger.submit(bob, submit("t1"), now=0.0) is None
    assert (task.client, bob.tasks, ledger.counters["bad_frames"]) == (alice, {}, 1)


def test_audit_finds_what_is_wrong(alice: Client) -> None:
    ledger = make_ledger()
    enter(ledger, alice, "t1")
    enter(ledger, alice, "t2")
    task = take(ledger)
    assert list(ledger.audit([task])) == []

    assert list(ledger.audit([])) == [
        "an open task is in nobody's hands, or a worker holds one that is closed",
        "two workers hold one task",
    ]
    assert list(ledger.audit([task, task])) == ["two workers hold one task"]
    ledger.counters["completed"] += 1
    assert list(ledger.audit([task])) == ["the counters do not add up"]
    ledger.counters["completed"] -= 1
    ledger.backlog.payload_bytes += 1
    assert list(ledger.audit([task])) == ["the backlog counts other tasks than those that are queued"]


def test_task_that_nobody_waits_for_may_be_submitted_by_another_client(alice: Client) -> None:
    ledger, bob = make_ledger(), Client(an_id("bob"), 1, BOB, 0.0, 0, can_share=False)
    task = enter(ledger, alice, "t1")
    assert ledger.submit(bob, submit("t1"), now=0.0) is None
    assert (task.client, ledger.counters["bad_frames"]) == (alice, 1)

    take(ledger)
    task.withdrawn, task.goes_by_value = Withdrawn.CANCELLED, True
    assert ledger.submit(bob, submit("t1", 5_000, b"the race again", is_shared=True), now=0.0) is None

    assert (task.payload, task.is_shared, task.run_timeout_ms) == (b"the race again", True, 5_000)
    assert not task.goes_by_value, "that was the shared memory of the other client"
    assert (list(alice.tasks), list(bob.tasks)) == ([], [task.id])
    assert ledger.end(task, "completed")
    assert ledger.counters["bad_frames"] == 1
