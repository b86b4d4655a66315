"""Local worker processes that do not speak: their sessions are over, they are still there. Kills nothing."""

from collections.abc import Iterable
from math import inf

from racepool.broker.workers import Worker
from racepool.protocol.messages import Id

PATIENCE = 5
"""How many times the liveness a process may be silent before it counts as frozen for good."""


class FrozenProcesses:
    """Processes by the session that was lost in silence, could not be reached, or was told to end.

    supervisord takes them for running, so nobody else ends them. Who speaks again is spared. Who does not is overdue
    `PATIENCE` times the liveness after its last sign of life.
    """

    def __init__(self, liveness_s: float) -> None:
        self._liveness_s = liveness_s
        self._kill_at: dict[Id, float] = {}
        self._workers: dict[Id, Worker] = {}

    @property
    def sessions(self) -> list[Id]:
        """Whose processes are here."""
        return list(self._workers)

    def add(self, worker: Worker) -> float:
        """Takes the process on; returns when it will be overdue."""
        kill_at = worker.last_seen + PATIENCE * self._liveness_s
        self._kill_at[worker.incarnation] = kill_at
        self._workers[worker.incarnation] = worker
        return kill_at

    def spared(self, incarnation: Id, pid: int | None) -> list[Id]:
        """Lets go the processes that spoke, by this lost session or by this pid; names their sessions."""
        return self._let_go(
            each.incarnation for each in self._workers.values() if incarnation == each.incarnation or pid == each.pid
        )

    def ended(self, incarnations: Iterable[Id]) -> list[Id]:
        """Lets go those of these that are here, because their process ended."""
        return self._let_go(each for each in incarnations if each in self._workers)

    def overdue(self, now: float) -> list[Worker]:
        """Lets go those that have been silent for too long: they are to be killed."""
        workers = [self._workers[incarnation] for incarnation, kill_at in self._kill_at.items() if kill_at <= now]
        self._let_go(worker.incarnation for worker in workers)
        return workers

    def on_pause(self, now: float) -> None:
        """The broker stood still: what they said meanwhile may not have been read yet."""
        self._kill_at = {each: max(kill_at, now + self._liveness_s / 2) for each, kill_at in self._kill_at.items()}

    def next_check(self) -> float:
        """When one of them will be overdue."""
        return min(self._kill_at.values(), default=inf)

    def _let_go(self, incarnations: Iterable[Id]) -> list[Id]:
        gone = list(incarnations)
        for incarnation in gone:
            del self._kill_at[incarnation], self._workers[incarnation]
        return gone
