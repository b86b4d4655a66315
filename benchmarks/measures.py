"""The measurements that a driver makes: the same loads, and the same use of each result, for every pool.

The caller is an asyncio service. Nothing here knows a contender; drivers in other languages do the same.
"""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Iterable
from itertools import count, islice
from typing import Any, Final, TypeAlias

from benchmarks.loads import Load, Race

Submit: TypeAlias = Callable[[Race], Awaitable[Any]]

POLLERS: Final = 100  # races that a service has under way at once on a busy day
BURST: Final = 5
TICK_S: Final = 0.001
SETTLE_S: Final = 0.05


class WrongResultError(Exception):
    """The results of a contender are wrong, so its figures would mean nothing."""


class Caller:
    """A service that submits races to a pool, and uses the results."""

    def __init__(self, submit: Submit, loads: dict[str, Load]) -> None:
        self._submit = submit
        self._loads = loads
        self._numbers = count()  # of the tasks; the races take turns by it

    async def results(self, load: str, _tasks: int) -> list[Any]:
        """The result of each race, as JSON."""
        return [(await self._submit(race)).model_dump(mode="json") for race in self._loads[load].races]

    async def sustained_s(self, load: str, tasks: int) -> float:
        """How long these tasks take in total, if each of POLLERS pollers submits the next race after each result."""
        await _settle()
        numbers = iter(range(tasks))

        async def poll() -> int:
            return sum([await self._used(load, number) for number in numbers])

        started_at = time.perf_counter()
        money = sum(await asyncio.gather(*(poll() for _ in range(min(POLLERS, tasks)))))
        took_s = time.perf_counter() - started_at
        self._check(load, range(tasks), money)
        return took_s

    async def together_ms(self, load: str, tasks: int) -> float:
        """How long these tasks take in total, if all are submitted at once."""
        numbers = list(islice(self._numbers, tasks))
        started_at = time.perf_counter()
        money = sum(await asyncio.gather(*(self._used(load, number) for number in numbers)))
        took_ms = (time.perf_counter() - started_at) * 1000
        self._check(load, numbers, money)
        return took_ms

    async def idle_ms(self, load: str, tasks: int) -> list[float]:
        """The latency of each of these tasks, one at a time."""
        await _settle()
        return [await self.together_ms(load, 1) for _ in range(tasks)]

    async def bursts_ms(self, load: str, tasks: int) -> list[float]:
        """How long each of these bursts of five tasks takes."""
        await _settle()
        return [await self.together_ms(load, BURST) for _ in range(tasks)]

    async def submit_us(self, load: str, tasks: int) -> list[float]:
        """How long each submission takes in the caller's thread, with an idle pool."""
        await _settle()
        took_us = []
        for number in islice(self._numbers, tasks):
            race = self._loads[load].race(number)
            started_at = time.perf_counter()
            future = self._submit(race)
            if asyncio.iscoroutine(future):  # nothing is submitted before it is awaited
                future = asyncio.ensure_future(future)
                await asyncio.sleep(0)
            took_us.append((time.perf_counter() - started_at) * 1e6)
            await future
        return took_us

    async def stall_ms(self, load: str, tasks: int) -> float:
        """The longest delay of a 1 ms ticker on the caller's loop, while these tasks are submitted and used."""
        await _settle()
        ticker = asyncio.create_task(_late_ms(lambda: is_over))
        is_over = False
        await asyncio.sleep(10 * TICK_S)
        await self.together_ms(load, tasks)
        is_over = True
        return await ticker

    async def bare_stall_ms(self, _load: str, tasks: int) -> float:
        """The longest delay of the ticker on a loop that does nothing else, over these ticks."""
        await _settle()
        ticks = count()
        return await _late_ms(lambda: next(ticks) >= tasks)

    async def _used(self, load: str, number: int) -> int:
        return _use(await self._submit(self._loads[load].race(number)))

    def _check(self, load: str, numbers: Iterable[int], money: int) -> None:
        expected = self._loads[load].money_of(numbers)
        if money != expected:
            raise WrongResultError(f"the results of {load} races hold {money} cents, not {expected}")


def _use(result: Any) -> int:  # noqa: ANN401  # a TransformedRace; only the contender imports its module
    """Reads the money of a result: some results are built only when they are read, so every caller reads them."""
    return sum(record.win_pool_amount for record in result.money_flow_records)


async def _settle() -> None:
    """Frees the garbage of the last measurement now, not during the next one."""
    gc.collect()
    await asyncio.sleep(SETTLE_S)


async def _late_ms(is_over: Callable[[], bool]) -> float:
    worst_s = 0.0
    while not is_over():
        before = time.perf_counter()
        await asyncio.sleep(TICK_S)
        worst_s = max(worst_s, time.perf_counter() - before - TICK_S)
    return worst_s * 1000
