"""The example service's ticks, on a real event loop."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from examples.service.schedule import Schedule, next_due
from examples.service.tally import Tally

LONG_S = 60.0


class Races:
    """Polls that end when the test says so."""

    def __init__(self, *race_ids: str) -> None:
        self.race_ids = race_ids
        self.begun: list[str] = []
        self.gates = {race_id: asyncio.Event() for race_id in race_ids}

    async def listed(self) -> Sequence[str]:
        return self.race_ids

    async def poll(self, race_id: str) -> None:
        self.begun.append(race_id)
        await self.gates[race_id].wait()

    async def settle(self) -> None:
        """Lets the other tasks of the event loop run."""
        for _ in range(5):
            await asyncio.sleep(0)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 10))


@pytest.mark.parametrize(
    ("now", "expected"), [(10.0, 25.0), (12.0, 25.0), (24.9, 25.0), (25.0, 40.0), (31.0, 40.0), (99.0, 100.0)]
)
def test_ticks_keep_their_rhythm_and_a_missed_one_is_not_caught_up(now: float, expected: float) -> None:
    assert next_due(10.0, now, 15.0) == expected


def test_race_whose_poll_is_under_way_is_skipped_and_the_others_are_polled() -> None:
    async def test() -> None:
        races, tally = Races("slow", "quick"), Tally()
        schedule = Schedule(races.listed, races.poll, LONG_S, tally)
        await schedule.tick()
        races.gates["quick"].set()
        await races.settle()

        await schedule.tick()
        await races.settle()

        assert races.begun == ["slow", "quick", "quick"]
        assert (tally.ticks, tally.polls, tally.skipped) == (2, 3, 1)
        races.gates["slow"].set()
        await races.settle()
        await schedule.tick()
        await races.settle()
        assert races.begun.count("slow") == 2, "its poll was done, so it had the next one"

    run(test())


def test_tick_that_fails_is_counted_and_the_next_one_comes() -> None:
    async def test() -> None:
        tally, ticked_again = Tally(), asyncio.Event()

        async def fail_once() -> Sequence[str]:
            if tally.ticks == 1:
                raise RuntimeError("as the test asked")
            ticked_again.set()
            return []

        ticking = asyncio.create_task(Schedule(fail_once, Races().poll, 0.001, tally).run())
        await ticked_again.wait()
        ticking.cancel()

        assert tally.failures["tick"] == 1

    run(test())


def test_age_of_the_last_tick_is_unknown_before_the_first_one() -> None:
    async def test() -> None:
        races = Races()
        schedule = Schedule(races.listed, races.poll, LONG_S, Tally())
        assert schedule.last_tick_age_s() is None
        ticking = asyncio.create_task(schedule.run())
        await races.settle()

        age_s = schedule.last_tick_age_s()

        ticking.cancel()
        assert age_s is not None
        assert 0 <= age_s < LONG_S

    run(test())


def test_end_waits_for_polls_under_way_and_cancels_what_is_late() -> None:
    async def test() -> None:
        races = Races("done", "late")
        ended: list[str] = []

        async def poll(race_id: str) -> None:
            await races.poll(race_id)
            ended.append(race_id)

        schedule = Schedule(races.listed, poll, LONG_S, Tally())
        await schedule.tick()
        await races.settle()
        asyncio.get_running_loop().call_later(0.01, races.gates["done"].set)

        await schedule.drain(timeout_s=0.1)

        assert ended == ["done"]
        races.gates["late"].set()
        await races.settle()
        assert ended == ["done"], "the late one was cancelled"

    run(test())
