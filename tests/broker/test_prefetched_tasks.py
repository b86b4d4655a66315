"""Prefetched tasks: which worker gets one, when it is recalled, and what a loss of the worker costs it."""

from collections.abc import Callable

import pytest

from racepool.broker.actions import (
    Action,
    KillProcess,
    Report,
    SendByValue,
    SendToClient,
    SendToHeartbeat,
    SendToWorker,
)
from racepool.broker.core import RETURN_S, SETTLE_S, BrokerCore
from racepool.broker.prefetch import MAX_WAIT_S, MIN_WAIT_S, SHORT_S
from racepool.protocol.messages import Bye, Cancel, Expire, Hello, Outcome, Recall, Recycle, Returned, Waited, Who
from tests.broker.building import (
    ALICE,
    ALICE_AGAIN,
    EPOCH,
    H1,
    LIVENESS_S,
    W1,
    W1_AGAIN,
    W2,
    WELCOME,
    an_id,
    answer,
    answered,
    assigned,
    beat,
    deeds,
    die,
    hello,
    ready,
    report,
    result,
    state_of,
    submit,
    task,
    told,
    with_client,
    with_workers,
)

MakeBroker = Callable[..., BrokerCore]
WAIT_S = 0.003
RUN_TIMEOUT_MS = 500


def with_short_tasks(broker: BrokerCore, count: int = 1, *, run_s: float = WAIT_S / 3, local: bool = True) -> float:
    """This many workers, and one task of Alice that took `run_s`. The next lease is 2; returns the present instant."""
    with_client(with_workers(broker, count, local=local), "t0")
    broker.on_worker(W1, result("t0", 1), now=run_s)
    broker.on_tick(run_s)
    return run_s


def give(broker: BrokerCore, now: float, *names: str) -> list[Action]:
    return [action for name in names for action in broker.on_client(ALICE, submit(name, RUN_TIMEOUT_MS), now)]


def fed(broker: BrokerCore) -> float:
    """One worker that is busy with t1 (lease 2) and has prefetched t2 (lease 3), both at the instant returned."""
    now = with_short_tasks(broker)
    assert assigned(give(broker, now, "t1", "t2")) == [(W1, "t1"), (W1, "t2")]
    return now


def recalled(broker: BrokerCore) -> float:
    """Like `fed`, with t2 recalled at the instant returned."""
    now = fed(broker) + WAIT_S
    assert SendToWorker(W1, Recall(3)) in broker.on_process_exit((), now)
    return now


def prefetched_by(broker: BrokerCore) -> str | None:
    (prefetched,) = [worker.prefetched for worker in broker.roster.workers.values()]
    return None if prefetched is None else prefetched.task.id.rstrip(b".").decode()


# --- who prefetches ---------------------------------------------------------------------------------------------------


def test_busy_worker_is_given_a_task_in_advance_where_tasks_are_short(broker: BrokerCore) -> None:
    now = with_short_tasks(broker)
    give(broker, now, "t1")

    assert give(broker, now + 0.001, "t2") == [
        Report(
            "task_assigned",
            {
                "worker": "worker-1", "task_id": an_id("t2").hex(), "attempt": 1, "queued_ms": 0.0, "queue_depth": 0,
                "second": True,
            },
        ),
        SendToWorker(W1, task("t2", lease=3, run_timeout_ms=RUN_TIMEOUT_MS)),
    ]  # fmt: skip
    assert (broker.ledger.in_flight, broker.ledger.backlog.depth) == (2, 0)


def test_nothing_is_prefetched_before_the_first_result(broker: BrokerCore) -> None:
    with_client(with_workers(broker))

    assert assigned(give(broker, 0.0, "t1", "t2", "t3")) == [(W1, "t1")]


@pytest.mark.parametrize(("run_s", "gets_one"), [(SHORT_S, True), (SHORT_S + 0.001, False)])
def test_tasks_are_prefetched_while_they_are_short(broker: BrokerCore, run_s: float, *, gets_one: bool) -> None:
    now = with_short_tasks(broker, run_s=run_s)

    give(broker, now, "t1", "t2")

    assert (prefetched_by(broker) == "t2") == gets_one


