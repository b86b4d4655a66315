from collections.abc import Callable
from typing import Any

import pytest

from racepool.broker import clients, core, roster
from racepool.broker.actions import (
    KeepDeadTask,
    KillProcess,
    ProbeProcess,
    Report,
    SendStats,
    SendToClient,
    SendToHeartbeat,
    SendToWorker,
    UnwatchProcess,
    WatchProcess,
)
from racepool.broker.core import BrokerCore
from racepool.broker.tasks import Death
from racepool.protocol.messages import (
    Answer,
    AskStats,
    Assign,
    Bye,
    Cancel,
    Epoch,
    Expire,
    FromWorker,
    Id,
    Outcome,
    Ping,
    Pong,
    Recycle,
    Reject,
    Waited,
    Who,
)
from racepool.protocol.settings import Settings
from tests.broker.building import (
    ALICE,
    ALICE_AGAIN,
    BOB,
    EPOCH,
    H1,
    LIVENESS_S,
    W1,
    W1_AGAIN,
    W2,
    W3,
    WELCOME,
    an_id,
    answer,
    answered,
    assigned,
    beat,
    crashed,
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


# --- assignment -------------------------------------------------------------------------------------------------------


def test_hello_and_ready_are_welcomed(broker: BrokerCore) -> None:
    assert broker.on_client(ALICE, hello(), now=0.0) == [SendToClient(ALICE, WELCOME)]
    assert broker.on_worker(W1, ready("worker-1", pid=101), now=0.0, local_pid=101) == [
        SendToWorker(W1, WELCOME),
        WatchProcess(an_id("worker-1"), 101),
        Report("worker_ready", {"worker": "worker-1", "pid": 101, "version": "0.1.0", "state": "idle"}),
    ]


def test_task_goes_at_once_to_an_idle_worker(broker: BrokerCore) -> None:
    with_client(with_workers(broker))

    assert broker.on_client(ALICE, submit("t1", run_timeout_ms=700, payload=b"x"), now=1.0) == [
        Report(
            "task_assigned",
            {"worker": "worker-1", "task_id": an_id("t1").hex(), "attempt": 1, "queued_ms": 0.0, "queue_depth": 0},
        ),
        SendToWorker(W1, task("t1", lease=1, run_timeout_ms=700, payload=b"x")),
    ]


def test_task_waits_for_a_worker_that_is_not_there_yet(broker: BrokerCore) -> None:
    with_client(broker)

    assert broker.on_client(ALICE, submit("t1"), now=0.0) == []
    assert assigned(broker.on_worker(W1, ready(), now=2.5)) == [(W1, "t1")]


def test_result_is_answered_and_the_next_task_assigned(broker: BrokerCore) -> None:
    with_client(with_workers(broker), "t1", "t2")

    actions = broker.on_worker(W1, result("t1", lease=1, payload=b"done"), now=1.5)

    assert deeds(actions) == [
        SendToClient(ALICE, answer("t1", payload=b"done", run_ms=1500)),
        SendToWorker(W1, task("t2", lease=2)),
    ]
    assert report(actions, "task_completed") == {
        "worker": "worker-1",
        "task_id": an_id("t1").hex(),
        "attempt": 1,
        "duration_ms": 1500.0,
        "outcome": "ok",
    }


def test_tasks_of_all_clients_are_assigned_in_arrival_order(broker: BrokerCore) -> None:
    with_client(broker)
    broker.on_client(BOB, hello("bob"), now=0.0)
    order = ["a1", "b1", "b2", "a2", "b3", "a3"]
    for name in order:
        broker.on_client(ALICE if name.startswith("a") else BOB, submit(name), now=0.0)

    done = assigned(broker.on_worker(W1, ready(), now=1.0))
    for lease, name in enumerate(order, start=1):
        done += assigned(broker.on_worker(W1, result(name, lease), now=1.0))

    assert [name for _, name in done] == order


def test_worker_that_is_idle_for_longest_is_taken_first(broker: BrokerCore) -> None:
    with_client(with_workers(broker, 3), "t1", "t2", "t3")
    for peer, name, lease in ((W2, "t2", 2), (W3, "t3", 3), (W1, "t1", 1)):
        broker.on_worker(peer, result(name, lease), now=1.0)

    actions = [action for name in ("t4", "t5", "t6") for action in broker.on_client(ALICE, submit(name), now=2.0)]

    assert assigned(actions) == [(W2, "t4"), (W3, "t5"), (W1, "t6")]


def test_no_worker_is_idle_while_a_task_waits(broker: BrokerCore) -> None:
    with_client(with_workers(broker, 2), "t1", "t2", "t3")

    assert (broker.roster.idle_count, broker.ledger.backlog.depth, broker.ledger.in_flight) == (0, 1, 2)


@pytest.mark.parametrize("outcome", [Outcome.RAISED, Outcome.INVALID_RACE, Outcome.TOO_LARGE])
def test_failed_task_goes_to_its_caller_and_is_never_retried(broker: BrokerCore, outcome: Outcome) -> None:
    with_client(with_workers(broker), "t1")

    actions = broker.on_worker(W1, result("t1", 1, outcome, b"why"), now=1.0)

    assert deeds(actions) == [SendToClient(ALICE, answer("t1", outcome, payload=b"why", run_ms=1000))]
    assert told(actions) == ["task_failed"]
    assert (broker.counters["failed"], broker.counters["requeued"], broker.counters["completed"]) == (1, 0, 0)


# --- deaths -----------------------------------------------------------------------------------------------------------


def test_task_of_a_dead_worker_is_assigned_again_ahead_of_younger_ones(broker: BrokerCore) -> None:
    with_client(with_workers(broker, 2), "t1", "t2", "t3")

    actions = die(broker, "worker-1")

    assert deeds(actions) == [UnwatchProcess(an_id("worker-1"))]
    assert told(actions) == ["worker_lost", "task_requeued"]
    assert deeds(broker.on_worker(W2, result("t2", 2), now=1.0)) == [
        SendToClient(ALICE, answer("t2", run_ms=1000, worker="worker-2")),
        SendToWorker(W2, task("t1", lease=3, attempt=2)),
    ]


@pytest.mark.parametrize("deaths", [("worker-1", "worker-2", "worker-3"), ("worker-3", "worker-1", "worker-2")])
@pytest.mark.parametrize("at_once", [True, False])
def test_tasks_of_several_dead_workers_keep_their_order(
    broker: BrokerCore, deaths: tuple[str, ...], *, at_once: bool
) -> None:
    with_client(with_workers(broker, 3), "t1", "t2", "t3", "t4")
    if at_once:
        die(broker, *deaths)
    else:
        for name in deaths:
            die(broker, name)

    done = assigned(broker.on_worker(b"new", ready("new", 200), now=2.0))
    for lease, name in enumerate(("t1", "t2", "t3", "t4"), start=4):
        done += assigned(broker.on_worker(b"new", result(name, lease), now=2.0))

    assert [name for _, name in done] == ["t1", "t2", "t3", "t4"]


def test_task_is_not_passed_on_among_workers_that_died_at_once(broker: BrokerCore) -> None:
    with_client(with_workers(broker, 3), "t1")

    actions = die(broker, "worker-1", "worker-2", "worker-3")

    assert told(actions).count("task_requeued") == 1
    assert assigned(broker.on_worker(b"new", ready("new", 200), now=2.0)) == [(b"new", "t1")]
    assert broker.counters["requeued"] == 1


def test_task_is_not_passed_on_among_workers_that_fell_silent_at_once(broker: BrokerCore) -> None:
    with_client(with_workers(broker, 3, local=False), "t1")

    actions = broker.on_tick(now=LIVENESS_S)

    assert told(actions).count("worker_lost") == 3
    assert assigned(actions) == []
    assert answered(actions) == []


def test_survivor_gets_the_task_of_a_dead_worker(broker: BrokerCore) -> None:
    with_client(with_workers(broker, 3), "t1", "t2")

    actions = die(broker, "worker-1", "worker-2")

    assert assigned(actions) == [(W3, "t1")]


def test_task_is_not_passed_on_among_workers_that_die_one_after_the_other(broker: BrokerCore) -> None:
    with_client(with_workers(broker, 3), "t1")

    actions = [
        action
        for index, name in enumerate(("worker-1", "worker-2", "worker-3"))
        for action in broker.on_process_exit([an_id(name)], now=0.5 + index * core.SETTLE_S / 4)
    ]

    assert told(actions) == ["worker_lost", "task_requeued", "worker_lost", "worker_lost"]
    assert assigned(broker.on_tick(now=0.6)) == []
    assert assigned(broker.on_worker(b"new", ready("new", 200), now=0.6)) == [(b"new", "t1")]


def test_death_of_a_busy_worker_delays_the_next_assignment(broker: BrokerCore) -> None:
    with_client(with_workers(broker, 2), "t1")
    broker.on_process_exit([an_id("worker-1")], now=0.5)

    assert broker.next_check() <= 0.5 + core.SETTLE_S
    assert assigned(broker.on_client(ALICE, submit("t2"), now=0.501)) == []
    assert assigned(broker.on_tick(now=0.5 + core.SETTLE_S)) == [(W2, "t1")]


def test_tick_before_all_has_settled_keeps_the_next_check(broker: BrokerCore) -> None:
    with_client(with_workers(broker, 2), "t1")
    broker.on_process_exit([an_id("worker-1")], now=0.99)
    broker.on_tick(now=1.0)

    assert broker.next_check() == 0.99 + core.SETTLE_S


def test_death_of_an_idle_worker_delays_nothing(broker: BrokerCore) -> None:
    with_client(with_workers(broker, 2))
    broker.on_process_exit([an_id("worker-1")], now=0.5)

    assert assigned(broker.on_client(ALICE, submit("t1"), now=0.5)) == [(W2, "t1")]


def test_third_death_gives_the_task_up_and_names_the_workers(broker: BrokerCore) -> None:
    with_client(with_workers(broker, 3), "t1")
    assert assigned(die(broker, "worker-1")) == [(W2, "t1")]
    assert assigned(die(broker, "worker-2", now=1.0)) == [(W3, "t1")]

    actions = die(broker, "worker-3", now=1.5)

    assert answered(actions) == [(ALICE, "t1", Outcome.CRASHED)]
    told_alice = crashed("t1", "worker-1", "worker-2", "worker-3", queued_ms=100, run_ms=450)
    assert SendToClient(ALICE, told_alice) in actions
    assert told(actions) == ["worker_lost", "task_given_up"]
    assert (broker.counters["crashed"], broker.counters["requeued"], broker.counters["worker_crashes"]) == (1, 2, 3)


def test_dead_task_is_kept_once_with_each_of_its_attempts(broker: BrokerCore) -> None:
    with_client(with_workers(broker))
    actions = broker.on_client(ALICE, submit("t1", run_timeout_ms=7_000, payload=b"poison"), now=0.25)
    actions += die(broker, "worker-1", now=0.5)
    actions += broker.on_worker(
        W2, ready("worker-2", 102), now=1.0
    )  # on another host, where only silence can tell of its death
    broker.on_client(ALICE, Ping(0), now=2.5)
    actions += broker.on_tick(now=3.0)
    actions += broker.on_worker(W3, ready("worker-3", 103), now=4.0)
    assert not any(isinstance(action, KeepDeadTask) for action in actions)

    actions = broker.on_worker(b"new", ready("worker-3", 104, session="new", later_ms=1), now=4.5)

    deaths = (
        Death("worker-1", "process_exit", None, assigned_at=0.25, lost_at=0.5),
        Death("worker-2", "silence", None, assigned_at=1.0, lost_at=3.0),
        Death("worker-3", "replaced", None, assigned_at=4.0, lost_at=4.5),
    )
    assert [action for action in actions if isinstance(action, KeepDeadTask)] == [
        KeepDeadTask(an_id("t1"), 7_000, deaths, False, b"poison")
    ]
    assert report(actions, "task_given_up")["kept_in"] == str(
        broker.settings.dir / "dead" / f"{an_id('t1').hex()}.dead"
    )


def test_only_a_task_that_is_given_up_is_kept(make_broker: MakeBroker) -> None:
    broker = with_client(with_workers(make_broker(max_attempts=1), 3), "overrun", "cancelled", "failed")

    actions = broker.on_worker(W3, result("failed", 3, Outcome.RAISED), now=0.5)
    actions += broker.on_client(ALICE, Cancel(an_id("cancelled"), kill=True), now=0.5)
    broker.on_client(ALICE, Ping(0), now=29.0)
    actions += broker.on_process_exit([an_id("worker-1")], now=30.0)

    assert answered(actions) == [(ALICE, "failed", Outcome.RAISED), (ALICE, "overrun", Outcome.RUN_TIMEOUT)]
    assert not any(isinstance(action, KeepDeadTask) for action in actions)


def test_max_attempts_is_a_setting(make_broker: MakeBroker) -> None:
    broker = with_client(with_workers(make_broker(max_attempts=1)), "t1")

    assert answered(die(broker, "worker-1")) == [(ALICE, "t1", Outcome.CRASHED)]


def test_deaths_of_distinct_tasks_do_not_add_up(broker: BrokerCore) -> None:
    with_client(with_workers(broker, 3), "t1", "t2", "t3")

    actions = die(broker, "worker-1", "worker-2", "worker-3")

    assert answered(actions) == []
    assert broker.ledger.backlog.depth == 3


def test_failure_after_deaths_goes_to_the_caller_and_costs_no_attempt(broker: BrokerCore) -> None:
    with_client(with_workers(broker, 3), "t1")
    die(broker, "worker-1")
    die(broker, "worker-2", now=1.0)

    actions = broker.on_worker(W3, result("t1", 3, Outcome.RAISED), now=2.0)

    raised = answer("t1", Outcome.RAISED, attempts=3, queued_ms=100, run_ms=950, worker="worker-3")
    assert deeds(actions) == [SendToClient(ALICE, raised)]


def test_worker_that_cannot_be_reached_costs_no_attempt(make_broker: MakeBroker) -> None:
    broker = with_client(make_broker(max_attempts=1), "t1")
    for _ in range(5):
        assert assigned(broker.on_worker(W1, ready(), now=0.0)) == [(W1, "t1")]
        assert told(broker.on_worker_unreachable(W1, WELCOME, now=0.0)) == ["worker_lost", "task_requeued"]

    assert deeds(broker.on_worker(W1, ready(), now=0.0))[1:] == [SendToWorker(W1, task("t1", lease=6, attempt=1))]


def test_worker_whose_welcome_reached_nobody_may_turn_out_to_have_ended(broker: BrokerCore) -> None:
    welcome, watch, _ = broker.on_worker(W1, ready(), 0.0, 101)
    assert (type(welcome), type(watch)) == (SendToWorker, WatchProcess)
    assert told(broker.on_worker_unreachable(W1, WELCOME, now=0.0)) == ["worker_lost"]

    assert broker.on_process_gone(an_id("worker-1"), now=0.0) == []

    assert broker.frozen.sessions == []


def test_task_that_reached_no_worker_goes_to_the_next_idle_one(broker: BrokerCore) -> None:
    with_client(with_workers(broker, 2), "t1")

    actions = broker.on_worker_unreachable(W1, WELCOME, now=0.0)

    assert deeds(actions) == [SendToWorker(W2, task("t1", lease=2, attempt=1))]


def test_worker_that_is_always_process_1_is_another_process_after_its_death(make_broker: MakeBroker) -> None:
    """In a container of its own, where only the start time tells one process from the next."""
    broker = with_client(make_broker(max_attempts=3), "t1")
    answers = []
    for life, peer in enumerate((W1, W2, W3, W1_AGAIN)):
        answers += deeds(broker.on_worker(peer, ready(pid=1, session=f"life {life}", later_ms=life), now=float(life)))

    assert broker.counters["worker_crashes"] == 3
    ends = [each.message for each in answers if isinstance(each, SendToClient)]
    assert [each.outcome for each in ends if isinstance(each, Answer)] == [Outcome.CRASHED]


def test_revoked_worker_loses_its_task_at_no_cost(make_broker: MakeBroker) -> None:
    broker = with_client(make_broker(max_attempts=1), "t1")
    assert broker.on_worker_revoked(W1, now=0.0) == []
    broker.on_worker(W1, ready(), now=0.0)

    actions = broker.on_worker_revoked(W1, now=1.0)

    assert told(actions) == ["worker_lost", "task_requeued"]
    assert report(actions, "worker_lost")["reason"] == "revoked"
    assert deeds(broker.on_worker(W2, ready("worker-2"), now=1.0))[1:] == [
        SendToWorker(W2, task("t1", lease=2, attempt=2))
    ]


def test_death_of_an_idle_worker_touches_no_task(broker: BrokerCore) -> None:
    with_client(with_workers(broker, 2), "t1")

    actions = die(broker, "worker-2")

    assert deeds(actions) == [UnwatchProcess(an_id("worker-2"))]
    assert report(actions, "worker_lost") == {
        "worker": "worker-2",
        "pid": 102,
        "reason": "process_exit",
        "silent_ms": 500.0,
    }


def test_end_of_a_process_whose_session_is_over_means_nothing(broker: BrokerCore) -> None:
    with_workers(broker)
    broker.on_worker(W1, Bye(), now=0.0)

    assert broker.on_process_exit([an_id("worker-1")], now=1.0) == []


def test_restart_of_a_lost_worker_is_told_with_its_duration(broker: BrokerCore) -> None:
    with_workers(broker)
    die(broker, "worker-1", now=1.0)

    actions = broker.on_worker(W1_AGAIN, ready("worker-1", 201, session="again"), now=1.25, local_pid=201)

    assert report(actions, "worker_restarted")["duration_ms"] == 250.0
    assert told(broker.on_worker(b"x", ready("worker-1", 301, session="third"), 2.0, 301)) == ["worker_ready"]


# --- leases -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stale",
    [
        result("t1", lease=1, epoch=Epoch(b"epoch-00")),
        result("t1", lease=0),
        result("t1", lease=2),
        result("t2", lease=1),
        result("unknown", lease=1),
    ],
    ids=["epoch", "no lease", "lease of another", "task of another", "unknown task"],
)
def test_result_of_another_assignment_changes_nothing(broker: BrokerCore, stale: Any) -> None:  # noqa: ANN401
    with_client(with_workers(broker, 2), "t1", "t2", "t3")
    before = state_of(broker)

    assert broker.on_worker(W1, stale, now=1.0) == []
    assert state_of(broker) == before
    assert broker.counters["stale_results"] == 1


