"""After timeouts and cancellations the pool is whole, nothing is queued, and every task is counted once."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from racepool import PoolFuture, TaskTimeoutError, TransformError, WorkerCrashedError
from racepool.protocol.stats import Counters
from tests.running import RACEPOOL, Blocked, Race, Running, WaitUntil, broker_held_back, frozen, state_of

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("at_rest")]

LIVENESS_S = 2.0
ATTEMPTS = 3
SLACK_S = 1.5  # for a busy machine; small enough to tell right from wrong in each test


@contextmanager
def broker_stopped(running: Running) -> Iterator[None]:
    """Stops a worker as an operator does."""
    command = [str(RACEPOOL.with_name("supervisorctl")), "-c", f"{running.dir}/supervisord.conf"]
    subprocess.run([*command, "stop", "broker"], check=True, capture_output=True, timeout=20)
    try:
        yield
    finally:
        subprocess.run([*command, "start", "broker"], check=True, capture_output=True, timeout=20)


# --- while queued -----------------------------------------------------------------------------------------------------


def test_queue_timeout_while_all_workers_are_busy(scripted: Running, race: Race, blocked: Blocked) -> None:
    before, pids = scripted.stats().counters, scripted.pids()

    with blocked(scripted):
        submitted_at = time.monotonic()
        future = scripted.exec(race("echo", "late"), queue_timeout_s=1.0)
        with pytest.raises(TaskTimeoutError, match=r"race late.* 1 s while queued \(no worker was free\)") as caught:
            future.result(10)
        assert 1.0 <= time.monotonic() - submitted_at < 8.0
        stats = scripted.stats()
        assert (stats.queue_depth, stats.in_flight) == (0, 3)

    assert (caught.value.state, caught.value.timeout_s) == ("queued", 1.0)
    assert _gained(scripted, before) == {"submitted": 4, "completed": 3, "timed_out": 1}
    assert scripted.pids() == pids


def test_queue_timeout_without_a_broker(scripted: Running, race: Race, wait_until: WaitUntil) -> None:
    with broker_stopped(scripted):
        submitted_at = time.monotonic()
        future = scripted.exec(race("echo", "late"), queue_timeout_s=1.0)
        with pytest.raises(TaskTimeoutError, match=r"race late.* 1 s while queued \(no broker for \d") as caught:
            future.result(10)
        assert 1.0 <= time.monotonic() - submitted_at < 8.0

    assert caught.value.state == "queued"
    wait_until(scripted.is_at_rest, 15)
    assert _counts(scripted.stats().counters) == {}


def test_waiting_for_brokers_and_workers_is_one_account(
    scripted: Running, race: Race, blocked: Blocked, wait_until: WaitUntil
) -> None:
    with blocked(scripted):
        submitted_at = time.monotonic()
        future = scripted.exec(race("echo", "late"), queue_timeout_s=8.0)
        wait_until(lambda: time.monotonic() >= submitted_at + 1.0)
        with broker_held_back(scripted):
            wait_until(lambda: time.monotonic() >= submitted_at + 3.0)
        with pytest.raises(TaskTimeoutError, match="no worker was free"):
            future.result(15)
        assert (
            8.0 <= time.monotonic() - submitted_at < 10.9
        )  # a timeout that began again with the new broker would end later
        wait_until(lambda: scripted.stats().queue_depth == 3)  # tasks that run in workers of before

    assert scripted.stats().counters.timed_out == 1


def test_queue_timeout_counts_the_waiting_of_all_attempts_and_no_running(
    scripted: Running, race: Race, blocked: Blocked, tmp_path: Path, wait_until: WaitUntil
) -> None:
    before = scripted.stats().counters
    other = tmp_path / "other"

    with blocked(scripted, workers=2):
        with blocked(scripted, workers=1, gate=other):
            submitted_at = time.monotonic()
            future = scripted.exec(race("wait-for:/nowhere", "long"), queue_timeout_s=6.0)
            wait_until(lambda: time.monotonic() >= submitted_at + 3.0)
        wait_until(lambda: scripted.stats().in_flight == 3)
        running_since = time.monotonic()
        waited_s = running_since - submitted_at
        wait_until(lambda: time.monotonic() >= running_since + 4.5)
        assert not future.done()  # it ran longer than it may wait: the queue timeout does not count running time

        with frozen(scripted.supervisord_pid):  # so that its worker is not replaced
            os.kill(scripted.holder(future.task_id).pid, signal.SIGKILL)
            killed_at = time.monotonic()
            with pytest.raises(TaskTimeoutError, match="6 s while queued"):
                future.result(10)
            rest_s = time.monotonic() - killed_at
        assert 6.0 - waited_s - 0.3 <= rest_s < 5.7  # 6 s are left if it began again, none if running time counts

    assert _gained(scripted, before) == {
        "submitted": 4, "completed": 3, "timed_out": 1, "requeued": 1, "worker_crashes": 1
    }  # fmt: skip


# --- while running ----------------------------------------------------------------------------------------------------


def test_run_timeout_kills_the_one_process_that_holds_its_interpreter(
    scripted: Running, race: Race, blocked: Blocked, wait_until: WaitUntil
) -> None:
    before, pids = scripted.stats().counters, scripted.pids()

    with blocked(scripted, workers=2):
        hung = scripted.exec(race("hold-gil", "hung"), run_timeout_s=1.0)
        wait_until(lambda: scripted.stats().in_flight == 3)
        victim = scripted.holder(hung.task_id)
        with pytest.raises(TaskTimeoutError, match=r"race hung.* 1 s while running"):
            hung.result(10)
        wait_until(lambda: not state_of(victim.pid))
        wait_until(lambda: scripted.stats().total_workers == 3)
        new = scripted.pids()

    assert {name for name in pids if new[name] != pids[name]} == {victim.name}
    lost = scripted.logged("worker_lost", task_id=hung.task_id)
    assert (lost["reason"], lost["pid"]) == ("run_timeout", victim.pid)
    assert 1000 <= lost["duration_ms"] < 10_000
    assert _gained(scripted, before) == {"submitted": 3, "completed": 2, "timed_out": 1, "worker_crashes": 1}


def test_hung_worker_ends_itself_while_the_broker_stands_still(
    scripted: Running, race: Race, wait_until: WaitUntil
) -> None:
    before = scripted.stats()
    started_at = time.monotonic()
    hung = scripted.exec(race("hold-gil", "hung"), run_timeout_s=3.0)
    wait_until(lambda: scripted.stats().in_flight == 1)
    victim = scripted.holder(hung.task_id)

    with frozen(before.broker.pid):
        wait_until(lambda: not state_of(victim.pid))
        ended_after_s = time.monotonic() - started_at

    assert ended_after_s > 3.0 + LIVENESS_S - 0.5
    log = scripted.dir / "log" / "supervisord.log"
    wait_until(lambda: f"exited: {victim.name} (terminated by SIGALRM" in log.read_text())
    with pytest.raises(TaskTimeoutError, match="while running"):
        hung.result(15)
    wait_until(scripted.is_at_rest)
    gained = _gained(scripted, before.counters)  # submitted again if the client's new session came after the timeout
    assert gained["submitted"] == gained["timed_out"] == gained["worker_crashes"]
    assert "requeued" not in gained


# --- cancelled --------------------------------------------------------------------------------------------------------


def test_cancelled_tasks_leave_no_trace_but_a_count(
    scripted: Running, race: Race, blocked: Blocked, gate: Path, wait_until: WaitUntil
) -> None:
    before, pids = scripted.stats().counters, scripted.pids()
    order = gate.with_name("order")

    with blocked(scripted, workers=2):
        running = scripted.exec(race(f"wait-for:{gate}", "running"))
        wait_until(lambda: scripted.stats().in_flight == 3)
        queued = [scripted.exec(race(f"log-to:{order}", f"queued-{index}")) for index in range(3)]
        wait_until(lambda: scripted.stats().queue_depth == 3)
        assert [queued[1].cancel(), running.cancel(), queued[1].cancel()] == [True, True, True]
        wait_until(lambda: scripted.stats().queue_depth == 2)
        assert scripted.stats().in_flight == 3  # a running transform is left alone

    assert [queued[index].result(10)["id"] for index in (0, 2)] == ["queued-0", "queued-2"]
    assert sorted(order.read_text().split()) == ["queued-0", "queued-2"]
    with pytest.raises(CancelledError):
        running.result(0)
    wait_until(scripted.is_at_rest)
    assert _gained(scripted, before) == {"submitted": 6, "completed": 4, "cancelled": 2}
    assert scripted.pids() == pids


def test_cancel_with_kill_ends_a_process_that_holds_its_interpreter(
    scripted: Running, race: Race, wait_until: WaitUntil
) -> None:
    before, pids = scripted.stats().counters, scripted.pids()
    hung = scripted.exec(race("hold-gil", "hung"))
    wait_until(lambda: scripted.stats().in_flight == 1)
    victim = scripted.holder(hung.task_id)

    assert hung.cancel(kill=True)

    wait_until(lambda: not state_of(victim.pid))  # the run timeout is half a minute
    wait_until(scripted.is_at_rest)
    new = scripted.pids()
    assert {name for name in pids if new[name] != pids[name]} == {victim.name}
    assert _gained(scripted, before) == {"submitted": 1, "cancelled": 1, "worker_crashes": 1}


# --- in an event loop -------------------------------------------------------------------------------------------------


def test_cancelling_an_awaiting_task_takes_back_what_is_queued_and_discards_what_runs(
    scripted: Running, race: Race, blocked: Blocked, gate: Path, wait_until: WaitUntil
) -> None:
    before = scripted.stats().counters

    async def main() -> None:
        running = asyncio.ensure_future(_awaited(scripted.exec(race(f"wait-for:{gate}", "running"))))
        await _until(scripted, in_flight=3)
        queued = asyncio.ensure_future(_awaited(scripted.exec(race("echo", "queued"))))
        await _until(scripted, queue_depth=1)
        queued.cancel()
        running.cancel()
        ends = await asyncio.gather(queued, running, return_exceptions=True)
        assert [type(end) for end in ends] == [asyncio.CancelledError] * 2
        await _until(scripted, queue_depth=0, in_flight=3)

    with blocked(scripted, workers=2):
        asyncio.run(main())

    wait_until(scripted.is_at_rest)
    assert _gained(scripted, before) == {"submitted": 4, "completed": 2, "cancelled": 2}


def test_wait_for_takes_the_task_back(
    scripted: Running, race: Race, blocked: Blocked, gate: Path, wait_until: WaitUntil
) -> None:
    before = scripted.stats().counters

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(scripted.exec(race("echo", "waited for")), 0.3)
        await _until(scripted, queue_depth=0)
        shielded = scripted.exec(race("echo", "shielded"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(shielded), 0.3)
        await asyncio.to_thread(gate.touch)
        assert (await shielded)["id"] == "shielded"

    with blocked(scripted):
        asyncio.run(main())

    wait_until(scripted.is_at_rest)
    assert _gained(scripted, before) == {"submitted": 5, "completed": 4, "cancelled": 1}


def test_gather_of_one_that_is_cancelled_and_one_that_fails(
    scripted: Running, race: Race, blocked: Blocked, gate: Path
) -> None:
    before = scripted.stats().counters

    async def main() -> list[Any]:
        futures = [scripted.exec(race(name, name)) for name in ("echo", "sleep:0.01", "raise", "sleep:0.02")]
        await _until(scripted, queue_depth=4)
        futures[1].cancel()
        await _until(scripted, queue_depth=3)
        await asyncio.to_thread(gate.touch)
        return await asyncio.gather(*futures, return_exceptions=True)

    with blocked(scripted):
        first, cancelled, failed, last = asyncio.run(main())

    assert (first["id"], last["id"]) == ("echo", "sleep:0.02")
    assert (type(cancelled), type(failed)) == (asyncio.CancelledError, TransformError)
    assert _gained(scripted, before) == {"submitted": 7, "completed": 5, "cancelled": 1, "failed": 1}


def test_gather_that_fails_leaves_the_others_at_work(scripted: Running, race: Race, wait_until: WaitUntil) -> None:
    before = scripted.stats().counters

    async def main() -> None:
        slow = [scripted.exec(race("sleep:0.3", f"slow-{index}")) for index in range(4)]
        with pytest.raises(TransformError, match="RuntimeError"):
            await asyncio.gather(*slow, scripted.exec(race("raise")))
        assert [(await future)["id"] for future in slow] == [f"slow-{index}" for index in range(4)]

    asyncio.run(main())

    wait_until(scripted.is_at_rest)
    assert _gained(scripted, before) == {"submitted": 5, "completed": 4, "failed": 1}


def test_task_group_with_one_that_fails_takes_the_others_back(
    scripted: Running, race: Race, blocked: Blocked, gate: Path, wait_until: WaitUntil
) -> None:
    before, pids = scripted.stats().counters, scripted.pids()

    async def family(children: list[asyncio.Task[Any]]) -> None:
        async with asyncio.TaskGroup() as group:
            children.append(group.create_task(_awaited(scripted.exec(race(f"wait-for:{gate}", "running")))))
            await _until(scripted, in_flight=3)
            children += [group.create_task(_awaited(scripted.exec(race("echo")))) for _ in range(5)]
            await _until(scripted, queue_depth=5)
            group.create_task(_awaited(scripted.exec(race("echo", "failing"), queue_timeout_s=0.5)))

    async def main() -> None:
        children: list[asyncio.Task[Any]] = []
        with pytest.raises(ExceptionGroup) as caught:
            await family(children)
        assert [type(error) for error in caught.value.exceptions] == [TaskTimeoutError]
        assert [child.cancelled() for child in children] == [True] * 6
        await _until(scripted, queue_depth=0, in_flight=3)

    with blocked(scripted, workers=2):
        asyncio.run(main())

    wait_until(scripted.is_at_rest)
    assert _gained(scripted, before) == {"submitted": 9, "completed": 2, "cancelled": 6, "timed_out": 1}
    assert scripted.pids() == pids


# --- the bound --------------------------------------------------------------------------------------------------------


def test_task_that_kills_every_worker_resolves_within_the_bound(
    scripted: Running, race: Race, wait_until: WaitUntil
) -> None:
    detection_s = 0.5

    submitted_at = time.monotonic()
    poison = scripted.exec(race("kill", "poison"), queue_timeout_s=5.0, run_timeout_s=2.0)

    with pytest.raises(WorkerCrashedError, match="3 attempts"):
        poison.result(30)
    assert time.monotonic() - submitted_at < 5.0 + ATTEMPTS * (2.0 + detection_s)
    wait_until(scripted.is_at_rest, 15)


@pytest.mark.parametrize(
    ("run_timeout_s", "error"), [(1.0, TaskTimeoutError), (30.0, WorkerCrashedError)], ids=["run timeout", "silence"]
)
def test_task_that_freezes_every_worker_resolves_within_the_bound(
    scripted: Running, race: Race, wait_until: WaitUntil, run_timeout_s: float, error: type[Exception]
) -> None:
    pids = scripted.pids()
    in_hand_s = min(run_timeout_s, LIVENESS_S)  # for a worker that is frozen at once

    submitted_at = time.monotonic()
    freezing = scripted.exec(race("freeze", "freezing"), queue_timeout_s=5.0, run_timeout_s=run_timeout_s)
    try:
        with pytest.raises(error):
            freezing.result(60)
        assert time.monotonic() - submitted_at < 5.0 + ATTEMPTS * (in_hand_s + SLACK_S)
    finally:
        for pid in pids.values():
            if state_of(pid) == "T":
                os.kill(pid, signal.SIGCONT)
    wait_until(scripted.is_at_rest, 15)


async def _awaited(future: PoolFuture[Any]) -> Any:  # noqa: ANN401
    return await future


async def _until(running: Running, **figures: int) -> None:
    """Like wait_until, in an event loop; the loop's other tasks run before it returns."""
    async with asyncio.timeout(5):
        while True:
            await asyncio.sleep(0.01)
            stats = await running.pool.stats_async()  # let the other tasks run even if the condition holds already
            if all(getattr(stats, name) == value for name, value in figures.items()):
                return


def _counts(counters: Counters) -> dict[str, int]:
    """The counters that are not 0."""
    return {name: count for name, count in counters.model_dump().items() if count}


def _gained(running: Running, before: Counters) -> dict[str, int]:
    """The increase of each counter since then, without zeros."""
    after = running.stats().counters.model_dump()
    return {name: after[name] - count for name, count in before.model_dump().items() if after[name] != count}
