import asyncio
import concurrent.futures
import gc
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest

from racepool.client.future import PoolFuture
from racepool.protocol.errors import PoolForkedError, TransformError

BOUND_S = 15.0
T = TypeVar("T")


class Elsewhere:
    """Another thread that resolves futures, as the pool's does."""

    def __init__(self) -> None:
        self._executor = concurrent.futures.ThreadPoolExecutor(1)

    def resolve(self, *futures: PoolFuture[Any], result: object = "done", error: BaseException | None = None) -> None:
        def work() -> None:
            for future in futures:
                future.resolve(result, error)

        self._executor.submit(work).result(BOUND_S)

    def close(self) -> None:
        self._executor.shutdown()


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    made = Elsewhere()
    yield made
    made.close()


async def result_of(future: PoolFuture[T]) -> T:
    return await future


async def await_in_task(future: PoolFuture[T]) -> "asyncio.Task[T]":
    """Starts a task and returns when it has reached its await."""
    task = asyncio.create_task(result_of(future))
    await asyncio.sleep(0)
    return task


def test_result_comes_to_a_waiting_thread(elsewhere: Elsewhere) -> None:
    future: PoolFuture[str] = PoolFuture()
    with concurrent.futures.ThreadPoolExecutor(1) as caller:
        waiting = caller.submit(future.result, BOUND_S)
        elsewhere.resolve(future)

        assert waiting.result(BOUND_S) == "done"


def test_result_with_a_timeout_raises_and_leaves_the_future_alone() -> None:
    future: PoolFuture[str] = PoolFuture()

    with pytest.raises(TimeoutError):
        future.result(timeout=0.01)
    assert not future.done()


def test_wait_and_as_completed_take_it(elsewhere: Elsewhere) -> None:
    first, second = PoolFuture[str](), PoolFuture[str]()
    elsewhere.resolve(second)

    done, rest = concurrent.futures.wait([first, second], BOUND_S, concurrent.futures.FIRST_COMPLETED)
    assert (done, rest) == ({second}, {first})
    elsewhere.resolve(first)
    assert set(concurrent.futures.as_completed([first, second], BOUND_S)) == {first, second}


def test_asyncio_waits_for_it(elsewhere: Elsewhere) -> None:
    """The loop has nothing else to do, so the callback from the other thread must wake it."""

    async def main() -> None:
        early, first, second = PoolFuture[str](), PoolFuture[str](), PoolFuture[str]()
        elsewhere.resolve(early)
        started_at = time.monotonic()
        timer = threading.Timer(0.1, elsewhere.resolve, (first, second))
        timer.start()
        done, rest = await asyncio.wait([early, first, second], timeout=BOUND_S)  # type: ignore[type-var]  # as a caller may
        assert (done, rest) == ({early, first, second}, set())
        assert time.monotonic() - started_at < BOUND_S / 2
        timer.join()

    asyncio.run(main())


def test_asyncio_waits_for_the_first_and_leaves_no_callback_with_the_others(elsewhere: Elsewhere) -> None:
    async def main() -> None:
        first, second = PoolFuture[str](), PoolFuture[str]()
        await asyncio.to_thread(elsewhere.resolve, first)
        assert await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED) == ({first}, {second})  # type: ignore[type-var]
        assert await asyncio.wait([second], timeout=0.01) == (set(), {second})  # type: ignore[type-var]
        assert second._done_callbacks == []

    asyncio.run(main())


def test_callback_is_taken_back() -> None:
    future, seen = PoolFuture[str](), list[object]()
    future.add_done_callback(seen.append)
    future.add_done_callback(seen.append)

    assert [future.remove_done_callback(seen.append), future.remove_done_callback(seen.append)] == [2, 0]
    future.resolve("done", None)

    assert seen == []


