"""Asks the broker once a second, and remembers: what the page shows."""

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
    """One pool, watched for as long as `run` runs.

    Args:
        ask: as for PoolCollector; it blocks, and is called in a thread.
        dead: as for PoolCollector.
        log: is told when the broker goes and comes.
    """

    def __init__(self, ask: Callable[[], PoolStats], dead: DeadView | None, log: Log) -> None:
        self.feed = Feed()
        self._ask = ask
        self._dead = dead
        self._log = log
        self._history = ChartHistory()
        self._chronicle = Chronicle()

    async def run(self) -> None:
        """Never ends by itself."""
        next_at = time.monotonic()
        while True:
            stats, dead = await asyncio.to_thread(self._look)
            self._note(stats)
            now = datetime.now(UTC)
            figures = stats if isinstance(stats, PoolStats) else None
            point = self._history.record(now.timestamp(), figures)
            self.feed.publish(orjson.dumps(moment(now, figures, self._chronicle, dead, point)))
            next_at = max(next_at + INTERVAL_S, time.monotonic())  # what a frozen machine missed is not made up for
            await asyncio.sleep(next_at - time.monotonic())

    def history(self) -> bytes:
        """All points, as JSON."""
        return orjson.dumps({"interval_s": INTERVAL_S, "points": self._history.columns()})

    def _look(self) -> tuple[PoolStats | str, DeadTasks | str | None]:
        """The figures and the dead tasks, or why there are none."""
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
