import re
from collections.abc import Callable
from math import inf

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from racepool.client.actions import (
    Action,
    Deliver,
    DeliverStats,
    Fail,
    FailStats,
    Log,
    OpenSession,
    Send,
    SendTask,
)
from racepool.client.core import OUTAGE_S, ClientCore, Identity, Limits
from racepool.client.task import UNIT_BYTES, ClientTask
from racepool.client.window import REFILL_UNITS, WINDOW_UNITS
from racepool.protocol.errors import (
    BacklogFullError,
    BrokerUnavailableError,
    PayloadTooLargeError,
    PoolError,
    ProtocolMismatchError,
    TaskTimeoutError,
)
from racepool.protocol.messages import (
    PROTOCOL_VERSION,
    Answer,
    AskStats,
    Bye,
    Cancel,
    Epoch,
    Expire,
    Hello,
    Id,
    Name,
    Outcome,
    Ping,
    Pong,
    Reject,
    Stats,
    Waited,
    Welcome,
    Who,
)
from racepool.protocol.parcel import Parcel

ME = Id(b"c" * 16)
EPOCH = Epoch(b"epoch--1")
LATER_EPOCH = Epoch(b"epoch--2")
LIMITS = Limits(heartbeat_interval_s=0.25, liveness_s=2.0, connect_timeout_s=30.0)
LARGE = WINDOW_UNITS * UNIT_BYTES
LIMIT = LARGE


def task(number: int, *, at: float = 0.0, size: int = 10, queue_timeout_s: float = 60.0) -> ClientTask:
    return ClientTask(Id(number.to_bytes(2, "big") * 8), Parcel(b"", bytes(size)), 30_000, queue_timeout_s, at, at)


def task_of(core: ClientCore, number: int) -> ClientTask:
    return core.window.tasks[task(number).id]


def submit(sent_task: ClientTask, *, waited_ms: int = 0, again: bool = False, can_share: bool = False) -> SendTask:
    return SendTask(sent_task, waited_ms, again, can_share)


def answer(sent_task: ClientTask, outcome: Outcome = Outcome.OK) -> Answer:
    return Answer(sent_task.id, outcome, 1, 1_500, 2_250, Name("worker-1"), b"payload")


def hello(held: int = 0, number: int = 2) -> OpenSession:
    return OpenSession(Hello(ME, number, 7, held))


def welcome(epoch: Epoch = EPOCH, limit: int = LIMIT) -> Welcome:
    return Welcome(epoch, limit, 2000)


PING = Send(Ping(0))


def error_of(action: Action) -> PoolError:
    assert isinstance(action, Fail)
    return action.error("task t (race r)")


@pytest.fixture
def core() -> ClientCore:
    """Started at 0, not welcome yet."""
    core = ClientCore(Identity(ME, 7), "ipc:///x/frontend.ipc", LIMITS)
    core.start(0.0)
    return core


@pytest.fixture
def up(core: ClientCore) -> ClientCore:
    """Welcome since 0."""
    core.on_message(welcome(), 0.0)
    return core


def test_first_action_is_a_session() -> None:
    core = ClientCore(Identity(ME, 7), "ipc:///x/frontend.ipc", LIMITS)

    assert core.start(0.0) == [hello(number=1)]


def test_task_goes_out_at_once_in_a_session(up: ClientCore) -> None:
    one = task(1)

    assert up.on_submit(one, 0.0) == [submit(one)]
    assert up.window.units == 1


def test_tasks_before_the_welcome_go_out_after_it_in_order(core: ClientCore) -> None:
    tasks = [task(number) for number in (3, 1, 2)]
    assert [action for one in tasks for action in core.on_submit(one, 0.0)] == []

    assert core.on_message(welcome(), 0.1) == [*(submit(one, waited_ms=100) for one in tasks), PING]


def test_window_counts_bytes_in_units_and_an_answer_lets_the_next_out(up: ClientCore) -> None:
    first = task(1, size=LARGE - UNIT_BYTES)
    last = task(2)
    held = task(3)
    assert first.units == WINDOW_UNITS
    assert up.on_submit(first, 0.0) == [submit(first)]
    assert up.on_submit(last, 0.0) == []
    assert up.on_submit(held, 0.0) == []

    assert up.on_message(answer(first), 0.1) == [
        Deliver(first, answer(first)),
        submit(last, waited_ms=100),
        submit(held, waited_ms=100),
    ]
    assert up.window.units == last.units + held.units