def test_third_task_waits_in_the_backlog(broker: BrokerCore) -> None:
    now = fed(broker)

    assert give(broker, now, "t3") == []
    assert broker.ledger.backlog.depth == 1


def test_fewer_tasks_than_workers_wait_for_the_next_idle_worker(broker: BrokerCore) -> None:
    now = with_short_tasks(broker, 2)

    assert assigned(give(broker, now, "t1", "t2", "t3")) == [(W2, "t1"), (W1, "t2")]
    assert assigned(give(broker, now, "t4")) == [(W2, "t3")]


def test_prefetched_task_goes_to_the_worker_that_has_been_at_work_for_longest(broker: BrokerCore) -> None:
    now = with_short_tasks(broker, 2)
    give(broker, now, "t1", "t2")
    broker.on_worker(W2, result("t1", 2), now + 0.001)
    give(broker, now + 0.001, "t3")

    assert assigned(give(broker, now + 0.001, "t4", "t5", "t6")) == [(W1, "t4"), (W2, "t5")]


@pytest.mark.parametrize("why", ["slow", "draining", "suspect", "silent"])
def test_worker_that_would_not_begin_it_soon_prefetches_nothing(broker: BrokerCore, why: str) -> None:
    now = with_short_tasks(broker)
    if why == "silent":
        now += LIVENESS_S / 2 + 0.001
    give(broker, now, "t1")
    (worker,) = broker.roster.workers.values()
    if why == "slow":
        now += WAIT_S
    elif why == "draining":
        broker.on_heartbeat(H1, beat(busy=True, draining=True), now)
    elif why == "suspect":
        worker.is_suspect = True

    give(broker, now, "t2")

    assert prefetched_by(broker) is None


def test_worker_that_waits_to_be_recycled_prefetches_nothing(broker: BrokerCore) -> None:
    now = with_short_tasks(broker, 2)
    broker.on_worker(W2, Bye(), now)  # while it is away, no other may be recycled
    give(broker, now, "t1", "t2")

    assert assigned(broker.on_worker(W1, result("t1", 2, recycle=True), now)) == []
    assert assigned(broker.on_worker(W1, result("t2", 3, recycle=True), now)) == []
    give(broker, now, "t3", "t4")
    assert prefetched_by(broker) is None


def test_worker_whose_task_cost_another_worker_prefetches_nothing(broker: BrokerCore) -> None:
    now = with_short_tasks(broker)
    give(broker, now, "t1")
    die(broker, "worker-1", now=now)
    broker.on_worker(W1_AGAIN, ready("worker-1", 201, "again"), 1.0, 201)  # it gets t1

    give(broker, 1.0, "t2")

    assert prefetched_by(broker) is None


def test_worker_that_is_busy_with_an_older_epochs_task_gets_nothing(broker: BrokerCore) -> None:
    now = with_short_tasks(broker)
    broker.on_worker(W1, Bye(), now)
    broker.on_heartbeat(H1, beat(busy=True), now, 101)

    assert assigned(give(broker, now, "t1", "t2")) == []


def test_requeued_task_is_not_prefetched_and_no_task_behind_it_is(broker: BrokerCore) -> None:
    now = with_short_tasks(broker, 2)
    give(broker, now, "t1", "t2", "t3", "t4")

    actions = broker.on_worker(W2, Bye(), now)  # t1 and t3 were in its hands

    assert told(actions) == ["worker_stopped", "task_requeued", "task_returned"]
    assert (prefetched_by(broker), broker.ledger.backlog.depth) == (None, 3)
    assert assigned(broker.on_worker(W1, result("t2", 3), now)) == [(W1, "t1")]


# --- what becomes of it -----------------------------------------------------------------------------------------------


