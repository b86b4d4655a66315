"""Local worker processes that are silent after the end of their sessions. Kills nothing."""

from collections.abc import Iterable
from math import inf

from racepool.broker.workers import Worker
from racepool.protocol.messages import Id

PATIENCE = 5
"""After a silence of this many times the liveness a process counts as frozen for good."""


class FrozenProcesses:
    """Local processes that may live on after the end of their sessions, by session.

    Such a process fell silent, could not be reached, or was told to end. supervisord believes that it runs, so nobody
    else ends it. A process that speaks again is spared. Any other is overdue `PATIENCE` times the liveness
    after its last sign of life.
    """

    def __init__(self, liveness_s: float) -> None:
        self._liveness_s = liveness_s
        self._kill_at: dict[Id, float] = {}
        self._workers: dict[Id, Worker] = {}

    @property
    def sessions(self) -> list[Id]:
        """The sessions of these processes."""
        return list(self._workers)

    def add(self, worker: Worker) -> float:
        """Adds the process of this worker; returns when it will be overdue."""
        kill_at = worker.last_seen + PATIENCE * self._liveness_s
        self._kill_at[worker.session_id] = kill_at
        self._workers[worker.session_id] = worker
        return kill_at

    def spared(self, session_id: Id, pid: int | None) -> list[Id]:
        """Removes the processes of this session and of this pid, because they spoke; returns their sessions."""
        return self._let_go(
            each.session_id for each in self._workers.values() if session_id == each.session_id or pid == each.pid
        )

    def ended(self, session_ids: Iterable[Id]) -> list[Id]:
        """Removes the processes of these sessions, because they ended; returns the sessions that were here."""
        return self._let_go(each for each in session_ids if each in self._workers)

    def overdue(self, now: float) -> list[Worker]:
        """Removes the processes that have been silent for too long, and returns them: they must be killed."""
        workers = [self._workers[session_id] for session_id, kill_at in self._kill_at.items() if kill_at <= now]
        self._let_go(worker.session_id for worker in workers)
        return workers

    def on_pause(self, now: float) -> None:
        """The broker itself stood still: it may not have read yet what they said."""
        self._kill_at = {each: max(kill_at, now + self._liveness_s / 2) for each, kill_at in self._kill_at.items()}

    def next_check(self) -> float:
        """When the next of them will be overdue."""
        return min(self._kill_at.values(), default=inf)

    def _let_go(self, session_ids: Iterable[Id]) -> list[Id]:
        gone = list(session_ids)
        for session_id in gone:
            del self._kill_at[session_id], self._workers[session_id]
        return gone