def test_idle_worker_that_sends_a_result_changes_nothing(broker: BrokerCore) -> None:
    with_client(with_workers(broker, 2), "t1")
    before = state_of(broker)

    assert broker.on_worker(W2, result("t1", lease=1), now=1.0) == []
    assert state_of(broker) == before


def test_second_result_of_one_lease_changes_nothing(broker: BrokerCore) -> None:
    with_client(with_workers(broker), "t1", "t2")
    broker.on_worker(W1, result("t1", 1), now=1.0)
    before = state_of(broker)

    assert broker.on_worker(W1, result("t1", 1), now=1.0) == []
    assert state_of(broker) == before


def test_result_of_a_lost_worker_is_stale_and_it_is_asked_who_it_is(broker: BrokerCore) -> None:
    with_client(with_workers(broker, 2), "t1")
    die(broker, "worker-1")
    before = state_of(broker)

    assert broker.on_worker(W1, result("t1", 1), now=2.0) == [SendToWorker(W1, Who())]
    assert state_of(broker) == before
    assert answered(broker.on_worker(W2, result("t1", 2), now=2.0)) == [(ALICE, "t1", Outcome.OK)]


def test_every_assignment_has_a_lease_of_its_own(broker: BrokerCore) -> None:
    with_client(with_workers(broker, 3), "t1", "t2")
    actions = die(broker, "worker-1") + broker.on_worker(b"new", ready("new", 200), now=1.0)
    leases = [
        action.message.lease
        for action in actions
        if isinstance(action, SendToWorker) and isinstance(action.message, Assign)
    ]

    assert leases == [3]


