import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.loads import Load, Race
from benchmarks.measures import POLLERS, Caller, WrongResultError

LOADS = {"raw": Load([b"one", b"three"], [1, 3])}


class Counting:
    """A pool in this loop that notes its tasks. The result of a race has as much money as its name says."""

    def __init__(self, **money: int) -> None:
        self.money = money
        self.under_way = self.most_under_way = self.tasks = 0

    async def submit(self, race: Race) -> Any:  # noqa: ANN401
        self.tasks += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        assert isinstance(race, bytes)
        record = SimpleNamespace(win_pool_amount=self.money[race.decode()])
        return SimpleNamespace(money_flow_records=[record])


def test_sustained_load_keeps_one_race_of_each_poller_under_way() -> None:
    pool = Counting(one=1, three=3)

    assert asyncio.run(Caller(pool.submit, LOADS).sustained_s("raw", 3 * POLLERS)) > 0
    assert (pool.tasks, pool.most_under_way) == (3 * POLLERS, POLLERS)


def test_together_is_all_at_once() -> None:
    pool = Counting(one=1, three=3)

    assert asyncio.run(Caller(pool.submit, LOADS).together_ms("raw", 7)) > 0
    assert (pool.tasks, pool.most_under_way) == (7, 7)


@pytest.mark.parametrize("measure", [Caller.idle_ms, Caller.bursts_ms, Caller.submit_us])
def test_each_single_figure_is_kept(measure: Callable[..., Any]) -> None:
    pool = Counting(one=1, three=3)

    assert len(asyncio.run(measure(Caller(pool.submit, LOADS), "raw", 4))) == 4
    assert pool.tasks == (20 if measure is Caller.bursts_ms else 4)


@pytest.mark.parametrize("measure", [Caller.sustained_s, Caller.together_ms, Caller.stall_ms])
def test_wrong_result_is_no_figure(measure: Callable[..., Any]) -> None:
    pool = Counting(one=1, three=4)

    with pytest.raises(WrongResultError, match=r"hold 5 cents, not 4"):
        asyncio.run(measure(Caller(pool.submit, LOADS), "raw", 2))


def test_ticker_tells_that_the_loop_was_held_up() -> None:
    async def hold_up(_race: Race) -> Any:  # noqa: ANN401
        for _ in range(200_000):
            pass
        return await Counting(one=1, three=3).submit(b"one")

    caller = Caller(hold_up, {"raw": Load([b"one"], [1])})

    few = min(asyncio.run(caller.stall_ms("raw", 1)) for _ in range(3))  # a busy machine may delay one
    assert asyncio.run(caller.stall_ms("raw", 10)) > few / 2 > 0