def test_prefetched_task_is_the_task_when_the_first_is_done(broker: BrokerCore) -> None:
    now = fed(broker)

    actions = broker.on_worker(W1, result("t1", 2), now + 0.002)

    assert deeds(actions) == [SendToClient(ALICE, answer("t1", run_ms=2))]
    worker = broker.roster.workers[an_id("worker-1")]
    assert (worker.lease, worker.assigned_at, worker.deadline) == (3, now + 0.002, now + 0.502)
    assert broker.next_check() <= now + 0.502
    actions = broker.on_worker(W1, result("t2", 3), now + 0.005)
    assert deeds(actions) == [SendToClient(ALICE, answer("t2", queued_ms=2, run_ms=3))]
    assert report(actions, "task_completed")["duration_ms"] == 3.0
    assert broker.roster.idle_count == 1


def test_worker_that_goes_on_with_its_prefetched_task_prefetches_the_next(broker: BrokerCore) -> None:
    now = fed(broker)
    give(broker, now, "t3", "t4")

    actions = broker.on_worker(W1, result("t1", 2), now + 0.001)

    assert assigned(actions) == [(W1, "t3")]
    assert report(actions, "task_assigned")["second"] is True


def test_result_of_a_prefetched_task_before_that_of_the_first_is_stale(broker: BrokerCore) -> None:
    now = fed(broker)
    before = state_of(broker)

    assert broker.on_worker(W1, result("t2", 3), now) == []
    assert state_of(broker) == before
    assert broker.counters["stale_results"] == 1


def test_prefetched_task_that_waits_behind_a_slow_task_goes_back_to_its_place(broker: BrokerCore) -> None:
    now = fed(broker)
    give(broker, now, "t3")
    assert broker.next_check() == now + WAIT_S
    assert broker.on_process_exit((), now + WAIT_S - 0.0001) == []

    actions = broker.on_process_exit((), now + WAIT_S)

    assert deeds(actions) == [SendToWorker(W1, Recall(3))]
    assert report(actions, "task_returned") == {
        "worker": "worker-1", "task_id": an_id("t2").hex(), "attempt": 1, "queue_depth": 2,
    }  # fmt: skip
    assert (broker.counters["requeued"], broker.ledger.in_flight) == (0, 1)
    assert deeds(broker.on_worker(W2, ready("worker-2", 102), now + 0.1))[1:] == [
        SendToWorker(W2, task("t2", lease=4, run_timeout_ms=RUN_TIMEOUT_MS))
    ]


def test_recalled_task_goes_at_once_to_an_idle_worker(broker: BrokerCore) -> None:
    now = with_short_tasks(broker, 2)
    give(broker, now, "t1", "t2", "t3", "t4")  # worker-2 prefetches t3
    broker.on_worker(W1, result("t2", 3), now + 0.001)
    broker.on_worker(W1, result("t4", 5), now + 0.002)

    actions = broker.on_process_exit((), now + WAIT_S)

    assert assigned(actions) == [(W1, "t3")]


@pytest.mark.parametrize(("run_s", "wait_s"), [(0.0001, MIN_WAIT_S), (0.002, 0.006), (0.015, MAX_WAIT_S)])
def test_wait_follows_the_average_within_bounds(broker: BrokerCore, run_s: float, wait_s: float) -> None:
    now = with_short_tasks(broker, run_s=run_s)
    give(broker, now, "t1", "t2")

    assert broker.next_check() == pytest.approx(now + wait_s)


def test_task_is_prefetched_once_at_most(broker: BrokerCore) -> None:
    now = recalled(broker)
    broker.on_worker(W1, result("t1", 2), now)
    broker.on_worker(W1, Returned(EPOCH, 3), now)  # t2 is its task now
    give(broker, now, "t3", "t4")
    assert prefetched_by(broker) == "t3"

    broker.on_process_exit((), now + 1.0)

    assert broker.ledger.backlog.oldest() is broker.ledger._tasks[an_id("t3")]
    assert prefetched_by(broker) is None


def test_no_check_is_due_for_a_prefetched_task_that_has_begun(broker: BrokerCore) -> None:
    now = fed(broker)
    broker.on_worker(W1, result("t1", 2), now)

    assert broker.next_check() > now + WAIT_S


# --- what is recalled -------------------------------------------------------------------------------------------------


