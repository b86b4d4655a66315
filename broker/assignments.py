"""Which worker gets which task, and how each assignment ends. Knows no session of a client and opens no payload."""

from math import inf

from racepool.broker.actions import Action, KeepDeadTask, Report, SendByValue, SendToClient, SendToWorker
from racepool.broker.ledger import Ledger
from racepool.broker.prefetch import Prefetch
from racepool.broker.roster import Roster
from racepool.broker.session_end import SessionEnd
from racepool.broker.tasks import Death, Task
from racepool.broker.workers import Worker
from racepool.protocol import messages
from racepool.protocol.errors import CrashedAttempt
from racepool.protocol.failures import pack_crashes
from racepool.protocol.messages import Epoch, Outcome, Payload
from racepool.protocol.quarantine import file_of
from racepool.protocol.settings import Settings


class Assignments:
    """Gives the tasks of the backlog to workers, in arrival order, each time under a new lease; takes them back.

    Invariant: while a worker is idle, no task waits that could have been assigned. Tasks are prefetched only while no
    worker is idle.
    """

    def __init__(self, settings: Settings, epoch: Epoch, ledger: Ledger, roster: Roster) -> None:
        self.ledger = ledger
        self.roster = roster
        self.prefetch = Prefetch()
        self.lease = 0
        self.earliest_deadline = inf
        self._settings = settings
        self._epoch = epoch
        self._max_silence_s = settings.liveness / 2

    def assign(self, now: float) -> list[Action]:
        """Assigns all that can be assigned. Sets `earliest_deadline` to that of the tasks that have just begun."""
        self.earliest_deadline = inf
        actions: list[Action] = []
        while self.roster.idle_count and (task := self._next_task(now)) is not None:
            worker = self.roster.occupy(task, self.lease, now)
            self.earliest_deadline = min(self.earliest_deadline, worker.deadline)
            actions += self._assignment(worker, task)
        return actions + self._assign_ahead(now) if self.prefetch.pays else actions

    def recall_overdue(self, now: float) -> list[Action]:
        """Recalls the prefetched tasks that have waited for too long."""
        return [action for worker in self.prefetch.overdue(now) for action in self.recall(worker, now)]

    def recall(self, worker: Worker, now: float) -> list[Action]:
        """Asks the worker not to begin its prefetched task, and treats the task as not begun."""
        assert worker.peer is not None, "a worker with a prefetched task has a peer"  # noqa: S101
        prefetched = self.roster.recall(worker, now)
        recall = SendToWorker(worker.peer, messages.Recall(prefetched.lease))
        return [recall, *self.requeue_unbegun(worker, prefetched.task, now)]

    def requeue_unbegun(self, worker: Worker, task: Task, now: float) -> list[Action]:
        """A task that was not begun goes back to its place; its assignment does not count."""
        if task.withdrawn is not None:
            self.ledger.end(task, task.withdrawn.value)
            return []
        fields = worker.attempt_at(task)
        task.assignments -= 1
        task.was_returned = True
        self.ledger.backlog.add(task, now)
        return [Report("task_returned", fields | {"queue_depth": self.ledger.backlog.depth})]

    def requeue_tasks_of(self, worker: Worker, end: SessionEnd, now: float, signal: int | None) -> list[Action]:
        """The worker's session ended. Its task goes back to its place, or ends; its prefetched task goes back.

        The prefetched task was not begun, so it costs no attempt. But the worker's last messages may be lost, and it
        may have begun that task. So after a death neither of the two shares a worker's hands with another task.
        """
        actions: list[Action] = []
        if worker.task is not None:
            actions += self._requeue_or_give_up(worker, worker.task, end, now, signal)
        if worker.prefetched is not None:
            prefetched = self.roster.take_prefetched(worker, now).task
            prefetched.goes_alone |= end.costs_attempt
            actions += self.requeue_unbegun(worker, prefetched, now)
        return actions

    def answer(self, task: Task, outcome: Outcome, payload: Payload, counter: str) -> list[Action]:
        """Ends the task. Its client gets the one answer, unless it does not wait any more."""
        if not self.ledger.end(task, counter):
            return []
        return [SendToClient(task.client.peer, task.answer(outcome, payload))]

    def _requeue_or_give_up(
        self, worker: Worker, task: Task, end: SessionEnd, now: float, signal: int | None
    ) -> list[Action]:
        fields = worker.attempt_at(task)
        if end.was_task_received:
            worker.end_attempt(now)
        else:
            task.assignments -= 1
        worker.task = None
        if end.costs_attempt:
            task.deaths += (Death(worker.name, end.reason, signal, worker.assigned_at, now),)
            task.goes_alone = True
        if end is SessionEnd.RUN_TIMEOUT or task.withdrawn is not None:
            return self.answer(task, Outcome.RUN_TIMEOUT, b"", "timed_out")
        if len(task.deaths) >= self._settings.max_attempts:
            return self._give_up(task, fields)
        self.ledger.counters["requeued"] += 1
        self.ledger.backlog.add(task, now)
        return [Report("task_requeued", fields | {"queue_depth": self.ledger.backlog.depth})]

    def _give_up(self, task: Task, fields: dict[str, object]) -> list[Action]:
        """Makes it a dead task. The answer names no signals: the file of the dead task has them."""
        crashes = pack_crashes([CrashedAttempt(death.worker, None) for death in task.deaths])
        return [
            KeepDeadTask(task.id, task.run_timeout_ms, task.deaths, task.is_shared, task.payload),
            *self.answer(task, Outcome.CRASHED, crashes, "crashed"),
            Report("task_given_up", fields | {"kept_in": str(file_of(self._settings.dir, task.id))}),
        ]

    def _assign_ahead(self, now: float) -> list[Action]:
        """Gives tasks to busy workers in advance, but only if no other worker would begin them sooner.

        So at least as many tasks must wait as there are workers. If the oldest task may not be prefetched, none is: the
        order is kept.
        """
        actions: list[Action] = []
        while (
            self.ledger.backlog.depth >= len(self.roster.workers)
            and (oldest := self.ledger.backlog.oldest()) is not None
            and oldest.may_be_prefetched
            and (worker := self.roster.next_to_prefetch(now, self.prefetch.max_wait_s, self._max_silence_s))
            and (task := self._next_task(now)) is not None
        ):
            self.roster.give_prefetched(worker, task, self.lease, now)
            self.prefetch.expect(worker, now)
            actions += self._assignment(worker, task, is_prefetched=True)
        return actions

    def _next_task(self, now: float) -> Task | None:
        """The oldest task that waits, under a new lease."""
        task = self.ledger.backlog.pop(now)
        if task is not None:
            self.lease += 1
            task.assignments += 1
        return task

    def _assignment(self, worker: Worker, task: Task, *, is_prefetched: bool = False) -> tuple[Action, Action]:
        """The log line and the message for the latest lease."""
        assert worker.peer is not None, "a worker that is given a task has a peer"  # noqa: S101
        queued_ms = round(task.waited_s * 1000, 3)
        fields = worker.attempt_at(task) | {"queued_ms": queued_ms, "queue_depth": self.ledger.backlog.depth}
        if is_prefetched:
            fields["second"] = True
        message = messages.Assign(
            self._epoch, self.lease, task.id, task.assignments, task.run_timeout_ms, task.is_shared, task.payload
        )
        is_by_value = task.is_shared and (task.goes_by_value or not worker.is_local)
        send = SendByValue(worker.peer, message) if is_by_value else SendToWorker(worker.peer, message)
        return Report("task_assigned", fields), send
