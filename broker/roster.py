"""Who works here: the workers' sessions, and the list of those that are idle. Knows no client."""

from collections.abc import Iterable
from math import inf

from racepool.broker.tasks import Peer, Task
from racepool.broker.workers import LostBy, Recalled, Second, Worker
from racepool.protocol.messages import Id

MAX_WORKERS = 4_096
MAX_NAMES_AWAY = 1_024
AWAY_S = 10.0


class Roster:
    """All sessions by incarnation; the idle ones in the order in which they became idle.

    Invariants: a worker is in the idle list if and only if it has a peer, no task and nothing recalled. Those that
    could be given a second, in the order in which they began their tasks, have a task, no second and nothing recalled.
    """

    def __init__(self) -> None:
        self.workers: dict[Id, Worker] = {}
        self._at: dict[Peer, Worker] = {}
        self._idle: dict[Id, Worker] = {}
        self._one_handed: dict[Id, Worker] = {}
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
        return next(
            worker
            for worker in self.workers.values()
            if worker.task is task or (worker.second is not None and worker.second.task is task)
        )

    def recalled_from(self, task_id: Id) -> list[Worker]:
        """The workers that have not told yet what became of this task."""
        return [each for each in self.workers.values() if each.recalled and each.recalled.task_id == task_id]

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
        self._one_handed.pop(worker.incarnation, None)
        if worker.peer is not None:
            del self._at[worker.peer]

    def occupy(self, task: Task, lease: int, now: float) -> Worker:
        """Puts the task into the hands of the worker that has been idle for longest. There must be one."""
        worker = self._idle.pop(next(iter(self._idle)))
        worker.begin(task, lease, now)
        self._one_handed[worker.incarnation] = worker
        return worker

    def release(self, worker: Worker, now: float) -> None:
        """The worker's task is in its hands no more: its second is its task now, or it is idle.

        Not yet if one was recalled of which it has not told: it may run that one.
        """
        second, worker.second = worker.second, None
        self._one_handed.pop(worker.incarnation, None)
        if second is not None:
            worker.begin(second.task, second.lease, now)
            self._one_handed[worker.incarnation] = worker
            return
        worker.task, worker.lease, worker.deadline = None, 0, inf
        worker.idle_since = None  # it has just spoken of this task; whether it is idle now is another question
        if worker.recalled is None:
            self._idle[worker.incarnation] = worker
        else:
            worker.deadline = now + worker.recalled.patience_s

    def next_for_second(self, now: float, patience_s: float, silence_s: float) -> Worker | None:
        """Of those that may be given a second, the one that has been at its task for longest.

        Who may not is not looked at again before its next task, so that this is no search.
        """
        while self._one_handed:
            worker = next(iter(self._one_handed.values()))
            if worker.may_get_second(now, patience_s, silence_s):
                return worker
            del self._one_handed[worker.incarnation]
        return None

    def give_second(self, worker: Worker, task: Task, lease: int) -> None:
        """Puts the task into its hands, behind the one that it has."""
        worker.second = Second(task, lease)
        del self._one_handed[worker.incarnation]

    def take_second(self, worker: Worker) -> Second:
        """Takes its second out of its hands, where it never was."""
        second, worker.second = worker.second, None
        assert second is not None, "only who has a second can lose it"  # noqa: S101
        return second

    def recall(self, worker: Worker) -> Second:
        """Takes its second out of its hands, as far as we know."""
        second = self.take_second(worker)
        worker.recalled = Recalled(second.task.id, second.lease, second.task.run_timeout_ms / 1000)
        return second

    def hasten(self, worker: Worker, patience_s: float, by: LostBy, now: float) -> None:
        """It has only so long, from the end of its task on, to tell what became of what was recalled, if not less."""
        assert worker.recalled is not None, "only who was recalled one can be hastened"  # noqa: S101
        left_s = worker.deadline - now if worker.task is None else worker.recalled.patience_s
        if patience_s < left_s:
            worker.recalled.patience_s, worker.recalled.by = patience_s, by
            if worker.task is None:
                worker.deadline = now + patience_s

    def settle(self, worker: Worker) -> None:
        """It told what became of what was recalled."""
        worker.recalled = None
        if worker.task is None:
            worker.deadline = inf
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
            if (worker.incarnation in self._idle) != (worker.state == "idle"):
                yield f"worker {worker.name} is {worker.state}, the idle list says otherwise"
            if worker.second is not None and (worker.task is None or worker.recalled is not None):
                yield f"worker {worker.name} has a second without a task, or while one is recalled"
            if worker.incarnation in self._one_handed and (
                worker.task is None or worker.second is not None or worker.recalled is not None
            ):
                yield f"worker {worker.name} is listed for a second that it must not have"
            if (worker.deadline < inf) != (worker.task is not None or worker.recalled is not None):
                yield f"worker {worker.name} has a deadline for nothing, or none"
            if worker.peer is not None and self._at.get(worker.peer) is not worker:
                yield f"worker {worker.name} cannot be found by its peer"
        if len(self._at) != sum(worker.peer is not None for worker in self.workers.values()):
            yield "a peer leads to no worker"
