"""Every task from its submission to its one end, and counters that add up. Knows no worker."""

from collections import Counter
from collections.abc import Iterable

from racepool.broker.backlog import Backlog
from racepool.broker.tasks import Client, Task, Withdrawn
from racepool.protocol.messages import Answer, Expire, Id, Outcome, Reject, Submit, Waited
from racepool.protocol.settings import Settings
from racepool.protocol.stats import OUTCOMES


class Ledger:
    """All open tasks. Those that wait are in the backlog, every other one is in one worker's hands.

    Invariant: submitted = queued + in flight + completed + failed + crashed + cancelled + timed out + abandoned.
    """

    def __init__(self, settings: Settings) -> None:
        self.backlog = Backlog()
        self.counters: Counter[str] = Counter()
        self._settings = settings
        self._tasks: dict[Id, Task] = {}
        self._seq = 0

    @property
    def in_flight(self) -> int:
        """How many tasks are in workers' hands."""
        return len(self._tasks) - self.backlog.depth

    def task_of(self, client: Client, task_id: Id) -> Task | None:
        """This client's open task of that id, also if the client was forgotten and has come back."""
        task = self._tasks.get(task_id)
        return task if task is not None and task.client.id == client.id else None

    def submit(self, client: Client, submit: Submit, now: float) -> Reject | None:
        """Enters a task at the end of the order, or refuses it. A task that is open already keeps its place."""
        known = self._tasks.get(submit.task_id)
        if known is not None:
            self._adopt(client, known, submit)
            return None
        refusal = self._refusal(submit)
        if refusal is not None:
            self.counters["rejected"] += 1
            return refusal
        self._seq += 1
        task = Task(
            submit.task_id,
            self._seq,
            client,
            submit.payload,
            submit.is_shared,
            submit.run_timeout_ms,
            now,
            waited_s=submit.waited_ms / 1000,
        )
        self._tasks[task.id] = client.tasks[task.id] = task
        self.counters["submitted"] += 1
        self.backlog.add(task, now)
        return None

    def expire(self, client: Client, expire: Expire, now: float) -> Answer | Waited | None:
        """Answers Expire. Ends a queued task whose wait reached the client's limit.

        For another open task, tells how long it waited. None if the task is not open: its answer is on the way.
        """
        task = self.task_of(client, expire.task_id)
        if task is None:
            return None
        waited_ms = round(task.waited(now) * 1000)
        if not task.is_queued or waited_ms < expire.limit_ms:
            return Waited(task.id, waited_ms, task.is_queued)
        self.end_queued(task, "timed_out", now)
        return task.answer(Outcome.QUEUE_TIMEOUT, b"")

    def end_queued(self, task: Task, counter: str, now: float) -> None:
        """Takes a task out of the backlog, and closes it under this counter."""
        self.backlog.discard(task, now)
        self.end(task, counter)

    def end(self, task: Task, counter: str) -> bool:
        """Closes a task; true if somebody waits for its answer. A withdrawn task has a counter of its own."""
        del self._tasks[task.id]
        task.client.tasks.pop(task.id, None)
        self.counters[task.withdrawn.value if task.withdrawn else counter] += 1
        return task.withdrawn is None

    def abandon(self, client: Client, now: float) -> tuple[int, int]:
        """The client is gone: ends its queued tasks, and withdraws those in flight. Returns the numbers of both."""
        queued = [task for task in client.tasks.values() if task.is_queued]
        for task in queued:
            self.end_queued(task, "abandoned", now)
        for task in client.tasks.values():
            task.withdrawn = task.withdrawn or Withdrawn.ABANDONED
        return len(queued), len(client.tasks)

    def _adopt(self, client: Client, task: Task, submit: Submit) -> None:
        """A client that lost its session submits again what it misses; the task keeps its place.

        Another client may take over a task that nobody waits for: `racepool dead retry`, after an interruption.
        """
        if task.client.id != client.id and task.withdrawn is None:
            self.counters["bad_frames"] += 1
            return
        if task.client.id != client.id:  # the payload may have been in the other client's shared memory, which is gone
            task.client.tasks.pop(task.id, None)
            task.payload, task.is_shared, task.goes_by_value = submit.payload, submit.is_shared, False
            task.run_timeout_ms = submit.run_timeout_ms
        task.client = client
        task.withdrawn = None
        client.tasks[task.id] = task

    def _refusal(self, submit: Submit) -> Reject | None:
        """Tasks that were submitted before may fill the backlog twice over: an earlier broker had accepted them."""
        fold = 2 if submit.again else 1
        depth, limit = self.backlog.depth, fold * self._settings.backlog_limit
        held_bytes, bytes_limit = self.backlog.payload_bytes, fold * self._settings.backlog_bytes
        if depth >= limit:
            return Reject(submit.task_id, depth, limit, in_bytes=False)
        if depth and held_bytes + len(submit.payload) > bytes_limit:
            return Reject(submit.task_id, held_bytes, bytes_limit, in_bytes=True)
        return None

    def audit(self, held: list[Task]) -> Iterable[str]:
        """The invariants that do not hold, given the tasks in workers' hands."""
        queued = [task for task in self._tasks.values() if task.is_queued]
        if len(queued) != self.backlog.depth or sum(len(task.payload) for task in queued) != self.backlog.payload_bytes:
            yield "the backlog counts other tasks than those that are queued"
        if {task.id for task in held} != {task.id for task in self._tasks.values() if not task.is_queued}:
            yield "an open task is in nobody's hands, or a worker holds one that is closed"
        if len(held) != self.in_flight:
            yield "two workers hold one task"
        if self.counters["submitted"] != len(self._tasks) + sum(self.counters[end] for end in OUTCOMES):
            yield "the counters do not add up"