@pytest.mark.parametrize("outcome", sorted(set(Outcome) - {"ok", "invalid_race", "raised", "too_large"}))
def test_worker_cannot_send_an_outcome_of_the_broker(broker: BrokerCore, outcome: Outcome) -> None:
    with_client(with_workers(broker), "t1")
    before = state_of(broker)

    assert broker.on_worker(W1, result("t1", 1, outcome), now=1.0) == []
    assert state_of(broker) == before
    assert broker.counters["bad_frames"] == 1


# --- clients and their sessions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message", [submit("t1"), Ping(0), AskStats(), Expire(an_id("t1"), 0), Cancel(an_id("t1"), kill=True)]
)
def test_client_without_a_session_is_asked_to_open_one(broker: BrokerCore, message: Any) -> None:  # noqa: ANN401
    before = state_of(broker)

    assert broker.on_client(ALICE, message, now=0.0) == [SendToClient(ALICE, Who())]
    assert state_of(broker) == before


def test_goodbye_without_a_session_is_not_answered(broker: BrokerCore) -> None:
    assert broker.on_client(ALICE, Bye(), now=0.0) == []
    assert broker.on_worker(W1, Bye(), now=0.0) == []


def test_ping_is_answered_and_tells_what_the_client_holds(broker: BrokerCore) -> None:
    with_client(broker)

    assert broker.on_client(ALICE, Ping(held=17), now=0.0) == [SendToClient(ALICE, Pong(EPOCH))]
    assert [client.held for client in broker.clients.by_id.values()] == [17]


def test_stats_are_sent_to_the_client_that_asks(broker: BrokerCore) -> None:
    with_client(broker)

    assert broker.on_client(ALICE, AskStats(), now=0.0) == [SendStats(ALICE)]


def test_task_submitted_again_stays_one_task_at_its_place(broker: BrokerCore) -> None:
    with_client(with_workers(broker), "t1", "t2", "t3")
    before = state_of(broker)

    for name in ("t3", "t2", "t1"):
        assert broker.on_client(ALICE, submit(name), now=1.0) == []
    assert state_of(broker) == before
    assert broker.counters["submitted"] == 3


def test_task_of_another_client_cannot_be_taken_over(broker: BrokerCore) -> None:
    with_client(with_workers(broker), "t1")
    broker.on_client(BOB, hello("bob"), now=0.0)

    assert broker.on_client(BOB, submit("t1"), now=0.0) == []
    assert broker.on_client(BOB, Cancel(an_id("t1"), kill=True), now=0.0) == []
    assert broker.counters["bad_frames"] == 1
    assert answered(broker.on_worker(W1, result("t1", 1), now=1.0)) == [(ALICE, "t1", Outcome.OK)]


def test_answered_task_that_is_submitted_again_is_computed_again(broker: BrokerCore) -> None:
    with_client(with_workers(broker), "t1")
    broker.on_worker(W1, result("t1", 1), now=1.0)

    assert deeds(broker.on_client(ALICE, submit("t1"), now=2.0)) == [SendToWorker(W1, task("t1", lease=2))]


def test_client_on_a_new_socket_gets_the_answers_of_its_old_one(broker: BrokerCore) -> None:
    with_client(with_workers(broker), "t1", "t2")

    assert broker.on_client(ALICE_AGAIN, hello(), now=1.0) == [SendToClient(ALICE_AGAIN, WELCOME)]
    assert broker.on_client(ALICE, Ping(0), now=1.0) == [SendToClient(ALICE, Who())]
    assert answered(broker.on_worker(W1, result("t1", 1), now=1.0)) == [(ALICE_AGAIN, "t1", Outcome.OK)]
    assert len(broker.clients.by_id) == 1


def test_client_that_cannot_be_reached_keeps_its_tasks_until_it_speaks(broker: BrokerCore) -> None:
    with_client(with_workers(broker), "t1", "t2")
    broker.on_worker(W1, result("t1", 1), now=1.0)

    assert broker.on_client_unreachable(ALICE) == []
    assert broker.on_client(ALICE, Ping(0), now=1.0) == [SendToClient(ALICE, Who())]
    assert broker.on_client(ALICE_AGAIN, hello(), now=1.0) == [SendToClient(ALICE_AGAIN, WELCOME)]
    assert broker.on_client(ALICE_AGAIN, submit("t2"), now=1.0) == []
    assert answered(broker.on_worker(W1, result("t2", 2), now=1.0)) == [(ALICE_AGAIN, "t2", Outcome.OK)]
    assert broker.counters["dropped"] == 1


def test_second_hello_on_the_same_socket_is_the_same_session(broker: BrokerCore) -> None:
    with_client(broker, "t1")

    assert broker.on_client(ALICE, hello(held=3), now=1.0) == [SendToClient(ALICE, WELCOME)]
    assert broker.ledger.backlog.depth == 1
    assert [client.held for client in broker.clients.by_id.values()] == [3]


def test_hello_is_a_sign_of_life(broker: BrokerCore) -> None:
    with_client(broker, "t1")
    broker.on_client(ALICE_AGAIN, hello(number=2), now=LIVENESS_S - 0.1)

    assert broker.on_tick(now=LIVENESS_S) == []
    assert told(broker.on_tick(now=2 * LIVENESS_S - 0.1)) == ["task_abandoned"]


def test_hello_that_was_overtaken_by_a_later_sessions_changes_nothing(broker: BrokerCore) -> None:
    with_client(broker)
    broker.on_client(ALICE_AGAIN, hello(number=3), now=0.0)

    assert broker.on_client(ALICE, hello(number=2), now=0.1) == []
    assert broker.on_client(ALICE_AGAIN, Ping(0), now=0.2) == [SendToClient(ALICE_AGAIN, Pong(EPOCH))]


def test_second_client_on_the_same_socket_is_refused(broker: BrokerCore) -> None:
    with_client(broker, "t1")
    before = state_of(broker)

    assert broker.on_client(ALICE, hello("mallory"), now=0.0) == []
    assert state_of(broker) == before
    assert broker.counters["bad_frames"] == 1


def test_session_that_moved_is_not_cut_by_the_end_of_its_old_socket(broker: BrokerCore) -> None:
    with_client(broker)
    broker.on_client(ALICE_AGAIN, hello(), now=0.0)
    broker.on_client_unreachable(ALICE)

    assert broker.on_client(ALICE_AGAIN, Ping(0), now=0.0) == [SendToClient(ALICE_AGAIN, Pong(EPOCH))]


@pytest.mark.parametrize("leaves", ["goodbye", "silence"])
def test_queued_tasks_of_a_client_that_left_are_abandoned(broker: BrokerCore, leaves: str) -> None:
    with_client(with_workers(broker), "t1", "t2", "t3")
    broker.on_heartbeat(H1, beat(), now=LIVENESS_S)

    gone = broker.on_client(ALICE, Bye(), now=0.0) if leaves == "goodbye" else broker.on_tick(now=LIVENESS_S)

    assert [action for action in gone if isinstance(action, Report)] == [
        Report("task_abandoned", {"queued": 2, "in_flight": 1})
    ]
    assert (broker.counters["abandoned"], broker.ledger.in_flight, broker.clients.by_id) == (2, 1, {})
    assert answered(broker.on_worker(W1, result("t1", 1), now=3.0)) == []
    assert (broker.counters["abandoned"], broker.counters["completed"]) == (3, 0)


