"""`map` and `as_completed`, also asynchronous, through a real thread and socket, with a broker that the test plays."""

import asyncio
import itertools
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from racepool import InvalidRaceError, PoolClosedError, PoolForkedError, PoolFuture, TransformError, ZmqPool
from racepool.client.iteration import as_they_come, as_they_come_async, completed, completed_async
from racepool.client.stream import Step, Stream, Wait
from racepool.protocol.failures import pack_raised
from racepool.protocol.messages import Cancel, Outcome, Reject, Submit, ToClient
from racepool.protocol.parcel import Parcel
from tests.client.fake_broker import FakeBroker, answer, echo, nothing, race_of

Race = Callable[..., dict[str, Any]]
WaitUntil = Callable[..., None]
MakePool = Callable[..., ZmqPool]
ITERATIONS = [
    pytest.param("map", id="map"),
    pytest.param("map_async", id="map_async"),
    pytest.param("as_completed", id="as_completed"),
    pytest.param("as_completed_async", id="as_completed_async"),
]


def collected(pool: ZmqPool, verb: str, races: Any, **arguments: Any) -> list[Any]:  # noqa: ANN401
    """All that the iteration yields."""
    made = getattr(pool, verb)(races, **arguments)
    if not verb.endswith("async"):
        return list(made)

    async def collect() -> list[Any]:
        return [one async for one in made]

    return asyncio.run(collect())


def ids(verb: str, results: list[Any]) -> list[Any]:
    """The results in the order of the input."""
    if verb.startswith("map"):
        return results
    return [future.result() for _, future in sorted(results, key=lambda one: one[0])]


class Counting:
    """An endless input that counts what was taken."""

    def __init__(self, race: Race) -> None:
        self.taken = 0
        self._race = race

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number in itertools.count():
            self.taken += 1
            yield self._race(race_id=f"race-{number}")


@pytest.mark.parametrize("verb", ITERATIONS)
def test_every_race_comes_back_once(broker: FakeBroker, pool: ZmqPool, race: Race, verb: str) -> None:
    races = [race(race_id=f"race-{number}") for number in range(700)]

    assert ids(verb, collected(pool, verb, races)) == [one["id"] for one in races]
    assert len(broker.of(Submit)) == 700


@pytest.mark.parametrize("verb", ITERATIONS)
def test_no_race_at_all_is_no_result(broker: FakeBroker, pool: ZmqPool, verb: str) -> None:
    assert collected(pool, verb, []) == []
    assert broker.of(Submit) == []


@pytest.mark.parametrize("verb", ITERATIONS)
def test_endless_input_is_taken_as_results_are_consumed(
    broker: FakeBroker, pool: ZmqPool, race: Race, verb: str, wait_until: WaitUntil
) -> None:
    races = Counting(race)
    results = getattr(pool, verb)(races)
    assert races.taken == 0

    async def consume() -> None:
        for _ in range(10):
            await anext(results)
        await results.aclose()

    if verb.endswith("async"):
        asyncio.run(asyncio.wait_for(consume(), 5))
    else:
        for _ in range(10):
            next(results)
        results.close()

    assert races.taken < 40
    wait_until(lambda: pool._engine is None or pool._engine.unresolved == 0)
    assert len(broker.of(Submit)) <= races.taken


@pytest.mark.parametrize("verb", ["map_async", "as_completed_async"])
def test_asynchronous_input_is_waited_for_while_results_come(
    broker: FakeBroker, pool: ZmqPool, race: Race, verb: str
) -> None:
    async def consume() -> list[Any]:
        was_seen = asyncio.Event()

        async def feed() -> AsyncIterator[dict[str, Any]]:
            for number in range(3):
                was_seen.clear()
                yield race(race_id=f"race-{number}")
                await was_seen.wait()  # its result is there before the next race

        seen = []
        async for one in getattr(pool, verb)(feed()):
            seen.append(one)  # the event belongs to the loop's body
            was_seen.set()
        return seen

    assert ids(verb, asyncio.run(asyncio.wait_for(consume(), 5))) == ["race-0", "race-1", "race-2"]
    assert len(broker.of(Submit)) == 3