def test_worker_is_given_nothing_until_it_has_told_what_became_of_a_recalled_task(broker: BrokerCore) -> None:
    now = recalled(broker)
    give(broker, now, "t3")
    assert assigned(broker.on_worker(W1, result("t1", 2), now)) == []
    assert (broker.roster.idle_count, [worker.state for worker in broker.roster.workers.values()]) == (0, ["busy"])

    assert assigned(broker.on_worker(W1, Returned(EPOCH, 3), now)) == [(W1, "t2"), (W1, "t3")]


def test_recalled_task_that_was_begun_already_is_done_again(broker: BrokerCore) -> None:
    now = recalled(broker)
    broker.on_worker(W1, result("t1", 2), now)

    actions = broker.on_worker(W1, result("t2", 3), now + 0.001)

    assert answered(actions) == []
    assert assigned(actions) == [(W1, "t2")], "it is done again"
    assert broker.counters["stale_results"] == 1


def test_worker_that_returns_a_task_while_it_is_busy_may_be_given_another_after_it(broker: BrokerCore) -> None:
    now = recalled(broker)

    assert broker.on_worker(W1, Returned(EPOCH, 3), now) == []
    assert assigned(broker.on_worker(W1, result("t1", 2), now)) == [(W1, "t2")]


@pytest.mark.parametrize("stale", [Returned(EPOCH, 2), Returned(EPOCH, 4), Returned(type(EPOCH)(b"epoch-00"), 3)])
def test_return_of_what_was_not_recalled_changes_nothing(broker: BrokerCore, stale: Returned) -> None:
    now = recalled(broker)
    broker.on_worker(W1, result("t1", 2), now)
    before = state_of(broker)

    assert broker.on_worker(W1, stale, now) == []
    assert state_of(broker) == before
    assert broker.counters["stale_results"] == 1


def test_worker_without_a_session_that_returns_a_task_is_asked_who_it_is(broker: BrokerCore) -> None:
    assert broker.on_worker(W1, Returned(EPOCH, 3), 0.0) == [SendToWorker(W1, Who())]


def test_worker_that_never_tells_is_killed_after_the_recalled_tasks_run_timeout(broker: BrokerCore) -> None:
    now = recalled(broker)
    broker.on_worker(W1, result("t1", 2), now)
    assert broker.next_check() <= now + 0.5
    assert told(broker.on_tick(now + 0.499)) == []

    actions = broker.on_tick(now + 0.5)

    assert deeds(actions) == [KillProcess(an_id("worker-1"))]
    assert report(actions, "worker_lost")["reason"] == "run_timeout"
    assert broker.ledger._tasks[an_id("t2")].deaths == ()
    assert broker.ledger.backlog.depth == 1


def test_death_of_a_worker_that_may_run_a_recalled_task_costs_nothing_and_lets_all_settle(broker: BrokerCore) -> None:
    now = recalled(broker)
    broker.on_worker(W1, result("t1", 2), now)
    broker.on_worker(W2, ready("worker-2", 102), now, 102)  # it has t2 now
    broker.on_worker(W2, result("t2", 4), now)

    assert told(broker.on_process_exit([an_id("worker-1")], now)) == ["worker_lost"]
    assert assigned(give(broker, now, "t3")) == []
    assert assigned(broker.on_tick(now + SETTLE_S)) == [(W2, "t3")]


def test_worker_that_calls_itself_idle_while_it_must_return_a_task_is_out_of_step(broker: BrokerCore) -> None:
    now = recalled(broker)
    broker.on_worker(W1, result("t1", 2), now)
    broker.roster.workers[an_id("worker-1")].recalled.return_s = 60.0  # type: ignore[union-attr]
    for later in (0.5, 1.25, 2.0):
        assert told(broker.on_heartbeat(H1, beat(busy=False), now + later)) == []

    actions = broker.on_heartbeat(H1, beat(busy=False), now + 2.5)

    assert report(actions, "worker_lost")["reason"] == "out_of_step"
    assert SendToHeartbeat(H1, Who()) in actions