def test_client_is_kept_while_it_speaks(broker: BrokerCore) -> None:
    with_client(broker, "t1")
    for beats in range(1, 20):
        broker.on_client(ALICE, Ping(0), now=beats * LIVENESS_S / 2)
        assert told(broker.on_tick(now=beats * LIVENESS_S / 2)) == []
        assert broker.next_check() <= (beats / 2 + 1) * LIVENESS_S

    assert broker.ledger.backlog.depth == 1


def test_client_that_left_without_tasks_is_not_reported(broker: BrokerCore) -> None:
    with_client(broker)

    assert broker.on_client(ALICE, Bye(), now=0.0) == []


def test_client_that_returns_takes_its_tasks_in_flight_over_again(broker: BrokerCore) -> None:
    with_client(with_workers(broker), "t1", "t2")
    broker.on_heartbeat(H1, beat(), now=LIVENESS_S)
    broker.on_tick(now=LIVENESS_S)

    assert broker.on_client(ALICE, Ping(0), now=3.0) == [SendToClient(ALICE, Who())]
    broker.on_client(ALICE_AGAIN, hello(), now=3.0)
    for name in ("t1", "t2"):
        broker.on_client(ALICE_AGAIN, submit(name), now=3.0)
    actions = broker.on_worker(W1, result("t1", 1), now=3.0)
    actions += broker.on_worker(W1, result("t2", 2), now=3.0)

    assert answered(actions) == [(ALICE_AGAIN, "t1", Outcome.OK), (ALICE_AGAIN, "t2", Outcome.OK)]
    assert (broker.counters["submitted"], broker.counters["abandoned"], broker.counters["completed"]) == (3, 1, 2)


def test_withdrawn_task_of_a_dead_worker_is_not_tried_again(broker: BrokerCore) -> None:
    with_client(with_workers(broker, 2), "t1")
    broker.on_client(ALICE, Bye(), now=0.0)

    assert told(die(broker, "worker-1")) == ["worker_lost"]
    assert (broker.counters["abandoned"], broker.counters["requeued"]) == (1, 0)


# --- cancel and expire ------------------------------------------------------------------------------------------------


def test_cancelled_task_in_the_backlog_is_never_assigned(broker: BrokerCore) -> None:
    with_client(with_workers(broker), "t1", "t2", "t3")

    assert broker.on_client(ALICE, Cancel(an_id("t2"), kill=False), now=0.0) == []
    assert assigned(broker.on_worker(W1, result("t1", 1), now=1.0)) == [(W1, "t3")]
    assert broker.counters["cancelled"] == 1


def test_cancelled_task_in_flight_ends_without_an_answer(broker: BrokerCore) -> None:
    with_client(with_workers(broker), "t1")

    assert broker.on_client(ALICE, Cancel(an_id("t1"), kill=False), now=0.0) == []
    assert answered(broker.on_worker(W1, result("t1", 1), now=1.0)) == []
    assert (broker.counters["cancelled"], broker.counters["completed"]) == (1, 0)
    assert broker.roster.idle_count == 1


def test_cancel_with_kill_ends_the_worker_and_touches_no_other_task(broker: BrokerCore) -> None:
    with_client(with_workers(broker, 2), "t1", "t2", "t3")

    actions = broker.on_client(ALICE, Cancel(an_id("t1"), kill=True), now=0.0)

    assert deeds(actions) == [KillProcess(an_id("worker-1"))]
    assert report(actions, "worker_lost")["reason"] == "cancelled"
    assert (broker.counters["cancelled"], broker.ledger.backlog.depth, broker.ledger.in_flight) == (1, 1, 1)


def test_kill_may_follow_a_cancel(broker: BrokerCore) -> None:
    with_client(with_workers(broker), "t1")
    broker.on_client(ALICE, Cancel(an_id("t1"), kill=False), now=0.0)

    assert deeds(broker.on_client(ALICE, Cancel(an_id("t1"), kill=True), now=0.0)) == [KillProcess(an_id("worker-1"))]


def test_kill_reaches_a_task_whose_client_was_forgotten_meanwhile(broker: BrokerCore) -> None:
    with_client(with_workers(broker), "t1")
    broker.on_client(ALICE, Bye(), now=0.0)
    broker.on_client(ALICE_AGAIN, hello(number=2), now=0.1)

    actions = broker.on_client(ALICE_AGAIN, Cancel(an_id("t1"), kill=True), now=0.2)

    assert deeds(actions) == [KillProcess(an_id("worker-1"))]


def test_task_of_another_client_cannot_be_cancelled(broker: BrokerCore) -> None:
    with_client(with_workers(broker), "t1", "t2")
    broker.on_client(BOB, hello("bob"), now=0.0)

    for name in ("t1", "t2"):
        assert broker.on_client(BOB, Cancel(an_id(name), kill=True), now=0.1) == []
    assert (broker.ledger.in_flight, broker.ledger.backlog.depth) == (1, 1)


def test_kill_of_a_queued_task_ends_no_worker(broker: BrokerCore) -> None:
    with_client(with_workers(broker), "t1", "t2")

    assert broker.on_client(ALICE, Cancel(an_id("t2"), kill=True), now=0.0) == []
    assert broker.ledger.in_flight == 1


def test_remote_worker_of_a_killed_task_is_only_forgotten(broker: BrokerCore) -> None:
    with_client(with_workers(broker, local=False), "t1")

    assert deeds(broker.on_client(ALICE, Cancel(an_id("t1"), kill=True), now=0.0)) == []
    assert broker.on_worker(W1, result("t1", 1), now=1.0) == [SendToWorker(W1, Who())]


@pytest.mark.parametrize("message", [Cancel(an_id("t1"), kill=True), Expire(an_id("t1"), 0)])
def test_task_that_was_answered_can_be_neither_cancelled_nor_expired(broker: BrokerCore, message: Any) -> None:  # noqa: ANN401
    with_client(with_workers(broker), "t1")
    broker.on_worker(W1, result("t1", 1), now=1.0)

    assert broker.on_client(ALICE, message, now=1.0) == []


def test_queue_timeout_of_a_queued_task_is_answered(broker: BrokerCore) -> None:
    with_client(broker, "t1", "t2")

    assert broker.on_client(ALICE, Expire(an_id("t1"), 0), now=5.0) == [
        SendToClient(ALICE, answer("t1", Outcome.QUEUE_TIMEOUT, 0, b"", queued_ms=5000, worker=None))
    ]
    assert assigned(broker.on_worker(W1, ready(), now=5.0)) == [(W1, "t2")]
    assert broker.counters["timed_out"] == 1


def test_queue_timeout_of_a_task_in_flight_is_answered_with_its_waiting_time(broker: BrokerCore) -> None:
    with_client(broker, "t1")
    broker.on_worker(W1, ready(), now=1.5)

    assert broker.on_client(ALICE, Expire(an_id("t1"), 0), now=5.0) == [
        SendToClient(ALICE, Waited(an_id("t1"), 1500, queued=False))
    ]
    assert broker.ledger.in_flight == 1


def test_queued_task_that_has_waiting_left_stays_queued(broker: BrokerCore) -> None:
    with_client(broker)
    broker.on_client(ALICE, submit("t1"), now=1.0)

    assert broker.on_client(ALICE, Expire(an_id("t1"), 5_000), now=5.0) == [
        SendToClient(ALICE, Waited(an_id("t1"), 4_000, queued=True))
    ]
    assert broker.ledger.backlog.depth == 1


def test_waiting_for_an_earlier_broker_counts(broker: BrokerCore) -> None:
    with_client(broker)
    broker.on_client(ALICE, submit("t1", waited_ms=700, again=True), now=0.0)

    waited = Waited(an_id("t1"), 900, queued=True)
    assert broker.on_client(ALICE, Expire(an_id("t1"), 1000), now=0.2) == [SendToClient(ALICE, waited)]
    assert answered(broker.on_client(ALICE, Expire(an_id("t1"), 1000), now=0.3)) == [
        (ALICE, "t1", Outcome.QUEUE_TIMEOUT)
    ]


def test_waiting_time_adds_up_over_attempts(broker: BrokerCore) -> None:
    with_client(broker, "t1")
    broker.on_worker(W1, ready("worker-1", 101), 1.0, 101)
    die(broker, "worker-1", now=1.5)
    broker.on_worker(W2, ready("worker-2", 102), 1.75, 102)

    assert broker.on_client(ALICE, Expire(an_id("t1"), 0), now=9.0) == [
        SendToClient(ALICE, Waited(an_id("t1"), 1250, queued=False))
    ]


# --- run timeout ------------------------------------------------------------------------------------------------------


