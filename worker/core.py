"""The worker's decisions: its session with the broker and the tasks in hand. Knows no socket, clock or transform.

A session has an id of its own and one fresh socket. READY opens it; WELCOME confirms it and names the broker's epoch.
It ends when the broker does not know it (WHO) or has another epoch. A busy worker finishes its task first, but drops
the result, because the broker would refuse it as stale.

A task that comes while another one runs waits in the hand. The worker receives all messages before it begins that task:
the broker may have recalled it.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import TypeAlias, assert_never

from racepool.protocol.messages import (
    Assign,
    Bye,
    Epoch,
    FromWorker,
    Id,
    Name,
    Outcome,
    Ready,
    Recall,
    Recycle,
    Result,
    Returned,
    ToWorker,
    Welcome,
    Who,
)

MAX_TASKS = 2
"""Running and in hand together. A broker that keeps to the protocol never gives more."""


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
    """Run the transform on this task, then call `on_finished`."""

    task: Assign


@dataclass(frozen=True, slots=True)
class Exit:
    """End the process when all messages have gone out."""


@dataclass(frozen=True, slots=True)
class Report:
    """Log this event, for the operator."""

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
    """A session. Never changed, only replaced: the heartbeat thread reads it without a lock."""

    id: Id  # the wire calls it incarnation
    epoch: Epoch | None = None  # of the broker that welcomed it; None before that
    beat_s: float = inf  # the longest interval between heartbeats that this broker accepts


class WorkerCore:
    """One worker's session, its task, and the tasks in its hand.

    Invariants: `task` is set from Execute to `on_finished`. A result is sent at most once, and only in the session that
    brought the task. All tasks in hand come from the present session.
    """

    def __init__(self, identity: Identity, new_id: Callable[[], Id], *, liveness_s: float, max_tasks: int) -> None:
        self.identity = identity
        self.session = Session(new_id())
        self.task: Assign | None = None
        self._hand: deque[Assign] = deque()
        self.payload_limit = 0
        self.tasks_done = 0
        self._new_id = new_id
        self._liveness_s = liveness_s
        self._max_tasks = max_tasks
        self._welcome_by = inf
        self._is_session_lost = False  # known while the task still runs
        self._sessions = 0
        self.is_leaving = False

    @property
    def is_busy(self) -> bool:
        """Whether it runs or holds a task. Another thread may ask.

        The hand is read first. `begin` sets `task` before it empties the hand: one of the two is always seen.
        """
        return bool(self._hand) or self.task is not None

    def start(self, now: float) -> list[Action]:
        """Opens the first session."""
        return self._open(now)

    def on_message(self, message: ToWorker, now: float) -> list[Action]:
        """The broker sent this in the present session."""
        match message:
            case Welcome(epoch, payload_limit):
                self.payload_limit = payload_limit
                self.session = Session(self.session.id, epoch, message.beat_s)
                self._welcome_by = inf
                return [Report("broker_found")]
            case Assign():
                self._take(message)
                return []
            case Recall(lease):
                return self._give_back(lease)
            case Who():
                return self.on_session_lost(self.session.id, now)
            case Recycle():
                return self.on_terminate()
            case Bye():
                return []  # the epoch of the next broker ends this session
            case _:
                assert_never(message)

    def begin(self) -> list[Action]:
        """Begins the next task in hand. To be called when all messages were received."""
        if self.task is not None or not self._hand:
            return []
        self.task = self._hand[0]  # before it leaves the hand: see `is_busy`
        self._hand.popleft()
        return [Execute(self.task)]

    def on_session_lost(self, session_id: Id, now: float) -> list[Action]:
        """The broker does not know this session, or it has another epoch."""
        if session_id != self.session.id or self.is_leaving:
            return []
        self._hand.clear()
        if self.task is not None:
            self._is_session_lost = True
            return []
        return [Report("session_lost"), *self._open(now)]

    def on_finished(
        self, outcome: Outcome, payload: bytes, now: float, *, wants_recycling: bool = False
    ) -> list[Action]:
        """The transform has ended.

        A worker that `wants_recycling` says so in its result, and works on until the broker lets it go.
        """
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
        """Ends the worker: at once if nothing runs, else after the result. The broker requeues the hand at BYE."""
        self._hand.clear()
        if self.task is None:
            return self._leave()
        self.is_leaving = True
        return [Report("worker_draining")]

    def on_tick(self, now: float) -> list[Action]:
        """Repeats a READY that nobody answered: its broker may have ended."""
        return self._open(now) if now >= self._welcome_by else []

    def next_check(self) -> float:
        """The instant at which `on_tick` has something to do."""
        return self._welcome_by

    def audit(self) -> list[str]:
        """The invariants that do not hold; empty unless there is a bug. For tests."""
        tasks = [*self._hand, *([self.task] if self.task is not None else [])]
        broken = [] if not tasks or self.session.epoch is not None else ["a task in a session that nobody welcomed"]
        if len(tasks) > MAX_TASKS or (self._hand and (self._is_session_lost or self.is_leaving)):
            broken.append("more in hand than it may have")
        return broken

    def _take(self, task: Assign) -> None:
        """Ignores a task of another epoch, and a task beyond the number that a broker may give."""
        is_free = len(self._hand) + (self.task is not None) < MAX_TASKS
        if is_free and task.epoch == self.session.epoch and not self._is_session_lost and not self.is_leaving:
            self._hand.append(task)

    def _give_back(self, lease: int) -> list[Action]:
        """Returns a task that is still in hand. For a task that was begun, the result is the answer."""
        for task in self._hand:
            if task.lease == lease:
                self._hand.remove(task)
                return [Send(Returned(task.epoch, lease))]
        return []

    def _open(self, now: float) -> list[Action]:
        self.session = Session(self._new_id())
        self._is_session_lost = False
        self._welcome_by = now + self._liveness_s
        self._sessions += 1
        me = self.identity
        return [OpenSession(Ready(self.session.id, self._sessions, me.name, me.pid, me.version, me.started_at_ms))]

    def _leave(self) -> list[Action]:
        self.is_leaving = True
        return [Send(Bye()), Exit()]