@pytest.mark.parametrize("what", ["prefetched", "recalled"])
def test_result_ends_the_time_in_which_heartbeats_called_the_worker_idle(broker: BrokerCore, what: str) -> None:
    now = fed(broker) if what == "prefetched" else recalled(broker)
    for later in (0.1, 0.9, 1.7):
        broker.on_heartbeat(H1, beat(busy=False), now + later)
    broker.on_worker(W1, result("t1", 2), now + 1.8)

    assert told(broker.on_heartbeat(H1, beat(busy=False), now + 2.2)) == []


def test_beat_after_a_silence_may_have_overtaken_the_return(broker: BrokerCore) -> None:
    now = recalled(broker)
    broker.on_heartbeat(H1, beat(busy=False), now)  # it overtook the task
    broker.on_worker(W1, result("t1", 2), now + 2.5)

    assert told(broker.on_heartbeat(H1, beat(busy=False), now + 2.5)) == []
    assert assigned(broker.on_worker(W1, Returned(EPOCH, 3), now + 2.501)) == [(W1, "t2")]


# --- losses -----------------------------------------------------------------------------------------------------------


def test_death_costs_the_first_an_attempt_and_the_prefetched_task_nothing(broker: BrokerCore) -> None:
    now = fed(broker)

    actions = die(broker, "worker-1", now=now)

    assert told(actions) == ["worker_lost", "task_requeued", "task_returned"]
    assert report(actions, "task_requeued")["task_id"] == an_id("t1").hex()
    first, prefetched = (broker.ledger._tasks[an_id(name)] for name in ("t1", "t2"))
    assert (len(first.deaths), first.assignments) == (1, 1)
    assert (len(prefetched.deaths), prefetched.assignments) == (0, 0)
    assert broker.counters["requeued"] == 1


def test_after_a_death_both_go_alone(broker: BrokerCore) -> None:
    now = fed(broker)
    give(broker, now, "t3", "t4", "t5")
    die(broker, "worker-1", now=now)
    now = 1.0

    assert assigned(broker.on_worker(W1_AGAIN, ready("worker-1", 201, "again"), now, 201)) == [(W1_AGAIN, "t1")]
    assert assigned(broker.on_worker(W1_AGAIN, result("t1", 4), now)) == [(W1_AGAIN, "t2")]
    assert assigned(broker.on_worker(W1_AGAIN, result("t2", 5), now)) == [(W1_AGAIN, "t3"), (W1_AGAIN, "t4")]


def test_poison_that_hides_behind_another_task_is_given_up_alone(make_broker: MakeBroker) -> None:
    broker = make_broker(max_attempts=2)
    now = fed(broker)  # t2 kills its worker when t1 is done, before the result of t1 is read
    answers: list[tuple[bytes, str, Outcome]] = []
    for number in range(1, 6):
        answers += answered(die(broker, *(worker.name for worker in broker.roster.workers.values()), now=now))
        now += 1.0
        peer = b"new-%d" % number
        pid = 200 + number
        name = f"new-{number}"
        (given,) = assigned(broker.on_worker(peer, ready(name, pid), now, pid)) or [(peer, "")]
        if given[1] == "t1":
            lease = broker.roster.workers[an_id(name)].lease
            answers += answered(broker.on_worker(peer, result("t1", lease), now))

    assert answers == [(ALICE, "t1", Outcome.OK), (ALICE, "t2", Outcome.CRASHED)]


def test_goodbye_gives_the_prefetched_task_back_as_if_it_had_never_left(broker: BrokerCore) -> None:
    now = fed(broker)

    actions = broker.on_worker(W1, Bye(), now)

    assert told(actions) == ["worker_stopped", "task_requeued", "task_returned"]
    prefetched = broker.ledger._tasks[an_id("t2")]
    assert (prefetched.assignments, prefetched.goes_alone) == (0, False)


def test_new_session_of_a_busy_process_gives_both_back(broker: BrokerCore) -> None:
    now = fed(broker)

    actions = broker.on_worker(W1_AGAIN, ready(session="again", number=2), now, 101)

    assert told(actions)[:3] == ["worker_stopped", "task_requeued", "task_returned"]
    assert assigned(actions) == [(W1_AGAIN, "t1")]


