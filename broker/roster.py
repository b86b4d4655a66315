"""All sessions of workers, and lists of those that can be given work. Knows no client."""

from collections.abc import Iterable
from math import inf

from racepool.broker.session_end import SessionEnd
from racepool.broker.tasks import Peer, Task
from racepool.broker.workers import Prefetched, Recalled, Worker
from racepool.protocol.messages import Id

MAX_WORKERS = 4_096
MAX_NAMES_AWAY = 1_024
AWAY_S = 10.0


class Roster:
    """All sessions by their ids; the idle workers in the order in which they became idle.

    Invariants: a worker is in the idle list if and only if it has a peer, no task and nothing recalled. A worker with
    a free hand has a task, nothing prefetched and nothing recalled; these are listed in the order in which they began
    their tasks.
    """

    def __init__(self) -> None:
        self.workers: dict[Id, Worker] = {}
        self._at: dict[Peer, Worker] = {}
        self._idle: dict[Id, Worker] = {}
        self._with_free_hand: dict[Id, Worker] = {}
        self._away_since: dict[str, float] = {}

    @property
    def idle_count(self) -> int:
        """How many workers wait for a task."""
        return len(self._idle)

    @property
    def is_full(self) -> bool:
        """Whether the limit of sessions is reached."""
        return len(self.workers) >= MAX_WORKERS

    def at(self, peer: Peer) -> Worker | None:
        """The worker whose data socket this is."""
        return self._at.get(peer)

    def holder(self, task: Task) -> Worker:
        """The worker that has this task in its hands."""
        return next(
            worker
            for worker in self.workers.values()
            if worker.task is task or (worker.prefetched is not None and worker.prefetched.task is task)
        )

    def recalled_from(self, task_id: Id) -> list[Worker]:
        """The workers that have not told yet what became of this task."""
        return [each for each in self.workers.values() if each.recalled and each.recalled.task_id == task_id]

    def sessions_of(self, name: str, pid: int) -> list[Worker]:
        """The sessions of this process; more than one only while a new one opens."""
        return [worker for worker in self.workers.values() if (worker.name, worker.pid) == (name, pid)]

    def forerunners(self, name: str, pid: int) -> list[Worker]:
        """The sessions that a new one ends.

        A local process with another pid may still live; its pidfd tells when it ends.
        """
        return [
            worker
            for worker in self.workers.values()
            if worker.name == name and (worker.pid == pid or not worker.is_local)
        ]

    def add(self, worker: Worker) -> None:
        """Adds a new session. It is idle at once if it has a peer."""
        self.workers[worker.session_id] = worker
        if worker.peer is not None:
            self._at[worker.peer] = worker
            self._idle[worker.session_id] = worker

    def remove(self, worker: Worker) -> None:
        """Removes a session that ended."""
        del self.workers[worker.session_id]
        self._idle.pop(worker.session_id, None)
        self._with_free_hand.pop(worker.session_id, None)
        if worker.peer is not None:
            del self._at[worker.peer]

    def occupy(self, task: Task, lease: int, now: float) -> Worker:
        """Puts the task into the hands of the worker that has been idle for longest. At least one must be idle."""
        worker = self._idle.pop(next(iter(self._idle)))
        worker.begin(task, lease, now)
        self._with_free_hand[worker.session_id] = worker
        return worker

    def release(self, worker: Worker, now: float) -> None:
        """The worker's task is not in its hands any more. Its prefetched task is its task now; without one, it is idle.

        But it is not idle while it has not told what became of a recalled task: it may run that one.
        """
        self._with_free_hand.pop(worker.session_id, None)
        if worker.prefetched is not None:
            prefetched = self.take_prefetched(worker, now)
            worker.begin(prefetched.task, prefetched.lease, now)
            self._with_free_hand[worker.session_id] = worker
            return
        worker.task, worker.lease, worker.deadline = None, 0, inf
        worker.idle_since = None  # its message shows that it knew this task; only later heartbeats count
        if worker.recalled is None:
            self._idle[worker.session_id] = worker
        else:
            worker.deadline = now + worker.recalled.return_s

    def next_to_prefetch(self, now: float, max_run_s: float, max_silence_s: float) -> Worker | None:
        """The worker that has been at its task for longest, of those that may prefetch.

        A worker that may not is taken off the list until its next task, so that this stays quick.
        """
        while self._with_free_hand:
            worker = next(iter(self._with_free_hand.values()))
            if worker.may_prefetch(now, max_run_s, max_silence_s):
                return worker
            del self._with_free_hand[worker.session_id]
        return None

    def give_prefetched(self, worker: Worker, task: Task, lease: int, now: float) -> None:
        """Puts the task into the worker's hands, behind the one that it has."""
        worker.prefetched = Prefetched(task, lease, now)
        del self._with_free_hand[worker.session_id]

    def take_prefetched(self, worker: Worker, now: float) -> Prefetched:
        """Takes the prefetched task out of the worker's hands, and notes how long it waited there."""
        prefetched, worker.prefetched = worker.prefetched, None
        assert prefetched is not None, "only a prefetched task can be taken"  # noqa: S101
        prefetched.task.hand_wait_s = now - prefetched.given_at
        return prefetched

    def recall(self, worker: Worker, now: float) -> Prefetched:
        """Takes the prefetched task back. The worker has yet to tell whether it had begun it."""
        prefetched = self.take_prefetched(worker, now)
        worker.recalled = Recalled(prefetched.task.id, prefetched.lease, prefetched.task.run_timeout_ms / 1000)
        return prefetched

    def hasten(self, worker: Worker, return_s: float, end: SessionEnd, now: float) -> None:
        """Shortens the time that the worker has to tell of a recalled task; a shorter time stays as it is.

        The time runs from the end of the worker's own task, or from now if that has ended.
        """
        assert worker.recalled is not None, "only a worker with a recalled task can be hastened"  # noqa: S101
        left_s = worker.deadline - now if worker.task is None else worker.recalled.return_s
        if return_s < left_s:
            worker.recalled.return_s, worker.recalled.end = return_s, end
            if worker.task is None:
                worker.deadline = now + return_s

    def settle(self, worker: Worker) -> None:
        """The worker told what became of its recalled task."""
        worker.recalled = None
        if worker.task is None:
            worker.deadline = inf
            self._idle[worker.session_id] = worker

    def mark_away(self, worker: Worker, now: float) -> None:
        """Remembers since when this name is missing; forgets the oldest of too many names."""
        self._away_since.pop(worker.name, None)
        self._away_since[worker.name] = now
        if len(self._away_since) > MAX_NAMES_AWAY:
            del self._away_since[next(iter(self._away_since))]

    def take_away_since(self, name: str) -> float | None:
        """Since when a worker of this name was missing; None if it was not. Forgets the name."""
        return self._away_since.pop(name, None)

    def somebody_is_away_until(self, now: float) -> float | None:
        """Until when the pool waits for the worker that went missing last; None if it waits for none."""
        latest = next(reversed(self._away_since.values()), None)
        return None if latest is None or now >= latest + AWAY_S else latest + AWAY_S

    def audit(self) -> Iterable[str]:
        """The invariants that do not hold."""
        for worker in self.workers.values():
            if (worker.session_id in self._idle) != (worker.state == "idle"):
                yield f"worker {worker.name} is {worker.state}, the idle list says otherwise"
            if worker.prefetched is not None and (worker.task is None or worker.recalled is not None):
                yield f"worker {worker.name} has prefetched without a task, or while one is recalled"
            if worker.session_id in self._with_free_hand and (
                worker.task is None or worker.prefetched is not None or worker.recalled is not None
            ):
                yield f"worker {worker.name} is listed as one that may prefetch, and may not"
            if (worker.deadline < inf) != (worker.task is not None or worker.recalled is not None):
                yield f"worker {worker.name} has a deadline for nothing, or none"
            if worker.peer is not None and self._at.get(worker.peer) is not worker:
                yield f"worker {worker.name} cannot be found by its peer"
        if not (self._idle.keys() | self._with_free_hand.keys()) <= self.workers.keys():
            yield "a session that is over is listed as one that can be given work"
        if len(self._at) != sum(worker.peer is not None for worker in self.workers.values()):
            yield "a peer leads to no worker"
