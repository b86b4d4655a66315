"""The iterations `map` and `as_completed`, for threads and for event loops. stream.py decides what they do."""

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterable, Iterator
from contextlib import aclosing, closing
from functools import partial
from math import inf
from typing import Any, TypeAlias, assert_never

from racepool.client.future import PoolFuture, mailbox
from racepool.client.stream import End, HandOver, Stream, StreamTask, Take, Wait
from racepool.protocol import clock
from racepool.protocol.errors import PoolForkedError
from racepool.races.race import RaceInput

Races: TypeAlias = Iterable[RaceInput] | AsyncIterable[RaceInput]


def completed(stream: Stream, races: Iterable[RaceInput], deadline: float = inf) -> Generator[HandOver, None, None]:
    """Yields races as they finish. TimeoutError at the deadline. At its end it cancels all unfinished races."""
    source, pid = iter(races), os.getpid()
    finished = threading.Event()
    stream.wake = finished.set
    try:
        while True:
            _refuse_in_a_child_of(pid)
            finished.clear()
            now = clock.now()
            match stream.next_step(now):
                case HandOver() as done:
                    yield done
                case Take():
                    try:
                        race = next(source)
                    except StopIteration:
                        stream.end_input()
                    else:
                        stream.take(race, clock.now())  # not `now`: the input may have been slow
                case Wait(until):
                    _refuse_to_wait_beyond(deadline, now)
                    ends_at = min(until, deadline)
                    finished.wait(None if ends_at == inf else ends_at - now)
                case End():
                    return
                case step:
                    assert_never(step)
    finally:
        stream.cancel()


async def completed_async(stream: Stream, races: Races, deadline: float = inf) -> AsyncGenerator[HandOver, None]:
    """As `completed`, for an event loop. `races` may be asynchronous; results are yielded while it is slow."""
    loop = asyncio.get_running_loop()
    source = aiter(races) if isinstance(races, AsyncIterable) else _in_turns(races)
    taking: asyncio.Future[RaceInput] | None = None
    pid = os.getpid()
    try:
        while True:
            _refuse_in_a_child_of(pid)
            finished: asyncio.Future[None] = loop.create_future()
            stream.wake = partial(mailbox(loop).put, finished)
            now = clock.now()
            match stream.next_step(now, may_take=taking is None):
                case HandOver() as done:
                    yield done
                case Take():
                    taking = asyncio.ensure_future(anext(source))
                case Wait(until):
                    _refuse_to_wait_beyond(deadline, now)
                    ends_at = min(until, deadline)
                    awaited: set[asyncio.Future[Any]] = {finished} if taking is None else {finished, taking}
                    await asyncio.wait(
                        awaited, timeout=None if ends_at == inf else ends_at - now, return_when=asyncio.FIRST_COMPLETED
                    )
                case End():
                    return
                case step:
                    assert_never(step)
            if taking is not None and taking.done():
                try:
                    stream.take(taking.result(), clock.now())
                except StopAsyncIteration:
                    stream.end_input()
                taking = None
    finally:
        stream.cancel()
        if taking is not None:
            taking.cancel()


async def _in_turns(races: Iterable[RaceInput]) -> AsyncIterator[RaceInput]:
    for race in races:
        yield race


def as_they_come(stream: Stream, results: Generator[HandOver, None, None]) -> Iterator[tuple[int, PoolFuture[Any]]]:
    """Yields the index and the future of each race."""
    with closing(results):
        for done in results:
            stream.release(done.task)
            yield done.task.index, done.future


async def as_they_come_async(
    stream: Stream, results: AsyncGenerator[HandOver, None]
) -> AsyncIterator[tuple[int, PoolFuture[Any]]]:
    """As `as_they_come`, for an event loop."""
    async with aclosing(results):
        async for done in results:
            stream.release(done.task)
            yield done.task.index, done.future


def in_order(stream: Stream, results: Generator[HandOver, None, None]) -> Iterator[Any]:
    """Yields the results in the order of the input; the first error ends it."""
    order = _Order()
    with closing(results):
        for done in results:
            for task, future in order.put(done):
                stream.release(task)
                yield future.result()


async def in_order_async(stream: Stream, results: AsyncGenerator[HandOver, None]) -> AsyncIterator[Any]:
    """As `in_order`, for an event loop."""
    order = _Order()
    async with aclosing(results):
        async for done in results:
            for task, future in order.put(done):
                stream.release(task)
                yield future.result()


class _Order:
    """Brings races that finish in any order into the order of the input."""

    def __init__(self) -> None:
        self._next = 0
        self._early: dict[int, HandOver] = {}

    def put(self, done: HandOver) -> Iterator[tuple[StreamTask, PoolFuture[Any]]]:
        """Yields all races whose turn it is now."""
        self._early[done.task.index] = done
        while self._next in self._early:
            now_due = self._early.pop(self._next)
            self._next += 1
            yield now_due.task, now_due.future


def _refuse_to_wait_beyond(deadline: float, now: float) -> None:
    if now >= deadline:
        raise TimeoutError("not all results came within the timeout; what was unresolved is cancelled")


def _refuse_in_a_child_of(pid: int) -> None:
    if os.getpid() != pid:
        raise PoolForkedError("this iteration belongs to the parent process; start a new one here")