def test_revoked_worker_gives_both_back_at_no_cost(broker: BrokerCore) -> None:
    fed(broker)

    assert told(broker.on_worker_revoked(W1, now=1.0)) == ["worker_lost", "task_requeued", "task_returned"]
    assert [len(each.deaths) for each in broker.ledger._tasks.values()] == [0, 0]


def test_loss_costs_the_first_an_attempt_if_a_prefetched_task_could_not_be_sent(broker: BrokerCore) -> None:
    now = fed(broker)

    actions = broker.on_worker_unreachable(W1, task("t2", lease=3), now)

    assert report(actions, "worker_lost")["reason"] == "unreachable"
    first, prefetched = (broker.ledger._tasks[an_id(name)] for name in ("t1", "t2"))
    assert (len(first.deaths), first.assignments) == (1, 1)
    assert (len(prefetched.deaths), prefetched.assignments) == (0, 0)


def test_first_task_that_cannot_be_sent_costs_nothing_though_a_prefetched_one_was_to_follow(broker: BrokerCore) -> None:
    now = fed(broker)

    broker.on_worker_unreachable(W1, task("t1", lease=2), now)

    assert [(len(each.deaths), each.assignments) for each in broker.ledger._tasks.values()] == [(0, 0), (0, 0)]


def test_loss_costs_the_first_an_attempt_if_a_recall_could_not_be_sent(broker: BrokerCore) -> None:
    now = recalled(broker)

    broker.on_worker_unreachable(W1, Recall(3), now)

    assert [len(each.deaths) for each in broker.ledger._tasks.values()] == [1, 0]


def test_run_timeout_of_the_first_leaves_the_prefetched_task_its_place(broker: BrokerCore) -> None:
    now = fed(broker)
    broker.on_client(ALICE, Hello(an_id("alice"), 2, 1, 0), now + 0.5)

    actions = broker.on_tick(now + 0.5)

    assert answered(actions) == [(ALICE, "t1", Outcome.RUN_TIMEOUT)]
    assert KillProcess(an_id("worker-1")) in actions
    assert broker.ledger.backlog.oldest() is broker.ledger._tasks[an_id("t2")]


# --- cancel, expire, abandon ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kill", [False, True])
def test_cancelled_prefetched_task_is_recalled_and_ends_as_if_it_were_queued(broker: BrokerCore, *, kill: bool) -> None:
    now = fed(broker)

    assert broker.on_client(ALICE, Cancel(an_id("t2"), kill), now) == [SendToWorker(W1, Recall(3))]
    assert broker.counters["cancelled"] == 1
    assert answered(broker.on_worker(W1, result("t1", 2), now)) == [(ALICE, "t1", Outcome.OK)]
    broker.on_worker(W1, Returned(EPOCH, 3), now)
    assert broker.roster.idle_count == 1
    assert told(broker.on_tick(now + RETURN_S)) == []


def test_kill_of_the_first_gives_the_prefetched_task_to_an_idle_worker(broker: BrokerCore) -> None:
    now = fed(broker)
    broker.on_worker(W2, ready("worker-2"), now, local_pid=102)

    assert assigned(broker.on_client(ALICE, Cancel(an_id("t1"), kill=True), now)) == [(W2, "t2")]


def test_worker_that_does_not_return_a_killed_prefetched_task_in_time_is_killed(broker: BrokerCore) -> None:
    now = fed(broker)
    broker.on_client(ALICE, Cancel(an_id("t2"), kill=True), now)
    broker.on_worker(W1, result("t1", 2), now + 0.1)
    assert deeds(broker.on_tick(now + 0.1 + RETURN_S - 0.001)) == []

    actions = broker.on_tick(now + 0.1 + RETURN_S)

    assert deeds(actions) == [KillProcess(an_id("worker-1"))]
    assert report(actions, "worker_lost")["reason"] == "cancelled"
    assert broker.counters["cancelled"] == 1


