from collections import deque
from itertools import count
from math import inf

import pytest

from racepool.protocol.messages import (
    Assign,
    Bye,
    Epoch,
    Id,
    Name,
    Outcome,
    Ready,
    Recall,
    Recycle,
    Result,
    Returned,
    Welcome,
    Who,
)
from racepool.worker.core import Execute, Exit, Identity, OpenSession, Report, Send, WorkerCore

ME = Identity(Name("worker-0"), 7, Name("1.0"), 1000)
EPOCH = Epoch(b"epoch--1")
LATER_EPOCH = Epoch(b"epoch--2")
LIVENESS_S = 2.0


def session_id(number: int) -> Id:
    return Id(bytes([number]) * 16)


def opened(number: int) -> OpenSession:
    return OpenSession(Ready(session_id(number), number, ME.name, ME.pid, ME.version, ME.started_at_ms))


def task(number: int = 1, *, epoch: Epoch = EPOCH, lease: int = 5) -> Assign:
    return Assign(epoch, lease, Id(bytes([100 + number]) * 16), 1, 30_000, False, b"payload")


def result(of: Assign, outcome: Outcome = Outcome.OK, *, recycle: bool = False) -> Send:
    return Send(Result(of.epoch, of.lease, of.task_id, outcome, recycle, b"result"))


def make_core(max_tasks: int = 0) -> WorkerCore:
    """Started at 0 with session 1, not welcome yet."""
    numbers = count()  # session 0 is the one before the start
    core = WorkerCore(ME, lambda: session_id(next(numbers)), liveness_s=LIVENESS_S, max_tasks=max_tasks)
    core.start(0.0)
    return core


@pytest.fixture
def core() -> WorkerCore:
    return make_core()


@pytest.fixture
def idle() -> WorkerCore:
    core = make_core()
    core.on_message(Welcome(EPOCH, 1000, 2000), 0.0)
    return core


@pytest.fixture
def busy(idle: WorkerCore) -> WorkerCore:
    idle.on_message(task(), 1.0)
    idle.begin()
    return idle


@pytest.fixture
def loaded(busy: WorkerCore) -> WorkerCore:
    """Busy with task 1, with task 2 in hand."""
    busy.on_message(task(2, lease=6), 1.1)
    return busy


def test_first_action_is_a_session() -> None:
    core = WorkerCore(ME, lambda: session_id(1), liveness_s=LIVENESS_S, max_tasks=0)

    assert core.start(0.0) == [opened(1)]
    assert core.session.epoch is None


def test_unanswered_ready_is_repeated_as_a_new_session(core: WorkerCore) -> None:
    assert core.next_check() == LIVENESS_S
    assert core.on_tick(LIVENESS_S - 0.001) == []

    assert core.on_tick(LIVENESS_S) == [opened(2)]
    assert core.on_tick(2 * LIVENESS_S) == [opened(3)]


def test_welcome_confirms_the_session(core: WorkerCore) -> None:
    assert core.on_message(Welcome(EPOCH, 1000, 2000), 0.1) == [Report("broker_found")]

    assert (core.session.id, core.session.epoch) == (session_id(1), EPOCH)
    assert core.next_check() == inf
    assert core.on_tick(1000.0) == []


def test_task_is_executed_and_its_result_sent_under_its_lease(idle: WorkerCore) -> None:
    idle.on_message(task(), 1.0)

    assert idle.begin() == [Execute(task())]
    assert idle.on_finished(Outcome.RAISED, b"result", 2.0) == [result(task(), Outcome.RAISED)]
    assert idle.task is None
    assert idle.tasks_done == 1


def test_task_of_another_epoch_is_ignored(idle: WorkerCore) -> None:
    assert idle.on_message(task(epoch=LATER_EPOCH), 1.0) == []
    assert idle.begin() == []
    assert not idle.is_busy


def test_task_before_the_welcome_is_ignored(core: WorkerCore) -> None:
    assert core.on_message(task(), 1.0) == []
    assert core.begin() == []


def test_second_task_waits_in_hand_for_the_end_of_the_first(busy: WorkerCore) -> None:
    second = task(2, lease=6)

    assert busy.on_message(second, 1.0) == []
    assert busy.begin() == []
    assert busy.on_finished(Outcome.OK, b"result", 2.0) == [result(task(1))]
    assert busy.is_busy, "it holds the next one"
    assert busy.begin() == [Execute(second)]
    assert busy.on_finished(Outcome.OK, b"result", 3.0) == [result(second)]
    assert not busy.is_busy