@pytest.mark.parametrize("verb", ["map", "map_async"])
def test_map_keeps_the_order_of_the_input_and_bounds_what_is_early(
    broker: FakeBroker, pool: ZmqPool, race: Race, verb: str, wait_until: WaitUntil
) -> None:
    first: list[Submit] = []

    def hold_the_first_back(submit: Submit) -> list[ToClient]:
        if not first:
            first.append(submit)
            return []
        return echo(submit)

    broker.on_submit = hold_the_first_back
    races = Counting(race)
    results = getattr(pool, verb)(races)
    got: list[Any] = []

    async def consume() -> None:
        while len(got) < 500:
            got.append(await anext(results))

    def consume_in_thread() -> None:
        if verb == "map":
            got.extend(itertools.islice(results, 500))
        else:
            asyncio.run(consume())

    consumer = threading.Thread(target=consume_in_thread)
    consumer.start()
    wait_until(lambda: races.taken == 256)
    time.sleep(0.05)

    assert races.taken == 256  # as many as finished early, and no more
    assert got == []
    broker.say(*echo(first[0]))
    consumer.join(10)
    assert got == [f"race-{number}" for number in range(500)]


@pytest.mark.parametrize("verb", ["as_completed", "as_completed_async"])
def test_as_completed_gives_first_what_is_finished_first(
    broker: FakeBroker, pool: ZmqPool, race: Race, verb: str
) -> None:
    held: list[Submit] = []

    def hold_the_first_back(submit: Submit) -> list[ToClient]:
        if race_of(submit)["id"] == "race-0":
            held.append(submit)
            return []
        return [*echo(submit), *(echo(held[0]) if race_of(submit)["id"] == "race-4" else [])]

    broker.on_submit = hold_the_first_back

    results = collected(pool, verb, [race(race_id=f"race-{number}") for number in range(5)])

    assert {index: future.result() for index, future in results} == {index: f"race-{index}" for index in range(5)}
    assert [index for index, _ in results[:3]] == [1, 2, 3], "the last two come together"


@pytest.mark.parametrize("verb", ["as_completed", "as_completed_async"])
def test_no_race_ends_as_completed(broker: FakeBroker, pool: ZmqPool, race: Race, verb: str) -> None:
    def raise_for_the_third(submit: Submit) -> list[ToClient]:
        if race_of(submit)["id"] == "race-3":
            return [answer(submit.task_id, Outcome.RAISED, pack_raised("ValueError", "no such horse", "…"))]
        return echo(submit)

    broker.on_submit = raise_for_the_third
    races: list[Any] = [race(race_id=f"race-{number}") for number in range(5)]
    races[1] = object()

    outcomes = {index: future.exception() for index, future in collected(pool, verb, races)}

    assert {index: type(error) for index, error in outcomes.items()} == {
        0: type(None), 1: InvalidRaceError, 2: type(None), 3: TransformError, 4: type(None)
    }  # fmt: skip


@pytest.mark.parametrize("verb", ["map", "map_async"])
def test_error_ends_a_map_and_cancels_the_rest(
    broker: FakeBroker, pool: ZmqPool, race: Race, verb: str, wait_until: WaitUntil
) -> None:
    broker.on_submit = lambda submit: (
        [answer(submit.task_id, Outcome.RAISED, pack_raised("ValueError", "no such horse", "…"))]
        if race_of(submit)["id"] == "race-0"
        else []
    )

    with pytest.raises(TransformError, match=r"race race-0\).*no such horse"):
        collected(pool, verb, Counting(race))

    wait_until(lambda: len(broker.of(Cancel)) == len(broker.of(Submit)) - 1)


@pytest.mark.parametrize("verb", ITERATIONS)
def test_full_backlog_is_waited_for(broker: FakeBroker, pool: ZmqPool, race: Race, verb: str) -> None:
    refused = itertools.count()

    def refuse_some(submit: Submit) -> list[ToClient]:
        return [Reject(submit.task_id, 9, 9, in_bytes=False)] if next(refused) % 3 == 0 else echo(submit)

    broker.on_submit = refuse_some
    races = [race(race_id=f"race-{number}") for number in range(60)]

    assert ids(verb, collected(pool, verb, races)) == [one["id"] for one in races]
    assert len(broker.of(Submit)) > 60


def test_client_that_holds_all_it_may_is_waited_for(
    broker: FakeBroker, make_pool: MakePool, race: Race, wait_until: WaitUntil
) -> None:
    pool = make_pool(max_in_flight=2)
    broker.on_submit = nothing
    held = [pool.exec(race(race_id="held")) for _ in range(2)]
    wait_until(lambda: len(broker.of(Submit)) == 2)
    broker.on_submit = echo
    results = pool.map(race(race_id=f"race-{number}") for number in range(20))
    got: list[Any] = []
    consumer = threading.Thread(target=lambda: got.extend(results))
    consumer.start()

    assert got == []
    for future in held:
        future.cancel()
    consumer.join(10)
    assert got == [f"race-{number}" for number in range(20)]


