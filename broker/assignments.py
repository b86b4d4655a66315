"""Who works on what: tasks go to idle workers, as seconds to busy ones, and back to their places. Knows no client."""

from math import inf

from racepool.broker.actions import Action, Report, SendByValue, SendToWorker
from racepool.broker.ledger import Ledger
from racepool.broker.roster import Roster
from racepool.broker.seconds import Seconds
from racepool.broker.tasks import Task
from racepool.broker.workers import Worker
from racepool.protocol import messages
from racepool.protocol.messages import Epoch
from racepool.protocol.settings import Settings


class Assignments:
    """Gives the tasks of the backlog to workers, in arrival order, each time under a new lease.

    Invariant: while a worker is idle, no task waits that could have been assigned; seconds are only given where
    nobody is idle.
    """

    def __init__(self, settings: Settings, epoch: Epoch, ledger: Ledger, roster: Roster) -> None:
        self.seconds = Seconds()
        self.lease = 0
        self.earliest_deadline = inf
        self._epoch = epoch
        self._ledger = ledger
        self._roster = roster
        self._silence_s = settings.liveness / 2

    def assign(self, now: float) -> list[Action]:
        """Gives what can be given. `earliest_deadline` is then that of all tasks which have just begun."""
        self.earliest_deadline = inf
        actions: list[Action] = []
        while self._roster.idle_count and (task := self._next_task(now)) is not None:
            worker = self._roster.occupy(task, self.lease, now)
            self.earliest_deadline = min(self.earliest_deadline, worker.deadline)
            actions += self._assignment(worker, task)
        return actions + self._assign_seconds(now) if self.seconds.are_worth_it else actions

    def recall_overdue(self, now: float) -> list[Action]:
        """Takes the seconds back that have waited for too long behind a task."""
        return [action for worker in self.seconds.overdue(now) for action in self.recall(worker, now)]

    def recall(self, worker: Worker, now: float) -> list[Action]:
        """Takes its second back before it is begun, if it is not too late for that."""
        assert worker.peer is not None, "who has a second has a peer"  # noqa: S101
        second = self._roster.recall(worker)
        return [SendToWorker(worker.peer, messages.Recall(second.lease)), *self.give_back(worker, second.task, now)]

    def give_back(self, worker: Worker, task: Task, now: float) -> list[Action]:
        """A task that was not begun goes back to its place, as if it had never left it."""
        if task.disowned is not None:
            self._ledger.end(task, task.disowned.value)
            return []
        fields = worker.attempt_at(task)
        task.assignments -= 1
        task.was_returned = True
        self._ledger.backlog.add(task, now)
        return [Report("task_returned", fields | {"queue_depth": self._ledger.backlog.depth})]

    def _assign_seconds(self, now: float) -> list[Action]:
        """Gives what waits to busy workers, while enough waits for that to cost nobody anything.

        Of fewer tasks than workers each would be begun sooner by whoever is idle next. In arrival order: where the
        oldest may be no second, nobody goes past it.
        """
        actions: list[Action] = []
        while (
            self._ledger.backlog.depth >= len(self._roster.workers)
            and (oldest := self._ledger.backlog.oldest()) is not None
            and oldest.may_be_second
            and (worker := self._roster.next_for_second(now, self.seconds.patience_s, self._silence_s))
            and (task := self._next_task(now)) is not None
        ):
            self._roster.give_second(worker, task, self.lease)
            self.seconds.expect(worker, now)
            actions += self._assignment(worker, task, is_second=True)
        return actions

    def _next_task(self, now: float) -> Task | None:
        """The oldest that waits, under a new lease."""
        task = self._ledger.backlog.pop(now)
        if task is not None:
            self.lease += 1
            task.assignments += 1
        return task

    def _assignment(self, worker: Worker, task: Task, *, is_second: bool = False) -> tuple[Action, Action]:
        """Tells worker and log of the latest lease."""
        assert worker.peer is not None, "who is given a task has a peer"  # noqa: S101
        queued_ms = round(task.waited_s * 1000, 3)
        fields = worker.attempt_at(task) | {"queued_ms": queued_ms, "queue_depth": self._ledger.backlog.depth}
        if is_second:
            fields["second"] = True
        words = messages.Assign(
            self._epoch, self.lease, task.id, task.assignments, task.run_timeout_ms, task.is_shared, task.payload
        )
        is_by_value = task.is_shared and (task.goes_by_value or not worker.is_local)
        send = SendByValue(worker.peer, words) if is_by_value else SendToWorker(worker.peer, words)
        return Report("task_assigned", fields), send
