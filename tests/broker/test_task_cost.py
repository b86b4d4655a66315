"""What an answer tells of its task's cost: how long it waited and ran, in how many attempts, and where."""

import pytest

from racepool.broker.actions import Action, SendToClient
from racepool.broker.core import SETTLE_S, BrokerCore
from racepool.protocol.frames import TO_CLIENT, decode, encode
from racepool.protocol.messages import MAX_INT, Answer, Assign, Expire, Outcome
from racepool.protocol.settings import Settings
from tests.broker.building import (
    ALICE,
    EPOCH,
    W1,
    W2,
    an_id,
    answer,
    answered,
    assigned,
    deeds,
    die,
    hello,
    ready,
    report,
    result,
    submit,
    told,
    with_client,
    with_workers,
)


@pytest.fixture
def broker() -> BrokerCore:
    return BrokerCore(Settings.load(), EPOCH)


def cost(actions: list[Action]) -> tuple[float, float, int, str | None]:
    """Of the one task that is answered: queued_ms, run_ms, attempts, worker."""
    (it,) = [each.message for each in deeds(actions) if isinstance(each, SendToClient)]
    assert isinstance(it, Answer)
    return it.queued_us / 1000, it.run_us / 1000, it.attempts, it.worker


def test_waiting_at_the_client_and_in_the_backlog_is_one_sum(broker: BrokerCore) -> None:
    with_client(broker)
    broker.on_client(ALICE, submit("t1", waited_ms=700), now=0.0)
    assigned_to = broker.on_worker(W1, ready(), now=0.2)

    actions = broker.on_worker(W1, result("t1", 1), now=0.5)

    assert cost(actions) == (900, 300, 1, "worker-1")
    assert (report(assigned_to, "task_assigned")["queued_ms"], report(actions, "task_completed")["duration_ms"]) == (
        900,
        300,
    )


def test_retried_task_tells_all_its_waiting_and_its_last_run(broker: BrokerCore) -> None:
    with_client(with_workers(broker, 2), "t1")
    die(broker, "worker-1", now=0.5)

    actions = broker.on_worker(W2, result("t1", 2), now=0.75)

    assert cost(actions) == (1000 * SETTLE_S, 200, 2, "worker-2")


def test_task_that_is_given_up_tells_the_run_that_its_last_worker_did_not_survive() -> None:
    broker = with_client(with_workers(BrokerCore(Settings.load(max_attempts=1), EPOCH)), "t1")

    actions = die(broker, "worker-1", now=0.5)

    assert told(actions) == ["worker_lost", "task_given_up"]
    assert cost(actions) == (0, 500, 1, "worker-1")
    assert report(actions, "worker_lost")["duration_ms"] == 500


def test_task_that_waits_again_after_a_run_and_is_out_of_time_names_the_worker_of_that_run(broker: BrokerCore) -> None:
    with_client(with_workers(broker), "t1")
    die(broker, "worker-1", now=0.5)

    actions = broker.on_client(ALICE, Expire(an_id("t1"), 1000), now=1.5)

    assert answered(actions) == [(ALICE, "t1", Outcome.QUEUE_TIMEOUT)]
    assert cost(actions) == (1000, 500, 1, "worker-1")


def test_assignment_that_never_reached_its_worker_changes_nothing(broker: BrokerCore) -> None:
    with_client(with_workers(broker, 2), "t1")
    (given,) = [each for each in assigned(die(broker, "worker-1", now=0.5)) if each[1] == "t1"]
    assert given == (W2, "t1")
    unsent = Assign(EPOCH, 2, an_id("t1"), 2, 30_000, is_shared=False, payload=b"race")
    broker.on_worker_unreachable(W2, unsent, now=0.55)

    actions = broker.on_client(ALICE, Expire(an_id("t1"), 100), now=1.0)

    assert cost(actions) == (500, 500, 1, "worker-1")


def test_task_that_the_broker_itself_could_not_read_never_ran(broker: BrokerCore) -> None:
    with_workers(broker)
    broker.on_client(ALICE, hello(), now=0.0, can_share=True)
    broker.on_client(ALICE, submit("t1", is_shared=True), now=0.0)

    actions = broker.on_unreadable(W1, 1, "gone", now=0.1)

    assert answered(actions) == [(ALICE, "t1", Outcome.RAISED)]
    assert cost(actions) == (0, 0, 0, None)


def test_waiting_in_a_workers_hand_counts_also_if_the_task_is_recalled(broker: BrokerCore) -> None:
    with_client(with_workers(broker), "t0")
    broker.on_worker(W1, result("t0", 1), now=0.001)
    assert assigned(give(broker, "t1", "t2", now=1.0)) == [(W1, "t1"), (W1, "t2")]
    assert told(broker.on_process_exit((), now=1.004)) == ["task_returned"]

    assert assigned(broker.on_worker(W2, ready("worker-2", 102), now=1.01)) == [(W2, "t2")]
    actions = broker.on_worker(W2, result("t2", 4), now=1.03)

    assert cost(actions) == (10, 20, 1, "worker-2")


def test_clients_own_account_of_its_waiting_cannot_break_the_answer(broker: BrokerCore) -> None:
    with_client(with_workers(broker))
    broker.on_client(ALICE, submit("t1", waited_ms=MAX_INT), now=0.0)

    (action,) = deeds(broker.on_worker(W1, result("t1", 1), now=0.5))

    assert isinstance(action, SendToClient)
    assert decode(encode(action.message), TO_CLIENT) == Answer(
        an_id("t1"), Outcome.OK, 1, MAX_INT, 500_000, answer("t1").worker, b"done"
    )


def give(broker: BrokerCore, *names: str, now: float) -> list[Action]:
    return [action for name in names for action in broker.on_client(ALICE, submit(name), now)]