def test_tasks_that_are_held_follow_when_the_whole_window_is_refused(up: ClientCore) -> None:
    tasks = [task(number, size=LARGE) for number in (1, 2, 3)]
    for one in tasks:
        up.on_submit(one, 0.0)

    actions = up.on_message(Reject(tasks[0].id, 5, 5, in_bytes=False), 0.1)

    assert [type(action) for action in actions] == [Fail, SendTask]
    assert actions[1] == submit(tasks[1], waited_ms=100)


def test_window_holds_small_tasks_by_number(up: ClientCore) -> None:
    tasks = [
        ClientTask(Id(number.to_bytes(16)), Parcel(b"", b""), 1, 60.0, 0.0, 0.0) for number in range(WINDOW_UNITS + 2)
    ]

    sent = [action for one in tasks for action in up.on_submit(one, 0.0)]

    assert sent == [submit(one) for one in tasks[:WINDOW_UNITS]]
    assert up.on_tick(0.25) == [Send(Ping(2))]


def test_full_window_is_filled_when_it_has_come_down_far_enough_and_then_at_once(up: ClientCore) -> None:
    tasks = [task(number) for number in range(WINDOW_UNITS + 2)]
    for each in tasks:
        up.on_submit(each, 0.0)
    to_answer = iter(tasks)
    for _ in range(WINDOW_UNITS - REFILL_UNITS - 1):
        one = next(to_answer)
        assert up.on_message(answer(one), 0.0) == [Deliver(one, answer(one))]

    one = next(to_answer)
    assert up.on_message(answer(one), 0.0)[1:] == [submit(each) for each in tasks[WINDOW_UNITS:]]
    late = task(WINDOW_UNITS + 2)
    assert up.on_submit(late, 0.0) == [submit(late)], "the window is not full any more"


def test_large_tasks_keep_all_workers_busy() -> None:
    core = ClientCore(Identity(ME, 7), "ipc:///x/frontend.ipc", LIMITS, least=6)
    core.start(0.0)
    core.on_message(welcome(), 0.0)
    tasks = [task(number, size=LARGE - UNIT_BYTES) for number in range(8)]

    assert [core.on_submit(each, 0.0) for each in tasks] == [*([submit(each)] for each in tasks[:6]), [], []]
    assert core.on_message(answer(tasks[3]), 0.0)[1:] == [submit(tasks[6])]


def test_one_task_larger_than_the_window_goes_alone(core: ClientCore) -> None:
    core.on_message(welcome(limit=LARGE * 2), 0.0)
    huge, small = task(1, size=LARGE * 2), task(2)

    assert core.on_submit(huge, 0.0) == [submit(huge)]
    assert core.on_submit(small, 0.0) == []


def test_no_small_task_overtakes_a_large_one_that_waits(up: ClientCore) -> None:
    first, large, small = task(1), task(2, size=20 * UNIT_BYTES), task(3)
    for number in range(4):
        up.on_submit(task(10 + number, size=60 * UNIT_BYTES), 0.0)
    assert up.on_submit(first, 0.0) == [submit(first)]

    assert up.on_submit(large, 0.0) == []
    assert up.on_submit(small, 0.0) == []
    assert list(up.window.tasks)[-3:] == [first.id, large.id, small.id]


def test_task_beyond_the_brokers_limit_fails_when_its_turn_comes(core: ClientCore) -> None:
    large, small = task(1, size=2000), task(2)
    core.on_submit(large, 0.0)
    core.on_submit(small, 0.0)

    refused, sent, ping = core.on_message(welcome(limit=1999), 0.1)

    assert (sent, ping) == (submit(small, waited_ms=100), PING)
    error = error_of(refused)
    assert isinstance(error, PayloadTooLargeError)
    assert (error.size_bytes, error.limit_bytes) == (2000, 1999)
    assert "task t (race r)" in str(error)


@pytest.mark.parametrize("lost", [Who(), Bye(), Pong(LATER_EPOCH)])
def test_new_session_submits_all_unresolved_again_in_order(up: ClientCore, lost: Who | Bye | Pong) -> None:
    tasks = [task(number) for number in (1, 2, 3, 4)]
    for one in tasks:
        up.on_submit(one, 0.0)
    up.on_message(answer(tasks[1]), 0.1)

    assert up.on_message(lost, 1.0) == [hello(held=3)]
    later = task(5, at=1.0)
    assert up.on_submit(later, 1.0) == []
    assert up.on_message(welcome(LATER_EPOCH), 1.5) == [
        submit(tasks[0], waited_ms=1500, again=True),
        submit(tasks[2], waited_ms=1500, again=True),
        submit(tasks[3], waited_ms=1500, again=True),
        submit(later, waited_ms=500),
        PING,
    ]