def test_run_timeout_answers_the_task_and_kills_its_worker(broker: BrokerCore) -> None:
    with_client(with_workers(broker))
    broker.on_client(ALICE, submit("t1", run_timeout_ms=500), now=0.0)

    assert broker.next_check() <= 0.5
    assert broker.on_tick(now=0.499) == []
    actions = broker.on_tick(now=0.5)
    assert deeds(actions) == [
        KillProcess(an_id("worker-1")),
        SendToClient(ALICE, answer("t1", Outcome.RUN_TIMEOUT, payload=b"", run_ms=500)),
    ]
    assert report(actions, "worker_lost")["reason"] == "run_timeout"
    assert (broker.counters["timed_out"], broker.counters["requeued"]) == (1, 0)


def test_worker_that_ended_itself_after_the_run_timeout_is_no_crash_of_the_task(broker: BrokerCore) -> None:
    """Its own timer ends it when the broker stands still."""
    with_client(with_workers(broker, 2))
    broker.on_client(ALICE, submit("t1", run_timeout_ms=1000), now=0.0)
    broker.on_client(ALICE, submit("t2", run_timeout_ms=5000), now=0.0)

    actions = broker.on_process_exit([an_id("worker-1"), an_id("worker-2")], now=3.0)

    assert answered(actions) == [(ALICE, "t1", Outcome.RUN_TIMEOUT)]
    assert told(actions) == ["worker_lost", "worker_lost", "task_requeued"]
    assert (broker.counters["timed_out"], broker.counters["requeued"]) == (1, 1)


def test_run_timeout_is_of_one_attempt(broker: BrokerCore) -> None:
    with_client(with_workers(broker, 2))
    broker.on_client(ALICE, submit("t1", run_timeout_ms=500), now=0.0)
    die(broker, "worker-1", now=0.4)

    assert answered(broker.on_tick(now=0.9)) == []
    assert answered(broker.on_tick(now=1.0)) == [(ALICE, "t1", Outcome.RUN_TIMEOUT)]


def test_task_without_a_worker_has_no_run_timeout(broker: BrokerCore) -> None:
    with_client(broker)
    broker.on_client(ALICE, submit("t1", run_timeout_ms=500), now=0.0)
    broker.on_client(ALICE, Ping(0), now=1.9)

    assert broker.on_tick(now=1.9) == []


# --- backlog limits ---------------------------------------------------------------------------------------------------


def test_full_backlog_refuses_by_count(make_broker: MakeBroker) -> None:
    broker = with_client(with_workers(make_broker(backlog_limit=2)), "in flight", "t1", "t2")
    before = state_of(broker)

    assert broker.on_client(ALICE, submit("t3"), now=0.0) == [
        SendToClient(ALICE, Reject(an_id("t3"), 2, 2, in_bytes=False))
    ]
    assert state_of(broker) == before
    assert (broker.counters["rejected"], broker.counters["submitted"]) == (1, 3)


def test_full_backlog_refuses_by_bytes(make_broker: MakeBroker) -> None:
    broker = with_client(make_broker(backlog_bytes=100))
    broker.on_client(ALICE, submit("t1", payload=bytes(60)), now=0.0)

    assert broker.on_client(ALICE, submit("t2", payload=bytes(41)), now=0.0) == [
        SendToClient(ALICE, Reject(an_id("t2"), 60, 100, in_bytes=True))
    ]
    assert broker.on_client(ALICE, submit("t3", payload=bytes(40)), now=0.0) == []


def test_empty_backlog_takes_one_task_of_any_size(make_broker: MakeBroker) -> None:
    broker = with_client(make_broker(backlog_bytes=100))

    assert broker.on_client(ALICE, submit("t1", payload=bytes(101)), now=0.0) == []


def test_room_of_a_cancelled_task_is_free_again(make_broker: MakeBroker) -> None:
    broker = with_client(make_broker(backlog_limit=1), "t1")
    broker.on_client(ALICE, Cancel(an_id("t1"), kill=False), now=0.0)

    assert broker.on_client(ALICE, submit("t2"), now=0.0) == []


def test_task_of_a_dead_worker_is_never_refused(make_broker: MakeBroker) -> None:
    broker = with_client(with_workers(make_broker(backlog_limit=1)), "t1", "t2")

    assert answered(die(broker, "worker-1")) == []
    assert broker.ledger.backlog.depth == 2


def test_task_that_an_earlier_broker_had_may_fill_the_backlog_twice_over(make_broker: MakeBroker) -> None:
    broker = with_client(make_broker(backlog_limit=2), "t1", "t2")

    assert broker.on_client(ALICE, submit("t3", again=True), now=0.0) == []
    assert broker.on_client(ALICE, submit("t4", again=True), now=0.0) == []
    assert broker.on_client(ALICE, submit("t5", again=True), now=0.0) == [
        SendToClient(ALICE, Reject(an_id("t5"), 4, 4, in_bytes=False))
    ]
    assert broker.on_client(ALICE, submit("t6"), now=0.0) == [
        SendToClient(ALICE, Reject(an_id("t6"), 4, 2, in_bytes=False))
    ]


def test_resubmission_into_a_full_backlog_is_no_new_task(make_broker: MakeBroker) -> None:
    broker = with_client(make_broker(backlog_limit=1), "t1")

    assert broker.on_client(ALICE, submit("t1"), now=0.0) == []


# --- recycling --------------------------------------------------------------------------------------------------------


def test_worker_that_asks_for_it_is_recycled_before_its_next_task(broker: BrokerCore) -> None:
    with_client(with_workers(broker), "t1", "t2")

    actions = broker.on_worker(W1, result("t1", 1, recycle=True), now=1.0)

    assert answered(actions) == [(ALICE, "t1", Outcome.OK)]
    assert SendToWorker(W1, Recycle()) in actions
    assert assigned(actions) == []
    assert report(actions, "worker_stopped")["reason"] == "recycled"
    assert (broker.roster.workers, broker.counters["worker_crashes"], broker.counters["requeued"]) == ({}, 0, 0)


@pytest.mark.parametrize("last_message", [result("t1", 1, recycle=True), Bye()], ids=["recycled", "goodbye"])
@pytest.mark.parametrize("busy", [True, False])
def test_heartbeat_that_comes_after_the_end_of_its_session_is_ignored(
    broker: BrokerCore, last_message: FromWorker, *, busy: bool
) -> None:
    with_client(with_workers(broker), "t1")
    broker.on_worker(W1, last_message, now=1.0)

    assert broker.on_heartbeat(H1, beat(busy=busy), now=1.1, local_pid=101) == []
    later = broker.on_heartbeat(H1, beat(), now=1.0 + LIVENESS_S, local_pid=101)
    assert SendToHeartbeat(H1, Who()) in later, "it has not heard that it must end"
    assert told(broker.on_process_exit([an_id("worker-1")], now=1.2)) == []
    assert (broker.roster.workers, broker.counters["worker_crashes"]) == ({}, 0)


def test_sessions_that_have_just_ended_are_forgotten_after_the_liveness(broker: BrokerCore) -> None:
    for number in range(10):
        broker.on_worker(W1, ready(session=f"s{number}", later_ms=number), now=number * LIVENESS_S)
        broker.on_worker(W1, Bye(), now=number * LIVENESS_S)

    assert len(broker.sessions._left_until) == 1


def test_worker_that_is_frozen_when_it_must_be_recycled_is_killed(broker: BrokerCore) -> None:
    with_client(with_workers(broker), "t1")
    broker.on_worker(W1, result("t1", 1, recycle=True), now=1.0)

    assert KillProcess(an_id("worker-1")) in broker.on_tick(1.0 + 5 * LIVENESS_S)


def test_second_worker_is_recycled_when_the_first_is_back(broker: BrokerCore) -> None:
    with_client(with_workers(broker, 2), "t1", "t2")
    broker.on_worker(W1, result("t1", 1, recycle=True), now=1.0)
    assert SendToWorker(W2, Recycle()) not in broker.on_worker(W2, result("t2", 2, recycle=True), now=1.1)
    assert SendToWorker(W2, Recycle()) not in broker.on_tick(1.2)

    actions = broker.on_worker(W1_AGAIN, ready(session="fresh", pid=201, later_ms=1), now=1.5, local_pid=201)

    assert report(actions, "worker_restarted")["duration_ms"] == 500.0
    assert broker.next_check() == 1.5
    assert SendToWorker(W2, Recycle()) in broker.on_tick(1.5)


def test_worker_that_does_not_ask_again_is_not_recycled(broker: BrokerCore) -> None:
    with_client(with_workers(broker, 2), "t1", "t2", "t3")
    broker.on_worker(W1, result("t1", 1, recycle=True), now=1.0)
    broker.on_worker(W2, result("t2", 2, recycle=True), now=1.1)
    broker.on_worker(W2, result("t3", 3, recycle=False), now=1.2)
    broker.on_worker(W1_AGAIN, ready(session="fresh", pid=201, later_ms=1), now=1.5, local_pid=201)

    assert SendToWorker(W2, Recycle()) not in broker.on_tick(1.5)


