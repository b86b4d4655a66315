"""A worker's session as the broker sees it."""

from dataclasses import dataclass
from math import inf
from typing import Literal

from racepool.broker.session_end import SessionEnd
from racepool.broker.tasks import Peer, Task
from racepool.protocol.messages import Id, Name


@dataclass(slots=True, eq=False)
class Prefetched:
    """A task that waits in a worker's hands until the one before it is done."""

    task: Task
    lease: int
    given_at: float  # on the broker's clock, in seconds


@dataclass(slots=True, eq=False)
class Recalled:
    """A prefetched task that was recalled, until the worker tells what became of it: it may have begun it already.

    The broker has put the task itself back into the backlog, or has ended it.
    """

    task_id: Id
    lease: int
    return_s: float  # how long the worker has to tell, from the end of its own task
    end: SessionEnd = SessionEnd.RUN_TIMEOUT  # how its session ends if it does not tell in time


@dataclass(slots=True, eq=False)
class Worker:
    """One session of a worker process. Instants are the broker's clock, in seconds.

    Invariants: it has a `prefetched` task only while it has a `task`, and none while one is `recalled`; it has a
    `deadline` if and only if it has a task or one is recalled.
    """

    session_id: Id
    peer: Peer | None  # None before its READY: a heartbeat told that it is busy with an older epoch's task
    session_number: int  # its process counts its sessions from 1; 0 before its READY
    name: Name
    pid: int  # from the kernel where the socket is local; else what the worker says
    is_local: bool
    version: str
    started_at_ms: int
    last_seen: float
    task: Task | None = None
    lease: int = 0  # of `task`; 0 without one
    assigned_at: float = 0.0  # when `task` began: at its assignment, or at the end of the one before it
    deadline: float = inf  # the end of the run timeout; without a task, the last instant to answer the recall
    prefetched: Prefetched | None = None
    recalled: Recalled | None = None
    is_suspect: bool = False  # it was silent for half the liveness, and its process was looked at
    is_draining: bool = False
    wants_recycling: bool = False
    idle_since: float | None = None  # since when its heartbeats say that it is idle though it has a task; None if not
    beat_at: float = -inf  # its last heartbeat
    tasks_completed: int = 0
    tasks_failed: int = 0
    rss_bytes: int | None = None

    def begin(self, task: Task, lease: int, now: float) -> None:
        """This is its task from now on."""
        self.task, self.lease, self.assigned_at = task, lease, now
        self.deadline = now + task.run_timeout_ms / 1000
        self.idle_since = None

    def end_attempt(self, now: float) -> float:
        """Notes in its task that the attempt ends now. Leaves the task in its hands.

        Returns:
            How long the attempt ran, in seconds.
        """
        assert self.task is not None, "only a worker with a task runs"  # noqa: S101
        run_s = now - self.assigned_at
        self.task.last_worker, self.task.last_run_s = self.name, run_s
        return run_s

    def may_prefetch(self, now: float, max_run_s: float, max_silence_s: float) -> bool:
        """Whether it would begin a prefetched task soon, and the task is safe in its hands."""
        return (
            self.task is not None
            and not self.task.goes_alone
            and now < self.assigned_at + max_run_s
            and now < self.last_seen + max_silence_s
            and not (self.is_suspect or self.is_draining or self.wants_recycling)
        )

    def attempt_at(self, task: Task) -> dict[str, object]:
        """The log fields of a task in its hands."""
        return {"worker": self.name, "task_id": task.id.hex(), "attempt": task.assignments}

    def has_overrun(self, now: float) -> bool:
        """Whether its task's run timeout is over. The worker's own timer may have ended the process by then."""
        return self.task is not None and now >= self.assigned_at + self.task.run_timeout_ms / 1000

    def is_out_of_step(self, now: float, liveness_s: float, *, says_busy: bool) -> bool:
        """Whether its heartbeats have called it idle for the whole liveness, while it is busy with this one task.

        Must be called at each heartbeat. After a silence the time counts from the first heartbeat: that one may have
        overtaken a result.
        """
        if says_busy or self.state == "idle":
            self.idle_since = None
        elif self.idle_since is None or now >= self.beat_at + liveness_s / 2:
            self.idle_since = now
        self.beat_at = now
        return self.idle_since is not None and now >= self.idle_since + liveness_s

    @property
    def state(self) -> Literal["idle", "busy", "draining"]:
        """`busy` with its task, a recalled one, or an older epoch's; `draining` if it ends after that; else `idle`."""
        if self.task is None and self.recalled is None and self.peer is not None:
            return "idle"
        return "draining" if self.is_draining else "busy"
