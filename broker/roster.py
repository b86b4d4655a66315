"""Who works here: the workers' sessions, and the list of those that are idle. Knows no client."""

from collections.abc import Iterable
from math import inf

from broker.tasks import Peer, Task
from broker.workers import Worker
from protocol.messages import Id

MAX_WORKERS = 4_096
MAX_NAMES_AWAY = 1_024
AWAY_S = 10.0


class Roster:
    """All sessions by incarnation; the idle ones in the order in which they became idle.

    Invariant: a worker is in the idle list if and only if it has a peer and no task.
    """

    def __init__(self) -> None:
        self.workers: dict[Id, Worker] = {}
        self._at: dict[Peer, Worker] = {}
        self._idle: dict[Id, Worker] = {}
        self._away_since: dict[str, float] = {}

    @property
    def idle_count(self) -> int:
        """How many workers wait for a task."""
        return len(self._idle)

    @property
    def is_full(self) -> bool:
        """Whether there is no room for one more session."""
        return len(self.workers) >= MAX_WORKERS

    def at(self, peer: Peer) -> Worker | None:
        """The worker whose data socket this is."""
        return self._at.get(peer)

    def holder(self, task: Task) -> Worker:
        """The worker that has this task in its hands."""
        return next(worker for worker in self.workers.values() if worker.task is task)

    def sessions_of(self, name: str, pid: int) -> list[Worker]:
        """The sessions of this very process; more than one only while a new one opens."""
        return [worker for worker in self.workers.values() if (worker.name, worker.pid) == (name, pid)]

    def forerunners(self, name: str, pid: int) -> list[Worker]:
        """The sessions that a new one ends. A local process of another pid is left to its pidfd: it may well live."""
        return [
            worker
            for worker in self.workers.values()
            if worker.name == name and (worker.pid == pid or not worker.is_local)
        ]

    def add(self, worker: Worker) -> None:
        """A new session; idle at once if it can be given work."""
        self.workers[worker.incarnation] = worker
        if worker.peer is not None:
            self._at[worker.peer] = worker
            self._idle[worker.incarnation] = worker

    def remove(self, worker: Worker) -> None:
        """The session ended."""
        del self.workers[worker.incarnation]
        self._idle.pop(worker.incarnation, None)
        if worker.peer is not None:
            del self._at[worker.peer]

    def occupy(self, task: Task, lease: int, now: float) -> Worker:
        """Puts the task into the hands of the worker that has been idle for longest. There must be one."""
        worker = self._idle.pop(next(iter(self._idle)))
        worker.task, worker.lease, worker.assigned_at = task, lease, now
        worker.deadline = now + task.run_timeout_ms / 1000
        worker.idle_since = None
        return worker

    def release(self, worker: Worker) -> None:
        """The worker gave its task back, done."""
        worker.task, worker.lease, worker.deadline = None, 0, inf
        self._idle[worker.incarnation] = worker

    def mark_away(self, worker: Worker, now: float) -> None:
        """Remembers since when this name is missing, for as long as there are not too many."""
        self._away_since.pop(worker.name, None)
        self._away_since[worker.name] = now
        if len(self._away_since) > MAX_NAMES_AWAY:
            del self._away_since[next(iter(self._away_since))]

    def take_away_since(self, name: str) -> float | None:
        """Since when a worker of this name was missing, if it was and nobody has taken its place yet."""
        return self._away_since.pop(name, None)

    def somebody_is_away_until(self, now: float) -> float | None:
        """When the last one who went missing will no longer be waited for; None if nobody is missed."""
        latest = next(reversed(self._away_since.values()), None)
        return None if latest is None or now >= latest + AWAY_S else latest + AWAY_S

    def audit(self) -> Iterable[str]:
        """The invariants that do not hold."""
        for worker in self.workers.values():
            if (worker.incarnation in self._idle) != (worker.peer is not None and worker.task is None):
                yield f"worker {worker.name} is {worker.state}, the idle list says otherwise"
            if worker.peer is not None and self._at.get(worker.peer) is not worker:
                yield f"worker {worker.name} cannot be found by its peer"
        if len(self._at) != sum(worker.peer is not None for worker in self.workers.values()):
            yield "a peer leads to no worker"