def logs(actions: list[Action]) -> list[bool]:
    """For each line that is logged, whether it is a warning."""
    return [action.is_warning for action in actions if isinstance(action, Log)]


def test_caller_is_told_once_that_no_broker_answers_and_once_that_it_is_back(core: ClientCore) -> None:
    core.on_submit(task(1, at=1.0), 1.0)

    assert core.next_check() <= 1.0 + OUTAGE_S
    assert logs(core.on_tick(1.0 + OUTAGE_S - 0.01)) == []
    warned = [each for each in core.on_tick(1.0 + OUTAGE_S) if isinstance(each, Log)]
    assert [each.is_warning for each in warned] == [True]
    assert "ipc:///x/frontend.ipc" in warned[0].text
    assert "racepool up" in warned[0].text
    core.on_submit(task(2, at=3.0), 3.0)
    assert [logs(core.on_tick(at)) for at in (5.0, 7.0, 9.0)] == [[], [], []]
    assert logs(core.on_message(welcome(), 10.0)) == [False]


def test_outage_of_a_broker_that_was_there_is_told_each_time(up: ClientCore) -> None:
    up.on_submit(task(1), 0.0)
    for at in (1.0, 11.0):
        up.on_message(Who(), at)
        assert logs(up.on_tick(at + OUTAGE_S)) == [True]
        assert logs(up.on_message(welcome(), at + 3.0)) == [False]


def test_short_outage_and_one_without_tasks_are_not_worth_a_line(core: ClientCore) -> None:
    assert logs(core.on_tick(10.0)) == []
    core.on_submit(task(1, at=10.0), 10.0)
    assert logs(core.on_message(welcome(), 11.0)) == []
    core.on_message(answer(task_of(core, 1)), 11.0)
    core.on_message(Who(), 11.5)
    assert logs(core.on_tick(30.0)) == []


def test_task_that_is_withdrawn_before_the_warning_is_not_waited_for(core: ClientCore) -> None:
    first = task(1)
    core.on_submit(first, 0.0)
    core.on_withdraw(first.id, kill=False)
    assert logs(core.on_tick(OUTAGE_S)) == []


def test_pong_of_this_epoch_changes_nothing(up: ClientCore) -> None:
    assert up.on_message(Pong(EPOCH), 0.3) == []


def test_silent_broker_is_left_after_the_liveness(up: ClientCore) -> None:
    one = task(1)
    up.on_submit(one, 0.0)
    up.on_message(Pong(EPOCH), 1.0)

    assert hello(1) not in up.on_tick(2.999)
    assert up.on_tick(3.0) == [hello(1)]
    assert up.on_message(welcome(), 3.25) == [submit(one, waited_ms=3250, again=True), PING]


def test_own_pause_gives_the_broker_another_liveness(up: ClientCore) -> None:
    up.on_pause(10.0)

    assert up.on_tick(10.0) == [Send(Ping(0))]
    assert up.on_tick(11.999) == [Send(Ping(0))]
    assert up.on_tick(12.0) == [hello()]


def test_hello_is_repeated_until_the_welcome(core: ClientCore) -> None:
    assert core.next_check() == LIMITS.hello_retry_s

    assert core.on_tick(LIMITS.hello_retry_s - 0.001) == []
    assert core.on_tick(LIMITS.hello_retry_s) == [hello()]
    core.on_message(welcome(), 1.0)
    assert core.on_tick(1.0 + LIMITS.hello_retry_s) == [Send(Ping(0))]


def test_pings_keep_their_interval_and_tell_what_is_held(up: ClientCore) -> None:
    up.on_submit(task(1, size=LARGE - UNIT_BYTES), 0.0)
    up.on_submit(task(2), 0.0)

    assert up.on_tick(0.2) == []
    assert up.on_tick(0.25) == [Send(Ping(1))]
    assert up.on_tick(0.3) == []
    assert up.next_check() == 0.5


def test_hello_is_repeated_less_and_less_often_until_a_welcome(core: ClientCore) -> None:
    now, pauses_s = 0.0, []
    for _ in range(5):
        pauses_s.append(core.next_check() - now)
        now = core.next_check()
        assert core.on_tick(now) == [hello(number=1 + len(pauses_s))]

    assert pauses_s == [0.5, 1.0, 2.0, 2.0, 2.0]
    core.on_message(welcome(), now)
    core.on_message(Who(), now)
    assert core.next_check() == now + 0.5, "the first HELLO to the next broker is soon repeated again"