@pytest.mark.parametrize("verb", ["map", "map_async"])
def test_timeout_is_of_the_whole_iteration_and_cancels_the_rest(
    broker: FakeBroker, pool: ZmqPool, race: Race, verb: str, wait_until: WaitUntil
) -> None:
    broker.on_submit = lambda submit: echo(submit) if race_of(submit)["id"] == "race-0" else []
    started_at = time.monotonic()

    with pytest.raises(TimeoutError, match="not all results"):
        collected(pool, verb, Counting(race), timeout=1.5)

    assert 1.5 <= time.monotonic() - started_at < 10
    wait_until(lambda: len(broker.of(Cancel)) == len(broker.of(Submit)) - 1)


@pytest.mark.parametrize("verb", ["map", "map_async"])
def test_timeout_counts_from_the_call(
    broker: FakeBroker, pool: ZmqPool, race: Race, verb: str, wait_until: WaitUntil
) -> None:
    broker.on_submit = nothing
    called_at = time.monotonic()
    results = getattr(pool, verb)([race()], timeout=1.5)
    wait_until(lambda: time.monotonic() >= called_at + 1.5)
    asked_at = time.monotonic()

    with pytest.raises(TimeoutError, match="not all results"):
        next(results) if verb == "map" else asyncio.run(anext(results))

    assert time.monotonic() - asked_at < 1.3  # a timeout that counts from here would end later


@pytest.mark.parametrize("verb", ITERATIONS)
def test_error_of_the_input_is_the_callers(broker: FakeBroker, pool: ZmqPool, race: Race, verb: str) -> None:
    def feed() -> Iterator[dict[str, Any]]:
        yield race()
        raise OSError("the feed broke")

    broker.on_submit = nothing

    with pytest.raises(OSError, match="the feed broke"):
        collected(pool, verb, feed())


@pytest.mark.parametrize("verb", ["map_async", "as_completed_async"])
def test_consumer_that_leaves_cancels_the_rest(
    broker: FakeBroker, pool: ZmqPool, race: Race, verb: str, wait_until: WaitUntil
) -> None:
    broker.on_submit = lambda submit: echo(submit) if race_of(submit)["id"] == "race-0" else []

    async def consume() -> None:
        results = getattr(pool, verb)(Counting(race))
        await anext(results)
        waiting = asyncio.ensure_future(anext(results))
        while not pool._connected()._unresolved:  # noqa: ASYNC110  # it tells nobody
            await asyncio.sleep(0.01)
        held = [future for _, future in pool._connected()._unresolved.values()]
        waiting.cancel()
        await asyncio.wait([waiting])
        await results.aclose()
        assert all(future.cancelled() for future in held)

    asyncio.run(consume())

    wait_until(lambda: len(broker.of(Cancel)) == len(broker.of(Submit)) - 1)


def test_asynchronous_input_that_is_waited_for_ends_with_the_iteration(
    broker: FakeBroker, pool: ZmqPool, race: Race
) -> None:
    async def consume() -> None:
        has_ended = asyncio.Event()

        async def feed() -> AsyncIterator[dict[str, Any]]:
            try:
                yield race()
                await asyncio.get_running_loop().create_future()
            finally:
                has_ended.set()

        results: Any = pool.as_completed_async(feed())
        await anext(results)
        following = asyncio.create_task(anext(results))
        await asyncio.sleep(0)  # the input is asked for another race
        following.cancel()
        await asyncio.wait_for(has_ended.wait(), 5)

    asyncio.run(consume())

    assert len(broker.of(Submit)) == 1


def test_cancelled_consumer_cancels_its_races(
    broker: FakeBroker, pool: ZmqPool, race: Race, wait_until: WaitUntil
) -> None:
    broker.on_submit = nothing

    async def consume() -> None:
        async for _ in pool.map_async(Counting(race)):
            raise AssertionError("nothing is answered")

    async def cancel() -> None:
        consumer = asyncio.create_task(consume())
        await asyncio.to_thread(wait_until, lambda: len(broker.of(Submit)) == 6)
        consumer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await consumer

    asyncio.run(cancel())

    wait_until(lambda: len(broker.of(Cancel)) == 6)


def test_loop_stays_free_while_an_iteration_is_fed(broker: FakeBroker, pool: ZmqPool, race: Race) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    async def consume() -> int:
        ticker = asyncio.create_task(tick())
        count = len([one async for one in pool.map_async(race() for _ in range(300))])
        ticker.cancel()
        return count

    assert asyncio.run(consume()) == 300
    assert ticks > 300
    assert len(broker.of(Submit)) == 300


@pytest.mark.parametrize("verb", ITERATIONS)
def test_pool_that_was_shut_down_refuses(pool: ZmqPool, race: Race, verb: str) -> None:
    pool.shutdown()

    with pytest.raises(PoolClosedError):
        getattr(pool, verb)([race()])


