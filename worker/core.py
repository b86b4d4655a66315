"""The worker's decisions: its session with the broker and the task in hand. Knows no socket, clock or transform.

A session is one incarnation on one fresh socket, opened by READY and confirmed by WELCOME, which names the broker's
epoch. It ends when the broker no longer knows it (WHO) or has become another (a new epoch). A busy worker finishes
first: its result would be stale, and is dropped.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import TypeAlias, assert_never

from protocol.messages import (
    Bye,
    Epoch,
    FromWorker,
    Id,
    Name,
    Outcome,
    Ready,
    Recycle,
    Result,
    Task,
    ToWorker,
    Welcome,
    Who,
)


@dataclass(frozen=True, slots=True)
class OpenSession:
    """Close the socket, open a fresh one and send this READY through it."""

    ready: Ready


@dataclass(frozen=True, slots=True)
class Send:
    """Send this through the session's socket."""

    message: FromWorker


@dataclass(frozen=True, slots=True)
class Execute:
    """Run the transform on this task; its end comes back as `on_finished`."""

    task: Task


@dataclass(frozen=True, slots=True)
class Exit:
    """Leave, when all that was sent has gone out."""


@dataclass(frozen=True, slots=True)
class Report:
    """What an operator must know: one log line."""

    event: str


Action: TypeAlias = OpenSession | Send | Execute | Exit | Report


@dataclass(frozen=True, slots=True)
class Identity:
    """What is the same in all sessions of a worker process."""

    name: Name
    pid: int
    version: Name
    started_at_ms: int


@dataclass(frozen=True, slots=True)
class Session:
    """One incarnation, the epoch that welcomed it (None until then), and how often that broker wants to hear of it.

    Replaced whole: another thread reads it.
    """

    incarnation: Id
    epoch: Epoch | None = None
    beat_s: float = inf


class WorkerCore:
    """One worker's session and task.

    Invariants: `task` is set from its Execute to its `on_finished`; a result is sent at most once, and only into the
    session that brought its task.
    """

    def __init__(self, identity: Identity, new_id: Callable[[], Id], *, liveness_s: float, max_tasks: int) -> None:
        self.identity = identity
        self.session = Session(new_id())
        self.task: Task | None = None
        self.payload_limit = 0
        self.tasks_done = 0
        self._new_id = new_id
        self._liveness_s = liveness_s
        self._max_tasks = max_tasks
        self._welcome_by = inf
        self._is_session_lost = False
        self._sessions = 0
        self.is_leaving = False

    def start(self, now: float) -> list[Action]:
        """The first session."""
        return self._open(now)

    def on_message(self, message: ToWorker, now: float) -> list[Action]:
        """What the broker sent into this session."""
        match message:
            case Welcome(epoch, payload_limit):
                self.payload_limit = payload_limit
                self.session = Session(self.session.incarnation, epoch, message.beat_s)
                self._welcome_by = inf
                return [Report("broker_found")]
            case Task():
                if self.task is not None or message.epoch != self.session.epoch:
                    return []
                self.task = message
                return [Execute(message)]
            case Who():
                return self.on_session_lost(self.session.incarnation, now)
            case Recycle():
                return self.on_terminate()
            case Bye():
                return []  # the next broker's epoch will tell
            case _:
                assert_never(message)

    def on_session_lost(self, incarnation: Id, now: float) -> list[Action]:
        """The broker does not know this incarnation, or is another than it was."""
        if incarnation != self.session.incarnation or self.is_leaving:
            return []
        if self.task is not None:
            self._is_session_lost = True
            return []
        return [Report("session_lost"), *self._open(now)]

    def on_finished(
        self, outcome: Outcome, payload: bytes, now: float, *, wants_recycling: bool = False
    ) -> list[Action]:
        """The transform ended, one way or the other. Who `wants_recycling` works on until the broker can spare it."""
        task, self.task = self.task, None
        if task is None:
            return []
        self.tasks_done += 1
        actions: list[Action] = []
        if not self._is_session_lost:
            recycle = wants_recycling or 0 < self._max_tasks <= self.tasks_done
            actions.append(Send(Result(task.epoch, task.lease, task.task_id, outcome, recycle, payload)))
        if self.is_leaving:
            return actions + self._leave()
        if self._is_session_lost:
            actions += [Report("session_lost"), *self._open(now)]
        return actions

    def on_terminate(self) -> list[Action]:
        """Asked to end: at once when idle, after the reply when busy."""
        if self.task is None:
            return self._leave()
        self.is_leaving = True
        return [Report("worker_draining")]

    def on_tick(self, now: float) -> list[Action]:
        """A READY that nobody answered may have gone to a broker that is no more."""
        return self._open(now) if now >= self._welcome_by else []

    def next_check(self) -> float:
        """When `on_tick` has something to do."""
        return self._welcome_by

    def audit(self) -> list[str]:
        """The invariants that do not hold; empty but for a bug. For tests."""
        is_welcome = self.session.epoch is not None
        return [] if self.task is None or is_welcome else ["a task came into a session that nobody welcomed"]

    def _open(self, now: float) -> list[Action]:
        self.session = Session(self._new_id())
        self._is_session_lost = False
        self._welcome_by = now + self._liveness_s
        self._sessions += 1
        me = self.identity
        return [
            OpenSession(Ready(self.session.incarnation, self._sessions, me.name, me.pid, me.version, me.started_at_ms))
        ]

    def _leave(self) -> list[Action]:
        self.is_leaving = True
        return [Send(Bye()), Exit()]