def test_no_worker_is_recycled_if_the_welcome_of_the_returned_one_cannot_be_delivered(broker: BrokerCore) -> None:
    with_client(with_workers(broker, 2), "t1", "t2")
    broker.on_worker(W1, result("t1", 1, recycle=True), now=1.0)
    broker.on_worker(W2, result("t2", 2, recycle=True), now=1.1)
    broker.on_worker(W1_AGAIN, ready(session="fresh", pid=201, later_ms=1), now=1.5, local_pid=201)
    broker.on_worker_unreachable(W1_AGAIN, WELCOME, now=1.5)

    assert SendToWorker(W2, Recycle()) not in broker.on_tick(1.5)


def test_worker_that_cannot_be_recycled_yet_works_on(broker: BrokerCore) -> None:
    with_client(with_workers(broker, 2), "t1", "t2", "t3")
    broker.on_worker(W1, result("t1", 1, recycle=True), now=1.0)

    assert assigned(broker.on_worker(W2, result("t2", 2, recycle=True), now=1.1)) == [(W2, "t3")]
    broker.on_worker(W1_AGAIN, ready(session="fresh", pid=201, later_ms=1), now=1.5, local_pid=201)
    assert SendToWorker(W2, Recycle()) in broker.on_worker(W2, result("t3", 3, recycle=True), now=2.0)


@pytest.mark.parametrize("how", ["crashed", "said goodbye"])
def test_no_worker_is_recycled_while_another_is_away_for_another_reason(broker: BrokerCore, how: str) -> None:
    with_client(with_workers(broker, 2), "t1")
    broker.on_process_exit([an_id("worker-2")], now=0.5) if how == "crashed" else broker.on_worker(W2, Bye(), now=0.5)

    assert SendToWorker(W1, Recycle()) not in broker.on_worker(W1, result("t1", 1, recycle=True), now=1.0)


def test_broker_does_not_wait_for_ever_for_a_worker_that_never_comes_back(broker: BrokerCore) -> None:
    with_client(with_workers(broker, 2, local=False), "t1")
    broker.on_worker(W2, Bye(), now=0.5)
    broker.on_worker(W1, result("t1", 1, recycle=True), now=1.0)

    until = 0.5 + roster.AWAY_S
    for now in (until - 1.0, until - 0.5):
        broker.on_client(ALICE, Ping(0), now)
        broker.on_heartbeat(H1, beat(), now)
        broker.on_tick(now)
    assert broker.next_check() == until
    assert SendToWorker(W1, Recycle()) in broker.on_tick(until)


# --- heartbeats and silence -------------------------------------------------------------------------------------------


def test_heartbeat_of_a_known_worker_is_answered_with_the_epoch(broker: BrokerCore) -> None:
    with_workers(broker)

    assert broker.on_heartbeat(H1, beat(), now=1.0) == [SendToHeartbeat(H1, Pong(EPOCH))]
    assert broker.roster.workers[an_id("worker-1")].rss_bytes == 50_000_000


def test_unknown_idle_worker_is_asked_who_it_is(broker: BrokerCore) -> None:
    assert broker.on_heartbeat(H1, beat(busy=False), now=0.0, local_pid=101) == [SendToHeartbeat(H1, Who())]
    assert broker.roster.workers == {}


def test_unknown_busy_worker_is_introduced_and_given_nothing(broker: BrokerCore) -> None:
    with_client(broker, "t1")

    actions = broker.on_heartbeat(H1, beat(busy=True), now=0.0, local_pid=101)

    assert deeds(actions) == [SendToHeartbeat(H1, Pong(EPOCH)), WatchProcess(an_id("worker-1"), 101)]
    assert report(actions, "worker_ready")["state"] == "busy"
    assert (broker.roster.idle_count, broker.ledger.in_flight) == (0, 0)


def test_introduced_worker_becomes_idle_with_its_ready(broker: BrokerCore) -> None:
    with_client(broker, "t1")
    broker.on_heartbeat(H1, beat(busy=True), now=0.0, local_pid=101)

    actions = broker.on_worker(W1, ready(session="fresh"), now=1.0, local_pid=101)

    assert told(actions) == ["worker_stopped", "worker_ready", "task_assigned"]
    assert report(actions, "worker_stopped")["reason"] == "renewed"
    assert [worker.session_id for worker in broker.roster.workers.values()] == [an_id("fresh")]
    assert broker.counters["worker_crashes"] == 0


def test_late_heartbeat_of_a_session_that_is_over_makes_no_second_worker(broker: BrokerCore) -> None:
    broker.on_heartbeat(H1, beat(session="old", busy=True), now=0.0, local_pid=101)
    broker.on_worker(W1, ready(session="new"), now=1.0, local_pid=101)

    assert broker.on_heartbeat(H1, beat(session="old", busy=True), now=1.0, local_pid=101) == [
        SendToHeartbeat(H1, Who())
    ]
    assert list(broker.roster.workers) == [an_id("new")]


@pytest.mark.parametrize("busy", [True, False])
def test_silent_remote_worker_is_lost(broker: BrokerCore, *, busy: bool) -> None:
    with_client(with_workers(broker, local=False), *(["t1"] if busy else []))
    broker.on_client(ALICE, Ping(0), now=1.5)

    assert broker.on_tick(now=LIVENESS_S - 0.001) == []
    actions = broker.on_tick(now=LIVENESS_S)
    assert deeds(actions) == []
    assert told(actions) == ["worker_lost", *(["task_requeued"] if busy else [])]
    assert report(actions, "worker_lost")["silent_ms"] == 2000.0


def test_heartbeats_keep_a_busy_worker(broker: BrokerCore) -> None:
    with_client(with_workers(broker, local=False), "t1")
    for beats in range(1, 40):
        now = beats * 0.25
        broker.on_client(ALICE, Ping(0), now)
        broker.on_heartbeat(H1, beat(busy=True), now)
        assert broker.on_tick(now) == []

    assert broker.ledger.in_flight == 1


def test_worker_that_was_asked_to_end_is_draining_until_its_task_is_done(broker: BrokerCore) -> None:
    with_client(with_workers(broker), "t1")

    broker.on_heartbeat(H1, beat(busy=True, draining=True), now=0.2)
    assert [worker.state for worker in broker.roster.workers.values()] == ["draining"]
    broker.on_worker(W1, result("t1", 1), now=0.3)
    assert [worker.state for worker in broker.roster.workers.values()] == ["idle"]


def test_silent_local_worker_is_probed_before_it_is_judged(broker: BrokerCore) -> None:
    with_workers(broker)
    worker = an_id("worker-1")

    assert broker.on_tick(now=1.0) == [ProbeProcess(worker)]  # the first look, to compare with
    assert broker.on_probe(worker, now=1.0, has_progress=False) == []
    assert broker.on_tick(now=1.999) == []
    assert broker.on_tick(now=2.0) == [ProbeProcess(worker)]
    assert told(broker.on_probe(worker, now=2.0, has_progress=False)) == ["worker_lost"]
    assert broker.roster.workers == {}


def test_silent_local_worker_that_uses_cpu_is_kept_and_probed_again(broker: BrokerCore) -> None:
    with_client(with_workers(broker), "t1")
    worker = an_id("worker-1")
    now = 2.0
    broker.on_tick(1.0)
    for _ in range(10):
        broker.on_client(ALICE, Ping(0), now)
        assert broker.on_tick(now) == [ProbeProcess(worker)]
        assert told(broker.on_probe(worker, now, has_progress=True)) == ["worker_silent"]
        now += LIVENESS_S / 2
        assert broker.next_check() <= now

    assert broker.ledger.in_flight == 1


def test_heartbeat_overtakes_a_probe_and_ends_the_suspicion(broker: BrokerCore) -> None:
    with_workers(broker)
    assert broker.on_tick(now=1.0) == [ProbeProcess(an_id("worker-1"))]  # a suspect from now on
    assert broker.on_tick(now=2.0) == [ProbeProcess(an_id("worker-1"))]
    broker.on_heartbeat(H1, beat(), now=2.0)

    assert broker.on_probe(an_id("worker-1"), now=2.0, has_progress=False) == []
    assert broker.on_tick(now=2.999) == []
    assert broker.on_tick(now=3.0) == [ProbeProcess(an_id("worker-1"))]  # the first of two probes, as at 1.0


def test_pause_of_the_broker_ends_every_suspicion(broker: BrokerCore) -> None:
    with_workers(broker)
    assert broker.on_tick(now=1.0) == [ProbeProcess(an_id("worker-1"))]
    broker.on_pause(now=1.5)

    assert broker.on_tick(now=2.499) == []
    assert broker.on_tick(now=2.5) == [ProbeProcess(an_id("worker-1"))]


def test_probe_of_a_worker_that_left_tells_nothing(broker: BrokerCore) -> None:
    assert broker.on_probe(an_id("worker-1"), now=9.0, has_progress=False) == []


def test_task_of_a_silent_local_worker_is_retried_elsewhere_by_the_next_tick(broker: BrokerCore) -> None:
    with_client(with_workers(broker, 2), "t1")
    broker.on_heartbeat(H1, beat("worker-2", 102), now=1.9)
    broker.on_client(ALICE, Ping(0), now=1.9)
    broker.on_tick(now=2.0)
    broker.on_probe(an_id("worker-1"), now=2.0, has_progress=False)

    assert broker.next_check() <= 2.0
    assert deeds(broker.on_tick(now=2.0)) == [SendToWorker(W2, task("t1", lease=2, attempt=2))]