def test_next_broker_is_taken_at_its_own_word(core: ClientCore) -> None:
    core.on_message(Welcome(EPOCH, 10, 400, can_share=True), 0.0)
    assert core.on_submit(task(1), 0.0) == [submit(task_of(core, 1), can_share=True)]

    core.on_message(Pong(LATER_EPOCH), 0.0)
    sent, _ping = core.on_message(Welcome(LATER_EPOCH, 20, 2000), 0.0)

    assert sent == submit(task_of(core, 1), again=True, can_share=False)
    assert core.next_check() == LIMITS.heartbeat_interval_s
    assert [type(action) for action in core.on_submit(task(2, size=20), 0.0)] == [SendTask]


def test_pings_are_more_frequent_for_a_broker_of_little_patience(core: ClientCore) -> None:
    core.on_message(Welcome(EPOCH, LIMIT, 400), 0.0)

    assert core.on_tick(0.09) == []
    assert core.on_tick(0.1) == [Send(Ping(0))]


def test_no_broker_makes_the_client_spin(core: ClientCore) -> None:
    core.on_message(Welcome(EPOCH, LIMIT, 0), 0.0)

    assert core.next_check() >= 0.01


def test_unreached_broker_fails_tasks_after_the_connect_timeout(core: ClientCore) -> None:
    core.on_submit(task(1), 0.0)
    core.on_submit(task(2, at=5.0), 5.0)

    assert [action for action in core.on_tick(29.9) if isinstance(action, Fail)] == []
    (failed,) = [action for action in core.on_tick(30.0) if isinstance(action, Fail)]

    error = error_of(failed)
    assert isinstance(error, BrokerUnavailableError)
    for words in ("task t (race r)", "ipc:///x/frontend.ipc", "30 s", "racepool up"):
        assert words in str(error)
    assert len(core.window.tasks) == 1


def test_broker_that_was_reached_once_is_waited_for_within_the_queue_timeout(up: ClientCore) -> None:
    up.on_submit(task(1), 0.0)
    up.on_message(Who(), 1.0)

    assert [action for action in up.on_tick(59.9) if isinstance(action, Fail)] == []
    (failed,) = [action for action in up.on_tick(60.0) if isinstance(action, Fail)]

    error = error_of(failed)
    assert isinstance(error, TaskTimeoutError)
    assert (error.state, error.timeout_s) == ("queued", 60.0)
    assert "no broker for 59.0 s" in str(error)


def test_connect_timeout_after_the_queue_timeout_does_not_prolong_it(core: ClientCore) -> None:
    core.on_submit(task(1, queue_timeout_s=3.0), 0.0)

    (failed,) = [action for action in core.on_tick(3.0) if isinstance(action, Fail)]

    assert isinstance(error_of(failed), TaskTimeoutError)
    assert "no broker for 3.0 s" in str(error_of(failed))


def test_held_task_times_out_by_the_clients_clock(up: ClientCore) -> None:
    up.on_submit(task(1, size=LARGE - UNIT_BYTES), 0.0)
    up.on_submit(task(2, queue_timeout_s=1.0), 0.0)
    up.on_message(Pong(EPOCH), 0.9)

    (failed,) = [action for action in up.on_tick(1.0) if isinstance(action, Fail)]

    assert isinstance(error_of(failed), TaskTimeoutError)
    assert "held by the client" in str(error_of(failed))


def test_sent_task_is_expired_by_the_broker_and_fails_with_its_answer(up: ClientCore) -> None:
    one = task(1, queue_timeout_s=1.0)
    up.on_submit(one, 0.0)

    assert Send(Expire(one.id, 1000)) in up.on_tick(1.0)
    assert Send(Expire(one.id, 1000)) not in up.on_tick(1.1)
    assert Send(Expire(one.id, 1000)) in up.on_tick(1.25)  # the first one, or its answer, may be lost with a session
    expired = answer(one, Outcome.QUEUE_TIMEOUT)
    assert up.on_message(expired, 1.3) == [Deliver(one, expired)]
    assert up.next_check() > 1.3


def test_running_task_is_left_in_peace_while_it_has_waiting_left(up: ClientCore) -> None:
    one = task(1, queue_timeout_s=1.0)
    up.on_submit(one, 0.0)
    up.on_tick(1.0)

    up.on_message(Waited(one.id, waited_ms=300, queued=False), 1.0)

    assert Send(Expire(one.id, 1000)) not in up.on_tick(1.69)
    assert Send(Expire(one.id, 1000)) in up.on_tick(1.71)


