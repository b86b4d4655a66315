"""Workers that could not start, by their own words. Knows no socket and no session."""

from collections.abc import Iterator
from typing import NamedTuple

from racepool.broker.actions import Action, Report
from racepool.protocol.messages import CannotStart

MAX_NAMES = 64
FRESH_S = 60.0  # a worker that cannot start tells it about once a second; one that is silent for so long was given up


class FailedStart(NamedTuple):
    """The last start of a worker, which failed."""

    worker: str
    reason: str
    at: float


class FailedStarts:
    """At most one failed start for each name. A worker that becomes ready is taken out."""

    def __init__(self) -> None:
        self._by_name: dict[str, FailedStart] = {}

    def note(self, message: CannotStart, now: float) -> list[Action]:
        """Notes a failed start, and reports it if its reason is a new one. Forgets the oldest of too many names."""
        before = self._by_name.pop(message.name, None)
        self._by_name[message.name] = FailedStart(message.name, message.reason, now)
        if len(self._by_name) > MAX_NAMES:
            del self._by_name[next(iter(self._by_name))]
        if before is not None and before.reason == message.reason and now < before.at + FRESH_S:
            return []
        return [Report("worker_start_failed", {"worker": message.name, "reason": message.reason})]

    def on_ready(self, worker: str) -> None:
        """A worker of this name is ready."""
        self._by_name.pop(worker, None)

    def fresh(self, now: float) -> Iterator[FailedStart]:
        """The workers that still try to start, the latest failure last."""
        return (each for each in self._by_name.values() if now < each.at + FRESH_S)

    def latest(self, now: float) -> str:
        """The latest failure in words; empty if there is none."""
        failures = list(self.fresh(now))
        return f"{failures[-1].worker} cannot start: {failures[-1].reason}" if failures else ""