def test_kill_reaches_a_worker_that_may_run_the_recalled_task(broker: BrokerCore) -> None:
    now = recalled(broker)
    broker.on_worker(W1, result("t1", 2), now)

    assert broker.on_client(ALICE, Cancel(an_id("t2"), kill=True), now) == []
    assert broker.next_check() <= now + RETURN_S
    assert deeds(broker.on_tick(now + RETURN_S)) == [KillProcess(an_id("worker-1"))]


def test_kill_that_comes_shortly_before_the_run_timeout_changes_nothing(broker: BrokerCore) -> None:
    now = recalled(broker)
    broker.on_worker(W1, result("t1", 2), now)
    broker.on_client(ALICE, Cancel(an_id("t2"), kill=True), now + 0.4)

    actions = broker.on_tick(now + 0.5)

    assert report(actions, "worker_lost")["reason"] == "run_timeout"
    assert KillProcess(an_id("worker-1")) in actions


def test_kill_of_the_first_gives_the_prefetched_task_back(broker: BrokerCore) -> None:
    now = fed(broker)

    actions = broker.on_client(ALICE, Cancel(an_id("t1"), kill=True), now)

    assert told(actions) == ["worker_lost", "task_returned"]
    assert deeds(actions) == [KillProcess(an_id("worker-1"))]


def test_prefetched_task_does_not_wait_for_its_queue_timeout(broker: BrokerCore) -> None:
    now = with_short_tasks(broker)
    give(broker, now, "t1", "t2")

    assert broker.on_client(ALICE, Expire(an_id("t2"), 0), now + 0.002) == [
        SendToClient(ALICE, Waited(an_id("t2"), 0, queued=False))
    ]


def test_prefetched_task_of_a_client_that_left_is_abandoned(broker: BrokerCore) -> None:
    now = fed(broker)

    actions = broker.on_client(ALICE, Bye(), now)

    assert report(actions, "task_abandoned") == {"queued": 0, "in_flight": 2}
    broker.on_worker(W1, result("t1", 2), now)
    assert answered(broker.on_worker(W1, result("t2", 3), now)) == []
    assert broker.counters["abandoned"] == 2


@pytest.mark.parametrize("how", ["recalled", "lost"])
def test_withdrawn_prefetched_task_that_comes_back_ends_there(broker: BrokerCore, how: str) -> None:
    now = fed(broker)
    broker.on_client(ALICE, Bye(), now)

    actions = broker.on_process_exit(() if how == "recalled" else [an_id("worker-1")], now + WAIT_S)

    assert "task_returned" not in told(actions)
    assert broker.ledger.backlog.depth == 0
    assert broker.counters["abandoned"] == (1 if how == "recalled" else 2)


def test_client_that_returns_takes_its_prefetched_task_over_again(broker: BrokerCore) -> None:
    now = fed(broker)
    broker.on_client(ALICE, Bye(), now)
    broker.on_client(ALICE_AGAIN, hello(number=2), now)
    broker.on_client(ALICE_AGAIN, submit("t2"), now)
    broker.on_worker(W1, result("t1", 2), now)

    assert answered(broker.on_worker(W1, result("t2", 3), now)) == [(ALICE_AGAIN, "t2", Outcome.OK)]


# --- recycling, drain, pause ------------------------------------------------------------------------------------------


def test_worker_that_asks_to_be_recycled_does_its_prefetched_task_first(broker: BrokerCore) -> None:
    now = fed(broker)

    assert SendToWorker(W1, Recycle()) not in broker.on_worker(W1, result("t1", 2, recycle=True), now)
    assert SendToWorker(W1, Recycle()) in broker.on_worker(W1, result("t2", 3, recycle=True), now)


def test_worker_is_recycled_when_it_has_told_what_became_of_a_recalled_task(broker: BrokerCore) -> None:
    now = recalled(broker)
    assert SendToWorker(W1, Recycle()) not in broker.on_worker(W1, result("t1", 2, recycle=True), now)
    assert SendToWorker(W1, Recycle()) not in broker.on_tick(now + 0.1)

    assert SendToWorker(W1, Recycle()) in broker.on_worker(W1, Returned(EPOCH, 3), now + 0.2)


