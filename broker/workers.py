"""A worker's session as the broker sees it."""

from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Literal

from racepool.broker.tasks import Peer, Task
from racepool.protocol.messages import Id


class LostBy(Enum):
    """Why a session ended: what is logged, whether that is a loss, and whether it costs the task in hand an attempt.

    GONE: the process had ended before it could be watched, so the task that it was given has reached nobody either.
    UNREACHABLE, CUT_OFF: a message could not be sent; in the first case the task in hand was never received.
    OUT_OF_STEP: it says that it is idle while we believe it busy: a message was lost with a connection in between.
    """

    PROCESS_EXIT = ("process_exit", True, True)
    SILENCE = ("silence", True, True)
    REPLACED = ("replaced", True, True)
    RUN_TIMEOUT = ("run_timeout", True, True)
    CANCELLED = ("cancelled", True, True)
    GONE = ("process_exit", True, False)
    OUT_OF_STEP = ("out_of_step", True, True)
    UNREACHABLE = ("unreachable", True, False)
    CUT_OFF = ("unreachable", True, True)
    REVOKED = ("revoked", True, False)
    RENEWED = ("renewed", False, False)
    RECYCLED = ("recycled", False, False)
    GOODBYE = ("goodbye", False, False)

    def __init__(self, reason: str, is_loss: bool, costs_attempt: bool) -> None:  # noqa: FBT001  # the table above
        self.reason = reason
        self.is_loss = is_loss
        self.costs_attempt = costs_attempt


@dataclass(slots=True, eq=False)
class Second:
    """A task that waits in a worker's hands until the one before it is done."""

    task: Task
    lease: int


@dataclass(slots=True, eq=False)
class Recalled:
    """A second that was recalled, until the worker tells what became of it: it may have begun it already.

    The task itself is in other hands. When the worker's own task has ended, it has `patience_s` to tell; its session
    ends `by` that otherwise.
    """

    task_id: Id
    lease: int
    patience_s: float
    by: LostBy = LostBy.RUN_TIMEOUT


@dataclass(slots=True, eq=False)
class Worker:
    """One session of a worker process.

    `peer` is None, and `session` 0, while only heartbeats told of it: it introduced itself while busy with an older
    epoch's task, and can be given nothing before its READY. `lease` is that of `task`, 0 without one; `deadline` is the
    end of its run timeout, infinity without one. It has a `second` only while it has a task, and none while one is
    `recalled`; what is still recalled when its task has ended must be told of by the `deadline`. `idle_since` is when
    its heartbeats, the last of them at `beat_at`, began to say that it has no task though it has one, None if they
    agree with us. `pid` is the kernel's word where the socket is local (`is_local`), or else the worker's own. Instants
    are the broker's clock, in seconds.
    """

    incarnation: Id
    peer: Peer | None
    session: int
    name: str
    pid: int
    is_local: bool
    version: str
    started_at_ms: int
    last_seen: float
    task: Task | None = None
    lease: int = 0
    assigned_at: float = 0.0
    deadline: float = inf
    second: Second | None = None
    recalled: Recalled | None = None
    is_suspect: bool = False
    is_draining: bool = False
    wants_recycling: bool = False
    idle_since: float | None = None
    beat_at: float = -inf
    tasks_completed: int = 0
    tasks_failed: int = 0
    rss_bytes: int | None = None

    def begin(self, task: Task, lease: int, now: float) -> None:
        """This is its task from now on."""
        self.task, self.lease, self.assigned_at = task, lease, now
        self.deadline = now + task.run_timeout_ms / 1000
        self.idle_since = None

    def may_get_second(self, now: float, patience_s: float, silence_s: float) -> bool:
        """Whether a task would be begun soon in its hands, and is safe there."""
        return (
            self.task is not None
            and not self.task.goes_alone
            and now < self.assigned_at + patience_s
            and now < self.last_seen + silence_s
            and not (self.is_suspect or self.is_draining or self.wants_recycling)
        )

    def attempt_at(self, task: Task) -> dict[str, object]:
        """What the log tells of a task in its hands."""
        return {"worker": self.name, "task_id": task.id.hex(), "attempt": task.assignments}

    def has_overrun(self, now: float) -> bool:
        """Whether its task has had its run timeout: by then its own timer ends it, if the broker does not."""
        return self.task is not None and now >= self.assigned_at + self.task.run_timeout_ms / 1000

    def is_out_of_step(self, now: float, liveness_s: float, *, says_busy: bool) -> bool:
        """Whether its heartbeats call it idle, and have for the liveness, while it is busy with this one task.

        To be asked at each beat: the first one after a silence may have overtaken a result.
        """
        if says_busy or self.state == "idle":
            self.idle_since = None
        elif self.idle_since is None or now >= self.beat_at + liveness_s / 2:
            self.idle_since = now
        self.beat_at = now
        return self.idle_since is not None and now >= self.idle_since + liveness_s

    @property
    def state(self) -> Literal["idle", "busy", "draining"]:
        """Idle, or busy with our task, one that was recalled or an older epoch's; draining if that is its last one."""
        if self.task is None and self.recalled is None and self.peer is not None:
            return "idle"
        return "draining" if self.is_draining else "busy"