def test_pool_that_is_shut_down_meanwhile_ends_the_iteration(broker: FakeBroker, pool: ZmqPool, race: Race) -> None:
    results = pool.as_completed(Counting(race))
    next(results)

    pool.shutdown()

    with pytest.raises(PoolClosedError):
        for _ in results:
            pass
    assert broker.of(Submit)


@pytest.mark.parametrize("verb", ITERATIONS)
def test_iteration_of_the_parent_process_fails_in_the_child(
    broker: FakeBroker, pool: ZmqPool, race: Race, verb: str
) -> None:
    results = getattr(pool, verb)(Counting(race))
    loop = asyncio.new_event_loop()

    def following() -> Any:  # noqa: ANN401
        if not verb.endswith("async"):
            return next(results)
        return loop.run_until_complete(asyncio.wait_for(anext(results), 5))

    following()

    child = os.fork()
    if child == 0:
        try:
            following()
        except PoolForkedError:
            os._exit(0)
        finally:
            os._exit(1)

    assert os.waitpid(child, 0)[1] == 0
    assert ids(verb, [following()]) == ["race-1"]
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    assert broker.of(Submit)


class Hasty(Stream):
    """The race is answered just after the iteration has decided to wait."""

    def __init__(self) -> None:
        self.future: PoolFuture[Any] = PoolFuture()
        super().__init__(lambda _: Parcel(b"", b""), lambda _: self.future, start=1, prompt_s=1.0)

    def next_step(self, now: float, *, may_take: bool = True) -> Step:
        step = super().next_step(now, may_take=may_take)
        if isinstance(step, Wait) and not self.future.done():
            self.future.resolve("just now", None)
        return step


def test_answer_between_the_decision_to_wait_and_the_waiting_is_seen() -> None:
    stream, twin = Hasty(), Hasty()

    async def collect() -> list[str]:
        return [done.future.result() async for done in completed_async(twin, [b"race"], time.monotonic() + 1)]

    assert [done.future.result() for done in completed(stream, [b"race"], time.monotonic() + 1)] == ["just now"]
    assert asyncio.run(collect()) == ["just now"]


class Slow(Stream):
    """Each race is answered 0.1 s after the one before it. Counts the steps that were asked for."""

    def __init__(self) -> None:
        self.steps = 0
        self.timers: list[threading.Timer] = []
        super().__init__(lambda _: Parcel(b"", b""), self.submit_slowly, start=3, prompt_s=1.0)

    def submit_slowly(self, _parcel: Parcel) -> PoolFuture[Any]:
        future: PoolFuture[Any] = PoolFuture()
        self.timers.append(threading.Timer(0.1 * (1 + len(self.timers)), future.resolve, ("late", None)))
        self.timers[-1].start()
        return future

    def next_step(self, now: float, *, may_take: bool = True) -> Step:
        self.steps += 1
        return super().next_step(now, may_take=may_take)


@pytest.mark.parametrize("is_async", [False, True])
def test_iteration_sleeps_between_two_answers(is_async: bool) -> None:  # noqa: FBT001
    stream, races = Slow(), [b"race"] * 3

    async def collect() -> list[str]:
        return [done.future.result() async for done in completed_async(stream, races)]

    results = asyncio.run(collect()) if is_async else [done.future.result() for done in completed(stream, races)]

    assert results == ["late"] * 3
    assert stream.steps < 30, "it used all CPU while it waited"


@pytest.mark.parametrize("is_async", [False, True])
def test_time_that_the_input_takes_is_not_the_answers(is_async: bool) -> None:  # noqa: FBT001
    """Otherwise a slow input would look like a pool that has enough to do."""

    def submit(_parcel: Parcel) -> PoolFuture[Any]:
        future: PoolFuture[Any] = PoolFuture()
        future.resolve("at once", None)
        return future

    async def feed() -> AsyncIterator[bytes]:
        await asyncio.to_thread(is_due.wait, 0.3)
        yield b"race"

    def feed_thread() -> Iterator[bytes]:
        is_due.wait(0.3)
        yield b"race"

    async def collect() -> list[str]:
        return [one.result() async for _, one in as_they_come_async(stream, completed_async(stream, feed()))]

    is_due = threading.Event()
    stream = Stream(lambda _: Parcel(b"", b""), submit, start=1, prompt_s=0.2)

    if is_async:
        results = asyncio.run(collect())
    else:
        results = [one.result() for _, one in as_they_come(stream, completed(stream, feed_thread()))]

    assert results == ["at once"]
    assert stream.limit == 2