def test_waiting_of_a_running_task_goes_on_when_its_session_is_lost(up: ClientCore) -> None:
    one = task(1, queue_timeout_s=1.0)
    up.on_submit(one, 0.0)
    up.on_tick(1.0)
    up.on_message(Waited(one.id, waited_ms=300, queued=False), 1.0)
    up.on_message(Who(), 1.2)

    assert [action for action in up.on_tick(1.89) if isinstance(action, Fail)] == []
    assert [type(action) for action in up.on_tick(1.91) if isinstance(action, Fail)] == [Fail]


@pytest.mark.parametrize("waited_ms", [800, 1_000, 5_000])
def test_waiting_of_an_earlier_epoch_counts(up: ClientCore, waited_ms: int) -> None:
    one = task(1, queue_timeout_s=1.0)
    up.on_submit(one, 0.0)
    up.on_message(Pong(LATER_EPOCH), 0.6)
    up.on_message(welcome(LATER_EPOCH), 0.6)
    up.on_tick(1.0)

    up.on_message(Waited(one.id, waited_ms=waited_ms, queued=False), 1.0)

    assert Send(Expire(one.id, 1000)) not in up.on_tick(1.24)  # 0.2 s are left at most, but a heartbeat at least
    assert Send(Expire(one.id, 1000)) in up.on_tick(1.26)


@pytest.mark.parametrize("queued", [False, True])
def test_broker_is_not_asked_again_within_a_heartbeat_though_the_time_is_over(up: ClientCore, *, queued: bool) -> None:
    """The two clocks differ: the broker may say that it counted less, or that the task runs."""
    one = task(1, queue_timeout_s=1.0)
    up.on_submit(one, 0.0)
    assert Send(Expire(one.id, 1000)) in up.on_tick(1.0)

    up.on_message(Waited(one.id, waited_ms=1500, queued=queued), 1.0)

    assert Send(Expire(one.id, 1000)) not in up.on_tick(1.0 + LIMITS.heartbeat_interval_s - 0.001)
    assert Send(Expire(one.id, 1000)) in up.on_tick(1.0 + LIMITS.heartbeat_interval_s)


def test_connect_timeout_of_a_broker_that_was_reached_wakes_nobody(up: ClientCore) -> None:
    up.on_submit(task(1), 0.0)
    now = LIMITS.connect_timeout_s + 1.0
    up.on_message(Pong(EPOCH), now)
    up.on_tick(now)

    assert up.next_check() == now + LIMITS.heartbeat_interval_s, "nothing is due but the ping"


def test_a_task_that_was_in_flight_for_long_and_waits_again_is_given_its_whole_time(up: ClientCore) -> None:
    one = task(1, queue_timeout_s=1.0)
    up.on_submit(one, 0.0)
    up.on_tick(1.0)

    up.on_message(Waited(one.id, waited_ms=200, queued=True), 1.0)  # its worker died just now

    assert Send(Expire(one.id, 1000)) not in up.on_tick(1.79)
    assert Send(Expire(one.id, 1000)) in up.on_tick(1.81)


def test_waiting_is_not_counted_twice_when_a_session_is_lost_within_an_epoch(up: ClientCore) -> None:
    one = task(1, queue_timeout_s=1.0)
    up.on_submit(one, 0.0)
    up.on_message(Who(), 0.5)
    up.on_message(welcome(EPOCH), 0.5)

    assert Send(Expire(one.id, 1000)) in up.on_tick(1.0)  # it waited at this broker for all of its 1 s


def test_running_of_an_unknown_task_changes_nothing(up: ClientCore) -> None:
    assert up.on_message(Waited(Id(b"x" * 16), 5, queued=False), 0.1) == []


def test_rejected_task_fails_and_lets_the_next_out(up: ClientCore) -> None:
    one = task(1)
    up.on_submit(one, 0.0)

    (failed,) = up.on_message(Reject(one.id, 9, 8, in_bytes=False), 0.1)

    error = error_of(failed)
    assert isinstance(error, BacklogFullError)
    assert (error.depth, error.limit) == (9, 8)
    assert re.search(r"task t \(race r\).*9 of 8 tasks \(RACEPOOL_BACKLOG_LIMIT\)", str(error))
    assert up.window.units == 0
    assert up.on_message(Reject(one.id, 9, 8, in_bytes=False), 0.2) == []


@pytest.mark.parametrize("late", [Outcome.OK, Outcome.CRASHED])
def test_second_answer_is_ignored(up: ClientCore, late: Outcome) -> None:
    one = task(1)
    up.on_submit(one, 0.0)
    assert up.on_message(answer(one), 0.1) == [Deliver(one, answer(one))]

    assert up.on_message(answer(one, late), 0.2) == []
    assert up.window.units == 0