def silenced(broker: BrokerCore) -> Id:
    """A local worker that was lost in silence at 2.0, while its process lives on. Returns its session."""
    broker.on_tick(now=1.0)
    broker.on_tick(now=2.0)
    assert told(broker.on_probe(an_id("worker-1"), now=2.0, has_progress=False))[0] == "worker_lost"
    return an_id("worker-1")


def test_signal_that_ended_a_worker_is_logged_where_the_kernel_tells_it(broker: BrokerCore) -> None:
    with_client(with_workers(broker, 2), "t1")

    actions = broker.on_process_exit([an_id("worker-1"), an_id("worker-2")], 1.0, {an_id("worker-1"): 11})

    assert [action.fields.get("signal") for action in actions if isinstance(action, Report)][:1] == [11]
    assert broker.ledger._tasks[an_id("t1")].deaths[0].signal == 11


def test_process_that_stays_silent_is_killed(broker: BrokerCore) -> None:
    worker = silenced(with_workers(broker))
    assert broker.on_tick(9.999) == []

    actions = broker.on_tick(10.0)

    assert deeds(actions) == [KillProcess(worker)]
    assert report(actions, "worker_killed") == {
        "worker": "worker-1", "pid": 101, "reason": "frozen", "silent_ms": 10_000.0,
    }  # fmt: skip
    assert broker.counters["worker_crashes"] == 1
    assert broker.on_tick(1000.0) == []


def test_process_that_could_not_be_reached_and_stays_silent_is_killed(broker: BrokerCore) -> None:
    with_workers(broker)
    broker.on_worker_unreachable(W1, WELCOME, now=1.0)

    assert deeds(broker.on_tick(10.0)) == [KillProcess(an_id("worker-1"))]


def test_process_that_speaks_again_is_spared(broker: BrokerCore) -> None:
    worker = silenced(with_workers(broker))

    assert broker.on_heartbeat(H1, beat(), now=5.0, local_pid=101) == [
        UnwatchProcess(worker), SendToHeartbeat(H1, Who()),
    ]  # fmt: skip
    assert broker.on_tick(1000.0) == []


def test_process_that_opens_another_session_is_spared(broker: BrokerCore) -> None:
    worker = silenced(with_workers(broker))

    actions = broker.on_worker(W1_AGAIN, ready(session="fresh", number=2), now=5.0, local_pid=101)

    assert deeds(actions)[0] == UnwatchProcess(worker)
    assert KillProcess(worker) not in broker.on_tick(10.0)


def test_silent_process_that_ended_is_not_watched_any_more(broker: BrokerCore) -> None:
    worker = silenced(with_workers(broker))

    assert broker.on_process_exit([worker], now=5.0) == [UnwatchProcess(worker)]
    assert broker.on_tick(1000.0) == []


def test_silent_process_has_time_to_speak_after_a_pause_of_the_broker(broker: BrokerCore) -> None:
    worker = silenced(with_workers(broker))
    broker.on_pause(now=30.0)

    assert broker.on_tick(30.0) == []
    assert broker.next_check() == 30.0 + LIVENESS_S / 2
    assert deeds(broker.on_tick(31.0)) == [KillProcess(worker)]


def test_worker_that_calls_itself_idle_for_the_liveness_is_out_of_step(broker: BrokerCore) -> None:
    with_client(with_workers(broker, 2, local=False), "t1")
    for now in (0.1, 0.9, 1.7):
        broker.on_heartbeat(H1, beat(busy=False), now)
        broker.on_heartbeat(b"h2", beat("worker-2", 102), now)
    assert broker.ledger.in_flight == 1

    actions = broker.on_heartbeat(H1, beat(busy=False), now=2.1)

    assert told(actions) == ["worker_lost", "task_requeued", "task_assigned"]
    assert report(actions, "worker_lost")["reason"] == "out_of_step"
    assert assigned(actions) == [(W2, "t1")]
    assert SendToHeartbeat(H1, Who()) in actions


def test_heartbeats_before_and_after_a_long_call_are_not_out_of_step(broker: BrokerCore) -> None:
    """The heartbeat thread stood still, and its next heartbeat overtook the result."""
    with_client(with_workers(broker, 1), "t1")
    broker.on_heartbeat(H1, beat(), now=0.001)

    broker.on_worker(W1, result("of long ago", 77), now=LIVENESS_S - 0.1)
    actions = broker.on_heartbeat(H1, beat(), now=LIVENESS_S + 0.1)

    assert told(actions) == []
    assert broker.roster.idle_count == 0


def test_worker_that_was_introduced_busy_and_stays_idle_without_a_ready_is_out_of_step(broker: BrokerCore) -> None:
    broker.on_heartbeat(H1, beat(busy=True), now=0.0)
    for now in (0.5, 1.25, 2.0):
        assert told(broker.on_heartbeat(H1, beat(busy=False), now)) == []

    actions = broker.on_heartbeat(H1, beat(busy=False), now=2.5)

    assert told(actions) == ["worker_lost"]
    assert deeds(actions) == [SendToHeartbeat(H1, Who())]
    assert broker.roster.workers == {}


def test_beat_after_a_silence_may_have_overtaken_the_result(broker: BrokerCore) -> None:
    with_client(with_workers(broker), "t1")
    broker.on_heartbeat(H1, beat(busy=False), 0.1)

    assert told(broker.on_heartbeat(H1, beat(busy=False), 3.0)) == []
    assert answered(broker.on_worker(W1, result("t1", 1), now=3.001)) == [(ALICE, "t1", Outcome.OK)]


def test_time_in_which_heartbeats_call_a_worker_idle_begins_again_after_a_gap(broker: BrokerCore) -> None:
    with_client(with_workers(broker), "t1")
    for now in (0.1, 0.1 + LIVENESS_S / 2):
        broker.on_heartbeat(H1, beat(busy=False), now)

    assert told(broker.on_heartbeat(H1, beat(busy=False), 0.1 + LIVENESS_S)) == []
    assert broker.ledger.in_flight == 1


def test_beat_after_the_brokers_own_pause_may_have_overtaken_the_result(broker: BrokerCore) -> None:
    with_client(with_workers(broker), "t1")
    broker.on_heartbeat(H1, beat(busy=False), 0.1)
    broker.on_pause(3.0)

    assert told(broker.on_heartbeat(H1, beat(busy=False), 3.0)) == []
    assert answered(broker.on_worker(W1, result("t1", 1), now=3.001)) == [(ALICE, "t1", Outcome.OK)]


def test_pause_of_the_broker_ends_the_time_in_which_heartbeats_called_a_worker_idle(broker: BrokerCore) -> None:
    with_client(with_workers(broker), "t1")
    for now in (0.1, 0.9, 1.7):
        broker.on_heartbeat(H1, beat(busy=False), now)
    broker.on_pause(2.4)

    assert told(broker.on_heartbeat(H1, beat(busy=False), 2.4)) == []
    assert broker.ledger.in_flight == 1


@pytest.mark.parametrize("says", ["busy once", "a result and the next task"])
def test_worker_whose_heartbeats_agree_in_between_is_in_step(broker: BrokerCore, says: str) -> None:
    with_client(with_workers(broker, local=False), "t1", "t2")
    broker.on_heartbeat(H1, beat(busy=False), 0.1)
    if says == "busy once":
        broker.on_heartbeat(H1, beat(busy=True), 1.0)
    else:
        broker.on_worker(W1, result("t1", 1), now=1.0)

    assert told(broker.on_heartbeat(H1, beat(busy=False), 2.5)) == []
    assert broker.ledger.in_flight == 1


def test_broker_that_stood_still_judges_nobody(broker: BrokerCore) -> None:
    with_client(with_workers(broker, 3, local=False), "t1")

    assert told(broker.on_pause(now=100.0)) == ["broker_paused"]
    assert broker.on_tick(now=100.0) == []
    assert told(broker.on_tick(now=100.0 + LIVENESS_S)).count("worker_lost") == 3


def test_results_of_a_process_that_ended_in_a_pause_are_read_first(broker: BrokerCore) -> None:
    with_client(with_workers(broker), "t1")
    broker.on_pause(now=5.0)

    assert broker.on_process_exit([an_id("worker-1")], now=5.0) == []
    assert answered(broker.on_worker(W1, result("t1", 1), now=5.01)) == [(ALICE, "t1", Outcome.OK)]
    assert told(broker.on_process_exit([an_id("worker-1")], now=5.0 + core.SETTLE_S)) == ["worker_lost"]


def test_run_timeout_that_ended_in_a_pause_leaves_time_for_the_result(broker: BrokerCore) -> None:
    with_client(with_workers(broker))
    broker.on_client(ALICE, submit("t1", run_timeout_ms=500), now=0.0)
    broker.on_pause(now=100.0)

    assert answered(broker.on_tick(now=100.0)) == []
    assert answered(broker.on_worker(W1, result("t1", 1), now=100.1)) == [(ALICE, "t1", Outcome.OK)]


