"""When to poll: each tick polls every race that has no running poll. Knows neither the tote nor the pool."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from math import floor

import structlog

from examples.service.tally import Tally

log = structlog.get_logger()


def next_due(due: float, now: float, interval_s: float) -> float:
    """The next tick after `due` and `now`: ticks keep their rhythm, and a missed tick is not repeated."""
    return due + interval_s * (1 + max(0, floor((now - due) / interval_s)))


class Schedule:
    """Ticks until it is stopped. At most one poll of each race runs at any time.

    Args:
        races: returns the races to poll now.
        poll: polls one race, and handles its own errors.
        interval_s: seconds from tick to tick.
        tally: counts ticks and polls.
    """

    def __init__(
        self,
        races: Callable[[], Awaitable[Iterable[str]]],
        poll: Callable[[str], Awaitable[None]],
        interval_s: float,
        tally: Tally,
    ) -> None:
        self._races = races
        self._poll = poll
        self._interval_s = interval_s
        self._tally = tally
        self._last_tick_at: float | None = None
        self._under_way: dict[str, asyncio.Task[None]] = {}

    def last_tick_age_s(self) -> float | None:
        """Seconds since the last tick began; None before the first tick."""
        return None if self._last_tick_at is None else time.monotonic() - self._last_tick_at

    async def run(self) -> None:
        """Ticks at once and then once every interval, until it is cancelled."""
        due = time.monotonic()
        while True:
            self._last_tick_at = time.monotonic()
            try:
                await self.tick()
            except Exception:  # the next tick may succeed, and /health shows the failures
                self._tally.failures["tick"] += 1
                log.exception("tick_failed")
            now = time.monotonic()
            due = next_due(due, now, self._interval_s)
            await asyncio.sleep(due - now)

    async def tick(self) -> None:
        """Starts a poll of each race that has no running poll."""
        self._tally.ticks += 1
        for race_id in await self._races():
            if race_id in self._under_way:
                self._tally.skipped += 1
                log.warning("poll_skipped", race_id=race_id, reason="the one before is not done yet")
                continue
            self._tally.polls += 1
            self._under_way[race_id] = asyncio.create_task(self._poll_alone(race_id), name=f"poll {race_id}")

    async def _poll_alone(self, race_id: str) -> None:
        try:
            await self._poll(race_id)
        finally:
            del self._under_way[race_id]

    async def drain(self, timeout_s: float) -> None:
        """Waits up to `timeout_s` for the running polls; then cancels them."""
        tasks = list(self._under_way.values())
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=timeout_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