def test_answer_before_the_resubmission_saves_it(up: ClientCore) -> None:
    """The same broker still had the task: its answer comes before the window submits the task again."""
    first, second = task(1, size=LARGE - UNIT_BYTES), task(2)
    up.on_submit(first, 0.0)
    up.on_submit(second, 0.0)
    up.on_message(Who(), 0.1)
    up.on_message(welcome(), 0.2)

    assert up.on_message(answer(second), 0.3) == [Deliver(second, answer(second))]
    assert up.on_message(answer(first), 0.3) == [Deliver(first, answer(first))]
    assert up.window.units == 0


def test_cancelled_task_is_taken_back_and_its_place_given_away(up: ClientCore) -> None:
    first, second = task(1, size=LARGE - UNIT_BYTES), task(2)
    up.on_submit(first, 0.0)
    up.on_submit(second, 0.0)

    assert up.on_withdraw(first.id, kill=False) == [Send(Cancel(first.id, kill=False))]
    assert up.next_check() < 0.1
    assert up.on_tick(0.1) == [submit(second, waited_ms=100)]
    assert up.on_withdraw(first.id, kill=True) == [Send(Cancel(first.id, kill=True))]
    assert up.on_message(answer(first), 0.3) == []


def test_tasks_that_are_cancelled_together_make_room_for_none_of_them(up: ClientCore) -> None:
    tasks = [task(number, size=LARGE - UNIT_BYTES) for number in range(1, 6)]
    for each in tasks:
        up.on_submit(each, 0.0)

    said = [action for each in tasks for action in up.on_withdraw(each.id, kill=False)]

    assert said == [Send(Cancel(tasks[0].id, kill=False))]
    assert up.on_tick(0.1) == []


def test_overdue_tasks_are_looked_at_many_at_a_time(up: ClientCore) -> None:
    """One look goes through all tasks, so it must not happen for each of them."""
    for number in range(2_000):
        up.on_submit(task(number, queue_timeout_s=1.0 + number * 1e-6), 0.0)
    now, looks = 0.9, 0
    up.on_tick(now)

    while now < 1.1:
        now = max(now, min(up.next_check(), 1.1))
        up.on_tick(now)
        looks += 1

    assert looks < 20


def test_tasks_that_leave_between_two_looks_change_nothing_for_the_others(up: ClientCore) -> None:
    tasks = [task(number, queue_timeout_s=1.0 + number * 1e-6) for number in range(2_000)]
    for each in tasks:
        up.on_submit(each, 0.0)
    up.on_tick(1.0)
    due = up.next_check()

    for each in tasks[:-1]:
        up.on_withdraw(each.id, kill=False)
    up.on_tick(1.0)

    assert up.next_check() == due
    assert up.audit() == []


def test_cancelled_held_task_never_reaches_the_broker(up: ClientCore) -> None:
    first, second, third = task(1, size=LARGE - UNIT_BYTES), task(2), task(3)
    for one in (first, second, third):
        up.on_submit(one, 0.0)

    assert up.on_withdraw(second.id, kill=False) == []
    assert up.on_message(answer(first), 0.2) == [Deliver(first, answer(first)), submit(third, waited_ms=200)]


def test_task_cancelled_without_a_broker_is_not_submitted(core: ClientCore) -> None:
    one, two = task(1), task(2)
    core.on_submit(one, 0.0)
    core.on_submit(two, 0.0)

    assert core.on_withdraw(one.id, kill=True) == []
    assert core.on_message(welcome(), 0.2) == [submit(two, waited_ms=200), PING]


def test_cancellation_between_two_sessions_is_told_in_the_next_one(up: ClientCore) -> None:
    one, two = task(1), task(2)
    up.on_submit(one, 0.0)
    up.on_submit(two, 0.0)
    up.on_message(Who(), 0.1)

    assert up.on_withdraw(one.id, kill=False) == []
    assert up.on_withdraw(one.id, kill=True) == []
    assert up.on_message(welcome(), 0.4) == [
        Send(Cancel(one.id, kill=True)),
        submit(two, waited_ms=400, again=True),
        PING,
    ]


def test_cancellation_is_told_again_in_the_next_session_unless_it_was_heard(up: ClientCore) -> None:
    heard, unheard = task(1), task(2)
    up.on_submit(heard, 0.0)
    up.on_submit(unheard, 0.0)
    up.on_withdraw(heard.id, kill=False)
    up.on_message(Pong(EPOCH), 0.1)  # to the ping of the welcome, which was said before
    up.on_tick(0.25)
    up.on_withdraw(unheard.id, kill=True)
    up.on_message(Pong(EPOCH), 0.3)  # to the ping after the first cancellation

    up.on_message(Who(), 0.4)

    assert up.on_message(welcome(), 0.5) == [Send(Cancel(unheard.id, kill=True)), PING]