def test_worker_that_begins_the_task_in_its_hand_is_busy_at_every_moment(idle: WorkerCore) -> None:
    """The heartbeat thread may ask between two steps of `begin`, and `begin` may run between two steps of asking."""

    class Hand(deque[Assign]):
        def popleft(self) -> Assign:
            task = super().popleft()
            assert idle.is_busy, "asked just after the hand is empty"
            return task

    class HandThatEmptiesWhenAsked(deque[Assign]):
        def __len__(self) -> int:
            if idle.task is None and super().__len__():
                idle.task = self[0]
                self.clear()
            return super().__len__()

    idle._hand = Hand([task()])
    assert idle.begin() == [Execute(task())]
    idle.on_finished(Outcome.OK, b"result", 2.0)

    idle._hand = HandThatEmptiesWhenAsked([task()])
    assert idle.is_busy, "begun while it is asked"


def test_third_task_changes_nothing(loaded: WorkerCore) -> None:
    assert loaded.on_message(task(3, lease=7), 1.2) == []

    loaded.on_finished(Outcome.OK, b"result", 2.0)
    loaded.begin()
    loaded.on_finished(Outcome.OK, b"result", 3.0)
    assert loaded.begin() == []


def test_next_two_tasks_may_come_before_the_first_of_them_is_begun(loaded: WorkerCore) -> None:
    loaded.on_finished(Outcome.OK, b"result", 2.0)
    loaded.on_message(task(3, lease=7), 2.1)

    assert loaded.begin() == [Execute(task(2, lease=6))]
    loaded.on_finished(Outcome.OK, b"result", 3.0)
    assert loaded.begin() == [Execute(task(3, lease=7))]


def test_recalled_task_is_given_back_and_never_begun(loaded: WorkerCore) -> None:
    loaded.on_finished(Outcome.OK, b"result", 2.0)

    assert loaded.on_message(Recall(6), 2.1) == [Send(Returned(EPOCH, 6))]
    assert loaded.begin() == []
    assert not loaded.is_busy


@pytest.mark.parametrize("lease", [5, 7], ids=["begun", "unknown"])
def test_recall_of_what_is_not_in_hand_is_not_answered(loaded: WorkerCore, lease: int) -> None:
    assert loaded.on_message(Recall(lease), 1.2) == []

    assert loaded.on_finished(Outcome.OK, b"result", 2.0) == [result(task(1))]
    assert loaded.begin() == [Execute(task(2, lease=6))]


def test_hand_is_dropped_with_the_session(loaded: WorkerCore) -> None:
    loaded.on_session_lost(session_id(1), 2.0)
    loaded.on_message(task(3, lease=7), 2.1)

    assert loaded.on_finished(Outcome.OK, b"result", 3.0) == [Report("session_lost"), opened(2)]
    assert loaded.begin() == []
    assert not loaded.is_busy


def test_session_that_ends_between_two_tasks_is_replaced_at_once(loaded: WorkerCore) -> None:
    loaded.on_finished(Outcome.OK, b"result", 2.0)

    assert loaded.on_message(Who(), 2.1) == [Report("session_lost"), opened(2)]
    assert loaded.begin() == []


def test_leaving_worker_finishes_what_it_runs_and_nothing_more(loaded: WorkerCore) -> None:
    assert loaded.on_terminate() == [Report("worker_draining")]
    loaded.on_message(task(3, lease=7), 1.2)

    assert loaded.on_finished(Outcome.OK, b"result", 2.0) == [result(task(1)), Send(Bye()), Exit()]
    assert loaded.begin() == []


def test_worker_that_is_asked_to_end_between_two_tasks_leaves_at_once(loaded: WorkerCore) -> None:
    loaded.on_finished(Outcome.OK, b"result", 2.0)

    assert loaded.on_terminate() == [Send(Bye()), Exit()]
    assert loaded.begin() == []


def test_finish_without_a_task_sends_nothing(idle: WorkerCore) -> None:
    assert idle.on_finished(Outcome.OK, b"result", 1.0) == []
    assert idle.tasks_done == 0


