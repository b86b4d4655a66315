"""Asks the broker once a second, and publishes what the page shows."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

import orjson

from racepool.commands.dead.tasks import DeadTasks
from racepool.commands.exporter.chart_history import ChartHistory
from racepool.commands.exporter.chronicle import Chronicle
from racepool.commands.exporter.dead_view import DeadView
from racepool.commands.exporter.feed import Feed
from racepool.commands.exporter.page import moment
from racepool.protocol.errors import PoolError
from racepool.protocol.logs import Log
from racepool.protocol.stats import PoolStats

INTERVAL_S = 1.0


class PoolWatch:
    """One pool, watched while `run` runs.

    Args:
        ask: as for PoolCollector; it blocks, so it is called in a thread.
        dead: as for PoolCollector.
        log: gets a line when the broker stops answering, and when it answers again.
    """

    def __init__(self, ask: Callable[[], PoolStats], dead: DeadView | None, log: Log) -> None:
        self.feed = Feed()
        self._ask = ask
        self._dead = dead
        self._log = log
        self._history = ChartHistory()
        self._chronicle = Chronicle()

    async def run(self) -> None:
        """Asks and publishes until it is cancelled."""
        next_at = time.monotonic()
        while True:
            answer, dead = await asyncio.to_thread(self._look)
            self._note(answer)
            now = datetime.now(UTC)
            stats = answer if isinstance(answer, PoolStats) else None
            point = self._history.record(now.timestamp(), stats)
            self.feed.publish(orjson.dumps(moment(now, stats, self._chronicle, dead, point)))
            next_at = max(next_at + INTERVAL_S, time.monotonic())  # after a pause, the missed turns are not made up
            await asyncio.sleep(next_at - time.monotonic())

    def history(self) -> bytes:
        """All points of the charts, as JSON."""
        return orjson.dumps({"interval_s": INTERVAL_S, "points": self._history.columns()})

    def _look(self) -> tuple[PoolStats | str, DeadTasks | str | None]:
        """The stats and the dead tasks; for each a text instead if there are none."""
        stats: PoolStats | str
        dead: DeadTasks | str | None
        try:
            stats = self._ask()
        except PoolError as error:
            stats = str(error)
        try:
            dead = None if self._dead is None else self._dead.look()
        except PoolError as error:
            dead = str(error)
        return stats, dead

    def _note(self, stats: PoolStats | str) -> None:
        now, was_away = datetime.now(UTC), self._chronicle.absence
        if isinstance(stats, PoolStats):
            self._chronicle.on_answer(stats, now)
            if was_away is not None:
                away_s = round((now - was_away.since).total_seconds(), 1)
                self._log.info("broker_back", away_s=away_s, epoch=stats.broker.epoch)
        else:
            self._chronicle.on_silence(stats, now)
            if was_away is None:
                self._log.warning("broker_away", reason=stats)
