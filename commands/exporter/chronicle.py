"""What happened: the broker's events, also of earlier brokers, and the times at which no broker answered. Pure."""

from collections import deque
from dataclasses import dataclass
from datetime import datetime

from racepool.protocol.stats import Event, PoolStats, WorkerStats

EVENTS = 100
NAMES = 8_192  # twice the number of workers that a broker may know


@dataclass(frozen=True, slots=True)
class Absence:
    """Since when no broker has answered, and why."""

    since: datetime
    reason: str


class Chronicle:
    """Follows one pool.

    `absence` is None while the broker answers. `missing` names workers that were there before, while there are fewer
    workers than expected.
    """

    def __init__(self) -> None:
        self.events: deque[Event] = deque(maxlen=EVENTS)
        self.absence: Absence | None = None
        self.missing: list[str] = []
        self._epoch: str | None = None
        self._known: frozenset[Event] = frozenset()
        self._names: dict[str, None] = {}

    def on_answer(self, stats: PoolStats, now: datetime) -> None:
        """The broker answered with its stats."""
        if self._epoch is not None and self._epoch != stats.broker.epoch:
            self._add("broker_started", now)
        elif self.absence is not None:
            self._add("broker_back", now)
        if self._epoch != stats.broker.epoch:
            self._known = frozenset()
        self.absence, self._epoch = None, stats.broker.epoch
        self.events.extend(event for event in stats.recent_events if event not in self._known)
        self._known = frozenset(stats.recent_events)
        self._note_names(stats.workers, stats.expected_workers)

    def on_silence(self, reason: str, now: datetime) -> None:
        """The broker did not answer."""
        if self.absence is None:
            self._add("broker_away", now)
            self.absence = Absence(now, reason)
        else:
            self.absence = Absence(self.absence.since, reason)

    def _note_names(self, workers: list[WorkerStats], expected: int) -> None:
        there = {worker.name for worker in workers}
        if len(there) >= expected:
            self._names = dict.fromkeys(there)
        else:
            self._names |= dict.fromkeys(there)
        while len(self._names) > NAMES:
            del self._names[next(iter(self._names))]
        gone = sorted(name for name in self._names if name not in there)
        self.missing = gone[: max(0, expected - len(there))]

    def _add(self, event: str, now: datetime) -> None:
        self.events.append(Event(at=now, event=event, worker=None, task_id=None, reason=None))