def test_draining_broker_prefetches_nothing_and_recalls_nothing(broker: BrokerCore) -> None:
    now = fed(broker)
    give(broker, now, "t3")
    broker.on_drain()

    assert broker.on_process_exit((), now + 0.1) == []
    assert broker.next_check() > now + WAIT_S
    assert assigned(broker.on_worker(W1, result("t1", 2), now + 0.1)) == []
    assert answered(broker.on_worker(W1, result("t2", 3), now + 0.1)) == [(ALICE, "t2", Outcome.OK)]
    assert broker.ledger.in_flight == 0


def test_broker_that_stood_still_reads_results_before_it_recalls(broker: BrokerCore) -> None:
    now = fed(broker)
    broker.on_pause(now + 3.0)

    assert deeds(broker.on_process_exit((), now + 3.0) + broker.on_tick(now + 3.0)) == []
    assert broker.next_check() == now + 3.0 + SETTLE_S
    assert answered(broker.on_worker(W1, result("t1", 2), now + 3.01)) == [(ALICE, "t1", Outcome.OK)]
    assert deeds(broker.on_process_exit((), now + 3.0 + SETTLE_S)) == []


# --- shared memory ----------------------------------------------------------------------------------------------------


def with_shared_tasks(broker: BrokerCore) -> float:
    """Like `fed`, with both tasks in Alice's shared memory."""
    now = with_short_tasks(broker)
    broker.on_client(ALICE, hello(number=2), now, can_share=True)
    for name in ("t1", "t2"):
        broker.on_client(ALICE, submit(name, is_shared=True), now)
    return now


def test_task_that_could_not_be_read_goes_back_and_is_sent_by_value_from_then_on(broker: BrokerCore) -> None:
    now = with_shared_tasks(broker)

    actions = broker.on_worker(W1, result("t1", 2, Outcome.UNREADABLE, b""), now)

    assert deeds(actions) == []
    assert report(actions, "task_returned")["task_id"] == an_id("t1").hex()
    assert deeds(broker.on_worker(W1, result("t2", 3), now)) == [
        SendToClient(ALICE, answer("t2")),
        SendByValue(W1, task("t1", lease=4, is_shared=True)),
    ]
    before = state_of(broker)
    assert broker.on_worker(W1, result("t1", 4, Outcome.UNREADABLE, b""), now) == []
    assert (state_of(broker), broker.counters["bad_frames"]) == (before, 1)


def test_prefetched_task_that_cannot_be_read_ends_and_leaves_the_first_alone(broker: BrokerCore) -> None:
    now = with_shared_tasks(broker)

    actions = broker.on_unreadable(W1, 3, "gone", now)

    assert answered(actions) == [(ALICE, "t2", Outcome.RAISED)]
    assert answered(broker.on_worker(W1, result("t1", 2), now)) == [(ALICE, "t1", Outcome.OK)]
    assert broker.roster.idle_count == 1


def test_first_task_that_cannot_be_read_makes_room_for_the_prefetched_one(broker: BrokerCore) -> None:
    now = with_shared_tasks(broker)

    assert answered(broker.on_unreadable(W1, 2, "gone", now)) == [(ALICE, "t1", Outcome.RAISED)]
    assert broker.on_unreadable(W1, 2, "gone", now) == []
    assert answered(broker.on_worker(W1, result("t2", 3), now)) == [(ALICE, "t2", Outcome.OK)]


def test_worker_whose_task_cannot_be_read_gets_the_next(broker: BrokerCore) -> None:
    with_workers(broker)
    broker.on_client(ALICE, hello(), 0.0, can_share=True)
    for name in ("t1", "t2"):
        broker.on_client(ALICE, submit(name, is_shared=True), 0.0)

    assert assigned(broker.on_unreadable(W1, 1, "gone", 0.1)) == [(W1, "t2")]


def test_welcome_of_a_worker_that_cannot_be_reached_costs_nothing(broker: BrokerCore) -> None:
    now = fed(broker)

    broker.on_worker_unreachable(W1, WELCOME, now)

    assert [(len(each.deaths), each.assignments) for each in broker.ledger._tasks.values()] == [(0, 0), (0, 0)]