@pytest.mark.parametrize("by_heartbeat", [False, True])
def test_idle_worker_opens_a_new_session_when_its_own_is_lost(idle: WorkerCore, *, by_heartbeat: bool) -> None:
    actions = idle.on_session_lost(session_id(1), 5.0) if by_heartbeat else idle.on_message(Who(), 5.0)

    assert actions == [Report("session_lost"), opened(2)]
    assert idle.session.epoch is None
    assert idle.next_check() == 5.0 + LIVENESS_S


def test_loss_of_an_earlier_session_changes_nothing(idle: WorkerCore) -> None:
    idle.on_message(Who(), 5.0)

    assert idle.on_session_lost(session_id(1), 5.1) == []
    assert idle.session.id == session_id(2)


def test_busy_worker_finishes_first_and_drops_its_stale_result(busy: WorkerCore) -> None:
    assert busy.on_session_lost(session_id(1), 2.0) == []
    assert busy.session.id == session_id(1), "heartbeats go on in the old session"

    assert busy.on_finished(Outcome.OK, b"result", 3.0) == [Report("session_lost"), opened(2)]
    assert busy.task is None
    busy.on_message(Welcome(LATER_EPOCH, 1000, 2000), 3.1)
    later = task(2, epoch=LATER_EPOCH)
    busy.on_message(later, 3.2)
    assert busy.begin() == [Execute(later)]
    assert busy.on_finished(Outcome.OK, b"result", 4.0) == [result(later)]


def test_broker_that_says_farewell_is_waited_for(idle: WorkerCore) -> None:
    assert idle.on_message(Bye(), 1.0) == []


def test_idle_worker_leaves_at_once(idle: WorkerCore) -> None:
    assert idle.on_terminate() == [Send(Bye()), Exit()]


def test_worker_without_a_broker_leaves_at_once(core: WorkerCore) -> None:
    assert core.on_terminate() == [Send(Bye()), Exit()]


def test_busy_worker_replies_before_it_leaves(busy: WorkerCore) -> None:
    assert busy.on_terminate() == [Report("worker_draining")]

    assert busy.on_finished(Outcome.OK, b"result", 2.0) == [result(task()), Send(Bye()), Exit()]


def test_worker_asked_twice_leaves_once_it_is_done(busy: WorkerCore) -> None:
    busy.on_terminate()
    busy.on_terminate()

    assert busy.on_finished(Outcome.OK, b"result", 2.0) == [result(task()), Send(Bye()), Exit()]


def test_leaving_worker_without_a_session_drops_its_result(busy: WorkerCore) -> None:
    busy.on_session_lost(session_id(1), 2.0)
    busy.on_terminate()

    assert busy.on_finished(Outcome.OK, b"result", 3.0) == [Send(Bye()), Exit()]


def test_leaving_worker_opens_no_session(idle: WorkerCore) -> None:
    idle.on_terminate()

    assert idle.on_session_lost(session_id(1), 2.0) == []


def test_worker_asks_to_be_recycled_after_its_tasks_and_works_on() -> None:
    core = make_core(max_tasks=2)
    core.on_message(Welcome(EPOCH, 1000, 2000), 0.0)
    answers = []
    for number in (1, 2, 3):
        core.on_message(task(number), float(number))
        core.begin()
        answers.append(core.on_finished(Outcome.OK, b"result", number + 0.1))

    assert answers == [[result(task(1))], [result(task(2), recycle=True)], [result(task(3), recycle=True)]]


def test_worker_that_grew_too_large_asks_to_be_recycled(busy: WorkerCore) -> None:
    assert busy.on_finished(Outcome.OK, b"result", 2.0, wants_recycling=True) == [result(task(), recycle=True)]


def test_worker_ends_when_the_broker_recycles_it(idle: WorkerCore) -> None:
    assert idle.on_message(Recycle(), 2.0) == [Send(Bye()), Exit()]


def test_busy_worker_that_is_to_be_recycled_replies_first(busy: WorkerCore) -> None:
    assert busy.on_message(Recycle(), 2.0) == [Report("worker_draining")]

    assert busy.on_finished(Outcome.OK, b"result", 3.0) == [result(task()), Send(Bye()), Exit()]