def test_cancellation_that_was_heard_in_a_later_session_is_not_told_again(up: ClientCore) -> None:
    one = task(1)
    up.on_submit(one, 0.0)
    up.on_withdraw(one.id, kill=False)
    up.on_message(Who(), 0.1)  # before any pong: the pings of that session are lost
    assert up.on_message(welcome(), 0.2) == [Send(Cancel(one.id, kill=False)), PING]
    up.on_message(Pong(EPOCH), 0.3)

    up.on_message(Who(), 0.4)

    assert up.on_message(welcome(), 0.5) == [PING]


def test_cancellation_between_two_epochs_needs_no_word(up: ClientCore) -> None:
    one = task(1)
    up.on_submit(one, 0.0)
    up.on_message(Bye(), 0.1)
    up.on_withdraw(one.id, kill=True)

    assert up.on_message(welcome(LATER_EPOCH), 0.3) == [PING]
    up.on_message(Who(), 0.4)
    assert up.on_message(welcome(), 0.5) == [PING]


def test_foreign_version_fails_all_that_waits(core: ClientCore) -> None:
    core.on_submit(task(1), 0.0)
    core.on_submit(task(2), 0.0)
    core.on_ask_stats(0.0)

    *failed, stats = core.on_foreign_version(9)

    assert [type(error_of(action)) for action in failed] == [ProtocolMismatchError] * 2
    assert all("task t (race r)" in str(error_of(action)) for action in failed)
    assert isinstance(stats, FailStats)
    assert isinstance(stats.error, ProtocolMismatchError)
    assert (stats.error.ours, stats.error.theirs) == (PROTOCOL_VERSION, 9)
    assert core.window.tasks == {}
    assert core.on_foreign_version(9) == []


def test_stats_are_asked_for_once_and_again_in_a_new_session(up: ClientCore) -> None:
    assert up.on_ask_stats(0.0) == [Send(AskStats())]
    assert up.on_ask_stats(0.1) == []
    assert up.on_message(Who(), 0.2) == [hello()]
    assert up.on_message(welcome(), 0.3) == [Send(AskStats()), PING]

    assert up.on_message(Stats(b"stats"), 0.4) == [DeliverStats(b"stats")]
    assert up.on_ask_stats(0.5) == [Send(AskStats())]


def test_stats_asked_without_a_broker_wait_for_one(core: ClientCore) -> None:
    assert core.on_ask_stats(0.0) == []

    assert core.on_message(welcome(), 0.1) == [Send(AskStats()), PING]


def test_stats_without_a_broker_fail_after_the_connect_timeout(core: ClientCore) -> None:
    core.on_ask_stats(1.0)
    core.on_ask_stats(20.0)  # who asks later does not make the first one wait longer

    assert [action for action in core.on_tick(30.9) if isinstance(action, FailStats)] == []
    (failed,) = [action for action in core.on_tick(31.0) if isinstance(action, FailStats)]
    assert isinstance(failed.error, BrokerUnavailableError)
    assert [action for action in core.on_tick(62.0) if isinstance(action, FailStats)] == []


def test_farewell_is_said_to_a_broker_only(core: ClientCore) -> None:
    assert core.farewell() == []

    core.on_message(welcome(), 0.0)
    assert core.farewell() == [Send(Bye())]


@pytest.mark.parametrize("settle", [lambda core: core.on_tick(1000.0), lambda core: core.on_message(Who(), 1000.0)])
def test_every_deadline_lies_ahead_after_its_tick(up: ClientCore, settle: Callable[[ClientCore], object]) -> None:
    up.on_submit(task(1), 0.0)
    up.on_ask_stats(0.0)

    settle(up)
    up.on_tick(1000.0)

    assert up.next_check() > 1000.0, "the thread would spin"