def test_callback_that_ends_the_program_ends_neither_thread_nor_await(
    elsewhere: Elsewhere, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        future: PoolFuture[str] = PoolFuture()
        future.add_done_callback(lambda _: sys.exit("the caller's own bug"))
        task = await await_in_task(future)
        await asyncio.to_thread(elsewhere.resolve, future)
        assert await asyncio.wait_for(task, BOUND_S) == "done"

    asyncio.run(main())
    assert "the caller's own bug" in caplog.text


def test_callback_that_ends_the_program_does_so_in_its_main_thread_when_all_others_were_called() -> None:
    future, seen = PoolFuture[str](), list[object]()
    future.add_done_callback(lambda _: sys.exit(3))
    future.add_done_callback(seen.append)

    with pytest.raises(SystemExit):
        future.cancel()

    assert seen == [future]


def test_error_is_raised_to_thread_and_loop(elsewhere: Elsewhere) -> None:
    future: PoolFuture[str] = PoolFuture()
    error = TransformError("task t", "ValueError", "no", "Traceback")
    elsewhere.resolve(future, error=error)

    with pytest.raises(TransformError) as raised:
        future.result()
    with pytest.raises(TransformError) as awaited:
        asyncio.run(result_of(future))
    assert raised.value is awaited.value is error


def test_wrap_future_takes_it(elsewhere: Elsewhere) -> None:
    async def main() -> str:
        future: PoolFuture[str] = PoolFuture()
        wrapped = asyncio.wrap_future(future)
        elsewhere.resolve(future)
        return await asyncio.wait_for(wrapped, BOUND_S)

    assert asyncio.run(main()) == "done"


def test_it_can_be_awaited_many_times_at_once_and_after(elsewhere: Elsewhere) -> None:
    async def main() -> list[str]:
        future: PoolFuture[str] = PoolFuture()
        tasks = [await await_in_task(future) for _ in range(3)]
        elsewhere.resolve(future)
        return [*await asyncio.wait_for(asyncio.gather(*tasks), BOUND_S), await future, await future]

    assert asyncio.run(main()) == ["done"] * 5


def test_several_loops_await_one_future(elsewhere: Elsewhere) -> None:
    future: PoolFuture[str] = PoolFuture()
    all_wait = threading.Barrier(4)

    async def main() -> str:
        task = await await_in_task(future)
        await asyncio.to_thread(all_wait.wait, BOUND_S)
        return await asyncio.wait_for(task, BOUND_S)

    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        loops = [threads.submit(asyncio.run, main()) for _ in range(3)]
        all_wait.wait(BOUND_S)
        elsewhere.resolve(future)

        assert [loop.result(BOUND_S) for loop in loops] == ["done"] * 3


def test_gather_and_wait_for_and_task_group_take_it(elsewhere: Elsewhere) -> None:
    async def main() -> tuple[tuple[str, str], str, str]:
        one, two, three = PoolFuture[str](), PoolFuture[str](), PoolFuture[str]()
        gathered = asyncio.gather(one, two)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(result_of(three))
            await asyncio.sleep(0)
            elsewhere.resolve(one, two, three)
        return await gathered, await asyncio.wait_for(one, BOUND_S), task.result()

    gathered, waited, task = asyncio.run(main())
    assert (list(gathered), waited, task) == (["done", "done"], "done", "done")


def test_cancelling_the_awaiting_task_cancels_it() -> None:
    withdrawn: list[bool] = []
    future: PoolFuture[str] = PoolFuture(withdrawn.append)

    async def main() -> None:
        task = await await_in_task(future)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert future.cancelled()
    assert withdrawn == [False]


def test_shield_keeps_it(elsewhere: Elsewhere) -> None:
    async def main() -> str:
        future: PoolFuture[str] = PoolFuture()
        shielded = asyncio.shield(future)
        await asyncio.sleep(0)
        shielded.cancel()
        with pytest.raises(asyncio.CancelledError):
            await shielded
        assert not future.cancelled()
        elsewhere.resolve(future)
        return await future

    assert asyncio.run(main()) == "done"


def test_wait_for_cancels_it_when_time_is_up() -> None:
    future: PoolFuture[str] = PoolFuture()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(future, 0.01)

    asyncio.run(main())
    assert future.cancelled()


def test_failing_task_group_cancels_the_rest() -> None:
    future: PoolFuture[str] = PoolFuture()

    async def fail() -> None:
        raise KeyError("another task of the group")

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(result_of(future))
            group.create_task(fail())

    with pytest.raises(ExceptionGroup):
        asyncio.run(main())
    assert future.cancelled()


def test_cancel_withdraws_once_but_a_kill_may_follow() -> None:
    withdrawn: list[bool] = []
    future: PoolFuture[str] = PoolFuture(withdrawn.append)

    assert future.cancel()
    assert future.cancel()
    assert future.cancel(kill=True)
    assert withdrawn == [False, True]


def test_cancel_after_the_answer_is_refused(elsewhere: Elsewhere) -> None:
    withdrawn: list[bool] = []
    future: PoolFuture[str] = PoolFuture(withdrawn.append)
    elsewhere.resolve(future)

    assert not future.cancel(kill=True)
    assert withdrawn == []
    assert future.result() == "done"


def test_answer_after_the_cancellation_changes_nothing(elsewhere: Elsewhere) -> None:
    future: PoolFuture[str] = PoolFuture()
    future.cancel()

    elsewhere.resolve(future)

    assert future.cancelled()
    assert concurrent.futures.wait([future], BOUND_S).done == {future}
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(result_of(future))


def test_cancellation_from_another_thread_reaches_who_awaits(elsewhere: Elsewhere) -> None:
    async def main() -> None:
        future: PoolFuture[str] = PoolFuture()
        task = await await_in_task(future)
        await asyncio.to_thread(future.cancel)
        elsewhere.resolve(future)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, BOUND_S)

    asyncio.run(main())


