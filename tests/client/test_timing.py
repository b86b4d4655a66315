"""What a future tells of its task's cost, for each way in which it can end."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from racepool import PoolFuture, TaskTimeoutError, TaskTiming, ZmqPool
from racepool.client.actions import Action, Fail
from racepool.client.answers import timing_of
from racepool.client.core import ClientCore, Identity, Limits
from racepool.client.task import ClientTask
from racepool.protocol.errors import BacklogFullError, BrokerUnavailableError, PoolClosedError, PoolError
from racepool.protocol.messages import (
    MAX_INT,
    Answer,
    Epoch,
    Id,
    Outcome,
    Reject,
    Submit,
    Waited,
    Welcome,
    Who,
)
from racepool.protocol.parcel import Parcel
from racepool.races.payloads import pack_result
from tests.client.fake_broker import WORKER, FakeBroker, answer, nothing

BOUND_S = 15.0
COST = TaskTiming(queued_ms=1.5, run_ms=2.25, attempts=1, worker=WORKER)
ONE = Id(b"task-one" * 2)
Race = Callable[..., dict[str, Any]]
WaitUntil = Callable[..., None]
MakePool = Callable[..., ZmqPool]


# --- what an answer tells ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [each for each in Outcome if each is not Outcome.UNREADABLE])
def test_future_tells_what_its_task_cost_whether_it_succeeded_or_failed(
    broker: FakeBroker, pool: ZmqPool, race: Race, outcome: Outcome
) -> None:
    broker.on_submit = lambda task: [answer(task.task_id, outcome, pack_result("r1") if outcome is Outcome.OK else b"")]

    future: PoolFuture[Any] = pool.exec(race())

    assert isinstance(future.exception(BOUND_S), PoolError) == (outcome is not Outcome.OK)
    assert future.timing == COST


def test_attempts_and_the_last_worker_are_those_of_the_answer() -> None:
    retried = Answer(ONE, Outcome.OK, 2, 51_250, 3_000, WORKER, b"")
    never_run = Answer(ONE, Outcome.QUEUE_TIMEOUT, 0, 8_000_000, 0, None, b"")
    endless = Answer(ONE, Outcome.OK, MAX_INT, MAX_INT, MAX_INT, WORKER, b"")

    assert timing_of(retried) == TaskTiming(queued_ms=51.25, run_ms=3.0, attempts=2, worker="worker-1")
    assert timing_of(never_run) == TaskTiming(queued_ms=8000.0, run_ms=0.0, attempts=0, worker=None)
    assert timing_of(endless).queued_ms == MAX_INT / 1000


def test_timing_is_there_for_callbacks_and_awaiting_tasks_and_not_before(
    broker: FakeBroker, pool: ZmqPool, race: Race, wait_until: WaitUntil
) -> None:
    broker.on_submit = nothing
    seen: list[TaskTiming | None] = []

    async def poll() -> TaskTiming | None:
        future: PoolFuture[Any] = pool.exec(race())
        future.add_done_callback(lambda _: seen.append(future.timing))
        await asyncio.to_thread(wait_until, lambda: broker.of(Submit))
        seen.append(future.timing)
        broker.say(answer(broker.of(Submit)[0].task_id, Outcome.OK, pack_result("r1")))
        await future
        return future.timing

    assert asyncio.run(poll()) == COST
    wait_until(lambda: len(seen) == 2)
    assert seen == [None, COST]


@pytest.mark.usefixtures("broker")
def test_iteration_yields_futures_that_tell_it(pool: ZmqPool, race: Race) -> None:
    assert [future.timing for _, future in pool.as_completed([race(), race()])] == [COST, COST]


# --- without an answer ------------------------------------------------------------------------------------------------


@pytest.fixture
def up() -> ClientCore:
    """Welcome since 0."""
    core = ClientCore(Identity(Id(b"c" * 16), 7), "ipc:///x/frontend.ipc", Limits(0.25, 2.0, 30.0))
    core.start(0.0)
    core.on_message(Welcome(Epoch(b"epoch--1"), 1 << 20, 2000), 0.0)
    return core


def submitted(core: ClientCore, queue_timeout_s: float = 60.0) -> None:
    core.on_submit(ClientTask(ONE, Parcel(b"", b"race"), 30_000, queue_timeout_s, 0.0, 0.0), 0.0)


def failure(actions: list[Action]) -> tuple[type[PoolError], TaskTiming | None]:
    (failed,) = [action for action in actions if isinstance(action, Fail)]
    return type(failed.error("task t")), failed.timing


def waited(queued_ms: float) -> TaskTiming:
    return TaskTiming(queued_ms, run_ms=0.0, attempts=0, worker=None)


def test_refused_task_tells_how_long_it_waited(up: ClientCore) -> None:
    submitted(up)

    actions = up.on_message(Reject(ONE, 9, 8, in_bytes=False), 0.125)

    assert failure(actions) == (BacklogFullError, waited(125.0))


def test_task_that_waited_for_a_broker_too_long_tells_so_and_leaves_out_what_it_ran(up: ClientCore) -> None:
    submitted(up, queue_timeout_s=5.0)
    up.on_message(Waited(ONE, 1000, queued=False), 1.5)
    up.on_message(Who(), 4.0)

    assert [action for action in up.on_tick(7.9) if isinstance(action, Fail)] == []
    assert failure(up.on_tick(8.0)) == (TaskTimeoutError, waited(5000.0))


def test_task_that_reached_no_broker_has_no_timing() -> None:
    core = ClientCore(Identity(Id(b"c" * 16), 7), "ipc:///x/frontend.ipc", Limits(0.25, 2.0, 30.0))
    core.start(0.0)
    submitted(core)

    assert failure(core.on_tick(30.0)) == (BrokerUnavailableError, None)


def test_broker_of_another_version_leaves_no_timing(up: ClientCore) -> None:
    submitted(up)

    assert failure(up.on_foreign_version(5))[1] is None


def test_cancelled_task_has_no_timing_also_if_its_answer_comes(
    broker: FakeBroker, pool: ZmqPool, race: Race, wait_until: WaitUntil
) -> None:
    broker.on_submit = nothing
    future: PoolFuture[Any] = pool.exec(race())
    wait_until(lambda: broker.of(Submit))

    future.cancel()
    broker.say(answer(broker.of(Submit)[0].task_id, Outcome.OK, pack_result("late")))
    broker.on_submit = lambda task: [answer(task.task_id, Outcome.OK, pack_result("r2"))]

    assert pool.exec(race()).result(BOUND_S) == "r2"  # type: ignore[comparison-overlap]  # no race comes back here
    assert (future.cancelled(), future.timing) == (True, None)


def test_task_that_its_pool_did_not_outlive_has_no_timing(
    broker: FakeBroker, pool: ZmqPool, race: Race, wait_until: WaitUntil
) -> None:
    broker.on_submit = nothing
    future: PoolFuture[Any] = pool.exec(race())
    wait_until(lambda: broker.of(Submit))

    pool._connected().stop()
    wait_until(future.done)

    assert isinstance(future.exception(0), PoolClosedError)
    assert future.timing is None


def test_future_that_fails_in_a_child_has_no_timing_even_if_the_parent_was_about_to_resolve_it() -> None:
    future: PoolFuture[str] = PoolFuture()
    future.set_running_or_notify_cancel()
    future._timing = COST  # the fork comes here, in the middle of `resolve`

    future.fail_in_child("task 1 (race r1)")

    assert (future.done(), future.timing) == (True, None)


def test_future_that_was_answered_before_the_fork_keeps_its_timing() -> None:
    future: PoolFuture[str] = PoolFuture()
    future.resolve("done", None, COST)

    future.fail_in_child("task 1 (race r1)")

    assert (future.result(), future.timing) == ("done", COST)