class AnyHistory(RuleBasedStateMachine):
    """The invariants hold for any broker, any callers and any clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.core = ClientCore(Identity(ME, 7), "ipc:///x", Limits(0.25, 2.0, 5.0))
        self.submitted: list[ClientTask] = []
        self.ended: set[Id] = set()
        self.cancelled: set[Id] = set()
        self.in_session: list[Id] = []
        self.has_socket = False
        self.is_welcome = False
        self.observe(self.core.start(0.0))

    def observe(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case OpenSession():
                    self.in_session, self.is_welcome = [], False
                case SendTask(ClientTask(id=task_id)):
                    assert self.is_welcome, "submitted without a session"
                    assert task_id not in self.in_session, "submitted twice in one session"
                    assert task_id not in self.ended | self.cancelled, "submitted though it is over"
                    self.in_session.append(task_id)
                case Send():
                    assert self.is_welcome, "sent without a session"
                case Deliver(sent_task) | Fail(sent_task):
                    assert sent_task.id not in self.ended | self.cancelled, "resolved twice"
                    self.ended.add(sent_task.id)
                case _:
                    pass

    @rule(size=st.sampled_from([0, 10, UNIT_BYTES, LARGE // 2, LARGE * 2]), timeout_s=st.sampled_from([0.5, 3.0, 60.0]))
    def submit(self, size: int, timeout_s: float) -> None:
        number = len(self.submitted)
        one = ClientTask(Id(number.to_bytes(16)), Parcel(b"", bytes(size)), 100, timeout_s, self.now, self.now)
        self.submitted.append(one)
        self.observe(self.core.on_submit(one, self.now))

    @rule(epoch=st.sampled_from([EPOCH, LATER_EPOCH]), limit=st.sampled_from([LARGE, LARGE * 4]))
    def greet(self, epoch: Epoch, limit: int) -> None:
        if not self.is_welcome:
            self.is_welcome = True
            self.observe(self.core.on_message(Welcome(epoch, limit, 2000), self.now))

    @rule(message=st.sampled_from([Who(), Bye(), Pong(EPOCH), Pong(LATER_EPOCH), Stats(b"")]))
    def hear(self, message: Who | Bye | Pong | Stats) -> None:
        self.observe(self.core.on_message(message, self.now))

    @precondition(lambda self: self.submitted)
    @rule(data=st.data(), kind=st.sampled_from(["answer", "reject", "running"]))
    def settle(self, data: st.DataObject, kind: str) -> None:
        one = data.draw(st.sampled_from(self.submitted))
        match kind:
            case "answer":
                self.observe(self.core.on_message(answer(one), self.now))
            case "reject":
                self.observe(self.core.on_message(Reject(one.id, 1, 1, in_bytes=False), self.now))
            case _:
                self.observe(
                    self.core.on_message(
                        Waited(one.id, data.draw(st.integers(0, 5000)), data.draw(st.booleans())), self.now
                    )
                )

    @precondition(lambda self: self.submitted)
    @rule(data=st.data(), kill=st.booleans())
    def cancel(self, data: st.DataObject, *, kill: bool) -> None:
        one = data.draw(st.sampled_from(self.submitted))
        if one.id not in self.ended:
            self.cancelled.add(one.id)
            self.observe(self.core.on_withdraw(one.id, kill=kill))

    @rule()
    def ask_stats(self) -> None:
        self.observe(self.core.on_ask_stats(self.now))

    @rule(passed_s=st.sampled_from([0.0, 0.1, 0.25, 1.0, 2.0, 10.0]))
    def time_passes(self, passed_s: float) -> None:
        self.now += passed_s
        self.observe(self.core.on_tick(self.now))
        assert self.core.next_check() > self.now, "the thread would spin"

    @rule()
    def pause(self) -> None:
        self.core.on_pause(self.now)

    @invariant()
    def all_is_accounted_for(self) -> None:
        unresolved = [one.id for one in self.submitted if one.id not in self.ended | self.cancelled]
        assert list(self.core.window.tasks) == unresolved
        sent = [one for one in self.core.window.tasks.values() if one.is_sent]
        assert self.core.window.units == sum(one.units for one in sent)
        assert self.core.window.units <= WINDOW_UNITS or len(sent) == 1
        assert self.core.window.sent == len(sent)
        assert [task_id for task_id in self.in_session if task_id in self.core.window.tasks] == [one.id for one in sent]
        held = [task_id for task_id in self.core.window.held if task_id in self.core.window.tasks]
        assert sorted([*held, *(one.id for one in sent)]) == sorted(unresolved)

    @invariant()
    def every_unresolved_task_is_looked_at_in_time(self) -> None:
        for one in self.core.window.tasks.values():
            assert self.core._check_at <= max(one.check_at, self.core._rests_until)
            assert one.check_at < inf

    def teardown(self) -> None:
        """Without a broker all tasks end by themselves."""
        self.observe(self.core.on_message(Who(), self.now))
        for _ in range(40):
            self.now += 5.0
            self.observe(self.core.on_tick(self.now))
        assert self.core.window.tasks == {}


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = hypothesis_settings(max_examples=60, stateful_step_count=40, deadline=None)