def test_it_is_not_running_before_its_answer() -> None:
    assert not PoolFuture[str]().running()


def test_closed_loop_harms_nobody_else(elsewhere: Elsewhere, caplog: pytest.LogCaptureFixture) -> None:
    future: PoolFuture[str] = PoolFuture()
    closed = asyncio.new_event_loop()
    task = closed.create_task(result_of(future))
    closed.run_until_complete(asyncio.sleep(0))
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # as the test means it
    closed.close()
    seen: list[str] = []
    future.add_done_callback(lambda done: seen.append(done.result()))

    elsewhere.resolve(future)

    assert seen == ["done"]
    assert asyncio.run(result_of(future)) == "done"
    assert caplog.records == []


def test_closed_loop_is_not_kept(elsewhere: Elsewhere) -> None:
    """A service may make a loop for each job, and its futures may come late."""
    future: PoolFuture[str] = PoolFuture()
    closed = asyncio.new_event_loop()
    task = closed.create_task(result_of(future))
    closed.run_until_complete(asyncio.sleep(0))
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # as the test means it
    closed.close()
    kept = weakref.ref(closed)

    elsewhere.resolve(future)

    del closed, task, future
    gc.collect()
    assert kept() is None


def test_many_completions_wake_the_loop_with_few_calls(elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    async def main() -> list[str]:
        futures: list[PoolFuture[str]] = [PoolFuture() for _ in range(500)]
        gathered = asyncio.gather(*futures)
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        call = loop.call_soon_threadsafe

        def counted(callback: Callable[[], object]) -> asyncio.Handle:
            nonlocal calls
            calls += 1
            return call(callback)

        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
        elsewhere.resolve(*futures)  # blocks this loop
        monkeypatch.undo()
        return await asyncio.wait_for(gathered, BOUND_S)

    assert asyncio.run(main()) == ["done"] * 500
    assert calls == 1


def test_completions_after_a_wake_up_wake_again(elsewhere: Elsewhere) -> None:
    async def main() -> list[str]:
        results = []
        for _ in range(20):
            future: PoolFuture[str] = PoolFuture()
            task = await await_in_task(future)
            elsewhere.resolve(future)
            results.append(await asyncio.wait_for(task, BOUND_S))
        return results

    assert asyncio.run(main()) == ["done"] * 20


def test_event_loop_is_not_kept_alive(elsewhere: Elsewhere) -> None:
    seen: list[Callable[[], object]] = []

    async def main() -> str:
        future: PoolFuture[str] = PoolFuture()
        seen.append(weakref.ref(asyncio.get_running_loop()))
        task = await await_in_task(future)
        elsewhere.resolve(future)
        return await asyncio.wait_for(task, BOUND_S)

    asyncio.run(main())
    gc.collect()
    assert seen[0]() is None


def test_answered_future_lets_go_of_its_pool(elsewhere: Elsewhere) -> None:
    class Pool:
        def withdraw(self, kill: bool) -> None:  # noqa: FBT001  # as the pool's
            raise AssertionError(kill)

    pool = Pool()
    future: PoolFuture[str] = PoolFuture(pool.withdraw)
    is_alive = weakref.ref(pool)
    del pool

    elsewhere.resolve(future)
    gc.collect()

    assert is_alive() is None


def test_future_in_a_child_fails_without_calling_anyone() -> None:
    future: PoolFuture[str] = PoolFuture()
    called: list[object] = []
    future.add_done_callback(called.append)
    holder = threading.Thread(target=future._condition.acquire)  # as a thread of the parent may at the fork
    holder.start()
    holder.join()
    failing = threading.Thread(target=future.fail_in_child, args=("task 1 (race r1)",), daemon=True)
    failing.start()
    failing.join(BOUND_S)

    assert not failing.is_alive()
    with pytest.raises(PoolForkedError, match=r"^task 1 \(race r1\) .*call exec\(\) again"):
        future.result(BOUND_S)
    assert called == []


def test_future_in_a_child_that_was_answered_keeps_its_answer(elsewhere: Elsewhere) -> None:
    future: PoolFuture[str] = PoolFuture()
    elsewhere.resolve(future)

    future.fail_in_child("task 1")

    assert future.result() == "done"