def test_run_timeout_that_a_pause_did_not_touch_stays(broker: BrokerCore) -> None:
    with_client(with_workers(broker))
    broker.on_client(ALICE, submit("t1", run_timeout_ms=60_000), now=0.0)
    broker.on_pause(now=5.0)

    assert broker.roster.workers[an_id("worker-1")].deadline == 60.0


def test_audit_finds_a_check_that_is_missing() -> None:
    broker = with_client(BrokerCore(Settings.load(), EPOCH))
    assert broker.audit() == []
    broker._next_check = float("inf")

    assert broker.audit() == ["the next check comes too late"]


def test_broker_without_peers_has_nothing_to_check(broker: BrokerCore) -> None:
    assert broker.next_check() == float("inf")
    assert broker.on_tick(now=1e9) == []


# --- sessions of workers ----------------------------------------------------------------------------------------------


def test_worker_that_says_goodbye_gives_its_task_back_at_no_cost(make_broker: MakeBroker) -> None:
    broker = with_client(with_workers(make_broker(max_attempts=1), 2), "t1")

    actions = broker.on_worker(W1, Bye(), now=1.0)

    assert told(actions) == ["worker_stopped", "task_requeued", "task_assigned"]
    assert assigned(actions) == [(W2, "t1")]
    assert broker.counters["worker_crashes"] == 0


def test_new_session_of_a_busy_process_takes_its_task_back_at_no_cost(make_broker: MakeBroker) -> None:
    broker = with_client(with_workers(make_broker(max_attempts=1)), "t1")

    actions = broker.on_worker(W1_AGAIN, ready(session="again"), now=1.0, local_pid=101)

    assert told(actions) == ["worker_stopped", "task_requeued", "worker_ready", "task_assigned"]
    assert assigned(actions) == [(W1_AGAIN, "t1")]
    assert broker.on_worker(W1, result("t1", 1), now=1.0) == [SendToWorker(W1, Who())]


@pytest.mark.parametrize("local_pid", [101, None], ids=["local", "remote"])
def test_ready_that_was_overtaken_by_a_later_sessions_changes_nothing(
    broker: BrokerCore, local_pid: int | None
) -> None:
    broker.on_worker(W1_AGAIN, ready(session="again", number=2), now=0.0, local_pid=local_pid)
    with_client(broker, "t1")

    assert broker.on_worker(W1, ready(number=1), now=0.1, local_pid=local_pid) == []
    assert answered(broker.on_worker(W1_AGAIN, result("t1", 1), now=0.2)) == [(ALICE, "t1", Outcome.OK)]


def test_ready_of_a_remote_process_that_was_overtaken_by_the_next_ones_changes_nothing(broker: BrokerCore) -> None:
    broker.on_worker(W1_AGAIN, ready(pid=999, session="again", later_ms=300), now=0.0)
    before = state_of(broker)

    assert broker.on_worker(W1, ready(number=7), now=0.1) == []
    assert state_of(broker) == before


def test_remote_worker_of_the_same_name_replaces_the_earlier_one(broker: BrokerCore) -> None:
    with_client(with_workers(broker, local=False), "t1")

    actions = broker.on_worker(W1_AGAIN, ready(pid=999, session="again"), now=1.0)

    assert report(actions, "worker_lost")["reason"] == "replaced"
    assert deeds(actions) == [SendToWorker(W1_AGAIN, WELCOME), SendToWorker(W1_AGAIN, task("t1", 2, attempt=2))]


def test_local_worker_of_the_same_name_and_another_process_replaces_nobody(broker: BrokerCore) -> None:
    with_workers(broker)

    broker.on_worker(W1_AGAIN, ready(pid=999, session="again"), now=1.0, local_pid=999)

    assert len(broker.roster.workers) == 2


def test_process_in_another_pid_namespace_is_known_by_the_kernels_pid(broker: BrokerCore) -> None:
    broker.on_worker(W1, ready(pid=7), now=0.0, local_pid=4007)

    actions = broker.on_worker(W1_AGAIN, ready(pid=7, session="again"), now=1.0, local_pid=4007)

    assert report(actions, "worker_stopped")["reason"] == "renewed"
    assert len(broker.roster.workers) == 1


@pytest.mark.parametrize(
    ("peer", "again"), [(W1, ready(session="again")), (W1_AGAIN, ready())], ids=["same socket", "same session"]
)
def test_session_is_opened_once(broker: BrokerCore, peer: bytes, again: Any) -> None:  # noqa: ANN401
    with_workers(broker)
    before = state_of(broker)

    assert broker.on_worker(peer, again, now=1.0, local_pid=101) == []
    assert state_of(broker) == before
    assert broker.counters["bad_frames"] == 1


# --- caps -------------------------------------------------------------------------------------------------------------


def test_clients_are_bounded(broker: BrokerCore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "MAX_CLIENTS", 1)
    with_client(broker)

    assert told(broker.on_client(BOB, hello("bob"), now=0.0)) == ["client_refused"]
    assert broker.on_client(ALICE_AGAIN, hello(), now=0.0) == [SendToClient(ALICE_AGAIN, WELCOME)]
    assert len(broker.clients.by_id) == broker.counters["dropped"] == 1


def test_refused_clients_are_reported_once_until_a_client_has_left(
    broker: BrokerCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "MAX_CLIENTS", 1)
    with_client(broker)
    assert told(broker.on_client(BOB, hello("bob"), now=0.0)) == ["client_refused"]

    assert broker.on_client(BOB, hello("bob"), now=0.0) == []
    broker.on_client(ALICE, Bye(), now=0.0)
    assert broker.on_client(ALICE, hello(), now=0.0) == [SendToClient(ALICE, WELCOME)]
    assert told(broker.on_client(BOB, hello("bob"), now=0.0)) == ["client_refused"]

    assert broker.counters["dropped"] == 3


def test_workers_are_bounded(broker: BrokerCore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "MAX_WORKERS", 1)
    with_workers(broker)

    assert broker.on_worker(W2, ready("worker-2", 102), now=0.0) == []
    assert broker.on_heartbeat(H1, beat("worker-2", 102, busy=True), now=0.0) == [SendToHeartbeat(H1, Who())]
    assert len(broker.roster.workers) == broker.counters["bad_frames"] == 1


def test_names_of_lost_workers_are_bounded(broker: BrokerCore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "MAX_NAMES_AWAY", 2)
    for name in ("a", "b", "c"):
        broker.on_worker(name.encode(), ready(name), now=0.0)
        broker.on_worker_unreachable(name.encode(), WELCOME, now=0.0)

    assert told(broker.on_worker(b"a", ready("a"), now=1.0)) == ["worker_ready"]
    assert told(broker.on_worker(b"c", ready("c"), now=1.0)) == ["worker_restarted", "worker_ready"]


# --- drain ------------------------------------------------------------------------------------------------------------


def test_draining_broker_finishes_and_assigns_nothing(broker: BrokerCore) -> None:
    with_client(with_workers(broker), "t1", "t2")

    assert told(broker.on_drain()) == ["broker_draining"]
    actions = broker.on_worker(W1, result("t1", 1), now=1.0)
    assert answered(actions) == [(ALICE, "t1", Outcome.OK)]
    assert assigned(actions) == []
    assert assigned(broker.on_worker(W2, ready("worker-2", 102), now=1.0)) == []
    assert broker.ledger.in_flight == 0


def test_farewell_goes_to_every_client(broker: BrokerCore) -> None:
    with_client(broker, "t1")
    broker.on_client(BOB, hello("bob"), now=0.0)

    assert broker.farewell() == [SendToClient(ALICE, Bye()), SendToClient(BOB, Bye())]


# --- counters ---------------------------------------------------------------------------------------------------------


def test_counters_add_up_over_every_end_of_a_task(make_broker: MakeBroker) -> None:
    broker = with_client(make_broker(max_attempts=1, backlog_limit=20))
    broker.on_client(BOB, hello("bob"), now=0.0)
    broker.on_client(BOB, submit("abandoned"), now=0.0)
    for name in ("completed", "failed", "crashed", "timed out", "cancelled", "expired", "queued"):
        broker.on_client(ALICE, submit(name, run_timeout_ms=500), now=0.0)
    broker.on_client(BOB, Bye(), now=0.0)
    broker.on_client(ALICE, Cancel(an_id("cancelled"), kill=False), now=0.0)
    broker.on_client(ALICE, Expire(an_id("expired"), 0), now=0.0)
    with_workers(broker)
    broker.on_worker(W1, result("completed", 1), now=0.0)
    broker.on_worker(W1, result("failed", 2, Outcome.RAISED), now=0.0)
    die(broker, "worker-1", now=0.0)
    broker.on_worker(W2, ready("worker-2", 102), now=0.1)
    broker.on_tick(now=0.6)

    ends = ("completed", "failed", "crashed", "cancelled", "abandoned")
    assert {end: broker.counters[end] for end in ends} == dict.fromkeys(ends, 1)
    assert (broker.counters["timed_out"], broker.counters["submitted"], broker.ledger.backlog.depth) == (2, 8, 1)
